"""Point spread functions, in pixels, and convolution with them.

Every kernel is a float32 array (k, k) with odd k that sums to 1, centered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Kernel = NDArray[np.float32]


def _normalized(kernel: NDArray[np.floating]) -> Kernel:
    normal: Kernel = (kernel / kernel.sum()).astype(np.float32)
    return normal


def _grid(half: int, oversample: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = (2 * half + 1) * oversample
    line = (np.arange(count) + 0.5) / oversample - half - 0.5
    return np.meshgrid(line, line, indexing="ij")


def disk(radius: float) -> Kernel:
    """Geometric defocus of a lens: a uniform disk.

    Parameters
    ----------
    radius : float
        Radius in pixels; 0 gives the identity.
    """
    half, oversample = int(np.ceil(radius)), 8
    y, x = _grid(half, oversample)
    fine = (np.hypot(y, x) <= max(radius, 1 / oversample)).astype(np.float64)
    size = 2 * half + 1
    return _normalized(fine.reshape(size, oversample, size, oversample).mean((1, 3)))


def gaussian(sigma_y: float, sigma_x: float | None = None, angle: float = 0.0) -> Kernel:
    """Gaussian, optionally elliptical.

    Parameters
    ----------
    sigma_y, sigma_x : float
        Standard deviations in pixels; ``sigma_x`` defaults to ``sigma_y``.
    angle : float
        Rotation of the axes in radians.
    """
    sigma_x = sigma_y if sigma_x is None else sigma_x
    sigma_y, sigma_x = max(sigma_y, 1e-3), max(sigma_x, 1e-3)
    y, x = _grid(int(np.ceil(3.5 * max(sigma_y, sigma_x))))
    u, v = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    return _normalized(np.exp(-0.5 * ((u / sigma_y) ** 2 + (v / sigma_x) ** 2)))


#: Low-order Zernike terms (Noll order 4 to 11), as functions of the pupil's polar coordinates.
_ZERNIKE = {
    "defocus": lambda r, t: np.sqrt(3) * (2 * r**2 - 1),
    "astigmatism_oblique": lambda r, t: np.sqrt(6) * r**2 * np.sin(2 * t),
    "astigmatism": lambda r, t: np.sqrt(6) * r**2 * np.cos(2 * t),
    "coma_y": lambda r, t: np.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t),
    "coma_x": lambda r, t: np.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t),
    "trefoil_y": lambda r, t: np.sqrt(8) * r**3 * np.sin(3 * t),
    "trefoil_x": lambda r, t: np.sqrt(8) * r**3 * np.cos(3 * t),
    "spherical": lambda r, t: np.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
}
ABERRATIONS = tuple(_ZERNIKE)


def pupil(cutoff: float, aberrations: dict[str, float] | None = None, half: int = 16) -> Kernel:
    """Incoherent PSF of a circular pupil with aberrations: wide-field microscope or lens.

    Parameters
    ----------
    cutoff : float
        Cut-off of the optical transfer function in cycles per pixel, ``2 NA / wavelength`` times
        the pixel size; 0.5 is Nyquist.
    aberrations : dict
        Zernike coefficients in radians (rms) by name, see ``ABERRATIONS``. Defocus is one of
        them: the light of a plane outside the focus.
    half : int
        The kernel has ``2 * half + 1`` pixels on a side.

    Notes
    -----
    Scalar theory: the PSF is the squared modulus of the pupil's Fourier transform (Goodman,
    Introduction to Fourier Optics, chapter 6). It is averaged over each pixel's area.
    """
    oversample, count = 2, 8 * half
    frequency = np.fft.fftfreq(count, 1 / oversample)
    fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
    radius, angle = np.hypot(fy, fx) / (cutoff / 2), np.arctan2(fy, fx)
    phase = np.zeros_like(radius)
    for name, coefficient in (aberrations or {}).items():
        phase += coefficient * _ZERNIKE[name](radius, angle)
    field = np.fft.ifft2((radius <= 1) * np.exp(1j * phase))
    intensity = np.fft.fftshift(np.abs(field) ** 2)
    # Average over a pixel that is `oversample` samples wide, centered on each sample.
    intensity = ndimage.convolve1d(intensity, [0.25, 0.5, 0.25], axis=0)
    intensity = ndimage.convolve1d(intensity, [0.25, 0.5, 0.25], axis=1)
    middle = count // 2
    pick = slice(middle - half * oversample, middle + half * oversample + 1, oversample)
    return _normalized(intensity[pick, pick])


def microscope(
    numerical_aperture: float,
    wavelength: float,
    pixel_size: float,
    aberrations: dict[str, float] | None = None,
    half: int = 16,
) -> Kernel:
    """PSF of a wide-field microscope.

    Parameters
    ----------
    numerical_aperture : float
    wavelength, pixel_size : float
        Emission wavelength and pixel size in the sample, in the same unit.
    aberrations, half
        As for `pupil`.
    """
    return pupil(2 * numerical_aperture / wavelength * pixel_size, aberrations, half)


def equivalent_sigma(kernel: Kernel) -> float:
    """Find the standard deviation of the Gaussian that blurs as much, in pixels.

    Of all kernels the one with equal energy: a Gaussian's sum of squares is 1 / (4 π σ²). A disk of
    radius r gives r / 2, no blur at all gives 0.28, the width of a pixel. Unlike the second moment
    it does not hang on the faint tails of diffraction.
    """
    energy = float(np.square(kernel, dtype=np.float64).sum())
    return 1 / math.sqrt(4 * math.pi * energy)


def combine(first: Kernel, second: Kernel) -> Kernel:
    """Kernel of two blurs in a row."""
    from scipy.signal import fftconvolve

    return _normalized(np.clip(fftconvolve(first, second), 0, None))


def shifted(kernel: NDArray[np.floating], offset: Sequence[float]) -> Kernel:
    """Move a kernel by (y, x) pixels, bilinearly; it grows as far as it needs to."""
    margin = math.ceil(max(abs(float(length)) for length in offset))
    padded = np.pad(kernel, margin) if margin else kernel
    return _normalized(ndimage.shift(padded, offset, order=1, mode="constant"))


def centered(kernel: NDArray[np.floating]) -> Kernel:
    """Bring the center of mass of a kernel to its middle, and its sum to 1."""
    if kernel.sum() <= 0:
        return np.ones((1, 1), np.float32)
    middle = [(length - 1) / 2 for length in kernel.shape]
    mass = ndimage.center_of_mass(kernel)
    return shifted(kernel, [want - have for want, have in zip(middle, mass, strict=True)])


def resized(kernel: NDArray[np.floating], factor: float) -> Kernel:
    """Make a kernel larger or smaller by a factor, about its middle."""
    half = max(0, math.ceil((kernel.shape[0] - 1) / 2 * factor))
    fine = 3
    line = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    middle = (kernel.shape[0] - 1) / 2
    y, x = np.meshgrid(line / factor + middle, line / factor + middle, indexing="ij")
    values = ndimage.map_coordinates(kernel, [y, x], order=1, mode="constant")
    size = 2 * half + 1
    return _normalized(values.reshape(size, fine, size, fine).mean((1, 3)) + 1e-12)


def stack(kernels: Sequence[Kernel]) -> torch.Tensor:
    """Bring kernels to one size by zero padding: (N, k, k)."""
    size = max(kernel.shape[0] for kernel in kernels)
    out = np.zeros((len(kernels), size, size), np.float32)
    for target, kernel in zip(out, kernels, strict=True):
        margin = (size - kernel.shape[0]) // 2
        end = margin + kernel.shape[0]
        target[margin:end, margin:end] = kernel
    return torch.from_numpy(out)


def convolve(image: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Convolve each image of a batch with its own kernel.

    Parameters
    ----------
    image : Tensor
        (N, C, H, W); reflected at its borders.
    kernels : Tensor
        (N, k, k) with odd k, or (1, k, k) for all.

    Returns
    -------
    Tensor
        (N, C, H, W), float32.
    """
    half = kernels.shape[-1] // 2
    height, width = image.shape[-2:]
    # Reflection reaches at most to the other border; beyond it, repeat the edge.
    reflect = min(half, height - 1, width - 1)
    padded = F.pad(image.float(), (reflect,) * 4, mode="reflect") if reflect else image.float()
    if half > reflect:
        padded = F.pad(padded, (half - reflect,) * 4, mode="replicate")
    # A size with small prime factors keeps the transform quick.
    size = [fast_length(length) for length in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(kernels.to(image.device).float(), s=size)[:, None]
    out: torch.Tensor = torch.fft.irfft2(spectrum, s=size)
    return out[..., 2 * half : 2 * half + height, 2 * half : 2 * half + width]


def fast_length(length: int) -> int:
    """Find a length of at least this with small prime factors, which keeps transforms quick."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(length, real=True))
