"""The point spread function of an image, for scripts: found, or said to be unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch

from napari_restore import PSF, RestoreError, deblur, estimate_psf
from napari_restore.physics import psf
from napari_restore.samples import load_sample

if TYPE_CHECKING:
    from napari_restore.watch import Progress

RADIUS = 3.0


@pytest.fixture(scope="module")
def blurred() -> np.ndarray:
    """A photograph out of focus, in gray."""
    sharp = load_sample("raccoon")[0].astype(np.float32).mean(2)[:320, :320:] / 255
    light = torch.from_numpy(sharp)[None, None]
    out = psf.convolve(light, torch.from_numpy(psf.disk(RADIUS))[None])[0, 0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.004, out.shape)
    return (10000 + 20000 * (out + noise)).astype(np.uint16)


def test_it_is_found_with_its_size(blurred: np.ndarray) -> None:
    steps: list[Progress] = []
    found = estimate_psf(blurred, pixel_size="65 nm", progress=steps.append)
    assert isinstance(found, PSF) and found
    # The photograph was not quite sharp before.
    assert RADIUS / 2 * 0.8 < psf.equivalent_sigma(found.array) < RADIUS
    assert (found.pixel_size, found.unit) == ((0.065, 0.065), "µm")
    assert found.fwhm_in_units == pytest.approx(0.065 * found.fwhm)
    assert found.uncertainty is not None and 0 < found.uncertainty < 1
    assert "Found: " in found.found and "µm)" in str(found)
    assert any("point spread" in step.message for step in steps)
    lazy = estimate_psf(da.from_array(blurred, chunks=100))
    np.testing.assert_array_equal(lazy.array, found.array)
    # What is found once can be used again.
    told, auto = deblur(blurred, psf=found), deblur(blurred, psf="auto")
    np.testing.assert_allclose(told.astype(float), auto, atol=200)


NOTHING: dict[str, Any] = {
    "noise": np.random.default_rng(0).normal(100, 5, (96, 96)),
    "even": np.full((96, 96), 7, np.uint8),
    "small": np.arange(64.0).reshape(8, 8),
    "empty": np.zeros((0, 40)),
    "missing": np.full((64, 64), np.nan),
}


@pytest.mark.parametrize("image", NOTHING.values(), ids=NOTHING)
def test_where_there_is_none_it_says_why(image: np.ndarray) -> None:
    found = estimate_psf(image)
    assert not found
    assert found.family == "none" and found.found
    np.testing.assert_array_equal(found.array, [[1]])
    np.testing.assert_array_equal(deblur(image, psf=found), deblur(image))


def test_each_channel_has_its_own(blurred: np.ndarray) -> None:
    found = estimate_psf(np.stack([blurred, np.full_like(blurred, 3)]), axes="CYX")
    assert [bool(each) for each in found] == [True, False]


@pytest.mark.parametrize("task", ["dehaze", "sharpen"])
def test_only_blur_has_one(task: str) -> None:
    with pytest.raises(RestoreError, match="task"):
        estimate_psf(np.zeros((40, 40)), task=task)
