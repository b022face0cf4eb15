"""From samples to what a network sees, and from what it changes to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .intensity import add_change, fill_invalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .axes import Planes
    from .intensity import Scale
    from .tiles import Region

#: Rows that are converted at once: what is in between stays small.
BAND = 64


def normalised(
    source: Planes,
    index: tuple[int, ...],
    region: Region,
    scale: Scale,
    frames: int,
    block: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Read what a network sees of a region: (h, w, C), or with two frames (h, w, 2 C).

    ``block`` is what `Planes.read` gives for the region, if it was read already.
    """
    channels = source.layout.channels
    blocks = [source.read(index, region) if block is None else block]
    if frames == 2:
        blocks.append(source.read(source.layout.neighbour(index), region))
    seen = np.empty((region.height, region.width, frames * channels), np.float32)
    for number, part in enumerate(blocks):
        filled = fill_invalid(part)[0]
        there = seen[..., number * channels : (number + 1) * channels]
        for first in range(0, region.height, BAND):
            band = slice(first, first + BAND)
            there[band] = scale.normalise(filled[band, :, :channels])
    return seen


def as_they_are(
    source: Planes, index: tuple[int, ...], region: Region, frames: int, block: NDArray[Any]
) -> NDArray[Any]:
    """Read the samples of what a network sees of a region; parameters as for `normalised`."""
    channels = source.layout.channels
    blocks = [block]
    if frames == 2:
        blocks.append(source.read(source.layout.neighbour(index), region))
    if len(blocks) == 1 and channels == block.shape[-1]:
        return np.ascontiguousarray(block)
    return np.concatenate([part[..., :channels] for part in blocks], -1)


def fit_float32(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every sum of a sample and a change of it: integers of 8 and 16 bits."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def add_residual(
    original: NDArray[Any], change: NDArray[np.float32], span: float
) -> tuple[NDArray[Any], int]:
    """Add the network's change to samples (h, w, S); count those that were clipped."""
    kind = np.float32 if fit_float32(original.dtype) else np.float64
    scaled: NDArray[Any] = change * kind(span)
    restored, count = add_change(original[..., : change.shape[-1]], scaled)
    return with_alpha(restored, original), count


def with_alpha(restored: NDArray[Any], original: NDArray[Any]) -> NDArray[Any]:
    """Add the alpha of the original, if it has one."""
    if restored.shape == original.shape:
        return restored
    return np.concatenate([restored, original[..., restored.shape[-1] :]], -1)
