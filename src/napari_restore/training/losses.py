"""Losses."""

from __future__ import annotations

import torch


def charbonnier(result: torch.Tensor, target: torch.Tensor, eps: float = 1e-3) -> torch.Tensor:
    """Smooth absolute error, mean of sqrt(difference² + eps²) (Charbonnier et al., 1994)."""
    return ((result - target) ** 2 + eps**2).sqrt().mean()


def fourier(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the spectra of (N, C, H, W) batches.

    With orthonormal transforms white errors weigh the same here as in the image; blurred ones,
    which are few and large in the spectrum, weigh less.
    """
    difference = torch.fft.rfft2((result - target).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def restoration_loss(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Charbonnier plus a tenth of the spectral loss."""
    return charbonnier(result.float(), target) + 0.1 * fourier(result.float(), target)
