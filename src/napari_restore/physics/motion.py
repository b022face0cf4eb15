"""Motion during the exposure: trajectories, their kernels, and blur that varies in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Path = NDArray[np.float64]


def line(length: float, angle: float, samples: int = 64) -> Path:
    """Straight, even motion.

    Parameters
    ----------
    length : float
        Pixels travelled during the exposure.
    angle : float
        Direction in radians, from the x axis towards y.
    samples : int
        Points of the path, evenly spaced in time.

    Returns
    -------
    ndarray
        (samples, 2) positions (y, x) in pixels, centred on their mean.
    """
    along = np.linspace(-length / 2, length / 2, samples)
    return np.stack([along * np.sin(angle), along * np.cos(angle)], 1)


def shake(
    rng: np.random.Generator, length: float, *, jerk: float = 0.02, samples: int = 96
) -> Path:
    """Random trajectory of a shaken camera: inertia, a pull back to the start, sudden jerks.

    Parameters
    ----------
    rng : numpy.random.Generator
    length : float
        Largest extent of the trajectory in pixels.
    jerk : float
        Chance of a sudden turn at each sample.
    samples : int
        Points of the path, evenly spaced in time.

    Returns
    -------
    ndarray
        (samples, 2) positions (y, x) in pixels, centred on their mean.

    Notes
    -----
    After Boracchi and Foi, "Modeling the performance of image restoration from motion blur",
    IEEE TIP 2012.
    """
    turn, pull = rng.uniform(0.02, 0.35), rng.uniform(0.0, 0.02)
    heading = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.sin(heading), np.cos(heading)])
    position = np.zeros(2)
    path: Path = np.empty((samples, 2))
    for index in range(samples):
        if rng.random() < jerk:
            heading = rng.uniform(0, 2 * np.pi)
            velocity = np.array([np.sin(heading), np.cos(heading)]) * rng.uniform(0.5, 2)
        velocity = velocity + turn * rng.normal(size=2) - pull * position
        velocity *= 1 / max(np.hypot(*velocity), 1e-6)
        position = position + velocity
        path[index] = position
    extent = np.ptp(path, axis=0).max()
    path *= length / max(extent, 1e-6)
    centred: Path = path - path.mean(0)
    return centred


def kernel(path: Path) -> NDArray[np.float32]:
    """Point spread function of a path: time spent at each pixel, spread bilinearly.

    Parameters
    ----------
    path : ndarray
        (n, 2) positions (y, x) in pixels, about the centre, evenly spaced in time.

    Returns
    -------
    ndarray
        (k, k), odd k, sums to 1.
    """
    fine = np.linspace(0, len(path) - 1, 8 * len(path))
    index = np.arange(len(path))
    y, x = (np.interp(fine, index, path[:, axis]) for axis in (0, 1))
    half = int(np.ceil(np.abs(path).max())) + 1
    out = np.zeros((2 * half + 1, 2 * half + 1))
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            np.add.at(out, (y0 + half + dy, x0 + half + dx), wy * wx)
    normal: NDArray[np.float32] = (out / out.sum()).astype(np.float32)
    return normal


def rigid_blur(image: torch.Tensor, path: Path, angles: NDArray[np.float64]) -> torch.Tensor:
    """Mean of the image over shifts and rotations about its centre: blur that varies in space.

    Parameters
    ----------
    image : Tensor
        (C, H, W).
    path : ndarray
        (n, 2) shifts (y, x) in pixels.
    angles : ndarray
        (n,) rotations in radians.

    Returns
    -------
    Tensor
        (C, H, W), the mean over the n poses.
    """
    height, width = image.shape[-2:]
    cos, sin = np.cos(angles), np.sin(angles)
    theta = np.zeros((len(path), 2, 3), np.float32)
    # grid_sample works in units of half the image on each axis, and looks where a pixel comes from.
    theta[:, 0] = np.stack([cos, -sin * height / width, -2 * path[:, 1] / width], 1)
    theta[:, 1] = np.stack([sin * width / height, cos, -2 * path[:, 0] / height], 1)
    poses = torch.from_numpy(theta).to(image.device)
    total = torch.zeros_like(image)
    for pose in poses:
        grid = F.affine_grid(pose[None], [1, *image.shape], align_corners=False)
        total += F.grid_sample(
            image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )[0]
    return total / len(poses)
