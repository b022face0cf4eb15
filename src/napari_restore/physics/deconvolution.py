"""Classical deconvolution with a known point spread function, in two and three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_restore.runtime import check

from .inverse import WienerBank
from .transforms import backward, forward, quick_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: How much light that misses the image counts, as explained by what is estimated already. With 1,
#: little is learned near the border; with 0, noise draws light across it into the image.
UNSEEN = 0.2
#: What a PSF whose center is off leaves of the weight of a border counts as this much at least.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Scale:
    """What all blocks of an image have in common.

    Attributes
    ----------
    level : float
        What counts as bright, above 0.
    pedestal : float
        How far noise goes below 0, or 0. Richardson–Lucy lets the model and the image stand on it,
        for cutting noise off at 0 would make light.
    """

    level: float
    pedestal: float = 0.0


@dataclass(frozen=True)
class RichardsonLucy:
    """Accelerated Richardson–Lucy deconvolution with total variation.

    Attributes
    ----------
    steps : int
        More are sharper and noisier: 10 where light is scarce, 20 and more where there is plenty.
        With acceleration, 15 do more than 30 without.
    total_variation : float
        Weight of evenness: 0 for none, 0.0002 for many steps, 0.002 for very noisy images, where
        more of it costs detail.
    momenta : tuple of float, optional
        Momentum of each step: 0 for none. By default found as the steps go; `found_momenta` finds
        them once for all blocks of an image.
    accelerated : bool

    Notes
    -----
    Richardson, 1972; Lucy, 1974; acceleration by Biggs and Andrews, Applied Optics, 1997; total
    variation by Dey et al., Microscopy Research and Technique, 2006. The estimate reaches beyond
    the border by the point spread function (Bertero and Boccacci, Astronomy & Astrophysics, 2005):
    light from planes above and below a stack is accounted for, and nothing wraps around. What was
    not recorded there counts as if it were explained already, by a part (`UNSEEN`): the steps end
    at the same, and what sends little of its light into the image changes slowly.
    """

    steps: int = 15
    total_variation: float = 0.0
    momenta: tuple[float, ...] | None = None
    accelerated: bool = True

    def __call__(
        self,
        image: torch.Tensor,
        psf: torch.Tensor,
        scale: Scale,
        trusted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Deconvolve.

        Parameters
        ----------
        image : Tensor
            (Y, X) or (Z, Y, X), light above the background.
        psf : Tensor
            As many axes, odd sides, sum 1.
        scale : Scale
            Of the whole image if ``image`` is a block of it.
        trusted : Tensor, optional
            As the image, 0 where it says nothing: it counts as what lies beyond the border.
        """
        return self._run(image, psf, scale, trusted)[0][-1]

    def stages(
        self,
        image: torch.Tensor,
        psf: torch.Tensor,
        scale: Scale,
        after: Sequence[int],
        trusted: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Estimates after some of the steps; else as a call."""
        return self._run(image, psf, scale, trusted, after)[0]

    def found_momenta(
        self, image: torch.Tensor, psf: torch.Tensor, scale: Scale
    ) -> tuple[float, ...]:
        """Find the momentum of each step from a part of an image."""
        return self._run(image, psf, scale)[1]

    def follow(
        self,
        image: torch.Tensor,
        psf: torch.Tensor,
        scale: Scale,
        look: Callable[[torch.Tensor], bool],
        trusted: torch.Tensor | None = None,
    ) -> None:
        """Show the blurred estimate of each step, until ``look`` says that it is enough."""
        self._run(image, psf, scale, trusted, look=look)

    def _run(
        self,
        image: torch.Tensor,
        psf: torch.Tensor,
        scale: Scale,
        trusted: torch.Tensor | None = None,
        after: Sequence[int] = (),
        look: Callable[[torch.Tensor], bool] | None = None,
    ) -> tuple[list[torch.Tensor], tuple[float, ...]]:
        blur = _Blur(image.shape, psf.to(image))
        least = 1e-6 * scale.level
        data = (image + scale.pedestal).clamp_(min=0)
        weight = blur.back(torch.ones_like(data))
        # Smooth at first: noise cut off at 0 would be light, and steps take long to remove it.
        smooth = blur.back(image)[blur.inside].div_(weight[blur.inside].clamp(min=_LEAST_WEIGHT))
        first = blur.beyond(smooth.clamp_(min=least))
        if trusted is not None:
            weight = blur.back(trusted)
        unseen = UNSEEN * (1 - weight.clamp_(min=0, max=1))
        whole = weight.add_(unseen)
        estimate, before, change, change_before = first, first, None, None
        momenta: list[float] = []
        kept: list[torch.Tensor] = []
        for step in range(self.steps):
            check()
            momentum = self._momentum(step, change, change_before)
            momenta.append(momentum)
            start = estimate
            if momentum:
                start = torch.lerp(before, estimate, 1 + momentum).clamp_(min=0)
            model = blur(start)
            if look is not None and look(model):
                break
            if scale.pedestal:
                model.add_(scale.pedestal)
            ratio = torch.div(data, model.clamp_(min=least), out=model)
            if trusted is not None:
                ratio *= trusted
            share = whole
            if self.total_variation:
                curvature = _curvature(start, 1e-3 * scale.level)
                share = torch.maximum(whole - self.total_variation * curvature, 0.1 * whole)
            before = estimate
            # New memory is what takes long here: what is not needed any more is written over.
            estimate = blur.back(ratio).clamp_(min=0).add_(unseen).mul_(start).div_(share)
            if self.accelerated and self.momenta is None:
                change_before, change = change, estimate - start
            if step + 1 in (after or (self.steps,)):
                kept.append(estimate[blur.inside].clone())
        return kept, tuple(momenta)

    def _momentum(
        self, step: int, change: torch.Tensor | None, before: torch.Tensor | None
    ) -> float:
        if not self.accelerated:
            return 0.0
        if self.momenta is not None:
            return self.momenta[step]
        if change is None or before is None:
            return 0.0
        along = float((change * before).sum(dtype=torch.float64))
        length = float(before.square().sum(dtype=torch.float64))
        return min(max(along / length, 0.0), 0.999) if length else 0.0


@dataclass(frozen=True)
class Wiener:
    """Wiener deconvolution; see `napari_restore.physics.inverse.WienerBank`.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise, as a share of what counts as bright.
    strength : float
        Weight of smoothness.
    """

    noise: float = 0.02
    strength: float = 25.0

    def __call__(
        self,
        image: torch.Tensor,
        psf: torch.Tensor,
        scale: Scale,
        trusted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Deconvolve; as `RichardsonLucy`; the result may go below 0."""
        noise = torch.tensor([self.noise], device=image.device)
        if trusted is not None:
            trusted = trusted[None, None]
        # The filter is linear: whatever counts as bright, it is the same.
        bank = WienerBank(image[None, None], psf[None], noise, trusted)
        return bank(image[None, None], (self.strength,))[0][0, 0]


class _Blur:
    """Convolution of what lies in and around an image, as far as the image shows it."""

    def __init__(self, shape: Sequence[int], psf: torch.Tensor) -> None:
        half = [side // 2 for side in psf.shape]
        # Beyond the margin whatever wraps around misses the image.
        self._wide = [n + 2 * h for n, h in zip(shape, half, strict=True)]
        self._size = quick_size(self._wide)
        self.inside = tuple(slice(h, h + n) for n, h in zip(shape, half, strict=True))
        # An image begins where it is, and the estimate by half of the PSF before it: so planes that
        # show nothing need not be transformed.
        self._shape = tuple(shape)
        self._transposed = forward(psf.flip(*range(psf.ndim)), self._size)
        self._transfer = self._transposed.conj().resolve_conj()

    def __call__(self, estimate: torch.Tensor) -> torch.Tensor:
        """Blur an estimate of the size at work; what the image shows of it."""
        return self._filtered(estimate, self._transfer, self._shape)

    def back(self, image: torch.Tensor) -> torch.Tensor:
        """Transpose of the blur, from the image to the size at work."""
        return self._filtered(image, self._transposed, self._wide)

    def _filtered(
        self, x: torch.Tensor, transfer: torch.Tensor, shape: Sequence[int]
    ) -> torch.Tensor:
        return backward(forward(x, self._size).mul_(transfer), self._size, shape)

    def beyond(self, image: torch.Tensor) -> torch.Tensor:
        """Extend an image to the size at work by repeating its edge."""
        for axis, (length, part) in enumerate(zip(self._wide, self.inside, strict=True)):
            place = torch.arange(length, device=image.device) - part.start
            image = image.index_select(axis, place.clamp(0, part.stop - part.start - 1))
        return image


def _curvature(x: torch.Tensor, least: float) -> torch.Tensor:
    """Divergence of the direction of the gradient; gradients below ``least`` count as noise."""
    axes = range(x.ndim)
    slopes = [x.roll(-1, axis) - x for axis in axes]
    length = torch.full_like(x, least**2)
    for slope in slopes:
        length.addcmul_(slope, slope)
    length.sqrt_()
    out = torch.zeros_like(x)
    for axis, slope in enumerate(slopes):
        slope.div_(length)
        out += slope - slope.roll(1, axis)
    return out
