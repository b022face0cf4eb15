"""How the samples of an image lie: axes and units, planes, tiles, blocks, and arrays in parts."""

from __future__ import annotations

import itertools
import math
import mmap
import re
import sys
import threading
import unicodedata
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from napari_restore.errors import FileError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import dask.array as da
    from numpy.typing import NDArray


#: Fewest planes that are a volume.
LEAST_PLANES = 3
#: Letters of axes without a meaning: neither time nor channels nor space.
UNNAMED = "QRUVWABDEFGHIJKLMNOP"


class ArrayLike(Protocol):
    """What the engine reads from: NumPy, a memory map, zarr, dask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Layout:
    """How the axes of an array are read.

    Attributes
    ----------
    shape : tuple of int
        Shape of the array.
    axes : str
        One letter for each axis: Y and X the plane, S the samples of a pixel (gray with alpha, RGB
        or RGBA), C channels, any other letter a stack, a series or the like.
    """

    shape: tuple[int, ...]
    axes: str

    @property
    def samples(self) -> int:
        """Samples of a pixel along S, alpha among them; 0 without that axis."""
        return self.shape[self.axes.index("S")] if "S" in self.axes else 0

    @property
    def color(self) -> bool:
        """Whether the array holds RGB or RGBA samples."""
        return self.samples > 2

    @property
    def channels(self) -> int:
        """Channels that a network sees: 3 for color, else 1."""
        return 3 if self.color else 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a plane, in pixels."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def leading(self) -> tuple[int, ...]:
        """Positions of the axes over which planes are counted."""
        return tuple(i for i, letter in enumerate(self.axes) if letter not in "YXS")

    @property
    def planes(self) -> int:
        """Number of planes."""
        return int(np.prod([self.shape[axis] for axis in self.leading], dtype=np.int64))

    @property
    def pixels(self) -> int:
        """Pixels of all planes, color samples counted once."""
        return self.planes * self.size[0] * self.size[1]

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Index of each plane over the leading axes."""
        return iter(np.ndindex(*(self.shape[axis] for axis in self.leading)))

    def neighbor(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Plane of the next frame along T; of the last frame, the one before."""
        place = self.leading.index(self.axes.index("T"))
        time, last = index[place], self.shape[self.axes.index("T")] - 1
        return (*index[:place], time + 1 if time < last else last - 1, *index[place + 1 :])

    def group(self, index: tuple[int, ...]) -> int:
        """Which intensity scale a plane belongs to: its channel, 0 without a channel axis."""
        if "C" not in self.axes:
            return 0
        return index[self.leading.index(self.axes.index("C"))]

    @property
    def groups(self) -> int:
        """Number of intensity scales: one for each channel."""
        return self.shape[self.axes.index("C")] if "C" in self.axes else 1

    def key(self, index: tuple[Any, ...], rows: slice, columns: slice) -> tuple[Any, ...]:
        """Index expression into the array for a region of one plane."""
        place: dict[str, Any] = {"Y": rows, "X": columns, "S": slice(None)}
        leading = iter(index)
        return tuple(place[letter] if letter in place else next(leading) for letter in self.axes)

    @property
    def plane_order(self) -> tuple[int, ...]:
        """Transposition of a plane's block from the array's order to (Y, X[, S])."""
        kept = [letter for letter in self.axes if letter in "YXS"]
        return tuple(kept.index(letter) for letter in "YXS" if letter in kept)


def find_layout(array: ArrayLike, axes: str | None = None, rgb: bool | None = None) -> Layout:
    """Decide how the axes of an array are read, or say why it cannot be.

    Parameters
    ----------
    array : array
        At least two-dimensional; NumPy, zarr or dask.
    axes : str, optional
        One letter for each axis, for example "TZCYX" or "YXS". Without it the plane is the last two
        axes, before the color axis. Two samples along S are gray and alpha.
    rgb : bool, optional
        Whether the last axis holds RGB(A) samples. Without it, a last axis of 3 or 4 on uint8 does.

    Returns
    -------
    Layout

    Raises
    ------
    ImageError
        If dtype, dimensions or axes do not describe an image.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise ImageError(
            "The mask of a masked array would be lost. Restore array.filled(numpy.nan) or "
            "array.data."
        )
    if any(length != length for length in array.shape):
        raise ImageError(
            f"An array of shape {tuple(array.shape)} has chunks of unknown size. Call its "
            "compute_chunk_sizes() first."
        )
    shape = tuple(int(length) for length in array.shape)
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:
        raise ImageError(
            f"A {type(array).__name__} of dtype {array.dtype} is not an array that NumPy knows. "
            "Convert it with numpy.asarray."
        ) from None
    if dtype.kind not in "buif":
        raise ImageError(
            f"An image of dtype {dtype} cannot be restored. Give integers, floats or booleans"
            + (
                ": for complex data, restore the real part or the modulus."
                if dtype.kind == "c"
                else "."
            )
        )
    if len(shape) < 2:
        raise ImageError(
            f"An array of shape {shape} is not an image. Give at least two dimensions (Y, X)."
        )
    if axes is None:
        if rgb is None:
            if assumed := likely_color(shape, dtype):
                warnings.warn(
                    f"{assumed} Pass rgb=True if its last axis is color, or rgb=False if it is "
                    "not.",
                    stacklevel=3,
                )
            rgb = len(shape) >= 3 and shape[-1] in (3, 4) and dtype == np.uint8
        if rgb and len(shape) < 3:
            raise ImageError(f"A color image needs three dimensions (Y, X, 3); got shape {shape}.")
        plain = "YXS" if rgb else "YX"
        axes = UNNAMED[: len(shape) - len(plain)] + plain
        if len(axes) != len(shape):
            raise ImageError(f"{len(shape)} dimensions are too many; give the image in parts.")
    else:
        if not isinstance(axes, str):
            raise ImageError(f"axes must be text such as 'TZCYX'; got {axes!r}.")
        axes = axes.upper()
        if len(axes) != len(shape) or len(set(axes)) != len(axes) or not axes.isalpha():
            raise ImageError(
                f"axes '{axes}' does not name the {len(shape)} axes of shape {shape}: give one "
                "different letter for each."
            )
        if not {"Y", "X"} <= set(axes):
            raise ImageError(f"axes '{axes}' lacks Y or X, the axes of the plane.")
        if rgb is not None and rgb != ("S" in axes):
            raise ImageError(f"axes '{axes}' and rgb={rgb} disagree: S is the axis of RGB samples.")
    layout = Layout(shape, axes)
    if "S" in axes and layout.samples not in ((3, 4) if rgb else (2, 3, 4)):
        raise ImageError(
            f"The axis S holds 3 or 4 samples of color, or gray and alpha; this one holds "
            f"{layout.samples} (shape {shape}). Pass rgb=False, or name that axis C for separate "
            "channels."
        )
    return layout


def name_time(axes: str) -> str | None:
    """Axes with T among them: as they are, or where just one has no meaning that one renamed."""
    unnamed = [letter for letter in axes if letter not in "TZCYXS"]
    if "T" not in axes and len(unnamed) == 1:
        axes = axes.replace(unnamed[0], "T")
    return axes if "T" in axes else None


def with_time(layout: Layout) -> Layout:
    """Layout of a movie: T is its axis of frames, or the only one that could be.

    Raises
    ------
    ImageError
        If there is no such axis, several, or only one frame.
    """
    axes = name_time(layout.axes)
    if axes is None:
        several = set(layout.axes) - set("ZCYXS")
        raise ImageError(
            "Two frames need an axis of time; an image of shape "
            f"{layout.shape} read as {layout.axes} has "
            f"{'several that may be' if several else 'none'}. Name it T, for example axes='TYX', "
            "or restore each frame alone."
        )
    movie = Layout(layout.shape, axes)
    if movie.shape[axes.index("T")] == 1:
        raise ImageError(
            f"Two frames need a movie of two or more; shape {layout.shape} (axes {axes}) has one. "
            "Restore each frame alone."
        )
    return movie


def with_depth(layout: Layout) -> Layout:
    """Layout of a volume: Z is its axis of depth, or the only one that could be.

    Raises
    ------
    ImageError
        If there is no such axis, several, or fewer than three planes.
    """
    axes = layout.axes
    unnamed = [letter for letter in axes if letter not in "TZCYXS"]
    if "Z" not in axes and len(unnamed) == 1:
        axes = axes.replace(unnamed[0], "Z")
    if "Z" not in axes:
        several = "several that may be" if unnamed else "none"
        raise ImageError(
            f"A volume needs an axis of depth; an image of shape {layout.shape} read as "
            f"{layout.axes} has {several}. Name it Z, for example axes='ZYX', or restore plane by "
            "plane (dimensions=2)."
        )
    volume = Layout(layout.shape, axes)
    count = volume.shape[axes.index("Z")]
    if count < LEAST_PLANES:
        raise ImageError(
            f"A volume needs {LEAST_PLANES} planes or more; shape {layout.shape} (axes {axes}) has "
            f"{count}. Restore plane by plane (dimensions=2)."
        )
    return volume


def likely_color(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Say what is assumed of an array that is probably color but not 8-bit; else nothing."""
    if len(shape) >= 3 and shape[-1] in (3, 4) and shape[-2] > 4 and dtype != np.uint8:
        return (
            f"The array of shape {shape} and dtype {dtype} is read as planes that are {shape[-1]} "
            "pixels wide."
        )
    return ""


class Planes:
    """Reads and writes regions of planes, whatever the layout.

    Parameters
    ----------
    array : array
        The image, or a window of it.
    layout : Layout
        Layout of the whole image.
    origin : tuple of int, optional
        Position in the image of the first element of ``array``, for each axis.
    """

    def __init__(self, array: Any, layout: Layout, origin: tuple[int, ...] | None = None) -> None:
        self.array, self.layout = array, layout
        self.origin = (0,) * len(layout.shape) if origin is None else origin

    def key(self, index: tuple[int, ...], region: Region) -> tuple[Any, ...]:
        """Index expression into the array for a region of one plane."""
        key = self.layout.key(
            index, slice(region.top, region.bottom), slice(region.left, region.right)
        )
        return tuple(
            slice(part.start - start, part.stop - start)
            if isinstance(part, slice) and part.stop is not None
            else part
            if isinstance(part, slice)
            else part - start
            for part, start in zip(key, self.origin, strict=True)
        )

    def read(self, index: tuple[int, ...], region: Region) -> NDArray[Any]:
        """Read a region inside the plane: (h, w, S), S being 1 for gray images."""
        return self.canonical(self.array[self.key(index, region)])

    def canonical(self, block: Any) -> NDArray[Any]:
        """Bring a block of one plane from the array's order to (h, w, S)."""
        plane: NDArray[Any] = np.asarray(block).transpose(self.layout.plane_order)
        return plane if self.layout.samples else plane[..., None]

    def write(self, index: tuple[int, ...], region: Region, block: NDArray[Any]) -> None:
        """Write what `read` would return."""
        if not self.layout.samples:
            block = block[..., 0]
        inverse = np.argsort(self.layout.plane_order)
        self.array[self.key(index, region)] = block.transpose(inverse)


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


@dataclass(frozen=True)
class TileOptions:
    """How an image is cut.

    Attributes
    ----------
    side : int
        Of a tile, in pixels.
    batch : int
        Tiles that are restored at once.
    fixed : bool
        Whether the user chose the side.
    small : int
        How many of tiles that are smaller are restored at once, if they have no more pixels
        together; above 1 where a device computes beside the processor.
    """

    side: int
    batch: int = 1
    fixed: bool = False
    small: int = 1


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
    if layout.samples:
        out[layout.axes.index("S")] = layout.samples
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


def block_shape_in_space(layout: Layout, chunks: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Choose the shape of blocks of volumes: whole chunks, as deep as fits, then wider.

    Parameters
    ----------
    layout : Layout
        With an axis Z.
    chunks : sequence of int
        Shape of the chunks that are written, for each axis of the layout.
    itemsize : int
        Bytes of a sample.

    Notes
    -----
    Also where an image is stored in whole rows: of the few whole planes that would fit, most would
    be margin, and the wider the planes, the more.
    """
    shape = layout.shape
    out = [min(a, b) for a, b in zip(chunks, shape, strict=True)]
    if layout.samples:
        out[layout.axes.index("S")] = layout.samples
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


Found = TypeVar("Found")
#: How many findings that came from another process are kept.
_MOST_RECEIVED = 64


def read_together(
    source: Planes, places: Iterable[tuple[tuple[int, ...], Region]]
) -> list[NDArray[Any]]:
    """Read several regions at once, so that a chunk of a lazy array is computed once for all.

    Returns
    -------
    list of ndarray
        As `Planes.read` gives them.
    """
    array = source.array
    if not is_lazy(array):
        return [source.read(index, region) for index, region in places]
    from dask.base import compute

    lazy = Planes(as_dask(array), source.layout, source.origin)
    blocks = compute(*(lazy.array[lazy.key(index, region)] for index, region in places))
    return [source.canonical(block) for block in blocks]


def is_lazy(array: Any) -> bool:
    """Whether an array is read in chunks: dask or zarr."""
    # Arrays of h5py and xarray have the attribute too; it is None where there are no chunks.
    return not isinstance(array, np.ndarray) and getattr(array, "chunks", None) is not None


def as_dask(array: Any) -> da.Array:
    """Wrap a zarr or NumPy array, leave a dask array as it is."""
    import dask.array as da

    if isinstance(array, da.Array):
        return array
    # The coarse levels of a lazy pyramid are often in memory.
    chunks = getattr(array, "chunks", None) or "auto"
    wrapped: da.Array = da.from_array(array, chunks=chunks)
    return wrapped


def let_go(array: Any) -> None:
    """Let go of the pages of a memory-mapped file: they count as memory in use.

    What was written stays in the file; of a copy on write it would be lost.
    """
    mapped, shared = getattr(array, "_mmap", None), getattr(array, "mode", "c") != "c"
    if shared and hasattr(mmap, "MADV_DONTNEED") and mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


class _Synchronous:
    """A dask array that is computed in the thread that reads it.

    Within a task of another computation the threads of dask wait for that task; and dask's own
    setting for this holds for the whole process.
    """

    def __init__(self, image: da.Array) -> None:
        self._image, self._held = image, _futures(image)
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part = self._image[key]
        block: NDArray[Any]
        if self._held:
            block = self._held[0].client.compute(part).result()
        else:
            block = part.compute(scheduler="synchronous")
        return block


def _futures(image: da.Array) -> list[Any]:
    """List what an array has on the workers of a cluster: it was persisted there."""
    if "distributed" not in sys.modules:
        return []
    from distributed import Client, futures_of

    # Dask imports it by itself. To look for futures is to look at every task of the graph, which
    # takes seconds where there are many chunks; without a client there are none.
    if not getattr(Client, "_instances", True):
        return []
    held: list[Any] = futures_of(image)
    return held


class LazyStatistic(Generic[Found]):
    """Something about a lazy array: found when first asked for, and kept.

    It is the same for every chunk, if the sample it is found from depends on the array's shape
    alone. Sent to another process, it is found there once, however often it is sent. Of an array
    that was persisted on a cluster it is found at once.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    find : callable
        From the planes of the whole image. It must be picklable.
    """

    def __init__(self, image: da.Array, layout: Layout, find: Callable[[Planes], Found]) -> None:
        self._image: da.Array | None = image
        self._name, self._layout, self._find = image.name, layout, find
        self._found: Found | None = None
        self._token = ""
        self._lock = threading.Lock()
        # Within a task, futures cannot be waited for.
        if _futures(image):
            self.get()

    def get(self) -> Found:
        """Find it, or return what was found before."""
        with self._lock:
            if self._image is not None:
                self._found = self._find(Planes(_Synchronous(self._image), self._layout))
                # With its graph it may be large.
                self._image = None
            return cast("Found", self._found)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # Without this, dask would pickle the image to find out whether it has seen it before.
        from dask.base import normalize_token

        find = normalize_token(self._find)
        return (type(self).__name__, self._name, self._layout, find)

    def __reduce__(self) -> tuple[Any, ...]:
        from dask.base import tokenize

        self._token = self._token or tokenize(self)
        return _received, (self._token, self.__dict__ | {"_lock": None})


_RECEIVED: OrderedDict[str, LazyStatistic[Any]] = OrderedDict()
_receiving = threading.Lock()


def _received(token: str, state: dict[str, Any]) -> LazyStatistic[Any]:
    """Return the same object if it came before: every computation sends it anew."""
    with _receiving:
        known = _RECEIVED.get(token)
        if known is None:
            known = LazyStatistic.__new__(LazyStatistic)
            known.__dict__ |= state | {"_lock": threading.Lock()}
            _RECEIVED[token] = known
            while len(_RECEIVED) > _MOST_RECEIVED:
                _RECEIVED.popitem(last=False)
        _RECEIVED.move_to_end(token)
        return known


#: Bytes of samples that are read into memory at once, though a file could be mapped.
IN_MEMORY = 2**26
#: Chunks that zarr decodes or encodes at a time.
_AT_A_TIME = 2


@contextmanager
def few_chunks_at_a_time() -> Iterator[None]:
    """Let zarr read and write few chunks at a time, in the whole process.

    Each of its threads keeps what it has freed for itself: with ten of them the peak is a sixth
    higher, and the network is what takes the time.
    """
    import zarr

    with zarr.config.set({"async.concurrency": _AT_A_TIME}):
        yield


class StoredArray:
    """A zarr array whose errors say what is wrong with the file.

    Parameters
    ----------
    array : zarr.Array
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(int(length) for length in array.shape)
        self.chunks: tuple[int, ...] = tuple(int(length) for length in array.chunks)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """Samples."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return int(self.size * self.dtype.itemsize)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._array[key])
        # A damaged chunk can make decoders raise any error.
        except Exception as error:
            parts = key if isinstance(key, tuple) else (key,)
            where = ", ".join(
                f"{part.start}:{part.stop}" if isinstance(part, slice) else str(part)
                for part in parts
            )
            raise FileError(f"The image cannot be read at [{where}]: {error}.") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


class Inverted(StoredArray):
    """An array in which zero is white, read in parts as what is seen.

    Parameters
    ----------
    array : StoredArray or memory map
    top : int
        See `invert`.
    """

    def __init__(self, array: Any, top: int) -> None:
        self._source, self._top = array, top
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks = getattr(array, "chunks", (*(1,) * (self.ndim - 2), *self.shape[-2:]))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return invert(np.asarray(self._source[key]), self._top)


class MappedArray(np.memmap):
    """Samples of a file that is mapped into memory, read while the file is as long as it was.

    The system would end the process where a file that others cut short is read beyond its end.
    """

    def __getitem__(self, key: Any) -> Any:
        mapped: Any = self._mmap  # type: ignore[attr-defined]
        if mapped is not None:
            start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
            if mapped.size() < start + len(mapped):
                raise FileError(
                    f"The file was cut short while it was read, to {mapped.size()} bytes. Restore "
                    "it when it is whole."
                )
        part = super().__getitem__(key)
        return np.array(part) if part.nbytes <= IN_MEMORY else part


def in_memory_or_mapped(mapped: Any) -> Any:
    """Read a memory map if it is small, and guard it otherwise; other arrays stay as they are."""
    if not isinstance(mapped, np.memmap):
        return mapped
    return np.array(mapped) if mapped.nbytes <= IN_MEMORY else mapped.view(MappedArray)


def white(dtype: np.dtype[Any], bits: int) -> int | None:
    """Find what `invert` takes samples from, for integers of so many bits; None for floats."""
    if dtype.kind == "i":
        return -1
    return 2**bits - 1 if dtype.kind in "ub" else None


def invert(samples: NDArray[Any], top: int) -> NDArray[Any]:
    """Turn samples in which zero is white into such in which it is black, or back."""
    if samples.dtype == bool:
        return ~samples
    inverted: NDArray[Any] = np.subtract(samples.dtype.type(top), samples, dtype=samples.dtype)
    return inverted


class Stacked:
    """NumPy arrays of one shape and dtype as the frames of a movie; nothing is copied.

    Parameters
    ----------
    arrays : sequence of ndarray
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        self.dtype = arrays[0].dtype
        self.shape = (len(arrays), *arrays[0].shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Part of one array, or of some: the first index is its number, or a slice of numbers."""
        if isinstance(key[0], slice):
            return np.stack([array[key[1:]] for array in self._arrays[key[0]]])
        part: NDArray[Any] = self._arrays[key[0]][key[1:]]
        return part


def stacked(arrays: Sequence[Any]) -> Any:
    """See arrays of one shape and dtype as one: a dask array if one of them is lazy.

    Raises
    ------
    ImageError
        If they differ.
    """
    shapes, dtypes = (
        [str(getattr(array, name)) for array in arrays] for name in ("shape", "dtype")
    )
    if len(set(shapes)) > 1 or len(set(dtypes)) > 1:
        said = ", ".join(f"{a} {b}" for a, b in zip(shapes, dtypes, strict=True))
        raise ImageError(f"Frames must have one shape and one dtype; got {said}.")
    if any(is_lazy(array) for array in arrays):
        import dask.array as da

        return da.stack([as_dask(array) for array in arrays])
    return Stacked([np.asarray(array) for array in arrays])


_PREFIXES = {
    **{"y": "yocto", "z": "zepto", "a": "atto", "f": "femto", "p": "pico", "n": "nano"},
    **{"µ": "micro", "m": "milli", "c": "centi", "d": "deci", "": "", "da": "deca", "h": "hecto"},
    **{"k": "kilo", "M": "mega", "G": "giga", "T": "tera", "P": "peta", "E": "exa"},
    **{"Z": "zetta", "Y": "yotta"},
}
#: Symbols as in OME-XML, and the names that NGFF allows (UDUNITS-2).
LENGTHS = {
    **{f"{symbol}m": f"{name}meter" for symbol, name in _PREFIXES.items()},
    **{"Å": "angstrom", "in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "pc": "parsec"},
}
TIMES = {
    **{f"{symbol}s": f"{name}second" for symbol, name in _PREFIXES.items()},
    **{"min": "minute", "h": "hour", "d": "day"},
}
#: Units that OME-XML has and NGFF has not, in units that it has.
_IN_OTHERS = {
    **{"thou": (25.4, "µm"), "li": (25.4 / 12, "mm"), "pt": (25.4 / 72, "mm"), "dam": (10, "m")},
    **{"ua": (149597870.7, "km"), "ly": (9.4607304725808, "Pm"), "das": (10, "s")},
}
_SPELLINGS = {
    **dict.fromkeys(("um", "micron"), "µm"),
    **dict.fromkeys(("a", "ang", "ångström", "ångstrom", "ångstroem"), "Å"),
    **dict.fromkeys(("sec", "secs"), "s"),
    **dict.fromkeys(("msec", "msecs"), "ms"),
    **dict.fromkeys(("us", "usec", "usecs"), "µs"),
    **dict.fromkeys(("mins",), "min"),
    **dict.fromkeys(("hr", "hrs"), "h"),
    **{"inches": "in", "feet": "ft"},
}
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_NAMES = {name: symbol for symbol, name in (LENGTHS | TIMES).items()}


def _symbol(text: str, allowed: dict[str, str]) -> str | None:
    """Read a unit however it is spelled; None if it is none of those that are allowed."""
    # ImageJ escapes what is not ASCII; there are two micro signs, and two Å.
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).strip(" \0")
    text = unicodedata.normalize("NFKC", text).replace("μ", "µ").replace("Âµ", "µ")
    if text in allowed:
        return text
    lower = text.lower()
    singular = (lower.removesuffix("s") if len(lower) > 3 else lower).replace("metre", "meter")
    for word in (lower, singular):
        found = _SPELLINGS.get(word) or _NAMES.get(word) or (word if word in allowed else None)
        if found in allowed:
            return found
    return None


def length_unit(text: str) -> str | None:
    """Symbol of a unit of length, such as "µm" for "microns"; None if it is none."""
    if text in _IN_OTHERS:
        return text
    return _symbol(text, LENGTHS)


def time_unit(text: str) -> str | None:
    """Symbol of a unit of time, such as "ms" for "msec"; None if it is none."""
    return _symbol(text, TIMES)


def unit_along(axis: str, text: str) -> str | None:
    """Symbol of a unit along an axis: of time along T, else of length."""
    return time_unit(text) if axis == "T" else length_unit(text)


def for_ngff(size: float, symbol: str) -> tuple[float, str]:
    """Size and unit in which NGFF can say a size, and OME-XML's symbol of that unit."""
    factor, other = _IN_OTHERS.get(symbol, (1.0, symbol))
    return size * factor, other


def ngff_name(symbol: str) -> str | None:
    """Name of a unit in NGFF; None if it has none for it."""
    return None if symbol in _IN_OTHERS else (LENGTHS | TIMES).get(symbol)


def as_size(value: object) -> float | None:
    """Read the size of a step: a finite number above 0, or None."""
    try:
        size = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return size if math.isfinite(size) and size > 0 else None
