"""Image files of every format in and out, with what they say about the image."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

from .conversion import as_plain, plain_form, stays_as_stored
from .dicom import check_volume, read_dicom
from .dicom_writer import write_dicom
from .formats import FORMATS, NAMES, file_format, image_files, is_image_folder, known_ending
from .image_file import ImageFile, stored_axes, stored_order, with_alpha
from .losses import losses
from .nifti import check_nifti, read_nifti, write_nifti
from .npy import read_npy, write_npy
from .photo import read_photo
from .photo_writer import check_photo, write_photo
from .replacing import Inputs, Place, folders_around
from .tiff_reader import read_tiff
from .tiff_writer import check_tiff, write_tiff
from .zarr_reader import is_zarr, is_zarr_folder, read_zarr
from .zarr_writer import check_zarr, write_zarr

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "FORMATS",
    "ImageFile",
    "Inputs",
    "Place",
    "check_target",
    "file_format",
    "image_files",
    "is_image_folder",
    "is_zarr",
    "losses",
    "place_for",
    "read_image",
    "stays_as_stored",
    "write_image",
    "zarr_around",
]


def read_image(path: Path, series: str | None = None) -> ImageFile:
    """Read an image file, by the ending of its name, or a folder with a DICOM series.

    Parameters
    ----------
    path : Path
        OME-Zarr (its folder), TIFF (OME, ImageJ or plain), PNG, JPEG, NPY, NIfTI or DICOM.
    series : str, optional
        SeriesNumber or SeriesInstanceUID of the series that is meant, of a folder with several.

    Returns
    -------
    ImageFile
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
    try:
        picture = _read(path, kind, series)
    except (FileError, MemoryError):
        raise
    # What a damaged file makes a reader stumble over is the file's fault.
    except Exception as error:
        said = str(error) or repr(error)
        raise FileError(f"The file cannot be read as {NAMES[kind]}: {said}.") from error
    named = known_ending(path)
    if named not in (None, kind):
        picture.notes.insert(0, f"The file is {NAMES[kind]}, whatever its name says; read as such.")
    return picture


def _read(path: Path, kind: str, series: str | None) -> ImageFile:
    if kind == "dicom":
        return read_dicom(path, series)
    if kind in ("png", "jpeg"):
        return read_photo(path, kind)
    readers = {"zarr": read_zarr, "nifti": read_nifti, "tiff": read_tiff, "npy": read_npy}
    return readers[kind](path)


def zarr_around(path: Path) -> Path | None:
    """Find the zarr folder that a path lies in, by its name or by where links lead."""
    return next((folder for folder in folders_around(path) if is_zarr_folder(folder)), None)


def place_for(
    target: Path, picture: ImageFile, *, force: bool = False, inputs: Inputs | None = None
) -> Place:
    """Where the result for a picture goes.

    Parameters
    ----------
    target : Path
    picture : ImageFile
        The original.
    force : bool
        Whether an earlier result may be replaced.
    inputs : Inputs, optional
        All that is read, where that is more than the original.
    """
    inputs = Inputs() if inputs is None else inputs
    for path in (picture.path, *picture.extras.get("files", ())):
        inputs.add(path)
    kind = file_format(target, picture)
    folder = kind == picture.format == "dicom" and picture.path.is_dir()
    names = {file.name for file in picture.extras["files"]} if folder else None
    return Place(target, kind, force=force, inputs=inputs, names=names)


def check_target(
    target: Path, picture: ImageFile, *, force: bool = False, inputs: Inputs | None = None
) -> None:
    """Raise a `FileError` unless a result can be written, before anything is computed.

    Parameters
    ----------
    target : Path
    picture : ImageFile
        The original; its axes are named.
    force : bool
        Whether an earlier result may be replaced.
    inputs : Inputs, optional
        All that is read, where that is more than the original.
    """
    place = place_for(target, picture, force=force, inputs=inputs)
    kind = place.kind
    if target.is_dir() and place.is_file:
        raise FileError(f"The result {target} is a folder. Name a file, or end it with '/'.")
    if not target.parent.is_dir():
        raise FileError(f"There is no folder {target.parent} for the result. Make it first.")
    if not os.access(target.parent, os.W_OK):
        raise FileError(f"{target} cannot be written: nothing may be made in {target.parent}.")
    place.check()
    around = zarr_around(target)
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
    picture: ImageFile,
    provenance: str,
    *,
    force: bool = False,
    inputs: Inputs | None = None,
) -> None:
    """Write a result: the whole file appears, or none.

    Parameters
    ----------
    target : Path
        Its ending decides the format; `check_target` says whether that can hold the image.
    data : ndarray
        The restored samples, in the shape of ``picture.data``.
    picture : ImageFile
        The original; its axes are named.
    provenance : str
        JSON in ASCII that says how the result was made. NPY has no place for it.
    force : bool
        Whether an earlier result may be replaced.
    inputs : Inputs, optional
        All that is read, where that is more than the original.

    Raises
    ------
    FileError
        If something stands there that must stay, the input has changed, the file cannot be
        written, or its format cannot hold the image.
    """
    check_target(target, picture, force=force, inputs=inputs)
    place = place_for(target, picture, force=force, inputs=inputs)
    kind = place.kind
    if kind == "zarr":
        picture, data = as_plain(picture, data, target)
        write_zarr(place, data, picture, json.loads(provenance))
        return
    with place.appears_whole() as temporary:
        if kind == "dicom":
            if not place.is_file:
                temporary.mkdir()
            write_dicom(temporary, data, picture, provenance)
            return
        if kind == "nifti":
            write_nifti(temporary, target.name, data, picture, provenance)
            return
        picture, data = as_plain(picture, data, target)
        if kind == "npy":
            joined, _ = with_alpha(data, picture.axes or "", picture)
            write_npy(temporary, joined)
            return
        stored, axes = with_alpha(*stored_order(data, picture.axes or ""), picture)
        if kind == "tiff":
            write_tiff(temporary, target.name, stored, axes, picture, provenance)
        else:
            write_photo(temporary, kind, stored, picture, provenance)
