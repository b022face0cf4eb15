"""Dehazing by a smooth affine map that a small network finds on a low-resolution view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nafnet import NAFNet

if TYPE_CHECKING:
    from collections.abc import Sequence


def guided_filter(field: Tensor, guide: Tensor, radius: int = 12, eps: float = 1e-3) -> Tensor:
    """Smooth a field where the guide is smooth, and keep its steps where the guide has them.

    Parameters
    ----------
    field : Tensor
        (N, C, H, W).
    guide : Tensor
        (N, 1, H, W) in [0, 1].
    radius : int
        Half the side of the window, in pixels.
    eps : float
        Variance of the guide above which a step is kept.

    Notes
    -----
    He, Sun and Tang, "Guided Image Filtering", IEEE TPAMI 2013. Haze is even over a sky and
    changes at the edge of what stands before it; so do its coefficients after this.
    """

    def mean(x: Tensor) -> Tensor:
        side = 2 * radius + 1
        x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)

    mean_guide, mean_field = mean(guide), mean(field)
    covariance = mean(guide * field) - mean_guide * mean_field
    variance = mean(guide * guide) - mean_guide**2
    slope = covariance / (variance.clamp(min=0) + eps)
    return mean(slope) * guide + mean(mean_field - slope * mean_guide)


class AffineDehazer(nn.Module):
    """Predict a gain and an offset for each channel at low resolution, apply them at full.

    Haze is smooth and its inversion is affine, J = (I - A) / t + A, so a view of 256 pixels of
    the whole image holds all that is needed. The result is monotone in the input, and tiles
    agree by construction since they share the coefficients.

    Parameters
    ----------
    channels : int
        Channels of the image.
    width, encoder_blocks, middle_blocks, decoder_blocks
        As for `NAFNet`.
    view : int
        Longest side of the view in pixels.
    """

    #: Largest logarithm of the gain: haze that leaves less than 1/20 of the contrast stays.
    max_log_gain = 3.0

    def __init__(
        self,
        channels: int = 3,
        width: int = 16,
        encoder_blocks: Sequence[int] = (1, 1, 1, 2),
        middle_blocks: int = 2,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        view: int = 256,
    ) -> None:
        super().__init__()
        self.channels, self.view = channels, view
        # The window covers any view, so the channel attention sees the whole image.
        self.trunk = NAFNet(
            channels, width, encoder_blocks, middle_blocks, decoder_blocks, 2, 4 * view
        )
        self.trunk.ending = nn.Conv2d(width, 2 * channels, 3, padding=1)
        # How sure it is that there is haze at all: a clear image wants exactly nothing, which a
        # regression of many coefficients never quite gives.
        self.gate = nn.Linear(width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)
        nn.init.zeros_(self.trunk.ending.weight)
        nn.init.zeros_(self.trunk.ending.bias)  # type: ignore[arg-type]
        self.multiple_of = 1

    def coefficients(self, view: Tensor) -> Tensor:
        """Gain and offset for each channel.

        Parameters
        ----------
        view : Tensor
            (N, C, h, w) in [0, 1], the whole image at low resolution.

        Returns
        -------
        Tensor
            (N, 2 C, h', w'), about half the view's size: gains, then offsets.
        """
        height, width = view.shape[-2:]
        multiple = self.trunk.multiple_of
        bottom, right = -height % multiple, -width % multiple
        padded = F.pad(view, (0, right, 0, bottom), mode="replicate")
        features = self.trunk.features(F.pixel_unshuffle(padded, 2))
        present = torch.sigmoid(self.gate(features.mean((2, 3))).float())[..., None, None]
        out = self.trunk.ending(features)[..., : (height + 1) // 2, : (width + 1) // 2].float()
        out = out * present
        guide = F.interpolate(view.float().mean(1, keepdim=True), out.shape[-2:], mode="area")
        gain = self.max_log_gain * torch.tanh(out[:, : self.channels] / self.max_log_gain)
        return guided_filter(torch.cat([gain.exp(), out[:, self.channels :]], 1), guide)

    @staticmethod
    def apply_coefficients(image: Tensor, coefficients: Tensor, box: Tensor) -> Tensor:
        """Apply coefficients to tiles.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W), tiles.
        coefficients : Tensor
            (N, 2 C, h, w) or (1, 2 C, h, w), of the whole image.
        box : Tensor
            (N, 4): top, left, bottom, right of each tile as shares of the whole image.
        """
        height, width = image.shape[-2:]
        channels = image.shape[1]
        grid = []
        for start, end, count in ((0, 2, height), (1, 3, width)):
            centres = (torch.arange(count, device=image.device) + 0.5) / count
            span = (box[:, end] - box[:, start])[:, None]
            grid.append(2 * (box[:, start][:, None] + span * centres) - 1)
        y = grid[0][:, :, None].expand(-1, height, width)
        x = grid[1][:, None, :].expand(-1, height, width)
        field = F.grid_sample(
            coefficients.expand(len(image), -1, -1, -1),
            torch.stack([x, y], -1).to(coefficients.dtype),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        return image * field[:, :channels] + field[:, channels:]

    def forward(self, image: Tensor) -> Tensor:
        """Restore whole images (N, C, H, W) in [0, 1] that are no larger than the view."""
        coefficients = self.coefficients(image)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=image.device)
        return self.apply_coefficients(image, coefficients, whole.expand(len(image), 4))
