"""Point spread functions that are wider than an image allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_restore.analysis.psf_width import is_too_wide
from napari_restore.training import scenes
from planning import WATER_CONFOCAL

SHAPE = (12, 48, 48)


def psf(na: float) -> np.ndarray:
    return replace(WATER_CONFOCAL, na=na).psf(dimensions=3)


def seen(scene: str) -> torch.Tensor:
    true = psf(0.9)
    sharp = scenes.TRAINED[scene](
        scenes.around(SHAPE, true.shape), np.random.default_rng(3), WATER_CONFOCAL.z_step / 0.13
    )
    image = scenes.see(sharp, true, SHAPE, 1000, np.random.default_rng(5)).blurred
    return torch.from_numpy(image / np.percentile(image, 99.5).astype(np.float32))


@pytest.mark.parametrize("scene", ["nuclei", "beads"])
@pytest.mark.parametrize(("told", "wide"), [(0.81, True), (0.9, False), (0.99, False)])
def test_what_is_too_wide_is_seen(scene: str, told: float, wide: bool) -> None:
    psfs = [psf(told * factor) for factor in (1, 1.1, 1.21)]
    assert is_too_wide(seen(scene), psfs) == wide


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_what_shows_nothing_tells_nothing(level: float) -> None:
    psfs = [psf(na) for na in (0.81, 0.89, 0.98)]
    assert not is_too_wide(torch.full(SHAPE, level), psfs)
    noise = np.random.default_rng(0).poisson(100, SHAPE) / 200 + level
    assert not is_too_wide(torch.from_numpy(noise.astype(np.float32)), psfs)
