"""DICOM files in a folder, and what lies beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Endings of other images, which may be part of what is meant.
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".zarr", ".nii", ".gz")
#: Files that belong to a medium or a file manager.
_NO_SLICES = ("DICOMDIR", "Thumbs.db", "desktop.ini")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by what it says after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files that lie directly in a folder, by name; hidden files are left out."""
    return sorted(_dicom_in(folder))


def holds_dicom(folder: Path) -> bool:
    """Whether `dicom_files` would find one; opens no more files than needed."""
    return next(_dicom_in(folder), None) is not None


def _dicom_in(folder: Path) -> Iterator[Path]:
    found = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    # The directory of a medium says nothing about pixels.
    return (path for path in found if path.name != "DICOMDIR" and is_dicom(path))


def look_at_others(folder: Path, paths: list[Path], notes: list[str]) -> None:
    """Refuse damaged slices and other images beside a series; note what else is there."""
    found = set(paths)
    others = sorted(
        path
        for path in folder.iterdir()
        if path not in found and path.name[0] != "." and path.name not in _NO_SLICES
    )
    for path in others:
        if path.is_file() and (path.suffix.lower() == ".dcm" or not path.stat().st_size):
            what = "no DICOM (it lacks the mark DICM)" if path.stat().st_size else "empty"
            raise FileError(
                f"{path.name} is {what}, and may be a damaged slice. Mend it, or take it out of "
                "the folder."
            )
        if path.suffix.lower() in _IMAGES:
            raise FileError(
                f"The folder holds a DICOM series and other images, such as {path.name}. Put them "
                "into folders of their own."
            )
    files = [path.name for path in others if path.is_file()]
    if files:
        notes.append(
            f"{len(files)} files of the folder are no DICOM and left out, such as {files[0]}."
        )


def look_at_imageless(paths: list[Path], headers: list[Any], notes: list[str]) -> None:
    """Note reports and the like, which hold no image; refuse slices that have lost theirs."""
    images = [header for header in headers if "Rows" in header]
    without = [(p, h) for p, h in zip(paths, headers, strict=True) if "Rows" not in h]
    for path, header in without:
        if not _says_other(header, images):
            raise FileError(
                f"{path.name} says of no image how many rows it has, and may be a damaged slice. "
                "Mend it, or take it out of the folder."
            )
    if without:
        notes.append(f"{len(without)} DICOM files without an image are left out.")


def _says_other(header: Any, images: list[Any]) -> bool:
    """Whether a file says in full that it is of another kind than all images."""
    told = ("Modality", "SOPClassUID")
    return all(keyword in header for keyword in told) and any(
        header.get(keyword) not in [image.get(keyword) for image in images] for keyword in told
    )
