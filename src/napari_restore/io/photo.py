"""Read PNG and JPEG, with all that they say beside their samples."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from napari_restore.errors import FileError

from .image_file import ImageFile
from .photo_said import RAW_EXIF, said_by

if TYPE_CHECKING:
    from pathlib import Path

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
        # Pillow raises whatever a damaged file makes it stumble over.
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
    # Pillow raises whatever damaged EXIF makes it stumble over; the samples are sound.
    except Exception as error:
        image.load()  # which says so if it is not the EXIF
        method = _TURNS.get(_orientation(image))
        turned = "taken as it is stored" if method is None else "turned as it says"
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


def _orientation(image: Image.Image) -> int:
    """Orientation from EXIF that is damaged elsewhere; 1 if it cannot be found."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return int(found) if found in _TURNS else 1


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
            f"Its samples are stored as {image.mode}, which are no intensities. Convert it to "
            "RGB or gray."
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
