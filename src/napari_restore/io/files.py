"""Image files of every format: how each is known, read and written, and where results go."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.intensity import sample_regions
from napari_restore.image.layout import UNNAMED, Planes, StoredArray, let_go
from napari_restore.io.tiff.reader import read_tiff
from napari_restore.io.tiff.writer import (
    check_tiff,
    form_of_tiff,
    is_our_tiff,
    keeps_calibration,
    unheld_by_tiff,
    write_tiff,
)

from .dicom import check_dicom, holds_dicom, is_our_dicom, read_dicom, write_dicom
from .image_file import ALL
from .nifti import check_nifti, is_our_nifti, read_nifti, write_nifti
from .npy import is_our_npy, read_npy, write_npy
from .ome_zarr import check_zarr, is_our_zarr, is_zarr, is_zarr_folder, read_zarr, write_zarr
from .photo import check_photo, is_our_photo, read_photo, unheld_by_photo, write_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from napari_restore.image.layout import Layout

    from .image_file import ImageFile

_RGB = 2  # TIFF's photometric interpretation


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


def reading(
    picture: ImageFile, axes: str | None, rgb: bool | None
) -> tuple[str | None, bool | None]:
    """Axes and rgb for `make_plan`, the user's wish before the file's word.

    Parameters
    ----------
    picture : ImageFile
    axes : str or None
        What the user says.
    rgb : bool or None
        Whether the user wants the image taken as RGB.
    """
    if axes is not None or picture.axes is None:
        return axes, rgb
    letters = picture.axes
    if rgb:
        letters = _as_color(picture, letters)
    elif "S" in letters and (rgb is False or not picture.color):
        letters = letters.replace("S", "S" if "C" in letters else "C")
        if "S" in letters:
            letters = letters.replace("S", _spare(letters))
    return _distinct(letters), rgb


def _as_color(picture: ImageFile, letters: str) -> str:
    sizes = dict(zip(letters, picture.data.shape, strict=True))
    if "S" in letters:
        return letters
    if sizes.get("C") in (3, 4):
        return letters.replace("C", "S")
    if len(letters) > 2 and picture.data.shape[-1] in (3, 4):
        return letters[:-3] + "YXS"
    return letters


def name_axes(picture: ImageFile, layout: Layout, named_by_user: bool) -> None:
    """Note the axes that the result is written with, where the file did not name them."""
    unsure = picture.axes is None or (
        picture.extras.get("flavor") in ("plain", "shaped") and set(picture.axes) & set("QI")
    )
    if picture.axes is None:
        plane = "YXS" if layout.color else "YX"
        picture.axes = "Q" * (len(layout.shape) - len(plane)) + plane
        picture.color = layout.color
    # What the user calls colors; a TIFF that calls them gray stays as it is.
    named = picture.format != "tiff" or picture.extras.get("photometric") == _RGB
    picture.color |= named and layout.color and "S" in picture.axes
    if named_by_user and unsure:
        # Alpha that is kept apart is no axis of the samples.
        axes = layout.axes if picture.alpha is None else layout.axes.replace("S", "")
        picture.axes, picture.color = axes, layout.color


def _spare(taken: str) -> str:
    return next(letter for letter in UNNAMED if letter not in taken)


def _distinct(letters: str) -> str:
    """Rename axes that share a letter; which letter they get means nothing."""
    out = ""
    for position, letter in enumerate(letters):
        rest = letters[position + 1 :]
        out += _spare(letters + out) if letter in out or letter in rest else letter
    return out


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


def clip(picture: ImageFile, data: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Bring restored samples down to `ImageFile.top`; also returns how many were above it."""
    if picture.top is None or not (above := int(np.count_nonzero(data > picture.top))):
        return data, 0
    return np.minimum(data, picture.top).astype(data.dtype), above


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
        raise FileError(
            f"{target} cannot be written: the folder {target.parent} allows no new files."
        )
    place.check()
    around = zarr_around(target)
    if around is not None:
        raise FileError(f"The result {target} would lie inside {around}. Name another folder.")
    format = FORMATS[place.kind]
    if format.one_volume:
        _check_even(picture)
    format.check(target.name, plain_form(picture, target) if format.plain else picture)


