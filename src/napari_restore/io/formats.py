"""Which format a file has: by its name, or by what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.errors import FileError

from .content import kinds_in
from .dicom_folder import holds_dicom
from .zarr_reader import is_zarr

if TYPE_CHECKING:
    from pathlib import Path

    from .image_file import ImageFile

#: File name endings and the formats that they mean.
FORMATS = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".npy": "npy",
    ".zarr": "zarr",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".dcm": "dicom",
}


#: What the formats are called.
NAMES = {
    "tiff": "TIFF",
    "png": "PNG",
    "jpeg": "JPEG",
    "npy": "NPY",
    "zarr": "zarr",
    "nifti": "NIfTI",
    "dicom": "DICOM",
}


def known_ending(path: Path) -> str | None:
    """Find the format that the ending of a name means; None if it means none."""
    name = path.name.lower()
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def file_format(path: Path, source: ImageFile | None = None) -> str:
    """Find the format of a file: a value of `FORMATS`.

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
    known = ", ".join(FORMATS)
    what = f"ending '{ending}'" if ending else "a name without an ending"
    raise FileError(f"No image format has {what}. Use one of: {known}.")


def _inside(path: Path, named: str | None) -> str | None:
    """Format of a file by its content, where that is known, else by its name."""
    found = kinds_in(path)
    zipped = named == "nifti" and path.name.lower().endswith(".gz")
    if not found or named in found or zipped:
        return named
    known = [kind for kind in found if kind in FORMATS.values()]
    if named is None:
        # By its content alone nothing is read but DICOM, whose files often have no ending.
        return "dicom" if "dicom" in known else None
    if known:
        return known[-1]
    raise FileError(f"The file is {found[0]}, whatever its name says. Convert it, to TIFF say.")


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
        raise FileError(f"The folder holds no image file ({', '.join(FORMATS)}).")
    return found


def images_in(folder: Path) -> list[Path]:
    """List what `image_files` finds, which may be nothing."""
    return sorted(
        path
        for path in folder.iterdir()
        if known_ending(path) and not path.name.startswith(".") and path.is_dir() == is_zarr(path)
    )
