"""U-Net of plain residual blocks: the bundled networks that sharpen.

Dense 3×3 convolutions keep matrix units busy, on graphics cards as on processors with bfloat16,
where normalizations and depthwise convolutions wait for memory: at equal time such a network has
several times the multiplications of a NAFNet.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cpu import stream_change, stream_changes, stream_deep_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a rectifier, added to what comes in.

    Source: Lim et al., "Enhanced Deep Residual Networks", CVPRW 2017: no normalization, unless it
    is asked for; then over the channels of each pixel, which stay independent of each other.
    """

    def __init__(self, width: int, normalize: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = ChannelNorm(width) if normalize else None

    def forward(self, x: Tensor) -> Tensor:
        """Refine features (N, C, H, W)."""
        inside = x if self.norm is None else self.norm(x)
        out: Tensor = x + self.conv2(F.relu(self.conv1(inside), inplace=True))
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each pixel."""
        out: Tensor = super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class ResUNet(nn.Module):
    """U-Net of residual blocks that adds a learned residual to its input.

    Every output pixel depends on a bounded neighborhood, so that tiles agree with the whole
    image. Source of the shape: Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser
    Prior", TPAMI 2021.

    Parameters
    ----------
    channels : int
        Channels of the image, in and out.
    widths : sequence of int
        Channels of each level, top to bottom; a level has half the resolution of the one above.
    encoder_blocks, decoder_blocks : sequence of int
        Blocks for each level but the lowest, top to bottom and bottom to top.
    middle_blocks : int
        Blocks of the lowest level.
    unshuffle : int
        Factor by which pixels are moved into channels before the first convolution.
    keep_mean : bool
        Take the local mean out of the residual, so that light is moved but neither made nor lost;
        see `_without_local_mean`.
    normalize : bool
        Normalize the channels of each pixel before each block.
    estimates : int
        Quantities of the degradation that are estimated from the lowest level, see `estimate`.
    extra : int
        Further channels that help and are not restored; they follow those of the image.
    beside : int
        Further channels that come out after those of the change, see `change`.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (48, 96, 192),
        encoder_blocks: Sequence[int] = (1, 2),
        middle_blocks: int = 2,
        decoder_blocks: Sequence[int] = (2, 1),
        unshuffle: int = 2,
        keep_mean: bool = False,
        normalize: bool = False,
        estimates: int = 0,
        extra: int = 0,
        beside: int = 0,
    ) -> None:
        super().__init__()
        levels = len(widths) - 1
        if len(encoder_blocks) != levels or len(decoder_blocks) != levels:
            raise ValueError(
                f"{len(widths)} widths need {levels} encoder_blocks and decoder_blocks; got "
                f"{tuple(encoder_blocks)} and {tuple(decoder_blocks)}"
            )
        self.channels, self.unshuffle, self.keep_mean = channels, unshuffle, keep_mean
        self.multiple_of = unshuffle * 2**levels
        self.by_rows = not normalize
        inside = channels * unshuffle**2
        self.intro = nn.Conv2d(inside + extra * unshuffle**2, widths[0], 3, padding=1)
        self.ending = nn.Conv2d(widths[0], inside + beside * unshuffle**2, 3, padding=1)

        def blocks(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, normalize) for _ in range(count)))

        pairs = list(pairwise(widths))
        self.encoders = nn.ModuleList(map(blocks, widths[:-1], encoder_blocks))
        self.downs = nn.ModuleList(nn.Conv2d(high, low, 2, 2) for high, low in pairs)
        self.middle = blocks(widths[-1], middle_blocks)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, 2) for high, low in pairs[::-1])
        self.decoders = nn.ModuleList(map(blocks, widths[-2::-1], decoder_blocks))
        self._begin()
        # The estimator; keys of weights have this name.
        self.gauge = (
            nn.Sequential(nn.Conv2d(widths[-1], 64, 1), nn.ReLU(), nn.Conv2d(64, 2 * estimates, 1))
            if estimates
            else None
        )

    def _begin(self) -> None:
        """Initialize so that features are as large at every level.

        By torch's default each convolution makes them smaller; what is wide, as the blur of motion,
        is seen by the lowest levels, and would be learned last.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                # Blocks begin as small changes of what they get.
                small = 0.5 if name.endswith("conv2") else 1.0
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=small * fan_in**-0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.ConvTranspose2d):
                # Of stride and size 2: each pixel out has one pixel in.
                nn.init.normal_(module.weight, std=module.in_channels**-0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        # An untrained network returns its input.
        nn.init.zeros_(self.ending.weight)

    def forward(self, image: Tensor, further: Callable[[int, int], Tensor] | None = None) -> Tensor:
        """Restore a batch.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W), floating point, about [0, 1]; H and W multiples of ``multiple_of``.
        further : callable, optional
            Gives the extra channels of some rows: takes the first of them and that after the last.
            Without it they are in ``image``.

        Returns
        -------
        Tensor
            The same shape, but for extra channels.
        """

        def rows(top: int, bottom: int) -> Tensor:
            part = image[:, :, top:bottom]
            return part if further is None else torch.cat([part, further(top, bottom)], 1)

        return self._restored(image, self._change_of(rows, image))

    def change(self, image: Tensor) -> Tensor:
        """Find what is added to a batch, and what comes out beside it.

        Parameters
        ----------
        image : Tensor
            As for `forward`, with the extra channels.

        Returns
        -------
        Tensor
            (N, C + ``beside``, H, W), float32.
        """
        if self._goes_by_rows(image):
            return stream_changes(self, image)
        return self._change(*self.encode(image))

    def _change_of(self, rows: Callable[[int, int], Tensor], image: Tensor) -> Tensor:
        if self._goes_by_rows(image):
            return stream_change(self, rows, image)
        return self._change(*self.encode(rows(0, image.shape[2])))

    def estimate(self, image: Tensor) -> Tensor:
        """Estimate what degraded a batch, without restoring it.

        Parameters
        ----------
        image : Tensor
            As for `forward`.

        Returns
        -------
        Tensor
            (N, 2, E, h, w) at the lowest resolution: the estimates, and the logarithms of their
            variances.
        """
        by_rows = self._goes_by_rows(image)
        return self._estimates(
            stream_deep_features(self, image) if by_rows else self.encode(image)[0]
        )

    def restore_and_estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both `forward` and `estimate`, for the cost of the first."""
        deep, skips = self.encode(image)
        estimates = self._estimates(deep)
        return self._restored(image, self._change(deep, skips)), estimates

    def _goes_by_rows(self, image: Tensor) -> bool:
        return torch.is_inference_mode_enabled() and image.device.type == "cpu" and self.by_rows

    def _estimates(self, deep: Tensor) -> Tensor:
        if self.gauge is None:
            raise ValueError("This network was built without estimates.")
        both: Tensor = self.gauge(deep)
        estimates: Tensor = both.unflatten(1, (2, -1))
        return estimates

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features of the lowest level, and those that the others pass on."""
        x: Tensor = self.intro(F.pixel_unshuffle(image, self.unshuffle))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        return self.middle(x), skips

    def decode(self, deep: Tensor, skips: list[Tensor]) -> Tensor:
        """Features (N, widths[0], h, w) of the unshuffled image from what `encode` gives, once."""
        x = deep
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x).add_(skips.pop()))
        return x

    def _change(self, deep: Tensor, skips: list[Tensor]) -> Tensor:
        residual = self.ending(self.decode(deep, skips)).float()
        change: Tensor = F.pixel_shuffle(residual, self.unshuffle)
        return change

    def _restored(self, image: Tensor, change: Tensor) -> Tensor:
        if self.keep_mean:
            change = self._without_local_mean(change)
        image = image[:, : self.channels]
        # In place: of large tiles there is no room for many.
        return change.add_(image) if torch.is_inference_mode_enabled() else image + change

    def _without_local_mean(self, change: Tensor) -> Tensor:
        """Subtract the mean over some 40 pixels.

        A point spread function moves light by a few pixels and keeps its sum; a restoration that
        changes the mean over a much wider window has made or lost light.
        """
        coarse = F.avg_pool2d(change, 8)
        wide = F.avg_pool2d(coarse, 5, 1, 2, count_include_pad=False)
        mean = F.interpolate(wide, size=change.shape[-2:], mode="bilinear", align_corners=False)
        return change.sub_(mean) if torch.is_inference_mode_enabled() else change - mean
