"""What the spectrum of an image says about its blur."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred

from napari_restore.analysis.find import KNOWN, defocus, of_size
from napari_restore.analysis.spectrum import misfit, power_spectrum, transfer
from napari_restore.physics import psf

SIZES = np.geomspace(0.6, 3, 15)


def power_law(side: int, exponent: float, seed: int = 0) -> np.ndarray:
    """Random phases under a spectrum that falls as a power of the frequency."""
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(y, x)
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    plane = np.fft.irfft2(noise * frequency ** (-exponent / 2), s=(side, side))
    return (0.5 + 0.15 * plane / plane.std()).astype(np.float32)


def test_power_of_white_noise_is_its_variance():
    noise = np.random.default_rng(0).normal(0.3, 0.1, (200, 120))
    spectrum = power_spectrum(noise)
    assert spectrum.power.mean() == pytest.approx(0.01, rel=0.05)
    assert spectrum.frequency.max() < 0.5


def test_transfer_of_a_gaussian():
    passed = transfer(psf.gaussian(1.5))
    frequency = (np.arange(len(passed)) + 0.5) / (2 * len(passed))
    expected = np.exp(-4 * np.pi**2 * 1.5**2 * frequency**2)
    np.testing.assert_allclose(passed[1:40], expected[1:40], atol=0.02)


@pytest.mark.parametrize("family", ["gaussian", "disk"])
@pytest.mark.parametrize("sigma", [1.0, 1.6, 2.3])
@pytest.mark.parametrize("exponent", [1.6, 2.4])
def test_the_true_kernel_fits_best(family, sigma, exponent):
    image = blurred(power_law(256, exponent), of_size(family, sigma).array, 0.001)
    spectrum = power_spectrum(image)
    errors = {
        (name, size): misfit(spectrum, transfer(of_size(name, size).array))
        for name in ("gaussian", "disk")
        for size in SIZES
    }
    found, size = min(errors, key=errors.get)
    assert found == family and size == pytest.approx(sigma, rel=0.15)
    assert misfit(spectrum, np.ones_like(transfer(psf.disk(1)))) > errors[found, size] + 20


def test_gain_and_offset_change_nothing():
    image = blurred(power_law(160, 2), psf.disk(3), 0.002)
    first, second = (defocus(plane, 1.6, 0.2) for plane in (image, 700 * image + 90))
    assert first.candidate.parameters == second.candidate.parameters
    assert first.unsure == pytest.approx(second.unsure, rel=1e-3)


def test_what_is_sharp_has_little_that_speaks_for_a_blur():
    sharp = power_law(256, 2) + np.random.default_rng(1).normal(0, 0.002, (256, 256))
    found = defocus(sharp, 0.3, 0.1)
    assert found.evidence < 3 and found.candidate.sigma < 0.6


def test_progress_may_cancel():
    shares: list[float] = []
    defocus(power_law(64, 2), 1.0, 0.2, shares.append)
    assert len(shares) == len(KNOWN)

    def cancel(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        defocus(power_law(64, 2), 1.0, 0.2, cancel)
