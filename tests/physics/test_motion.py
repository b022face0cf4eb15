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


def test_angles_run_from_x_toward_y() -> None:
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


def test_even_motion_sweeps_as_its_kernel_blurs(rng: np.random.Generator) -> None:
    image = smooth_image(rng)[None]
    path = motion.line(9, 0.4)
    moves = torch.tensor([9 * np.sin(0.4), 9 * np.cos(0.4)]).float().view(1, 2, 1, 1)
    swept = motion.sweep(image, moves.expand(1, 2, *image.shape[-2:]))
    inner = np.s_[..., 12:-12, 12:-12]
    blurred = psf.convolve(image, psf.stack([motion.kernel(path)]))
    assert float((blurred - swept)[inner].abs().max()) < 0.002
    assert float((blurred - image)[inner].abs().max()) > 0.02


def test_warp_fetches_from_where_it_points(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((1, 2, 20, 30)).astype(np.float32))
    moves = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 20, 30)
    fetched = motion.warp(image, moves)
    assert torch.allclose(fetched[..., :17, 2:], image[..., 3:, :-2], atol=1e-5)
    # Beyond the border it is repeated.
    assert torch.allclose(fetched[..., 19, 5], image[..., 19, 3], atol=1e-5)


def test_a_turn_keeps_the_center_and_blurs_the_corners(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((1, 1, 61, 81)).astype(np.float32))
    y, x = torch.meshgrid(torch.arange(61) - 30.0, torch.arange(81) - 40.0, indexing="ij")
    change = (motion.sweep(image, 0.2 * torch.stack([x, -y])[None]) - image)[0, 0].abs()
    assert float(change[30, 40]) < 0.02
    assert float(change[:10, :10].mean()) > 0.15


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.57, 2.6])
def test_blur_vector_of_a_line_is_its_length_and_direction(angle: float) -> None:
    length, twice = 12.0, 2 * angle
    found = motion.blur_vector(motion.kernel(motion.line(length, angle)))
    assert found == pytest.approx([length * np.cos(twice), length * np.sin(twice)], abs=0.4)
    moves = length * torch.tensor([np.sin(angle), np.cos(angle)]).float().view(1, 2, 1, 1)
    doubled = motion.double_angle(moves)
    assert doubled.flatten().tolist() == pytest.approx(found.tolist(), abs=0.4)
    # The other way round is the same blur.
    assert torch.allclose(motion.double_angle(-moves), doubled, atol=1e-5)
    back = motion.half_angle(doubled)
    assert min(float((back - way).abs().max()) for way in (moves, -moves)) < 1e-4


def test_a_round_kernel_has_no_direction() -> None:
    assert motion.blur_vector(psf.gaussian(2.0)) == pytest.approx([0, 0], abs=1e-3)
    assert motion.blur_vector(np.ones((1, 1), np.float32)).tolist() == [0, 0]


def test_an_arc_bends_and_keeps_its_length() -> None:
    path = motion.arc(20, 0.3, 1.5, samples=400)
    steps = np.diff(path, axis=0)
    assert np.hypot(*steps.T).sum() == pytest.approx(20, rel=0.01)
    headings = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
    assert headings[-1] - headings[0] == pytest.approx(1.5, abs=0.02)
    assert headings.mean() == pytest.approx(0.3, abs=0.02)
    assert path.mean(0) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("length", "angle"), [(8.0, 0.3), (15.0, 1.9)])
def test_parts_of_the_inverse_undo_most_of_the_blur(
    length: float, angle: float, rng: np.random.Generator
) -> None:
    noise = ndimage.gaussian_filter(rng.random((200, 220)), 1.5).astype(np.float32)
    sharp = torch.from_numpy(noise)[None, None]
    blurred = psf.convolve(sharp, psf.stack([motion.kernel(motion.line(length, angle))]))
    moves = length * torch.tensor([np.sin(angle), np.cos(angle)]).float().view(1, 2, 1, 1)
    moves = moves.expand(1, 2, *sharp.shape[-2:])
    parts = motion.Telescope(blurred, moves, 3).rows(0, blurred.shape[2])
    assert parts.shape == (1, 6, 200, 220)
    torch.testing.assert_close(
        motion.Telescope(blurred, -moves, 3).rows(0, blurred.shape[2]), parts
    )
    # One set of weights, whatever the motion.
    weights = torch.tensor([-0.47, -0.3, -0.15, 0.16, 0.14, 0.14]).view(1, 6, 1, 1)
    restored = blurred + (weights * parts).sum(1, keepdim=True)
    inner = np.s_[..., 60:-60, 60:-60]
    before, after = (float((x - sharp)[inner].square().mean()) for x in (blurred, restored))
    assert after < 0.4 * before
