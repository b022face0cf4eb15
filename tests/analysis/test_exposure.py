"""The exposure of a movie, found from its blur."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_restore.analysis.exposure import ALONE, find_exposure
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import Layout, Planes
from napari_restore.physics.motion import sweep

SIZE = (192, 224)


class Perfect:
    """Knows the motion from the frame that it is shown to the other."""

    multiple_of = 16

    def __init__(self, first: torch.Tensor, flow: tuple[float, float]) -> None:
        self._first, self._flow = first, flow

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        shape = (len(tiles), 1, tiles.shape[-2] // cell, tiles.shape[-1] // cell)
        sign = 1 if torch.equal(tiles[:, :1], self._first) else -1
        return torch.cat([torch.full(shape, sign * part) for part in self._flow], 1)


def scene(noise: float = 0.0) -> torch.Tensor:
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random(SIZE), 1.2)
    field = (field - field.min()) / np.ptp(field) + rng.normal(0, noise, SIZE)
    return torch.from_numpy(field.astype(np.float32))[None, None]


def find(flow: tuple[float, float], exposure: float, noise: float = 0.0) -> float:
    sharp = scene()
    moves = -torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, *SIZE)
    frames = [sweep(sharp, moves, at - exposure / 2, at + exposure / 2) for at in (0.0, 1.0)]
    movie = torch.cat(frames)[:, 0].numpy()
    movie = movie + np.random.default_rng(1).normal(0, noise, movie.shape)
    movie = movie.astype(np.float32)
    known = Perfect(torch.from_numpy(movie[:1])[None], flow)
    planes = Planes(movie, Layout(movie.shape, "TYX"))
    return find_exposure(planes, known, (Scale(0.0, 1.0),))


@pytest.mark.parametrize("exposure", [0.35, 0.6, 0.93])
@pytest.mark.parametrize("flow", [(0.0, 14.0), (-9.0, 8.0)], ids=str)
def test_what_blurred_the_frames_is_found(flow: tuple[float, float], exposure: float) -> None:
    assert find(flow, exposure) == pytest.approx(exposure, abs=0.1)
    assert find(flow, exposure, noise=0.02) == pytest.approx(exposure, abs=0.15)


@pytest.mark.parametrize(("flow", "exposure"), [((0.0, 0.4), 0.9), ((0.0, 3.0), 0.5)])
def test_no_exposure_is_found_where_nothing_shows_it(
    flow: tuple[float, float], exposure: float
) -> None:
    assert find(flow, exposure) == ALONE
