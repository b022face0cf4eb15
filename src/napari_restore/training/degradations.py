"""Random degradations, one for each model: from a batch of sharp crops to (input, target).

Each takes crops that are ``margin`` pixels larger on every side than what it returns, so that
blur at the border comes from real pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.physics import camera, haze, motion, psf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pair = tuple[torch.Tensor, torch.Tensor]

IDENTITY_SHARE = 0.1


class Degradation(Protocol):
    """From sharp crops (N, C, S + 2 margin, S + 2 margin) to (input, target), (N, C, S, S)."""

    margin: int

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch; ``generator`` is on the device of ``sharp``."""
        ...


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from [low, high], evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1, 1)


def _trim(image: torch.Tensor, margin: int) -> torch.Tensor:
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


# ---------------------------------------------------------------- kernels


def random_defocus(rng: np.random.Generator, reach: float = 1.0) -> NDArray[np.float32]:
    """Kernel of a lens out of focus: disk, Gaussian, or pupil with aberrations.

    ``reach`` scales the largest blur, so that training can begin with easier ones.
    """
    kind = rng.random()
    if kind < 0.4:
        return psf.disk(rng.uniform(0.5, 5.5 * reach))
    if kind < 0.8:
        sigma = rng.uniform(0.4, 3.3 * reach)
        ratio = 1.0 if rng.random() < 0.7 else rng.uniform(0.6, 1.0)
        return psf.gaussian(sigma, sigma * ratio, rng.uniform(0, np.pi))
    names = ["defocus", *rng.choice(psf.ABERRATIONS[1:], 2, replace=False)]
    strength = rng.uniform(0.1, 1.3 * reach)
    coefficients = {name: rng.normal(0, strength) for name in names}
    kernel = psf.pupil(log_uniform(rng, 0.12, 0.6), coefficients, half=12)
    if rng.random() < 0.3:
        kernel = psf.combine(kernel, psf.gaussian(rng.uniform(0.3, 1.2)))
    return kernel


def random_motion(rng: np.random.Generator, reach: float = 1.0) -> NDArray[np.float32]:
    """Kernel of a shaken camera, or of straight motion (45 %), 1 to 26 pixels long."""
    length = rng.uniform(1, 26 * reach)
    if rng.random() < 0.45:
        kernel = motion.kernel(motion.line(length, rng.uniform(0, np.pi)))
    else:
        jerk = 0.0 if rng.random() < 0.4 else rng.uniform(0.005, 0.06)
        kernel = motion.kernel(motion.shake(rng, 0.8 * length, jerk=jerk))
    if rng.random() < 0.3:
        kernel = psf.combine(kernel, psf.gaussian(rng.uniform(0.3, 0.9)))
    return kernel


# ---------------------------------------------------------------- colour: light through a camera


