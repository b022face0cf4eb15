"""Point spread functions: mass, center, width, cut-off; and convolution with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from napari_restore.physics import motion, psf

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS: dict[str, Callable[[], np.ndarray]] = {
    "disk 0": lambda: psf.disk(0),
    "disk 0.05": lambda: psf.disk(0.05),
    "disk 0.5": lambda: psf.disk(0.5),
    "disk 3.3": lambda: psf.disk(3.3),
    "gaussian 0": lambda: psf.gaussian(0),
    "gaussian 1.7": lambda: psf.gaussian(1.7),
    "gaussian elliptical": lambda: psf.gaussian(3, 1, 0.7),
    "pupil": lambda: psf.pupil(0.3),
    "pupil with even aberrations": lambda: psf.pupil(
        0.25, {"defocus": 1.0, "astigmatism": 0.5, "spherical": -0.4}
    ),
    "microscope": lambda: psf.microscope(1.4, 0.52, 0.065),
    "combined": lambda: psf.combine(psf.disk(2), psf.gaussian(1)),
    "line": lambda: motion.kernel(motion.line(9, 0.4)),
}


def moments(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (y, x) about the center of a kernel."""
    half = kernel.shape[0] // 2
    places = np.stack(np.mgrid[-half : half + 1, -half : half + 1]).reshape(2, -1)
    weights = kernel.astype(float).ravel()
    mean = places @ weights
    return mean, (places * weights) @ places.T - np.outer(mean, mean)


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_kernels_are_distributions_with_their_mean_in_the_center(
    make: Callable[[], np.ndarray],
) -> None:
    kernel = make()
    assert kernel.dtype == np.float32
    assert kernel.ndim == 2
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(moments(kernel)[0], 0, atol=0.02)


@pytest.mark.parametrize("aberration", psf.ABERRATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.7])
def test_aberrations_spread_the_light(aberration: str, strength: float) -> None:
    sharp, spread = psf.pupil(0.3), psf.pupil(0.3, {aberration: strength})
    assert spread.min() >= 0
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    # The Strehl ratio of small aberrations is about exp(-rms²).
    assert spread.max() / sharp.max() == pytest.approx(np.exp(-(strength**2)), abs=0.2)


def test_disk_0_is_the_identity() -> None:
    np.testing.assert_array_equal(psf.disk(0), [[1]])


@pytest.mark.parametrize("radius", [1.5, 3.0, 4.4, 8.0])
def test_a_disk_is_even_and_as_wide_as_asked(radius: float) -> None:
    kernel = psf.disk(radius)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(y, x)
    inside = kernel[distance < radius - 0.8]
    np.testing.assert_allclose(inside, 1 / (np.pi * radius**2), rtol=0.03)
    assert (kernel[distance > radius + 0.8] == 0).all()
    # The second moment of a disk is r²/4, that of a pixel adds 1/12.
    covariance = moments(kernel)[1]
    np.testing.assert_allclose(
        covariance, np.eye(2) * (radius**2 / 4 + 1 / 12), atol=0.03 * radius**2
    )


@pytest.mark.parametrize("sigma", [1.0, 2.5, 6.0])
def test_sigma_is_the_standard_deviation(sigma: float) -> None:
    covariance = moments(psf.gaussian(sigma))[1]
    np.testing.assert_allclose(covariance, np.eye(2) * sigma**2, atol=0.02 * sigma**2)


def test_an_elliptical_gaussian_is_turned_about_its_angle() -> None:
    straight = moments(psf.gaussian(4, 1.5))[1]
    np.testing.assert_allclose(straight, np.diag([16, 2.25]), rtol=0.03, atol=0.05)
    turned = moments(psf.gaussian(4, 1.5, np.pi / 2))[1]
    np.testing.assert_allclose(turned, np.diag([2.25, 16]), rtol=0.03, atol=0.05)
    values, vectors = np.linalg.eigh(moments(psf.gaussian(4, 1.5, np.pi / 6))[1])
    np.testing.assert_allclose(values, [2.25, 16], rtol=0.03)
    major = np.arctan2(vectors[0, 1], vectors[1, 1]) % np.pi
    assert min(abs(major - np.pi / 3), abs(major - 2 * np.pi / 3)) < 0.02


