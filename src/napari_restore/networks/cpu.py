"""The quick way through U-Nets on processors: a few rows at a time, on every core.

Rows pass through all layers before the next ones come; each layer keeps the few that the next will
have to see with them. Nothing is computed twice and the result is that of the whole image, but what
lies between the layers stays in the processor's cache, and memory depends on the width of an image
alone. Source of the idea: Alwani et al., "Fused-Layer CNN Accelerators", MICRO 2016.

Each thread takes its rows through all layers, and so finds in its own cache what the layer before
has computed. The next thread follows with the next rows, one layer behind or more. Every layer sees
its rows in order, so results do not depend on the number of threads.

Convolutions of 3×3 pixels take a third of the multiplications. Source: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016: minimal filtering, F(4×4, 3×3). Blocks of
4×4 pixels of the result come from 6×6 of the input; both are transformed by fixed matrices, between
which the sums over the channels take 36 multiplications where the plain convolution takes 144. In
float32 results differ by some millionths.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.runtime import advanced, check, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


#: Rows (N, C, h, W), and whether they are the last.
Rows: TypeAlias = tuple[Tensor, bool]
_Result = TypeVar("_Result")

#: Of the features of the rows that come in at once.
STRIP_BYTES = 2**22
#: Channels, in and out, from which minimal filtering is worth its time: measured.
FEWEST_CHANNELS = 64
#: Blocks that are transformed at once: they should stay in the processor's cache.
_BLOCKS = 128
#: Bytes of the rows of an image that are convolved at a time.
_FRAME_BYTES = 2**23


# ---------------------------------------------------------------- memory


class _Scratch(threading.local):
    """Memory by name, kept for each thread.

    Taken anew each time, it would be cold in the processor's cache, or have to be cleared by the
    system first: convolutions were measured to take half as long again.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Take memory of any content; what was taken by that name before is overwritten."""
        size = math.prod(shape)
        memory = self._memory.get((name, dtype))
        if memory is None or len(memory) < size:
            # It may be taken in inference mode, and again outside of it.
            with torch.inference_mode(False):
                memory = self._memory[name, dtype] = torch.empty(size, dtype=dtype)
        return memory[:size].view(shape)


scratch = _Scratch()


# ---------------------------------------------------------------- minimal filtering

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


# ---------------------------------------------------------------- rows in turns


class Stage(Protocol):
    """A part of a network to which rows are pushed in order."""

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        """Take rows, give those of the result that are ready, if any; after the last come the last.

        The next push in the same thread overwrites what comes back, if it is a single one.
        """
        ...


@lru_cache(maxsize=1)
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that help, kept: each one keeps memory for what networks compute."""
    return ThreadPoolExecutor(count, thread_name_prefix="napari-restore-rows")


