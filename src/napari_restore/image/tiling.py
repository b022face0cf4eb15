"""Tile geometry: which pixels to compute and which to look at, on one grid for the whole image."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Region(NamedTuple):
    """Half-open rectangle in pixels of a plane."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def pixels(self) -> int:
        """Area."""
        return self.height * self.width


@dataclass(frozen=True)
class Grid:
    """Where a network may look: windows that begin and end on one grid from the image's origin.

    A network with strides gives the same values only if a window begins at the same phase; all
    windows of an image, of a preview or of a chunk therefore share one grid. Beyond the image a
    network sees nothing, as in its training (reflections were measured to be worse, by 0.1 dB along
    the border), but for what the last step of the grid needs.

    Attributes
    ----------
    size : (int, int)
        Height and width of the plane.
    multiple_of : int
        Step of the grid.
    halo : int
        Pixels around a tile that influence it noticeably.
    """

    size: tuple[int, int]
    multiple_of: int
    halo: int

    def _span(self, start: int, stop: int, length: int) -> tuple[int, int]:
        step = self.multiple_of
        first = max(0, (start - self.halo) // step * step)
        last = min(stop + self.halo, length)
        return first, -(-last // step) * step

    def window(self, tile: Region) -> Region:
        """Pixels to compute for a tile: with halo, up to the first step beyond the image."""
        top, bottom = self._span(tile.top, tile.bottom, self.size[0])
        left, right = self._span(tile.left, tile.right, self.size[1])
        return Region(top, left, bottom, right)

    def inside(self, window: Region) -> Region:
        """Part of a window that must be read for it, reflections included."""
        spans = []
        for first, last, length in zip(window[:2], window[2:], self.size, strict=True):
            # A reflection at length - 1 looks as far inwards as it reaches outwards.
            start = max(0, min(first, 2 * (length - 1) - last + 1))
            spans.append((start, min(length, last)))
        return Region(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def reflect(
    block: NDArray[np.float32], inside: Region, window: Region, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Extend what was read to a whole window by reflection at the image's far borders.

    Parameters
    ----------
    block : ndarray
        (h, w, S), the pixels of ``inside``.
    inside, window : Region
        As `Grid.inside` and `Grid.window` give them.
    size : (int, int)
        Height and width of the plane.

    Returns
    -------
    ndarray
        (window.height, window.width, S).
    """
    rows = _reflected(window.top, window.bottom, size[0]) - inside.top
    columns = _reflected(window.left, window.right, size[1]) - inside.left
    if inside == window:
        return block
    return block[np.ix_(rows, columns)]


def _reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Fold the indices start..stop-1 back into 0..length-1, the border pixel not repeated."""
    if length == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (length - 1)
    index = np.arange(start, stop) % period
    return np.minimum(index, period - index)


def split(region: Region, tile: int) -> Iterator[Region]:
    """Cut a region into tiles of ``tile`` pixels on a side, row by row; the last may be smaller.

    Equal tiles would be seen with as many pixels around them in all; but memory would depend on how
    an image happens to divide.
    """
    rows, columns = (
        [*range(start, stop, tile), stop]
        for start, stop in zip(region[:2], region[2:], strict=True)
    )
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            yield Region(top, left, bottom, right)
