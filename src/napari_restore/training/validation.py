"""Figures of a network on images that it does not learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from napari_restore.physics.psf import equivalent_sigma

from .data import as_scene, centre_crop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .data import SharpImage
    from .degradations import Degradation

    Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]

_SIZE = 256
#: Pairs nearer than this, in dB, are identity pairs; those are measured apart.
_UNTOUCHED = 45


def psnr(result: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a range of 1."""
    return float(-10 * torch.log10(((result - target) ** 2).mean().clamp(min=1e-10)))


def generators(device: torch.device, *seed: int) -> tuple[np.random.Generator, torch.Generator]:
    """Random numbers for the draw of a degradation and for its noise."""
    rng = np.random.default_rng(seed)
    return rng, torch.Generator(device).manual_seed(int(rng.integers(2**31)))


def log_sigmas(kernels: Sequence[NDArray[np.float32] | None]) -> torch.Tensor:
    """Find what a gauge has to find for each kernel, (N, 1); NaN where there is none."""
    return torch.tensor(
        [[math.nan if k is None else math.log(equivalent_sigma(k))] for k in kernels]
    )


class ValidationPair(NamedTuple):
    """One degraded image, how it ought to come back, and the same undegraded; (1, C, S, S)."""

    degraded: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    log_sigma: float


class Validation:
    """A fixed set of degraded images.

    Parameters
    ----------
    images : sequence of SharpImage
    degradation : Degradation
    device : torch.device
    scenes : sequence of int
        The first is the length of the shorter side that images are shrunk to; empty for none.
    """

    def __init__(
        self,
        images: Sequence[SharpImage],
        degradation: Degradation,
        device: torch.device,
        scenes: Sequence[int] = (),
    ) -> None:
        if scenes:
            images = [as_scene(image, scenes[0]) for image in images]
        self.pairs = [_pair(image, i, degradation, device) for i, image in enumerate(images)]

    @torch.inference_mode()
    def measure(self, forward: Forward) -> dict[str, float]:
        """Measure a network.

        Parameters
        ----------
        forward : callable
            From a batch to the restored one and the estimates, None without a gauge.

        Returns
        -------
        dict
            Mean PSNR in dB of ``input`` and ``output``, share of images ``improved``, mean and
            smallest PSNR of clean images given as they are (``identity``, ``identity_worst``), and
            for networks with a gauge the mean relative error of σ (``sigma_error``).
        """
        rows, errors = [], []
        for degraded, target, clean, log_sigma in self.pairs:
            (result, estimates), (same, _) = forward(degraded), forward(clean)
            rows.append((psnr(degraded, target), psnr(result, target), psnr(same, clean)))
            if estimates is not None and math.isfinite(log_sigma):
                mean, log_variance = estimates[0, :, 0]
                weight = (-log_variance.clamp(-6, 4)).exp()
                found = float((weight * mean).sum() / weight.sum())
                errors.append(abs(math.expm1(found - log_sigma)))
        before, after, identity = np.array(rows).T
        figures = {
            "input": before.mean(),
            "output": after.mean(),
            "improved": (after > before).mean(),
            "identity": identity.mean(),
            "identity_worst": identity.min(),
        }
        if errors:
            figures["sigma_error"] = np.mean(errors)
        return {name: round(float(value), 3) for name, value in figures.items()}


def _pair(
    image: SharpImage, index: int, degradation: Degradation, device: torch.device
) -> ValidationPair:
    rng, generator = generators(device, 12345, index)
    margin = degradation.margin
    sharp = centre_crop(image, _SIZE + 2 * margin).to(device)
    clean = sharp[..., margin : margin + _SIZE, margin : margin + _SIZE]
    for _ in range(20):
        degraded, target, kernels, *_ = degradation(sharp.clone(), rng, generator)
        if psnr(degraded, target) < _UNTOUCHED:
            break
    log_sigma = float(log_sigmas(kernels)[0, 0]) if kernels else math.nan
    return ValidationPair(degraded, target, clean, log_sigma)
