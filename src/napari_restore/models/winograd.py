"""Convolutions of 3×3 pixels with a third of the multiplications, for processors.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: minimal
filtering, F(4×4, 3×3). Blocks of 4×4 pixels of the result come from 6×6 of the input; both are
transformed by fixed matrices, between which the sums over the channels take 36 multiplications
where the plain convolution takes 144. In float32 results differ by some millionths.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Channels, in and out, from which the transforms are worth their time: measured.
FEWEST_CHANNELS = 96
#: Blocks that are transformed at once: they should stay in the processor's cache.
_BLOCKS = 256

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    dtype=torch.float64,
)


class WinogradConv2d(nn.Module):
    """A convolution of 3×3 pixels with a border of zeros, for inference in float32.

    Parameters
    ----------
    conv : Conv2d
        What it computes; see `suits`.
    """

    kernel: Tensor
    bias: Tensor
    into: Tensor
    back: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach().double()
        kernel = torch.einsum("ar,oirs,bs->abio", _KERNEL, weight, _KERNEL).flatten(0, 1)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        for name, value in (
            ("kernel", kernel),
            ("bias", bias),
            ("into", torch.kron(_INPUT, _INPUT)),
            ("back", torch.kron(_OUTPUT, _OUTPUT)),
        ):
            self.register_buffer(name, value.float().contiguous(), persistent=False)

    @staticmethod
    def suits(module: nn.Module) -> bool:
        """Whether a module is a convolution that this computes, and sooner."""
        return (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (3, 3)
            and module.padding == (1, 1)
            and module.padding_mode == "zeros"
            and module.stride == module.dilation == (1, 1)
            and module.groups == 1
            and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W), best with channels last."""
        _, channels, height, width = x.shape
        rows, columns = -(-height // 4), -(-width // 4)
        frames = x.new_empty(len(x), 4 * rows + 2, 4 * columns + 2, channels)
        # Zeros around, and no more of them than needed.
        frames[:, 0] = frames[:, height + 1 :] = 0
        frames[:, :, 0] = frames[:, :, width + 1 :] = 0
        frames[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        across = frames.shape[2] * channels
        strides = (4 * across, 4 * channels, across, channels, 1)
        out = x.new_empty((len(x), rows, 4, columns, 4, len(self.bias)))
        step = max(1, _BLOCKS // columns)
        for frame, result in zip(frames, out, strict=True):
            blocks = frame.as_strided((rows, columns, 6, 6, channels), strides)
            for part, there in zip(blocks.split(step), result.split(step), strict=True):
                there.copy_(self._convolve(part))
        joined = out.view(len(x), 4 * rows, 4 * columns, -1)[:, :height, :width]
        return joined.permute(0, 3, 1, 2)

    def _convolve(self, blocks: Tensor) -> Tensor:
        """From (rows, columns, 6, 6, C) to (rows, 4, columns, 4, O)."""
        rows, columns, _, _, channels = blocks.shape
        flat = blocks.permute(2, 3, 0, 1, 4).reshape(36, -1)
        spectrum = (self.into @ flat).view(36, -1, channels)
        product = torch.bmm(spectrum, self.kernel)
        result = (self.back @ product.view(36, -1)).view(4, 4, rows, columns, -1)
        return result.permute(2, 0, 3, 1, 4) + self.bias


def with_winograd(network: nn.Module) -> nn.Module:
    """Replace the convolutions of a network that `WinogradConv2d` computes sooner, in place."""
    for name, module in list(network.named_children()):
        if WinogradConv2d.suits(module):
            setattr(network, name, WinogradConv2d(module))  # type: ignore[arg-type]
        else:
            with_winograd(module)
    return network
