"""The formats of image files: one table of how each is known, read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

from .dicom.reader import holds_dicom, read_dicom
from .dicom.writer import check_dicom, is_our_dicom, write_dicom
from .image_file import ALL
from .nifti import check_nifti, is_our_nifti, read_nifti, write_nifti
from .npy import is_our_npy, read_npy, write_npy
from .ome_zarr import check_zarr, is_our_zarr, is_zarr, read_zarr, write_zarr
from .photo import check_photo, is_our_photo, read_photo, unheld_by_photo, write_photo
from .tiff.reader import read_tiff
from .tiff.writer import (
    check_tiff,
    form_of_tiff,
    is_our_tiff,
    keeps_calibration,
    unheld_by_tiff,
    write_tiff,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from .image_file import ImageFile


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
    """
    try:
        return FORMATS[kind].is_ours(path)
    # Damaged files can make readers raise any error. One that cannot be read is not ours, so that
    # the caller refuses to replace it, and names it.
    except Exception:
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
