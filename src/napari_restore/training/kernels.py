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
