"""An image file in memory: its samples, its axes, and what else it said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


#: What formats hold of an image, or do not: `pixel_size`, `dpi`, names and colors of channels, the
#: header of a medical image, and that zero is white.
ALL = frozenset({"sizes", "resolution", "channels", "header", "inversion"})


@dataclass
class ImageFile:
    """What was read from a file, and what the file of the result should say as well.

    Attributes
    ----------
    path : Path
    data : ndarray or StoredArray
        Samples as the file holds them, memory-mapped where that is possible, or read in parts;
        without the alpha of a gray image.
    axes : str or None
        Axes of ``data`` as the file names them: Y, X, S (RGB or other samples of a pixel), T, Z, C,
        and Q or I where it does not say; None if it names none.
    color : bool
        Whether the file says that the axis S is RGB or RGBA.
    alpha : ndarray or None
        Alpha of a gray image, which is no part of what is restored.
    format : str
        "tiff", "png", "jpeg", "npy", "zarr", "nifti" or "dicom".
    extras : mapping
        What else a writer of the same format keeps; see the readers.
    pixel_size : mapping
        Size of a step along X, Y, Z or T with its unit: ``{"X": (0.1, "µm")}``.
    dpi : (float, float) or None
        Pixels for each inch, horizontally and vertically, where the file gives such a figure.
    notes : list of str
        What the user should be told.
    channels : list of str
        Names of the channels along C, where the file gives them; "" for one without.
    colors : list of str
        Colors that the channels are shown in, "RRGGBB", where the file gives them.
    said : mapping
        What else the file says, by the name that a note uses for it. Every format that can hold
        such a thing looks for it here; what the format of the result cannot hold is named in a
        note (`napari_restore.io.losses`). Known to several formats are "ICC profile", "XMP",
        "EXIF" (bytes), "comment" (str), "texts" (str to str) and "gamma" (float); other names
        mean nothing to a writer.
    orientation : int
        How the samples have to be turned to be seen upright, 1 to 8, as in TIFF and EXIF.
    top : int or None
        Largest value that integer samples may have, where the file says that they have fewer bits
        than their dtype.
    invalid_value : float or None
        Value of the pixels that were not measured, where the file names one.
    fit : callable or None
        Brings restored samples into the range that the file can hold, in place, and returns how
        many had to be clipped; None where the dtype says it all.
    plain : RescaleTransform or None
        The samples as numbers in the units of the image, for formats without slope and intercept;
        None where they are that.
    """

    path: Path
    data: Any
    axes: str | None
    format: str
    color: bool = False
    alpha: NDArray[Any] | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    pixel_size: dict[str, tuple[float, str]] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    orientation: int = 1
    top: int | None = None
    invalid_value: float | None = None
    fit: Callable[[NDArray[Any]], int] | None = None
    plain: RescaleTransform | None = None


def stored_axes(axes: str) -> tuple[int, ...]:
    """Order of axes that image files can hold.

    Parameters
    ----------
    axes : str
        One letter for each axis; Q may occur more than once.

    Returns
    -------
    tuple of int
        Positions in ``axes``: as they are if these end in YX, YXS or SYX; else the last are those
        of YX or YXS.
    """
    if axes.endswith(("YX", "YXS")):
        return tuple(range(len(axes)))
    plane = [axes.index(letter) for letter in "YXS" if letter in axes]
    return (*(axis for axis in range(len(axes)) if axis not in plane), *plane)


def stored_order(data: NDArray[Any], axes: str) -> tuple[NDArray[Any], str]:
    """Bring an array into an order that image files can hold; see `stored_axes`."""
    order = stored_axes(axes)
    return data.transpose(order), "".join(axes[axis] for axis in order)


def ordered_axes(picture: ImageFile) -> str:
    """Axes of an image in `stored_order`."""
    axes = picture.axes or ""
    return "".join(axes[axis] for axis in stored_axes(axes))


def with_alpha(data: NDArray[Any], axes: str, picture: ImageFile) -> tuple[NDArray[Any], str]:
    """Join the alpha of a gray image to its samples again."""
    if picture.alpha is None:
        return data, axes
    return np.stack([data, picture.alpha], axis=-1), axes + "S"


@dataclass(frozen=True)
class RescaleTransform:
    """How the samples of a picture become numbers in the units of the image (Hounsfield, say).

    Attributes
    ----------
    dtype : dtype
        Of the numbers.
    convert : callable
        From the samples to the numbers, in the same shape.
    """

    dtype: np.dtype[Any]
    convert: Callable[[NDArray[Any]], NDArray[Any]]


def integer_dtype(low: float, high: float, whole: bool) -> np.dtype[Any] | None:
    """Find the integers that hold a range exactly, of those that every format knows.

    Parameters
    ----------
    low, high : float
        The range.
    whole : bool
        Whether all numbers in it are whole.

    Returns
    -------
    dtype or None
        uint8, int16, uint16 or, if none will do, None.
    """
    for dtype in (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.uint16)):
        limits = np.iinfo(dtype)
        if whole and limits.min <= low and high <= limits.max:
            return dtype
    return None


def as_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers to a dtype; to integers by rounding, inside their range."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return rounded
