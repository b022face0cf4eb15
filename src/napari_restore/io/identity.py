"""Which image a file holds: whether it is still the same, and the same on other machines."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.layout import Planes
from napari_restore.image.lazy import let_go
from napari_restore.image.sampling import sample_regions

from .files import read_image
from .stored import StoredArray

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_restore.image.layout import Layout

    from .image_file import ImageFile

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
        Hash of `napari_restore.io.identity.sample_hash`.
    """
    try:
        return sample_hash(image, layout) == expected
    except (FileError, OSError):
        return False
