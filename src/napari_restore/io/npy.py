"""Read and write NPY files."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.layout import in_memory_or_mapped

from .image_file import ImageFile, with_alpha

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Where the samples of our files begin. NPY has no place for words, but may have a header of any
#: length, filled up with spaces; other writers end it at the next multiple of 64 bytes.
_START = 1024


def read_npy(path: Path) -> ImageFile:
    """Read an NPY file; large ones are memory-mapped.

    Raises
    ------
    FileError
        If it is damaged, or its header cannot be true.
    """
    try:
        try:
            data = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            # An empty array cannot be mapped, but read.
            data = np.load(path, allow_pickle=False)
    # A damaged header can make NumPy raise any error.
    except Exception as error:
        raise FileError(f"The file cannot be read as NPY: {error or repr(error)}.") from error
    if not isinstance(data, np.ndarray):
        raise FileError(
            "The file is an archive of arrays (NPZ). Save the array that is meant as .npy."
        )
    return ImageFile(path, in_memory_or_mapped(data), None, "npy")


def write_npy(path: Path, data: NDArray[Any], picture: ImageFile) -> None:
    """Write an NPY file that `is_our_npy` knows."""
    data, _ = with_alpha(data, picture.axes or "", picture)
    header = io.BytesIO()
    described = np.lib.format.header_data_from_array_1_0(data)
    np.lib.format.write_array_header_1_0(header, described)
    text = header.getvalue()[10:].rstrip()
    start = max(_START, -(-(len(text) + 11) // 64) * 64)
    with path.open("wb") as file:
        file.write(np.lib.format.magic(1, 0) + struct.pack("<H", start - 10))
        file.write(text.ljust(start - 11) + b"\n")
        np.ascontiguousarray(data.T if described["fortran_order"] else data).tofile(file)


def is_our_npy(path: Path) -> bool:
    """Whether a file was written by `write_npy`."""
    with path.open("rb") as file:
        head = file.read(_START)
    return head[:10] == np.lib.format.magic(1, 0) + struct.pack("<H", _START - 10)
