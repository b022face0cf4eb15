"""The samples of an image file, read on other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.lazy import let_go

from .identity import sample_hash
from .stored import StoredArray

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_restore.image.layout import Layout

    from .image_file import ImageFile


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
        from napari_restore.io import read_image

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