def _check_even(picture: ImageFile) -> None:
    """Raise a `FileError` if one file would make a wrong volume of slices that lie unevenly."""
    if picture.extras.get("uneven"):
        raise FileError(
            f"The result would not be a true volume. {picture.extras['uneven']} Name a folder for "
            "the result, which becomes DICOM, or a .npy file."
        )


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


#: Axes that are turned round to bring an orientation upright; from 5 on, after Y and X changed
#: places.
_MIRRORED = {2: "X", 3: "YX", 4: "Y", 5: "", 6: "X", 7: "YX", 8: "Y"}


def upright(data: NDArray[Any], axes: str, orientation: int) -> NDArray[Any]:
    """Turn and mirror the planes of an array, as a view, so that they are seen upright.

    Parameters
    ----------
    data : ndarray
    axes : str
        With Y and X; they stay where they are.
    orientation : int
        1 to 8, as in TIFF and EXIF; anything else counts as 1.
    """
    if orientation not in range(2, 9):
        return data
    if orientation >= 5:
        data = data.swapaxes(axes.index("Y"), axes.index("X"))
    turned: NDArray[Any] = np.flip(data, tuple(map(axes.index, _MIRRORED[orientation])))
    return turned


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
    if picture.extras.get("low_is_bright") and file_format(target, picture) != "dicom":
        notes.append(
            f"Low values are shown bright in the file (MONOCHROME1); {name} holds the values, and "
            "does not say so."
        )
    lost = [*_fields_lost(picture, held), *format.unheld(target.name, plain)]
    if not lost:
        return notes
    # All of them: who needs one that is not named would not look for it.
    return [*notes, f"{name} does not hold, and the result lacks: {', '.join(lost)}."]


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


@dataclass(frozen=True)
class Format:
    """How files of a format are known, read and written.

    Attributes
    ----------
    name : str
        What it is called.
    endings : tuple of str
        Of file names.
    begins : tuple of (int, bytes)
        How files begin: an offset, and the bytes there.
    read : callable
        Gets a path and the series that is meant.
    check : callable
        Gets the name of a result and its image; raises a `FileError` if the format cannot hold it.
    write : callable
        Gets where to write, the name that the result will have, samples like those of the
        original, the original, and the provenance as JSON.
    is_ours : callable
        Gets a path; whether `write` wrote it. May raise anything where nothing can be read.
    form : callable
        Gets the name of a result and its image: what notes call the result, and what it holds of
        "sizes", "resolution", "channels", "header" and "inversion".
    unheld : callable
        Gets the name of a result and its image: names of what else it lacks.
    plain : bool
        Whether the format holds numbers alone: a slope is applied, and the image is upright.
    keeps : callable
        Gets the name of a result and an image of the same format: whether the samples stay as they
        are stored nevertheless.
    folder : bool
        Whether a result is a folder, which grows and can be continued.
    one_volume : bool
        Whether slices have even distances in it. NIfTI looks for itself.
    """

    name: str
    endings: tuple[str, ...]
    begins: tuple[tuple[int, bytes], ...]
    read: Callable[[Path, str | None], ImageFile]
    check: Callable[[str, ImageFile], None]
    write: Callable[[Path, str, NDArray[Any], ImageFile, str], None]
    is_ours: Callable[[Path], bool]
    form: Callable[[str, ImageFile], tuple[str, frozenset[str]]]
    unheld: Callable[[str, ImageFile], list[str]]
    plain: bool = True
    keeps: Callable[[str, ImageFile], bool] = lambda name, image: True
    folder: bool = False
    one_volume: bool = True