def _as_here(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """Make a function compute in another thread as torch does in this one, with one thread."""
    inference, autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def call() -> _Result:
        torch.set_num_threads(1)
        with torch.inference_mode(inference), torch.autocast("cpu", dtype, enabled=autocast):
            return function()

    return call


class _Last:
    """Hands the result over."""

    def __init__(self, take: Callable[[Tensor], None]) -> None:
        self._take = take

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        self._take(x)
        return []


class _Portion(NamedTuple):
    """Rows on their way.

    Attributes
    ----------
    order : tuple of int
        Sorts portions as a single thread would push them.
    place, turn : int
        The stage that they come to, and how many portions it has before.
    rows : (Tensor, bool)
    """

    order: tuple[int, ...]
    place: int
    turn: int
    rows: Rows


class Chain:
    """Stages through which each thread takes portions of rows, from the first to the last.

    A thread that needs work takes the first of the portions that were left, so that nobody waits
    for one that nobody takes: whoever left it comes back for it, after what comes before.

    Parameters
    ----------
    stages : sequence of Stage
    source : iterator of (Tensor, bool)
    take : callable
        Gets the rows of the result in order; the next ones overwrite them.
    """

    def __init__(
        self, stages: Sequence[Stage], source: Iterator[Rows], take: Callable[[Tensor], None]
    ) -> None:
        self._stages, self._source = [*stages, _Last(take)], source
        #: How many portions each stage will get, as far as is known, and how many it has had.
        self._promised, self._had = [0] * len(self._stages), [0] * len(self._stages)
        #: Portions under way, and those of them that no thread has.
        self._open, self._left = 0, list[_Portion]()
        self._taking, self._changed = threading.Lock(), threading.Condition()
        self._failed = False

    def run(self) -> None:
        """Push all rows, on as many threads as torch has in this one."""
        threads = torch.get_num_threads()
        # Whole strips in parallel: threads that share each small operation wait for each other.
        torch.set_num_threads(1)
        helpers = [
            _helpers(threads - 1).submit(contextvars.copy_context().run, _as_here(self._work))
            for _ in range(threads - 1)
        ]
        try:
            self._work()
        finally:
            torch.set_num_threads(threads)
            # One that has begun may still be at work, and keeps memory that the next image wants.
            begun = [helper for helper in helpers if not helper.cancel()]
            wait(begun)
            del helpers
        while begun:
            # An error keeps no list of those that have it: its traceback holds large tensors.
            begun.pop().result()

    def _work(self) -> None:
        """Take portions through the stages until none is left."""
        try:
            while (portion := self._take()) is not None:
                following: _Portion | None = portion
                while following is not None:
                    if not self._await(following.place, following.turn):
                        return
                    following = self._push(following)
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def _take(self) -> _Portion | None:
        """Take what another thread left, or else rows from the source; None at the end."""
        with self._taking:
            with self._changed:
                if self._left and not self._failed:
                    return heappop(self._left)
            rows = None if self._failed else next(self._source, None)
            with self._changed:
                if rows is not None:
                    self._open += 1
                    (turn,) = self._promise(0, 1)
                    return _Portion((turn,), 0, turn, rows)
                # Whoever has the last rows may leave some.
                self._changed.wait_for(lambda: self._failed or self._left or not self._open)
                return heappop(self._left) if self._left and not self._failed else None

    def _push(self, portion: _Portion) -> _Portion | None:
        """Push a portion through its stage; give what comes of it first, and leave the rest."""
        order, place, _, rows = portion
        results = self._stages[place].push(*rows)
        turns = self._promise(place + 1, len(results))
        found = [
            _Portion((*order, number), place + 1, turn, result)
            for number, (turn, result) in enumerate(zip(turns, results, strict=True))
        ]
        with self._changed:
            self._had[place] += 1
            self._open += len(results) - 1
            for further in found[1:]:
                heappush(self._left, further)
            self._changed.notify_all()
        return found[0] if found else None

    def _promise(self, place: int, count: int) -> range:
        """Give the next turns of a stage; whoever asks has the turn of the stage before."""
        if not count:
            return range(0)
        first = self._promised[place]
        self._promised[place] += count
        return range(first, first + count)

    def _await(self, place: int, turn: int) -> bool:
        """Wait for the turn of a portion; False if another thread has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._had[place] == turn)
            return not self._failed


# ---------------------------------------------------------------- stages


class _Conv:
    """A 3×3 convolution with a border of zeros."""

    def __init__(self, conv: nn.Conv2d | WinogradConv2d, name: str = "frame") -> None:
        self._conv, self._name = conv, name
        #: How many rows came.
        self.came = 0
        self._kept: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        frame, rows = self.put(x, last)
        return [(self.convolve(frame, rows, x.shape[3]), last)] if rows > 2 else []

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


class _Residual(Protocol):
    """Two convolutions around a rectifier, added to what comes in."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d


class _Block:
    """A residual block."""

    def __init__(self, block: _Residual) -> None:
        self._first, self._second = _Conv(block.conv1, "outer frame"), _Conv(block.conv2)
        self._done = 0

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        width = x.shape[3]
        outer, rows = self._first.put(x, last)
        if rows < 3:
            return []
        features = self._first.convolve(outer, rows, width)
        inner, inner_rows = self._second.put(features, last, rectify=True)
        if inner_rows < 3:
            return []
        change = self._second.convolve(inner, inner_rows, width)
        # The frame's first row is one of those that came before, or the border.
        start = self._done - (self._first.came + last - rows)
        self._done += change.shape[2]
        same = outer[:, start : start + change.shape[2], 1 : width + 1]
        return [(change.add_(same.permute(0, 3, 1, 2)), last)]


class _Down:
    """A convolution of 2×2 pixels without overlap."""

    def __init__(self, conv: nn.Module) -> None:
        self._conv = conv
        self._odd: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        if self._odd is not None:
            x = torch.cat([self._odd, x], 2)
        even = x.shape[2] // 2 * 2
        self._odd = x[:, :, even:].clone() if even < x.shape[2] else None
        return [(self._conv(x[:, :, :even]), last)] if even else []


class _Fork:
    """Lets features pass, and keeps them for the way up."""

    def __init__(self) -> None:
        self.kept: deque[Tensor] = deque()

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        self.kept.append(x.clone())
        return [(x, last)]


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

    def push(self, x: Tensor, last: bool) -> list[Rows]:
        parts = self._up(x).split(self._most, 2)
        for part in parts:
            self._add_kept(part)
        return [(part, last and part is parts[-1]) for part in parts]

    def _add_kept(self, rows: Tensor) -> None:
        done = 0
        while done < rows.shape[2]:
            kept = self._kept.popleft()
            count = min(kept.shape[2], rows.shape[2] - done)
            rows[:, :, done : done + count] += kept[:, :, :count]
            if count < kept.shape[2]:
                self._kept.appendleft(kept[:, :, count:])
            done += count


# ---------------------------------------------------------------- networks


class ByRows(Protocol):
    """What is asked of a network that goes by rows; `ResUNet` is one.

    Each level has residual blocks on the way down and on the way up, and on the way up gets the
    features that it had on the way down.
    """

    unshuffle: int
    intro: nn.Conv2d
    encoders: nn.ModuleList
    downs: nn.ModuleList
    middle: nn.Sequential
    ups: nn.ModuleList
    decoders: nn.ModuleList
    ending: nn.Conv2d


def _blocks(blocks: nn.Module) -> list[Stage]:
    return [_Block(block) for block in blocks.children()]  # type: ignore[arg-type]


def _way_down(network: ByRows, forks: list[_Fork]) -> list[Stage]:
    """Stages down to the lowest level; its forks are added to a list."""
    stages: list[Stage] = [_Conv(network.intro)]
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        forks.append(_Fork())
        stages += [*_blocks(encoder), forks[-1], _Down(down)]
    return stages + _blocks(network.middle)


def _whole(network: ByRows, step: int) -> list[Stage]:
    """All stages, for strips of so many rows."""
    forks: list[_Fork] = []
    stages = _way_down(network, forks)
    for depth, (up, decoder) in enumerate(zip(network.ups, network.decoders, strict=True), 1):
        most = step // 2 ** (len(network.ups) - depth)
        stages += [_Join(up, forks[-depth], most), *_blocks(decoder)]
    return [*stages, _Conv(network.ending)]


def _step(network: ByRows, like: Tensor) -> int:
    """Rows of a strip: whole blocks of minimal filtering at every level."""
    width = like.shape[3] // network.unshuffle
    row = len(like) * width * int(network.intro.out_channels) * like.element_size()
    step: int = 4 * 2 ** len(network.downs)
    return step * max(1, STRIP_BYTES // (row * step))


def _strips(
    network: ByRows, rows: Callable[[int, int], Tensor], like: Tensor, step: int
) -> Iterator[Rows]:
    factor = network.unshuffle
    height = like.shape[2] // factor
    for top, bottom in pairwise([*range(0, height, step), height]):
        check()
        yield F.pixel_unshuffle(rows(factor * top, factor * bottom), factor), bottom == height


def stream_change(network: ByRows, rows: Callable[[int, int], Tensor], image: Tensor) -> Tensor:
    """Find what a network adds to an image, but for the mean that it may take out.

    Parameters
    ----------
    network : ByRows
        On a processor, without normalization, in inference.
    rows : callable
        Gives all channels of some rows: takes the first of them and that after the last.
    image : Tensor
        (N, C, H, W), as for its `forward`; its extra channels do not matter.

    Returns
    -------
    Tensor
        (N, C, H, W), float32, channels last; with what comes out beside.
    """
    channels = network.ending.out_channels // network.unshuffle**2
    shape = len(image), channels, *image.shape[2:]
    change = torch.empty(shape, memory_format=torch.channels_last)
    top, step = 0, _step(network, image)

    def take(part: Tensor) -> None:
        nonlocal top
        shuffled = F.pixel_shuffle(part, network.unshuffle)
        change[:, :, top : top + shuffled.shape[2]] = shuffled
        top += shuffled.shape[2]
        advanced(top / image.shape[2])

    strips = _strips(network, rows, image, step)
    Chain(_whole(network, step), strips, take).run()
    return change


def stream_changes(network: ByRows, images: Tensor) -> Tensor:
    """Find what a network adds to each of some images: one of them for each core at a time.

    Small images have too few rows for all cores to follow each other through the layers.

    Parameters
    ----------
    network : ByRows
        As for `stream_change`.
    images : Tensor
        (N, C, H, W), with extra channels.

    Returns
    -------
    Tensor
        As from `stream_change`.
    """

    def alone(image: Tensor) -> Tensor:
        return stream_change(network, lambda top, bottom: image[:, :, top:bottom], image)

    if len(images) == 1:
        return alone(images)
    each = [_as_here(partial(alone, image)) for image in images.split(1)]
    return torch.cat(side_by_side(each))


def stream_deep_features(network: ByRows, image: Tensor) -> Tensor:
    """Find the features of a network's lowest level.

    Parameters
    ----------
    network : ByRows
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
    parts: list[Tensor] = []
    Chain(_way_down(network, []), strips, lambda part: parts.append(part.clone())).run()
    return torch.cat(parts, 2)
