"""The share of the light that came through the haze, as a network sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.intensity import as_seen
from napari_restore.image.layout import Layout, Planes, Region
from napari_restore.inference.engine import Contexts, for_each_tile, place_in_view
from napari_restore.runtime import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.inference.engine import Job, Predictor

#: Every pixel is found for itself: tiles need no halo and only bound the memory.
_TILE = 1024


def without_color(layout: Layout) -> Layout:
    """Layout of one number for each pixel."""
    kept = [i for i, letter in enumerate(layout.axes) if letter != "S"]
    return Layout(tuple(layout.shape[i] for i in kept), "".join(layout.axes[i] for i in kept))


def transmission_of(
    source: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    regions: Iterable[tuple[tuple[int, ...], Region]] | None = None,
    contexts: Contexts | None = None,
) -> NDArray[np.float32]:
    """Estimate the transmission of an image, or of a window of it.

    Parameters
    ----------
    source : Planes
    predictor : Predictor
        With a view.
    scales : sequence of Scale
        One for each channel of the layout.
    regions : iterable of (plane index, Region), optional
        What lies in the window; without it, everything.
    contexts : Contexts, optional
        Global contexts of the planes. Without it, ``source`` must be the whole image.

    Returns
    -------
    ndarray
        float32 in [0, 1], the source's shape without the color axis; 1 is clear air.
    """
    layout = source.layout
    flat, kept = without_color(layout), [i for i, a in enumerate(layout.axes) if a != "S"]
    out = np.ones([source.array.shape[i] for i in kept], np.float32)
    target = Planes(out, flat, tuple(source.origin[i] for i in kept))
    contexts = Contexts(source, scales) if contexts is None else contexts
    whole = Region(0, 0, *layout.size)
    regions = ((index, whole) for index in layout.indices()) if regions is None else regions

    def find(job: Job, predictor: Predictor) -> NDArray[np.float32]:
        block, context = source.read(job.index, job.tile), contexts.get(job.index, predictor)
        contexts.trim()
        return _of_tile(block, layout, job, context, predictor, scales)

    for job, plane in for_each_tile(
        regions,
        _TILE,
        predictor,
        find,
        total=layout.pixels,
        message="Showing the transmission",
        contexts=contexts,
    ):
        target.write(job.index, job.tile, plane)
    return out


def _of_tile(
    block: NDArray[Any],
    layout: Layout,
    job: Job,
    context: torch.Tensor,
    predictor: Predictor,
    scales: Sequence[Scale],
) -> NDArray[np.float32]:
    """Share of the light that came through in one tile, (h, w, 1), from its samples (h, w, S)."""
    tile = job.tile
    rows, columns = range(tile.top, tile.bottom), range(tile.left, tile.right)
    scale = scales[layout.group(job.index)]
    normal, _ = as_seen(block, scale, layout, rows, columns)
    edges = place_in_view(tile, scales, layout.size)
    tensor = torch.from_numpy(normal).permute(2, 0, 1)[None]
    result = predictor.transmission(tensor, context, torch.tensor([edges]))
    plane: NDArray[np.float32] = result[0].permute(1, 2, 0).numpy()
    return plane
