"""Which layer another was made from, while napari runs; names may change and come again."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from .layers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Image, Layer

_SOURCES: weakref.WeakKeyDictionary[Layer, tuple[weakref.ref[Image], str]]
_SOURCES = weakref.WeakKeyDictionary()


def remember_source(layer: Layer, source: Image, task: str) -> None:
    """Remember that a task made a layer from a source; a preview is of no task."""
    _SOURCES[layer] = weakref.ref(source), task


def meant_by(layer: Layer, task: str, present: Iterable[Layer]) -> Layer:
    """Layer that is to be restored where another is selected.

    A preview stands for its source, in every dock; so does a result, in the dock that made it: what
    is selected after a run can be run again with other options, and is not restored twice.

    Parameters
    ----------
    layer : Layer
        Selected.
    task : str
        Of the dock.
    present : iterable of Layer
        Layers of the viewer.
    """
    reference, made_by = _SOURCES.get(layer, (None, ""))
    source = None if reference is None else reference()
    if source is None or made_by not in ("", task) or source not in present:
        return layer
    return meant_by(source, task, present)


def source_of(layer: Layer, present: Iterable[Layer]) -> Image | None:
    """Layer that a preview or a result was made from, if it is there.

    Of a result that was saved and opened again, the layer of the name that its metadata say.
    """
    present = list(present)
    if layer in _SOURCES:
        source = _SOURCES[layer][0]()
        return source if source in present else None
    name = layer.metadata.get(METADATA_KEY, {}).get("source")
    return next((x for x in present if x.name == name and x is not layer), None)


def results_of(source: Layer, task: str, present: Iterable[Layer]) -> list[Layer]:
    """Results that a dock made of a source, among the layers of a viewer."""
    return [x for x in made_from(source, present) if _SOURCES[x][1] == task]


def made_from(source: Layer, present: Iterable[Layer]) -> list[Layer]:
    """Previews and results of a source, among the layers of a viewer."""
    return [x for x in present if x in _SOURCES and _SOURCES[x][0]() is source]
