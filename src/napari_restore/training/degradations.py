"""Random degradations, one for each model: from a batch of sharp crops to (input, target).

Each takes crops that are ``margin`` pixels larger on every side than what it returns, so that
blur at the border comes from real pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.physics import camera, psf

from .blurs import log_uniform, nearly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .blurs import Blur, Blurred

    Kernel = NDArray[np.float32]


class Optics(NamedTuple):
    """What turns hazy images into clear ones, J = A + (I - A) g.

    Attributes
    ----------
    log_gain, airlight : Tensor
        Logarithm of g, and A; (N, C, S, S). Without haze the gain is 1 and the airlight any.
    known : Tensor
        (N, 1, 1, 1), 1 where they say all, 0 where a tone curve came after the haze.
    """

    log_gain: torch.Tensor
    airlight: torch.Tensor
    known: torch.Tensor


class Pair(NamedTuple):
    """A batch to learn from.

    Attributes
    ----------
    image, target : Tensor
        (N, C, S, S), degraded and as it ought to come back. Of two frames, the image holds the
        channels of both, (N, 2 C, S, S), and the target is the first.
    kernels : sequence of (ndarray or None)
        What blurred each image, None where no single kernel says it. Empty for haze.
    linear : sequence of bool
        Whether the kernel acted on light, before the tone curve of a camera; empty where there is
        no such curve.
    noise : Tensor or None
        (N, 1, 1, 1), standard deviation of what noise, rounding and compression added.
    told : Told or None
        What a network is told of the blur.
    """

    image: torch.Tensor
    target: torch.Tensor
    kernels: tuple[Kernel | None, ...] = ()
    linear: tuple[bool, ...] = ()
    optics: Optics | None = None
    motion: torch.Tensor | None = None
    exposure: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    told: Told | None = None


class Told(NamedTuple):
    """What a network is told of the blur: as well as it may be known, which is not quite.

    Attributes
    ----------
    psf : Tensor
        (N, k, k).
    noise : Tensor
        (N, 1, 1, 1), standard deviation.
    linear : Tensor
        (N, 1, 1, 1), whether the blur acted on light before the tone curve.
    """

    psf: torch.Tensor
    noise: torch.Tensor
    linear: torch.Tensor


class Degradation(Protocol):
    """From sharp crops (N, C, S + 2 margin, S + 2 margin) to a `Pair` of (N, C, S, S)."""

    margin: int

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch; ``generator`` is on the device of ``sharp``."""
        ...


def column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """One number for each image of a batch, ready to be multiplied with it."""
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1, 1)


def trim(image: torch.Tensor, margin: int) -> torch.Tensor:
    """Cut the margin off."""
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


