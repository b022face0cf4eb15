"""The share of the light that came through haze, for an image in memory or a lazy one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.analysis.transmission import transmission_of, without_color
from napari_restore.image.layout import Planes, Region, as_dask, is_lazy
from napari_restore.inference.engine import Contexts

from .dask_graph import lazy_contexts
from .run import BlockTask

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout
    from napari_restore.inference.engine import Predictor

    from .plan import Facts, Plan


def transmission(image: Any, plan: Plan, facts: Facts) -> Any:
    """Estimate how much of the light came through the haze.

    Parameters
    ----------
    image : array
        Color; NumPy, dask or zarr.
    plan : Plan
        Of a model that looks at whole planes.
    facts : Facts
        As the restoration uses them.

    Returns
    -------
    array
        float32 in [0, 1], the image's shape without the color axis; lazy if the image is.
    """
    layout = plan.layout
    if not layout.pixels:
        return np.ones(without_color(layout).shape, np.float32)
    if not is_lazy(image):
        return transmission_of(Planes(image, layout), plan.predictor(), facts.scales)
    source = as_dask(image)
    source = source.rechunk({layout.axes.index("S"): -1})
    task = BlockTask(plan.elsewhere(), facts)
    contexts = lazy_contexts(source, task)
    return lazy_transmission(source, layout, contexts, task.predictor, facts.scales)


def lazy_transmission(
    image: da.Array,
    layout: Layout,
    contexts: da.Array,
    get_predictor: Callable[[], Predictor],
    scales: tuple[Scale, ...],
) -> da.Array:
    """Estimate the transmission chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array
        With the color axis in one chunk.
    layout : Layout
    contexts : dask.array.Array
        Of all planes, see `.dask_graph.lazy_contexts`.
    get_predictor : callable
        Returns the predictor; called in the worker.
    scales : tuple of Scale

    Returns
    -------
    dask.array.Array
        float32, the image's shape and chunks without the color axis.
    """
    import dask.array as da

    color = layout.axes.index("S")
    result: da.Array = da.map_blocks(
        _transmission_chunk,
        image,
        contexts,
        drop_axis=color,
        dtype=np.float32,
        chunks=tuple(c for axis, c in enumerate(image.chunks) if axis != color),
        meta=np.empty((0,) * (image.ndim - 1), np.float32),
        layout=layout,
        get_predictor=get_predictor,
        scales=scales,
    )
    return result


def _transmission_chunk(
    block: NDArray[Any],
    contexts: NDArray[Any],
    *,
    layout: Layout,
    get_predictor: Callable[[], Predictor],
    scales: tuple[Scale, ...],
    block_info: Any = None,
) -> NDArray[np.float32]:
    first = tuple(start for start, _ in block_info[0]["array-location"])
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    tile = Region(first[y], first[x], first[y] + block.shape[y], first[x] + block.shape[x])
    leading = [block.shape[axis] for axis in layout.leading]
    planes = [
        tuple(first[axis] + i for axis, i in zip(layout.leading, local, strict=True))
        for local in np.ndindex(*leading)
    ]
    source = Planes(block, layout, first)
    known = Contexts(source, scales, dict(zip(planes, contexts.flat, strict=True)))
    regions = [(index, tile) for index in planes]
    return transmission_of(source, get_predictor(), scales, regions, known)
