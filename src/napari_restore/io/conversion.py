"""Samples as plain numbers, upright, for formats that keep no slope and no orientation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .formats import file_format
from .image_file import stored_axes
from .tiff_writer import flavor_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .image_file import ImageFile

#: Axes that are turned round to bring an orientation upright; from 5 on, after Y and X changed
#: places.
_MIRRORED = {2: "X", 3: "YX", 4: "Y", 5: "", 6: "X", 7: "YX", 8: "Y"}


def stays_as_stored(picture: ImageFile, target: Path) -> bool:
    """Whether a result holds samples as the original's file does, with what says how to read them.

    That is a slope, an intercept or a calibration, and how the image is turned.
    """
    kind = file_format(target, picture)
    if kind != picture.format:
        return False
    if kind != "tiff" or picture.plain is None:
        return True
    axes = picture.axes or ""
    order = "".join(axes[axis] for axis in stored_axes(axes))
    return flavor_of(target.name, picture, order, picture.data.nbytes) == "imagej"


def as_plain(
    picture: ImageFile, data: NDArray[Any], target: Path
) -> tuple[ImageFile, NDArray[Any]]:
    """Convert restored samples to plain numbers, upright; the picture then holds these.

    Where the result `stays_as_stored`, nothing is converted.
    """
    if stays_as_stored(picture, target):
        return picture, data
    extras = picture.extras
    if picture.plain is not None:
        data = picture.plain.convert(data)
        # In plain numbers, more is more.
        extras = {k: v for k, v in extras.items() if k not in ("inverted", "photometric")}
    data = upright(data, picture.axes or "", picture.orientation)
    turned = replace(picture, data=data, extras=extras)
    if picture.alpha is not None:
        turned.alpha = upright(picture.alpha, picture.axes or "", picture.orientation)
    if picture.orientation >= 5:
        sizes, swapped = picture.pixel_size, {"X": "Y", "Y": "X"}
        turned.pixel_size = {swapped.get(axis, axis): size for axis, size in sizes.items()}
        turned.dpi = picture.dpi and (picture.dpi[1], picture.dpi[0])
    turned.orientation, turned.plain = 1, None
    return turned, turned.data


def plain_form(picture: ImageFile, target: Path) -> ImageFile:
    """Shape and dtype that `as_plain` will give, without any memory for the samples."""
    if stays_as_stored(picture, target):
        return picture
    dtype = picture.data.dtype if picture.plain is None else picture.plain.dtype
    data = np.broadcast_to(np.zeros((), dtype), picture.data.shape)
    return as_plain(replace(picture, plain=None), data, target)[0]


def upright(data: NDArray[Any], axes: str, orientation: int) -> NDArray[Any]:
    """Turn and mirror the planes of an array, as a view, so that they are seen upright.

    Parameters
    ----------
    data : ndarray
    axes : str
        With Y and X; they stay where they are.
    orientation : int
        1 to 8, as in TIFF and EXIF; anything else counts as 1.
    """
    if orientation not in range(2, 9):
        return data
    if orientation >= 5:
        data = data.swapaxes(axes.index("Y"), axes.index("X"))
    turned: NDArray[Any] = np.flip(data, tuple(map(axes.index, _MIRRORED[orientation])))
    return turned
