"""From an array of any layout to planes, and back: which axes are space, which are color."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_restore.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .tiling import Region

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
        One letter for each axis: Y and X the plane, S the RGB(A) samples, C channels, any other
        letter a stack, a series or the like.
    """

    shape: tuple[int, ...]
    axes: str

    @property
    def color(self) -> bool:
        """Whether the array holds RGB or RGBA samples."""
        return "S" in self.axes

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
        axes, before the color axis.
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
    if layout.color and shape[axes.index("S")] not in (3, 4):
        raise ImageError(
            f"A color axis holds 3 or 4 samples; this one holds {shape[axes.index('S')]} (shape "
            f"{shape}). Pass rgb=False, or name that axis C for separate channels."
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
            f"The array of shape {shape} and dtype {dtype} is taken for planes that are "
            f"{shape[-1]} pixels wide."
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
        return plane if self.layout.color else plane[..., None]

    def write(self, index: tuple[int, ...], region: Region, block: NDArray[Any]) -> None:
        """Write what `read` would return."""
        if not self.layout.color:
            block = block[..., 0]
        inverse = np.argsort(self.layout.plane_order)
        self.array[self.key(index, region)] = block.transpose(inverse)
