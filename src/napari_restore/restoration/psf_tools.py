"""Networks that help to find a point spread function, as functions of one window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_restore.analysis.find import Tools
from napari_restore.analysis.point_spread import KnownBlur
from napari_restore.inference.predictor import find_predictor
from napari_restore.models.catalog import find_model
from napari_restore.networks.motion_estimator import MOTION_UNIT
from napari_restore.runtime import torch

from .plan import window_estimates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_restore.models.catalog import ModelSpec

    from .plan import Plan

    Samples = NDArray[np.float32]


def tools_of(plan: Plan) -> Tools:
    """Networks for the image of a plan with an inverter."""
    assert plan.inverter is not None
    return make_tools(plan.inverter, plan.spec, plan.device)


def make_tools(inverter: ModelSpec, restorer: ModelSpec, device: str) -> Tools:
    """Networks for images of a kind.

    Parameters
    ----------
    inverter : ModelSpec
        That is told a point spread function.
    restorer : ModelSpec
        That is told none, for the same task and as many channels.
    device : str
    """
    channels = restorer.channels
    deblur = find_predictor(find_model("deblur", channels), device)
    moved = find_predictor(find_model("motion_deblur", channels), device)
    alone = find_predictor(restorer, device)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])

    def tensor(samples: Samples) -> torch.Tensor:
        batch: torch.Tensor = torch.from_numpy(np.ascontiguousarray(samples))
        return batch.permute(2, 0, 1)[None]

    def invert(image: torch.Tensor, psf: torch.Tensor, noise: float, linear: bool) -> torch.Tensor:
        results = [
            find_predictor(inverter, device, blur=KnownBlur(kernel.numpy(), noise, linear))(
                image.clone(), None, whole
            )
            for kernel in psf
        ]
        restored: torch.Tensor = torch.cat(results)
        return restored

    def gauge(samples: Samples) -> tuple[float, float]:
        mean, log_variance = window_estimates(samples, deblur)
        precision = np.exp(-log_variance)
        log = float((precision * mean).sum() / precision.sum())
        return float(np.exp(log)), float(precision.mean() ** -0.5)

    def direction(samples: Samples) -> tuple[float, float, float]:
        height, width = (length // 16 * 16 for length in samples.shape[:2])
        vectors, log_variance = moved.estimate(tensor(samples[:height, :width]))[0]
        weight = (-log_variance.clamp(-6, 4)).exp()
        y, x = (float(v) for v in ((weight * vectors).sum((1, 2)) / weight.sum((1, 2))))
        length = MOTION_UNIT * float(np.hypot(x, y))
        return length, float(np.arctan2(x, y)) / 2, float(weight.mean()) ** -0.5

    def plain(samples: Samples) -> Samples:
        restored = alone(tensor(samples).clone(), None, whole)
        result: Samples = restored[0].permute(1, 2, 0).numpy()
        return result

    return Tools(invert, gauge, direction, plain)
