"""What the bundled models do with motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.registration import optical_flow_tvl1

from napari_restore import motion_deblur
from napari_restore.evaluation.metrics import psnr
from napari_restore.physics import motion, psf

SIDE = 224


def scene(name: str, gray: bool) -> np.ndarray:
    """Sharp crop in [0, 1], (Y, X) or (Y, X, 3), with room to move at its border."""
    pixels = getattr(data, name)()
    side = SIDE + 64
    crop = pixels[60 : 60 + side, 120 : 120 + side] / 255.0
    return crop.mean(-1) if gray and crop.ndim == 3 else crop


def moving(
    sharp: np.ndarray, velocity: tuple[float, float], exposure: float, frames: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Movie (T, Y, X[, 3]) uint8 of a scene that moves evenly, and each frame at rest."""
    rng = np.random.default_rng(0)
    light = torch.from_numpy(sharp.reshape(*sharp.shape[:2], -1)).permute(2, 0, 1)[None]
    steps = np.linspace(-0.5, 0.5, 48)[:, None] * exposure
    kernels = [motion.kernel((steps + t) * velocity) for t in range(frames)]
    rest = [motion.kernel(np.array([velocity]) * t) for t in range(frames)]

    def seen(kernel: np.ndarray) -> np.ndarray:
        frame = psf.convolve(light, psf.stack([kernel]))[0, :, 32:-32, 32:-32]
        return frame.permute(1, 2, 0).numpy().reshape(SIDE, SIDE, *sharp.shape[2:])

    blurred = np.stack([seen(kernel) for kernel in kernels])
    noisy = blurred + rng.normal(0, 1.5 / 255, blurred.shape)
    movie = (255 * noisy).round().clip(0, 255).astype(np.uint8)
    return movie, np.stack([seen(kernel) for kernel in rest])


SCENES = [
    ("astronaut", False, (3.0, 9.0), 0.7),
    ("camera", True, (-8.0, 2.0), 0.6),
    ("astronaut", True, (5.0, -5.0), 0.9),
]
every_scene = pytest.mark.parametrize(
    ("name", "gray", "velocity", "exposure"), SCENES, ids=lambda value: str(value)
)


@every_scene
def test_two_frames_find_the_motion_and_restore_along_it(
    name: str, gray: bool, velocity: tuple[float, float], exposure: float
) -> None:
    movie, rest = moving(scene(name, gray), velocity, exposure)
    result, found = motion_deblur(
        movie, rgb=not gray, frames=2, exposure=exposure, return_motion=True
    )
    light = movie / 255.0 if gray else (movie / 255.0).mean(-1)
    rival = np.stack(optical_flow_tvl1(*light), -1)
    errors = [
        np.linalg.norm(vectors - velocity, axis=-1)[edge:-edge, edge:-edge].mean()
        for vectors, edge in ((found.vectors[0], 1), (rival, 16))
    ]
    assert errors[0] < max(1.0, 0.7 * errors[1])
    # The network alone: a path that is found undoes straight motion as well as two frames do.
    single = motion_deblur(movie[0], rgb=not gray, psf="none")
    before, one, two = (
        psnr((x / 255.0)[16:-16, 16:-16], rest[0][16:-16, 16:-16], 1.0)
        for x in (movie[0], single, result[0])
    )
    assert two > before + 1
    assert two > one


@pytest.mark.parametrize(("speed", "exposure"), [(12.0, 0.5), (12.0, 0.25), (8.0, 0.5)])
def test_a_wrong_exposure_makes_nothing_worse(speed: float, exposure: float) -> None:
    """The shutter is said to be open all the time: then each frame is restored alone."""
    side, rng = SIDE + 64, np.random.default_rng(0)
    spots = gaussian_filter(1.0 * (rng.random((side, side)) > 0.995), 1.3)
    sharp = spots / spots.max() * 0.7 + 0.3 * gaussian_filter(rng.random((side, side)), 8)
    movie, rest = moving(sharp, (0.0, speed), exposure)
    given = {share: motion_deblur(movie, frames=2, exposure=share)[0] for share in (1.0, exposure)}
    before, wrong, right = (
        psnr((x / 255.0)[16:-16, 16:-16], rest[0][16:-16, 16:-16], 1.0)
        for x in (movie[0], given[1.0], given[exposure])
    )
    assert wrong > before
    assert right > before + 1


