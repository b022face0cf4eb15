"""Figures of a network on images that it does not learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .data import as_scene, center_crop
from .objectives import estimation_error, truth_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .data import SharpImage
    from .degradations import Degradation, Told

    Forward = Callable[
        [torch.Tensor, torch.Tensor | None, Told | None],
        tuple[torch.Tensor, torch.Tensor | None],
    ]

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


class ValidationPair(NamedTuple):
    """One degraded image, how it ought to come back, and the same undegraded; (1, C, S, S).

    Of two frames, the degraded and the undegraded have the channels of both.
    """

    degraded: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    truth: torch.Tensor | None
    exposure: torch.Tensor | None
    told: Told | None


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
            From a batch, its exposure and what is told of its blur to the restored one and the
            estimates, as
            `napari_restore.training.objectives.forward`.

        Returns
        -------
        dict
            Mean PSNR in dB of ``input`` and ``output``, share of images ``improved``, mean and
            smallest PSNR of clean images given as they are (``identity``, ``identity_worst``), and
            the mean `estimation_error` of networks that estimate.
        """
        rows, errors, name = [], [], ""
        for degraded, target, clean, truth, exposure, told in self.pairs:
            result, estimates = forward(degraded, exposure, told)
            same, _ = forward(clean, exposure, told)
            seen, sharp = degraded[:, : target.shape[1]], clean[:, : target.shape[1]]
            rows.append((psnr(seen, target), psnr(result, target), psnr(same, sharp)))
            if estimates is not None and truth is not None and bool(truth.isfinite().all()):
                name, error = estimation_error(estimates, truth)
                errors.append(error)
        before, after, identity = np.array(rows).T
        figures = {
            "input": before.mean(),
            "output": after.mean(),
            "improved": (after > before).mean(),
            "identity": identity.mean(),
            "identity_worst": identity.min(),
        }
        if errors:
            figures[name] = np.mean(errors)
        return {name: round(float(value), 3) for name, value in figures.items()}


def _pair(
    image: SharpImage, index: int, degradation: Degradation, device: torch.device
) -> ValidationPair:
    rng, generator = generators(device, 12345, index)
    margin = degradation.margin
    sharp = center_crop(image, _SIZE + 2 * margin).to(device)
    clean = sharp[..., margin : margin + _SIZE, margin : margin + _SIZE]
    for _ in range(20):
        pair = degradation(sharp.clone(), rng, generator)
        if psnr(pair.image[:, : pair.target.shape[1]], pair.target) < _UNTOUCHED:
            break
    frames = pair.image.shape[1] // pair.target.shape[1]
    truth = truth_of(pair)
    return ValidationPair(
        pair.image,
        pair.target,
        clean.repeat(1, frames, 1, 1),
        None if truth is None else truth.to(device),
        pair.exposure,
        pair.told,
    )