def _form(
    kind: str, name: str, *held: str
) -> Callable[[str, ImageFile], tuple[str, frozenset[str]]]:
    return lambda _, image: (name, ALL if image.format == kind else frozenset(held))


def _all_said(kind: str) -> Callable[[str, ImageFile], list[str]]:
    return lambda _, image: [] if image.format == kind else list(image.said)


def _photo(kind: str, name: str, endings: tuple[str, ...], begins: bytes) -> Format:
    return Format(
        name,
        endings,
        ((0, begins),),
        read=lambda path, _: read_photo(path, kind),
        check=lambda _, image: check_photo(kind, image),
        write=lambda path, _, data, image, how: write_photo(path, kind, data, image, how),
        is_ours=lambda path: is_our_photo(path, kind),
        form=_form(kind, name, "resolution"),
        unheld=lambda _, image: unheld_by_photo(kind, image),
    )


#: The formats by the names that `ImageFile.format` has.
FORMATS = {
    "tiff": Format(
        "TIFF",
        (".tif", ".tiff"),
        ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
        read=lambda path, _: read_tiff(path),
        check=check_tiff,
        write=write_tiff,
        is_ours=is_our_tiff,
        form=form_of_tiff,
        unheld=unheld_by_tiff,
        keeps=keeps_calibration,
    ),
    "png": _photo("png", "PNG", (".png",), b"\x89PNG\r\n\x1a\n"),
    "jpeg": _photo("jpeg", "JPEG", (".jpg", ".jpeg"), b"\xff\xd8\xff"),
    "npy": Format(
        "NPY",
        (".npy",),
        ((0, b"\x93NUMPY"),),
        read=lambda path, _: read_npy(path),
        check=lambda _, image: None,
        write=lambda path, _, data, image, how: write_npy(path, data, image),
        is_ours=is_our_npy,
        form=_form("npy", "NPY"),
        unheld=_all_said("npy"),
        one_volume=False,
    ),
    "zarr": Format(
        "zarr",
        (".zarr",),
        (),
        read=lambda path, _: read_zarr(path),
        check=lambda _, image: check_zarr(image),
        write=lambda path, _, data, image, how: write_zarr(path, data, image, how),
        is_ours=is_our_zarr,
        form=_form("zarr", "OME-Zarr", "sizes", "channels"),
        unheld=_all_said("zarr"),
        folder=True,
    ),
    "nifti": Format(
        "NIfTI",
        (".nii", ".nii.gz"),
        ((344, b"n+1\0"), (4, b"n+2\0")),
        read=lambda path, _: read_nifti(path),
        check=lambda _, image: check_nifti(image),
        write=write_nifti,
        is_ours=is_our_nifti,
        form=_form("nifti", "NIfTI", "sizes", "header"),
        unheld=_all_said("nifti"),
        one_volume=False,
        plain=False,
    ),
    "dicom": Format(
        "DICOM",
        (".dcm",),
        ((128, b"DICM"),),
        read=read_dicom,
        check=lambda _, image: check_dicom(image),
        write=lambda path, _, data, image, how: write_dicom(path, data, image, how),
        is_ours=is_our_dicom,
        form=_form("dicom", "DICOM", "sizes"),
        unheld=_all_said("dicom"),
        one_volume=False,
        plain=False,
    ),
}

#: File name endings and the formats that they mean.
ENDINGS = {ending: kind for kind, format in FORMATS.items() for ending in format.endings}

#: How other files begin, and what they are called.
_OTHERS = [
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyp", "HEIF, AVIF or a film"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xffO\xffQ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"8BPS", "Photoshop"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"%PDF", "PDF"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"<?xml", "XML"),
    (0, b"version https://git-lfs", "a placeholder of Git LFS, not the file itself"),
]


