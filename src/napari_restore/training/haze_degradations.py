"""Random haze: light of the air, and light of planes out of focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.physics import camera, haze

from .blurs import log_uniform
from .degradations import Optics, Pair, column, trim


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
    # Of what is left as it is: with noise in the image alone, whose absence must not give it away.
    noisy_share: float = 0.5

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
            share = column([rng.uniform(0, 2.0) for _ in range(count)], sharp)
            light += share * haze.out_of_focus(other, sigmas)
        fields = torch.stack(
            [haze.smooth_field(rng, height, width, 2, 2) for _ in range(count)]
        ).to(sharp.device)[:, None]
        background = column([rng.uniform(0, 0.5) for _ in range(count)], sharp)
        signal = column([rng.uniform(0.2, 1.0) for _ in range(count)], sharp)
        target = sharp * signal
        image = target + (light + background * fields) * rng.uniform(0.3, 1)
        photons = column([log_uniform(rng, 50, 2e4) for _ in range(count)], sharp)
        read = column([log_uniform(rng, 5e-4, 2e-2) for _ in range(count)], sharp)
        low, high = _quantile(image, 0.005), _quantile(image, 0.999)
        span = (high - low).clamp(min=0.02)
        image = camera.add_noise((image - low) / span, photons, read, generator)
        target = target / span
        for index in range(count):
            chance = self.dense_identity_share if dense[index] else self.identity_share
            if rng.random() < chance:
                target[index] = sharp[index] * log_uniform(rng, 0.8, 1.4)
                image[index] = target[index]
                if rng.random() < self.noisy_share:
                    image[index] = camera.add_noise(
                        target[index], photons[index], read[index], generator
                    )
        return Pair(trim(image, self.margin), trim(target, self.margin))


def _quantile(image: torch.Tensor, share: float) -> torch.Tensor:
    return image.flatten(1).quantile(share, dim=1).view(-1, 1, 1, 1)


# ---------------------------------------------------------------- haze in air


@dataclass
class Haze:
    """Atmospheric scattering in scenes: depth, smoke, colored and uneven airlight, a camera."""

    margin: int = 0
    identity_share: float = 0.1
    # Slides on white look like haze, and most often there is none.
    pale: float = 0.4
    pale_identity_share: float = 0.5
    # Haze so thin that taking too much of it is worse than taking none.
    thin_share: float = 0.2
    # Edges of the haze that are not those of the scene: what lies far need not look different.
    foreign_share: float = 0.25
    jpeg_share: float = 0.3

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch of crops in [0, 1]."""
        count = len(sharp)
        sharp = torch.stack([_develop(image, rng) for image in sharp])
        pale = (_darkest(sharp).mean(dim=(1, 2, 3)) > self.pale).tolist()
        # Scattering adds light; many published pairs add values after the tone curve instead.
        linear = column([float(rng.random() < 0.4) for _ in range(count)], sharp) > 0
        light = torch.where(linear, camera.to_linear(sharp), sharp)
        others = sharp.roll(1, 0)
        optics = [
            _optics(other if rng.random() < self.foreign_share else image, rng, self.thin_share)
            for image, other in zip(sharp, others, strict=True)
        ]
        transmission = torch.stack([t for t, _ in optics]).to(sharp.device)
        airlight = torch.stack([a for _, a in optics]).to(sharp.device)
        airlight = torch.where(linear, camera.to_linear(airlight), airlight)
        hazy = haze.add_haze(light, transmission, airlight)
        hazy = torch.where(linear, camera.to_srgb(hazy), hazy)
        # Cameras expose haze for its brightness.
        drawn = [rng.uniform(0.85, 1.1) if rng.random() < 0.4 else 1.0 for _ in range(count)]
        exposure = column(drawn, sharp)
        # I = e (J t + A (1 - t)) seen as haze without exposure.
        seen = (transmission * exposure).clamp(max=0.98)
        log_gain = -seen.log()
        airlight = airlight * exposure * (1 - transmission) / (1 - seen)
        read = column([log_uniform(rng, 3e-4, 1e-2) for _ in range(count)], sharp)
        hazy = camera.add_noise(hazy * exposure, 1e5, read, generator)
        hazy = camera.quantize(hazy)
        for index in range(count):
            if rng.random() < (self.pale_identity_share if pale[index] else self.identity_share):
                hazy[index] = sharp[index]
                log_gain[index] = 0
                linear[index] = False
            if rng.random() < self.jpeg_share:
                hazy[index] = camera.jpeg(hazy[index], int(rng.integers(50, 97)))
        return Pair(hazy, sharp, optics=Optics(log_gain, airlight, 1 - linear.float()))


