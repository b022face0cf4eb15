"""Losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .degradations import Optics


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


def log_error(result: torch.Tensor, target: torch.Tensor, floor: float = 1e-4) -> torch.Tensor:
    """Mean over the batch of the logarithm of each image's squared error.

    What the mean PSNR is measured by, up to a factor: an image with little error counts as much as
    one with a large one (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), and
    unlike an absolute error it does not pull faint structures down.

    Parameters
    ----------
    result, target : Tensor
        (N, C, H, W).
    floor : float
        Squared error below which an image is as good as perfect.
    """
    error = ((result.float() - target) ** 2).flatten(1).mean(1)
    return (error + floor).log().mean()


def harm(
    result: torch.Tensor, image: torch.Tensor, target: torch.Tensor, floor: float = 5e-4
) -> torch.Tensor:
    """Mean over the batch of how much worse than the image a result is; 0 where it is better.

    As a logarithm of squared errors, like `log_error`. A mean of those allows to lose on one image
    what is won on another; users forgive the former less.

    Parameters
    ----------
    result, image, target : Tensor
        (N, C, H, W).
    floor : float
        Squared error below which an image is as good as perfect.
    """
    before = ((image - target) ** 2).flatten(1).mean(1)
    after = ((result.float() - target) ** 2).flatten(1).mean(1)
    return F.relu((after + floor).log() - (before + floor).log()).mean()


def resized(truth: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Means of a field (N, E, H, W) at the resolution of another."""
    height, width = like.shape[-2:]
    return F.adaptive_avg_pool2d(truth, (height, width))


def estimate_error(estimates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of what degraded the images.

    Parameters
    ----------
    estimates : Tensor
        (N, 2, E, h, w): means, and logarithms of the variances.
    truth : Tensor
        (N, E, 1, 1), the same for every place of an image, or (N, E, H, W) at any resolution; NaN
        where it is not known.
    """
    mean, log_variance = estimates.float().unbind(1)
    log_variance = log_variance.clamp(-6, 4)
    if truth.shape[-2:] != (1, 1):
        truth = resized(truth, mean)
    known = torch.isfinite(truth)
    error = (mean - torch.nan_to_num(truth)) ** 2
    likelihood = 0.5 * (error * (-log_variance).exp() + log_variance)
    return (likelihood * known).mean()


def optics_error(log_gain: torch.Tensor, airlight: torch.Tensor, truth: Optics) -> torch.Tensor:
    """Mean absolute error of what takes the haze away.

    Parameters
    ----------
    log_gain, airlight : Tensor
        (N, C, H, W), as a network found them.
    truth : Optics
    """
    # Where the haze is thin, nothing shows the air.
    share = 1 - (-truth.log_gain).exp()
    error = (log_gain - truth.log_gain).abs() + 2 * share * (airlight - truth.airlight).abs()
    return (error * truth.known).mean()


def scene_error(airlight: torch.Tensor, thickness: torch.Tensor, truth: Optics) -> torch.Tensor:
    """Mean absolute error of what a whole scene says of its haze.

    Parameters
    ----------
    airlight : Tensor
        (N, C).
    thickness : Tensor
        (N, 1), mean optical thickness.
    truth : Optics
    """
    share = 1 - (-truth.log_gain).exp()
    haze = share.mean((2, 3))
    # Mean color of the air that lies on the image.
    air = (share * truth.airlight).mean((2, 3)) / haze.clamp(min=1e-3)
    error = (thickness - truth.log_gain.mean((1, 2, 3))[:, None]).abs()
    error = error + 2 * haze * (airlight - air).abs()
    return (error * truth.known.flatten(1)).mean()


def flow_error(
    flows: Sequence[torch.Tensor], truth: torch.Tensor, floor: float = 0.05
) -> torch.Tensor:
    """Mean over levels and batch of the logarithm of each image's mean distance in pixels.

    Parameters
    ----------
    flows : sequence of Tensor
        (N, 2, h, w) in pixels, at several resolutions.
    truth : Tensor
        (N, 2, H, W) in pixels.
    floor : float
        Distance in pixels below which the motion is as good as perfect.
    """
    errors = []
    for flow in flows:
        difference = flow.float() - resized(truth, flow)
        distance = (difference.square().sum(1) + 1e-4).sqrt()
        errors.append((distance.flatten(1).mean(1) + floor).log().mean())
    return torch.stack(errors).mean()
