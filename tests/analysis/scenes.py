"""Images with edges, and an inverse that needs no trained network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.analysis.find import Tools
from napari_restore.physics import psf


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Overlapping rectangles and disks of many sizes: every edge is sharp."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 0.5, np.float32)
    y, x = np.mgrid[:height, :width]
    for _ in range(height * width // 120):
        cy, cx, size = rng.uniform(0, height), rng.uniform(0, width), 2 + 12 * rng.random() ** 3
        ratio = rng.uniform(0.4, 1)
        top, left = int(max(0, cy - 18)), int(max(0, cx - 18))
        part = np.s_[top : top + 36, left : left + 36]
        dy, dx = np.abs(y[part] - cy), np.abs(x[part] - cx) / ratio
        inside = np.maximum(dy, dx) < size if rng.random() < 0.5 else np.hypot(dy, dx) < size
        image[part][inside] = rng.uniform(0.05, 0.95)
    return image


def blurred(image: np.ndarray, kernel: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """Convolve and add noise."""
    seen = psf.convolve(torch.from_numpy(image)[None, None], psf.stack([kernel]))[0, 0].numpy()
    rng = np.random.default_rng(seed)
    return (seen + rng.normal(0, noise, seen.shape)).astype(np.float32)


def inverse(image: torch.Tensor, kernels: torch.Tensor, noise: float, linear: bool) -> torch.Tensor:
    """Half-quadratic splitting with few gradients: rings little where edges are sharp."""
    return torch.cat([_inverse(image, kernel, noise) for kernel in kernels])


def _inverse(image: torch.Tensor, kernel: torch.Tensor, noise: float) -> torch.Tensor:
    height, width = image.shape[-2:]
    margin = kernel.shape[-1]
    wide = F.pad(image, (margin,) * 4, mode="reflect")
    size = wide.shape[-2:]
    frame = torch.zeros(size)
    frame[:margin, :margin] = kernel
    transfer = torch.fft.rfft2(frame.roll((-(margin // 2), -(margin // 2)), (0, 1)))
    fy, fx = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    gradient = 4 * (torch.sin(torch.pi * fy) ** 2 + torch.sin(torch.pi * fx) ** 2)
    data, power = transfer.conj() * torch.fft.rfft2(wide), transfer.abs().square()
    weight, restored = max(noise, 1e-3) * 0.05, wide
    coupling = 10 * weight
    for _ in range(9):
        changes = [restored.roll(-1, axis) - restored for axis in (-2, -1)]
        kept = [F.softshrink(change, weight / coupling) for change in changes]
        back = sum(part.roll(1, axis) - part for part, axis in zip(kept, (-2, -1), strict=True))
        spectrum = data + coupling * torch.fft.rfft2(back)
        restored = torch.fft.irfft2(spectrum / (power + coupling * gradient + 1e-8), s=size)
        coupling *= 2
    return restored[..., margin : margin + height, margin : margin + width]


def tools_saying(sigma: float, unsure: float = 0.1, **further) -> Tools:
    """Tools whose estimator says a size, and how unsure it is."""
    return Tools(inverse, lambda samples: (sigma, unsure), **further)
