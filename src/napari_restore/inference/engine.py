"""Run a network over an image of any size, tile by tile.

The engine takes any `Predictor`, reads through `Planes`, and tells the watch around it after every
batch of tiles, and while they are computed, how far it is.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

from napari_restore.errors import DeviceError
from napari_restore.image.intensity import (
    BAND,
    SQUARE,
    Place,
    add_residual,
    as_seen,
    as_they_are,
    between_bars,
    find_gaps,
    fit_float32,
    is_even,
    normalized,
    with_alpha,
    without_value,
)
from napari_restore.image.layout import Grid, Region, TileOptions, reflect, split
from napari_restore.runtime import (
    LOOK,
    Watch,
    free_memory,
    is_out_of_memory,
    memory_left,
    tell,
    torch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes

    #: Windows (places, h, w, C), samples or what the network sees; context and boxes.
    Seen: TypeAlias = tuple[NDArray[Any], torch.Tensor | None, torch.Tensor]
    #: Places in a batch, and what the network changes there (places, h, w, C), or their samples.
    Changes: TypeAlias = "list[tuple[list[int], NDArray[np.float32] | TilesInTransfer]]"


def run(
    source: Planes,
    target: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    *,
    tiles: TileOptions,
    strength: float = 1.0,
    regions: Iterable[tuple[tuple[int, ...], Region]] | None = None,
    contexts: Contexts | None = None,
    report: Report | None = None,
) -> None:
    """Restore regions of planes from ``source`` into ``target``.

    Parameters
    ----------
    source, target : Planes
        Of the same layout; each may be a window of the image.
    predictor : Predictor
    scales : sequence of Scale
        One for each channel of the layout.
    tiles : TileOptions
    strength : float
        0 keeps the input, 1 is the full result, linear between.
    regions : iterable of (plane index, Region), optional
        What to compute; without it, everything.
    contexts : Contexts, optional
        Global contexts of the planes, if the predictor wants them. Without it, ``source`` must be
        the whole image.
    report : Report, optional
        Filled in along the way.

    Raises
    ------
    DeviceError
        If memory runs out at a tile size that the user chose, or on the CPU.
    Stopped
        If nobody waits for the result any more.
    """
    layout = source.layout
    if layout.pixels == 0:
        return
    report = Report() if report is None else report
    report.device = predictor.device
    if regions is None:
        whole = Region(0, 0, *layout.size)
        total, regions = layout.pixels, ((index, whole) for index in layout.indices())
    else:
        regions = list(regions)
        total = sum(region.pixels for _, region in regions)
    queue, contexts, done = TileQueue(regions, tiles), contexts or Contexts(source, scales), 0
    jobs, batch, computed = queue.take(), None, None
    watch = Watch()
    # While a network computes, the last tiles are written and the next ones read.
    thread = ThreadPoolExecutor(1, thread_name_prefix="napari-restore-tiles")
    try:
        while jobs or computed:
            computing, following, changes = None, None, None
            if jobs:
                batch = batch or unless_full(read_batch, jobs, source, predictor, scales, contexts)
            if batch:
                watch = Watch()
                computing = thread.submit(
                    watch.run, unless_full, _compute, batch, predictor, strength
                )
            if computed:
                write_batch(*computed, target, strength, report)
                contexts.trim()
                done += sum(job.tile.pixels for job in computed[0].jobs)
                computed = None
                tell(done, total, report.notes[-1] if report.notes else "")
            if computing:
                if further := queue.take():
                    following = unless_full(
                        read_batch, further, source, predictor, scales, contexts
                    )
                    if following is None:
                        # It may fit when nothing else is in memory.
                        queue.put_back(further)
                pixels = sum(job.tile.pixels for job in batch.jobs) if batch else 0
                while not wait([computing], LOOK).done:
                    # Also where nothing is known between tiles: the caller may want to stop.
                    tell(done + int(watch.share * pixels), total)
                changes = computing.result()
            if batch and changes:
                computed = batch, changes
                batch, jobs = following, following.jobs if following else queue.take()
            elif jobs:
                queue.put_back(following.jobs if following else [])
                batch = computing = following = None
                note, predictor = step_down(queue, jobs, predictor, contexts)
                report.device = predictor.device
                report.notes.append(note)
                jobs = queue.take()
    finally:
        # Nobody waits for a tile that is not wanted any more, and it ends between its rows.
        watch.stop()
        thread.shutdown(wait=False, cancel_futures=True)


def _compute(batch: Batch, predictor: Predictor, strength: float) -> Changes:
    """Find what the network changes."""
    changes: Changes = []
    for group, (windows, context, boxes) in batch.groups:
        if batch.sent:
            crops = [batch.crops[place] for place in group]
            scales = [batch.scales[place] for place in group]
            found = restore_samples(windows, crops, scales, predictor, context, boxes, strength)
            changes.append((group, found))
            continue
        tensor = torch.from_numpy(windows).permute(0, 3, 1, 2)
        with torch.inference_mode():
            restored = predictor(tensor, context, boxes)
            seen = tensor[:, : restored.shape[1]]
            # In its place: with large tiles, this is most of the memory.
            change = restrain(restored.sub_(seen), seen, predictor.halo // 2)
            for number, place in enumerate(group):
                scale = batch.scales[place]
                if scale.few and scale.span and batch.originals[place].dtype.kind == "u":
                    black = -scale.low / scale.span
                    change[number] = not_below(change[number], seen[number], black)
        changes.append((group, change.permute(0, 2, 3, 1).numpy()))
    return changes


class Predictor(Protocol):
    """A network on a device, as the engine sees it.

    Attributes
    ----------
    multiple_of, halo : int
        Size requirement of the network, and pixels that influence a tile.
    view : int
        Longest side of the low-resolution view of a whole plane that it wants, 0 for none.
    estimates_blur : bool
        Whether it can `estimate` how blurred an image is.
    frames : int
        How many consecutive frames it looks at to restore the first of them, 1 or 2; of two, it
        gets the channels of both.
    device : str
    takes_device_tiles : bool
        Whether it also restores tiles that are on its device, and leaves the result there.
    """

    multiple_of: int
    halo: int
    view: int
    estimates_blur: bool
    frames: int
    device: str
    takes_device_tiles: bool

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """Global context of a plane from its view (1, C, h, w), and what all planes share."""
        ...

    def merge_contexts(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Find what planes of one image share from the contexts of some."""
        ...

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore float32 tiles (N, C, h, w), which come and go on the CPU.

        Tiles and result belong to the engine, which may overwrite them.

        ``boxes`` (N, 4) holds the place of each tile in its plane: top, left, bottom, right as
        shares of height and width.
        """
        ...

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Share of the light that came through haze, (N, 1, h, w); needs a view."""
        ...

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate what degraded (N, C, h, w): (N, 2, E, h', w'), means and log variances."""
        ...

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        """Motion in tiles, (N, 2, h / cell, w / cell), pixels (y, x), each a mean over a cell.

        From two frames it is that from the first to the second; from one, the way of the blur, up
        to its sign. Incomplete cells at the end count.
        """
        ...

    def to_cpu(self) -> Predictor:
        """Return the same predictor on the CPU."""
        ...


@dataclass
class Report:
    """What happened while restoring, filled in as it happens.

    Attributes
    ----------
    clipped : int
        Samples that left the range of an integer dtype and were clipped.
    invalid : int
        Samples without a value, NaN, infinite or marked as missing, kept as they were.
    held : int
        Samples that left the range of the image and were held in it.
    notes : list of str
        Anything the user should be told, such as a fall back to the CPU.
    device : str
        Where the last tile was computed.
    light_before, light_after : float
        Sums of the samples that were restored.
    no_light : bool
        Whether any of them was negative, so that their sum means nothing.
    """

    clipped: int = 0
    invalid: int = 0
    notes: list[str] = field(default_factory=list)
    device: str = ""
    held: int = 0
    light_before: float = 0.0
    light_after: float = 0.0
    no_light: bool = False

    def add(self, part: Report) -> None:
        """Count in what happened to a part; a note that is there already is not repeated."""
        self.clipped += part.clipped
        self.invalid += part.invalid
        self.held += part.held
        self.notes += [note for note in part.notes if note not in self.notes]
        self.light_before += part.light_before
        self.light_after += part.light_after
        self.no_light |= part.no_light

    @property
    def light(self) -> float:
        """Share of the light that the result has; 1 where that means nothing."""
        if self.no_light or not self.light_before > 0:
            return 1.0
        return self.light_after / self.light_before


def default_tiles(device: str) -> TileOptions:
    """Tile options that suit a device when the user does not choose."""
    if device == "cpu":
        # The halo costs a fifth of the time.
        return TileOptions(2048)
    free = memory_left(device)
    if free is None:
        return TileOptions(640)
    # About 700 bytes of activations for each pixel of the bundled networks, half for the rest. One
    # tile of 4096 pixels keeps the largest card busy, and its halo costs an eighth; with more at
    # once, reading would wait for writing.
    side = int(min(4096, max(256, (free / 2 / 700) ** 0.5))) // 64 * 64
    return TileOptions(side, small=64)


Result = TypeVar("Result")


#: Standard deviation of the Gaussian of `SmoothChange`, in sizes of the structures that stay.
WIDTH = 1.5


def halo_with(halo: int, size: float) -> int:
    """Halo in pixels of a predictor whose change is blurred for structures of a size."""
    return halo + math.ceil(3 * WIDTH * size) if size else halo


#: Smallest tile side that the memory ladder goes down to before it leaves the GPU.
SMALLEST_TILE = 128


@dataclass(frozen=True)
class Job:
    """One tile of one plane."""

    index: tuple[int, ...]
    tile: Region


class TileQueue:
    """Tiles in order, handed out in batches.

    Parameters
    ----------
    regions : iterable of (plane index, Region)
    tiles : TileOptions
    """

    def __init__(
        self, regions: Iterable[tuple[tuple[int, ...], Region]], tiles: TileOptions
    ) -> None:
        self._fixed, self._side = tiles.fixed, tiles.side
        self._batch, self._small = tiles.batch, tiles.small
        self._stream: Iterator[Job] = (
            Job(index, tile) for index, region in regions for tile in split(region, tiles.side)
        )
        self._waiting: deque[Job] = deque()

    def take(self) -> list[Job]:
        """Next jobs in a row whose tiles have one shape; empty at the end."""
        self._wait_for(1)
        most = self._most_like(self._waiting[0].tile) if self._waiting else 0
        self._wait_for(most)
        batch: list[Job] = []
        while self._waiting and len(batch) < most:
            shape = self._waiting[0].tile.height, self._waiting[0].tile.width
            if batch and shape != (batch[0].tile.height, batch[0].tile.width):
                break
            batch.append(self._waiting.popleft())
        return batch

    def _wait_for(self, count: int) -> None:
        self._waiting.extend(islice(self._stream, max(0, count - len(self._waiting))))

    def _most_like(self, tile: Region) -> int:
        """How many tiles of that shape are taken at once."""
        room = self._batch * self._side**2 // tile.pixels
        return max(self._batch, min(self._small, room))

    def put_back(self, jobs: list[Job]) -> None:
        """Take jobs back; they come next."""
        self._waiting.extendleft(reversed(jobs))

    def put_back_smaller(self, batch: list[Job], device: str) -> str | None:
        """Take back a batch that did not fit in memory, and go down one step.

        Returns
        -------
        str or None
            What changed, for the user; None if only another device is left.

        Raises
        ------
        DeviceError
            If the tile would have to be smaller than the user chose it, or there is no step left.
        """
        self.put_back(batch)
        if len(batch) > 1:
            self._small = len(batch) // 2
            self._batch = min(self._batch, self._small)
            return f"Memory ran out; going on with {self._small} tiles at a time."
        if self._fixed:
            raise DeviceError(
                f"Memory of {device} ran out at the chosen tile of {self._side} pixels. Choose a "
                "smaller tile, or 'auto'."
            )
        if self._side <= SMALLEST_TILE:
            if device == "cpu":
                raise DeviceError(
                    f"Memory ran out even with tiles of {SMALLEST_TILE} pixels. Close other "
                    "programs and try again."
                )
            return None
        self._side //= 2
        self._waiting = deque(self._cut(self._waiting))
        self._stream = self._cut(self._stream)
        return f"Memory ran out; going on with tiles of {self._side} pixels."

    def _cut(self, jobs: Iterable[Job]) -> Iterator[Job]:
        side = self._side
        return (Job(job.index, tile) for job in jobs for tile in split(job.tile, side))


def unless_full(step: Callable[..., Result], *arguments: Any) -> Result | None:
    """Do a step; None if memory ran out. Tensors that its traceback would hold are let go."""
    try:
        return step(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def step_down(
    queue: TileQueue, jobs: list[Job], predictor: Predictor, contexts: Contexts | None
) -> tuple[str, Predictor]:
    """Take back tiles that did not fit in memory, and go down one step: at last to the CPU.

    Returns
    -------
    str, Predictor
        What changed, for the user, and the predictor that goes on.
    """
    free_memory(predictor.device)
    note = queue.put_back_smaller(jobs, predictor.device)
    if note is None:
        note = f"Memory of {predictor.device} ran out; going on with the CPU."
        predictor = predictor.to_cpu()
        if contexts is not None:
            contexts.to_cpu()
    return note, predictor


def for_each_tile(
    regions: Iterable[tuple[tuple[int, ...], Region]],
    side: int,
    predictor: Predictor,
    find: Callable[[Job, Predictor], Result],
    *,
    total: int,
    message: str,
    contexts: Contexts | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Find something in one tile after another; when memory runs out, go on in smaller ones.

    Parameters
    ----------
    regions : iterable of (plane index, Region)
    side : int
        Of the tiles, in pixels. What becomes smaller is a half, a quarter and so on.
    predictor : Predictor
        At last, another on the CPU takes its place.
    find : callable
        Gets a tile and the predictor.
    total : int
        Pixels of all regions.
    message : str
        What the watch is told.
    contexts : Contexts, optional
        That ``find`` uses.

    Yields
    ------
    Job, result
    """
    queue, done = TileQueue(regions, TileOptions(side)), 0
    while jobs := queue.take():
        (job,) = jobs
        found = unless_full(find, job, predictor)
        if found is None:
            message, predictor = step_down(queue, jobs, predictor, contexts)
            continue
        yield job, found
        done += job.tile.pixels
        tell(done, total, message)


