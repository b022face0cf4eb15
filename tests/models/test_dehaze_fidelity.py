"""What removing out-of-focus light must not do to a measurement: flux, noise, structure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_restore import dehaze

Array = NDArray[np.float64]
PHOTONS = 1000


def cells(seed: int, size: int = 320) -> Array:
    """Spots and soft-edged disks in focus, dark between them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    truth = np.zeros((size, size))
    for _ in range(30):
        y, x = rng.uniform(20, size - 20, 2)
        sigma = rng.uniform(1.2, 3)
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / sigma**2)
        truth += rng.uniform(0.4, 1) * spot
    for _ in range(12):
        y, x = rng.uniform(20, size - 20, 2)
        inside = (rng.uniform(6, 16) - np.hypot(rows - y, columns - x)) / 1.2
        truth += rng.uniform(0.2, 0.6) / (1 + np.exp(-inside))
    return truth


def veil(truth: Array) -> Array:
    """Light of the planes above and below."""
    light: Array = gaussian_filter(truth[::-1], 10) + gaussian_filter(truth[:, ::-1], 25)
    return light + gaussian_filter(truth, 15)


@pytest.mark.parametrize("haze", [0.2, 1.0, 2.0])
def test_light_in_focus_keeps_its_flux(haze: float) -> None:
    slopes, likeness = [], []
    for seed in range(4):
        truth = cells(seed)
        seen = truth + haze * veil(truth) + 0.1
        photons = np.random.default_rng(seed).poisson(PHOTONS * seen).astype(np.uint16)
        result = dehaze(photons, device="cpu") / PHOTONS
        slopes.append(np.polyfit(truth.ravel(), result.ravel(), 1)[0])
        before, after = (np.corrcoef(truth.ravel(), x.ravel())[0, 1] for x in (photons, result))
        likeness.append((1 - after) / (1 - before))
    assert np.mean(slopes) == pytest.approx(1, abs=0.05)
    assert np.ptp(slopes) < 0.1
    # What does not look like the structure in focus is mostly gone.
    assert np.max(likeness) < 0.35


@pytest.mark.parametrize("photons", [50, 500])
def test_noise_is_no_stronger_than_before(photons: int) -> None:
    truth = cells(5)
    seen = truth + veil(truth) + 0.1
    samples = np.random.default_rng(0).poisson(photons * seen).astype(np.float32)
    result = dehaze(samples, device="cpu")
    dark = gaussian_filter(truth, 3) < 0.005
    before, after = (np.std((x - gaussian_filter(x, 2))[dark]) for x in (samples, result))
    assert after <= before


def test_gain_and_offset_of_the_detector_do_not_matter() -> None:
    truth = cells(6)
    image = (truth + veil(truth)).astype(np.float32)
    once, other = dehaze(image, device="cpu"), dehaze(3 * image + 100, device="cpu")
    np.testing.assert_allclose((other - 100) / 3, once, atol=2e-2 * np.ptp(image))


def test_clear_cells_come_back_as_they_were() -> None:
    truth = cells(7)
    samples = (100 + 10000 * truth).astype(np.uint16)
    error = (dehaze(samples, device="cpu").astype(float) - samples) / np.ptp(samples)
    assert -10 * np.log10(np.mean(error**2)) > 34


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_even_image_stays_even(level: float) -> None:
    samples = np.full((160, 160), round(65535 * level), np.uint16)
    result = dehaze(samples, device="cpu")
    np.testing.assert_array_equal(result, samples)
