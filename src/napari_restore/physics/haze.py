"""Light that does not belong to the image: scattering in air, and planes out of focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from . import psf

if TYPE_CHECKING:
    from collections.abc import Sequence


def smooth_field(
    rng: np.random.Generator, height: int, width: int, coarsest: int = 3, octaves: int = 3
) -> torch.Tensor:
    """Random smooth field (H, W) in [0, 1] made of a few octaves of interpolated noise."""
    field = torch.zeros(1, 1, height, width)
    cells = coarsest
    for octave in range(octaves):
        noise = torch.from_numpy(rng.normal(size=(1, 1, cells, cells)).astype(np.float32))
        field += (
            F.interpolate(noise, (height, width), mode="bicubic", align_corners=True) * 0.5**octave
        )
        cells *= 2
    field = field[0, 0] - field.min()
    return field / field.max().clamp(min=1e-6)


def ramp(rng: np.random.Generator, height: int, width: int) -> torch.Tensor:
    """Plane seen in perspective (H, W) in [0, 1]: depth that grows across the image."""
    angle = rng.normal(0, 0.4) + (np.pi / 2 if rng.random() < 0.8 else rng.uniform(0, 2 * np.pi))
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    depth = x * np.cos(angle) - y * np.sin(angle)
    depth = (depth - depth.min()) / np.ptp(depth)
    return torch.from_numpy((depth ** rng.uniform(0.5, 3)).astype(np.float32))


def patches(
    rng: np.random.Generator, image: torch.Tensor, count: int, compactness: float
) -> torch.Tensor:
    """Patchwork (H, W) in [0, 1] whose edges follow those of an image, as depth does.

    Every pixel takes the value of the nearest of ``count`` seeds, nearest in place and in color.

    Parameters
    ----------
    image : Tensor
        (C, H, W) in [0, 1].
    count : int
    compactness : float
        Difference of color that counts as much as the whole width of the image.
    """
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    features = torch.cat([y[None], x[None], image.cpu() / compactness]).flatten(1).T
    seeds = torch.from_numpy(rng.integers(0, height * width, count))
    nearest = torch.cdist(features, features[seeds]).argmin(1)
    values = torch.from_numpy(rng.random(count).astype(np.float32))
    return values[nearest].view(height, width)


def add_haze(
    image: torch.Tensor, transmission: torch.Tensor, airlight: torch.Tensor
) -> torch.Tensor:
    """Atmospheric scattering I = J t + A (1 - t) (Koschmieder 1924).

    Parameters
    ----------
    image, airlight : Tensor
        Broadcastable to (..., 3, H, W), in [0, 1].
    transmission : Tensor
        Broadcastable to the same, 1 is clear air.
    """
    return image * transmission + airlight * (1 - transmission)


def out_of_focus(light: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Mean of Gaussian-blurred copies of a batch (N, C, H, W): light of planes far from focus.

    The blur is computed on a copy shrunk to where the smallest sigma is still 2 pixels, which
    changes nothing visible and costs a fraction.

    Parameters
    ----------
    sigmas : sequence of float
        Standard deviations in pixels, one for each plane.
    """
    height, width = light.shape[-2:]
    total = torch.zeros_like(light)
    for sigma in sigmas:
        shrink = max(1, int(sigma / 2.5))
        small = F.interpolate(
            light, (max(1, height // shrink), max(1, width // shrink)), mode="area"
        )
        kernel = psf.stack([psf.gaussian(sigma / shrink)])
        blurred = psf.convolve(small, kernel)
        total += F.interpolate(blurred, (height, width), mode="bicubic", align_corners=False)
    return total / len(sigmas)
