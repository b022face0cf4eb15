"""Write PNG and JPEG, with what the original says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from napari_restore.errors import FileError

from .photo import FORMATS
from .photo_said import PROVENANCE, XMP_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .image_file import ImageFile

_JPEG_SIDE = 65500
#: Bytes that one segment of a JPEG holds.
SEGMENT_BYTES = 65533
#: Bytes of a comment that leave room for the provenance.
_COMMENT_BYTES = 2**15
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"


def check_photo(kind: str, picture: ImageFile, axes: str) -> None:
    """Raise a `FileError` if PNG or JPEG cannot hold the image, naming a format that can."""
    data, name = picture.data, FORMATS[kind]
    remedy = "Name the result .tif."
    if axes not in ("YX", "YXS") or not data.size:
        raise FileError(f"{name} holds one plane; this image has shape {data.shape}. {remedy}")
    color = axes == "YXS"
    if color and not (picture.color and data.shape[-1] in (3, 4)):
        raise FileError(
            f"{name} holds gray or RGB(A); this image has {data.shape[-1]} samples that the file "
            f"does not call colors. {remedy}"
        )
    fitting = ["uint8"]
    if kind == "png" and not color:
        fitting += ["bool"] if picture.alpha is None else []
        fitting += ["uint16"] if picture.alpha is None else []
    if data.dtype.name not in fitting:
        what = "color" if color else "gray"
        raise FileError(
            f"{name} holds {what} as {' or '.join(fitting)}; this image is {data.dtype.name}. "
            f"{remedy}"
        )
    if kind == "jpeg":
        if picture.alpha is not None or (color and data.shape[-1] == 4):
            raise FileError("JPEG has no alpha. Name the result .png or .tif.")
        if max(data.shape[:2]) > _JPEG_SIDE:
            raise FileError(
                f"JPEG ends at {_JPEG_SIDE} pixels on a side; this image has shape {data.shape}. "
                f"{remedy}"
            )


def unheld_by_photo(kind: str, picture: ImageFile) -> list[str]:
    """Name what `write_photo` leaves out of `ImageFile.said`."""
    if kind == "png":
        held = {"ICC profile", "EXIF", "XMP", "comment", "texts", "gamma"}
        # The chunks about color are copied.
        return [name for name in picture.said if name not in held and picture.format != "png"]
    return [name for name, value in picture.said.items() if not _fits_jpeg(name, value)]


def _fits_jpeg(name: str, value: Any) -> bool:
    if name in ("ICC profile", "IPTC"):
        return True  # they may have several segments
    if name == "comment":
        return len(value.encode()) <= _COMMENT_BYTES
    room = {"EXIF": SEGMENT_BYTES, "XMP": SEGMENT_BYTES - len(_XMP_MARK)}
    return name in room and len(value) <= room[name]


def write_photo(
    path: Path, kind: str, data: NDArray[Any], picture: ImageFile, provenance: str
) -> None:
    """Write a PNG or a JPEG file (quality 95, colors not subsampled).

    Parameters
    ----------
    path : Path
    kind : {"png", "jpeg"}
    data : ndarray
        (Y, X) or (Y, X, S), as `check_photo` allows.
    picture : ImageFile
        The original.
    provenance : str
        JSON in ASCII, for a text chunk or a comment.
    """
    lost = unheld_by_photo(kind, picture)
    said = {name: value for name, value in picture.said.items() if name not in lost}
    options: dict[str, Any] = {"icc_profile": said.get("ICC profile")}
    if picture.dpi:
        options["dpi"] = picture.dpi
    if said.get("EXIF"):
        options["exif"] = said["EXIF"]
    if kind == "png":
        options["pnginfo"] = _png_chunks(picture, data, said, provenance)
    else:
        words = said.get("comment")
        comment = f"{words}\n{PROVENANCE}{provenance}" if words else provenance
        options |= {"quality": 95, "subsampling": 0, "comment": _encoded(comment, picture)}
        options["extra"] = b"".join(said.get("IPTC", ()))
        if said.get("XMP"):
            options["extra"] += _segment(0xE1, _XMP_MARK + said["XMP"])
    native = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
    Image.fromarray(native).save(path, FORMATS[kind], **options)


def _encoded(comment: str, picture: ImageFile) -> bytes:
    """Encode a comment as that of the original is, where it holds no more than that can."""
    encoding = picture.extras.get("encoding", "utf-8")
    try:
        return comment.encode(encoding)
    except UnicodeEncodeError:
        return comment.encode("utf-8", "replace")


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _png_chunks(
    picture: ImageFile, data: NDArray[Any], said: dict[str, Any], provenance: str
) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    samples = data.shape[2] if data.ndim > 2 else 1
    if picture.format == "png":
        for name, body in picture.extras["chunks"]:
            # Bits for each sample; a palette has become more samples.
            if name != b"sBIT" or len(body) == samples:
                chunks.add(name, body)
    elif "gamma" in said:
        chunks.add(b"gAMA", round(said["gamma"] * 1e5).to_bytes(4, "big"))
    for key, text in said.get("texts", {}).items():
        if isinstance(text, PngImagePlugin.iTXt):
            chunks.add_itxt(key, str(text), str(text.lang or ""), str(text.tkey or ""))
        else:
            chunks.add_text(key, str(text))
    if said.get("comment"):
        chunks.add_text("Comment", said["comment"])
    if said.get("XMP"):
        chunks.add_itxt(XMP_KEY, said["XMP"].decode("utf-8", "replace"))
    chunks.add_text("napari-restore", provenance)
    return chunks