@dataclass
class Batch:
    """Tiles that were read.

    Attributes
    ----------
    jobs : list of Job
    places : list of Region
        What is converted of each: itself, and of few counts the squares around it, see
        `napari_restore.image.intensity.Place`.
    originals : list of ndarray
        Its samples, as they are.
    crops : list of (slice, slice)
        Rows and columns of each in the window that the network sees.
    scales : list of Scale
        Of each.
    groups : list of (places, arguments)
        What the predictor gets, for the tiles whose windows have one shape.
    gaps : list of ndarray or None
        Samples of each that stay as they are.
    sent : bool
        Whether they are samples as they are.
    """

    jobs: list[Job]
    places: list[Region] = field(default_factory=list)
    originals: list[NDArray[Any]] = field(default_factory=list)
    crops: list[tuple[slice, slice]] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    gaps: list[NDArray[np.bool_] | None] = field(default_factory=list)
    groups: list[tuple[list[int], Seen]] = field(default_factory=list)
    sent: bool = False


def read_batch(
    jobs: list[Job],
    source: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    contexts: Contexts,
) -> Batch:
    """Read tiles with what is around them, as the network wants them."""
    layout, batch = source.layout, Batch(jobs)
    grid = Grid(layout.size, predictor.multiple_of, predictor.halo)
    windows, seen = [grid.window(job.tile) for job in jobs], []
    places = [grid.inside(window) for window in windows]
    blocks = [source.read(job.index, inside) for job, inside in zip(jobs, places, strict=True)]
    batch.scales = [scales[layout.group(job.index)] for job in jobs]
    whole = [
        _as_they_are(source, job.index, inside, predictor, block, scale)
        for job, inside, block, scale in zip(jobs, places, blocks, batch.scales, strict=True)
    ]
    batch.sent = all(samples is not None for samples in whole)
    for number, (job, window) in enumerate(zip(jobs, windows, strict=True)):
        inside, block, around, gaps = places[number], blocks[number], whole[number], None
        place = job.tile
        if batch.scales[number].few and predictor.halo >= SQUARE:
            place = squares_around(job.tile, layout.size)
        batch.places.append(place)
        kept = crop_of(place, inside)
        if not batch.sent or around is None:
            scale = batch.scales[number]
            around, gaps = normalized(source, job.index, inside, scale, predictor.frames, block)
        seen.append(reflect(around, inside, window, layout.size))
        batch.originals.append(block[kept])
        batch.gaps.append(None if gaps is None else gaps[kept])
        batch.crops.append(crop_of(place, window))
    for group in _same_shape(seen):
        frames = seen[group[0]][None] if len(group) == 1 else np.stack([seen[i] for i in group])
        context, boxes = None, torch.zeros(len(group), 4)
        if predictor.view:
            context = torch.cat([contexts.get(jobs[i].index, predictor) for i in group])
            places = [windows[i] for i in group]
            boxes = torch.tensor([place_in_view(w, scales, layout.size) for w in places])
        batch.groups.append((group, (frames, context, boxes)))
    return batch


