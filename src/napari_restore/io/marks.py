"""How a file says that it is a result of this program: by the provenance that its writer noted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from PIL import Image
from tifffile import TiffFile

from .dicom_writer import PRIVATE_GROUP
from .npy import is_our_npy
from .optional import medical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def is_earlier_result(path: Path, kind: str) -> bool:
    """Whether a file, or the group of an OME-Zarr, says that it is a result of this program.

    Parameters
    ----------
    path : Path
    kind : str
        The format that it should have, a value of `FORMATS`.
    """
    try:
        return _MARKS[kind](path)
    # What cannot be read is not ours, whatever the reader stumbles over.
    except Exception:
        return False


def _mark_of_zarr(path: Path) -> bool:
    group = path / "zarr.json"
    if group.is_file():
        attributes: Any = json.loads(group.read_text("utf-8")).get("attributes", {})
    else:
        attributes = json.loads((path / ".zattrs").read_text("utf-8"))
    return bool(attributes.get("napari_restore"))


def _mark_of_tiff(path: Path) -> bool:
    with TiffFile(path) as tif:
        return "napari-restore " in str(tif.pages.first.tags["Software"].value)


def _mark_of_png(path: Path) -> bool:
    with Image.open(path, formats=["PNG"]) as image:
        return "napari-restore" in image.info


def _mark_of_jpeg(path: Path) -> bool:
    with Image.open(path, formats=["JPEG"]) as image:
        segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    return any(name == "COM" and b"napari-restore" in text for name, text in segments)


def _mark_of_nifti(path: Path) -> bool:
    header = medical("nibabel").load(path).header
    return any("napari-restore: " in str(e.get_content()) for e in header.extensions)


def _mark_of_dicom(path: Path) -> bool:
    dataset = medical("pydicom").dcmread(path, stop_before_pixels=True)
    dataset.private_block(PRIVATE_GROUP, "napari-restore")
    return True


_MARKS: dict[str, Callable[[Path], bool]] = {
    "zarr": _mark_of_zarr,
    "tiff": _mark_of_tiff,
    "png": _mark_of_png,
    "jpeg": _mark_of_jpeg,
    "npy": is_our_npy,
    "nifti": _mark_of_nifti,
    "dicom": _mark_of_dicom,
}
