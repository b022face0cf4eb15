"""Read and write image files of every format; what a result holds, and what it lacks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

from .formats import FORMATS, file_format, is_image_folder, known_ending
from .image_file import upright
from .ome_zarr import is_zarr_folder
from .target import Inputs, Place, folders_around, grows_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .image_file import ImageFile

#: Names that are listed in one note.
_NAMED = 12


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
        picture = FORMATS[kind].read(path, series)
    except (FileError, MemoryError):
        raise
    # A damaged file can make a reader raise any error.
    except Exception as error:
        said = str(error) or repr(error)
        raise FileError(f"The file cannot be read as {FORMATS[kind].name}: {said}.") from error
    named = known_ending(path)
    if named not in (None, kind):
        picture.notes.insert(
            0, f"The file is {FORMATS[kind].name}, whatever its name says; read as such."
        )
    return picture


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
    format = FORMATS[place.kind]
    format.check(target.name, plain_form(picture, target) if format.plain else picture)


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
    format = FORMATS[place.kind]
    if format.plain:
        picture, data = as_plain(picture, data, target)
    with grows_whole(place) if format.folder else place.appears_whole() as temporary:
        format.write(temporary, target.name, data, picture, provenance)


def stays_as_stored(picture: ImageFile, target: Path) -> bool:
    """Whether a result holds samples as the original's file does, with what says how to read them.

    That is a slope, an intercept or a calibration, and how the image is turned.
    """
    kind = file_format(target, picture)
    return kind == picture.format and FORMATS[kind].keeps(target.name, picture)


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


def losses(target: Path, picture: ImageFile) -> list[str]:
    """Name what a result cannot hold of what its original says.

    Parameters
    ----------
    target : Path
        Name of the result.
    picture : ImageFile
        The original; its axes are named.

    Returns
    -------
    list of str
        Whole sentences; none if nothing is lost.
    """
    format, plain = FORMATS[file_format(target, picture)], plain_form(picture, target)
    name, held = format.form(target.name, plain)
    notes = []
    inverted = picture.extras.get("inverted") is not None and picture.plain is None
    if inverted and "inversion" not in held:
        notes.append(f"Zero is white in the file; {name} holds what is seen, inverted.")
    lost = [*_fields_lost(picture, held), *format.unheld(target.name, plain)]
    if not lost:
        return notes
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    named = ", ".join(lost[:_NAMED])
    return [*notes, f"{name} does not hold, and the result lacks: {named}{more}."]


def _fields_lost(picture: ImageFile, held: frozenset[str]) -> list[str]:
    """Names of what `ImageFile` has a field for, and the result has no place for."""
    lost = []
    if picture.pixel_size and "sizes" not in held:
        sizes = (f"{axis} {size:.4g} {unit}" for axis, (size, unit) in picture.pixel_size.items())
        lost.append(f"pixel size ({', '.join(sizes)})")
    if picture.dpi and "resolution" not in held:
        lost.append(f"resolution ({picture.dpi[0]:.4g} dpi)")
    if any(picture.channels) and "channels" not in held:
        lost.append("names of channels")
    if picture.colors and "channels" not in held:
        lost.append("colors of channels")
    if picture.format in ("nifti", "dicom") and "header" not in held:
        lost.append(f"header of {FORMATS[picture.format].name}")
    return lost
