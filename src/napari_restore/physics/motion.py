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
        Pixels traveled during the exposure.
    angle : float
        Direction in radians, from the x axis toward y.
    samples : int
        Points of the path, evenly spaced in time.

    Returns
    -------
    ndarray
        (samples, 2) positions (y, x) in pixels, centered on their mean.
    """
    along = np.linspace(-length / 2, length / 2, samples)
    return np.stack([along * np.sin(angle), along * np.cos(angle)], 1)


def arc(length: float, angle: float, bend: float, samples: int = 64) -> Path:
    """Even motion along a part of a circle.

    Parameters
    ----------
    length : float
        Pixels traveled during the exposure.
    angle : float
        Direction in the middle, in radians, from the x axis toward y.
    bend : float
        Radians by which the direction turns in all.
    samples : int
        Points of the path, evenly spaced in time.

    Returns
    -------
    ndarray
        (samples, 2) positions (y, x) in pixels, centered on their mean.
    """
    heading = angle + np.linspace(-bend / 2, bend / 2, samples)
    steps = np.stack([np.sin(heading), np.cos(heading)], 1) * length / max(1, samples - 1)
    path = np.cumsum(steps, axis=0)
    centered: Path = path - path.mean(0)
    return centered


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
        (samples, 2) positions (y, x) in pixels, centered on their mean.

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
    centered: Path = path - path.mean(0)
    return centered


def wander(rng: np.random.Generator, length: float, samples: int = 96) -> Path:
    """Smooth trajectory through some random places, now quicker, now slower.

    Parameters
    ----------
    rng : numpy.random.Generator
    length : float
        Largest extent of the trajectory in pixels.
    samples : int
        Points of the path, evenly spaced in time.

    Returns
    -------
    ndarray
        (samples, 2) positions (y, x) in pixels, centered on their mean.
    """
    from scipy.interpolate import CubicSpline

    count = int(rng.integers(3, 8))
    steps = rng.normal(size=(count, 2)) * rng.lognormal(0, 0.5, (count, 1))
    places = np.cumsum(steps, axis=0)
    times = np.concatenate([[0], np.cumsum(rng.lognormal(0, 0.6, count - 1))])
    path: Path = CubicSpline(times, places)(np.linspace(0, times[-1], samples))
    path *= length / max(np.ptp(path, axis=0).max(), 1e-6)
    centered: Path = path - path.mean(0)
    return centered


def kernel(path: Path) -> NDArray[np.float32]:
    """Point spread function of a path: time spent at each pixel, spread bilinearly.

    Parameters
    ----------
    path : ndarray
        (n, 2) positions (y, x) in pixels, about the center, evenly spaced in time.

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


def blur_vector(psf: NDArray[np.floating]) -> NDArray[np.float32]:
    """How long and in which direction a kernel blurs.

    Directions of a blur are known up to their sign only; at twice the angle they are vectors that
    can be averaged.

    Parameters
    ----------
    psf : ndarray
        (k, k), with sum 1.

    Returns
    -------
    ndarray
        (2,): length in pixels times cosine and sine of twice the angle from x toward y. Even
        motion along a line gives its length; a round kernel gives 0.
    """
    half = psf.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    y, x = y - (psf * y).sum(), x - (psf * x).sum()
    xx, yy, xy = (float((psf * product).sum()) for product in (x * x, y * y, x * y))
    # Difference of the principal variances, and a line's variance is its length squared over 12.
    spread = np.hypot(xx - yy, 2 * xy)
    length = np.sqrt(12 * spread)
    direction = np.array([xx - yy, 2 * xy]) / max(spread, 1e-12)
    vector: NDArray[np.float32] = (length * direction).astype(np.float32)
    return vector


def double_angle(displacement: torch.Tensor) -> torch.Tensor:
    """Vectors of `blur_vector` for straight motion by (N, 2, H, W) displacements (y, x)."""
    y, x = displacement[:, :1], displacement[:, 1:]
    length = torch.hypot(y, x).clamp(min=1e-6)
    return torch.cat([x * x - y * y, 2 * x * y], 1) / length


def half_angle(vectors: torch.Tensor) -> torch.Tensor:
    """Displacements (y, x), one of the two signs, for (N, 2, H, W) vectors of `blur_vector`."""
    length = torch.hypot(vectors[:, :1], vectors[:, 1:])
    angle = torch.atan2(vectors[:, 1:], vectors[:, :1]) / 2
    return length * torch.cat([angle.sin(), angle.cos()], 1)


