"""The share of the light that came through the haze, as a network sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.device import import_torch
from napari_restore.image.layout import Layout, Planes
from napari_restore.image.tiling import Region, split
from napari_restore.inference.context import Contexts
from napari_restore.inference.conversion import as_seen
from napari_restore.watch import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.inference.protocol import Predictor

#: Every pixel is found for itself: tiles need no halo and only bound the memory.
_TILE = 1024


def without_color(layout: Layout) -> Layout:
    """Layout of one number for each pixel."""
    kept = [i for i, letter in enumerate(layout.axes) if letter != "S"]
    return Layout(tuple(layout.shape[i] for i in kept), "".join(layout.axes[i] for i in kept))


def transmission_of(
    source: Planes, predictor: Predictor, scales: Sequence[Scale]
) -> NDArray[np.float32]:
    """Estimate the transmission of a whole image.

    Parameters
    ----------
    source : Planes
    predictor : Predictor
        With a view.
    scales : sequence of Scale
        One for each channel of the layout.

    Returns
    -------
    ndarray
        float32 in [0, 1], the source's shape without the color axis; 1 is clear air.
    """
    layout = source.layout
    flat = without_color(layout)
    out = np.ones(flat.shape, np.float32)
    target, contexts, done = Planes(out, flat), Contexts(source, scales), 0
    whole = Region(0, 0, *layout.size)
    for index in layout.indices():
        for tile in split(whole, _TILE):
            block = source.read(index, tile)
            scale = scales[layout.group(index)]
            context = contexts.get(index, predictor)
            target.write(
                index, tile, tile_transmission(block, layout, tile, context, predictor, scale)
            )
            done += tile.pixels
            tell(done, layout.pixels, "Showing the transmission")
        contexts.trim()
    return out


def tile_transmission(
    block: NDArray[Any],
    layout: Layout,
    tile: Region,
    context: torch.Tensor,
    predictor: Predictor,
    scale: Scale,
) -> NDArray[np.float32]:
    """Share of the light that came through in one tile.

    Parameters
    ----------
    block : ndarray
        Samples of the tile, (h, w, S).
    layout : Layout
    tile : Region
    context : Tensor
        Global context of its plane.
    predictor : Predictor
    scale : Scale

    Returns
    -------
    ndarray
        (h, w, 1), in [0, 1].
    """
    rows, columns = range(tile.top, tile.bottom), range(tile.left, tile.right)
    normal, _ = as_seen(block, scale, layout, rows, columns)
    height, width = layout.size
    edges = [tile.top / height, tile.left / width, tile.bottom / height, tile.right / width]
    torch = import_torch()
    tensor = torch.from_numpy(normal).permute(2, 0, 1)[None]
    result = predictor.transmission(tensor, context, torch.tensor([edges]))
    plane: NDArray[np.float32] = result[0].permute(1, 2, 0).numpy()
    return plane