def kinds_in(path: Path) -> list[str]:
    """Name the formats that a file may be of, by how it begins; DICOM may begin as TIFF does."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return []
    own = [(at, mark, kind) for kind, format in FORMATS.items() for at, mark in format.begins]
    return [kind for at, mark, kind in [*own, *_OTHERS] if head[at : at + len(mark)] == mark]


def is_earlier_result(path: Path, kind: str) -> bool:
    """Whether a file, or the group of an OME-Zarr, says that it is a result of this program.

    Parameters
    ----------
    path : Path
    kind : str
        The format that it should have, a key of `FORMATS`.

    Raises
    ------
    FileError
        If the system does not let it be read.
    """
    try:
        return FORMATS[kind].is_ours(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False  # a folder where a file should be, or one without what the format puts there
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(
                f"{path} cannot be read ({error.strerror}), so it cannot be told whether it is an "
                "earlier result, and stays. Allow it to be read, or name another output."
            ) from error
        # Damaged files can make readers raise any error. One that is damaged is not ours, so that
        # the caller refuses to replace it, and names it.
        return False


def known_ending(path: Path) -> str | None:
    """Find the format that the ending of a name means; None if it means none."""
    name = path.name.lower()
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


def file_format(path: Path, source: ImageFile | None = None) -> str:
    """Find the format of a file: a key of `FORMATS`.

    Parameters
    ----------
    path : Path
        Its name decides; of what is read, the content.
    source : ImageFile, optional
        What was restored, if the path is that of a result.

    Raises
    ------
    FileError
        If it is none of them.
    """
    if is_zarr(path):
        return "zarr"
    kind = known_ending(path)
    if source is None:
        if path.is_dir():
            return "dicom"
        kind = _inside(path, kind)
    if kind is not None:
        return kind
    ending = path.suffix
    if source is not None and source.format == "dicom":
        # Such files have any name, often numbers with dots; other endings are slips.
        if not ending[1:].strip("0123456789") or ending == source.path.suffix:
            return "dicom"
    known = ", ".join(ENDINGS)
    what = f"ending '{ending}'" if ending else "a name without an ending"
    raise FileError(f"No image format has {what}. Use one of: {known}.")


def _inside(path: Path, named: str | None) -> str | None:
    """Format of a file by its content, where that is known, else by its name."""
    found = kinds_in(path)
    zipped = named == "nifti" and path.name.lower().endswith(".gz")
    if not found or named in found or zipped:
        return named
    known = [kind for kind in found if kind in FORMATS]
    if named is None:
        # By its content alone nothing is read but DICOM, whose files often have no ending.
        return "dicom" if "dicom" in known else None
    if known:
        return known[-1]
    raise FileError(
        f"The file is {found[0]}, though its name says otherwise. Convert it, for example to TIFF."
    )


def is_image_folder(folder: Path) -> bool:
    """Whether a folder is one image: an OME-Zarr, or a series of DICOM files."""
    return folder.is_dir() and (is_zarr(folder) or holds_dicom(folder))


def image_files(folder: Path) -> list[Path]:
    """Image files and OME-Zarrs that lie directly in a folder, by name; hidden ones are left out.

    Raises
    ------
    FileError
        If there is none.
    """
    found = images_in(folder)
    if not found:
        raise FileError(f"The folder holds no image file ({', '.join(ENDINGS)}).")
    return found


def images_in(folder: Path) -> list[Path]:
    """List what `image_files` finds, which may be nothing."""
    return sorted(
        path
        for path in folder.iterdir()
        if known_ending(path) and not path.name.startswith(".") and path.is_dir() == is_zarr(path)
    )


#: What file managers leave in folders.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
#: Files of zarr's own, beside the chunks.
_ZARR_FILES = {"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"}


def place_of(path: Path) -> tuple[int, int] | None:
    """Identify the file or folder that a path leads to; None if there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def folders_around(path: Path) -> list[Path]:
    """All folders in which a path lies, by its name and by where links lead."""
    named, real = Path(os.path.abspath(path)), Path(os.path.realpath(path))
    return list(dict.fromkeys([*named.parents, *real.parents]))


