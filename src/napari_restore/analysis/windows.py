"""Windows of a large image that are rich in structure: a bounded number, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Most windows along each axis that are looked at.
_MOST = 4


class Window(NamedTuple):
    """A part of an image.

    Attributes
    ----------
    top, left : int
    samples : ndarray
        (h, w) or (h, w, C), float32; samples that are not finite are the median of the others.
    structure : float
        Mean gradient of details coarser than noise.
    """

    top: int
    left: int
    samples: NDArray[np.float32]
    structure: float


def rich_windows(
    image: Any, side: int = 512, count: int = 3, check: Callable[[], None] = lambda: None
) -> list[Window]:
    """Choose windows of an image.

    Parameters
    ----------
    image : array
        (H, W) or (H, W, C); anything that can be sliced, lazy ones are read in windows alone.
    side : int
        Of the windows in pixels; smaller images are one window.
    count : int
        Most that are given.
    check : callable
        Called before each window is read; may raise.

    Returns
    -------
    list of Window
        The one with the most structure first; the further ones do not overlap it.
    """
    places = [_starts(length, side) for length in image.shape[:2]]
    found = []
    for top in places[0]:
        for left in places[1]:
            check()
            samples = np.asarray(image[top : top + side, left : left + side], np.float32)
            samples = _filled(samples)
            found.append(Window(top, left, samples, structure(samples)))
    found.sort(key=lambda window: -window.structure)
    chosen: list[Window] = []
    for window in found:
        apart = (max(abs(window.top - w.top), abs(window.left - w.left)) >= side for w in chosen)
        if len(chosen) < count and all(apart):
            chosen.append(window)
    return chosen


def richest_part(samples: NDArray[np.float32], side: int) -> tuple[slice, slice]:
    """Find the square with the most structure; of sides below ``side`` the whole."""
    height, width = samples.shape[:2]
    best, part = -1.0, (slice(0, height), slice(0, width))
    for top in _evenly(height, side, 5):
        for left in _evenly(width, side, 5):
            here = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            there = structure(samples[here])
            if there > best:
                best, part = there, here
    return part


def structure(samples: NDArray[np.float32]) -> float:
    """Mean gradient of details coarser than noise."""
    height, width = (length // 4 * 4 for length in samples.shape[:2])
    if min(height, width) < 8:
        return 0.0
    coarse = samples[:height, :width].reshape(height // 4, 4, width // 4, 4, -1).mean((1, 3))
    return float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean())


def _filled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    good = np.isfinite(samples)
    if good.all():
        return samples
    middle = float(np.median(samples[good])) if good.any() else 0.0
    return np.where(good, samples, np.float32(middle))


def _starts(length: int, side: int) -> list[int]:
    return _evenly(length, side, min(_MOST, max(1, length // side)))


def _evenly(length: int, side: int, count: int) -> list[int]:
    last = max(0, length - side)
    if last == 0 or count == 1:
        return [last // 2]
    return np.unique(np.linspace(0, last, count).round().astype(int)).tolist()  # type: ignore[no-any-return]
