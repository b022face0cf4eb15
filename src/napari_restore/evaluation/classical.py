"""Classical methods to measure the networks against, with parameters that suit many images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Image = NDArray[np.float64]
    Method = Callable[[Image], Image]


def gaussian_kernel(sigma: float) -> Image:
    """Gaussian point spread function of a standard deviation in pixels, with sum 1."""
    reach = int(np.ceil(4 * sigma))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    line /= line.sum()
    kernel: Image = np.outer(line, line)
    return kernel


def unsharp_mask(image: Image, radius: float = 1.5, amount: float = 1.0) -> Image:
    """Add what a Gaussian of ``radius`` pixels takes away.

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Y, X, C) in [0, 1].

    Returns
    -------
    ndarray
        The same shape, clipped to [0, 1].
    """
    from scipy.ndimage import gaussian_filter

    soft: Image = gaussian_filter(image, radius, axes=(0, 1))
    return (image + amount * (image - soft)).clip(0, 1)


def richardson_lucy(image: Image, sigma: float, steps: int = 10) -> Image:
    """Deconvolve with a guessed Gaussian (Richardson, 1972; Lucy, 1974).

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Y, X, C) in [0, 1]; each colour for itself. Reflected at the border.
    sigma : float
        Guess of the blur's standard deviation, in pixels.
    steps : int
        More are sharper and noisier.

    Returns
    -------
    ndarray
        The same shape, clipped to [0, 1].
    """
    from skimage.restoration import richardson_lucy as deconvolve

    if image.ndim == 3:
        planes = [richardson_lucy(plane, sigma, steps) for plane in np.moveaxis(image, -1, 0)]
        return np.stack(planes, axis=-1)
    kernel = gaussian_kernel(sigma)
    reach = len(kernel)
    padded = np.pad(image.clip(0, 1), reach, mode="symmetric")
    sharp: Image = deconvolve(padded, kernel, num_iter=steps, filter_epsilon=1e-6)
    return sharp[reach:-reach, reach:-reach].clip(0, 1)


def dark_channel(image: Image, patch: int = 15, haze: float = 0.95, floor: float = 0.1) -> Image:
    """Remove haze with the dark channel prior (He, Sun and Tang, 2011).

    Parameters
    ----------
    image : ndarray
        (Y, X, 3) in [0, 1].
    patch : int
        Side of the neighbourhood in which something is dark without haze, in pixels.
    haze : float
        Share of the haze that is removed.
    floor : float
        Least transmission that is believed.

    Returns
    -------
    ndarray
        The same shape, clipped to [0, 1].
    """
    from scipy.ndimage import minimum_filter

    dark = minimum_filter(image.min(axis=-1), patch)
    # The haziest thousandth of the pixels shows the colour of the air.
    count = max(1, dark.size // 1000)
    haziest = np.argpartition(dark.ravel(), -count)[-count:]
    air = np.maximum(image.reshape(-1, 3)[haziest].mean(axis=0), 1e-3)
    transmission = 1 - haze * minimum_filter((image / air).min(axis=-1), patch)
    smooth = guided_filter(image.mean(axis=-1), transmission).clip(floor, 1)[..., None]
    clear: Image = (image - air) / smooth + air
    return clear.clip(0, 1)


def guided_filter(guide: Image, image: Image, radius: int = 30, eps: float = 1e-3) -> Image:
    """Smooth an image along the edges of another (He, Sun and Tang, 2013).

    Parameters
    ----------
    guide, image : ndarray
        (Y, X).
    radius : int
        Of the square window, in pixels.
    eps : float
        Variance of the guide below which a window counts as even.
    """
    from scipy.ndimage import uniform_filter

    def mean(values: Image) -> Image:
        smooth: Image = uniform_filter(values, 2 * radius + 1, mode="reflect")
        return smooth

    mean_guide, mean_image = mean(guide), mean(image)
    covariance = mean(guide * image) - mean_guide * mean_image
    gain = covariance / (mean(guide * guide) - mean_guide**2 + eps)
    return mean(gain) * guide + mean(mean_image - gain * mean_guide)


def rolling_ball(image: Image, radius: int = 25) -> Image:
    """Subtract the background that a ball sees from below (Sternberg, 1983).

    Parameters
    ----------
    image : ndarray
        (Y, X) in [0, 1]. The ball is as high as it is wide where 1 counts as 255, as in ImageJ.
    radius : int
        In pixels.
    """
    from skimage.restoration import rolling_ball as find_background

    scaled = 255 * image
    background: Image = find_background(scaled, radius=radius)
    return (scaled - background) / 255


def white_tophat(image: Image, radius: int = 15) -> Image:
    """Keep what is brighter than its surroundings and narrower than a disk.

    Parameters
    ----------
    image : ndarray
        (Y, X).
    radius : int
        Of the disk, in pixels.
    """
    from skimage.morphology import disk
    from skimage.morphology import white_tophat as tophat

    narrow: Image = tophat(image, disk(radius, decomposition="sequence"))
    return narrow


def _deconvolution(sigma: float) -> tuple[str, Method]:
    return f"Richardson–Lucy (Gaussian, σ {sigma:g})", lambda image: richardson_lucy(image, sigma)


def classical_methods(task: str, kind: str) -> tuple[tuple[str, Method], ...]:
    """Names and functions of the methods for a task and a kind of image ("color" or "mono")."""
    if task == "dehaze":
        if kind == "color":
            return (("dark channel prior", dark_channel),)
        return ("rolling ball", rolling_ball), ("white top-hat", white_tophat)
    return ("unsharp mask", unsharp_mask), _deconvolution(2.0 if task == "motion_deblur" else 1.5)
