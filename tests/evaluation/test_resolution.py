from __future__ import annotations

import numpy as np
import pytest

from napari_restore.evaluation.resolution import (
    FINEST_RING,
    decorrelation_resolution,
    ring_resolution,
)


def band_limited(period: float, noise: float, side: int = 192, slope: float = 1.0) -> np.ndarray:
    """Random structure without detail finer than a period, and noise."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    spectrum /= np.maximum(frequency, 1 / side) ** slope
    spectrum[frequency > 1 / period] = 0
    image = np.fft.ifft2(spectrum).real
    return image / image.std() + noise * rng.normal(size=image.shape)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("period", [2.5, 4, 6, 9])
def test_decorrelation_finds_the_cut_off(period, noise):
    found = decorrelation_resolution(1000 + 50 * band_limited(period, noise))
    assert found == pytest.approx(period, rel=0.06)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("period", [5, 6, 9])
def test_ring_correlation_finds_the_cut_off(period, noise):
    found = ring_resolution(band_limited(period, noise))
    assert found == pytest.approx(period, rel=0.15)


def test_ring_correlation_says_no_more_than_halves_can_show():
    assert ring_resolution(band_limited(4, 0.05)) == FINEST_RING


def test_noise_has_no_resolution():
    noise = np.random.default_rng(0).normal(size=(128, 128))
    assert ring_resolution(noise) is None
    assert decorrelation_resolution(noise) is None


def test_shapes_and_gaps():
    image = band_limited(6, 0.1)[:150]
    image[3:6, 4:9] = np.nan
    assert decorrelation_resolution(image) == pytest.approx(6, rel=0.1)
    assert ring_resolution(np.zeros((64, 64))) is None
    assert decorrelation_resolution(np.zeros((64, 64))) is None
