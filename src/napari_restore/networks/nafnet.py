"""NAFNet, the nonlinear-activation-free U-Net, in the compact form this project trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class LayerNorm2d(nn.Module):
    """Normalize over the channels of every pixel, independent of its neighbors."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        # In channels_last memory the permutation is free and the fused kernel applies.
        nhwc = x.permute(0, 2, 3, 1)
        out = F.layer_norm(nhwc, nhwc.shape[-1:], self.weight, self.bias, self.eps)
        return out.permute(0, 3, 1, 2)


class WindowMean(nn.Module):
    """Channel means over the image while training, over a fixed window afterward.

    Published NAFNet weights use the mean over a whole training crop. Keeping a window of about
    that size at inference makes the result independent of the image size and of the tile it is
    computed in (test-time local converter, Chu et al., 2022).

    Parameters
    ----------
    window : int
        Side of the window, in pixels of the feature map.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Mean of (N, C, H, W): (N, C, 1, 1) or, over a window, of the same shape."""
        height, width = x.shape[-2:]
        if self.training or (self.window >= 2 * height and self.window >= 2 * width):
            return x.mean((2, 3), keepdim=True)
        size = self.window // 2 * 2 + 1
        # Two one-dimensional passes; the mean counts only pixels inside the image.
        x = F.avg_pool2d(x, (size, 1), 1, (size // 2, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, size), 1, (0, size // 2), count_include_pad=False)


class SimpleGate(nn.Module):
    """Product of the two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, 2 C, H, W) into (N, C, H, W)."""
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(nn.Module):
    """One NAFNet block; keys of its state dict are those of the publication's code.

    Parameters
    ----------
    channels : int
        Width of the block.
    attention_window : int or None
        Window of the channel attention in pixels of the feature map; None leaves it out.
    """

    def __init__(self, channels: int, attention_window: int | None) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sg = SimpleGate()
        self.sca = (
            None
            if attention_window is None
            else nn.Sequential(WindowMean(attention_window), nn.Conv2d(channels, channels, 1))
        )
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Refine features (N, C, H, W)."""
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        if self.sca is not None:
            y = y * self.sca(y)
        x = x + self.conv3(y) * self.beta
        y = self.conv5(self.sg(self.conv4(self.norm2(x))))
        out: Tensor = x + y * self.gamma
        return out


class NAFNet(nn.Module):
    """U-Net of NAFNet blocks that adds a learned residual to its input.

    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022. Published checkpoints
    load with ``unshuffle=1`` and an ``attention_window``; the bundled models work on
    pixel-unshuffled images without attention, so that every output pixel depends on a bounded
    neighborhood only and tiles agree with the whole image.

    Parameters
    ----------
    channels : int
        Channels of the image, in and out.
    width : int
        Channels of the first level; each level below has twice as many.
    encoder_blocks, decoder_blocks : sequence of int
        Blocks for each level, top to bottom and bottom to top.
    middle_blocks : int
        Blocks of the lowest level.
    unshuffle : int
        Factor by which pixels are moved into channels before the first convolution.
    attention_window : int or None
        Side in image pixels of the channel attention's window, None for no attention.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        encoder_blocks: Sequence[int] = (2, 4),
        middle_blocks: int = 6,
        decoder_blocks: Sequence[int] = (2, 2),
        unshuffle: int = 2,
        attention_window: int | None = None,
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"encoder_blocks {tuple(encoder_blocks)} and decoder_blocks "
                f"{tuple(decoder_blocks)} need the same length"
            )
        self.unshuffle = unshuffle
        self.multiple_of = unshuffle * 2 ** len(encoder_blocks)

        def level(width: int, count: int, scale: int) -> nn.Sequential:
            window = None if attention_window is None else max(1, attention_window // scale)
            return nn.Sequential(*(NAFBlock(width, window) for _ in range(count)))

        inside = channels * unshuffle**2
        self.intro = nn.Conv2d(inside, width, 3, padding=1)
        self.ending = nn.Conv2d(width, inside, 3, padding=1)
        # An untrained network returns its input.
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)  # type: ignore[arg-type]
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        scale = unshuffle
        for count in encoder_blocks:
            self.encoders.append(level(width, count, scale))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width, scale = 2 * width, 2 * scale
        self.middle_blks = level(width, middle_blocks, scale)
        for count in decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2))
            )
            width, scale = width // 2, scale // 2
            self.decoders.append(level(width, count, scale))

    def forward(self, image: Tensor) -> Tensor:
        """Restore a batch.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W), floating point, about [0, 1]; H and W multiples of ``multiple_of``.

        Returns
        -------
        Tensor
            The same shape.
        """
        inside = F.pixel_unshuffle(image, self.unshuffle) if self.unshuffle > 1 else image
        residual: Tensor = self.ending(self.features(inside))
        if self.unshuffle > 1:
            residual = F.pixel_shuffle(residual, self.unshuffle)
        return image + residual

    def features(self, inside: Tensor) -> Tensor:
        """Features (N, width, h, w) of an unshuffled batch, before the last convolution."""
        x: Tensor = self.intro(inside)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return x
