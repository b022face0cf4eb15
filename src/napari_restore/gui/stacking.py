"""Where new layers go in the list, and what is hidden so that they can be seen as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image
from napari.utils.notifications import show_warning

from .describe import summary
from .extras import motion_layer, removed_layer
from .layers import result_layer, result_name
from .lineage import made_from, remember_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from .jobs import LayerJob
    from .work import RestoredLayer

#: With these a layer does not cover what lies beneath it.
_ADDING = ("additive", "minimum", "multiplicative")


def insert_on_top(viewer: ViewerModel, layers: Sequence[Layer]) -> None:
    """Add layers, from bottom to top, over all images and beneath what is drawn over images."""
    present = viewer.layers
    images = [place for place, layer in enumerate(present) if isinstance(layer, Image)]
    place = images[-1] + 1 if images else len(present)
    for number, layer in enumerate(layers):
        present.insert(place + number, layer)


def hide_beneath(result: Image, source: Layer, viewer: ViewerModel) -> str:
    """Hide what would mix with a result of it: its source, and earlier results; say what and why.

    Returns
    -------
    str
        A sentence, empty if nothing had to be hidden.
    """
    adds = result.blending in _ADDING
    if not adds and result.opacity == 1:
        return ""
    layers = [source, *made_from(source, viewer.layers)]
    layers = [x for x in layers if isinstance(x, Image) and x is not result]
    hidden = [x for x in layers if x in viewer.layers and x.visible]
    if not hidden:
        return ""
    for layer in hidden:
        layer.visible = False
    names = ", ".join(f"'{layer.name}'" for layer in hidden)
    how = f"its blending is {result.blending}" if adds else f"its opacity is {result.opacity:.0%}"
    verb = "was" if len(hidden) == 1 else "were"
    return f"{names} {verb} hidden: '{result.name}' does not cover what is beneath it, {how}."


class Run:
    """What one run changes in a viewer, so that it can be undone.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Before the run adds anything.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._before = [(layer, layer.visible) for layer in viewer.layers]
        self._added: list[Layer] = []
        self._removed: list[tuple[int, Layer]] = []

    def remove(self, layers: Sequence[Layer]) -> None:
        """Take layers away; they come back."""
        for layer in layers:
            self._removed.append((self._viewer.layers.index(layer), layer))
            self._viewer.layers.remove(layer)

    def end(self) -> None:
        """Note what was added."""
        before = {layer for layer, _ in self._before}
        self._added = [layer for layer in self._viewer.layers if layer not in before]

    def undo(self) -> str:
        """Give back what was there, and say what went."""
        layers = self._viewer.layers
        gone = [layer for layer in self._added if layer in layers]
        for layer in gone:
            layers.remove(layer)
        for place, layer in reversed(self._removed):
            layers.insert(min(place, len(layers)), layer)
        for layer, visible in self._before:
            if layer in layers:
                layer.visible = visible
        names = ", ".join(f"'{layer.name}'" for layer in gone)
        back = ", ".join(f"'{layer.name}'" for _, layer in self._removed)
        return f"{names or 'Nothing'} taken away." + (f" {back} put back." if back else "")


def add_result(viewer: ViewerModel, job: LayerJob, found: RestoredLayer) -> tuple[Image, str]:
    """Add a result, with what was asked for beside it; and say what it is."""
    result, record = result_layer(job, found.restoration), found.restoration.provenance
    if result.name in viewer.layers:
        result.name = result_name(job, taken=True)
    layers: list[Layer] = [result]
    if found.removed is not None:
        layers.insert(0, removed_layer(job, found.removed, record))
    if found.motion is not None:
        layers.append(motion_layer(job, found.motion, record))
    for layer in layers:
        remember_source(layer, job.layer, job.plan.spec.task)
    insert_on_top(viewer, layers)
    # The dock said before what was decided then.
    for note in [note for note in record["notes"] if note not in job.plan.notes]:
        show_warning(note)
    # Only now it has the name that it will be called by.
    said = [summary(job, result), hide_beneath(result, job.layer, viewer)]
    return result, " ".join(text for text in said if text)
