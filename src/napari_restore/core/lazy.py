"""The engine on dask arrays: a lazy image in, the same lazy image restored out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .axes import Planes
from .chunked import FromSample
from .engine import run
from .tiles import Region
from .view import common_context, view_key, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    import torch
    from numpy.typing import NDArray

    from .axes import Layout
    from .intensity import Scale
    from .protocol import Predictor, TileOptions

    Scales: TypeAlias = "tuple[Scale, ...] | FromSample[tuple[Scale, ...]]"


def run_lazy(
    image: da.Array,
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    *,
    halo: int,
    multiple_of: int,
    view: int,
    frames: int,
    tiles: TileOptions,
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
    tiles : TileOptions
    strength : float
    scales : tuple of Scale, or FromSample
        Intensity scales, or how they are found when they are first needed.

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
    depth: dict[int, tuple[int, int]] = {}
    for letter in "YX":
        axis = layout.axes.index(letter)
        if image.shape[axis] < reach:
            chunks[axis] = (image.shape[axis],)
        elif len(chunks[axis]) > 1:
            chunks[axis] = ensure_minimum_chunksize(reach, chunks[axis])
        depth[axis] = (reach, reach) if len(chunks[axis]) > 1 else (0, 0)
    if frames == 2:
        # The last frame takes the one before for its neighbour.
        time = layout.axes.index("T")
        depth[time] = (int(chunks[time][-1] == 1), 1)
    source = image.rechunk(tuple(chunks))
    starts = tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in source.chunks)
    windows = overlap(source, depth=depth, boundary="none", allow_rechunk=False)
    views = [lazy_contexts(source, layout, scales, view, get_predictor)] if view else []
    out = da.map_blocks(
        _restore_chunk,
        windows,
        *views,
        dtype=image.dtype,
        chunks=source.chunks,
        meta=np.empty((0,) * image.ndim, image.dtype),
        starts=starts,
        depth=depth,
        layout=layout,
        get_predictor=get_predictor,
        tiles=tiles,
        strength=strength,
        scales=scales,
    )
    result: da.Array = out.rechunk(image.chunks)
    return result


def _known(scales: Scales) -> tuple[Scale, ...]:
    return scales.get() if isinstance(scales, FromSample) else scales


def _find_common(
    planes: Planes, scales: Scales, get_predictor: Callable[[], Predictor]
) -> torch.Tensor | None:
    return common_context(planes, _known(scales), get_predictor())


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
    from dask.delayed import delayed

    lengths = tuple(
        source.chunks[axis] if axis in layout.leading else (1,) for axis in range(source.ndim)
    )
    blocks = np.empty(tuple(len(axis) for axis in lengths), object)
    find = partial(_find_common, scales=scales, get_predictor=get_predictor)
    common = FromSample(source, layout, find) if layout.planes > 1 else None
    # The samples of a view, with one index for each leading axis to be replaced by a range.
    key = list(view_key(layout, (0,) * len(layout.leading), view))
    for place in np.ndindex(blocks.shape):
        first = [sum(axis[:number]) for axis, number in zip(lengths, place, strict=True)]
        shape = tuple(axis[number] for axis, number in zip(lengths, place, strict=True))
        for axis in layout.leading:
            key[axis] = slice(first[axis], first[axis] + shape[axis])
        origin = tuple(first[axis] for axis in layout.leading)
        block = delayed(_look, pure=True)(
            source[tuple(key)], common, origin, layout, scales, view, get_predictor
        )
        blocks[place] = da.from_delayed(block, shape, meta=np.empty((0,) * source.ndim, object))
    contexts: da.Array = da.block(blocks.tolist())
    return contexts


def _look(
    samples: NDArray[Any],
    common: FromSample[torch.Tensor | None] | None,
    origin: tuple[int, ...],
    layout: Layout,
    scales: Scales,
    view: int,
    get_predictor: Callable[[], Predictor],
) -> NDArray[Any]:
    """Contexts of the planes of one chunk: objects, of length 1 along the plane's axes."""
    shape = tuple(
        length if axis in layout.leading else 1 for axis, length in enumerate(samples.shape)
    )
    out = np.empty(shape, object)
    planes, predictor, everything = Planes(None, layout), get_predictor(), slice(None)
    shared = None if common is None else common.get()
    for local in np.ndindex(*(samples.shape[axis] for axis in layout.leading)):
        index = tuple(a + b for a, b in zip(origin, local, strict=True))
        block = planes.canonical(samples[layout.key(local, everything, everything)])
        scale = _known(scales)[layout.group(index)]
        context = predictor.look(view_of(block, layout, scale, view), shared)
        place = tuple(
            0 if isinstance(part, slice) else part
            for part in layout.key(local, everything, everything)
        )
        out[place] = context
    return out


def _restore_chunk(
    window: NDArray[Any],
    views: NDArray[Any] | None = None,
    *,
    starts: tuple[list[int], ...],
    depth: dict[int, tuple[int, int]],
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    tiles: TileOptions,
    strength: float,
    scales: Scales,
    block_id: tuple[int, ...],
) -> NDArray[Any]:
    first = tuple(starts[axis][number] for axis, number in enumerate(block_id))
    last = tuple(starts[axis][number + 1] for axis, number in enumerate(block_id))
    origin = tuple(max(0, start - depth.get(axis, (0, 0))[0]) for axis, start in enumerate(first))
    out = np.empty(tuple(b - a for a, b in zip(first, last, strict=True)), window.dtype)
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    region = Region(first[y], first[x], last[y], last[x])
    leading = [range(first[axis], last[axis]) for axis in layout.leading]
    indices = [()] if not leading else [tuple(map(int, i)) for i in np.ndindex(*map(len, leading))]
    regions = [
        (tuple(r[i] for r, i in zip(leading, index, strict=True)), region) for index in indices
    ]
    contexts = {}
    if views is not None:
        contexts = {index: context for (index, _), context in zip(regions, views.flat, strict=True)}
    steps = run(
        Planes(window, layout, origin),
        Planes(out, layout, first),
        get_predictor(),
        _known(scales),
        tiles=tiles,
        strength=strength,
        regions=regions,
        contexts=contexts,
    )
    for _ in steps:
        pass
    return out