def _keep_unblurred(
    image: torch.Tensor, sharp: torch.Tensor, still: Sequence[bool], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make pairs without blur identity pairs: half of them clean, half with their noise.

    What is noise in one image is texture in another (electron microscopy); where nothing is
    blurred there is nothing to restore, so nothing may be lost either.
    """
    target = sharp.clone()
    for index in range(len(image)):
        if still[index]:
            # Of two frames, the first alone.
            if rng.random() < 0.5:
                image[index, : sharp.shape[1]] = sharp[index]
            else:
                target[index] = image[index, : sharp.shape[1]]
    return image, target


def _pair(
    image: torch.Tensor,
    target: torch.Tensor,
    blurred: Blurred,
    margin: int,
    noise: torch.Tensor,
    linear: tuple[bool, ...] = (),
) -> Pair:
    motion = None if blurred.motion is None else trim(blurred.motion, margin)
    return Pair(
        image,
        target,
        blurred.kernels,
        linear,
        motion=motion,
        exposure=blurred.exposure,
        noise=noise,
    )


def _spread(difference: torch.Tensor) -> torch.Tensor:
    """Root mean square of each image, (N, 1, 1, 1)."""
    return difference.square().mean((1, 2, 3), keepdim=True).sqrt()


# ---------------------------------------------------------------- color: light through a camera


@dataclass
class ColorBlur:
    """Blur in linear light, shot and read noise, tone curve, rounding, sometimes JPEG.

    Attributes
    ----------
    blur : Blur
    margin : int
    photons : (float, float)
        Fewest and most that make the brightest pixel.
    read : (float, float)
        Least and most read noise, as a share of full scale.
    clean_share : float
        Of the images without noise.
    """

    blur: Blur
    margin: int
    photons: tuple[float, float] = (150, 3e4)
    read: tuple[float, float] = (3e-4, 1.5e-2)
    clean_share: float = 0.12

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        # Exposure changes keep the network from tying blur to brightness.
        exposure = column([rng.uniform(0.6, 1.15) for _ in range(count)], sharp)
        sharp = (sharp * exposure).clamp(0, 1)
        linear = column([float(rng.random() < 0.65) for _ in range(count)], sharp) > 0
        # Bright spots above the sensor's range leave saturated streaks.
        light = torch.where(linear, camera.to_linear(sharp), sharp)
        glow = column(
            [rng.uniform(1, 4) if rng.random() < 0.15 else 1.0 for _ in range(count)], sharp
        )
        light = torch.where(light > 0.97, light * glow, light)
        blurred = self.blur(light, rng)
        seen, sharp = trim(blurred.light, self.margin), trim(blurred.sharp, self.margin)
        sharp = torch.where(linear, camera.to_srgb(sharp), sharp.clamp(0, 1))
        noiseless = [rng.random() < self.clean_share for _ in range(count)]
        photons = [1e7 if skip else log_uniform(rng, *self.photons) for skip in noiseless]
        read = [0.0 if skip else log_uniform(rng, *self.read) for skip in noiseless]
        noisy = camera.add_noise(
            seen, column(photons, sharp), column(read, sharp), generator
        ).clamp(0, 1)
        image = camera.quantize(torch.where(linear, camera.to_srgb(noisy), noisy))
        for index in range(count):
            if rng.random() < 0.12:
                quality = int(rng.integers(60, 97))
                frames = [camera.jpeg(frame, quality) for frame in image[index].split(3)]
                image[index] = torch.cat(frames)
        clean = torch.where(linear, camera.to_srgb(seen), seen.clamp(0, 1))
        noise = _spread(image - clean)
        image, target = _keep_unblurred(image, sharp, blurred.still, rng)
        return _pair(image, target, blurred, self.margin, noise, tuple(linear.flatten().tolist()))


# ---------------------------------------------------------------- mono: linear detectors


@dataclass
class MonoBlur:
    """Blur, Poisson and Gaussian noise of a linear detector, then any gain and offset.

    Attributes
    ----------
    blur : Blur
    margin : int
    photons, read : (float, float)
        As for `ColorBlur`.
    """

    blur: Blur
    margin: int
    photons: tuple[float, float] = (25, 2e4)
    read: tuple[float, float] = (5e-4, 3e-2)

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        sharp = _random_polarity(sharp, rng)
        blurred = self.blur(sharp, rng)
        seen, sharp = trim(blurred.light, self.margin), trim(blurred.sharp, self.margin)
        noiseless = [rng.random() < 0.12 for _ in range(count)]
        photons = [1e7 if skip else log_uniform(rng, *self.photons) for skip in noiseless]
        read = [0.0 if skip else log_uniform(rng, *self.read) for skip in noiseless]
        image = camera.add_noise(seen, column(photons, seen), column(read, seen), generator)
        for index in range(count):
            if rng.random() < 0.4:
                image[index] = camera.quantize(image[index])
        noise = _spread(image - seen)
        image, target = _keep_unblurred(image, sharp, blurred.still, rng)
        # Intensities mean nothing in themselves; the same gain and offset hold for both sides.
        gain = column([log_uniform(rng, 0.6, 1.6) for _ in range(count)], image)
        offset = column([rng.normal(0, 0.06) for _ in range(count)], image)
        image, target = image * gain + offset, target * gain + offset
        return _pair(image, target, blurred, self.margin, noise * gain)


def _random_polarity(sharp: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Invert one image in ten: bright-field and electron microscopy have dark structures."""
    for index in range(len(sharp)):
        if rng.random() < 0.1:
            sharp[index] = sharp[index].amax() - sharp[index]
    return sharp


# ---------------------------------------------------------------- noise alone

#: Standard deviation of noise that is worth removing, least and most, as a share of full scale.
NOISE = (2 / 255, 55 / 255)


@dataclass
class ColorNoise:
    """Noise of a camera, in linear light or on the samples as they are; rounding, sometimes JPEG.

    Nothing is blurred: what comes back is what the noise was added to.

    Attributes
    ----------
    margin : int
    identity_share : float
        Of the images that come back as they were.
    sigmas : (float, float)
        Least and largest standard deviation, as a share of full scale.
    """

    margin: int = 0
    identity_share: float = 0.12
    sigmas: tuple[float, float] = NOISE

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        exposure = column([rng.uniform(0.4, 1.15) for _ in range(count)], sharp)
        sharp = (sharp * exposure).clamp(0, 1)
        # Of a camera, or Gaussian on what is shown, as denoisers are compared.
        linear = column([float(rng.random() < 0.5) for _ in range(count)], sharp) > 0
        light = torch.where(linear, camera.to_linear(sharp), sharp)
        middle = light.mean((1, 2, 3), keepdim=True).clamp(min=0.02)
        # Noise of the light is as strong on the screen as elsewhere: the tone curve raises it.
        curve = (camera.to_srgb(middle + 1e-3) - camera.to_srgb(middle - 1e-3)) / 2e-3
        sigma = column(_random_sigmas(count, rng, self.identity_share, self.sigmas), light)
        noisy = _with_noise(light, torch.where(linear, sigma / curve, sigma), rng, generator)
        image = camera.quantize(torch.where(linear, camera.to_srgb(noisy), noisy))
        for index in range(count):
            if rng.random() < 0.1:
                image[index] = camera.jpeg(image[index], int(rng.integers(70, 97)))
        image = torch.where(sigma > 0, image, sharp)
        return Pair(image, sharp, noise=_spread(image - sharp))


@dataclass
class MonoNoise:
    """Poisson and Gaussian noise of a linear detector, then any gain and offset.

    Attributes
    ----------
    margin : int
    identity_share : float
        Of the images that come back as they were.
    sigmas : (float, float)
        As for `ColorNoise`.
    """

    margin: int = 0
    identity_share: float = 0.12
    sigmas: tuple[float, float] = NOISE

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        sharp = _random_polarity(sharp, rng)
        sigma = column(_random_sigmas(count, rng, self.identity_share, self.sigmas), sharp)
        image = _with_noise(sharp, sigma, rng, generator)
        for index in range(count):
            kind = rng.random()
            if kind < 0.25:
                image[index] = camera.quantize(image[index])
            elif kind < 0.5:
                # Detectors add an offset, so that noise is not cut off at black.
                image[index] = (image[index] * 255).round() / 255
        image = torch.where(sigma > 0, image, sharp)
        noise = _spread(image - sharp)
        gain = column([log_uniform(rng, 0.6, 1.6) for _ in range(count)], image)
        offset = column([rng.normal(0, 0.06) for _ in range(count)], image)
        return Pair(image * gain + offset, sharp * gain + offset, noise=noise * gain)


def _random_sigmas(
    count: int, rng: np.random.Generator, without: float, between: tuple[float, float]
) -> list[float]:
    """Draw standard deviations of noise, 0 for a share of them."""
    return [0.0 if rng.random() < without else log_uniform(rng, *between) for _ in range(count)]


def _with_noise(
    light: torch.Tensor, sigma: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
) -> torch.Tensor:
    """Add a mixture of shot and read noise.

    Parameters
    ----------
    light : Tensor
        (N, C, H, W), 1 is full scale.
    sigma : Tensor
        (N, 1, 1, 1), standard deviation of both together at the mean of each image,
        or at 0.15 where it is darker.
    """
    count = len(light)
    # A third has read noise alone.
    shot = [0.0 if rng.random() < 0.33 else rng.uniform(0, 1) for _ in range(count)]
    share = column(shot, light)
    middle = light.mean((1, 2, 3), keepdim=True).clamp(min=0.15)
    photons = (middle / (share * sigma**2).clamp(min=1e-9)).clamp(max=1e7)
    noise = camera.add_noise(light, photons, sigma * (1 - share).sqrt(), generator) - light
    for index in range(count):
        if rng.random() < 0.15:
            # Resampling, demosaicing and scanning make neighbors alike.
            kernel = torch.from_numpy(psf.gaussian(rng.uniform(0.35, 0.9))).to(noise)
            correlated = F.conv2d(noise[index, :, None], kernel[None, None], padding="same")
            noise[index] = correlated[:, 0] / kernel.square().sum().sqrt()
    return light + noise


# ---------------------------------------------------------------- blur that is known


@dataclass
class KnownBlur:
    """A blur by one kernel for each image, and what a network is told of it.

    Attributes
    ----------
    blur : ColorBlur or MonoBlur
    """

    blur: ColorBlur | MonoBlur

    def __post_init__(self) -> None:
        self.margin = self.blur.margin

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch."""
        pair = self.blur(sharp, rng, generator)
        count = len(pair.image)
        known = [kernel for kernel in pair.kernels if kernel is not None]
        assert pair.noise is not None and len(known) == count, "one kernel for each image"
        kernels = psf.stack([nearly(kernel, rng) for kernel in known])
        # Estimates of noise from images are better than by half, seldom by a fifth.
        off = column([float(np.exp(rng.normal(0, 0.2))) for _ in range(count)], pair.image)
        linear = [bool(curve) ^ (rng.random() < 0.1) for curve in pair.linear] or [False] * count
        told = Told(kernels.to(sharp.device), pair.noise * off, column(linear, pair.image) > 0)
        return pair._replace(told=told)
