"""Read and write PNG and JPEG."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from napari_restore.errors import FileError

from .picture import Picture

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_FORMATS = {"png": "PNG", "jpeg": "JPEG"}
#: Modes of Pillow whose samples are intensities.
_MODES = ("1", "L", "LA", "I;16", "RGB", "RGBA")
_JPEG_SIDE = 65500


def read_photo(path: Path, kind: str) -> Picture:
    """Read a PNG or a JPEG file, upright.

    Parameters
    ----------
    path : Path
    kind : {"png", "jpeg"}

    Returns
    -------
    Picture
        Palettes become RGB; transparent colours become alpha. ``extras`` holds ``exif`` (bytes),
        ``icc`` (bytes) and ``text`` (mapping).

    Raises
    ------
    FileError
        If it is damaged, or holds what would lose bits or is no intensity.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=[_FORMATS[kind]]) as image:
                _refuse(image, path, kind)
                dpi, icc = image.info.get("dpi"), image.info.get("icc_profile")
                text = dict(getattr(image, "text", {}))
                upright = _plain_mode(ImageOps.exif_transpose(image))
                exif = upright.getexif().tobytes() if upright.getexif() else b""
                data = np.asarray(upright)
        except FileError:
            raise
        except Image.DecompressionBombError as error:
            raise FileError(
                f"The image is too large for {_FORMATS[kind]} here ({error}). Convert it to TIFF, "
                "which is read in parts."
            ) from error
        # Pillow raises whatever a damaged file makes it stumble over.
        except Exception as error:
            raise FileError(
                f"The file cannot be read as {_FORMATS[kind]}: {error or repr(error)}."
            ) from error
    alpha = None
    if upright.mode == "LA":
        data, alpha = data[..., 0], data[..., 1]
    extras = {"exif": exif, "icc": icc, "text": text}
    axes = "YXS" if data.ndim == 3 else "YX"
    picture = Picture(path, data, axes, kind, data.ndim == 3, alpha, extras)
    if dpi and min(dpi) > 0:
        picture.dpi = (float(dpi[0]), float(dpi[1]))
    return picture


def _refuse(image: Image.Image, path: Path, kind: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise FileError(f"The file is an animation of {frames} frames. Convert it to TIFF.")
    if image.mode not in (*_MODES, "P", "PA", "I"):
        raise FileError(
            f"Its samples are stored as {image.mode}, which are no intensities. Convert it to "
            "RGB or grey."
        )
    if kind == "png":
        # The header: 8 bytes of signature, then length, name, width, height, bits and colour type.
        with path.open("rb") as file:
            header = file.read(26)
        bits, colour = header[24], header[25]
        if bits == 16 and colour != 0:
            raise FileError(
                "PNG with 16-bit colour or alpha would lose bits here. Convert it to TIFF."
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


def check_photo(kind: str, picture: Picture, axes: str) -> None:
    """Raise a `FileError` if PNG or JPEG cannot hold the image, naming a format that can."""
    data, name = picture.data, _FORMATS[kind]
    remedy = "Name the result .tif."
    if axes not in ("YX", "YXS") or not data.size:
        raise FileError(f"{name} holds one plane; this image has shape {data.shape}. {remedy}")
    colour = axes == "YXS"
    if colour and data.shape[-1] not in (3, 4):
        raise FileError(
            f"{name} holds grey or RGB(A); this image has {data.shape[-1]} samples. {remedy}"
        )
    fitting = ["uint8"]
    if kind == "png" and not colour:
        fitting += ["bool"] if picture.alpha is None else []
        fitting += ["uint16"] if picture.alpha is None else []
    if data.dtype.name not in fitting:
        what = "colour" if colour else "grey"
        raise FileError(
            f"{name} holds {what} as {' or '.join(fitting)}; this image is {data.dtype.name}. "
            f"{remedy}"
        )
    if kind == "jpeg":
        if picture.alpha is not None or (colour and data.shape[-1] == 4):
            raise FileError("JPEG has no alpha. Name the result .png or .tif.")
        if max(data.shape[:2]) > _JPEG_SIDE:
            raise FileError(
                f"JPEG ends at {_JPEG_SIDE} pixels on a side; this image has shape {data.shape}. "
                f"{remedy}"
            )


def write_photo(
    path: Path, kind: str, data: NDArray[Any], picture: Picture, provenance: str
) -> None:
    """Write a PNG or a JPEG file (quality 95, colours not subsampled).

    Parameters
    ----------
    path : Path
    kind : {"png", "jpeg"}
    data : ndarray
        (Y, X) or (Y, X, S), as `check_photo` allows.
    picture : Picture
        The original.
    provenance : str
        JSON in ASCII, for a text chunk or a comment.
    """
    extras = picture.extras if picture.format in _FORMATS else {}
    if picture.format == "tiff":
        extras = {"icc": picture.said.get("ICC profile")}
    options: dict[str, Any] = {"icc_profile": extras.get("icc")}
    if picture.dpi:
        options["dpi"] = picture.dpi
    if extras.get("exif"):
        options["exif"] = extras["exif"]
    if kind == "png":
        options["pnginfo"] = _text_chunks({**extras.get("text", {}), "napari-restore": provenance})
    else:
        options |= {"quality": 95, "subsampling": 0, "comment": provenance.encode()}
    native = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
    Image.fromarray(native).save(path, _FORMATS[kind], **options)


def _text_chunks(texts: dict[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    return chunks
