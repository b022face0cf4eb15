"""Trajectories and the kernels they make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_restore.physics import motion, psf


@pytest.mark.parametrize("length", [3.0, 10.0, 25.0])
@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, 2.5])
def test_a_line_has_its_length_and_direction(length: float, angle: float) -> None:
    path = motion.line(length, angle)
    assert np.hypot(*(path[-1] - path[0])) == pytest.approx(length)
    np.testing.assert_allclose(path.mean(0), 0, atol=1e-9)
    kernel = motion.kernel(path)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    # The variance along an even line is length²/12; bilinear spreading adds up to 1/4.
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.3 + 0.02 * length)
    assert (kernel * across**2).sum() < 0.3


def test_angles_run_from_x_towards_y() -> None:
    path = motion.line(10, np.pi / 4)
    assert (np.diff(path[:, 0]) > 0).all()
    assert (np.diff(path[:, 1]) > 0).all()
    horizontal = motion.kernel(motion.line(10, 0))
    assert np.count_nonzero(horizontal.sum(1) > 1e-6) == 1
    assert np.count_nonzero(horizontal.sum(0) > 1e-6) >= 10


def test_no_motion_is_the_identity() -> None:
    kernel = motion.kernel(motion.line(0, 1.0))
    assert kernel[kernel.shape[0] // 2, kernel.shape[0] // 2] == 1
    assert kernel.sum() == 1


def test_a_kernel_counts_the_time_at_each_place() -> None:
    # Three quarters of the exposure at rest in one place, the rest in another.
    path = np.array([[0.0, -2.0]] * 75 + [[0.0, 2.0]] * 25)
    kernel = motion.kernel(path)
    middle = kernel.shape[0] // 2
    assert kernel[middle, middle - 2] == pytest.approx(0.75, abs=0.02)
    assert kernel[middle, middle + 2] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("jerk", [0.0, 0.06])
def test_a_shake_is_as_long_as_asked_and_repeatable(seed: int, jerk: float) -> None:
    path = motion.shake(np.random.default_rng(seed), 14.0, jerk=jerk)
    assert np.ptp(path, axis=0).max() == pytest.approx(14.0)
    np.testing.assert_allclose(path.mean(0), 0, atol=1e-9)
    np.testing.assert_array_equal(path, motion.shake(np.random.default_rng(seed), 14.0, jerk=jerk))
    kernel = motion.kernel(path)
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    # It is a thin curve, not a blot: most pixels of its box are empty.
    assert np.count_nonzero(kernel > 1e-4) < 0.6 * 15**2


def smooth_image(rng: np.random.Generator) -> torch.Tensor:
    noise = ndimage.gaussian_filter(rng.random((60, 80)), 2)
    return torch.from_numpy(noise.astype(np.float32))[None]


def test_shifts_alone_are_a_convolution(rng: np.random.Generator) -> None:
    image = smooth_image(rng)
    path = motion.shake(np.random.default_rng(1), 9)
    blurred = motion.rigid_blur(image, path, np.zeros(len(path)))
    inner = np.s_[..., 12:-12, 12:-12]
    # Whether the camera or the picture moves along the path is a convention.
    differences = [
        psf.convolve(image[None], psf.stack([motion.kernel(way)]))[0] - blurred
        for way in (path, -path)
    ]
    assert min(float(difference[inner].abs().max()) for difference in differences) < 0.002
    assert float((blurred - image)[inner].abs().max()) > 0.02


def test_a_rotation_keeps_the_centre_and_blurs_the_corners(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((1, 61, 81)).astype(np.float32))
    angles = np.linspace(-0.1, 0.1, 21)
    change = (motion.rigid_blur(image, np.zeros((21, 2)), angles) - image)[0].abs()
    assert float(change[30, 40]) < 0.02
    assert float(change[:10, :10].mean()) > 0.15


def test_a_pose_turns_the_image_as_scipy_does(rng: np.random.Generator) -> None:
    image = smooth_image(rng)
    turned = motion.rigid_blur(image, np.zeros((1, 2)), np.array([0.2]))[0].numpy()
    ways = [
        abs(turned - ndimage.rotate(image[0], np.degrees(a), reshape=False, order=1))[
            15:-15, 20:-20
        ]
        for a in (0.2, -0.2)
    ]
    assert min(way.max() for way in ways) < 0.005
