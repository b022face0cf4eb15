"""The temporary layer that shows a restored region in its image."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from napari_restore.image.layout import as_dask
from napari_restore.image.pyramid import pyramid

from .canvas import shows
from .layers import METADATA_KEY, make_layer
from .lineage import remember_source
from .stacking import insert_on_top
from .strength import blended

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_restore.image.layout import Block

    from .jobs import LayerJob

#: Bytes up to which an image in memory is copied for a preview.
_COPIED = 2**28


class Preview:
    """A temporary layer in the place of its source: the same image, a region of it restored.

    Nothing is laid over the source, which is hidden meanwhile: with additive blending both would be
    added up, and what is translucent would mix. Switching the layer off shows the source again. An
    outline says where the region is if it is not all there is.

    Parameters
    ----------
    job : LayerJob
    block : tuple of slice
        The region: a part of one plane, for each axis of the layer but that of color.
    original, restored : ndarray
        Of the shape of the block, with the samples of color after it; restored at full strength.
    """

    _of: ClassVar[weakref.WeakKeyDictionary[Image, Preview]] = weakref.WeakKeyDictionary()

    def __init__(
        self,
        job: LayerJob,
        block: Block,
        original: Any,
        restored: Any,
    ) -> None:
        self.source, self.strength = job.layer, 1.0
        self._levels, self._multiscale = job.shown_levels, job.state["multiscale"]
        self._block = block
        self._original, self._restored = original, restored
        self._viewer: ViewerModel | None = None
        self.layer = make_layer(
            self._data(restored),
            job.state
            | {
                "name": f"{job.name} [preview]",
                "metadata": {METADATA_KEY: {"preview": True}},
                "visible": True,
            },
        )
        remember_source(self.layer, self.source, "")

    def show(self, viewer: ViewerModel) -> None:
        """Add the layer to a viewer, and hide the source and an earlier preview of it."""
        if (earlier := Preview._of.get(self.source)) is not None:
            earlier.remove()
        Preview._of[self.source] = self
        self._viewer, self._was_visible = viewer, self.source.visible
        insert_on_top(viewer, [self.layer])
        viewer.layers.selection.active = self.layer
        self.source.visible = False
        self.layer.events.visible.connect(self._swap)
        self.layer.events.set_data.connect(self._outline)
        for event in self._slicing(viewer):
            event.connect(self._outline)
        self._outline()

    def remove(self) -> None:
        """Take the layer away, and show the source as it was."""
        viewer, self._viewer = self._viewer, None
        if viewer is None:
            return
        self.layer.events.visible.disconnect(self._swap)
        self.layer.events.set_data.disconnect(self._outline)
        for event in self._slicing(viewer):
            event.disconnect(self._outline)
        if Preview._of.get(self.source) is self:
            del Preview._of[self.source]
        self.source.visible = self._was_visible
        chosen = viewer.layers.selection
        if (self.layer in chosen or not chosen) and self.source in viewer.layers:
            viewer.layers.selection.active = self.source
        if self.layer in viewer.layers:
            viewer.layers.remove(self.layer)

    def blend(self, strength: float) -> None:
        """Show another strength; no network is needed."""
        if strength != self.strength:
            self.strength = strength
            self.layer.data = self._data(blended(self._original, self._restored, strength, 1.0))

    def _swap(self) -> None:
        self.source.visible = not self.layer.visible

    @staticmethod
    def _slicing(viewer: ViewerModel) -> tuple[Any, ...]:
        events = viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _data(self, restored: NDArray[Any]) -> Any:
        levels = [self._exchanged(level, restored) for level in self._levels]
        return levels if self._multiscale else levels[0]

    def _exchanged(self, level: Any, restored: NDArray[Any]) -> Any:
        """Exchange the region in a level of the source."""
        finest, spans = self._levels[0].shape, []
        for part, whole, here in zip(self._block, finest, level.shape, strict=False):
            factor = max(1, round(whole / here))
            first = -(-part.start // factor)
            last = here if part.stop == whole else part.stop // factor
            spans.append((factor, first, min(last, here), first * factor - part.start))
        if any(last <= first for _, first, last, _ in spans):
            return level
        inside = restored[tuple(slice(skip, None) for *_, skip in spans)]
        if any(factor > 1 for factor, *_ in spans):
            size = tuple(last - first for _, first, last, _ in spans)
            covered = zip(size, spans, strict=True)
            inside = inside[tuple(slice(0, n * factor) for n, (factor, *_) in covered)]
            inside = pyramid(inside, [(*size, *inside.shape[len(size) :])])[-1]
        key = tuple(slice(first, last) for _, first, last, _ in spans)
        if isinstance(level, np.ndarray) and level.nbytes <= _COPIED:
            copy: Any = level.copy()
        elif isinstance(level, np.ndarray):
            import dask.array as da

            # Each plane is copied when it is looked at.
            before = len(self._block) - 2
            chunks = (1,) * before + level.shape[before:]
            copy = da.from_array(level, chunks=chunks, name=False)
        else:
            copy = as_dask(level).copy()
        copy[key] = inside
        return copy

    def _outline(self) -> None:
        """Show where the region is, in the slice that it is in, unless it is the whole plane."""
        viewer, block = self._viewer, self._block
        # napari's own box, which needs no layer. Layers of other kinds that come and go with this
        # one were seen to end the whole program where OpenGL is computed by Mesa.
        box = self.layer._overlays.get("selection_box")
        if box is None or viewer is None:
            return
        axes = shows(self.layer, viewer.dims, block)
        if axes is None:
            box.visible = False
            return
        # In pixels of what is drawn: of a pyramid, a part of the level that suits the zoom.
        drawn, sides = self.layer._transforms["tile2data"], []
        for axis in axes:
            start, scale = drawn.translate[axis], drawn.scale[axis]
            ends = (block[axis].start, block[axis].stop)
            sides.append([float((end - start) / scale) - 0.5 for end in ends])
        box.bounds = tuple(zip(*sides, strict=True))
        shape = self._levels[0].shape
        box.visible = any(block[axis].stop - block[axis].start < shape[axis] for axis in axes)


def is_preview(layer: Any) -> bool:
    """Whether a layer is a temporary one, of any dock."""
    return bool(layer.metadata.get(METADATA_KEY, {}).get("preview"))
