"""Blocks: parts of a large image, each read, restored and written at once in bounded memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from .tiling import Grid, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_restore.inference.protocol import TileOptions

    from .layout import Layout

#: Half-open ranges of an array, one for each axis.
Block = tuple[slice, ...]

#: Most bytes and most pixels of a block.
BLOCK_BYTES, BLOCK_PIXELS = 2**27, 2**24
#: Most pixels of one plane in it: as many as a tile has on a processor. Where a device computes
#: beside it there may be as many tiles in any case: while it computes one, the next is read and the
#: last is written.
PLANE_PIXELS, BLOCK_TILES = 2**22, 4


def block_shape(
    layout: Layout,
    chunks: Sequence[int],
    itemsize: int,
    tiles: TileOptions,
    *,
    full_width: bool = False,
) -> tuple[int, ...]:
    """Choose the shape of blocks: whole chunks, of as much of a plane as fits, then more planes.

    Parameters
    ----------
    layout : Layout
    chunks : sequence of int
        Shape of the chunks that are written, for each axis of the layout.
    itemsize : int
        Bytes of a sample.
    tiles : TileOptions
        Of the shapes that fit, one is taken that tiles of this side divide well, so that no tile is
        much smaller and has more halo than it need have.
    full_width : bool
        Only blocks of whole rows.

    Returns
    -------
    tuple of int
        Along S, the whole axis. Blocks at the end of an axis are smaller.
    """
    shape = layout.shape
    out = [min(a, b) for a, b in zip(chunks, shape, strict=True)]
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    if layout.color:
        out[layout.axes.index("S")] = shape[layout.axes.index("S")]
    samples = int(np.prod([n for axis, n in enumerate(out) if axis not in (y, x)], dtype=np.int64))
    side = tiles.side
    several = (BLOCK_TILES if tiles.small > 1 else 1) * side**2
    pixels = max(BLOCK_PIXELS, several) * layout.channels
    room = max(1, min(BLOCK_BYTES // (samples * itemsize), pixels // samples))
    if not full_width:
        # Of few whole rows, most would be halo.
        room = min(room, max(PLANE_PIXELS, several))
    steps = [-(-shape[axis] // out[axis]) for axis in (y, x)]
    best = (0.0, 0)
    chosen = out[y], shape[x] if full_width else out[x]
    for count in range(1, max(steps) + 1):
        rows = min(shape[y], count * out[y])
        columns = shape[x] if full_width else min(shape[x], count * out[x])
        if rows * columns > room:
            break
        fill = _tile(rows, side) * _tile(columns, side) / side**2
        best, chosen = max((best, chosen), ((round(fill, 2), count), (rows, columns)))
        if (rows, columns) == layout.size:
            chosen = rows, columns  # the same tiles as in memory
            break
    out[y], out[x] = chosen
    if chosen == layout.size:
        room //= out[y] * out[x]
        for axis in reversed(layout.leading):
            count = max(1, min(-(-shape[axis] // out[axis]), room))
            out[axis] = min(shape[axis], out[axis] * count)
            room //= count
            if out[axis] < shape[axis]:
                break
    return tuple(out)


def _tile(length: int, side: int) -> float:
    return length / -(-length // side)


def blocks(shape: Sequence[int], block: Sequence[int]) -> list[Block]:
    """All blocks of an array, the last axis first."""
    ranges = [
        [slice(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(shape, block, strict=True)
    ]
    return list(itertools.product(*ranges))


def pixels_of(layout: Layout, block: Block) -> int:
    """Pixels of all planes of a block, color samples counted once."""
    lengths = (b.stop - b.start for b, a in zip(block, layout.axes, strict=True) if a != "S")
    return int(np.prod(list(lengths), dtype=np.int64))


def regions_of(layout: Layout, block: Block) -> list[tuple[tuple[int, ...], Region]]:
    """Regions of planes that make up a block: (plane index, region)."""
    rows, columns = block[layout.axes.index("Y")], block[layout.axes.index("X")]
    region = Region(rows.start, columns.start, rows.stop, columns.stop)
    planes: Iterator[tuple[int, ...]] = itertools.product(
        *(range(block[axis].start, block[axis].stop) for axis in layout.leading)
    )
    return [(index, region) for index in planes]


def reading_of(layout: Layout, block: Block, multiple_of: int, halo: int, frames: int) -> Block:
    """Find what has to be read for a block: its halo too, and the neighbors of its frames."""
    out = list(block)
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    grid = Grid(layout.size, multiple_of, halo)
    tile = Region(block[y].start, block[x].start, block[y].stop, block[x].stop)
    inside = grid.inside(grid.window(tile))
    out[y], out[x] = slice(inside.top, inside.bottom), slice(inside.left, inside.right)
    if frames == 2:
        time = layout.axes.index("T")
        start, stop, last = block[time].start, block[time].stop, layout.shape[time]
        # The last frame takes the one before for its neighbor.
        out[time] = slice(start - (stop == last and stop - start == 1), min(stop + 1, last))
    return tuple(out)


def block_shape_in_space(
    layout: Layout, chunks: Sequence[int], itemsize: int, *, full_width: bool = False
) -> tuple[int, ...]:
    """Choose the shape of blocks of volumes: whole chunks, as deep as fits, then wider.

    Parameters
    ----------
    layout : Layout
        With an axis Z.
    chunks : sequence of int
        Shape of the chunks that are written, for each axis of the layout.
    itemsize : int
        Bytes of a sample.
    full_width : bool
        Only blocks of whole planes.
    """
    shape = layout.shape
    out = [min(a, b) for a, b in zip(chunks, shape, strict=True)]
    if layout.color:
        out[layout.axes.index("S")] = shape[layout.axes.index("S")]
    if full_width:
        for letter in "YX":
            out[layout.axes.index(letter)] = shape[layout.axes.index(letter)]
    for letter in "ZXY":
        axis = layout.axes.index(letter)
        room = BLOCK_BYTES // (itemsize * int(np.prod(out, dtype=np.int64)))
        out[axis] = min(shape[axis], out[axis] * max(1, room))
        if out[axis] < shape[axis]:
            break
    return tuple(out)


def reading_around(layout: Layout, block: Block, margins: dict[str, int]) -> Block:
    """Find what has to be read for a block and so much around it, by the letter of an axis."""
    return tuple(
        slice(
            max(0, part.start - margins.get(letter, 0)),
            min(length, part.stop + margins.get(letter, 0)),
        )
        for part, letter, length in zip(block, layout.axes, layout.shape, strict=True)
    )
