"""Judge point spread functions by what they restore."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from napari_restore.physics.inverse import LEAST_NOISE, WienerBank
from napari_restore.physics.psf import convolve, fast_length

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

#: Pixels at the border that do not count: what lies beyond is not known.
_BORDER = 8
#: What samples beyond the range of the image cost: they are ringing, mostly.
_RINGING = 15.0
#: Root mean square of what a fitting PSF leaves, in units of the noise, and its correlation from
#: pixel to pixel: above either, structure is left. Strength of the filter that comes before.
_RATIO, _CORRELATION, _STRENGTH = 1.3, 0.12, 100


def sparsity(images: Tensor) -> Tensor:
    """Compute the normalized sparsity of gradients, ‖∂x‖₁ / ‖∂x‖₂: the less, the sharper.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W).

    Returns
    -------
    Tensor
        (N,), the mean of both directions, of the gradients' mean size over their root mean square.

    Notes
    -----
    Krishnan, Tay and Fergus, "Blind Deconvolution Using a Normalized Sparsity Measure", CVPR 2011.
    Blur makes it larger, and so do ringing and noise.
    """
    inner = _inside(images).float()
    total = torch.zeros(len(images))
    for change in (inner.diff(dim=-2), inner.diff(dim=-1)):
        flat = change.flatten(1)
        total += flat.abs().mean(1) / flat.square().mean(1).sqrt().clamp(min=1e-12)
    return total / 2


def score(restored: Tensor, image: Tensor) -> float:
    """How well one restoration (1, C, H, W) of an image does, the less the better.

    Its normalized sparsity as a share of the image's, and what it has beyond the image's range.
    """
    own = float(sparsity(image))
    return float(sparsity(restored)) / max(own, 1e-12) + _RINGING * _beyond(restored, image)


class Evidence(NamedTuple):
    """What speaks for a kernel and against it; each counts with its weight in `MERIT`.

    Attributes
    ----------
    sparsity : float
        Logarithm of the result's normalized sparsity, as a share of the image's.
    ringing : float
        Mean of what lies beyond the range of the image, as a share of that range.
    contrast : float
        Logarithm of the result's variance, as a share of the image's.
    entropy : float
        Of the kernel's samples: the path of a camera is thin.
    size : float
        Logarithm of the kernel's root mean square radius in pixels, and 0.3.
    ghosts : float
        Most negative correlation of the result's edges with themselves, 3 to 20 pixels away:
        wrong kernels leave second edges.
    """

    sparsity: float
    ringing: float
    contrast: float
    entropy: float
    size: float
    ghosts: float


#: How much each counts, learned as in ``benchmarks/judge.py`` from 257 searches.
MERIT = Evidence(
    sparsity=-52.8, ringing=-2865.0, contrast=18.7, entropy=-3.84, size=4.30, ghosts=27.0
)
#: How far edges are compared, in pixels, from where on, and where gradients are cut off, in
#: standard deviations.
_FAR, _NEAR, _CUT = 20, 2.5, 3.0


def evidence(restored: Tensor, image: Tensor, kernel: NDArray[np.float32]) -> Evidence:
    """Collect what speaks for a kernel.

    Parameters
    ----------
    restored, image : Tensor
        (1, C, H, W), with that kernel undone, and as it was.
    kernel : ndarray
        (k, k), sum 1.
    """
    after, before = (part.mean(1, keepdim=True) for part in (restored, image))
    inner = _inside(after)
    sparser = float(sparsity(after)) / max(float(sparsity(before)), 1e-12)
    contrast = float(inner.var()) / max(float(_inside(before).var()), 1e-12)
    light = kernel[kernel > 0].astype(np.float64)
    y, x = np.indices(kernel.shape)
    offsets = [axis - (kernel * axis).sum() for axis in (y, x)]
    radius = math.sqrt(float((kernel * (offsets[0] ** 2 + offsets[1] ** 2)).sum()))
    return Evidence(
        math.log(max(sparser, 1e-6)),
        _beyond(after, before),
        math.log(max(contrast, 1e-6)),
        -float((light * np.log(light)).sum()),
        math.log(radius + 0.3),
        _ghosts(inner[0, 0].numpy()),
    )


def merit(restored: Tensor, image: Tensor, kernel: NDArray[np.float32]) -> float:
    """How much speaks for a kernel, the more the better; see `evidence`."""
    known = evidence(restored, image, kernel)
    return sum(weight * value for weight, value in zip(MERIT, known, strict=True))


def _ghosts(plane: NDArray[np.float32]) -> float:
    lags = []
    for axis in (0, 1):
        change = np.diff(plane, axis=axis)
        change = change - change.mean()
        limit = _CUT * max(float(change.std()), 1e-12)
        change = change.clip(-limit, limit)
        size = [fast_length(length + _FAR) for length in change.shape]
        alike = np.fft.irfft2(np.abs(np.fft.rfft2(change, size)) ** 2, size)
        alike = np.roll(alike, (_FAR, _FAR), (0, 1))[: 2 * _FAR + 1, : 2 * _FAR + 1]
        lags.append(alike / max(float(alike[_FAR, _FAR]), 1e-12))
    around = (lags[0] + lags[1]) / 2
    distance = np.hypot(*(np.indices(around.shape) - _FAR))
    return float(around[distance > _NEAR].min())


def _inside(image: Tensor) -> Tensor:
    """Without the border, of which it is not known what lies beyond."""
    height, width = image.shape[-2:]
    edge = min(_BORDER, height // 8, width // 8)
    return image[..., edge : height - edge, edge : width - edge]


def _beyond(restored: Tensor, image: Tensor) -> float:
    inner = _inside(restored)
    low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
    beyond = (inner - high).clamp(min=0) + (low - inner).clamp(min=0)
    return float((beyond / (high - low).clamp(min=1e-6)).mean())


@dataclass(frozen=True)
class ReBlur:
    """What the restored image, blurred again, leaves of the blurred one.

    Attributes
    ----------
    ratio : float
        Root mean square of the difference in units of the noise's.
    correlation : float
        Of the difference with itself a pixel or two further; 0 for white noise.
    """

    ratio: float
    correlation: float

    @property
    def fits(self) -> bool:
        """Whether what is left looks like the noise of the image."""
        return self.ratio <= _RATIO and self.correlation <= _CORRELATION

    @property
    def statement(self) -> str:
        """In plain words."""
        if self.fits:
            return f"explains the image: what it leaves is {self.ratio:.1f} times the noise"
        return (
            f"leaves structure unexplained, {self.ratio:.1f} times the noise: the PSF does not fit"
        )


def re_blur(blurred: Tensor, restored: Tensor, psf: Tensor, noise: float) -> ReBlur:
    """Blur a restored image again and compare it with the blurred one, in light.

    What a restoration left out only to be free of noise is put back first, by a Wiener filter: what
    is left then is what no image explains with this PSF. Small PSFs explain every image.

    Parameters
    ----------
    blurred, restored : Tensor
        (1, C, H, W).
    psf : Tensor
        (k, k).
    noise : float
        Its standard deviation.
    """
    bank = WienerBank(blurred, psf[None], torch.full((1, 1, 1, 1), noise))
    rest = blurred - convolve(bank(restored, (_STRENGTH,))[0], psf[None])
    edge = min(psf.shape[-1] // 2 + 4, *(length // 4 for length in rest.shape[-2:]))
    rest = rest[..., edge : rest.shape[-2] - edge, edge : rest.shape[-1] - edge]
    rest = rest - rest.mean((-2, -1), keepdim=True)
    power = rest.square().mean().clamp(min=1e-16)
    products = [
        (rest[..., lag:] * rest[..., :-lag]).mean()
        + (rest[..., lag:, :] * rest[..., :-lag, :]).mean()
        for lag in (1, 2)
    ]
    correlation = float((torch.stack(products).sum() / 4 / power).item())
    return ReBlur(float(power.sqrt()) / max(noise, LEAST_NOISE), correlation)
