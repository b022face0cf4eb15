"""Restoration with a point spread function that is told: in memory, in tiles, lazily."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

from napari_restore import RestoreError, deblur
from napari_restore.physics import psf
from napari_restore.restoration.run import restore_array
from napari_restore.samples import load_sample
from planning import plan

KERNEL = psf.disk(2.5)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Sharp cells and the same out of focus, with a little noise."""
    sharp = load_sample("mitochondria")[0].astype(np.float32)[:160, :200]
    sharp = (sharp - sharp.min()) / np.ptp(sharp)
    light = torch.from_numpy(sharp)[None, None]
    blurred = psf.convolve(light, torch.from_numpy(KERNEL)[None])[0, 0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.005, sharp.shape)
    return sharp, (blurred + noise).astype(np.float32)


def error(result: np.ndarray, sharp: np.ndarray) -> float:
    return float(np.mean((result - sharp)[10:-10, 10:-10] ** 2))


def test_a_told_blur_is_undone_better_than_a_guessed_one(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    sharp, blurred = scene
    told = restore_array(blurred, plan(blurred, "deblur", psf=KERNEL), blur=False)
    assert error(told.data, sharp) < 0.8 * error(blurred, sharp)
    assert error(told.data, sharp) < error(deblur(blurred), sharp)
    assert abs(told.data.sum() / blurred.sum() - 1) < 0.01
    assert told.facts.psf is not None
    assert told.provenance["model"] == "invert-mono"
    assert told.provenance["psf"]["family"] == "measured"


@pytest.mark.parametrize("how", ["tiles", "lazy", "motion"])
def test_it_is_the_same_however_it_is_computed(
    how: str, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    _, blurred = scene
    expected = deblur(blurred, psf=KERNEL)
    if how == "tiles":
        found = deblur(blurred, psf=KERNEL, tile=96)
    elif how == "lazy":
        found = deblur(da.from_array(blurred, chunks=90), psf=KERNEL).compute()
    else:
        from napari_restore import motion_deblur

        found = motion_deblur(blurred, psf=KERNEL)
    np.testing.assert_allclose(found, expected, atol=2e-3)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "not a number": ({"psf": np.full((5, 5), np.nan)}, "NaN"),
    "empty": ({"psf": np.zeros((5, 5))}, "0 everywhere"),
    "negative": ({"psf": -np.ones((5, 5))}, "light is positive"),
    "a word": ({"psf": "guess"}, "psf must be"),
    "with a model": ({"psf": KERNEL, "model": "deblur-mono"}, "chooses the model"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_what_is_no_point_spread_function(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        deblur(np.zeros((40, 40), np.float32), **options)


def test_dehaze_takes_none() -> None:
    from napari_restore import dehaze

    with pytest.raises(RestoreError, match="psf is for deblurring"):
        dehaze(np.zeros((40, 40), np.float32), psf=KERNEL)
