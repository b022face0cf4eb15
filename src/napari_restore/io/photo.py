"""Read and write PNG and JPEG, with all that they say beside their samples."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from napari_restore.errors import FileError

from .image_file import ImageFile, stored_order, with_alpha

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: The formats and their names.
FORMATS = {"png": "PNG", "jpeg": "JPEG"}
#: Modes of Pillow whose samples are intensities.
_MODES = ("1", "L", "LA", "I;16", "RGB", "RGBA")


def read_photo(path: Path, kind: str) -> ImageFile:
    """Read a PNG or a JPEG file, upright.

    Parameters
    ----------
    path : Path
    kind : {"png", "jpeg"}

    Returns
    -------
    ImageFile
        Palettes become RGB; transparent colors become alpha. ``said`` holds what is known to
        several formats, ``extras`` what PNG and JPEG keep for their own kind (`said_by`).

    Raises
    ------
    FileError
        If it is damaged, or holds what would lose bits or is no intensity.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=[FORMATS[kind]]) as image:
                _refuse(image, path, kind, notes)
                said, extras = said_by(image, path, kind, notes)
                upright, exif = _upright(image, notes)
                upright = _plain_mode(upright)
                data = np.asarray(upright)
        except FileError:
            raise
        except Image.DecompressionBombError as error:
            raise FileError(
                f"The image is too large for {FORMATS[kind]} here ({error}). Convert it to TIFF, "
                "which is read in parts."
            ) from error
        # A damaged file can make Pillow raise any error.
        except Exception as error:
            raise FileError(
                f"The file cannot be read as {FORMATS[kind]}: {error or repr(error)}."
            ) from error
    notes += [" ".join(str(warning.message).split()) for warning in caught]
    alpha = None
    if upright.mode == "LA":
        data, alpha = data[..., 0], data[..., 1]
    if exif:
        said["EXIF"] = exif
    if upright.info.get("xmp"):
        # As it is after turning: without the orientation.
        said["XMP"] = _as_bytes(upright.info["xmp"])
    axes = "YXS" if data.ndim == 3 else "YX"
    picture = ImageFile(path, data, axes, kind, data.ndim == 3, alpha, extras)
    picture.said, picture.notes = said, list(dict.fromkeys(notes))
    _keep_sizes(picture, image, upright.size != image.size)
    return picture


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _upright(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes]:
    """Turn an image as its EXIF says; also returns the EXIF that then holds."""
    try:
        upright = ImageOps.exif_transpose(image)
        exif = upright.getexif()
        return upright, exif.tobytes() if exif else b""
    # Damaged EXIF can make Pillow raise any error; the samples are sound.
    except Exception as error:
        image.load()  # which says so if it is not the EXIF
        method, turned = _turn(image)
        notes.append(
            f"The EXIF is damaged ({error or repr(error)}) and left out; the image is {turned}."
        )
    plain = image.copy()
    for key in ("exif", RAW_EXIF):
        plain.info.pop(key, None)
    return (plain if method is None else plain.transpose(method)), b""


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image) -> tuple[Image.Transpose | None, str]:
    """How EXIF that is damaged elsewhere turns an image, if it does; and that in words."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Damaged EXIF can make Pillow raise any error.
    except Exception as error:
        why = f"its orientation cannot be read ({error or repr(error)})"
        return None, f"taken as it is stored, since {why}: turn it if it does not lie upright"
    method = _TURNS.get(found)
    return method, "taken as it is stored" if method is None else "turned as it says"


def _keep_sizes(picture: ImageFile, image: Image.Image, swapped: bool) -> None:
    """Note how fine the image was recorded, and pixels that are not square."""
    info = image.info
    dpi = info.get("dpi")
    try:
        across, down = (float(dpi[0]), float(dpi[1])) if dpi else (0.0, 0.0)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        across = down = 0.0
    if swapped:
        across, down = down, across
    if min(across, down) > 0 and np.isfinite([across, down]).all():
        picture.dpi = (across, down)
    elif dpi:
        picture.notes.append(f"Its resolution, {dpi} dots per inch, is none, and left out.")
    aspect = info.get("aspect")
    if aspect is None and info.get("jfif_unit") == 0:
        aspect = info.get("jfif_density")
    if aspect and aspect[0] != aspect[1]:
        picture.notes.append(
            f"Its pixels are not square ({aspect[0]}:{aspect[1]}); the result does not say so."
        )


def _refuse(image: Image.Image, path: Path, kind: str, notes: list[str]) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "MPO":
        # Cameras and phones put previews, depth or a second view behind the photograph.
        notes.append(
            f"The file holds {frames} pictures; the first is restored, and the others (previews, "
            "depth or other views) are not carried over."
        )
    elif frames > 1:
        raise FileError(f"The file is an animation of {frames} frames. Convert it to TIFF.")
    if image.mode not in (*_MODES, "P", "PA", "I"):
        raise FileError(
            f"Its samples are stored as {image.mode}, which are not intensities. Convert it to RGB "
            "or gray."
        )
    if kind == "png":
        # The header: 8 bytes of signature, then length, name, width, height, bits and color type.
        with path.open("rb") as file:
            header = file.read(26)
        bits, color = header[24], header[25]
        if bits == 16 and color != 0:
            raise FileError(
                "PNG with 16-bit color or alpha would lose bits here. Convert it to TIFF."
            )


def _plain_mode(image: Image.Image) -> Image.Image:
    if image.mode in ("P", "PA"):
        clear = image.mode == "PA" or "transparency" in image.info
        return image.convert("RGBA" if clear else "RGB")
    if image.mode == "I":
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    return image


# ---------------------------------------------------------------- what a file says

#: Chunks of PNG that are carried over, or that say nothing about the image once it is decoded.
_PNG_READ = set(
    "IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP sBIT pHYs tEXt zTXt iTXt eXIf tIME "
    "acTL fcTL fdAT iDOT".split()
)
#: Segments of JPEG that are carried over, or that say how it was encoded.
_JPEG_READ = (b"JFIF", b"JFXX", b"Exif", b"http://ns.adobe.com/xap/1.0/", b"ICC_PROFILE", b"MPF",
              b"Adobe", b"Photoshop 3.0")  # fmt: skip
#: Key of XMP among the texts of PNG, and that of an old way to store EXIF.
XMP_KEY, RAW_EXIF = "XML:com.adobe.xmp", "Raw profile type exif"
#: Of white, red, green and blue in sRGB, as PNG names them.
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
#: Begins the line of a comment that is the provenance.
PROVENANCE = "napari-restore: "


def said_by(
    image: Image.Image, path: Path, kind: str, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find what a photograph says beside its samples, EXIF and XMP, which turn with them.

    Parameters
    ----------
    image : Image
        As it was opened.
    path : Path
    kind : {"png", "jpeg"}
    notes : list of str
        Gets a sentence for what the result lacks.

    Returns
    -------
    said : dict
        For `ImageFile.said`. IPTC is the segments of JPEG that hold it.
    extras : dict
        For the writer of the same format: ``chunks`` of PNG about color, name and bytes;
        ``encoding`` of the comment of a JPEG.
    """
    info = image.info
    said: dict[str, Any] = {}
    if info.get("icc_profile"):
        said["ICC profile"] = info["icc_profile"]
    if kind == "jpeg":
        return said, {"encoding": _read_segments(image, said, notes)}
    chunks, others = _chunks(path)
    if others:
        notes.append(f"The result lacks these chunks of the PNG: {', '.join(others)}.")
    texts = {
        key: text
        for key, text in getattr(image, "text", {}).items()
        if key not in (XMP_KEY, RAW_EXIF, "napari-restore")
    }
    if "Comment" in texts:
        said["comment"] = str(texts.pop("Comment"))
    if texts:
        said["texts"] = texts
    # Near 1 / 2.2 it says what is taken for granted without it.
    if abs(info.get("gamma", 1 / 2.2) - 1 / 2.2) > 0.01:
        said["gamma"] = info["gamma"]
    primaries = info.get("chromaticity", _SRGB)
    if np.abs(np.subtract(primaries, _SRGB)).max() > 0.005:
        said["chromaticities"] = primaries
    names = {b"cICP": "coding of color (cICP)", b"sBIT": "significant bits (sBIT)"}
    said |= {names[name]: body for name, body in chunks if name in names}
    return said, {"chunks": chunks}