class Inputs:
    """Files and folders that are read: no result takes their place, and they do not change.

    They are known by what their paths lead to, so that links, relative paths and names in another
    case hide nothing.

    Parameters
    ----------
    paths : iterable of Path
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._inputs: dict[tuple[int, int], Path] = {}
        self._around: dict[tuple[int, int], Path] = {}
        self._states: dict[Path, dict[str, tuple[int, int]]] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Count another input in."""
        place = place_of(path)
        if place is None:
            return
        self._inputs[place] = path
        for folder in folders_around(path):
            around = place_of(folder)
            if around is not None:
                self._around.setdefault(around, path)

    def check(self, target: Path) -> None:
        """Raise a `FileError` if a target is an input, holds one, or is a part of one."""
        place = place_of(target)
        if place is None:
            return
        if place in self._inputs:
            raise FileError(f"{target} is an input, so it is kept. Name another file or folder.")
        if place in self._around:
            raise FileError(
                f"{target} holds the input {self._around[place]}, so it is kept. Name another file "
                "or folder."
            )
        for folder in folders_around(target):
            source = self._inputs.get(place_of(folder) or (-1, -1))
            if source is not None:
                raise FileError(
                    f"{target} is a part of the input {source}, so it is kept. Name another file "
                    "or folder."
                )

    def remember(self, path: Path) -> None:
        """Note the state of an input that is read from now on."""
        self.add(path)
        self._states = {path: _state(path)}

    def check_unchanged(self) -> None:
        """Raise a `FileError` if the input of the last `remember` is not as it was."""
        for path, before in self._states.items():
            now = _state(path)
            changed = [name for name, state in before.items() if now.get(name) != state]
            if changed:
                raise FileError(
                    f"The input changed while it was restored ({', '.join(changed[:3])}), so the "
                    "result may be a mixture. It is not kept: restore the image again."
                )


def _state(path: Path) -> dict[str, tuple[int, int]]:
    """Size and latest change of a file, or of the files of a folder."""
    if not path.is_dir():
        files = [path]
    elif is_zarr_folder(path):
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    else:
        files = [file for file in path.iterdir() if file.is_file()]
    states = {}
    for file in files:
        with suppress(OSError):
            state = file.stat()
            states[file.name if file == path else str(file.relative_to(path))] = (
                state.st_size,
                state.st_mtime_ns,
            )
    return states


class Place:
    """Where a result goes.

    Parameters
    ----------
    target : Path
    kind : str
        Its format, a value of `FORMATS`.
    force : bool
        Whether an earlier result may be replaced. Nothing else ever is.
    inputs : Inputs
        What no result takes the place of.
    names : collection of str, optional
        Of the files that a result has, where it is a folder of DICOM files.

    Attributes
    ----------
    target, kind, force
        As given.
    """

    def __init__(
        self,
        target: Path,
        kind: str,
        *,
        force: bool,
        inputs: Inputs,
        names: Collection[str] | None = None,
    ) -> None:
        self.target, self.kind, self.force = target, kind, force
        self._inputs, self._names = inputs, names

    @property
    def is_file(self) -> bool:
        """Whether the result is one file, not a folder."""
        return not FORMATS[self.kind].folder and self._names is None

    def check(self) -> None:
        """Raise a `FileError` if something stands there that must stay."""
        target = self.target
        if not os.path.lexists(target):
            return
        self._inputs.check(target)
        why = _why_foreign(target, self.kind, self._names)
        if why:
            raise FileError(
                f"{target} {why}, so it is kept: --force replaces only earlier results. Name "
                "another, or remove it first."
            )
        if not self.force:
            raise FileError(f"{target} exists already. Use --force to replace it.")

    def check_input(self, path: Path) -> None:
        """Raise a `FileError` if something beside the target has to do with an input."""
        self._inputs.check(path)

    @contextmanager
    def appears_whole(self) -> Iterator[Path]:
        """Name to write a file or a folder to; it becomes the target at the end.

        It vanishes on any error, and what stood at the target is there as before.
        """
        temporary = self.target.with_name(f".napari-restore-{secrets.token_hex(6)}.part")
        try:
            yield temporary
            self.take(temporary)
        except OSError as error:
            raise FileError(f"{self.target} cannot be written: {error}.") from error
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    def take(self, made: Path) -> None:
        """Put a file or folder at the target, in place of an earlier result."""
        # Since the last look another run may have been here.
        self.check()
        self._inputs.check_unchanged()
        if made.is_dir():
            _take_folder(made, self.target)
        elif self.force:
            os.replace(made, self.target)
        else:
            _take_file(made, self.target)


