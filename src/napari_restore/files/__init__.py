"""Image files of every format in and out, with what they say about the image."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

from .conversion import as_plain, plain_form, stays_as_stored
from .dicom import check_volume, is_dicom, read_dicom
from .dicom_writer import check_folder, folder_appears_whole, write_dicom
from .formats import FORMATS, file_format, image_files, images_in, is_image_folder
from .losses import losses
from .nifti import check_nifti, read_nifti, write_nifti
from .photo import check_photo, read_photo, write_photo
from .picture import Picture, stored_axes, stored_order, with_alpha
from .tiff_reader import read_tiff
from .tiff_writer import check_tiff, write_tiff
from .zarr_reader import is_zarr, is_zarr_folder, read_zarr
from .zarr_writer import check_zarr, write_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "FORMATS",
    "Picture",
    "appears_whole",
    "check_target",
    "file_format",
    "image_files",
    "is_image_folder",
    "is_zarr",
    "losses",
    "read_image",
    "stays_as_stored",
    "write_image",
]


def read_image(path: Path, series: str | None = None) -> Picture:
    """Read an image file, by the ending of its name, or a folder with a DICOM series.

    Parameters
    ----------
    path : Path
        OME-Zarr (its folder), TIFF (OME, ImageJ or plain), PNG, JPEG, NPY, NIfTI or DICOM.
    series : str, optional
        SeriesNumber or SeriesInstanceUID of the series that is meant, of a folder with several.

    Returns
    -------
    Picture
        Uncompressed TIFF, NPY and NIfTI are memory-mapped; OME-Zarr and large TIFF are read in
        parts.

    Raises
    ------
    FileError
        If the file is missing, of another format, or damaged.
    """
    if not (path.is_file() or is_image_folder(path)):
        raise FileError("There is no such file.")
    kind = file_format(path)
    if kind == "zarr":
        return read_zarr(path)
    if kind == "dicom":
        others = [] if path.is_file() else [p.name for p in images_in(path) if not is_dicom(p)]
        if others:
            raise FileError(
                f"The folder holds a DICOM series and other images, such as {others[0]}. Put them "
                "into folders of their own."
            )
        return read_dicom(path, series)
    if kind == "nifti":
        return read_nifti(path)
    if kind == "tiff":
        return read_tiff(path)
    if kind == "npy":
        return _read_npy(path)
    return read_photo(path, kind)


def _read_npy(path: Path) -> Picture:
    try:
        try:
            data = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            # An empty array cannot be mapped, but read.
            data = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FileError(f"The file cannot be read as NPY: {error}.") from error
    return Picture(path, data, None, "npy")


def check_target(target: Path, picture: Picture, *, force: bool = False) -> None:
    """Raise a `FileError` unless a result can be written, before anything is computed.

    Parameters
    ----------
    target : Path
    picture : Picture
        The original; its axes are named.
    force : bool
        Whether an existing file may be replaced.
    """
    kind = file_format(target, picture)
    folder = kind == picture.format == "dicom" and picture.path.is_dir()
    if target.is_dir() and not (folder or kind == "zarr"):
        raise FileError(f"The result {target} is a folder. Name a file, or end it with '/'.")
    if not target.parent.is_dir():
        raise FileError(f"There is no folder {target.parent} for the result. Make it first.")
    if target.exists():
        sources = (picture.path, *picture.extras.get("files", ()))
        if any(os.path.samefile(target, source) for source in sources):
            raise FileError(f"{target} is an input and stays. Name another file or folder.")
        if not force:
            raise FileError(f"{target} exists already. Use --force to replace it.")
        if folder:
            check_folder(target, picture)
        if kind == "zarr" and not is_zarr_folder(target):
            raise FileError(f"{target} is no zarr folder and stays. Name another, or remove it.")
    around = next((folder for folder in target.absolute().parents if is_zarr_folder(folder)), None)
    if around is not None:
        raise FileError(f"The result {target} would lie inside {around}. Name another folder.")
    if kind == "dicom":
        if picture.format != "dicom":
            raise FileError("Only DICOM images can become DICOM. Name the result .tif.")
        return
    if kind == "nifti":
        check_nifti(picture)
        return
    if kind != "npy":
        check_volume(picture)
    picture = plain_form(picture, target)
    given = picture.axes or ""
    axes = "".join(given[axis] for axis in stored_axes(given))
    if kind == "tiff":
        check_tiff(target.name, picture, axes)
    elif kind == "zarr":
        check_zarr(picture)
    elif kind != "npy":
        check_photo(kind, picture, axes)


def write_image(
    target: Path,
    data: NDArray[Any],
    picture: Picture,
    provenance: str,
    *,
    force: bool = False,
) -> None:
    """Write a result: the whole file appears, or none.

    Parameters
    ----------
    target : Path
        Its ending decides the format; `check_target` says whether that can hold the image.
    data : ndarray
        The restored samples, in the shape of ``picture.data``.
    picture : Picture
        The original; its axes are named.
    provenance : str
        JSON in ASCII that says how the result was made. NPY has no place for it.
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileError
        If the file exists, cannot be written, or its format cannot hold the image.
    """
    kind = file_format(target, picture)
    check_target(target, picture, force=force)
    if kind == "dicom" and picture.path.is_dir():
        with folder_appears_whole(target) as temporary:
            write_dicom(temporary, data, picture, provenance)
        return
    if kind == "zarr":
        picture, data = as_plain(picture, data, target)
        write_zarr(target, data, picture, json.loads(provenance), force=force)
        return
    with appears_whole(target) as temporary:
        if kind == "dicom":
            write_dicom(temporary, data, picture, provenance)
            return
        if kind == "nifti":
            write_nifti(temporary, target.name, data, picture, provenance)
            return
        picture, data = as_plain(picture, data, target)
        if kind == "npy":
            joined, _ = with_alpha(data, picture.axes or "", picture)
            with temporary.open("wb") as file:
                np.save(file, joined, allow_pickle=False)
            return
        stored, axes = with_alpha(*stored_order(data, picture.axes or ""), picture)
        if kind == "tiff":
            write_tiff(temporary, target.name, stored, axes, picture, provenance)
        else:
            write_photo(temporary, kind, stored, picture, provenance)


@contextmanager
def appears_whole(target: Path) -> Iterator[Path]:
    """Name to write to; it becomes the target at the end, and vanishes on any error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"{target} cannot be written: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
