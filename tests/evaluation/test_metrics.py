from __future__ import annotations

import numpy as np
import pytest

from napari_restore.errors import ImageError
from napari_restore.evaluation.metrics import affine_fit, ciede2000, psnr, ssim


@pytest.fixture
def image():
    return np.random.default_rng(0).random((32, 40))


@pytest.mark.parametrize(("data_range", "error"), [(1.0, 0.1), (255.0, 25.5), (4095, 40.95)])
def test_psnr_of_a_constant_error(data_range, error):
    target = np.zeros((8, 8))
    expected = -20 * np.log10(error / data_range)
    assert psnr(target + error, target, data_range) == pytest.approx(expected)


def test_psnr_of_integers_does_not_wrap():
    assert psnr(np.uint8([[0]]), np.uint8([[255]]), 255) == pytest.approx(0)


def test_equal_images(image):
    assert psnr(image, image, 1) == float("inf")
    assert ssim(image, image, 1) == pytest.approx(1)
    assert ciede2000(np.stack([image] * 3, -1), np.stack([image] * 3, -1)) == pytest.approx(0)


def test_ssim_falls_with_noise_and_ignores_units(image):
    noise = np.random.default_rng(1).normal(0, 0.1, image.shape)
    little, much = (ssim(image + share * noise, image, 1) for share in (1, 3))
    assert much < little < 1
    scaled = ssim(100 * (image + noise), 100 * image, 100)
    assert scaled == pytest.approx(little)


def test_ssim_of_color_is_the_mean_over_colors(image):
    noise = np.random.default_rng(1).normal(0, 0.1, (*image.shape, 3))
    color = np.stack([image] * 3, -1)
    each = [ssim(image + noise[..., i], image, 1) for i in range(3)]
    assert ssim(color + noise, color, 1) == pytest.approx(np.mean(each))


def test_ciede2000_of_black_and_white():
    # White against black differs by 100 in lightness, and ΔE00 divides by 1 there and here.
    black, white = np.zeros((2, 2, 3)), np.ones((2, 2, 3))
    assert ciede2000(white, black) == pytest.approx(100, abs=0.5)
    assert ciede2000(white * 3, white) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("gain", "offset"), [(2.0, 5.0), (-1.0, 0.0), (0.01, -3.0)])
def test_affine_fit_undoes_gain_and_offset(image, gain, offset):
    np.testing.assert_allclose(affine_fit(gain * image + offset, image), image, atol=1e-9)


def test_affine_fit_is_the_best_there_is(image):
    result = image**2 + np.random.default_rng(1).normal(0, 0.1, image.shape)
    best = ((affine_fit(result, image) - image) ** 2).sum()
    design = np.stack([result.ravel(), np.ones(result.size)], 1)
    residual = np.linalg.lstsq(design, image.ravel(), rcond=None)[1]
    assert best == pytest.approx(residual[0])


def test_affine_fit_of_a_constant_is_the_mean(image):
    np.testing.assert_allclose(affine_fit(np.full(image.shape, 7.0), image), image.mean())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a: psnr(a, a[1:], 1), "one shape"),
        (lambda a: psnr(a[:0], a[:0], 1), "with pixels"),
        (lambda a: psnr(a, a, 0), "more than 0"),
        (lambda a: ssim(a, a, float("nan")), "more than 0"),
        (lambda a: ssim(a[:10], a[:10], 1), "at least 11"),
        (lambda a: ciede2000(a, a), "colors"),
        (lambda a: affine_fit(a, a.T), "one shape"),
    ],
)
def test_what_cannot_be_compared(image, call, match):
    with pytest.raises(ImageError, match=match):
        call(image)