def _take_file(made: Path, target: Path) -> None:
    """Give a file a name, unless another file has got it meanwhile."""
    try:
        os.link(made, target)
    except FileExistsError as error:
        raise FileError(f"{target} exists already. Use --force to replace it.") from error
    except OSError:  # a file system without links
        os.replace(made, target)


def _take_folder(made: Path, target: Path) -> None:
    if not os.path.lexists(target):
        os.replace(made, target)
        return
    old = target.with_name(f".napari-restore-{secrets.token_hex(6)}.old")
    os.replace(target, old)
    try:
        os.replace(made, target)
    except OSError:
        os.replace(old, target)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def _why_foreign(target: Path, kind: str, names: Collection[str] | None) -> str:
    """Why a file or folder is no earlier result, as the predicate of a sentence; "" if it is."""
    if target.is_dir():
        there = sorted(path.name for path in target.iterdir() if path.name not in _LITTER)
        if not there:
            return ""
        if FORMATS[kind].folder:
            return _why_foreign_zarr(target, there)
        if names is None:
            return "is a folder"
        others = [name for name in there if name not in names]
        others = others or [name for name in there if not is_earlier_result(target / name, "dicom")]
        return _also_holds(others) if others else ""
    if kind == "zarr" or names is not None:
        return f"is a file, not a {'zarr ' if kind == 'zarr' else ''}folder"
    # An empty file holds nothing that could be lost.
    ours = target.is_file() and (target.stat().st_size == 0 or is_earlier_result(target, kind))
    return "" if ours else "is not a result of napari-restore"


def _also_holds(others: list[str]) -> str:
    more = ", …" if len(others) > 3 else ""
    return f"holds other files, which would be lost ({', '.join(others[:3])}{more})"


def _why_foreign_zarr(folder: Path, there: list[str]) -> str:
    if not is_zarr_folder(folder):
        return "is not a zarr folder"
    levels = [name for name in there if name.isdecimal()]
    others = [name for name in there if name not in levels and name not in _ZARR_FILES]
    if others or not is_earlier_result(folder, "zarr"):
        return _also_holds(others) if others else "is not a result of napari-restore"
    for level in levels:
        for inside, folders, files in os.walk(folder / level):
            others += [
                str(Path(inside, name).relative_to(folder))
                for name in (*folders, *files)
                if not (name.isdecimal() or name == "c" or name in _ZARR_FILES | _LITTER)
            ]
    return _also_holds(sorted(others)) if others else ""


# ---------------------------------------------------------------- results that grow

#: Bytes of the longest file name that file systems take.
_NAME_BYTES = 255
#: What there is in the folder of an unfinished result.
_OWN_NAMES = {"lock", "journal", "image"}


def part_of(target: Path) -> Path:
    """Folder in which a target grows."""
    name = f"{target.name}.part"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".napari-restore-{sha256(os.fsencode(name)).hexdigest()[:16]}.part"
    return target.with_name(name)


