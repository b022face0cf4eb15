"""TIFF tags: which are carried over as they are, and what notes call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import TIFF

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_restore.io.image_file import ImageFile

#: Tag of tifffile's `extratags`: code, type, count, value, whether on the first page alone.
Tag = tuple[int, int, int, Any, bool]

_DESCRIPTION, _ORIENTATION, _SOFTWARE, _XMP, _ICC, _NODATA = 270, 274, 305, 700, 34675, 42113
#: What says how samples are stored, is written anew, or counts bytes of the original file.
_OWN = {
    *(254, 255, 263, 264, 265, 280, 281, 282, 283, 288, 289, 292, 293, 296, 320, 340, 341),
    *(326, 327, 328, 347, *range(512, 522), 529, 530, 531, 532, 50838, 50839, 59932, 59933),
    *(_DESCRIPTION, _ORIENTATION, _SOFTWARE, _XMP, _ICC),
}
#: What points into the original file, or makes it a kind of file that the result is not.
_BOUND = {
    **dict.fromkeys((34665, 37500, 40965), "EXIF"),
    34853: "GPS",
    **{34412: "LSM info", 33560: "Olympus info", 43314: "NIH Image header"},
    **dict.fromkeys((34361, 34362, 34386), "FluoView info"),
    **dict.fromkeys((33628, 33629, 33630, 33631), "MetaMorph info"),
    **dict.fromkeys((*range(50706, 50742), *range(50778, 50835), *range(50930, 50980)), "DNG"),
    **dict.fromkeys((*range(65420, 65460),), "NDPI info"),
}
_PLACE = {33550, 33922, 34264, 34735, 34736, 34737, 50844}
#: Types of tags whose bytes have no order; those of offsets, which lose their meaning; the others.
_BYTES, _OFFSETS, _RATIONALS = {1, 2, 6, 7}, {13, 18}, {5, 10}
_WORDS = {
    **{3: "u2", 4: "u4", 5: "u4", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8"},
    **{16: "u8", 17: "i8"},
}
#: Pages that are looked at for tags of their own.
PAGES = 1000


def carried(page: Any) -> list[Tag]:
    """Tags that a result has as well, as they are stored."""
    out = []
    bound = set(_BOUND) if 50706 in page.tags or page.is_ndpi else set(_BOUND) - _only_of_kinds()
    left_out = _OWN | bound | TIFF.TAG_FILTERED
    for tag in page.tags:
        if tag.code in left_out or tag.dtype in _OFFSETS:
            continue
        out.append((tag.code, int(tag.dtype), tag.count, _stored(page, tag), True))
    return out


def _only_of_kinds() -> set[int]:
    return {code for code, name in _BOUND.items() if name in ("DNG", "NDPI info")}


def _stored(page: Any, tag: Any) -> bytes | tuple[int, ...]:
    """Value of a tag as tifffile takes it: bytes in its order; rationals as numbers."""
    handle = page.parent.filehandle
    handle.seek(tag.valueoffset)
    raw: bytes = handle.read(tag.valuebytecount)
    if tag.dtype in _BYTES or tag.dtype not in _WORDS:
        return raw
    words = np.frombuffer(raw, page.parent.byteorder + _WORDS[tag.dtype])
    if tag.dtype in _RATIONALS:
        return tuple(int(word) for word in words)
    return words.astype(words.dtype.newbyteorder("=")).tobytes()


def orientation(page: Any) -> int:
    """How the image has to be turned, 1 to 8."""
    value = page.tags.valueof(_ORIENTATION, default=1)
    return value if value in range(1, 9) else 1


def take_over(picture: ImageFile, page: Any, tags: Iterable[Tag]) -> None:
    """Note in a picture what the tags of its first page say.

    Parameters
    ----------
    picture : ImageFile
    page : tifffile.TiffPage
    tags : iterable of Tag
        Those that are carried over.
    """
    said = picture.said
    if isinstance(xmp := page.tags.valueof(_XMP), (bytes, str)):
        said["XMP"] = xmp.encode() if isinstance(xmp, str) else xmp
    if page.tags.valueof(_ICC):
        said["ICC profile"] = page.tags.valueof(_ICC)
    if picture.extras.get("description"):
        said["comment"] = picture.extras["description"]
    said |= dict.fromkeys(names_of(tags), True)
    picture.invalid_value = _number(page.tags.valueof(_NODATA), np.dtype(picture.data.dtype))
    kept = {code for code, *_ in tags}
    lost = {name: None for code, name in _BOUND.items() if code in page.tags and code not in kept}
    if lost:
        picture.notes.append(f"The result lacks these tags of the TIFF: {', '.join(lost)}.")
    software = str(page.software).strip()
    if software and not software.startswith(("tifffile", "napari-restore")):
        picture.notes.append(
            f"The tag Software ('{software[:40]}') is replaced by how the result was made."
        )


def name_of(code: int) -> str:
    """Name a tag as notes do."""
    name = TIFF.TAGS.get(code, "")
    return "georeference" if code in _PLACE else f"tag {code} {name}".rstrip()


def names_of(tags: Iterable[Tag]) -> list[str]:
    """Names of tags, those of a georeference together."""
    return list(dict.fromkeys(name_of(code) for code, *_ in tags))


def _number(text: object, dtype: np.dtype[Any]) -> float | None:
    """Value of no data as the samples have it: written with 17 digits, they may have 8."""
    try:
        value = float(str(text).strip(" \0"))
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        return float(dtype.type(value)) if dtype.kind == "f" else value


def differing(series: Any) -> list[tuple[str, list[Tag]]]:
    """Descriptions and tags of all pages, if they are not the same on all; else nothing."""
    pages = [page for page in series.pages if page is not None]
    if len(pages) < 2:
        return []
    out = []
    for number in range(min(len(pages), PAGES)):
        page = pages[number].aspage()
        tags = [(*tag[:4], False) for tag in carried(page)]
        out.append((page.description, tags))
    return out if any(page != out[0] for page in out[1:]) else []
