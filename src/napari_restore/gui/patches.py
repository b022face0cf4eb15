"""Restored blocks of an image, and the image as it looks with them: nothing of it is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.layout import Region
from napari_restore.image.pyramid import pyramid

from .strength import blended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Side of a block in pixels: small, so that little is restored beyond what is seen.
BLOCK = 64
#: Times the pixels that may be seen first, up to which a half is restored first.
_LITTLE_MORE = 1.5
#: Bytes of blocks that are kept.
_KEPT = 2**29


class Patches:
    """Blocks of planes of an image that were restored with the same options.

    Attributes
    ----------
    strength : float
        At which they are read; they are kept at full strength.
    under : Patches or None
        Read in the place of blocks that are not there yet.
    """

    def __init__(self) -> None:
        self.strength = 1.0
        self.under: Patches | None = None
        self._bytes = 0
        #: Of each plane and place in the grid of blocks: as it was, and restored.
        self._blocks: dict[tuple[tuple[int, ...], int, int], tuple[Any, Any]] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was restored yet."""
        return not self._blocks

    def missing(
        self, index: tuple[int, ...], region: Region, size: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Which blocks of a region of a plane are not there yet: (rows, columns) of blocks."""
        top, left, bottom, right = grid_around(region, size)
        return np.array(
            [
                [(index, row, column) not in self._blocks for column in range(left, right)]
                for row in range(top, bottom)
            ],
            bool,
        ).reshape(bottom - top, right - left)

    def add(
        self, index: tuple[int, ...], region: Region, original: NDArray[Any], restored: NDArray[Any]
    ) -> None:
        """Add what was restored of a region that begins and ends with blocks, or at the border."""
        for top in range(0, region.height, BLOCK):
            for left in range(0, region.width, BLOCK):
                key = (index, (region.top + top) // BLOCK, (region.left + left) // BLOCK)
                part = (slice(top, top + BLOCK), slice(left, left + BLOCK))
                old = self._blocks.pop(key, None)
                # Copies: else each would keep the whole region.
                block = original[part].copy(), restored[part].copy()
                self._bytes += sum(x.nbytes for x in block) - sum(x.nbytes for x in old or ())
                self._blocks[key] = block
        while self._bytes > _KEPT:
            oldest = next(iter(self._blocks))
            self._bytes -= sum(x.nbytes for x in self._blocks.pop(oldest))

    def read(self) -> Iterator[tuple[tuple[int, ...], int, int, NDArray[Any]]]:
        """Plane, first row, first column and samples of each block."""
        under = {} if self.under is None else self.under._blocks
        for (index, row, column), (original, restored) in [*(under | self._blocks).items()]:
            strength = self.strength
            samples = restored if strength == 1 else blended(original, restored, strength, 1.0)
            yield index, row * BLOCK, column * BLOCK, samples


def grid_around(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the blocks that hold a region, counted in blocks."""
    bottom, right = min(region.bottom, size[0]), min(region.right, size[1])
    return region.top // BLOCK, region.left // BLOCK, -(-bottom // BLOCK), -(-right // BLOCK)


def rectangles(
    missing: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int], halo: int
) -> list[Region]:
    """Gather missing blocks into regions to restore, from the middle outwards.

    Parameters
    ----------
    missing : ndarray of bool
        (rows, columns) of blocks.
    corner : (int, int)
        Row and column of the first block.
    size : (int, int)
        Height and width of the plane.
    halo : int
        Pixels around a region that a network has to see: some blocks may be cheaper to restore
        again than to go around.
    """
    spans: list[list[int]] = []
    for row, blocks in enumerate(missing):
        places = np.flatnonzero(blocks)
        if not places.size:
            continue
        span = [int(places[0]), int(places[-1]) + 1]
        if spans and spans[-1][1] == row and spans[-1][2:] == span:
            spans[-1][1] = row + 1
        else:
            spans.append([row, row + 1, *span])
    if not spans:
        return []

    def region(top: int, bottom: int, left: int, right: int) -> Region:
        rows, columns = (corner[0] + top, corner[0] + bottom), (corner[1] + left, corner[1] + right)
        return Region(
            rows[0] * BLOCK,
            columns[0] * BLOCK,
            min(size[0], rows[1] * BLOCK),
            min(size[1], columns[1] * BLOCK),
        )

    parts = [region(*span) for span in spans]
    tops, bottoms, lefts, rights = zip(*spans, strict=True)
    around = region(min(tops), max(bottoms), min(lefts), max(rights))
    if seen(around, size, halo) <= sum(seen(part, size, halo) for part in parts):
        return [around]
    middle = (corner[0] + missing.shape[0] / 2) * BLOCK
    return sorted(parts, key=lambda x: abs((x.top + x.bottom) / 2 - middle))


