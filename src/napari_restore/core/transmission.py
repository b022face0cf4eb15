"""The share of the light that came through the haze, as a network sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Layout, Planes
from .device import import_torch
from .intensity import fill_invalid
from .protocol import Progress
from .tiles import Region, split
from .view import Contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import dask.array as da
    import torch
    from numpy.typing import NDArray

    from .intensity import Scale
    from .protocol import Predictor

#: Every pixel is found for itself: tiles need no halo and only bound the memory.
_TILE = 1024


def without_colour(layout: Layout) -> Layout:
    """Layout of one number for each pixel."""
    kept = [i for i, letter in enumerate(layout.axes) if letter != "S"]
    return Layout(tuple(layout.shape[i] for i in kept), "".join(layout.axes[i] for i in kept))


def transmission_steps(
    source: Planes, predictor: Predictor, scales: Sequence[Scale]
) -> Generator[Progress, None, NDArray[np.float32]]:
    """Estimate the transmission of a whole image.

    Parameters
    ----------
    source : Planes
    predictor : Predictor
        With a view.
    scales : sequence of Scale
        One for each channel of the layout.

    Yields
    ------
    Progress

    Returns
    -------
    ndarray
        float32 in [0, 1], the source's shape without the colour axis; 1 is clear air.
    """
    layout = source.layout
    flat = without_colour(layout)
    out = np.ones(flat.shape, np.float32)
    target, looks, done = Planes(out, flat), Contexts(source, scales), 0
    whole = Region(0, 0, *layout.size)
    for index in layout.indices():
        for tile in split(whole, _TILE):
            block = source.read(index, tile)
            scale = scales[layout.group(index)]
            context = looks.get(index, predictor)
            target.write(index, tile, _transmission(block, layout, tile, context, predictor, scale))
            done += tile.pixels
            yield Progress(done, layout.pixels, "Showing the transmission")
        looks.trim()
    return out


def _transmission(
    block: NDArray[Any],
    layout: Layout,
    tile: Region,
    context: torch.Tensor,
    predictor: Predictor,
    scale: Scale,
) -> NDArray[np.float32]:
    filled, _ = fill_invalid(block)
    normal = scale.normalise(filled[..., : layout.channels])
    height, width = layout.size
    edges = [tile.top / height, tile.left / width, tile.bottom / height, tile.right / width]
    torch = import_torch()
    tensor = torch.from_numpy(normal).permute(2, 0, 1)[None]
    result = predictor.transmission(tensor, context, torch.tensor([edges]))
    plane: NDArray[np.float32] = result[0].permute(1, 2, 0).numpy()
    return plane


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
        With the colour axis in one chunk.
    layout : Layout
    contexts : dask.array.Array
        Of all planes, see `napari_restore.core.lazy.lazy_contexts`.
    get_predictor : callable
        Returns the predictor; called in the worker.
    scales : tuple of Scale

    Returns
    -------
    dask.array.Array
        float32, the image's shape and chunks without the colour axis.
    """
    import dask.array as da

    colour = layout.axes.index("S")
    result: da.Array = da.map_blocks(
        _transmission_chunk,
        image,
        contexts,
        drop_axis=colour,
        dtype=np.float32,
        chunks=tuple(c for axis, c in enumerate(image.chunks) if axis != colour),
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
    first = [start for start, _ in block_info[0]["array-location"]]
    predictor = get_predictor()
    flat = without_colour(layout)
    kept = [i for i, letter in enumerate(layout.axes) if letter != "S"]
    out = np.empty([block.shape[i] for i in kept], np.float32)
    source = Planes(block, layout, tuple(first))
    target = Planes(out, flat, tuple(first[i] for i in kept))
    y, x = layout.axes.index("Y"), layout.axes.index("X")
    tile = Region(first[y], first[x], first[y] + block.shape[y], first[x] + block.shape[x])
    leading = [block.shape[axis] for axis in layout.leading]
    for local, context in zip(np.ndindex(*leading), contexts.flat, strict=True):
        index = tuple(first[axis] + i for axis, i in zip(layout.leading, local, strict=True))
        scale = scales[layout.group(index)]
        piece = source.read(index, tile)
        plane = _transmission(piece, layout, tile, context, predictor, scale)
        target.write(index, tile, plane)
    return out
