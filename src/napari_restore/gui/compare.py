"""Two images of a viewer, shown so that they can be compared: what is hidden and linked."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.experimental import link_layers, unlink_layers
from napari.layers import Image
from psygnal import Signal

from napari_restore.errors import RestoreError
from napari_restore.image.layout import as_dask, is_lazy

from .canvas import camera_of, grid_of
from .layers import METADATA_KEY, PLACE
from .lineage import made_from, source_of
from .stacking import insert_on_top

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from .swipe import SwipeLine

#: What two images share while they are compared.
_LOOKS = ("contrast_limits", "gamma", "colormap")
#: Samples that are looked at for the range of a difference.
_LOOKED_AT = 2**20
_OPEN: weakref.WeakKeyDictionary[ViewerModel, Comparison] = weakref.WeakKeyDictionary()


def comparison_of(viewer: Any) -> Comparison:
    """Comparison of a viewer: there is one, for all docks and commands."""
    # A command gets a proxy, which hides what draws the canvas.
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer not in _OPEN:
        _OPEN[viewer] = Comparison(viewer)
    return _OPEN[viewer]


class Comparison:
    """Shows two images, or more, of a viewer beside each other; `stop` gives back the view.

    Parameters
    ----------
    viewer : napari.components.ViewerModel

    Attributes
    ----------
    mode : str
        "swipe", "side by side", "docks", or nothing.
    """

    #: The mode is another.
    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.mode = ""
        # The viewer holds the comparison, not the other way round.
        self._viewer = weakref.ref(viewer)
        self._shown: list[Image] = []
        self._temporary: list[Image] = []
        self._visible: list[tuple[Layer, bool]] = []
        self._named: list[Any] = []
        self._linked: set[str] = set()
        self._grid: dict[str, Any] = {}
        self._columns = 1
        self._line: SwipeLine | None = None
        self._held: list[tuple[Layer, bool]] | None = None

    @property
    def viewer(self) -> ViewerModel:
        """Viewer whose layers are compared."""
        viewer = self._viewer()
        assert viewer is not None, "a closed viewer compares nothing"
        return viewer

    # ------------------------------------------------------------ what is compared

    def pair(self) -> tuple[Image, Image]:
        """Images that the selection means: two that are selected, or a result and its source.

        Returns
        -------
        first, second
            The source, or the lower one; the result, or the upper one.

        Raises
        ------
        RestoreError
            If it means no two images.
        """
        layers, chosen = self.viewer.layers, self.viewer.layers.selection
        images = [x for x in layers if x in chosen and isinstance(x, Image)]
        if len(images) == 2:
            source = source_of(images[0], layers)
            return (images[1], images[0]) if source is images[1] else (images[0], images[1])
        if len(images) == 1:
            source = source_of(images[0], layers)
            if source is not None:
                return source, images[0]
            # A result that was made last lies on top.
            results = [x for x in made_from(images[0], layers) if _compares(images[0], x)]
            if results:
                return images[0], results[-1]
        raise RestoreError(
            "Select a result or a preview to compare it with its source, or select two image "
            "layers to compare them with each other."
        )

    # ------------------------------------------------------------ ways to look

    def swipe(self) -> str:
        """Put a line over the canvas: left of it is the first image, right of it the second.

        Returns
        -------
        str
            What is shown, in a sentence.
        """
        from .swipe import SwipeLine

        first, second = self.pair()
        window = getattr(self.viewer, "window", None)
        if window is None:
            raise RestoreError("A swipe line needs napari's window.")
        self.stop()
        self._begin("swipe", [first, second])
        self._line = SwipeLine(window._qt_viewer, first, second)
        self.changed.emit()
        return f"Left of the line '{first.name}', right of it '{second.name}'. Drag the line."

    def side_by_side(self) -> str:
        """Put two images beside each other; they move together."""
        first, second = self.pair()
        self.stop()
        self._begin("side by side", [first, second])
        places = [self.viewer.layers.index(layer) for layer in (first, second)]
        # Whatever lies between the two in the list, they fall into neighboring cells.
        self._use_grid((1, 2), abs(places[1] - places[0]))
        self.changed.emit()
        return f"'{first.name}' beside '{second.name}'. They move together."

    def show_docks(self, source: Image, previews: Sequence[Image]) -> None:
        """Show an image and previews of it in a grid; the previews go with the comparison."""
        self.stop()
        insert_on_top(self.viewer, previews)
        self._temporary = list(previews)
        self._begin("docks", [source, *previews])
        self._use_grid((2, math.ceil((len(previews) + 1) / 2)), 1)
        self.changed.emit()

    def difference(self) -> str:
        """Add the second image minus the first as a layer."""
        first, second = self.pair()
        layer = difference_layer(first, second)
        insert_on_top(self.viewer, [layer])
        self.viewer.layers.selection = {second}
        most = layer.contrast_limits[1]
        return (
            f"'{layer.name}', in gray values from −{most:.3g} to {most:.3g}. Red: the second is "
            "brighter; blue: it is darker."
        )

    def profile(self) -> str:
        """Plot both images along a line of a Shapes layer."""
        from .profile import show_profile

        show_profile(self.viewer, self.pair())
        return "Drag the ends of the line, or draw another one in its layer."

    def hold(self, down: bool) -> None:
        """Show the first image in place of the second while a key or a button is held down."""
        if not down:
            before, self._held = self._held, None
            _show(before or [])
            return
        if self._held is not None:
            return  # keys repeat while they are held
        first, second = self.pair()
        images = [x for x in self.viewer.layers if isinstance(x, Image) and x is not first]
        over = [x for x in images if x is second or source_of(x, self.viewer.layers) is first]
        self._held = [(x, x.visible) for x in (*over, first)]
        _show([*((x, False) for x in over), (first, True)])

    def toggle(self) -> None:
        """Show the first image in place of the second, until it is called again."""
        self.hold(self._held is None)

    def stop(self) -> None:
        """Give back the view as it was before."""
        self.hold(False)
        if not self.mode:
            return
        self.mode = ""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        if self._line is not None:
            self._line.remove()
            self._line = None
        shown = [layer for layer in self._shown if layer in self.viewer.layers]
        if self._linked and len(shown) > 1:
            unlink_layers(shown, self._linked)
        for overlay in self._named:
            overlay.visible = False
        if self._grid:
            grid_of(self.viewer).update(self._grid)
            camera_of(self.viewer).zoom *= self._columns
        for layer in self._temporary:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        _show([(layer, on) for layer, on in self._visible if layer in self.viewer.layers])
        self._shown, self._temporary, self._visible, self._named = [], [], [], []
        self._linked, self._grid = set(), {}
        self.changed.emit()

    # ------------------------------------------------------------ how

    def _begin(self, mode: str, shown: list[Image]) -> None:
        """Show nothing but some images, with the looks of the first."""
        self.mode, self._shown = mode, shown
        beside = (Image,) if mode == "swipe" else (object,)
        others = [x for x in self.viewer.layers if isinstance(x, beside) and x not in shown]
        # A preview hides its source as it appears: the first comes last.
        self._visible = [(x, x.visible) for x in (*others, *reversed(shown))]
        _show([*((x, False) for x in others), *((x, True) for x in reversed(shown))])
        looks = ("gamma",) if any(layer.rgb for layer in shown) else _LOOKS
        for layer in shown[1:]:
            for name in looks:
                setattr(layer, name, getattr(shown[0], name))
        # What the user linked stays linked.
        self._linked = {attribute for *_, attribute in link_layers(shown, looks)}
        self.viewer.layers.events.removed.connect(self._on_removed)

    def _use_grid(self, shape: tuple[int, int], stride: int) -> None:
        grid = grid_of(self.viewer)
        self._grid = {"enabled": grid.enabled, "shape": grid.shape, "stride": grid.stride}
        for layer in self._shown:
            overlay = getattr(layer, "name_overlay", None)  # since napari 0.7
            if overlay is not None and not overlay.visible:
                overlay.visible = True
                self._named.append(overlay)
        grid.update({"shape": shape, "stride": stride, "enabled": True})
        # What was seen is seen in each cell.
        self._columns = shape[1]
        camera_of(self.viewer).zoom /= self._columns

    def _on_removed(self, event: Any) -> None:
        if event.value in self._shown:
            self.stop()


def _show(what: Sequence[tuple[Layer, bool]]) -> None:
    for layer, visible in what:
        layer.visible = visible


def _compares(first: Image, second: Layer) -> bool:
    """Whether a layer is another state of an image, and not its motion or what was removed."""
    shows = second.metadata.get(METADATA_KEY, {}).get("shows")
    return isinstance(second, Image) and not shows and second.ndim == first.ndim


# ---------------------------------------------------------------- difference


def difference_layer(first: Image, second: Image) -> Image:
    """Make a layer of the second image minus the first, in gray values.

    Of color images it is the difference of the mean of red, green and blue. It is lazy if one of
    them is, and multiscale if both are.

    Raises
    ------
    RestoreError
        If they differ in shape.
    """
    pairs = list(
        zip(*(x.data if x.multiscale else [x.data] for x in (first, second)), strict=False)
    )
    shapes = [tuple(array.shape) for array in pairs[0]]
    if shapes[0] != shapes[1]:
        raise RestoreError(
            f"'{first.name}' has the shape {shapes[0]} and '{second.name}' {shapes[1]}. A "
            "difference needs two images of the same shape."
        )
    levels = [_change(source, result, first.rgb) for source, result in pairs]
    multiscale = first.multiscale and second.multiscale
    most = _reach(levels[-1], first)
    place = {name: getattr(first, name) for name in PLACE}
    layer = Image(
        levels if multiscale else levels[0],
        name=f"{second.name} − {first.name}",
        multiscale=multiscale,
        rgb=False,
        colormap="coolwarm",
        contrast_limits=(-most, most),
        metadata={
            METADATA_KEY: {
                "shows": "difference",
                "of": [second.name, first.name],
                "values": "gray values",
            }
        },
        **place,
    )
    if hasattr(layer, "colorbar"):  # since napari 0.7
        layer.colorbar.visible = True
    return layer


def _change(first: Any, second: Any, color: bool) -> Any:
    lazy = is_lazy(first) or is_lazy(second)
    pair = [as_dask(x) if lazy else np.asarray(x) for x in (second, first)]
    wide = np.float64 if any(x.dtype.itemsize > 2 for x in pair) else np.float32
    parts = [_gray(x, wide, color) for x in pair]
    return (parts[0] - parts[1]).astype(np.float32)


def _gray(array: Any, wide: Any, color: bool) -> Any:
    return array[..., :3].astype(wide).mean(axis=-1) if color else array.astype(wide)


def _reach(change: Any, first: Image) -> float:
    """How far a difference goes from zero, but for one sample in a thousand."""
    span = (255.0 if first.rgb else float(np.ptp(first.contrast_limits))) or 1.0
    if is_lazy(change):
        return span / 4
    flat = change.reshape(-1)
    sample = np.abs(flat[:: max(1, flat.size // _LOOKED_AT)])
    sample = sample[np.isfinite(sample)]
    most = float(np.percentile(sample, 99.9)) if sample.size else 0.0
    return most or span / 1000


# ---------------------------------------------------------------- keys

#: Held to see the source. No layer of napari has it.
HOLD_KEY = "H"


def hold_key(comparison: Comparison) -> Any:
    """Make a binding that shows the source until the key is let go."""

    def hold(_: Any) -> Any:
        try:
            comparison.hold(True)
        except RestoreError:
            return
        yield
        comparison.hold(False)

    return hold
