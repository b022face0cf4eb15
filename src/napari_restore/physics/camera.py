"""What a camera does to light: tone curve, noise, saturation, rounding, JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch


def to_linear(image: torch.Tensor) -> torch.Tensor:
    """Undo the sRGB tone curve; values in [0, 1] (IEC 61966-2-1)."""
    image = image.clamp(0, 1)
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(light: torch.Tensor) -> torch.Tensor:
    """Apply the sRGB tone curve; values are clipped to [0, 1] (IEC 61966-2-1)."""
    light = light.clamp(0, 1)
    curve = 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curve)


def add_noise(
    light: torch.Tensor,
    photons: torch.Tensor | float,
    read_noise: torch.Tensor | float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Add shot noise and read noise.

    Parameters
    ----------
    light : Tensor
        Linear signal, 1 is full scale.
    photons : float or Tensor
        Photons counted at full scale; broadcasts to ``light``.
    read_noise : float or Tensor
        Standard deviation as a share of full scale.
    generator : torch.Generator
        On the device of ``light``.

    Notes
    -----
    Above 20 photons the Poisson law is close to a normal one of equal mean and variance, which
    is many times cheaper to draw; below, it is drawn as it is.
    """
    photons = torch.as_tensor(photons, device=light.device, dtype=light.dtype)
    counts = light.clamp(min=0) * photons
    unit = torch.empty_like(light).normal_(generator=generator)
    shot = counts + counts.sqrt() * unit
    if bool((photons.min() < 100).item()):
        shot = torch.where(counts < 20, torch.poisson(counts, generator=generator), shot)
    unit = torch.empty_like(light).normal_(generator=generator)
    return shot / photons + light.clamp(max=0) + unit * read_noise


def quantize(image: torch.Tensor, levels: int = 255) -> torch.Tensor:
    """Clip to [0, 1] and round to ``levels`` steps."""
    return (image.clamp(0, 1) * levels).round() / levels


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress and decompress one color image (3, H, W) in [0, 1]."""
    from PIL import Image

    pixels = (image.detach().cpu().permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality)
    decoded = np.array(Image.open(buffer), np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image.device)