@pytest.mark.parametrize("gray", [False, True])
def test_a_static_pair_comes_back(gray: bool) -> None:
    sharp = scene("astronaut", gray)[:SIDE, :SIDE]
    frame = (255 * sharp).round().astype(np.uint8)
    result = motion_deblur(np.stack([frame] * 3), rgb=not gray, frames=2, exposure=0.5)
    assert all(psnr(x / 255.0, frame / 255.0, 1.0) > 38 for x in result)


def test_a_still_noisy_movie_does_not_flicker_more_than_before() -> None:
    rng = np.random.default_rng(0)
    sharp = scene("camera", True)[:SIDE, :SIDE]
    movie = (4000 * (sharp + rng.normal(0, 0.02, (3, *sharp.shape))) + 500).astype(np.uint16)
    result = motion_deblur(movie, frames=2, exposure=0.5)
    before, after = (np.diff(x.astype(float), axis=0).std() for x in (movie, result))
    assert after < 1.02 * before


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.6, 2.5])
def test_one_frame_tells_the_line_of_its_blur(angle: float) -> None:
    length = 14.0
    sharp = scene("camera", True)
    light = torch.from_numpy(sharp)[None, None]
    kernel = motion.kernel(motion.line(length, angle))
    frame = psf.convolve(light, psf.stack([kernel]))[0, 0, 32:-32, 32:-32].numpy()
    samples = (255 * frame).round().astype(np.uint8)
    # What the network sees: finding a PSF is a matter of tests/analysis/test_find_psf.py.
    _, motions = motion_deblur(samples, psf="none", return_motion=True)
    found = motions.vectors.reshape(-1, 2)
    # At twice the angle, where the two ends of a line are one.
    way = (found[:, 1] + 1j * found[:, 0]) ** 2 / np.maximum(np.hypot(*found.T), 1e-6)
    mean = way.mean()
    turn = np.angle(mean * np.exp(-2j * angle)) / 2
    assert abs(turn) < np.radians(15)
    # Where it is unsure it finds less.
    assert 0.4 * length < abs(mean) < 1.3 * length


@pytest.mark.parametrize("told", [None, (10.0, -6.0), (12.0, -3.0)], ids=str)
@pytest.mark.parametrize("noise", ["gray", "of each channel"])
def test_edges_without_color_get_no_colored_fringes(
    told: tuple[float, float] | None, noise: str
) -> None:
    """Though another part of the photograph is colored, and the path that is told is not quite so.

    Motion is common to the channels. Colors come from noise alone then, and are not much more.
    """
    sharp, rng = scene("astronaut", False), np.random.default_rng(0)
    cells = np.kron(rng.random((24, 14)) > 0.5, np.ones((12, 12)))[: len(sharp), :112]
    sharp[:, -112:] = np.where(cells, 0.9, 0.1)[..., None]
    (image, _), _ = moving(sharp, (10.0, -6.0), 0.8)
    within = np.s_[16:-16, -64:-16]
    if noise == "gray":
        image[:, -80:] = image[:, -80:, 1:2]
    along = np.linspace(-0.4, 0.4, 48)[:, None]
    kernel = "none" if told is None else motion.kernel(along * np.array(told))
    result = motion_deblur(image, rgb=True, psf=kernel)
    before, after = (np.ptp(x[within].astype(int), axis=-1).max() for x in (image, result))
    assert (result[within] != image[within]).any()
    assert after <= 2 * before