def squares_around(tile: Region, size: tuple[int, int]) -> Region:
    """Region of all squares, see `Place`, that a tile has part in."""
    ends = [
        min(-(-end // SQUARE) * SQUARE, length) for end, length in zip(tile[2:], size, strict=True)
    ]
    return Region(tile.top // SQUARE * SQUARE, tile.left // SQUARE * SQUARE, *ends)


def crop_of(part: Region, whole: Region) -> tuple[slice, slice]:
    """Rows and columns of a region in another."""
    top, left = part.top - whole.top, part.left - whole.left
    return slice(top, top + part.height), slice(left, left + part.width)


def _as_they_are(
    source: Planes,
    index: tuple[int, ...],
    inside: Region,
    predictor: Predictor,
    block: NDArray[Any],
    scale: Scale,
) -> NDArray[Any] | None:
    """Read samples that a device can scale and round itself; None if there is more to do."""
    if not are_sent(block.dtype, predictor) or scale.few or scale.holds or scale.missing:
        return None
    channels, size = source.layout.channels, source.layout.size
    samples = as_they_are(source, index, inside, predictor.frames, block)
    rows, columns = range(inside.top, inside.bottom), range(inside.left, inside.right)
    for frame in [block, *([samples[..., channels:]] if predictor.frames == 2 else [])]:
        if find_gaps(frame, scale, channels, rows, columns, size) is not None:
            return None
    return None if predictor.frames == 2 and is_even(samples[..., channels:]) else samples


def write_batch(
    batch: Batch, changes: Changes, target: Planes, strength: float, report: Report
) -> None:
    """Write the restored tiles; count in the report what was not written as it was restored."""
    for group, found in changes:
        if isinstance(found, TilesInTransfer):
            for place, (samples, count) in zip(group, found.wait(), strict=True):
                job, original = batch.jobs[place], batch.originals[place]
                report.clipped += count
                _count_light(report, original[..., : samples.shape[-1]], samples)
                target.write(job.index, job.tile, with_alpha(samples, original))
            continue
        for place, residual in zip(group, found, strict=True):
            write_tile(batch, place, residual[batch.crops[place]], target, strength, report)


def write_tile(
    batch: Batch,
    number: int,
    change: NDArray[np.float32],
    target: Planes,
    strength: float,
    report: Report,
) -> None:
    """Add a change (h, w, C) to the samples of a tile, write them and count."""
    job, place, scale = batch.jobs[number], batch.places[number], batch.scales[number]
    original, gaps = batch.originals[number], batch.gaps[number]
    layout, tile = target.layout, job.tile
    if not np.isfinite(change.sum()):
        # Half precision overflows on extreme outliers; such pixels stay as they were.
        change = np.nan_to_num(change, nan=0.0, posinf=0.0, neginf=0.0)
    lengths = tuple(layout.shape[axis] for axis in layout.leading)
    plane = int(np.ravel_multi_index(job.index, lengths)) if lengths else 0
    in_squares = place == squares_around(tile, layout.size)
    for first in range(0, place.height, BAND):
        band = slice(first, first + BAND)
        start = place.top + first
        rows = place._replace(top=start, bottom=min(start + BAND, place.bottom))
        stay = None if gaps is None else gaps[band]
        where = Place(plane, rows, in_squares) if scale.few else None
        samples, *counts = add_residual(original[band], change[band], scale, strength, stay, where)
        report.clipped += counts[0]
        report.held += counts[1]
        own = rows._replace(
            top=max(start, tile.top),
            left=tile.left,
            bottom=min(rows.bottom, tile.bottom),
            right=tile.right,
        )
        inner = crop_of(own, rows)
        seen = original[band][..., : change.shape[-1]]
        _count_light(report, seen[inner], samples[inner], None if stay is None else stay[inner])
        target.write(job.index, own, samples[inner])
    # They came through unchanged; this only counts them.
    own_samples = original[crop_of(tile, place)]
    without = without_value(own_samples, original.shape[-1], scale.missing)
    report.invalid += 0 if without is None else int(np.count_nonzero(without))


def _count_light(
    report: Report,
    before: NDArray[Any],
    after: NDArray[Any],
    gaps: NDArray[np.bool_] | None = None,
) -> None:
    """Count the light of samples before and after, if it is light: not below 0."""
    if before.dtype == np.bool_ or not before.size:
        return
    after = after[..., : before.shape[-1]]
    counts: Any = True if gaps is None else ~gaps
    if before.min(where=counts, initial=0) < 0:
        report.no_light = True
    report.light_before += float(before.sum(dtype=np.float64, where=counts))
    report.light_after += float(after.sum(dtype=np.float64, where=counts))


def _same_shape(windows: list[NDArray[np.float32]]) -> list[list[int]]:
    """Positions of windows by shape: tiles at a border see less halo than those inside."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, window in enumerate(windows):
        groups.setdefault(window.shape, []).append(position)
    return list(groups.values())


#: What every device computes with; it has the bits of the other.
_STORED = {np.dtype(np.uint16): np.dtype(np.int16)}


def are_sent(dtype: np.dtype[Any], predictor: Predictor) -> bool:
    """Whether samples of a dtype go to the device as they are."""
    return fit_float32(dtype) and dtype.isnative and predictor.takes_device_tiles


@dataclass
class TilesInTransfer:
    """Samples on their way back.

    Attributes
    ----------
    samples : list of Tensor
        (h, w, C), one for each tile, with the bits of ``dtype``.
    dtype : dtype
    clipped : Tensor
        How many were clipped, for each tile.
    arrived : torch.cuda.Event or None
        Says when they are here.
    """

    samples: list[torch.Tensor]
    dtype: np.dtype[Any]
    clipped: torch.Tensor
    arrived: Any

    def wait(self) -> list[tuple[NDArray[Any], int]]:
        """Wait for the samples of each tile, and the number of them that were clipped."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return [
            (samples.numpy().view(self.dtype), int(count))
            for samples, count in zip(self.samples, self.clipped, strict=True)
        ]


def restore_samples(
    windows: NDArray[Any],
    crops: Sequence[tuple[slice, slice]],
    scales: Sequence[Scale],
    predictor: Predictor,
    context: torch.Tensor | None,
    boxes: torch.Tensor,
    strength: float,
) -> TilesInTransfer:
    """Send windows to the device of a predictor, restore them, and have the tiles sent back.

    On CUDA this returns before they arrive, so that the next windows can follow.

    Parameters
    ----------
    windows : ndarray
        (N, h, w, C), of both frames if the predictor wants two; integers of up to 16 bits.
    crops : sequence of (slice, slice)
        Rows and columns of the tile in each window.
    scales : sequence of Scale
        One for each window.
    predictor : Predictor
    context, boxes
        As the predictor takes them.
    strength : float
    """
    dtype, device = windows.dtype, predictor.device
    with torch.inference_mode():
        stored = torch.from_numpy(windows.view(_STORED.get(dtype, dtype)))
        if device.startswith("cuda"):
            stored = stored.pin_memory().to(device, non_blocking=True)
        else:
            stored = stored.to(device)
        values = _as_float(stored, dtype)
        low, span = (
            torch.tensor(numbers, dtype=torch.float32, device=values.device).view(-1, 1, 1, 1)
            for numbers in ([s.low for s in scales], [s.span or 1.0 for s in scales])
        )
        seen = ((values - low) / span).permute(0, 3, 1, 2)
        result = predictor(seen, context, boxes)
        channels = result.shape[1]
        seen = seen[:, :channels]
        change = restrain(result - seen, seen, predictor.halo // 2).permute(0, 2, 3, 1)
        # Half precision overflows on extreme outliers; such pixels stay as they were.
        change = change.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        tiles, counts = [], []
        limits = np.iinfo(dtype)
        for number, (rows, columns) in enumerate(crops):
            factor = float(np.float32(strength * scales[number].span))
            total = change[number, rows, columns] * factor
            total = (values[number, rows, columns, :channels] + total).round_()
            outside = (total < limits.min) | (total > limits.max)
            counts.append(torch.count_nonzero(outside))
            tiles.append(_as_stored(total.clamp_(limits.min, limits.max), dtype))
        return _sent_back(tiles, dtype, torch.stack(counts))


def _as_float(stored: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    values: torch.Tensor = stored.int() & 0xFFFF if dtype in _STORED else stored
    return values.float()


def _as_stored(values: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    whole = values.int()
    if dtype in _STORED:
        # As two's complement.
        whole, dtype = torch.where(whole > 0x7FFF, whole - 0x10000, whole), _STORED[dtype]
    narrow: torch.Tensor = whole.to(getattr(torch, dtype.name))
    return narrow


def _sent_back(
    tiles: list[torch.Tensor], dtype: np.dtype[Any], counts: torch.Tensor
) -> TilesInTransfer:
    device = counts.device
    if device.type != "cuda":
        return TilesInTransfer([tile.cpu() for tile in tiles], dtype, counts.cpu(), None)
    here = []
    for tensor in (*tiles, counts):
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        here.append(pinned.copy_(tensor, non_blocking=True))
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(device))
    return TilesInTransfer(here[:-1], dtype, here[-1], arrived)


#: Side of the blocks in pixels of which one at least is even where anything far from all structure
#: could be.
_BLOCK = 16
#: Pixels around one that is neutral in neutral surroundings: colors meet by chance in one alone.
_AROUND = 2
#: Pixels within which light is kept.
_LIGHT = 12
#: Pixels within which colors are seen.
_NEAR = 4


def restrain(change: torch.Tensor, seen: torch.Tensor, reach: int) -> torch.Tensor:
    """Take out of a change what nothing in the image asks for.

    Where all samples within ``reach`` are one value, there is nothing to restore: the change fades
    out on the way there. Where red, green and blue are the same, the change is the same for them.

    Parameters
    ----------
    change : Tensor
        (N, C, h, w). It may be overwritten.
    seen : Tensor
        (N, C, h, w), what the network saw.
    reach : int
        Pixels, fewer than those that the windows of tiles overlap by. Few of them, or 0 for a
        network that sees whole planes, say nothing of what is even.
    """
    if seen.shape[1] == 3:
        change = _neutral(change, seen)
    if reach >= _BLOCK:
        change = _faded(change, seen, reach)
    return change


def _neutral(change: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    colored = (seen[:, :1] != seen[:, 1:]).any(1, keepdim=True)
    if colored.all():
        return change
    side = 2 * _AROUND + 1
    near = torch.nn.functional.max_pool2d(colored.float(), side, 1, _AROUND) > 0
    neutral: Tensor = torch.where(near, change, change.mean(1, keepdim=True))
    return neutral


def _faded(change: torch.Tensor, seen: torch.Tensor, reach: int) -> torch.Tensor:
    functional = torch.nn.functional
    edges = seen.new_zeros(len(seen), 1, *seen.shape[-2:])
    for axis in (2, 3):
        length = seen.shape[axis] - 1
        differ = seen.narrow(axis, 0, length) != seen.narrow(axis, 1, length)
        for start in (0, 1):
            edges.narrow(axis, start, length)[differ.any(1, keepdim=True)] = 1
    block = min(_BLOCK, *seen.shape[-2:])
    if functional.max_pool2d(edges, block).min() > 0:
        return change
    fade = reach // 4
    near = reach - fade
    for size, padding in (((2 * near + 1, 1), (near, 0)), ((1, 2 * near + 1), (0, near))):
        edges = functional.max_pool2d(edges, size, 1, padding)
    for size, padding in (((2 * fade + 1, 1), (fade, 0)), ((1, 2 * fade + 1), (0, fade))):
        edges = functional.avg_pool2d(edges, size, 1, padding, count_include_pad=False)
    return change.mul_(edges)


def within_colors(restored: Tensor, seen: Tensor, near: int = _NEAR, beyond: float = 0.0) -> Tensor:
    """Keep the colors of a restoration among those that are seen around each place.

    Motion is common to the channels: what it mixed up was there, close by. Other colors beside an
    edge are channels that were restored differently.

    Parameters
    ----------
    restored, seen : Tensor
        (N, 3, h, w).
    near : int
        Pixels within which colors are seen.
    beyond : float
        How far colors may lie outside of what is seen, as a share of its range.

    Returns
    -------
    Tensor
        What a channel differs by from the mean of ``restored`` lies in the range of what is seen
        near by, made wider.
    """
    brightness = restored.mean(1, keepdim=True)
    colors = seen - seen.mean(1, keepdim=True)
    most, least = _largest(colors, near), -_largest(-colors, near)
    slack = beyond * (most - least)
    kept: Tensor = brightness + (restored - brightness).clamp(least - slack, most + slack)
    return kept


def _largest(values: Tensor, near: int) -> Tensor:
    for size, padding in (((2 * near + 1, 1), (near, 0)), ((1, 2 * near + 1), (0, near))):
        values = torch.nn.functional.max_pool2d(values, size, 1, padding)
    return values


def not_below(change: Tensor, seen: Tensor, black: float) -> Tensor:
    """Keep a restoration at or above black without a gain of light.

    What would be below black is clipped where samples have no sign. As much as that adds is taken
    from what is brighter around.

    Parameters
    ----------
    change, seen : Tensor
        (C, h, w).
    black : float
        In the units of ``seen``.

    Returns
    -------
    Tensor
        The change that is left.
    """
    light = seen + change - black
    above = light.clamp(min=0)
    wanted, there = (_local_mean(field[None])[0] for field in (light, above))
    return above * (wanted / there.clamp(min=1e-12)).clamp(0, 1) + black - seen


def _local_mean(field: Tensor) -> Tensor:
    pool = torch.nn.functional.avg_pool2d
    side = 2 * _LIGHT + 1
    rows = pool(field, (side, 1), 1, (_LIGHT, 0), count_include_pad=False)
    mean: Tensor = pool(rows, (1, side), 1, (0, _LIGHT), count_include_pad=False)
    return mean


#: Planes whose context is kept; a movie has thousands.
_KEPT = 64
#: Planes from which is found what all have in common.
_LOOKS = 5


class Contexts:
    """Global contexts of the planes of an image, found when first asked for.

    Parameters
    ----------
    source : Planes
        The whole image, unless all contexts that will be asked for are known.
    scales : sequence of Scale
        One for each channel of the layout.
    known : dict, optional
        Contexts by plane index. They cannot be found again from a window of the image.
    """

    def __init__(
        self,
        source: Planes,
        scales: Sequence[Scale],
        known: dict[tuple[int, ...], torch.Tensor] | None = None,
    ) -> None:
        self._source, self._scales = source, scales
        self._known = dict(known or {})
        self._keep = max(_KEPT, len(self._known))
        self._common: torch.Tensor | None = None

    def get(self, index: tuple[int, ...], predictor: Predictor) -> torch.Tensor:
        """Context of a plane."""
        if index not in self._known:
            if self._common is None:
                self._common = common_context(self._source, self._scales, predictor)
            view = plane_view(self._source, index, self._scales, predictor.view)
            self._known[index] = predictor.encode(view, self._common)
        return self._known[index]

    def trim(self) -> None:
        """Forget the oldest."""
        while len(self._known) > self._keep:
            del self._known[next(iter(self._known))]

    def to_cpu(self) -> None:
        """Bring all that is known to the CPU."""
        self._known = {index: context.cpu() for index, context in self._known.items()}
        self._common = None if self._common is None else self._common.cpu()


def common_context(
    source: Planes, scales: Sequence[Scale], predictor: Predictor
) -> torch.Tensor | None:
    """Find what all planes of an image have in common, from a few of them; None for one plane.

    In a movie the air keeps its color; found anew for every frame, it would flicker.
    """
    layout = source.layout
    if layout.planes == 1:
        return None
    lengths = [layout.shape[axis] for axis in layout.leading]
    contexts = []
    for number in np.unique(np.linspace(0, layout.planes - 1, _LOOKS).round().astype(int)):
        index = tuple(int(i) for i in np.unravel_index(int(number), lengths))
        contexts.append(predictor.encode(plane_view(source, index, scales, predictor.view), None))
    return predictor.merge_contexts(contexts)


def plane_view(
    source: Planes, index: tuple[int, ...], scales: Sequence[Scale], longest: int
) -> torch.Tensor:
    """Low-resolution view of one plane between its bars, normalized: (1, C, h, w).

    Very large planes are first sampled at a regular stride, so that the memory stays bounded.
    """
    layout = source.layout
    key = view_key(layout, index, longest)
    group = layout.group(index)
    return view_of(source.canonical(source.array[key]), layout, scales, group, longest)


def view_key(layout: Layout, index: tuple[int, ...], longest: int) -> tuple[Any, ...]:
    """Index expression for the samples that a plane's view is made of."""
    stride = max(1, max(layout.size) // (4 * longest))
    # A side that is shorter than the stride still gives one sample.
    rows, columns = (
        slice(min(stride // 2, (length - 1) // 2), None, stride) for length in layout.size
    )
    return layout.key(index, rows, columns)


def view_of(
    block: NDArray[Any], layout: Layout, scales: Sequence[Scale], group: int, longest: int
) -> torch.Tensor:
    """View of a plane from the samples of `view_key`, (h, w, S), as `plane_view` returns it."""
    key = view_key(layout, (0,) * len(layout.leading), longest)
    rows, columns = (
        range(length)[key[layout.axes.index(letter)]]
        for letter, length in zip("YX", layout.size, strict=True)
    )
    normal, _ = as_seen(block, scales[group], layout, rows, columns)
    inside = between_bars(scales, layout.size)
    kept = tuple(
        [first <= place < last for place in places]
        for places, first, last in (
            (rows, inside.top, inside.bottom),
            (columns, inside.left, inside.right),
        )
    )
    if all(map(any, kept)):
        normal = normal[np.ix_(*kept)]
    height, width = inside.height, inside.width
    tensor: torch.Tensor = torch.from_numpy(normal).permute(2, 0, 1)[None]
    shrink = longest / max(height, width)
    if shrink < 1:
        size = [max(1, round(length * shrink)) for length in (height, width)]
        tensor = torch.nn.functional.interpolate(tensor, size, mode="area")
    return tensor


def place_in_view(
    part: Region, scales: Sequence[Scale], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Place of a part of a plane in its `plane_view`: top, left, bottom, right as shares of it."""
    view = between_bars(scales, size)
    return (
        (part.top - view.top) / view.height,
        (part.left - view.left) / view.width,
        (part.bottom - view.top) / view.height,
        (part.right - view.left) / view.width,
    )
