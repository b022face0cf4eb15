"""Coarser levels of a multiscale image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Samples that are averaged at a time, so that no copy of a whole level is made.
_SLAB_SAMPLES = 2**24


def pyramid(finest: NDArray[Any], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[Any]]:
    """Coarser levels of given shapes, each averaged from the level above.

    Parameters
    ----------
    finest : ndarray
    shapes : sequence of tuple
        Shapes of the coarser levels, of as many axes.

    Returns
    -------
    list of ndarray
        The finest level and the others, in its dtype; booleans by majority.
    """
    levels = [finest]
    for shape in shapes:
        levels.append(_reduce(levels[-1], tuple(shape)))
    return levels


def _reduce(level: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    from skimage.transform import downscale_local_mean

    factors = tuple(max(1, round(a / b)) for a, b in zip(level.shape, shape, strict=True))
    out = np.empty(shape, level.dtype)
    # Slabs along the first axis that is longer than one.
    axis = next((i for i, length in enumerate(shape) if length > 1), 0)
    row = max(1, level.size // max(1, level.shape[axis])) * factors[axis]
    step = max(1, _SLAB_SAMPLES // row)
    for start in range(0, shape[axis], step):
        stop = min(start + step, shape[axis])
        index = [slice(0, b * f) for b, f in zip(shape, factors, strict=True)]
        index[axis] = slice(start * factors[axis], stop * factors[axis])
        slab = level[tuple(index)]
        wanted = [b * f for b, f in zip(shape, factors, strict=True)]
        wanted[axis] = (stop - start) * factors[axis]
        grow = [(0, w - a) for w, a in zip(wanted, slab.shape, strict=True)]
        if any(after for _, after in grow):
            slab = np.pad(slab, grow, mode="edge")
        mean = downscale_local_mean(slab.astype(np.float64), factors)
        if level.dtype == np.bool_:
            mean = mean >= 0.5
        elif np.issubdtype(level.dtype, np.integer):
            mean = np.rint(mean)
        place = [slice(None)] * level.ndim
        place[axis] = slice(start, stop)
        out[tuple(place)] = mean
    return out
