"""Arrays in chunks, dask and zarr: told from others, read at once, sampled once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from .axes import Planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import dask.array as da
    from numpy.typing import NDArray

    from .axes import Layout
    from .tiles import Region

Found = TypeVar("Found")


def read_together(
    source: Planes, places: Iterable[tuple[tuple[int, ...], Region]]
) -> list[NDArray[Any]]:
    """Read several regions at once, so that a chunk of a lazy array is computed once for all.

    Returns
    -------
    list of ndarray
        As `Planes.read` gives them.
    """
    array = source.array
    if not is_lazy(array):
        return [source.read(index, region) for index, region in places]
    from dask.base import compute

    lazy = Planes(as_dask(array), source.layout, source.origin)
    blocks = compute(*(lazy.array[lazy.key(index, region)] for index, region in places))
    return [source.canonical(block) for block in blocks]


def is_lazy(array: Any) -> bool:
    """Whether an array is read in chunks: dask or zarr."""
    # Arrays of h5py and xarray have the attribute too; it is None where there are no chunks.
    return not isinstance(array, np.ndarray) and getattr(array, "chunks", None) is not None


def as_dask(array: Any) -> da.Array:
    """Wrap a zarr or NumPy array, leave a dask array as it is."""
    import dask.array as da

    if isinstance(array, da.Array):
        return array
    # The coarse levels of a lazy pyramid are often in memory.
    chunks = getattr(array, "chunks", None) or "auto"
    wrapped: da.Array = da.from_array(array, chunks=chunks)
    return wrapped


class _Synchronous:
    """A dask array that is computed in the thread that reads it.

    Within a task of another computation the threads of dask wait for that task; and dask's own
    setting for this holds for the whole process.
    """

    def __init__(self, image: da.Array) -> None:
        self._image = image
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        block: NDArray[Any] = self._image[key].compute(scheduler="synchronous")
        return block


class FromSample(Generic[Found]):
    """Something about a lazy array: found when first asked for, and kept.

    It is the same for every chunk, if the sample it is found from depends on the array's shape
    alone.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    find : callable
        From the planes of the whole image. It must be picklable.
    """

    def __init__(self, image: da.Array, layout: Layout, find: Callable[[Planes], Found]) -> None:
        self._image, self._layout, self._find = image, layout, find
        self._found: Found | None = None
        self._lock = threading.Lock()

    def get(self) -> Found:
        """Find it, or return what was found before."""
        with self._lock:
            if self._found is None:
                self._found = self._find(Planes(_Synchronous(self._image), self._layout))
            return self._found

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # Without this, dask would pickle the image to find out whether it has seen it before.
        from dask.base import normalize_token

        find = normalize_token(self._find)
        return (type(self).__name__, self._image.name, self._layout, find)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}
