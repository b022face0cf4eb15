"""Motion over a whole image, as a network sees it: one vector for each cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_restore.image.intensity import normalized
from napari_restore.image.layout import Grid, Region, reflect
from napari_restore.inference.engine import for_each_tile
from napari_restore.runtime import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Planes
    from napari_restore.inference.engine import Job, Predictor

#: Smallest cell in pixels, and the side of a tile, which keeps to cells when it is halved.
CELL = 16
_TILE = 32 * CELL


@dataclass(frozen=True)
class Motion:
    """Motion in each plane of an image.

    Attributes
    ----------
    vectors : ndarray
        (…, rows, columns, 2) float32, the axes of the planes first: pixels (y, x) that the middle
        of a cell moves from a frame to the next, at the last frame from the one before; or within
        the exposure, of which only the line is known, not which of its ends came first.
    spacing : int
        Side of the cells in pixels; the first begins at the corner of the plane.
    directed : bool
        Whether the vectors point where the motion goes: from two frames, not from one.
    """

    vectors: NDArray[np.float32]
    spacing: int
    directed: bool

    @property
    def speed(self) -> float:
        """Mean length of the vectors in pixels; 0 for an empty image."""
        return float(np.linalg.norm(self.vectors, axis=-1).mean()) if self.vectors.size else 0.0

    def as_vectors(self, shortest: float = 0.5) -> NDArray[np.float32]:
        """Lines to draw: (n, 2, D), start and direction over the planes' axes, y and x, in pixels.

        Of undirected motion the middle of a line lies in the middle of its cell. Those below
        ``shortest`` pixels are left out.
        """
        index = np.argwhere(np.linalg.norm(self.vectors, axis=-1) >= shortest)
        lines = np.zeros((len(index), 2, index.shape[1]), np.float32)
        found = self.vectors[tuple(index.T)]
        lines[:, 0] = index
        lines[:, 0, -2:] = (index[:, -2:] + 0.5) * self.spacing - 0.5
        lines[:, 1, -2:] = found
        if not self.directed:
            lines[:, 0, -2:] -= found / 2
        return lines


def field_of_motion(
    source: Planes, predictor: Predictor, scales: Sequence[Scale], spacing: int = CELL
) -> Motion:
    """Find the motion in every plane of an image.

    Parameters
    ----------
    source : Planes
        The whole image.
    predictor : Predictor
        That finds motion.
    scales : sequence of Scale
        One for each channel of the layout.
    spacing : int
        Side of the cells in pixels, a multiple of `CELL`.

    Returns
    -------
    Motion
    """
    layout = source.layout
    height, width = layout.size
    lengths = [layout.shape[axis] for axis in layout.leading]
    fine = np.zeros((*lengths, -(-height // CELL), -(-width // CELL)), np.complex64)
    out = np.zeros((*lengths, -(-height // spacing), -(-width // spacing), 2), np.float32)
    # Windows begin on the grid of cells, which is at least as coarse as the network's.
    grid, directed = Grid(layout.size, CELL, predictor.halo), predictor.frames == 2

    def find(job: Job, predictor: Predictor) -> NDArray[np.complex64]:
        window = grid.window(job.tile)
        inside, scale = grid.inside(window), scales[layout.group(job.index)]
        block, _ = normalized(source, job.index, inside, scale, predictor.frames)
        return _way(reflect(block, inside, window, layout.size), predictor, job.tile, window)

    whole = ((index, Region(0, 0, height, width)) for index in layout.indices())
    total, message = layout.pixels, "Finding the motion"
    for job, way in for_each_tile(whole, _TILE, predictor, find, total=total, message=message):
        top, left = job.tile.top // CELL, job.tile.left // CELL
        fine[job.index][top : top + way.shape[0], left : left + way.shape[1]] = way
    for index in layout.indices():
        mean = torch.from_numpy(fine[index])
        if spacing > CELL:
            mean = _mean(mean, spacing // CELL, directed)
        last = directed and layout.neighbor(index) < index
        out[index] = torch.stack([mean.imag, mean.real], -1) * (-1 if last else 1)
    return Motion(out, spacing, directed)


def _way(
    seen: NDArray[np.float32], predictor: Predictor, tile: Region, window: Region
) -> NDArray[np.complex64]:
    """Vectors (rows, columns) of a tile on the grid of cells, as x + iy: its square has no sign."""
    tensor = torch.from_numpy(seen).permute(2, 0, 1)[None]
    fine = predictor.motion(tensor, CELL)[0]
    top, left = (tile.top - window.top) // CELL, (tile.left - window.left) // CELL
    rows, columns = -(-tile.height // CELL), -(-tile.width // CELL)
    inner = fine[:, top : top + rows, left : left + columns].float()
    way: NDArray[np.complex64] = torch.complex(inner[1], inner[0]).numpy()
    return way


def _mean(way: Tensor, count: int, directed: bool) -> Tensor:
    """Mean of complex vectors (h, w) over blocks of cells; of undirected ones, of their lines."""
    if not directed:
        way = way**2 / way.abs().clamp(min=1e-6)
    parts = torch.view_as_real(way).permute(2, 0, 1)[None]
    means = torch.nn.functional.avg_pool2d(parts, count, ceil_mode=True, count_include_pad=False)
    mean: Tensor = torch.complex(means[0, 0], means[0, 1])
    if directed:
        return mean
    lines: Tensor = mean.sqrt() * mean.abs().sqrt()
    return lines
