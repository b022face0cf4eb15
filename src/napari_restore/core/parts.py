"""Blocks of a dask array one by one: the part of its graph that each of them needs."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product
from typing import TYPE_CHECKING, Any

from .lazy import SHARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dask.array as da

#: Most results on which several blocks depend that are kept: of a movie, contexts of the last
#: frames.
_KEPT = 64


class Parts:
    """Graphs of the blocks of an array, made once and cut to what a block needs.

    What `napari_restore.core.lazy` marks as shared is obtained once, and kept while blocks are
    likely to need it.

    Parameters
    ----------
    array : dask.array.Array
    obtain : callable
        Takes a graph and a key, and gives what stands for its result in other graphs.
    """

    def __init__(self, array: da.Array, obtain: Callable[[dict[Any, Any], Any], Any]) -> None:
        from dask.base import optimize

        (self._array,) = optimize(array)
        self._graph = dict(self._array.__dask_graph__())
        self._obtain = obtain
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def __iter__(self) -> Iterator[tuple[tuple[slice, ...], Any]]:
        """Yield the place of each block, and what was obtained for it."""
        from dask.array.core import slices_from_chunks

        places = product(*map(range, self._array.numblocks))
        for place, region in zip(places, slices_from_chunks(self._array.chunks), strict=True):
            key = (self._array.name, *place)
            yield region, self._obtain(self._part(key), key)

    def _part(self, key: Any) -> dict[Any, Any]:
        """Cut out what a key depends on."""
        from dask.core import get_dependencies

        part: dict[Any, Any] = {}
        waiting = [key]
        while waiting:
            other = waiting.pop()
            if other in part:
                continue
            if other != key and _is_shared(other):
                part[other] = self._shared(other)
            else:
                part[other] = self._graph[other]
                waiting.extend(get_dependencies(self._graph, other))
        return part

    def _shared(self, key: Any) -> Any:
        if key not in self._kept:
            self._kept[key] = self._obtain(self._part(key), key)
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def _is_shared(key: Any) -> bool:
    name = key[0] if isinstance(key, tuple) else key
    return isinstance(name, str) and name.startswith(SHARED)
