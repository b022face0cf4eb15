"""An array in a file that is read in parts."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Bytes of samples that are read into memory at once, though a file could be mapped.
IN_MEMORY = 2**26
#: Chunks that zarr decodes or encodes at a time.
_AT_A_TIME = 2


@contextmanager
def few_chunks_at_a_time() -> Iterator[None]:
    """Let zarr read and write few chunks at a time, in the whole process.

    Each of its threads keeps what it has freed for itself: with ten of them the peak is a sixth
    higher, and the network is what takes the time.
    """
    import zarr

    with zarr.config.set({"async.concurrency": _AT_A_TIME}):
        yield


class StoredArray:
    """A zarr array whose errors say what is wrong with the file.

    Parameters
    ----------
    array : zarr.Array
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(int(length) for length in array.shape)
        self.chunks: tuple[int, ...] = tuple(int(length) for length in array.chunks)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """Samples."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return int(self.size * self.dtype.itemsize)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._array[key])
        # A damaged chunk can make decoders raise any error.
        except Exception as error:
            parts = key if isinstance(key, tuple) else (key,)
            where = ", ".join(
                f"{part.start}:{part.stop}" if isinstance(part, slice) else str(part)
                for part in parts
            )
            raise FileError(f"The image cannot be read at [{where}]: {error}.") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


class Inverted(StoredArray):
    """An array in which zero is white, read in parts as what is seen.

    Parameters
    ----------
    array : StoredArray or memory map
    top : int
        See `invert`.
    """

    def __init__(self, array: Any, top: int) -> None:
        self._source, self._top = array, top
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks = getattr(array, "chunks", (*(1,) * (self.ndim - 2), *self.shape[-2:]))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return invert(np.asarray(self._source[key]), self._top)


class MappedArray(np.memmap):
    """Samples of a file that is mapped into memory, read while the file is as long as it was.

    The system would end the process where a file that others cut short is read beyond its end.
    """

    def __getitem__(self, key: Any) -> Any:
        mapped: Any = self._mmap  # type: ignore[attr-defined]
        if mapped is not None:
            start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
            if mapped.size() < start + len(mapped):
                raise FileError(
                    f"The file was cut short while it was read, to {mapped.size()} bytes. Restore "
                    "it when it is whole."
                )
        part = super().__getitem__(key)
        return np.array(part) if part.nbytes <= IN_MEMORY else part


def in_memory_or_mapped(mapped: Any) -> Any:
    """Read a memory map if it is small, and guard it otherwise; other arrays stay as they are."""
    if not isinstance(mapped, np.memmap):
        return mapped
    return np.array(mapped) if mapped.nbytes <= IN_MEMORY else mapped.view(MappedArray)


def white(dtype: np.dtype[Any], bits: int) -> int | None:
    """Find what `invert` takes samples from, for integers of so many bits; None for floats."""
    if dtype.kind == "i":
        return -1
    return 2**bits - 1 if dtype.kind in "ub" else None


def invert(samples: NDArray[Any], top: int) -> NDArray[Any]:
    """Turn samples in which zero is white into such in which it is black, or back."""
    if samples.dtype == bool:
        return ~samples
    inverted: NDArray[Any] = np.subtract(samples.dtype.type(top), samples, dtype=samples.dtype)
    return inverted
