"""Sample images for File ▸ Open Sample."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_restore.samples import SAMPLES, load_sample

if TYPE_CHECKING:
    from collections.abc import Callable


def open_sample(key: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Layer data of one sample, as napari takes it."""
    array, options = load_sample(key)
    return [(array, options, "image")]


def __getattr__(name: str) -> Callable[[], list[tuple[Any, dict[str, Any], str]]]:
    """Resolve ``open_KEY``: the manifest wants a function for each sample."""
    key = name.removeprefix("open_")
    if name.startswith("open_") and any(sample.key == key for sample in SAMPLES):
        return partial(open_sample, key)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
