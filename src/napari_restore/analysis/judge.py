"""Choose among restorations of one image: which undid the blur, and whether any did."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_restore.physics.inverse import LEAST_NOISE, WienerBank
from napari_restore.physics.psf import convolve

#: Pixels at the border that do not count: what lies beyond is not known.
_BORDER = 8
#: A restoration has to score this much better than the image itself, as a share: for PSFs of the
#: size that a gauge saw, and for those of any form, of which one always fits somewhat.
MARGINS = {"known": 0.006, "free": 0.03}
#: Restorations that are not told a PSF take more noise away, and look this much sparser for it.
PLAIN_IS_SPARSER = 0.9
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
    edge = min(_BORDER, *(length // 8 for length in images.shape[-2:]))
    inner = images[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge].float()
    total = torch.zeros(len(images))
    for change in (inner.diff(dim=-2), inner.diff(dim=-1)):
        flat = change.flatten(1)
        total += flat.abs().mean(1) / flat.square().mean(1).sqrt().clamp(min=1e-12)
    return total / 2


def score(restored: Tensor, image: Tensor) -> float:
    """How well one restoration (1, C, H, W) of an image does, the less the better.

    Its normalized sparsity as a share of the image's, and what it has beyond the image's range.
    """
    edge = min(_BORDER, *(length // 8 for length in image.shape[-2:]))
    inner = restored[..., edge : image.shape[-2] - edge, edge : image.shape[-1] - edge]
    low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
    beyond = (inner - high).clamp(min=0) + (low - inner).clamp(min=0)
    ringing = float((beyond / (high - low).clamp(min=1e-6)).mean())
    own = float(sparsity(image))
    return float(sparsity(restored)) / max(own, 1e-12) + _RINGING * ringing


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
    bank = WienerBank(blurred, psf[None], torch.full((1, 1, 1, 1), noise), (_STRENGTH,))
    rest = blurred - convolve(bank(restored)[0], psf[None])
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
