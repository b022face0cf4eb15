"""Lazy arrays: a dask array in, the same dask array restored out.

All that the tasks have in common is one object, under one key of the graph: so a task is small
however large the image is, and a worker gets the object once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.layout import LazyStatistic, Planes, as_dask, regions_of
from napari_restore.inference.engine import common_context, view_key, view_of

from .run import BlockTask, find_later

if TYPE_CHECKING:
    import dask.array as da
    import torch
    from numpy.typing import NDArray

    from napari_restore.image.layout import Block, Layout

    from .plan import Facts, Plan

#: How keys of a graph begin on which many others depend.
SHARED = "napari-restore"


@dataclass(frozen=True, eq=False)
class _Chunks:
    """A task, and where the chunks of an array lie.

    Attributes
    ----------
    task : BlockTask
    starts : tuple of list of int
        Along each axis, where the chunks begin, and at last the length.
    depth : dict
        By axis, how many samples before and after a chunk belong to its window.
    common : LazyStatistic, optional
        What the contexts of all planes have in common.
    """

    task: BlockTask
    starts: tuple[list[int], ...]
    depth: dict[int, tuple[int, int]]
    common: LazyStatistic[torch.Tensor | None] | None = None

    def block(self, place: tuple[int, ...]) -> Block:
        """Say which samples a chunk is, from its number along each axis."""
        return tuple(
            slice(starts[number], starts[number + 1])
            for starts, number in zip(self.starts, place, strict=True)
        )

    def origin(self, block: Block) -> tuple[int, ...]:
        """Say where the window of a chunk begins."""
        return tuple(
            max(0, part.start - self.depth.get(axis, (0, 0))[0]) for axis, part in enumerate(block)
        )


def _starts(chunks: tuple[tuple[int, ...], ...]) -> tuple[list[int], ...]:
    return tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in chunks)


def restore_lazily(image: Any, plan: Plan, facts: Facts | None = None) -> da.Array:
    """Restore a dask or zarr array chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array or zarr.Array
    plan : Plan
    facts : Facts, optional
        What all blocks have in common, if it is known; else it is found when the first chunk is
        asked for.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks. Each chunk reads itself and its halo. Computed on a cluster,
        each worker takes its own device for "auto", and loads the model once.
    """
    import dask.array as da
    from dask.array.overlap import ensure_minimum_chunksize, overlap

    source, layout, spec = as_dask(image), plan.layout, plan.spec
    if layout.pixels == 0:
        return source
    # A window starts on the network's grid, up to one step outside the halo.
    reach = dict.fromkeys("YX", plan.halo + spec.multiple_of)
    if plan.in_space:
        reach = {a: r for a, r in zip("ZYX", plan.margins, strict=True) if r}
    chunks = list(source.chunks)
    if layout.samples:
        chunks[layout.axes.index("S")] = (layout.samples,)
    for letter, margin in reach.items():
        axis = layout.axes.index(letter)
        if source.shape[axis] < margin:
            chunks[axis] = (source.shape[axis],)
        elif len(chunks[axis]) > 1:
            chunks[axis] = ensure_minimum_chunksize(margin, chunks[axis])
    joined = source.rechunk(tuple(chunks))
    depth = {
        axis: (margin, margin) if len(joined.chunks[axis]) > 1 else (0, 0)
        for axis, margin in ((layout.axes.index(a), margin) for a, margin in reach.items())
    }
    if spec.frames == 2:
        # The last frame takes the one before for its neighbor.
        time = layout.axes.index("T")
        depth[time] = (int(joined.chunks[time][-1] == 1), 1)
    there = replace(plan, device=plan.options.device, tiles_for=plan.device)
    task = BlockTask(there, facts or find_later(source, there))
    windows = overlap(joined, depth=depth, boundary="none", allow_rechunk=False)
    views = [lazy_contexts(joined, task)] if spec.view else []
    out = da.map_blocks(
        _restore_chunk,
        windows,
        *views,
        dtype=source.dtype,
        chunks=joined.chunks,
        meta=np.empty((0,) * source.ndim, source.dtype),
        shared=_shared(_Chunks(task, _starts(joined.chunks), depth)),
    )
    result: da.Array = out.rechunk(source.chunks)
    return result


def _restore_chunk(
    window: NDArray[Any],
    views: NDArray[Any] | None = None,
    *,
    shared: _Chunks,
    block_id: tuple[int, ...],
) -> NDArray[Any]:
    block, contexts = shared.block(block_id), None
    if views is not None:
        planes = [index for index, _ in regions_of(shared.task.plan.layout, block)]
        contexts = dict(zip(planes, views.flat, strict=True))
    return shared.task(block, window, contexts, origin=shared.origin(block))[0]


def _shared(chunks: _Chunks) -> Any:
    """One key of a graph for what all tasks need."""
    from dask.base import tokenize
    from dask.delayed import delayed

    return delayed(chunks, name=f"{SHARED}-{tokenize(chunks)}", traverse=False)


def lazy_contexts(source: da.Array, task: BlockTask) -> da.Array:
    """Contexts of all planes, chunked over the leading axes as the image is.

    A chunk of the result then asks for those of its own planes alone.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    layout = task.plan.layout
    # The samples of a view, of every plane.
    key = list(view_key(layout, (0,) * len(layout.leading), task.plan.spec.view))
    for axis in layout.leading:
        key[axis] = slice(None)
    whole = {axis: -1 for axis in range(source.ndim) if axis not in layout.leading}
    samples = source[tuple(key)].rechunk(whole)
    chunks = tuple(
        source.chunks[axis] if axis in layout.leading else (1,) for axis in range(source.ndim)
    )
    common = None
    if layout.planes > 1:
        common = LazyStatistic(source, layout, partial(_find_common, task=task))
    shared = _shared(_Chunks(task, _starts(chunks), {}, common))
    name = f"{SHARED}-view-{tokenize(samples.name, shared.key)}"
    # Not by map_blocks: dask would make one task of looking at a plane and restoring a chunk of it,
    # and every chunk would look anew.
    tasks: dict[Any, Any] = {
        (name, *place): (partial(_encode, block_id=place), (samples.name, *place), shared.key)
        for place in np.ndindex(*map(len, chunks))
    }
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[samples, shared])
    return da.Array(graph, name, chunks, meta=np.empty((0,) * source.ndim, object))


def _find_common(planes: Planes, task: BlockTask) -> torch.Tensor | None:
    common = common_context(planes, task.found().scales, task.predictor())
    return None if common is None else common.cpu()


def _encode(samples: NDArray[Any], shared: _Chunks, *, block_id: tuple[int, ...]) -> NDArray[Any]:
    """Contexts of the planes of one chunk: objects, of length 1 along the plane's axes."""
    task, block = shared.task, shared.block(block_id)
    layout: Layout = task.plan.layout
    out = np.empty(tuple(part.stop - part.start for part in block), object)
    planes, predictor, everything = Planes(None, layout), task.predictor(), slice(None)
    common = None if shared.common is None else shared.common.get()
    for local in np.ndindex(*(samples.shape[axis] for axis in layout.leading)):
        index = tuple(
            block[axis].start + number for axis, number in zip(layout.leading, local, strict=True)
        )
        plane = planes.canonical(samples[layout.key(local, everything, everything)])
        scales, group = task.found().scales, layout.group(index)
        view = view_of(plane, layout, scales, group, task.plan.spec.view)
        context = predictor.encode(view, common)
        place = tuple(
            0 if isinstance(part, slice) else part
            for part in layout.key(local, everything, everything)
        )
        # Another worker may have another device, or none.
        out[place] = context.cpu()
    return out
