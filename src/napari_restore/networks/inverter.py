"""Restoration with a point spread function that is known: inverse filters around one network."""

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

#: Pixels of the neighborhoods whose mean the physics alone decides.
_WIDE = 40


class Inverter(nn.Module):
    """Invert y = Hx + n for a given point spread function.

    Wiener filters of several strengths invert the blurred image. A network sees the blurred image
    and these candidates, and gives an estimate. What this leaves unexplained of the blurred image
    is inverted once more, again with several strengths. The network says for each pixel how much
    each of these steps counts, and the estimate itself. Where the point spread function is wrong,
    the candidates contradict the image, and the network can leave the steps out.

    Parameters
    ----------
    channels : int
        Channels of the image, in and out.
    strengths, steps : sequence of float
        Regularization of the Wiener filters before and after the network, in units of the noise's
        variance.
    keep_light : bool
        Take means over some 40 pixels from the data step, so that light is moved but neither made
        nor lost. Not for images whose samples are no measure of light (with a tone curve).
    widths, encoder_blocks, middle_blocks, decoder_blocks, unshuffle
        As for `ResUNet`.

    Notes
    -----
    Several regularized inverses as input after Dong, Roth and Schiele, "Deep Wiener Deconvolution",
    NeurIPS 2020; data steps and a network by turns after Zhang, Van Gool and Timofte, "Deep
    Unfolding Network for Image Super-Resolution", CVPR 2020. The data step comes last: the network
    alone loses coarse structure that the image shows for certain.
    """

    def __init__(
        self,
        channels: int = 1,
        strengths: Sequence[float] = (6, 25, 100, 400, 1600),
        steps: Sequence[float] = (30, 250, 2000),
        keep_light: bool = False,
        widths: Sequence[int] = (48, 96, 192),
        encoder_blocks: Sequence[int] = (1, 4),
        middle_blocks: int = 3,
        decoder_blocks: Sequence[int] = (4, 1),
        unshuffle: int = 2,
    ) -> None:
        super().__init__()
        self.channels, self.keep_light = channels, keep_light
        self.strengths, self.steps = tuple(strengths), tuple(steps)
        self.network = ResUNet(
            channels,
            widths,
            encoder_blocks,
            middle_blocks,
            decoder_blocks,
            unshuffle,
            # The candidates and the noise level; the estimate and each step have a weight.
            extra=len(self.strengths) * channels + 1,
            beside=1 + len(self.steps),
        )
        self.multiple_of = self.network.multiple_of

    def forward(
        self, image: Tensor, psf: Tensor, noise: Tensor, linear: Tensor | None = None
    ) -> Tensor:
        """Restore a batch.

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

        Returns
        -------
        Tensor
            (N, C, H, W), float32.
        """
        image = image.float()
        curve = _ToneCurve(linear)
        light = curve.light(image)
        bank = WienerBank(light, psf, noise, trusted=curve.trusted(image))
        candidates = [curve.image(part) for part in bank(light, self.strengths)]
        level = (noise.clamp(min=1e-4).log10() / 2 + 1).expand(-1, 1, *image.shape[-2:])
        out = self.network.change(torch.cat([image, *candidates, level], 1)).float()
        estimate, weights = image + out[:, : self.channels], out[:, self.channels :].softmax(1)
        restored = weights[:, :1] * estimate
        steps = bank(curve.light(estimate), self.steps)
        for index, step in enumerate(steps):
            restored = restored + weights[:, index + 1 : index + 2] * curve.image(step)
        if self.keep_light:
            middle = candidates[len(candidates) // 2]
            restored = restored + wide_mean(middle - restored)
        return restored


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