@contextmanager
def unfinished(place: Place, *, resume: bool) -> Iterator[Checkpoint]:
    """Begin or continue a result; no other process can until this ends.

    Parameters
    ----------
    place : Place
        Of the folder that it becomes with `Checkpoint.commit`. With ``force`` it starts over where
        an earlier run has left something.
    resume : bool
        Whether to continue what an earlier run has left.

    Raises
    ------
    FileError
        If another process writes it, or an earlier run has left something and neither is wanted,
        or a file cannot be written.
    """
    from filelock import FileLock, Timeout

    target = place.target
    part = part_of(target)
    left: Checkpoint | None = None
    try:
        _check_part(part, place)
        part.mkdir(exist_ok=True)
        lock = FileLock(part / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FileError(f"Another run is writing {target} just now.") from None
        try:
            left = Checkpoint(place, part)
            if left.header and not (resume or place.force):
                raise FileError(
                    f"An earlier run has left {part} unfinished. Continue it with --resume, or "
                    "start over with --force."
                )
            if not (left.header and resume):
                left.clear()
            yield left
        finally:
            # While the lock is held: what another run makes afterward is its own.
            if left is not None and not left.header:
                shutil.rmtree(part, ignore_errors=True)
            lock.release()
            if os.name == "nt" and left is not None and not left.header:
                shutil.rmtree(part, ignore_errors=True)  # a locked file stays there
    except OSError as error:
        raise FileError(f"{target} cannot be written: {error}.") from error


@contextmanager
def grows_whole(place: Place) -> Iterator[Path]:
    """Name of a folder to write to, as `Place.appears_whole`; it is locked meanwhile."""
    with unfinished(place, resume=False) as part:
        part.begin({"writing": place.target.name}, lambda: None)
        yield part.image
        part.commit()


def _check_part(part: Path, place: Place) -> None:
    """Raise a `FileError` if something else has the name of the folder."""
    if not os.path.lexists(part):
        return
    place.check_input(part)
    names = set(os.listdir(part)) if part.is_dir() and not part.is_symlink() else {""}
    # A run that was killed early has left the lock alone, one that was not no lock.
    if names and (names - _OWN_NAMES or not names & {"lock", "journal"}):
        raise FileError(
            f"{part} is not an unfinished result, so it is kept. Name another result, or move it "
            "away."
        )


class Checkpoint:
    """What there is of a result; made by `unfinished`.

    Attributes
    ----------
    image : Path
        Folder of the image.
    header : mapping
        What the result depends on, and how it is made; empty where there is nothing to continue.
    done : mapping
        Records of the finished blocks, by (level, number).
    """

    def __init__(self, place: Place, part: Path) -> None:
        self._place, self._part = place, part
        self._journal = part / "journal"
        self.image = part / "image"
        self.header: dict[str, Any] = {}
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        if not self._journal.exists() or not self.image.is_dir():
            return
        # The last line may be torn.
        lines = self._journal.read_bytes().split(b"\n")[:-1]
        whole = 0
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                break
            whole += len(line) + 1
            if self.header:
                self.done[record.pop("level"), record.pop("block")] = record
            else:
                self.header = record
        os.truncate(self._journal, whole)

    def clear(self) -> None:
        """Start over: remove what there is of the image."""
        self.header, self.done = {}, {}
        self._journal.unlink(missing_ok=True)
        if self.image.exists():
            shutil.rmtree(self.image)

    def begin(self, header: Mapping[str, Any], create: Callable[[], None]) -> None:
        """Make the image's files, or see that those of the earlier run can be continued.

        Parameters
        ----------
        header : mapping
            What the result depends on, in plain types.
        create : callable
            Makes the files.

        Raises
        ------
        FileError
            If something that the result depends on is not as it was; the message says what.
        """
        plain: dict[str, Any] = json.loads(json.dumps(header))
        if self.header:
            changed = _differences(self.header, plain)
            if changed:
                raise FileError(
                    f"The unfinished {self._part} cannot be continued, as something has changed: "
                    f"{'; '.join(changed)}. Start over with --force, or undo the change."
                )
            for torn in self.image.rglob("*.partial"):
                torn.unlink()
            return
        self.clear()
        create()
        self.header = plain
        self._append(plain)

    def finished(self, level: int, number: int, **record: Any) -> None:
        """Note that a block is on disk."""
        self.done[level, number] = record
        self._append({"level": level, "block": number, **record})

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._journal.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Make the image the target, in place of an earlier result."""
        self._place.take(self.image)
        self.header = {}


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """List what differs between two nested records."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        inner = (
            _differences(before.get(key), now.get(key), f"{name} {key}".strip()) for key in keys
        )
        return [change for changes in inner for change in changes]
    return [] if before == now else [f"{name} was {before}, is {now}"]


