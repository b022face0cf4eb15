"""The engine on dask arrays: a lazy image in, the same lazy image restored out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Planes
from .engine import run
from .intensity import sample_regions, scales_from
from .tiles import Region
from .view import view_key, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    from numpy.typing import NDArray

    from .axes import Layout
    from .intensity import Scale
    from .protocol import Predictor, TileOptions


def is_lazy(array: Any) -> bool:
    """Whether an array is read in chunks: dask or zarr."""
    # Arrays of h5py and xarray have the attribute too; it is None where there are no chunks.
    return not isinstance(array, np.ndarray) and getattr(array, "chunks", None) is not None


def as_dask(array: Any) -> da.Array:
    """Wrap a zarr array, leave a dask array as it is."""
    import dask.array as da

    if isinstance(array, da.Array):
        return array
    wrapped: da.Array = da.from_array(array, chunks=array.chunks)
    return wrapped


def lazy_scales(image: da.Array, layout: Layout, from_zero: bool) -> Any:
    """Delayed tuple of `Scale`, found from a bounded sample of chunks, the same for every chunk."""
    from dask.delayed import delayed

    samples = [
        (index, image[layout.key(index, slice(r.top, r.bottom), slice(r.left, r.right))])
        for index, r in sample_regions(layout)
    ]
    indices = [index for index, _ in samples]
    blocks = [block for _, block in samples]
    return delayed(_scales, pure=True)(blocks, indices, layout, from_zero)


def _scales(
    blocks: list[NDArray[Any]], indices: list[tuple[int, ...]], layout: Layout, from_zero: bool
) -> tuple[Scale, ...]:
    planes = Planes(None, layout)
    canonical = (planes.canonical(block) for block in blocks)
    return scales_from(zip(indices, canonical, strict=True), layout, from_zero)


def run_lazy(
    image: da.Array,
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    *,
    halo: int,
    multiple_of: int,
    view: int,
    from_zero: bool,
    tiles: TileOptions,
    strength: float,
    scales: Any = None,
) -> da.Array:
    """Restore chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    get_predictor : callable
        Returns the predictor; called in the worker, so it must be picklable and should cache.
    halo, multiple_of, view
        As the predictor has them.
    from_zero : bool
        As for `napari_restore.core.intensity.find_scales`.
    tiles : TileOptions
    strength : float
    scales : delayed, optional
        Intensity scales if they are known or shared; found from ``image`` otherwise.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks. Each chunk reads itself and its halo.
    """
    import dask.array as da
    from dask.array.overlap import ensure_minimum_chunksize, overlap
    from dask.delayed import delayed

    if layout.pixels == 0:
        return image
    scales = lazy_scales(image, layout, from_zero) if scales is None else scales
    # A window starts on the network's grid, up to one step outside the halo.
    reach = halo + multiple_of
    chunks = list(image.chunks)
    if layout.colour:
        chunks[layout.axes.index("S")] = (image.shape[layout.axes.index("S")],)
    depth = {}
    for letter in "YX":
        axis = layout.axes.index(letter)
        if image.shape[axis] < reach:
            chunks[axis] = (image.shape[axis],)
        elif len(chunks[axis]) > 1:
            chunks[axis] = ensure_minimum_chunksize(reach, chunks[axis])
        depth[axis] = reach if len(chunks[axis]) > 1 else 0
    source = image.rechunk(tuple(chunks))
    contexts = None
    if view:
        contexts = {
            index: delayed(_context, pure=True)(
                image[view_key(layout, index, view)], index, layout, scales, view, get_predictor
            )
            for index in layout.indices()
        }
    starts = tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in source.chunks)
    windows = overlap(source, depth=depth, boundary="none", allow_rechunk=False)
    out = da.map_blocks(
        _restore_chunk,
        windows,
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
        contexts=contexts,
    )
    result: da.Array = out.rechunk(image.chunks)
    return result


def _context(
    samples: NDArray[Any],
    index: tuple[int, ...],
    layout: Layout,
    scales: tuple[Scale, ...],
    view: int,
    get_predictor: Callable[[], Predictor],
) -> Any:
    block = Planes(None, layout).canonical(samples)
    return get_predictor().look(view_of(block, layout, scales[layout.group(index)], view))


def _restore_chunk(
    window: NDArray[Any],
    *,
    starts: tuple[list[int], ...],
    depth: dict[int, int],
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    tiles: TileOptions,
    strength: float,
    scales: tuple[Scale, ...],
    contexts: dict[tuple[int, ...], Any] | None,
    block_id: tuple[int, ...],
) -> NDArray[Any]:
    first = tuple(starts[axis][number] for axis, number in enumerate(block_id))
    last = tuple(starts[axis][number + 1] for axis, number in enumerate(block_id))
    origin = tuple(max(0, start - depth.get(axis, 0)) for axis, start in enumerate(first))
    out = np.empty(tuple(b - a for a, b in zip(first, last, strict=True)), window.dtype)
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    region = Region(first[y], first[x], last[y], last[x])
    leading = [range(first[axis], last[axis]) for axis in layout.leading]
    indices = [()] if not leading else [tuple(map(int, i)) for i in np.ndindex(*map(len, leading))]
    regions = [
        (tuple(r[i] for r, i in zip(leading, index, strict=True)), region) for index in indices
    ]
    steps = run(
        Planes(window, layout, origin),
        Planes(out, layout, first),
        get_predictor(),
        scales,
        tiles=tiles,
        strength=strength,
        regions=regions,
        contexts=contexts,
    )
    for _ in steps:
        pass
    return out
