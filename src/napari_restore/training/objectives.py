"""What a network learns from a batch: its result, and what it says about the degradation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_restore.networks.motion_estimator import MOTION_UNIT, CepstralEstimator
from napari_restore.physics.psf import equivalent_sigma
from napari_restore.runtime import autocast_dtype

from .losses import estimate_error, flow_error, harm, optics_error, resized, scene_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from .degradations import Pair, Told

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Of the errors of what a network says about the degradation, beside that of the image.
GAUGE_WEIGHT = 0.1
OPTICS_WEIGHT = 0.5
FLOW_WEIGHT = 0.2
#: Of the images whose motion is told wrong.
WRONG_SHARE = 0.15


def _reduced(device: torch.device) -> torch.autocast:
    """Precision to train in: bfloat16 where it is quicker, whose range needs no loss scaling."""
    quicker = device.type == "cuda" or autocast_dtype(str(device)) is not None
    return torch.autocast(device.type, torch.bfloat16, enabled=quicker)


def log_sigmas(kernels: Sequence[NDArray[np.float32] | None]) -> torch.Tensor:
    """Find what an estimator has to find for each kernel, (N, 1); NaN where there is none."""
    return torch.tensor(
        [[math.nan if k is None else math.log(equivalent_sigma(k))] for k in kernels]
    )


def truth_of(pair: Pair) -> torch.Tensor | None:
    """Find what an estimator has to find in a batch, (N, E, h, w); None where nothing is known."""
    if pair.motion is not None:
        return pair.motion / MOTION_UNIT
    return log_sigmas(pair.kernels)[..., None, None] if pair.kernels else None


def as_if_found(truth: torch.Tensor) -> torch.Tensor:
    """Say what moved as an estimator would that is well calibrated, from nearly sure to ignorant.

    Of one image in seven it says what another's motion is: texture can look like blur, and
    restoration has to see for itself that the image is sharp. Someone who expects vectors of about
    1 either way, and is left with the variance v after having looked, expects (1 - v) of the truth
    and is off by the square root of v (1 - v).

    Parameters
    ----------
    truth : Tensor
        (N, 2, H, W), in units of `MOTION_UNIT`.

    Returns
    -------
    Tensor
        (N, 2, 2, h, w), a number for each `CELL` pixels: see `MotionRestorer.estimate`.
    """
    truth = F.avg_pool2d(truth, CepstralEstimator.cell)
    one = truth[:, :1, :1, :1]
    truth = torch.where(torch.rand_like(one) < WRONG_SHARE, truth.roll(1, 0), truth)
    low, high = math.log(1e-3), math.log(0.6)
    variance = (low + (high - low) * torch.rand_like(one)).exp()
    off = torch.randn_like(truth[..., :1, :1]) * (variance * (1 - variance)).sqrt()
    mean = (1 - variance) * truth + off
    return torch.stack([mean, variance.log().expand_as(mean)], 1)


def batch_loss(
    network: nn.Module,
    pair: Pair,
    loss: Loss,
    estimate_alone: bool = False,
    motion_told: bool = False,
    harm_weight: float = 0.0,
) -> torch.Tensor:
    """Loss of a batch.

    Parameters
    ----------
    network : Module
    pair : Pair
        On the network's device.
    loss : callable
        Of result and target.
    estimate_alone : bool
        Train only what finds the motion, or reads the haze of a whole scene.
    motion_told : bool
        Train only what restores along it.
    harm_weight : float
        Of `harm`, beside the loss.

    Returns
    -------
    Tensor
        One number.
    """
    device = pair.image.device
    image = pair.image.contiguous(memory_format=torch.channels_last)
    with _reduced(device):
        if pair.told is not None:
            result, beside = network(image, *pair.told), torch.zeros((), device=device)
        elif pair.exposure is not None:
            assert pair.motion is not None
            if estimate_alone:
                return flow_error(network.flows(image), pair.motion)  # type: ignore[operator]
            result, flows = network.restore_and_find(image, pair.exposure)  # type: ignore[operator]
            beside = FLOW_WEIGHT * flow_error(flows, pair.motion)
        elif pair.optics is not None and hasattr(network, "restore_and_explain"):
            if estimate_alone:
                air, thickness = network.read(image)  # type: ignore[operator]
                return scene_error(air, thickness, pair.optics)
            result, log_gain, airlight = network.restore_and_explain(image)  # type: ignore[operator]
            beside = OPTICS_WEIGHT * optics_error(log_gain, airlight, pair.optics)
        elif estimate_alone:
            assert pair.motion is not None
            error: torch.Tensor = network.gauge.error(image, pair.motion / MOTION_UNIT)  # type: ignore[operator,union-attr]
            return error
        elif motion_told and pair.motion is not None:
            told = as_if_found(pair.motion / MOTION_UNIT)
            result = network.restore_along(image, told)  # type: ignore[operator]
            beside = torch.zeros((), device=device)
        elif getattr(network, "gauge", None) is not None:
            result, estimates = network.restore_and_estimate(image)  # type: ignore[operator]
            beside = torch.zeros((), device=device)
            truth = truth_of(pair) if pair.motion is None else None
            if truth is not None:
                beside = GAUGE_WEIGHT * estimate_error(estimates, truth.to(device))
        else:
            result, beside = network(image), torch.zeros((), device=device)
    if harm_weight:
        beside = beside + harm_weight * harm(result, pair.image, pair.target)
    return loss(result.float(), pair.target) + beside


def forward(
    network: nn.Module,
    image: torch.Tensor,
    exposure: torch.Tensor | None,
    told: Told | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Restored batch, and the estimates (N, E, h, w) of networks that make some.

    Estimates are in the units of `truth_of`; NaN where the network says that it does not know.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    with _reduced(image.device):
        if told is not None:
            return network(image, *told).float(), None
        if exposure is not None:
            result, flows = network.restore_and_find(image, exposure)  # type: ignore[operator]
            return result.float(), flows[-1].float() / MOTION_UNIT
        if getattr(network, "gauge", None) is None:
            return network(image).float(), None
        result, estimates = network.restore_and_estimate(image)  # type: ignore[operator]
    mean, log_variance = estimates.float().unbind(1)
    weight = (-log_variance.clamp(-6, 4)).exp()
    # One place sees more of the blur than another.
    sure = (weight * mean).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True)
    return result.float(), sure if mean.shape[1] == 1 else mean


def estimation_error(estimates: torch.Tensor, truth: torch.Tensor) -> tuple[str, float]:
    """Name and size of the error of estimates (1, E, h, w).

    ``sigma_error`` is relative; ``motion_error`` the mean distance in pixels of motion vectors.
    """
    if estimates.shape[1] == 1:
        return "sigma_error", abs(math.expm1(float((estimates - truth).mean())))
    truth = resized(truth, estimates)
    distance = (estimates - truth).norm(dim=1) * MOTION_UNIT
    return "motion_error", float(distance.mean())
