"""Random haze: light of the air, and light of planes out of focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.physics import camera, haze

from .degradations import Pair, column, trim
from .kernels import log_uniform


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
                image[index] = target[index] = sharp[index] * log_uniform(rng, 0.8, 1.4)
        return Pair(trim(image, self.margin), trim(target, self.margin))


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
        read = column([log_uniform(rng, 1e-3, 1.5e-2) for _ in range(count)], sharp)
        hazy = camera.quantise(camera.add_noise(hazy, 1e5, read, generator))
        for index in range(count):
            if rng.random() < self.identity_share:
                hazy[index] = sharp[index]
        return Pair(hazy, sharp)

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
