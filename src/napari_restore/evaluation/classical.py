"""Classical methods to measure the networks against, with parameters that suit many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_restore.physics.deconvolution import RichardsonLucy, Wiener

    Image = NDArray[np.float64]


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


def richardson_lucy(image: Image, kernel: Image, steps: int = 30) -> Image:
    """Deconvolve (Richardson, 1972; Lucy, 1974).

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Y, X, C) in [0, 1]; each color for itself.
    kernel : ndarray
        Point spread function, of odd sides and sum 1.
    steps : int
        More are sharper and noisier.

    Returns
    -------
    ndarray
        The same shape, clipped to [0, 1].
    """
    from napari_restore.physics.deconvolution import RichardsonLucy

    return _deconvolved(image.clip(0, 1), kernel, RichardsonLucy(steps, accelerated=False))


def wiener(image: Image, kernel: Image, balance: float = 0.01) -> Image:
    """Deconvolve with a Wiener filter that expects smooth images (Hunt, 1973).

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Y, X, C) in [0, 1]; each color for itself.
    kernel : ndarray
        Point spread function, of odd sides and sum 1.
    balance : float
        Weight of smoothness beside fidelity to the data.

    Returns
    -------
    ndarray
        The same shape, clipped to [0, 1].
    """
    from napari_restore.physics.deconvolution import Wiener

    return _deconvolved(image, kernel, Wiener(noise=balance**0.5, strength=1.0))


def _deconvolved(image: Image, kernel: Image, method: RichardsonLucy | Wiener) -> Image:
    from napari_restore.physics.in_blocks import deconvolve

    if image.ndim == 3:
        planes = np.moveaxis(image, -1, 0)
        return np.stack([_deconvolved(plane, kernel, method) for plane in planes], axis=-1)
    return deconvolve(image, kernel, method).astype(np.float64).clip(0, 1)


def dark_channel(image: Image, patch: int = 15, haze: float = 0.95, floor: float = 0.1) -> Image:
    """Remove haze with the dark channel prior (He, Sun and Tang, 2011).

    Parameters
    ----------
    image : ndarray
        (Y, X, 3) in [0, 1].
    patch : int
        Side of the neighborhood in which something is dark without haze, in pixels.
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
    # The haziest thousandth of the pixels shows the color of the air.
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


def smooth(image: Image, sigma: float = 1.0) -> Image:
    """Smooth with a Gaussian of a standard deviation in pixels; (Y, X) or (Y, X, C)."""
    from scipy.ndimage import gaussian_filter

    soft: Image = gaussian_filter(image, sigma, axes=(0, 1))
    return soft


def non_local_means(image: Image) -> Image:
    """Average places whose surroundings look alike (Buades, Coll and Morel, 2005).

    With our estimate of the noise, and the parameters of scikit-image's example: patches of 5
    pixels, places up to 6 pixels away, h = 0.8 σ.

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Y, X, C) in [0, 1].
    """
    from skimage.restoration import denoise_nl_means

    from napari_restore.analysis.find import noise_level

    sigma = float(noise_level(image.reshape(*image.shape[:2], -1).astype(np.float32)))
    if not sigma > 0:
        return image
    means: Image = denoise_nl_means(
        image,
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma,
        sigma=sigma,
        fast_mode=False,
        channel_axis=-1 if image.ndim == 3 else None,
    )
    return means


def to_linear(image: Image) -> Image:
    """Undo the tone curve of sRGB; see `napari_restore.physics.camera.to_linear`."""
    import torch

    from napari_restore.physics import camera

    return camera.to_linear(torch.from_numpy(image)).numpy()


def to_srgb(light: Image) -> Image:
    """Apply the tone curve of sRGB; see `napari_restore.physics.camera.to_srgb`."""
    import torch

    from napari_restore.physics import camera

    return camera.to_srgb(torch.from_numpy(light)).numpy()


def dark_sectioning(image: Image, patch: int = 15, fine: float = 2.0, share: float = 0.95) -> Image:
    """Take light of other planes for haze that lies on the coarse part of an image.

    After the principle of Dark sectioning (Cao et al., Nature Methods 2025), not its program:
    structure in focus leaves something dark in every neighborhood, so what is darkest in the coarse
    part is light from elsewhere. The fine part, which that light does not have, is kept.

    Parameters
    ----------
    image : ndarray
        (Y, X).
    patch : int
        Side of the neighborhood in which something is dark without haze, in pixels.
    fine : float
        Standard deviation of the Gaussian that parts coarse from fine, in pixels.
    share : float
        Of the haze that is removed.
    """
    from scipy.ndimage import gaussian_filter, minimum_filter

    least = float(image.min())
    coarse = gaussian_filter(image, fine)
    darkest = minimum_filter(coarse - least, patch)
    haze = share * guided_filter(coarse, darkest, radius=patch).clip(0, None)
    air = max(float((coarse - least).max()), 1e-6)
    transmission = (1 - haze / air).clip(0.1, 1)
    sectioned: Image = ((coarse - least - haze) / transmission).clip(0, None) + image - coarse
    return least + sectioned


@dataclass(frozen=True)
class ClassicalMethod:
    """A method to measure the networks against.

    Attributes
    ----------
    name : str
    run : callable
        From an image in [0, 1], (Y, X) or (Y, X, 3), and the kernel that blurred it.
    knows_blur : bool
        Whether it is told a kernel, the true one or the one that was found; else it is not used.
    """

    name: str
    run: Callable[[Image, Image], Image]
    knows_blur: bool = False


def classical_methods(task: str, kind: str) -> tuple[ClassicalMethod, ...]:
    """Find the methods for a task and a kind of image ("color" or "mono")."""
    if task == "dehaze":
        if kind == "color":
            return (ClassicalMethod("dark channel prior", lambda image, _: dark_channel(image)),)
        return (
            ClassicalMethod("rolling ball", lambda image, _: rolling_ball(image)),
            ClassicalMethod("white top-hat", lambda image, _: white_tophat(image)),
            ClassicalMethod("dark sectioning", lambda image, _: dark_sectioning(image)),
        )
    if task == "denoise":
        return (
            ClassicalMethod("Gaussian σ 1", lambda image, _: smooth(image)),
            ClassicalMethod("non-local means", lambda image, _: non_local_means(image)),
        )
    name, guess = _guess(task)
    return (
        ClassicalMethod("unsharp mask", lambda image, _: unsharp_mask(image)),
        ClassicalMethod(
            f"Richardson–Lucy, {name}", lambda image, _: richardson_lucy(image, guess, 10)
        ),
        ClassicalMethod(f"Wiener, {name}", lambda image, _: wiener(image, guess)),
        ClassicalMethod("Richardson–Lucy", richardson_lucy, knows_blur=True),
        ClassicalMethod("Wiener", wiener, knows_blur=True),
    )


def _guess(task: str) -> tuple[str, Image]:
    """Blur that somebody would guess who knows nothing: its name and kernel."""
    if task == "motion_deblur":
        return "line of 9 px", np.full((1, 9), 1 / 9)
    return "Gaussian σ 1.5", gaussian_kernel(1.5)
