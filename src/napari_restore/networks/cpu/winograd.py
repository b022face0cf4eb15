"""Convolutions of 3×3 pixels with a third of the multiplications, for processors.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: minimal
filtering, F(4×4, 3×3). Blocks of 4×4 pixels of the result come from 6×6 of the input; both are
transformed by fixed matrices, between which the sums over the channels take 36 multiplications
where the plain convolution takes 144. In float32 results differ by some millionths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Callable

#: Channels, in and out, from which the transforms are worth their time: measured.
FEWEST_CHANNELS = 64
#: Blocks that are transformed at once: they should stay in the processor's cache.
_BLOCKS = 128
#: Bytes of the rows of an image that are convolved at a time.
_FRAME_BYTES = 2**23

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
        count, channels, height, width = x.shape
        # Whole blocks, and a frame that need not be kept for the largest image that ever comes.
        step = 4 * max(1, _FRAME_BYTES // (16 * count * channels * width))
        bands = []
        for top in range(0, height, step):
            rows, above = min(step, height - top), min(1, top)
            frame = scratch.take("frame", self.frame_shape(count, rows, width))
            seen = x[:, :, top - above : top + rows + 1]
            first, last = 1 - above, 1 - above + seen.shape[2]
            # Zeros around, and no more of them than needed.
            frame[:, :first] = frame[:, last:] = 0
            frame[:, :, 0] = frame[:, :, width + 1 :] = 0
            frame[:, first:last, 1 : width + 1] = seen.permute(0, 2, 3, 1)
            bands.append(self.convolve(frame, rows, width, x.new_empty))
        return torch.cat(bands, 2) if len(bands) > 1 else bands[0]

    def frame_shape(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the frame that `convolve` wants for (count, C, height, width)."""
        return count, -(-height // 4) * 4 + 2, -(-width // 4) * 4 + 2, self.kernel.shape[1]

    def convolve(
        self, frame: Tensor, height: int, width: int, allocate: Callable[[tuple[int, ...]], Tensor]
    ) -> Tensor:
        """Convolve an image within a frame.

        Parameters
        ----------
        frame : Tensor
            (N, H + 2, W + 2, C), H and W rounded up to multiples of 4.
        height, width : int
            H and W.
        allocate : callable
            Takes a shape, gives memory for the result.

        Returns
        -------
        Tensor
            (N, O, H, W).
        """
        count, channels = len(frame), frame.shape[3]
        rows, columns = (frame.shape[1] - 2) // 4, (frame.shape[2] - 2) // 4
        across = frame.shape[2] * channels
        strides = (4 * across, 4 * channels, across, channels, 1)
        out = allocate((count, rows, 4, columns, 4, len(self.bias)))
        step = max(1, _BLOCKS // columns)
        for one, result in zip(frame, out, strict=True):
            blocks = one.as_strided((rows, columns, 6, 6, channels), strides, one.storage_offset())
            for part, there in zip(blocks.split(step), result.split(step), strict=True):
                self._convolve(part, there)
        joined = out.view(count, 4 * rows, 4 * columns, -1)[:, :height, :width]
        return joined.permute(0, 3, 1, 2)

    def _convolve(self, blocks: Tensor, out: Tensor) -> None:
        """From (rows, columns, 6, 6, C) to (rows, 4, columns, 4, O)."""
        rows, columns, _, _, channels = blocks.shape
        count, filters = rows * columns, len(self.bias)
        flat = scratch.take("blocks", (36, count * channels))
        flat.view(6, 6, rows, columns, channels).copy_(blocks.permute(2, 3, 0, 1, 4))
        spectrum = scratch.take("spectrum", (36, count * channels))
        torch.mm(self.into, flat, out=spectrum)
        product = scratch.take("blocks", (36, count, filters))
        torch.bmm(spectrum.view(36, count, channels), self.kernel, out=product)
        result = scratch.take("spectrum", (16, count * filters))
        torch.mm(self.back, product.view(36, -1), out=result)
        result = result.view(4, 4, rows, columns, filters).permute(2, 0, 3, 1, 4)
        torch.add(result, self.bias, out=out)


def with_winograd(network: nn.Module) -> nn.Module:
    """Replace the convolutions of a network that `WinogradConv2d` computes sooner, in place."""
    for name, module in list(network.named_children()):
        if WinogradConv2d.suits(module):
            setattr(network, name, WinogradConv2d(module))  # type: ignore[arg-type]
        else:
            with_winograd(module)
    return network
