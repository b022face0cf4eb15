"""The engine on dask arrays: a lazy image in, the same lazy image restored out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Planes
from .engine import run
from .intensity import find_scales
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
    """Wrap a zarr or NumPy array, leave a dask array as it is."""
    import dask.array as da

    if isinstance(array, da.Array):
        return array
    # The coarse levels of a lazy pyramid are often in memory.
    chunks = getattr(array, "chunks", None) or "auto"
    wrapped: da.Array = da.from_array(array, chunks=chunks)
    return wrapped


class SampledScales:
    """Intensity scales of a lazy array: found when first asked for, once in each process.

    They are the same for every chunk, since the sample depends on the array's shape alone.

    Parameters
    ----------
    image : dask.array.Array
    layout : Layout
    from_zero : bool
        As for `napari_restore.core.intensity.find_scales`.
    """

    def __init__(self, image: da.Array, layout: Layout, from_zero: bool) -> None:
        self._image, self._layout, self._from_zero = image, layout, from_zero
        self._found: tuple[Scale, ...] | None = None
        self._lock = threading.Lock()

    def find(self) -> tuple[Scale, ...]:
        """Find the scales, or return those found before."""
        import dask

        with self._lock:
            if self._found is None:
                # Within a task of another computation: not on its threads, which wait for this.
                with dask.config.set(scheduler="synchronous"):
                    self._found = find_scales(Planes(self._image, self._layout), self._from_zero)
            return self._found

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # Without this, dask would pickle the image to find out whether it has seen it before.
        return (type(self).__name__, self._image.name, self._layout, self._from_zero)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


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
    scales: tuple[Scale, ...] | None = None,
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
    scales : tuple of Scale, optional
        Intensity scales if they are known; found from ``image`` when first needed otherwise.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks. Each chunk reads itself and its halo.
    """
    import dask.array as da
    from dask.array.overlap import ensure_minimum_chunksize, overlap

    if layout.pixels == 0:
        return image
    found = SampledScales(image, layout, from_zero) if scales is None else scales
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
    starts = tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in source.chunks)
    windows = overlap(source, depth=depth, boundary="none", allow_rechunk=False)
    views = [_contexts(source, layout, found, view, get_predictor)] if view else []
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
        scales=found,
    )
    result: da.Array = out.rechunk(image.chunks)
    return result


def _known(scales: tuple[Scale, ...] | SampledScales) -> tuple[Scale, ...]:
    return scales.find() if isinstance(scales, SampledScales) else scales


def _contexts(
    source: da.Array,
    layout: Layout,
    scales: tuple[Scale, ...] | SampledScales,
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
    # The samples of a view, with one index for each leading axis to be replaced by a range.
    key = list(view_key(layout, (0,) * len(layout.leading), view))
    for place in np.ndindex(blocks.shape):
        first = [sum(axis[:number]) for axis, number in zip(lengths, place, strict=True)]
        shape = tuple(axis[number] for axis, number in zip(lengths, place, strict=True))
        for axis in layout.leading:
            key[axis] = slice(first[axis], first[axis] + shape[axis])
        origin = tuple(first[axis] for axis in layout.leading)
        block = delayed(_look, pure=True)(
            source[tuple(key)], origin, layout, scales, view, get_predictor
        )
        blocks[place] = da.from_delayed(block, shape, meta=np.empty((0,) * source.ndim, object))
    contexts: da.Array = da.block(blocks.tolist())
    return contexts


def _look(
    samples: NDArray[Any],
    origin: tuple[int, ...],
    layout: Layout,
    scales: tuple[Scale, ...] | SampledScales,
    view: int,
    get_predictor: Callable[[], Predictor],
) -> NDArray[Any]:
    """Contexts of the planes of one chunk: objects, of length 1 along the plane's axes."""
    shape = tuple(
        length if axis in layout.leading else 1 for axis, length in enumerate(samples.shape)
    )
    out = np.empty(shape, object)
    planes, predictor, everything = Planes(None, layout), get_predictor(), slice(None)
    for local in np.ndindex(*(samples.shape[axis] for axis in layout.leading)):
        index = tuple(a + b for a, b in zip(origin, local, strict=True))
        block = planes.canonical(samples[layout.key(local, everything, everything)])
        scale = _known(scales)[layout.group(index)]
        context = predictor.look(view_of(block, layout, scale, view))
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
    depth: dict[int, int],
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    tiles: TileOptions,
    strength: float,
    scales: tuple[Scale, ...] | SampledScales,
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