#: Pixels whose hash is taken.
_SAMPLE_PIXELS = 2**20


def identity_of(picture: ImageFile, layout: Layout) -> dict[str, Any]:
    """Path, size and time of an input, shape and dtype, and a hash of an even sample of it.

    Parameters
    ----------
    picture : ImageFile
    layout : Layout
        How its axes are read.

    Returns
    -------
    dict
        Plain types. Of a folder, the bytes and the latest change of all files in it.
    """
    size, changed = _size_and_change(picture.path)
    return {
        "path": str(picture.path.resolve()),
        "bytes": size,
        "modified_ns": changed,
        "shape": list(layout.shape),
        "dtype": str(picture.data.dtype),
        "sample_sha256": sample_hash(picture.data, layout),
    }


def sample_hash(image: Any, layout: Layout) -> str:
    """SHA-256 of an even, bounded sample of an image."""
    source, digest = Planes(image, layout), hashlib.sha256()
    for index, region in sample_regions(layout, _SAMPLE_PIXELS):
        block = np.ascontiguousarray(source.read(index, region))
        digest.update(block.astype(block.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _size_and_change(path: Path) -> tuple[int, int]:
    if not path.is_dir():
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    size = changed = 0
    for folder, _, names in os.walk(path):
        for name in names:
            state = os.stat(os.path.join(folder, name))
            size, changed = size + state.st_size, max(changed, state.st_mtime_ns)
    return size, changed


# ---------------------------------------------------------------- the same image on other machines


class WorkerReadableImage:
    """The samples of an image file, opened where they are read: sent to a worker, it is a path.

    Parameters
    ----------
    picture : ImageFile
        As it was read from the file.
    """

    def __init__(self, picture: ImageFile) -> None:
        self._path: Path = picture.path.resolve()
        self.shape: tuple[int, ...] = tuple(picture.data.shape)
        self.dtype = np.dtype(picture.data.dtype)
        self._array: Any = None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self._array is None:
            self._array = self._open()
        part = np.array(self._array[key])
        let_go(self._array)
        return part

    def _open(self) -> Any:
        try:
            array = read_image(self._path).data
        except FileError as error:
            raise FileError(f"{self._path}: {error}") from error
        if (tuple(array.shape), array.dtype) != (self.shape, self.dtype):
            raise FileError(
                f"{self._path} is another image here: {array.dtype} of shape {array.shape}, not "
                f"{self.dtype} of shape {self.shape}."
            )
        return array

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}


def read_on_workers(picture: ImageFile) -> WorkerReadableImage | None:
    """Make what is sent of a picture that workers can read in parts; None if they cannot."""
    data = picture.data
    mapped = getattr(data, "filename", None)
    # Not the scratch file that a compressed TIFF was decoded into.
    if isinstance(data, StoredArray) or (mapped and picture.path.samefile(mapped)):
        return WorkerReadableImage(picture)
    return None


def holds(image: WorkerReadableImage, layout: Layout, expected: str) -> bool:
    """Whether the file is there, on the machine where this is called, and is the same.

    Parameters
    ----------
    image : WorkerReadableImage
    layout : Layout
    expected : str
        Hash of `napari_restore.io.files.sample_hash`.
    """
    try:
        return sample_hash(image, layout) == expected
    except (FileError, OSError):
        return False
