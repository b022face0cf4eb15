"""Run a U-Net a few rows at a time, on processors.

Rows pass through all layers before the next ones come; each layer keeps the few that the next will
have to see with them. Nothing is computed twice and the result is that of the whole image, but what
lies between the layers stays in the processor's cache, and memory depends on the width of an image
alone. Source of the idea: Alwani et al., "Fused-Layer CNN Accelerators", MICRO 2016.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.runtime import advanced, check

from .pipeline import Rows, Stage, through
from .scratch import scratch
from .winograd import WinogradConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_restore.networks.resunet import ResidualBlock, ResUNet

#: Of the features of the rows that come in at once.
STRIP_BYTES = 2**22


class _Conv:
    """A 3×3 convolution with a border of zeros."""

    def __init__(self, conv: nn.Conv2d | WinogradConv2d, name: str = "frame") -> None:
        self._conv, self._name = conv, name
        #: How many rows came.
        self.came = 0
        self._kept: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        frame, rows = self.put(x, last)
        if rows > 2:
            yield self.convolve(frame, rows, x.shape[3]), last

    def put(self, x: Tensor, last: bool, rectify: bool = False) -> tuple[Tensor, int]:
        """Put rows into a frame (N, rows, columns, C), after those before; say how many are in."""
        count, channels, height, width = x.shape
        kept = self._kept
        before = 1 if kept is None else kept.shape[1]
        rows = before + height + last
        if isinstance(self._conv, WinogradConv2d):
            shape = self._conv.frame_shape(count, max(rows - 2, 0), width)
        else:
            shape = count, rows, width + 2, channels
        frame = scratch.take(self._name, shape, x.dtype)
        inside = frame[:, :, 1 : width + 1]
        frame[:, :, 0] = frame[:, :, width + 1 :] = 0
        inside[:, :before] = 0 if kept is None else kept
        new = inside[:, before : before + height]
        if rectify:
            torch.clamp_min(x.permute(0, 2, 3, 1), 0, out=new)
        else:
            new.copy_(x.permute(0, 2, 3, 1))
        inside[:, before + height :] = 0
        self._kept = inside[:, max(0, rows - 2) : rows].clone()
        self.came += height
        return frame, rows

    def convolve(self, frame: Tensor, rows: int, width: int) -> Tensor:
        """Convolve what `put` gave, 3 rows or more; the first and the last are only seen."""
        conv = self._conv
        if isinstance(conv, WinogradConv2d):
            return conv.convolve(frame, rows - 2, width, partial(scratch.take, "result"))
        return F.conv2d(frame.permute(0, 3, 1, 2), conv.weight, conv.bias)


class _Block:
    """A residual block."""

    def __init__(self, block: ResidualBlock) -> None:
        self._first, self._second = _Conv(block.conv1, "outer frame"), _Conv(block.conv2)
        self._done = 0

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        width = x.shape[3]
        outer, rows = self._first.put(x, last)
        if rows < 3:
            return
        features = self._first.convolve(outer, rows, width)
        inner, inner_rows = self._second.put(features, last, rectify=True)
        if inner_rows < 3:
            return
        change = self._second.convolve(inner, inner_rows, width)
        # The frame's first row is one of those that came before, or the border.
        start = self._done - (self._first.came + last - rows)
        self._done += change.shape[2]
        same = outer[:, start : start + change.shape[2], 1 : width + 1]
        yield change.add_(same.permute(0, 3, 1, 2)), last


class _Down:
    """A convolution of 2×2 pixels without overlap."""

    def __init__(self, conv: nn.Module) -> None:
        self._conv = conv
        self._odd: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        if self._odd is not None:
            x = torch.cat([self._odd, x], 2)
        even = x.shape[2] // 2 * 2
        self._odd = x[:, :, even:].clone() if even < x.shape[2] else None
        if even:
            yield self._conv(x[:, :, :even]), last


class _Fork:
    """Lets features pass, and keeps them for the way up."""

    def __init__(self) -> None:
        self.kept: deque[Tensor] = deque()

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        self.kept.append(x.clone())
        yield x, last


class _Join:
    """Brings features up a level and adds those that a fork kept.

    Parameters
    ----------
    up : Module
    fork : _Fork
    most : int
        Rows that go on at once. All that is left comes at the end.
    """

    def __init__(self, up: nn.Module, fork: _Fork, most: int) -> None:
        self._up, self._kept, self._most = up, fork.kept, most

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        up = self._up(x)
        for top in range(0, up.shape[2], self._most):
            part = up[:, :, top : top + self._most]
            self._add_kept(part)
            yield part, last and top + self._most >= up.shape[2]

    def _add_kept(self, rows: Tensor) -> None:
        done = 0
        while done < rows.shape[2]:
            kept = self._kept.popleft()
            count = min(kept.shape[2], rows.shape[2] - done)
            rows[:, :, done : done + count] += kept[:, :, :count]
            if count < kept.shape[2]:
                self._kept.appendleft(kept[:, :, count:])
            done += count


def _blocks(blocks: nn.Module) -> list[Stage]:
    return [_Block(block) for block in blocks.children()]  # type: ignore[arg-type]


def _way_down(network: ResUNet, forks: list[_Fork]) -> list[Stage]:
    """Stages down to the lowest level; its forks are added to a list."""
    stages: list[Stage] = [_Conv(network.intro)]
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        forks.append(_Fork())
        stages += [*_blocks(encoder), forks[-1], _Down(down)]
    return stages + _blocks(network.middle)


def _whole(network: ResUNet, step: int) -> list[Stage]:
    """All stages, for strips of so many rows."""
    forks: list[_Fork] = []
    stages = _way_down(network, forks)
    for depth, (up, decoder) in enumerate(zip(network.ups, network.decoders, strict=True), 1):
        most = step // 2 ** (len(network.ups) - depth)
        stages += [_Join(up, forks[-depth], most), *_blocks(decoder)]
    return [*stages, _Conv(network.ending)]


def _step(network: ResUNet, like: Tensor) -> int:
    """Rows of a strip: whole blocks of minimal filtering at every level."""
    width = like.shape[3] // network.unshuffle
    row = len(like) * width * int(network.intro.out_channels) * like.element_size()
    step: int = 4 * 2 ** len(network.downs)
    return step * max(1, STRIP_BYTES // (row * step))


def _strips(
    network: ResUNet, rows: Callable[[int, int], Tensor], like: Tensor, step: int
) -> Iterator[Rows]:
    factor = network.unshuffle
    height = like.shape[2] // factor
    for top, bottom in pairwise([*range(0, height, step), height]):
        check()
        yield F.pixel_unshuffle(rows(factor * top, factor * bottom), factor), bottom == height


def stream_change(network: ResUNet, rows: Callable[[int, int], Tensor], image: Tensor) -> Tensor:
    """Find what a network adds to an image, but for the mean that it may take out.

    Parameters
    ----------
    network : ResUNet
        On a processor, without normalization, in inference.
    rows : callable
        Gives all channels of some rows: takes the first of them and that after the last.
    image : Tensor
        (N, C, H, W), as for `ResUNet.forward`; its extra channels do not matter.

    Returns
    -------
    Tensor
        (N, C, H, W), float32, channels last.
    """
    shape = len(image), network.channels, *image.shape[2:]
    change = torch.empty(shape, memory_format=torch.channels_last)
    top = 0
    step = _step(network, image)
    strips = _strips(network, rows, image, step)
    for part in through(_whole(network, step), strips):
        shuffled = F.pixel_shuffle(part, network.unshuffle)
        change[:, :, top : top + shuffled.shape[2]] = shuffled
        top += shuffled.shape[2]
        advanced(top / image.shape[2])
    return change


def stream_deep_features(network: ResUNet, image: Tensor) -> Tensor:
    """Find the features of a network's lowest level.

    Parameters
    ----------
    network : ResUNet
        As for `stream_change`.
    image : Tensor
        (N, C, H, W), with extra channels.

    Returns
    -------
    Tensor
        (N, C', H / multiple_of, W / multiple_of).
    """

    def rows(top: int, bottom: int) -> Tensor:
        return image[:, :, top:bottom]

    strips = _strips(network, rows, image, _step(network, image))
    parts = through(_way_down(network, []), strips)
    return torch.cat([part.clone() for part in parts], 2)
