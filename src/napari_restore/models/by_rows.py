"""Run a U-Net a few rows at a time, on processors.

Rows pass through all layers before the next ones come; each layer keeps the few that the next will
have to see with them. Nothing is computed twice and the result is that of the whole image, but what
lies between the layers stays in the processor's cache, and memory depends on the width of an image
alone. Source of the idea: Alwani et al., "Fused-Layer CNN Accelerators", MICRO 2016.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.core.watch import advanced, check

from .scratch import scratch
from .winograd import WinogradConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .resunet import ResidualBlock, ResUNet

#: Of the features of the rows that come in at once.
STRIP_BYTES = 2**23
#: Rows (N, C, h, W), and whether they are the last.
Rows: TypeAlias = tuple[Tensor, bool]


class _Stage(Protocol):
    """A part of a network to which rows are pushed."""

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        """Take rows, give those of the result that are ready, if any; after the last come the last.

        What comes back is overwritten by the next push.
        """
        ...


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


class _Chain:
    """Stages one after another."""

    def __init__(self, stages: Iterable[_Stage]) -> None:
        self._stages = list(stages)

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        rows: Iterator[Rows] = iter([(x, last)])
        for stage in self._stages:
            rows = _through(stage, rows)
        return rows


def _through(stage: _Stage, rows: Iterator[Rows]) -> Iterator[Rows]:
    for x, last in rows:
        yield from stage.push(x, last)


class _Level:
    """A level of a U-Net, with all that are below it."""

    def __init__(self, encoder: _Stage, below: _Stage, up: nn.Module, decoder: _Stage) -> None:
        self._encoder, self._below, self._up, self._decoder = encoder, below, up, decoder
        #: Rows that wait until those from below come, and how many came at once.
        self._skipping: deque[Tensor] = deque()
        self._most = 0

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        for features, no_more in self._encoder.push(x, last):
            self._skipping.append(features.clone())
            self._most = max(self._most, features.shape[2])
            for deep, deepest in self._below.push(features, no_more):
                yield from _through(self._decoder, self._rise(deep, deepest))

    def _rise(self, deep: Tensor, last: bool) -> Iterator[Rows]:
        """From the level below. All that is left comes at the end, and goes on in portions."""
        up = self._up(deep)
        for top in range(0, up.shape[2], self._most):
            part = up[:, :, top : top + self._most]
            self._add_skipping(part)
            yield part, last and top + self._most >= up.shape[2]

    def _add_skipping(self, rows: Tensor) -> None:
        done = 0
        while done < rows.shape[2]:
            skip = self._skipping.popleft()
            count = min(skip.shape[2], rows.shape[2] - done)
            rows[:, :, done : done + count] += skip[:, :, :count]
            if count < skip.shape[2]:
                self._skipping.appendleft(skip[:, :, count:])
            done += count


def _blocks(blocks: nn.Module) -> _Chain:
    return _Chain(_Block(block) for block in blocks.children())  # type: ignore[arg-type]


def _whole(network: ResUNet) -> _Stage:
    stage: _Stage = _blocks(network.middle)
    parts = zip(
        reversed(network.encoders),
        reversed(network.downs),
        network.ups,
        network.decoders,
        strict=True,
    )
    for encoder, down, up, decoder in parts:
        stage = _Level(_blocks(encoder), _Chain([_Down(down), stage]), up, _blocks(decoder))
    return _Chain([_Conv(network.intro), stage, _Conv(network.ending)])


def _way_down(network: ResUNet) -> _Stage:
    stages: list[_Stage] = [_Conv(network.intro)]
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        stages += [_blocks(encoder), _Down(down)]
    return _Chain([*stages, _blocks(network.middle)])


def _pushed(
    network: ResUNet, rows: Callable[[int, int], Tensor], like: Tensor, stage: _Stage
) -> Iterator[Tensor]:
    """Push an image through a stage; yield rows of the result, which are overwritten later."""
    factor = network.unshuffle
    height, width = like.shape[2] // factor, like.shape[3] // factor
    row = len(like) * width * network.intro.out_channels * like.element_size()
    # Whole blocks of minimal filtering at every level.
    step = 4 * 2 ** len(network.downs)
    step *= max(1, STRIP_BYTES // (row * step))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        check()
        strip = F.pixel_unshuffle(rows(factor * top, factor * bottom), factor)
        for part, _ in stage.push(strip, bottom == height):
            yield part


def change_by_rows(network: ResUNet, rows: Callable[[int, int], Tensor], image: Tensor) -> Tensor:
    """Find what a network adds to an image, but for the mean that it may take out.

    Parameters
    ----------
    network : ResUNet
        On a processor, without normalisation, in inference.
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
    for part in _pushed(network, rows, image, _whole(network)):
        shuffled = F.pixel_shuffle(part, network.unshuffle)
        change[:, :, top : top + shuffled.shape[2]] = shuffled
        top += shuffled.shape[2]
        advanced(top / image.shape[2])
    return change


def deep_by_rows(network: ResUNet, image: Tensor) -> Tensor:
    """Find the features of a network's lowest level.

    Parameters
    ----------
    network : ResUNet
        As for `change_by_rows`.
    image : Tensor
        (N, C, H, W), with extra channels.

    Returns
    -------
    Tensor
        (N, C', H / multiple_of, W / multiple_of).
    """
    parts = _pushed(network, lambda top, bottom: image[:, :, top:bottom], image, _way_down(network))
    return torch.cat([part.clone() for part in parts], 2)
