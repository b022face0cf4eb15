"""Random blur of light: kernels, the same everywhere, or motion that differs by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from napari_restore.physics import haze, motion, psf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Kernel = NDArray[np.float32]


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
    """Change a kernel as a measurement or an estimate would: in 9 of 20 not at all.

    A fourth is too small or too large by up to an eighth, rather too small; others have noise, are
    cut off, or off the center by half a pixel. None is another kernel altogether: networks that
    allow for that mistrust kernels that are right, where an image has fine texture.
    """
    kind = rng.random()
    if kind < 0.45:
        return kernel
    if kind < 0.7:
        return psf.resized(kernel, rng.uniform(0.86, 1.1))
    if kind < 0.84:
        # Noise as strong as a few per cent of the peak, where there is anything, and dust beside.
        padded = np.pad(kernel, 1)
        noise = rng.normal(0, rng.uniform(0.005, 0.06) * kernel.max(), padded.shape)
        noisy = np.clip(padded + noise, 0, None)
        noisy[noisy < rng.uniform(0, 0.08) * noisy.max()] = 0
        return psf.centered(noisy)
    if kind < 0.9:
        cut = np.where(kernel < rng.uniform(0.03, 0.2) * kernel.max(), 0, kernel)
        return psf.centered(cut)
    return psf.shifted(kernel, rng.uniform(-0.5, 0.5, 2).tolist())


#: Pairs without blur: sharp images have to come back as they are.
IDENTITY_SHARE = 0.15
NO_BLUR = np.ones((1, 1), np.float32)


class Blurred(NamedTuple):
    """What reaches the sensor from a batch of sharp scenes.

    Attributes
    ----------
    light : Tensor
        (N, C, H, W), or (N, 2 C, H, W) for two frames, the one to restore first.
    sharp : Tensor
        (N, C, H, W), the same without blur.
    still : sequence of bool
        Which are not blurred at all.
    kernels : sequence of (ndarray or None)
        What blurred each, None where no single kernel says it.
    motion : Tensor or None
        (N, 2, H, W) in pixels: vectors of `napari_restore.physics.motion.blur_vector`, or for two
        frames the flow (y, x) from the first to the second. NaN where it is not known.
    exposure : Tensor or None
        (N, 1, 1, 1), for two frames: share of the time between them that the shutter is open.
    """

    light: torch.Tensor
    sharp: torch.Tensor
    still: tuple[bool, ...]
    kernels: tuple[Kernel | None, ...]
    motion: torch.Tensor | None = None
    exposure: torch.Tensor | None = None


class Blur(Protocol):
    """From scenes of light (N, C, H, W) to what is `Blurred`."""

    def __call__(self, light: torch.Tensor, rng: np.random.Generator) -> Blurred:
        """Blur a batch."""
        ...


def draw_kernels(
    kernel: Callable[[np.random.Generator], Kernel], rng: np.random.Generator, count: int
) -> list[Kernel]:
    """Draw kernels, `NO_BLUR` among them."""
    return [NO_BLUR if rng.random() < IDENTITY_SHARE else kernel(rng) for _ in range(count)]


@dataclass
class KernelBlur:
    """A kernel for each image, the same everywhere."""

    kernel: Callable[[np.random.Generator], Kernel]

    def __call__(self, light: torch.Tensor, rng: np.random.Generator) -> Blurred:
        """Blur a batch."""
        drawn = draw_kernels(self.kernel, rng, len(light))
        still = tuple(kernel is NO_BLUR for kernel in drawn)
        return Blurred(psf.convolve(light, psf.stack(drawn)), light, still, tuple(drawn))


@dataclass
class MotionBlur:
    """Shake, straight and curved motion; turning and nearing; objects that move by themselves.

    Attributes
    ----------
    varying_share, object_share : float
        Of the images that turn, near or shear, and of those with a moving object.
    """

    varying_share: float = 0.12
    object_share: float = 0.15

    def __call__(self, light: torch.Tensor, rng: np.random.Generator) -> Blurred:
        """Blur a batch."""
        count, _, height, width = light.shape
        drawn = draw_kernels(random_motion, rng, count)
        blurred = psf.convolve(light, psf.stack(drawn))
        vectors = torch.from_numpy(np.stack([motion.blur_vector(kernel) for kernel in drawn]))
        field = vectors.to(light.device)[:, :, None, None].repeat(1, 1, height, width)
        sharp = light.clone()
        kernels: list[Kernel | None] = list(drawn)
        for index in range(count):
            if drawn[index] is NO_BLUR:
                continue
            kind = rng.random()
            if kind < self.varying_share:
                moves = moving_field(rng, height, width, rng.uniform(1, 30)).to(light.device)
                blurred[index] = motion.sweep(light[index : index + 1], moves)[0]
                field[index] = motion.double_angle(moves)[0]
            elif kind < self.varying_share + self.object_share:
                mask = blob(rng, height, width).to(light.device)
                thing, own = light[(index + 1) % count] * mask, random_motion(rng)
                both = torch.cat([thing, mask])[None]
                seen = psf.convolve(both, psf.stack([own]))[0]
                behind = light[index] if rng.random() < 0.4 else blurred[index]
                at_rest = behind is not blurred[index]
                blurred[index] = behind * (1 - seen[-1:]) + seen[:-1]
                sharp[index] = light[index] * (1 - mask) + thing
                vector = torch.from_numpy(motion.blur_vector(own)).to(light.device)
                around = torch.zeros_like(field[index]) if at_rest else field[index]
                field[index] = torch.where(mask > 0.5, vector[:, None, None], around)
            else:
                continue
            kernels[index] = None
        still = tuple(kernel is NO_BLUR for kernel in drawn)
        return Blurred(blurred, sharp, still, tuple(kernels), field)


def moving_field(rng: np.random.Generator, height: int, width: int, longest: float) -> torch.Tensor:
    """Smooth displacements (1, 2, H, W), pixels (y, x): turning, nearing, shearing, waving.

    Parameters
    ----------
    rng : numpy.random.Generator
    height, width : int
    longest : float
        Largest displacement in pixels.
    """
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    kind = rng.random()
    if kind < 0.4:
        linear = np.array([[0.0, 1.0], [-1.0, 0.0]])
    elif kind < 0.6:
        linear = np.eye(2)
    else:
        linear = rng.normal(0, 1, (2, 2))
    shift = rng.normal(0, 0.5, 2)
    field = torch.stack(
        [
            float(row[0]) * y + float(row[1]) * x + float(offset)
            for row, offset in zip(linear, shift, strict=True)
        ]
    )
    if rng.random() < 0.4:
        waves = [haze.smooth_field(rng, height, width, 3, 1) - 0.5 for _ in range(2)]
        field = field * rng.uniform(0, 1) + 2 * torch.stack(waves)
    field = field * (longest / float(field.norm(dim=0).max().clamp(min=1e-6)))
    return field[None]


def blob(rng: np.random.Generator, height: int, width: int) -> torch.Tensor:
    """Outline (1, H, W) of something, in [0, 1] with an edge of a pixel or a few."""
    if rng.random() < 0.5:
        field = haze.smooth_field(rng, height, width, int(rng.integers(3, 7)), 2)
        level = float(field.flatten().quantile(rng.uniform(0.5, 0.9)))
        inside = (field - level) * min(height, width) / log_uniform(rng, 3, 10)
    else:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        center = rng.uniform(0.2, 0.8, 2) * (height, width)
        radii = np.array([log_uniform(rng, 0.06, 0.35) for _ in range(2)]) * min(height, width)
        turn = rng.uniform(0, np.pi)
        dy, dx = y - float(center[0]), x - float(center[1])
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / radii[0]
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / radii[1]
        inside = (1 - torch.hypot(u, v)) * float(radii.min())
    return (inside + 0.5).clamp(0, 1)[None].float()