def _chunks(path: Path) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Chunks about color, as they are, and the names of those that are not carried over."""
    kept: list[tuple[bytes, bytes]] = []
    others: dict[str, None] = {}
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            if name in (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT") and length <= 64:
                kept.append((name, file.read(length)))
                file.seek(4, 1)
                continue
            if name.isalpha() and name.decode() not in _PNG_READ:
                others[name.decode()] = None
            if name == b"IEND":
                break
            file.seek(length + 4, 1)
    return kept, list(others)


def _read_segments(image: Image.Image, said: dict[str, Any], notes: list[str]) -> str:
    """Find comments and IPTC of a JPEG; returns the encoding of the comments."""
    kept, comments, others, encoding = [], [], [], "utf-8"
    applist: list[tuple[str, bytes]] = getattr(image, "applist", [])
    for name, body in applist:
        if name == "COM":
            try:
                comments.append(body.decode("utf-8"))
            except UnicodeDecodeError:
                encoding = "latin-1"
                comments.append(body.decode(encoding))
        elif body.startswith(b"Photoshop 3.0"):  # holds IPTC
            kept.append(b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body)
        elif not body.startswith(_JPEG_READ):
            label = "".join(chr(c) for c in body[:24].split(b"\0")[0] if 32 <= c < 127)
            others.append(f"{name} ({label})" if label else name)
    comment = without_provenance("\n".join(comments))
    if comment:
        said["comment"] = comment
    if kept:
        said["IPTC"] = kept
    if others:
        listed = ", ".join(dict.fromkeys(others))
        notes.append(f"The result lacks these segments of the JPEG: {listed}.")
    return encoding


def without_provenance(comment: str) -> str:
    """Take the words of an earlier restoration out of a comment."""
    try:
        record = json.loads(comment)
    except ValueError:
        record = None
    if isinstance(record, dict) and "napari-restore" in record.get("versions", {}):
        return ""
    lines = [line for line in comment.split("\n") if not line.startswith(PROVENANCE)]
    return "\n".join(lines).rstrip("\0")


# ---------------------------------------------------------------- writing

_JPEG_SIDE = 65500
#: Bytes that one segment of a JPEG holds.
SEGMENT_BYTES = 65533
#: Bytes of a comment that leave room for the provenance.
_COMMENT_BYTES = 2**15
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"


def check_photo(kind: str, picture: ImageFile) -> None:
    """Raise a `FileError` if PNG or JPEG cannot hold the image, naming a format that can."""
    # Its shape and dtype alone: it may be read in parts.
    image = np.broadcast_to(np.empty((), picture.data.dtype), picture.data.shape)
    data, axes = in_photo(image, picture.axes or "")
    name = FORMATS[kind]
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


def in_photo(data: NDArray[Any], axes: str) -> tuple[NDArray[Any], str]:
    """Bring an array into the order of photographs: samples of a pixel last."""
    data, axes = stored_order(data, axes)
    return (np.moveaxis(data, 0, -1), "YXS") if axes == "SYX" else (data, axes)


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


def is_our_photo(path: Path, kind: str) -> bool:
    """Whether a file was written by `write_photo`."""
    with Image.open(path, formats=[FORMATS[kind]]) as image:
        if kind == "png":
            return "napari-restore" in image.info
        segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    return any(name == "COM" and b"napari-restore" in text for name, text in segments)


def write_photo(
    path: Path, kind: str, data: NDArray[Any], picture: ImageFile, provenance: str
) -> None:
    """Write a PNG or a JPEG file (quality 95, colors not subsampled).

    Parameters
    ----------
    path : Path
    kind : {"png", "jpeg"}
    data : ndarray
        Restored samples, like ``picture.data``, as `check_photo` allows.
    picture : ImageFile
        The original.
    provenance : str
        JSON in ASCII, for a text chunk or a comment.
    """
    data, _ = with_alpha(*in_photo(data, picture.axes or ""), picture)
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
