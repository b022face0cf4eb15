"""Which values the samples of a TIFF may have, and whether zero is black."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import PHOTOMETRIC

from .stored import Inverted, invert, white

if TYPE_CHECKING:
    from .image_file import ImageFile

#: MaxSampleValue, and the other tags that say which values occur.
_LARGEST = 281
_STATISTICS = (_LARGEST, 340, 341)


def find_depth(picture: ImageFile, page: Any, significant: int | None, room: int) -> None:
    """Find which range the samples have; turn them round where zero is white.

    Parameters
    ----------
    picture : ImageFile
        Gets ``top``, notes, and samples in which zero is black.
    page : tifffile.TiffPage
    significant : int or None
        Bits of a sample, as the metadata have it.
    room : int
        Bytes of samples that may be looked at, or changed, in memory.
    """
    data, extras = picture.data, picture.extras
    dtype = np.dtype(data.dtype)
    held = 1 if dtype.kind == "b" else dtype.itemsize * 8
    bits = page.bitspersample if isinstance(page.bitspersample, int) else held
    if dtype.kind == "u" and bits < held:
        picture.top = 2**bits - 1
        picture.notes.append(f"Samples of {bits} bits are written with {held}.")
    elif dtype.kind == "u":
        picture.top = _checked_top(picture, page, significant, room)
    if picture.top is not None and _LARGEST in page.tags:
        extras["tags"].append((_LARGEST, 3, 1, picture.top, True))
    elif any(code in page.tags for code in _STATISTICS):
        picture.notes.append("Tags with the least and the largest value are left out.")
    if extras["photometric"] != PHOTOMETRIC.MINISWHITE:
        return
    top = white(dtype, min(bits, held))
    if top is None:
        picture.said["that zero is white"] = True
        return
    extras["inverted"] = top
    small = isinstance(data, np.ndarray) and data.nbytes <= room
    picture.data = invert(np.asarray(data), top) if small else Inverted(data, top)
    if picture.invalid_value is not None:
        picture.invalid_value = top - picture.invalid_value


def _checked_top(picture: ImageFile, page: Any, significant: int | None, room: int) -> int | None:
    """Largest value by what the file says, if its samples keep to that."""
    data, dtype = picture.data, np.dtype(picture.data.dtype)
    largest = int(np.iinfo(dtype).max)
    said = largest
    if significant is not None:
        said = 2**significant - 1
    elif isinstance(value := page.tags.valueof(_LARGEST), int) and (value + 1).bit_count() == 1:
        said = value  # MaxSampleValue, where it is no statistic
    if not 0 < said < largest:
        return None
    bits, held = said.bit_length(), dtype.itemsize * 8
    if data.nbytes > room:
        picture.notes.append(f"The file says {bits} significant bits; the result may have {held}.")
        return None
    if (found := int(np.max(data))) > said:
        picture.notes.append(
            f"The file says {bits} significant bits and has values up to {found}; the result says "
            f"{held}."
        )
        return None
    return said
