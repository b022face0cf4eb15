"""Arrays in chunks, dask and zarr: told from others, read at once, sampled once."""

from __future__ import annotations

import mmap
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from .layout import Planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import dask.array as da
    from numpy.typing import NDArray

    from .layout import Layout
    from .tiling import Region

Found = TypeVar("Found")
#: How many findings that came from another process are kept.
_MOST_RECEIVED = 64


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


def let_go(array: Any) -> None:
    """Let go of the pages of a memory-mapped file that were read: they count as memory in use."""
    mapped = getattr(array, "_mmap", None)
    if getattr(array, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED") and mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


class _Synchronous:
    """A dask array that is computed in the thread that reads it.

    Within a task of another computation the threads of dask wait for that task; and dask's own
    setting for this holds for the whole process.
    """

    def __init__(self, image: da.Array) -> None:
        self._image = image
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part, held = self._image[key], _futures(self._image)
        block: NDArray[Any]
        if held:
            block = held[0].client.compute(part).result()
        else:
            block = part.compute(scheduler="synchronous")
        return block


def _futures(image: da.Array) -> list[Any]:
    """List what an array has on the workers of a cluster: it was persisted there."""
    if "distributed" not in sys.modules:
        return []
    from distributed import futures_of

    held: list[Any] = futures_of(image)
    return held


class LazyStatistic(Generic[Found]):
    """Something about a lazy array: found when first asked for, and kept.

    It is the same for every chunk, if the sample it is found from depends on the array's shape
    alone. Sent to another process, it is found there once, however often it is sent. Of an array
    that was persisted on a cluster it is found at once.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    find : callable
        From the planes of the whole image. It must be picklable.
    """

    def __init__(self, image: da.Array, layout: Layout, find: Callable[[Planes], Found]) -> None:
        self._image: da.Array | None = image
        self._name, self._layout, self._find = image.name, layout, find
        self._found: Found | None = None
        self._token = ""
        self._lock = threading.Lock()
        # Within a task, futures cannot be waited for.
        if _futures(image):
            self.get()

    def get(self) -> Found:
        """Find it, or return what was found before."""
        with self._lock:
            if self._image is not None:
                self._found = self._find(Planes(_Synchronous(self._image), self._layout))
                # With its graph it may be large.
                self._image = None
            return cast("Found", self._found)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # Without this, dask would pickle the image to find out whether it has seen it before.
        from dask.base import normalize_token

        find = normalize_token(self._find)
        return (type(self).__name__, self._name, self._layout, find)

    def __reduce__(self) -> tuple[Any, ...]:
        from dask.base import tokenize

        self._token = self._token or tokenize(self)
        return _received, (self._token, self.__dict__ | {"_lock": None})


_RECEIVED: OrderedDict[str, LazyStatistic[Any]] = OrderedDict()
_receiving = threading.Lock()


def _received(token: str, state: dict[str, Any]) -> LazyStatistic[Any]:
    """Return the same object if it came before: every computation sends it anew."""
    with _receiving:
        known = _RECEIVED.get(token)
        if known is None:
            known = LazyStatistic.__new__(LazyStatistic)
            known.__dict__ |= state | {"_lock": threading.Lock()}
            _RECEIVED[token] = known
            while len(_RECEIVED) > _MOST_RECEIVED:
                _RECEIVED.popitem(last=False)
        _RECEIVED.move_to_end(token)
        return known