@pytest.mark.parametrize("cutoff", [0.15, 0.25, 0.4])
def test_the_pupil_passes_frequencies_up_to_its_cutoff(cutoff: float) -> None:
    transfer = abs(np.fft.fft2(psf.pupil(cutoff, half=32), (512, 512)))
    line, frequency = transfer[0, :256], np.fft.fftfreq(512)[:256]
    assert line[0] == pytest.approx(1, abs=1e-5)
    assert line[frequency > 1.1 * cutoff].max() < 0.01
    assert line[frequency < 0.7 * cutoff].min() > 0.05
    # In focus the transfer function of a circular pupil is known; the pixel's area adds its own.
    ratio = frequency[frequency < cutoff] / cutoff
    known = 2 / np.pi * (np.arccos(ratio) - ratio * np.sqrt(1 - ratio**2))
    known *= np.cos(np.pi * frequency[frequency < cutoff] / 2) ** 2
    np.testing.assert_allclose(line[frequency < cutoff], known, atol=0.04)


def test_a_microscope_is_given_in_its_own_units() -> None:
    # 2 NA / wavelength x pixel size = 0.2 cycles per pixel, in micrometers as in nanometers.
    for unit in (1, 1000):
        kernel = psf.microscope(0.5, 0.5 * unit, 0.1 * unit)
        np.testing.assert_allclose(kernel, psf.pupil(0.2), atol=1e-6)


def test_defocus_widens_either_way() -> None:
    widths = [np.trace(moments(psf.pupil(0.3, {"defocus": d}))[1]) for d in (-2, -1, 0, 1, 2)]
    assert widths[0] > widths[1] > widths[2] < widths[3] < widths[4]
    assert widths[0] == pytest.approx(widths[4], rel=0.01)


def test_combined_blurs_add_their_variances() -> None:
    first, second = psf.gaussian(2), psf.disk(3)
    together = moments(psf.combine(first, second))[1]
    np.testing.assert_allclose(together, moments(first)[1] + moments(second)[1], atol=1e-3)


def test_stacked_kernels_keep_their_center() -> None:
    kernels = [psf.disk(1), psf.gaussian(3), psf.disk(0)]
    stacked = psf.stack(kernels)
    assert stacked.shape == (3, kernels[1].shape[0], kernels[1].shape[0])
    for small, large in zip(kernels, stacked.numpy(), strict=True):
        margin = (large.shape[0] - small.shape[0]) // 2
        np.testing.assert_array_equal(np.pad(small, margin), large)


@pytest.mark.parametrize("size", [(40, 53), (64, 64), (31, 97)], ids=str)
def test_convolution_is_that_of_scipy(size: tuple[int, int], rng: np.random.Generator) -> None:
    image = rng.random((2, 3, *size)).astype(np.float32)
    # Neither symmetric, so that a correlation would show.
    kernels = rng.random((2, 9, 9)).astype(np.float32)
    result = psf.convolve(torch.from_numpy(image), torch.from_numpy(kernels)).numpy()
    assert result.shape == image.shape
    for n in range(2):
        for c in range(3):
            inside = signal.convolve2d(image[n, c], kernels[n], "valid")
            np.testing.assert_allclose(result[n, c, 4:-4, 4:-4], inside, atol=1e-4)
            whole = ndimage.convolve(image[n, c].astype("f8"), kernels[n], mode="mirror")
            np.testing.assert_allclose(result[n, c], whole, atol=1e-4)


def test_one_kernel_serves_a_batch_and_constants_stay(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((3, 1, 20, 20)).astype(np.float32))
    kernel = psf.stack([psf.disk(2)])
    together = psf.convolve(image, kernel)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], psf.convolve(image[n : n + 1], kernel))
    flat = torch.full((1, 1, 25, 30), 0.37)
    torch.testing.assert_close(psf.convolve(flat, kernel), flat, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (5, 3)], ids=str)
def test_images_smaller_than_the_kernel(size: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *size)
    result = psf.convolve(image, psf.stack([psf.gaussian(4)]))
    assert result.shape == image.shape
    assert image.min() - 1e-5 <= result.min() <= result.max() <= image.max() + 1e-5


@pytest.mark.parametrize(
    ("kernel", "sigma"),
    [
        (psf.gaussian(2.0), 2.0),
        (psf.gaussian(3.0, 1.5, 0.4), (3.0 * 1.5) ** 0.5),
        (psf.disk(6.0), 3.0),
        (np.ones((1, 1), np.float32), 0.282),
    ],
    ids=["gaussian", "ellipse", "disk", "none"],
)
def test_the_equivalent_sigma_is_that_of_a_gaussian(kernel: np.ndarray, sigma: float) -> None:
    assert psf.equivalent_sigma(kernel) == pytest.approx(sigma, rel=0.05)