@dataclass
class ColourBlur:
    """Blur in linear light, shot and read noise, tone curve, rounding, sometimes JPEG."""

    kernel: Callable[[np.random.Generator], NDArray[np.float32]]
    margin: int
    rotation_share: float = 0.0

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        # Exposure changes keep the network from tying blur to brightness.
        exposure = _column([rng.uniform(0.6, 1.15) for _ in range(count)], sharp)
        sharp = (sharp * exposure).clamp(0, 1)
        linear = _column([float(rng.random() < 0.65) for _ in range(count)], sharp) > 0
        # Bright spots above the sensor's range leave saturated streaks.
        light = torch.where(linear, camera.to_linear(sharp), sharp)
        glow = _column(
            [rng.uniform(1, 4) if rng.random() < 0.15 else 1.0 for _ in range(count)], sharp
        )
        light = torch.where(light > 0.97, light * glow, light)
        kernels = [self.kernel(rng) for _ in range(count)]
        blurred = psf.convolve(light, psf.stack(kernels))
        for index in range(count):
            if rng.random() < self.rotation_share:
                blurred[index] = self._rotate(light[index], rng)
        blurred, sharp = _trim(blurred, self.margin), _trim(sharp, self.margin)
        clean = [rng.random() < 0.12 for _ in range(count)]
        photons = [1e7 if skip else log_uniform(rng, 150, 3e4) for skip in clean]
        read = [0.0 if skip else log_uniform(rng, 3e-4, 1.5e-2) for skip in clean]
        noisy = camera.add_noise(
            blurred, _column(photons, sharp), _column(read, sharp), generator
        ).clamp(0, 1)
        image = camera.quantise(torch.where(linear, camera.to_srgb(noisy), noisy))
        for index in range(count):
            chance = rng.random()
            if chance < IDENTITY_SHARE:
                image[index] = sharp[index]
            elif chance < IDENTITY_SHARE + 0.12:
                image[index] = camera.jpeg(image[index], int(rng.integers(60, 97)))
        return image, sharp

    @staticmethod
    def _rotate(light: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        size = light.shape[-1]
        sweep = rng.uniform(1, 20) / (0.35 * size)
        path = motion.line(rng.uniform(0, 10), rng.uniform(0, np.pi), samples=20)
        angles = np.linspace(-sweep / 2, sweep / 2, len(path))
        return motion.rigid_blur(light, path, angles)


# ---------------------------------------------------------------- mono: linear detectors


@dataclass
class MonoBlur:
    """Blur, Poisson and Gaussian noise of a linear detector, then any gain and offset."""

    kernel: Callable[[np.random.Generator], NDArray[np.float32]]
    margin: int

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        sharp = _random_polarity(sharp, rng)
        blurred = psf.convolve(sharp, psf.stack([self.kernel(rng) for _ in range(len(sharp))]))
        return _detect(_trim(blurred, self.margin), _trim(sharp, self.margin), rng, generator)


def _random_polarity(sharp: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Invert one image in ten: bright-field and electron microscopy have dark structures."""
    for index in range(len(sharp)):
        if rng.random() < 0.1:
            sharp[index] = sharp[index].amax() - sharp[index]
    return sharp


def _detect(
    image: torch.Tensor, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
) -> Pair:
    count = len(image)
    clean = [rng.random() < 0.12 for _ in range(count)]
    photons = [1e7 if skip else log_uniform(rng, 25, 2e4) for skip in clean]
    read = [0.0 if skip else log_uniform(rng, 5e-4, 3e-2) for skip in clean]
    noisy = camera.add_noise(image, _column(photons, image), _column(read, image), generator)
    for index in range(count):
        if rng.random() < IDENTITY_SHARE:
            noisy[index] = sharp[index]
        elif rng.random() < 0.4:
            noisy[index] = camera.quantise(noisy[index])
    # Intensities mean nothing in themselves; the same gain and offset hold for both sides.
    gain = _column([log_uniform(rng, 0.6, 1.6) for _ in range(count)], image)
    offset = _column([rng.normal(0, 0.06) for _ in range(count)], image)
    return noisy * gain + offset, sharp * gain + offset


@dataclass
class OutOfFocusLight:
    """In-focus structure under light from other planes, background, uneven illumination.

    A constant offset cannot be told from the image, so it is not learned: both sides are scaled by
    the percentiles of the degraded image, as at inference, with the darkest structure at 0.
    """

    margin: int = 32
    identity_share: float = 0.15
    # Structure that fills the image, as in electron microscopy, has no dark background that light
    # from other planes could fill: such images mostly teach what to leave alone.
    dense: float = 0.3
    dense_identity_share: float = 0.7

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count, _, height, width = sharp.shape
        sharp = (sharp - _quantile(sharp, 0.005)).clamp(min=0)
        dense = (_quantile(sharp, 0.5) > self.dense).flatten().tolist()
        light = torch.zeros_like(sharp)
        for shift in range(2):
            sigmas = [log_uniform(rng, 5, 60) for _ in range(int(rng.integers(1, 4)))]
            other = sharp.roll(shift, 0)
            if shift:
                other = other.flip(int(rng.integers(2, 4)))
            share = _column([rng.uniform(0, 2.0) for _ in range(count)], sharp)
            light += share * haze.out_of_focus(other, sigmas)
        fields = torch.stack(
            [haze.smooth_field(rng, height, width, 2, 2) for _ in range(count)]
        ).to(sharp.device)[:, None]
        background = _column([rng.uniform(0, 0.5) for _ in range(count)], sharp)
        signal = _column([rng.uniform(0.2, 1.0) for _ in range(count)], sharp)
        target = sharp * signal
        image = target + (light + background * fields) * rng.uniform(0.3, 1)
        photons = _column([log_uniform(rng, 50, 2e4) for _ in range(count)], sharp)
        read = _column([log_uniform(rng, 5e-4, 2e-2) for _ in range(count)], sharp)
        low, high = _quantile(image, 0.005), _quantile(image, 0.999)
        span = (high - low).clamp(min=0.02)
        image = camera.add_noise((image - low) / span, photons, read, generator)
        target = target / span
        for index in range(count):
            chance = self.dense_identity_share if dense[index] else self.identity_share
            if rng.random() < chance:
                image[index] = target[index] = sharp[index] * log_uniform(rng, 0.8, 1.4)
        return _trim(image, self.margin), _trim(target, self.margin)


def _quantile(image: torch.Tensor, share: float) -> torch.Tensor:
    return image.flatten(1).quantile(share, dim=1).view(-1, 1, 1, 1)


# ---------------------------------------------------------------- haze in air


@dataclass
class Haze:
    """Atmospheric scattering with smooth and structured transmission, coloured airlight, noise."""

    margin: int = 0
    identity_share: float = 0.25

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count, _, height, width = sharp.shape
        fields, airlights = [], []
        for index in range(count):
            depth = self._depth(sharp[index], rng)
            # Optical thickness of the thinnest and the thickest place.
            near = rng.uniform(0.0, 0.7)
            far = near + rng.uniform(0.1, 2.2)
            fields.append(torch.exp(-(near + (far - near) * depth)))
            grey = rng.uniform(0.55, 1.0)
            tint = rng.normal(0, 0.04, 3)
            colour = torch.tensor((grey + tint).clip(0.3, 1.0).astype(np.float32)).view(3, 1, 1)
            if rng.random() < 0.3:
                colour = colour * (0.8 + 0.2 * haze.smooth_field(rng, height, width, 2, 1))
            airlights.append(colour.expand(3, height, width))
        transmission = torch.stack(fields).to(sharp.device)[:, None]
        hazy = haze.add_haze(sharp, transmission, torch.stack(airlights).to(sharp.device))
        read = _column([log_uniform(rng, 1e-3, 1.5e-2) for _ in range(count)], sharp)
        hazy = camera.quantise(camera.add_noise(hazy, 1e5, read, generator))
        for index in range(count):
            if rng.random() < self.identity_share:
                hazy[index] = sharp[index]
        return hazy, sharp

    @staticmethod
    def _depth(sharp: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        height, width = sharp.shape[-2:]
        kind = rng.random()
        if kind < 0.25:
            return torch.full((height, width), float(rng.random()))
        if kind < 0.55:
            return haze.ramp(rng, height, width)
        field = haze.smooth_field(rng, height, width, int(rng.integers(2, 5)), 3)
        if kind < 0.75:
            return 0.5 * field + 0.5 * haze.ramp(rng, height, width)
        if kind < 0.9:
            return field
        # Steps that follow the image's own edges, as depth does: smoothed brightness.
        grey = F.avg_pool2d(sharp.mean(0)[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
        grey = (grey - grey.min()) / (grey.max() - grey.min()).clamp(min=1e-3)
        return (0.6 * grey.cpu() + 0.4 * field).clamp(0, 1)
