"""Inverse filters for a known point spread function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .psf import fast_length
from .transforms import backward, forward

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import EllipsisType

#: Noise that is assumed at least, as a share of the range: rounding to 8 bits makes as much.
LEAST_NOISE = 1e-3


class WienerBank:
    """Wiener filters of several strengths that improve estimates of an image.

    With H for the blur and D for the gradient, the filter of strength s adds to an estimate x the
    change v of least |H v - (y - H x)|² + s σ² |D v|². Where the blur left nothing, the estimate
    stays.

    Parameters
    ----------
    blurred : Tensor
        (N, C, H, W), or (N, C, D, H, W).
    psf : Tensor
        (N, h, w) or (N, d, h, w), or one for all, of odd sides and sum 1.
    noise : Tensor
        (N, 1, 1, 1) or (N,), standard deviation σ of the noise.
    trusted : Tensor, optional
        As the blurred image, 0 where that says nothing.

    Notes
    -----
    Wiener, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949, with the
    spectrum of images taken to fall as the square of the frequency. Beyond the border the estimate
    is reflected, and what it leaves unexplained fades out, so that nothing rings in from there.
    """

    def __init__(
        self,
        blurred: torch.Tensor,
        psf: torch.Tensor,
        noise: torch.Tensor,
        trusted: torch.Tensor | None = None,
    ) -> None:
        dimensions = psf.ndim - 1
        self._dimensions = dimensions
        self._shape = shape = blurred.shape[-dimensions:]
        self._blurred, self._trusted = blurred, trusted
        half = [side // 2 for side in psf.shape[1:]]
        # The estimate beyond the border takes part in what is seen inside it.
        self._margin = half
        self._size = [fast_length(n + 2 * h) for n, h in zip(shape, half, strict=True)]
        inside = [slice(h, h + n) for n, h in zip(shape, half, strict=True)]
        self._inside: tuple[EllipsisType | slice, ...] = (..., *inside)
        kernel = centered_in(psf.to(blurred.device).float(), self._size)
        transfer = forward(kernel, self._size)[:, None]
        gradient = 4 * _squared_sines(self._size, blurred.device)
        power = transfer.real**2 + transfer.imag**2
        noise = noise.reshape(len(noise), *(1,) * (dimensions + 1))
        variance = noise.to(blurred.device).float().clamp(min=LEAST_NOISE) ** 2
        self._transfer = transfer
        self._power, self._gradient, self._variance = power, gradient, variance

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        # Few planes cannot be reflected as far as a PSF is deep: from there on they repeat.
        reflected = [min(h, n - 1) for h, n in zip(self._margin, self._shape, strict=True)]
        x = F.pad(x, [side for side in reversed(reflected) for _ in range(2)], mode="reflect")
        rest = [h - side for h, side in zip(self._margin, reflected, strict=True)]
        if any(rest):
            x = F.pad(x, [side for side in reversed(rest) for _ in range(2)], mode="replicate")
        return x

    def unexplained(self, estimate: torch.Tensor) -> torch.Tensor:
        """Find what an estimate leaves unexplained of the blurred image, in its shape."""
        # Of a volume every array is large, and new memory takes long: what can is written over.
        spectrum = forward(self._padded(estimate), self._size).mul_(self._transfer)
        seen = backward(spectrum, self._size)
        rest: torch.Tensor = self._blurred - seen[self._inside]
        return rest if self._trusted is None else rest.mul_(self._trusted)

    def __call__(self, estimate: torch.Tensor, strengths: Sequence[float]) -> list[torch.Tensor]:
        """Improve an estimate of the blurred image's shape: one for each strength."""
        spectrum = forward(self._faded(self.unexplained(estimate)), self._size)
        spectrum.mul_(self._transfer.conj())
        candidates = []
        for number, strength in enumerate(strengths, 1):
            gain = self._gradient * (strength * self._variance)
            gain.add_(self._power).add_(1e-8).reciprocal_()
            last = number == len(strengths)
            change = backward(spectrum.mul_(gain) if last else spectrum * gain, self._size)
            del gain
            candidates.append(estimate + change[self._inside])
        return candidates

    def _faded(self, rest: torch.Tensor) -> torch.Tensor:
        """Extend what is unexplained beyond the border, where it fades out."""
        rest = self._padded(rest)
        if self._dimensions == 3:
            rest.mul_(_fading(rest.shape[-3:-2], self._margin[:1], rest)[:, None, None])
        return rest.mul_(_fading(rest.shape[-2:], self._margin[-2:], rest))


def centered_in(psf: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Place kernels (N, …) in (N, *size) with their center at the origin, wrapped around."""
    sides, axes = psf.shape[1:], tuple(range(-len(size), 0))
    frame = psf.new_zeros(len(psf), *size)
    frame[(slice(None), *(slice(side) for side in sides))] = psf
    return frame.roll([-(side // 2) for side in sides], axes)


def _squared_sines(size: Sequence[int], device: torch.device) -> torch.Tensor:
    """Sum of sin²(π f) over the axes, at the frequencies of a real transform."""
    total = torch.zeros((), device=device)
    for axis, length in enumerate(size):
        last = axis == len(size) - 1
        frequency = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(length, device=device)
        total = total[..., None] + torch.sin(torch.pi * frequency) ** 2
    return total


def _fading(shape: Sequence[int], margins: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Weights of a shape: 1 inside the margins, falling to 0 across them."""
    weights = torch.ones((), device=like.device, dtype=like.dtype)
    for length, margin in zip(shape, margins, strict=True):
        place = torch.arange(length, device=like.device, dtype=like.dtype)
        depth = torch.minimum(place, length - 1 - place) + 1
        weights = weights[..., None] * (depth / (margin + 1)).clamp(max=1)
    return weights