def _darkest(image: torch.Tensor) -> torch.Tensor:
    """Dark channel of a batch (N, 3, H, W): the least of the colors within 5 pixels."""
    return -F.max_pool2d(-image.amin(1, keepdim=True), 11, 1, 5)


def _develop(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Develop a photograph (3, H, W) a little differently: there are fewer scenes than cameras."""
    if rng.random() < 0.15:
        # Out of focus is not haze.
        image = haze.out_of_focus(image[None], [log_uniform(rng, 0.5, 3)])[0]
    if rng.random() < 0.3:
        return image
    balance = torch.from_numpy(np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)).to(image.device)
    image = (image * balance.view(3, 1, 1)).clamp(0, 1) ** float(np.exp(rng.normal(0, 0.18)))
    gray = image.mean(0, keepdim=True)
    return (gray + (image - gray) * rng.uniform(0.6, 1.25)).clamp(0, 1)


def _optics(
    scene: torch.Tensor, rng: np.random.Generator, thin_share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Transmission and airlight, each (3, H, W) on the CPU; their edges are those of a scene."""
    height, width = scene.shape[-2:]
    # Optical thickness of the nearest place, and what the farthest has more.
    near, depth = rng.uniform(0.0, 0.8), rng.uniform(0.1, 2.0)
    thin = rng.random() < thin_share
    if thin:
        near, depth = rng.uniform(0.02, 0.15), rng.uniform(0.0, 0.4)
    thickness = near + depth * _depth(scene, rng)
    if not thin and rng.random() < 0.3:
        # Smoke: plumes where a smooth field rises above a level.
        field = haze.smooth_field(rng, height, width, int(rng.integers(2, 5)), 4)
        level = rng.uniform(0.2, 0.6)
        thickness = thickness * rng.uniform(0.2, 1) + rng.uniform(0.5, 2.5) * (
            (field - level).clamp(min=0) / (1 - level)
        )
    # Fine particles scatter blue light more than red.
    tilt = float(rng.normal(0, 0.06))
    gray = rng.uniform(0.4, 0.65) if rng.random() < 0.15 else rng.uniform(0.65, 1.0)
    tint = 0.02 if rng.random() < 0.7 else 0.06
    color = (gray + rng.normal(0, tint, 3)).clip(0.1, 1.0).astype(np.float32)
    if rng.random() < 0.04:
        # Water: red light is lost on the way, and what is scattered is green or blue.
        tilt = -rng.uniform(0.1, 0.4)
        color = np.array([0.1, rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.8)], np.float32)
    transmission = torch.stack([torch.exp(-thickness * (1 + tilt * k)) for k in (-1, 0, 1)])
    airlight = torch.from_numpy(color).view(3, 1, 1).expand(3, height, width)
    if rng.random() < 0.4:
        # Lamps, and the sun on one side.
        airlight = airlight * (0.75 + 0.25 * haze.smooth_field(rng, height, width, 2, 1))
    return transmission.clamp(min=0.08), airlight


def _depth(sharp: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Depth (H, W) in [0, 1], roughly: even, a plane, smooth, or in steps along edges."""
    height, width = sharp.shape[-2:]
    if rng.random() < 0.15:
        return torch.full((height, width), float(rng.random()))
    parts = [
        haze.ramp(rng, height, width),
        haze.smooth_field(rng, height, width, int(rng.integers(2, 5)), 3),
    ]
    if rng.random() < 0.6:
        count = int(rng.integers(4, 40))
        parts.append(haze.patches(rng, sharp, count, log_uniform(rng, 0.2, 2)))
    if rng.random() < 0.25:
        # Far places are bright more often than not; see the sky.
        gray = F.avg_pool2d(sharp.mean(0)[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
        parts.append(gray.cpu())
    weights = rng.dirichlet(np.full(len(parts), 0.6))
    depth = sum(float(w) * part for w, part in zip(weights, parts, strict=True))
    assert isinstance(depth, torch.Tensor)
    return (depth - depth.min()) / (depth.max() - depth.min()).clamp(min=1e-3)
