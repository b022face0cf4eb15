"""Motion between two frames."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.physics.motion import warp

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Logarithm of the factor that turns likeness into chance, at first.
_SHARPNESS = 2.5


def _convolutions(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
    return nn.Sequential(*layers)


class FlowNet(nn.Module):
    """Find for each place of a frame where it has moved to in another, coarse to fine.

    At each level of a pyramid of features, those of the second frame are fetched from where the
    coarser level says that they are, and compared with those of the first over a window of shifts.
    Convolutions decide from that how far to believe the shift that is likeliest around a place, and
    what to add. Source of the idea: Sun et al., "PWC-Net", CVPR 2018; of the likeliest shift as a
    mean over the window: Kendall et al., "End-to-End Learning of Geometry and Context", ICCV 2017.

    Parameters
    ----------
    widths : sequence of int
        Channels of the features at a half, a quarter and so on of the resolution; the finest level
        only serves to make the others.
    decoder : sequence of int
        Channels of the convolutions that turn a comparison into motion.
    radius : int
        Largest shift of a comparison along each axis, in cells of its level.
    """

    shifts: Tensor

    def __init__(
        self,
        widths: Sequence[int] = (24, 32, 48, 64),
        decoder: Sequence[int] = (80, 64, 48),
        radius: int = 4,
    ) -> None:
        super().__init__()
        self.multiple_of, self.radius = 2 ** len(widths), radius
        self.intro = _convolutions(4, widths[0], widths[0])
        self.downs = nn.ModuleList(nn.Conv2d(high, low, 2, 2) for high, low in pairwise(widths))
        self.features = nn.ModuleList(_convolutions(width, width, width) for width in widths[1:])
        window = (2 * radius + 1) ** 2
        self.decoders = nn.ModuleList(
            _convolutions(window + width + 4, *decoder) for width in widths[:0:-1]
        )
        # How far the likeliest shift is believed, and what is added to it.
        self.heads = nn.ModuleList(nn.Conv2d(decoder[-1], 3, 3, padding=1) for _ in widths[1:])
        self.sharpness = nn.Parameter(torch.full((len(widths) - 1,), _SHARPNESS))
        steps = torch.arange(-radius, radius + 1.0)
        shifts = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
        self.register_buffer("shifts", shifts.view(2, -1, 1, 1), persistent=False)
        for head in self.heads:
            # Untrained, it is the matching of random features.
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Find the motion.

        Parameters
        ----------
        first, second : Tensor
            (N, C, H, W); H and W multiples of ``multiple_of``.

        Returns
        -------
        list of Tensor
            (N, 2, h, w), pixels of the frames (y, x), from the coarsest level to the finest, a
            quarter of the resolution. What is at x in the first is at x + motion in the second.
        """
        count = len(first)
        gray = torch.cat([first, second]).float().mean(1, keepdim=True)
        x = self.intro(F.pixel_unshuffle(_contrast(gray), 2))
        levels = []
        for down, features in zip(self.downs, self.features, strict=True):
            x = features(down(x))
            levels.append(x)
        cell = 2 ** (len(levels) + 1)
        flow = torch.zeros(count, 2, *x.shape[-2:], device=x.device)
        flows: list[Tensor] = []
        parts = zip(reversed(levels), self.decoders, self.heads, self.sharpness, strict=True)
        for level, decoder, head, sharpness in parts:
            if flows:
                flow = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
            one, two = level[:count], level[count:]
            if flows:
                two = warp(two.float(), flow / cell).to(two.dtype)
            likeness = _compare(one, two, self.radius).float()
            around = F.avg_pool2d(likeness, 3, 1, 1, count_include_pad=False)
            chance = (around * sharpness.exp()).softmax(1)
            likeliest = (self.shifts[None] * chance[:, None]).sum(2)
            # In cells of this level, so that all levels see like numbers.
            seen = torch.cat([likeness, one, flow / cell, likeliest], 1)
            said = head(decoder(seen)).float()
            flow = flow + cell * (2 * said[:, :1].sigmoid() * likeliest + said[:, 1:])
            flows.append(flow)
            cell //= 2
        return flows


def _contrast(gray: Tensor) -> Tensor:
    """Take the surroundings out of (N, 1, H, W), in units of how much they vary.

    Motion shows in structure, however bright the place and faint the structure.
    """
    quarter = F.avg_pool2d(gray, 4)

    def around(field: Tensor) -> Tensor:
        return F.avg_pool2d(field, 7, 1, 3, count_include_pad=False)

    level = around(quarter)
    spread = around((quarter - level) ** 2).sqrt() + 0.02
    both = F.interpolate(
        torch.cat([level, spread], 1), scale_factor=4, mode="bilinear", align_corners=False
    )
    return ((gray - both[:, :1]) / both[:, 1:]).clamp(-4, 4)


def _compare(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Likeness of the features over a window of shifts: (N, (2 radius + 1)², H, W).

    The cosine of the angle between them, their channels' mean taken out.
    """
    height, width = first.shape[-2:]
    one, two = (F.normalize(x - x.mean(1, keepdim=True), dim=1) for x in (first, second))
    padded = F.pad(two, (radius,) * 4)
    steps = range(2 * radius + 1)
    return torch.stack(
        [
            (one * padded[..., dy : dy + height, dx : dx + width]).sum(1)
            for dy in steps
            for dx in steps
        ],
        1,
    )
