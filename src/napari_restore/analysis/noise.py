"""How strong the noise of an image is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Fourth differences: what is smooth over five pixels leaves nothing.
_FILTER = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)
#: Side of the blocks in pixels, how many levels of brightness are told apart, and which of the
#: blocks of a level counts: structure is in the others.
_BLOCK, _LEVELS, _QUIET = 16, 6, 0.3
#: By how much that block has less noise than the mean of all, by chance.
_CHANCE = 1.09


def noise_level(image: NDArray[np.floating]) -> float:
    """Estimate the noise of an image.

    Parameters
    ----------
    image : ndarray
        (H, W) or (H, W, C), any range.

    Returns
    -------
    float
        Root mean square over the image, in its units, rounding included. Shot noise differs with
        the brightness: levels of brightness are estimated apart, and averaged.

    Notes
    -----
    Differences along both axes that leave little of what is smooth, as in Immerkaer, "Fast Noise
    Variance Estimation", CVIU 1996; of the blocks of each brightness the quiet ones, since texture
    is not noise.
    """
    planes = np.asarray(image, np.float64)
    planes = planes[..., None] if planes.ndim == 2 else planes
    variances = [_variance(planes[..., index]) for index in range(planes.shape[-1])]
    return float(np.sqrt(np.mean(variances)))


def _variance(plane: NDArray[np.float64]) -> float:
    if min(plane.shape) < 12:
        return 0.0
    rough = ndimage.convolve1d(ndimage.convolve1d(plane, _FILTER, axis=0), _FILTER, axis=1)
    rough, plane = rough[2:-2, 2:-2], plane[2:-2, 2:-2]
    block = min(_BLOCK, *plane.shape)
    energy, level = (_blocks(part, block).ravel() for part in (rough**2, plane))
    order = np.argsort(level)
    parts = np.array_split(energy[order], max(1, min(_LEVELS, len(order) // 8)))
    return float(
        np.average([np.quantile(part, _QUIET) for part in parts], weights=[len(p) for p in parts])
    ) * (_CHANCE**2)


def _blocks(plane: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Means over blocks."""
    height, width = (length // side * side for length in plane.shape)
    cut = plane[:height, :width].reshape(height // side, side, width // side, side)
    means: NDArray[np.float64] = cut.mean((1, 3))
    return means
