"""Noise levels of images."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred, scene

from napari_restore.analysis.find import noise_level
from napari_restore.physics import psf


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("kernel", [psf.disk(2.5), psf.gaussian(1.5)], ids=["disk", "gaussian"])
def test_noise_of_a_blurred_image(noise, kernel):
    image = blurred(scene(192, 192), kernel, noise)
    assert noise_level(image) == pytest.approx(noise, rel=0.2)


def test_rounding_is_noise():
    smooth = psf.gaussian(2)
    image = np.round(255 * blurred(scene(192, 192), smooth, 0)) / 255
    assert noise_level(image) == pytest.approx(1 / 255 / np.sqrt(12), rel=0.3)


def test_shot_noise_is_a_mean_over_bright_and_dark():
    clean = np.kron(np.linspace(0.02, 1, 64).reshape(8, 8), np.ones((24, 24)))
    image = np.random.default_rng(0).poisson(200 * clean) / 200
    assert noise_level(image) == pytest.approx(np.sqrt((clean / 200).mean()), rel=0.2)


def test_units_and_channels():
    image = blurred(scene(128, 128), psf.gaussian(2), 0.01)
    one = noise_level(image)
    assert noise_level(1000 * image - 300) == pytest.approx(1000 * one, rel=1e-4)
    assert noise_level(np.stack([image] * 3, -1)) == pytest.approx(one)


def test_tiny_images_say_nothing():
    assert noise_level(np.zeros((4, 4))) == 0