def warp(image: torch.Tensor, displacement: torch.Tensor, top: int = 0) -> torch.Tensor:
    """Look elsewhere: the value at x becomes that of x + displacement(x).

    Parameters
    ----------
    image : Tensor
        (N, C, H, W); beyond its border it is repeated.
    displacement : Tensor
        (N, 2, h, W), pixels (y, x): of all rows, or of some.
    top : int
        The first of them.

    Returns
    -------
    Tensor
        (N, C, h, W), bilinearly interpolated.
    """
    height, width = image.shape[-2:]
    options = {"device": image.device, "dtype": displacement.dtype}
    rows = torch.arange(top, top + displacement.shape[-2], **options)  # type: ignore[call-overload]
    y = rows.view(1, -1, 1) + displacement[:, 0]
    x = torch.arange(width, **options).view(1, 1, -1) + displacement[:, 1]  # type: ignore[call-overload]
    # grid_sample works in units of half the image, from the outer edges of its pixels.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(
        image, grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )


class Telescope:
    """Parts of the inverse of motion blur, along the motion.

    If B is the mean of the sharp image I over a displacement d, the derivative of B along d is
    I(x + d/2) - I(x - d/2). Sums of such differences at odd multiples of d/2 telescope to
    I(x) - I(x + n d), and the mean of I(x + n d) over many n is that of B (Sondhi, "Image
    Restoration: The Removal of Spatially Invariant Degradations", Proceedings of the IEEE 1972, on
    uniform motion). So weighted sums of these parts undo the blur, with much the same weights
    whatever its length and direction. Which end of d came first makes no difference.

    Parameters
    ----------
    image : Tensor
        (N, C, H, W), blurred.
    displacement : Tensor
        (N, 2, H, W), pixels (y, x) traveled during the exposure.
    steps : int
        How many differences on either side.
    """

    def __init__(self, image: torch.Tensor, displacement: torch.Tensor, steps: int = 3) -> None:
        self._image, self._displacement, self._steps = image, displacement, steps
        padded = F.pad(image, (2,) * 4, mode="replicate")
        # A band of rows at a time: there are many intermediate results.
        bands = displacement.split(128, 2)
        windows = (padded[..., 128 * n : 128 * (n + 1) + 4, :] for n in range(len(bands)))
        self._change = torch.cat(list(map(_derivative, windows, bands)), 2)

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Find the parts for some rows.

        Parameters
        ----------
        top, bottom : int
            The first row, and that after the last.

        Returns
        -------
        Tensor
            (N, 2 * steps * C, bottom - top, W): for k = 1/2, 3/2 …, the difference of the
            derivatives at x + k d and x - k d; and for n = 1, 2 …, the sum of the image at x + n d
            and x - n d, less twice that at x.
        """
        image, change = self._image, self._change
        displacement, twice = self._displacement[..., top:bottom, :], 2 * image[..., top:bottom, :]
        differences, sums = [], []
        for step in range(self._steps):
            half, whole = (step + 0.5) * displacement, (step + 1) * displacement
            differences.append(warp(change, half, top) - warp(change, -half, top))
            sums.append(warp(image, whole, top) + warp(image, -whole, top) - twice)
        return torch.cat(differences + sums, 1)


def _derivative(padded: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Find the derivative along (N, 2, H, W) of an image with 2 more pixels on every side.

    Central differences of fourth order: blurred images have little at the finest scale, but some.
    """
    ys, xs = padded[..., 2:-2], padded[..., 2:-2, :]
    along_y = 8 * (ys[..., 3:-1, :] - ys[..., 1:-3, :]) - (ys[..., 4:, :] - ys[..., :-4, :])
    along_x = 8 * (xs[..., 3:-1] - xs[..., 1:-3]) - (xs[..., 4:] - xs[..., :-4])
    return (along_y * displacement[:, :1] + along_x * displacement[:, 1:]) / 12


def sweep(
    image: torch.Tensor, displacement: torch.Tensor, start: float = -0.5, stop: float = 0.5
) -> torch.Tensor:
    """Mean of the image while it moves evenly: blur that may differ from place to place.

    Parameters
    ----------
    image : Tensor
        (N, C, H, W).
    displacement : Tensor
        (N, 2, H, W), pixels (y, x) traveled in a unit of time.
    start, stop : float
        When the exposure begins and ends; at 0 the image is where it is.

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    longest = float(displacement.norm(dim=1).max()) * (stop - start)
    # Steps of a pixel and a half leave no gaps after interpolation.
    count = max(1, int(np.ceil(longest / 1.5)))
    total = torch.zeros_like(image)
    for time in start + (np.arange(count) + 0.5) / count * (stop - start):
        total += warp(image, displacement * float(time))
    return total / count
