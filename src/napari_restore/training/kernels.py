"""Random kernels to train with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_restore.physics import motion, psf

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from [low, high], evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_defocus(rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel of a lens out of focus: disk, Gaussian, or pupil with aberrations."""
    kind = rng.random()
    if kind < 0.4:
        return psf.disk(rng.uniform(0.5, 5.5))
    if kind < 0.8:
        sigma = rng.uniform(0.4, 3.3)
        ratio = 1.0 if rng.random() < 0.7 else rng.uniform(0.6, 1.0)
        return psf.gaussian(sigma, sigma * ratio, rng.uniform(0, np.pi))
    names = ["defocus", *rng.choice(psf.ABERRATIONS[1:], 2, replace=False)]
    strength = rng.uniform(0.1, 1.3)
    coefficients = {name: rng.normal(0, strength) for name in names}
    kernel = psf.pupil(log_uniform(rng, 0.12, 0.6), coefficients, half=12)
    if rng.random() < 0.3:
        kernel = psf.combine(kernel, psf.gaussian(rng.uniform(0.3, 1.2)))
    return kernel


def random_motion(rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel of a shaken camera (a half), of straight motion, or along an arc, 1 to 30 pixels."""
    length, kind = rng.uniform(1, 30), rng.random()
    if kind < 0.35:
        kernel = motion.kernel(motion.line(length, rng.uniform(0, np.pi)))
    elif kind < 0.5:
        bend = rng.uniform(0.2, 2.5)
        kernel = motion.kernel(motion.arc(length, rng.uniform(0, 2 * np.pi), bend))
    else:
        jerk = 0.0 if rng.random() < 0.4 else rng.uniform(0.005, 0.06)
        kernel = motion.kernel(motion.shake(rng, 0.8 * length, jerk=jerk))
    if rng.random() < 0.3:
        kernel = psf.combine(kernel, psf.gaussian(rng.uniform(0.3, 0.9)))
    return kernel


def random_psf(rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel of a lens out of focus, of motion, or of both."""
    kind = rng.random()
    if kind < 0.45:
        return random_defocus(rng)
    if kind < 0.7:
        return random_motion(rng)
    if kind < 0.93:
        path = motion.wander(rng, rng.uniform(3, 28))
        kernel = motion.kernel(path)
        return psf.combine(kernel, psf.gaussian(rng.uniform(0.25, 0.7)))
    return psf.combine(random_motion(rng), psf.disk(rng.uniform(0.5, 2.5)))


def nearly(kernel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change a kernel as a measurement or an estimate would: in 4 of 10 not at all.

    A fourth is too small or too large by up to an eighth, rather too small; others have noise, are
    cut off, off the center by half a pixel, or another kernel altogether.
    """
    kind = rng.random()
    if kind < 0.4:
        return kernel
    if kind < 0.65:
        return psf.resized(kernel, rng.uniform(0.86, 1.1))
    if kind < 0.8:
        # Noise as strong as a few per cent of the peak, where there is anything, and dust beside.
        padded = np.pad(kernel, 1)
        noise = rng.normal(0, rng.uniform(0.005, 0.06) * kernel.max(), padded.shape)
        noisy = np.clip(padded + noise, 0, None)
        noisy[noisy < rng.uniform(0, 0.08) * noisy.max()] = 0
        return psf.centered(noisy)
    if kind < 0.87:
        cut = np.where(kernel < rng.uniform(0.03, 0.2) * kernel.max(), 0, kernel)
        return psf.centered(cut)
    if kind < 0.93:
        return psf.shifted(kernel, rng.uniform(-0.5, 0.5, 2).tolist())
    return random_psf(rng)
