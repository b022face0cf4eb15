"""Restoration with a point spread function that is known: data steps and one network by turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.physics.camera import to_linear, to_srgb
from napari_restore.physics.inverse import WienerBank

from .resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Channels beside the bank: logarithm of the noise level, and which round it is.
_FACTS = 2
#: Pixels of the neighborhoods whose mean the physics alone decides.
_WIDE = 40


class Inverter(nn.Module):
    """Invert y = Hx + n for a given point spread function.

    Each round begins with an estimate of the image, first the blurred image itself. What it leaves
    unexplained of the blurred image is inverted by Wiener filters of several strengths. A network,
    the same in all rounds, sees the blurred image and these candidates, and gives the next
    estimate. Where the point spread function is wrong the candidates contradict each other, and the
    network is left with the image.

    Parameters
    ----------
    channels : int
        Channels of the image, in and out.
    rounds : int
    strengths : sequence of float
        Regularization of the Wiener filters, in units of the noise's variance.
    keep_light : bool
        Take means over some 40 pixels from the data step, so that light is moved but neither made
        nor lost. Not for images whose samples are no measure of light (with a tone curve).
    widths, encoder_blocks, middle_blocks, decoder_blocks, unshuffle
        As for `ResUNet`.

    Notes
    -----
    Unrolled splitting after Zhang, Van Gool and Timofte, "Deep Unfolding Network for Image
    Super-Resolution", CVPR 2020; several regularized inverses as input after Dong, Roth and
    Schiele, "Deep Wiener Deconvolution", NeurIPS 2020.
    """

    def __init__(
        self,
        channels: int = 1,
        rounds: int = 2,
        strengths: Sequence[float] = (6, 25, 100, 400, 1600),
        keep_light: bool = False,
        widths: Sequence[int] = (48, 96, 192),
        encoder_blocks: Sequence[int] = (1, 4),
        middle_blocks: int = 3,
        decoder_blocks: Sequence[int] = (4, 1),
        unshuffle: int = 2,
    ) -> None:
        super().__init__()
        self.channels, self.rounds, self.keep_light = channels, rounds, keep_light
        self.strengths = tuple(strengths)
        self.network = ResUNet(
            channels,
            widths,
            encoder_blocks,
            middle_blocks,
            decoder_blocks,
            unshuffle,
            extra=len(self.strengths) * channels + _FACTS,
        )
        self.multiple_of = self.network.multiple_of

    def forward(
        self, image: Tensor, psf: Tensor, noise: Tensor, linear: Tensor | None = None
    ) -> Tensor:
        """Restore a batch; see `rounds_of`."""
        return self.rounds_of(image, psf, noise, linear)[-1]

    def rounds_of(
        self,
        image: Tensor,
        psf: Tensor,
        noise: Tensor,
        linear: Tensor | None = None,
        rounds: int | None = None,
    ) -> list[Tensor]:
        """Estimates of the first rounds, or of all.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W), about [0, 1]; H and W multiples of ``multiple_of``.
        psf : Tensor
            (N, k, k) or (1, k, k), odd k, each with sum 1.
        noise : Tensor
            (N, 1, 1, 1), standard deviation of the noise in the image.
        linear : Tensor, optional
            (N, 1, 1, 1), True where the blur acted on light before the sRGB tone curve of the
            image. Nowhere by default.
        rounds : int, optional
            How many; all by default.

        Returns
        -------
        list of Tensor
            (N, C, H, W), float32.
        """
        image = image.float()
        curve = _ToneCurve(linear)
        light = curve.light(image)
        bank = WienerBank(light, psf, noise, self.strengths, trusted=curve.trusted(image))
        level = (noise.clamp(min=1e-4).log10() / 2 + 1).expand(-1, 1, *image.shape[-2:])
        estimate, known, estimates = image, light, []
        for index in range(rounds or self.rounds):
            candidates = bank(known)
            facts = torch.cat([level, torch.full_like(level, float(index))], 1)
            seen = [image, *(curve.image(part) for part in candidates), facts]
            change = self.network(torch.cat(seen, 1)).float() - image
            if self.keep_light:
                middle = candidates[len(candidates) // 2]
                change = change - wide_mean(change) + wide_mean(middle - image)
            estimate = image + change
            known = curve.light(estimate)
            estimates.append(estimate)
        return estimates


def wide_mean(x: Tensor) -> Tensor:
    """Smooth means over some 40 pixels, (N, C, H, W); H and W multiples of 8."""
    coarse = F.avg_pool2d(x, 8)
    wide = F.avg_pool2d(coarse, _WIDE // 8, 1, _WIDE // 16, count_include_pad=False)
    return F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)


class _ToneCurve:
    """From images to light and back, for those of a batch that have a tone curve."""

    #: From here on a sample may be cut off by the range of the sensor.
    _full = 0.985

    def __init__(self, linear: Tensor | None) -> None:
        self._linear = None if linear is None or not bool(linear.any()) else linear

    def light(self, image: Tensor) -> Tensor:
        if self._linear is None:
            return image
        return torch.where(self._linear, to_linear(image), image)

    def image(self, light: Tensor) -> Tensor:
        if self._linear is None:
            return light
        return torch.where(self._linear, to_srgb(light), light)

    def trusted(self, image: Tensor) -> Tensor | None:
        """0 where cameras cut the light off: what is there says only that it was bright."""
        if self._linear is None:
            return None
        return torch.where(self._linear, (image < self._full).to(image.dtype), 1.0)