def seen(region: Region, size: tuple[int, int], halo: int) -> int:
    """Pixels that a network sees for a region."""
    height = min(region.bottom + halo, size[0]) - max(region.top - halo, 0)
    return height * (min(region.right + halo, size[1]) - max(region.left - halo, 0))


def first_of(region: Region, size: tuple[int, int], halo: int, most: float) -> Region:
    """Choose the part of a region that is restored first: whole blocks.

    Parameters
    ----------
    region : Region
    size : (int, int)
        Height and width of the plane.
    halo : int
        Pixels around a part that a network has to see.
    most : float
        Pixels that a network may see for it, about.

    Returns
    -------
    Region
        A half, if that is little more: two parts have fewer margins than three. Else the middle.
    """
    top, left, bottom, right = region
    rows, columns = (side // (2 * BLOCK) * BLOCK for side in (bottom - top, right - left))
    half = region._replace(bottom=top + rows)
    if columns > rows:
        half = region._replace(right=left + columns)
    if max(rows, columns) and seen(half, size, halo) <= _LITTLE_MORE * most:
        return half
    while seen(Region(top, left, bottom, right), size, halo) > most:
        if max(bottom - top, right - left) <= 2 * BLOCK:
            break
        # From the longer sides, one after the other.
        if bottom - top >= right - left:
            if (bottom - top) // BLOCK % 2:
                top += BLOCK
            else:
                bottom = -(-bottom // BLOCK) * BLOCK - BLOCK
        elif (right - left) // BLOCK % 2:
            left += BLOCK
        else:
            right = -(-right // BLOCK) * BLOCK - BLOCK
    return Region(top, left, bottom, right)


class Patched:
    """A level of an image as it looks with patches; for napari, an array that is read in parts.

    Parameters
    ----------
    level : array
        NumPy, zarr or dask.
    patches : Patches
    before : int
        Axes before the plane.
    factor : int
        How many pixels of the finest level one of this level is.
    """

    def __init__(self, level: Any, patches: Patches, before: int, factor: int) -> None:
        self.level, self.patches = level, patches
        self.shape, self.dtype, self.ndim = level.shape, np.dtype(level.dtype), len(level.shape)
        self.size = int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self._before, self._factor = before, factor

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> Any:
        index = self._plain(key)
        if index is None:
            return np.asarray(self)[key]
        # Also of what dask and zarr give, which may not be written to.
        out = np.array(self.level[index])
        if BLOCK % self._factor == 0:
            for block in self.patches.read():
                self._paste(out, index, *block)
        return out

    def _plain(self, key: Any) -> tuple[Any, ...] | None:
        """Key with an entry for each axis; None if the plane is not taken in plain slices."""
        key = key if isinstance(key, tuple) else (key,)
        if any(part is Ellipsis for part in key):
            place = next(i for i, part in enumerate(key) if part is Ellipsis)
            key = key[:place] + (slice(None),) * (self.ndim - len(key) + 1) + key[place + 1 :]
        key += (slice(None),) * (self.ndim - len(key))
        leading, plane = key[: self._before], key[self._before :]
        plain = all(isinstance(part, slice) and part.step in (None, 1) for part in plane)
        known = all(
            isinstance(part, (int, np.integer))
            or (isinstance(part, slice) and part.step in (None, 1))
            for part in leading
        )
        whole = all(part == slice(None) for part in plane[2:])
        if not (plain and known and whole and len(key) == self.ndim):
            return None
        return (*(int(x) if isinstance(x, np.integer) else x for x in leading), *plane)

    def _paste(
        self,
        out: NDArray[Any],
        key: tuple[Any, ...],
        plane: tuple[int, ...],
        top: int,
        left: int,
        samples: NDArray[Any],
    ) -> None:
        place: list[int] = []
        for part, position, length in zip(key, plane, self.shape, strict=False):
            if isinstance(part, int):
                if part % length != position:
                    return
                continue
            start, stop, _ = part.indices(length)
            if not start <= position < stop:
                return
            place.append(position - start)
        axes = (self._before, self._before + 1)
        (row, rows), (column, columns) = (key[x].indices(self.shape[x])[:2] for x in axes)
        factor = self._factor
        if factor > 1:
            size = tuple(n // factor for n in samples.shape[:2])
            if 0 in size:
                return
            samples = samples[: size[0] * factor, : size[1] * factor]
            samples = pyramid(samples, [(*size, *samples.shape[2:])])[-1]
        top, left = top // factor, left // factor
        bottom, right = top + samples.shape[0], left + samples.shape[1]
        first, last = max(top, row), min(bottom, rows)
        start, stop = max(left, column), min(right, columns)
        if first < last and start < stop:
            inside = samples[first - top : last - top, start - left : stop - left]
            span = slice(start - column, stop - column)
            here: Any = (*place, slice(first - row, last - row), span)
            out[here] = inside
