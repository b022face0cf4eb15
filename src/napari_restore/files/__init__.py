"""Image files: TIFF, PNG, JPEG and NPY in and out, with what they say about the image."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

from .photo import check_photo, read_photo, write_photo
from .picture import Picture, stored_order, with_alpha
from .tiff_reader import read_tiff
from .tiff_writer import check_tiff, write_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FORMATS", "Picture", "check_target", "image_files", "read_image", "write_image"]

#: File name endings and the formats that they mean.
FORMATS = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".npy": "npy",
}


def _format(path: Path) -> str:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        ending = f"ending '{path.suffix}'" if path.suffix else "a name without an ending"
        raise FileError(f"No image format has {ending}. Use one of: {known}.") from None


def image_files(folder: Path) -> list[Path]:
    """Image files that lie directly in a folder, by name; hidden files are left out.

    Raises
    ------
    FileError
        If there is none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise FileError(f"The folder holds no image file ({', '.join(FORMATS)}).")
    return found


def read_image(path: Path) -> Picture:
    """Read an image file, by the ending of its name.

    Parameters
    ----------
    path : Path
        TIFF (OME, ImageJ or plain), PNG, JPEG or NPY.

    Returns
    -------
    Picture
        Uncompressed TIFF and NPY are memory-mapped.

    Raises
    ------
    FileError
        If the file is missing, of another format, or damaged.
    """
    kind = _format(path)
    if not path.is_file():
        raise FileError("There is no such file.")
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
    kind = _format(target)
    if target.is_dir():
        raise FileError(f"The result {target} is a folder. Name a file, or end it with '/'.")
    if not target.parent.is_dir():
        raise FileError(f"There is no folder {target.parent} for the result. Make it first.")
    if target.exists():
        if os.path.samefile(target, picture.path):
            raise FileError(f"{target} is an input and stays. Name another file or folder.")
        if not force:
            raise FileError(f"{target} exists already. Use --force to replace it.")
    _, axes = stored_order(picture.data, picture.axes or "")
    if kind == "tiff":
        check_tiff(target.name, picture, axes)
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
    kind = _format(target)
    check_target(target, picture, force=force)
    with _appears_whole(target) as temporary:
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
def _appears_whole(target: Path) -> Iterator[Path]:
    """Name to write to; it becomes the target at the end, and vanishes on any error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"{target} cannot be written: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
