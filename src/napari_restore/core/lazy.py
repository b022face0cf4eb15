"""The engine on dask arrays: a lazy image in, the same lazy image restored out.

All that the tasks have in common is one object, under one key of the graph: so a task is small
however large the image is, and a worker gets the object once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Planes
from .block_job import BlockJob, known_scales, make_job, restore_block
from .chunked import FromSample
from .view import common_context, view_key, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    import torch
    from numpy.typing import NDArray

    from .axes import Layout
    from .block_job import Scales, Tiles
    from .protocol import Predictor

#: How keys of a graph begin on which many others depend: to be kept while there are any.
SHARED = "napari-restore-shared"


def run_lazy(
    image: da.Array,
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    *,
    halo: int,
    multiple_of: int,
    view: int,
    frames: int,
    tiles: Tiles,
    strength: float,
    scales: Scales,
) -> da.Array:
    """Restore chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    get_predictor : callable
        Returns the predictor; called in the worker, so it must be picklable and should cache.
    halo, multiple_of, view, frames
        As the predictor has them.
    tiles, strength, scales
        See `BlockJob`.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks. Each chunk reads itself and its halo.
    """
    import dask.array as da
    from dask.array.overlap import ensure_minimum_chunksize, overlap

    if layout.pixels == 0:
        return image
    # A window starts on the network's grid, up to one step outside the halo.
    reach = halo + multiple_of
    chunks = list(image.chunks)
    if layout.colour:
        chunks[layout.axes.index("S")] = (image.shape[layout.axes.index("S")],)
    for letter in "YX":
        axis = layout.axes.index(letter)
        if image.shape[axis] < reach:
            chunks[axis] = (image.shape[axis],)
        elif len(chunks[axis]) > 1:
            chunks[axis] = ensure_minimum_chunksize(reach, chunks[axis])
    source = image.rechunk(tuple(chunks))
    job = make_job(
        layout,
        source.chunks,
        reach=reach,
        frames=frames,
        get_predictor=get_predictor,
        scales=scales,
        tiles=tiles,
        strength=strength,
    )
    windows = overlap(source, depth=job.depth, boundary="none", allow_rechunk=False)
    views = [lazy_contexts(source, layout, scales, view, get_predictor)] if view else []
    out = da.map_blocks(
        _restore_chunk,
        windows,
        *views,
        dtype=image.dtype,
        chunks=source.chunks,
        meta=np.empty((0,) * image.ndim, image.dtype),
        job=_shared(job),
    )
    result: da.Array = out.rechunk(image.chunks)
    return result


def _shared(job: BlockJob) -> Any:
    """One key of a graph for what all tasks need."""
    from dask.base import tokenize
    from dask.delayed import delayed

    return delayed(job, name=f"{SHARED}-job-{tokenize(job)}", traverse=False)


def _find_common(
    planes: Planes, scales: Scales, get_predictor: Callable[[], Predictor]
) -> torch.Tensor | None:
    common = common_context(planes, known_scales(scales), get_predictor())
    return None if common is None else common.cpu()


def lazy_contexts(
    source: da.Array,
    layout: Layout,
    scales: Scales,
    view: int,
    get_predictor: Callable[[], Predictor],
) -> da.Array:
    """Contexts of all planes, chunked over the leading axes as the image is.

    A chunk of the result then asks for those of its own planes alone.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    find = partial(_find_common, scales=scales, get_predictor=get_predictor)
    # The samples of a view, of every plane.
    key = list(view_key(layout, (0,) * len(layout.leading), view))
    for axis in layout.leading:
        key[axis] = slice(None)
    whole = {axis: -1 for axis in range(source.ndim) if axis not in layout.leading}
    samples = source[tuple(key)].rechunk(whole)
    chunks = tuple(
        source.chunks[axis] if axis in layout.leading else (1,) for axis in range(source.ndim)
    )
    job = make_job(
        layout,
        chunks,
        reach=0,
        frames=1,
        get_predictor=get_predictor,
        scales=scales,
        view=view,
        common=FromSample(source, layout, find) if layout.planes > 1 else None,
    )
    shared = _shared(job)
    name = f"{SHARED}-view-{tokenize(samples.name, shared.key)}"
    # Not by map_blocks: dask would make one task of looking at a plane and restoring a chunk of it,
    # and every chunk would look anew.
    tasks: dict[Any, Any] = {
        (name, *place): (partial(_look, block_id=place), (samples.name, *place), shared.key)
        for place in np.ndindex(*map(len, chunks))
    }
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[samples, shared])
    return da.Array(graph, name, chunks, meta=np.empty((0,) * source.ndim, object))


def _look(samples: NDArray[Any], job: BlockJob, *, block_id: tuple[int, ...]) -> NDArray[Any]:
    """Contexts of the planes of one chunk: objects, of length 1 along the plane's axes."""
    layout, region = job.layout, job.region(block_id)
    out = np.empty(tuple(part.stop - part.start for part in region), object)
    planes, predictor, everything = Planes(None, layout), job.get_predictor(), slice(None)
    shared = None if job.common is None else job.common.get()
    for local in np.ndindex(*(samples.shape[axis] for axis in layout.leading)):
        index = tuple(
            region[axis].start + number for axis, number in zip(layout.leading, local, strict=True)
        )
        block = planes.canonical(samples[layout.key(local, everything, everything)])
        scale = known_scales(job.scales)[layout.group(index)]
        context = predictor.look(view_of(block, layout, scale, job.view), shared)
        place = tuple(
            0 if isinstance(part, slice) else part
            for part in layout.key(local, everything, everything)
        )
        # Another worker may have another device, or none.
        out[place] = context.cpu()
    return out


def _restore_chunk(
    window: NDArray[Any],
    views: NDArray[Any] | None = None,
    *,
    job: BlockJob,
    block_id: tuple[int, ...],
) -> NDArray[Any]:
    contexts = None if views is None else list(views.flat)
    return restore_block(job, block_id, window, contexts)[0]
