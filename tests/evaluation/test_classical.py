from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from napari_restore.evaluation import classical
from napari_restore.evaluation.classical import classical_methods
from napari_restore.evaluation.metrics import affine_fit, psnr
from napari_restore.models.catalog import TASKS


def scene(size=96, seed=0):
    """Bright rectangles on a dark ground, a little smooth, in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 0.1)
    for _ in range(40):
        top, left = rng.integers(0, size - 12, 2)
        height, width = rng.integers(3, 12, 2)
        image[top : top + height, left : left + width] = rng.uniform(0.3, 0.9)
    return gaussian_filter(image, 0.5)


def colored(size=96):
    """Saturated colors, black among them, as the dark channel expects."""
    channels = [scene(size, seed) for seed in range(3)]
    return np.stack(channels, -1) - 0.1


@pytest.mark.parametrize(
    "method",
    [
        classical.unsharp_mask,
        lambda image: classical.richardson_lucy(image, classical.gaussian_kernel(1.5)),
        lambda image: classical.wiener(image, classical.gaussian_kernel(1.5)),
    ],
)
@pytest.mark.parametrize("color", [False, True])
def test_sharpening_brings_a_blurred_scene_nearer(method, color):
    sharp = colored() if color else scene()
    blurred = gaussian_filter(sharp, (1.5, 1.5, 0) if color else 1.5)
    result = method(blurred)
    assert result.shape == sharp.shape
    assert psnr(result, sharp, 1) > psnr(blurred, sharp, 1) + 1


@pytest.mark.parametrize("method", [classical.richardson_lucy, classical.wiener])
def test_deconvolution_leaves_no_frame_at_the_border(method):
    flat = np.full((40, 40), 0.5)
    np.testing.assert_allclose(method(flat, classical.gaussian_kernel(2)), flat, atol=1e-3)


@pytest.mark.parametrize("method", [classical.richardson_lucy, classical.wiener])
def test_deconvolution_with_the_true_kernel_beats_a_guess(method):
    sharp, true = scene(), np.full((1, 7), 1 / 7)
    blurred = convolve(sharp, true, mode="mirror")
    told, guessed = (method(blurred, k) for k in (true, classical.gaussian_kernel(1.5)))
    assert psnr(told, sharp, 1) > psnr(guessed, sharp, 1) + 3


def test_dark_channel_removes_haze():
    sharp, air = colored(), np.array([0.9, 0.92, 0.95])
    sharp[:24] = air  # sky, which shows the color of the air
    hazy = 0.5 * sharp + 0.5 * air
    result = classical.dark_channel(hazy)
    land = slice(40, None)
    assert psnr(result[land], sharp[land], 1) > psnr(hazy[land], sharp[land], 1) + 10
    np.testing.assert_allclose(result[:8], hazy[:8], atol=0.05)


@pytest.mark.parametrize(
    "method", [classical.rolling_ball, classical.white_tophat, classical.dark_sectioning]
)
def test_background_subtraction(method):
    sharp = scene() - 0.1
    rows, columns = np.mgrid[:96, :96] / 96
    hazy = sharp + 0.5 * np.exp(-((rows - 0.5) ** 2 + (columns - 0.3) ** 2) / 0.1)
    before, after = (psnr(affine_fit(x, sharp), sharp, 1) for x in (hazy, method(hazy)))
    assert after > before + 3


def test_guided_filter_follows_the_edges_of_its_guide():
    guide = np.zeros((60, 60))
    guide[:, 30:] = 1
    noisy = guide + np.random.default_rng(0).normal(0, 0.2, guide.shape)
    smooth = classical.guided_filter(guide, noisy, radius=8)
    assert np.abs(smooth - guide).max() < 0.15


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["color", "mono"])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_every_method_survives_an_even_image(task, kind, value):
    image = np.full((40, 48, 3) if kind == "color" else (40, 48), value)
    for method in classical_methods(task, kind):
        result = method.run(image, classical.gaussian_kernel(1.0))
        assert method.name
        assert result.shape == image.shape
        assert np.isfinite(result).all()
