"""Run a network over an image of any size, tile by tile.

The engine takes any `Predictor`, reads through `Planes`, and yields `Progress` after every batch
of tiles, and while they are computed, so that the caller may show it, or stop by closing the
generator.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from .conversion import BAND, add_residual, as_they_are, normalised, with_alpha
from .device import free_memory, import_torch, is_out_of_memory
from .jobs import Job, JobQueue
from .protocol import Predictor, Progress, Report, TileOptions
from .sent_samples import Restored, are_sent, restore_samples
from .tiles import Grid, Region, reflect
from .view import Contexts
from .watch import LOOK, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    import torch
    from numpy.typing import NDArray

    from .axes import Planes
    from .intensity import Scale

    #: Windows (places, h, w, C), samples or what the network sees; context and boxes.
    Seen: TypeAlias = tuple[NDArray[Any], torch.Tensor | None, torch.Tensor]
    #: Places in a batch, and what the network changes there (places, h, w, C), or their samples.
    Changes: TypeAlias = list[tuple[list[int], NDArray[np.float32] | Restored]]

Result = TypeVar("Result")


@dataclass
class _Batch:
    """Tiles that were read.

    Attributes
    ----------
    jobs : list of Job
    originals : list of ndarray
        Their samples, as they are.
    crops : list of (slice, slice)
        Rows and columns of each in the window that the network sees.
    scales : list of Scale
        Of each.
    groups : list of (places, arguments)
        What the predictor gets, for the tiles whose windows have one shape.
    sent : bool
        Whether they are samples as they are.
    """

    jobs: list[Job]
    originals: list[NDArray[Any]] = field(default_factory=list)
    crops: list[tuple[slice, slice]] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    groups: list[tuple[list[int], Seen]] = field(default_factory=list)
    sent: bool = False


def run(
    source: Planes,
    target: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    *,
    tiles: TileOptions,
    strength: float = 1.0,
    regions: Iterable[tuple[tuple[int, ...], Region]] | None = None,
    contexts: dict[tuple[int, ...], torch.Tensor] | None = None,
    report: Report | None = None,
) -> Generator[Progress, None, None]:
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
    contexts : dict, optional
        Global contexts that are known already, by plane index.
    report : Report, optional
        Filled in along the way.

    Yields
    ------
    Progress
        After every batch of tiles, and ten times a second meanwhile.

    Raises
    ------
    DeviceError
        If memory runs out at a tile size that the user chose, or on the CPU.
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
    queue, looks, done = JobQueue(regions, tiles), Contexts(source, scales, contexts), 0
    jobs, batch, computed = queue.take(), None, None
    watch = Watch()
    # While a network computes, the last tiles are written and the next ones read.
    thread = ThreadPoolExecutor(1, thread_name_prefix="napari-restore-tiles")
    try:
        while jobs or computed:
            computing, following, changes = None, None, None
            if jobs:
                batch = batch or _unless_full(_read, jobs, source, predictor, scales, looks)
            if batch:
                watch = Watch()
                computing = thread.submit(
                    watch.run, _unless_full, _compute, batch, predictor, strength
                )
            if computed:
                clipped, invalid = _write(*computed, target, strength)
                report.clipped += clipped
                report.invalid += invalid
                looks.trim()
                done += sum(job.tile.pixels for job in computed[0].jobs)
                computed = None
                yield Progress(done, total, report.notes[-1] if report.notes else "")
            if computing:
                if further := queue.take():
                    following = _unless_full(_read, further, source, predictor, scales, looks)
                    if following is None:
                        # It may fit when nothing else is in memory.
                        queue.put_back(further)
                pixels = sum(job.tile.pixels for job in batch.jobs) if batch else 0
                while not wait([computing], LOOK).done:
                    # Also where nothing is known between tiles: the caller may want to stop.
                    yield Progress(done + int(watch.share * pixels), total)
                changes = computing.result()
            if batch and changes:
                computed = batch, changes
                batch, jobs = following, following.jobs if following else queue.take()
            elif jobs:
                queue.put_back(following.jobs if following else [])
                batch = computing = following = None
                free_memory(predictor.device)
                note = queue.put_back_smaller(jobs, predictor.device)
                if note is None:
                    note = f"Memory of {predictor.device} ran out; going on with the CPU."
                    predictor = predictor.to_cpu()
                    looks.to_cpu()
                    report.device = predictor.device
                report.notes.append(note)
                jobs = queue.take()
    finally:
        # Nobody waits for a tile that is not wanted any more, and it ends between its rows.
        watch.stop()
        thread.shutdown(wait=False, cancel_futures=True)


def _unless_full(step: Callable[..., Result], *arguments: Any) -> Result | None:
    """Do a step; None if memory ran out. Tensors that its traceback would hold are let go."""
    try:
        return step(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _read(
    jobs: list[Job],
    source: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    looks: Contexts,
) -> _Batch:
    """Read tiles with what is around them, as the network wants them."""
    torch = import_torch()
    layout, batch = source.layout, _Batch(jobs)
    height, width = layout.size
    grid = Grid(layout.size, predictor.multiple_of, predictor.halo)
    windows, seen = [grid.window(job.tile) for job in jobs], []
    for job, window in zip(jobs, windows, strict=True):
        inside = grid.inside(window)
        block = source.read(job.index, inside)
        scale = scales[layout.group(job.index)]
        batch.sent = are_sent(block.dtype, predictor)
        if batch.sent:
            around = as_they_are(source, job.index, inside, predictor.frames, block)
        else:
            around = normalised(source, job.index, inside, scale, predictor.frames, block)
        seen.append(reflect(around, inside, window, layout.size))
        top, left = job.tile.top - inside.top, job.tile.left - inside.left
        batch.originals.append(block[top : top + job.tile.height, left : left + job.tile.width])
        top, left = job.tile.top - window.top, job.tile.left - window.left
        crop = slice(top, top + job.tile.height), slice(left, left + job.tile.width)
        batch.crops.append(crop)
        batch.scales.append(scale)
    for group in _same_shape(seen):
        frames = seen[group[0]][None] if len(group) == 1 else np.stack([seen[i] for i in group])
        context, boxes = None, torch.zeros(len(group), 4)
        if predictor.view:
            context = torch.cat([looks.get(jobs[i].index, predictor) for i in group])
            places = [windows[i] for i in group]
            boxes = torch.tensor(
                [
                    [w.top / height, w.left / width, w.bottom / height, w.right / width]
                    for w in places
                ]
            )
        batch.groups.append((group, (frames, context, boxes)))
    return batch


def _compute(batch: _Batch, predictor: Predictor, strength: float) -> Changes:
    """Find what the network changes."""
    torch = import_torch()
    changes: Changes = []
    for group, (windows, context, boxes) in batch.groups:
        if batch.sent:
            crops = [batch.crops[place] for place in group]
            scales = [batch.scales[place] for place in group]
            found = restore_samples(windows, crops, scales, predictor, context, boxes, strength)
            changes.append((group, found))
            continue
        tensor = torch.from_numpy(windows).permute(0, 3, 1, 2)
        restored = predictor(tensor, context, boxes).permute(0, 2, 3, 1).numpy()
        seen = tensor[:, : restored.shape[-1]].permute(0, 2, 3, 1).numpy()
        # In its place: with large tiles, this is most of the memory.
        changes.append((group, np.subtract(restored, seen, out=restored)))
    return changes


def _write(batch: _Batch, changes: Changes, target: Planes, strength: float) -> tuple[int, int]:
    """Write the restored tiles; count samples that were clipped, and that are invalid."""
    clipped = invalid = 0
    for group, found in changes:
        if isinstance(found, Restored):
            for place, (samples, count) in zip(group, found.wait(), strict=True):
                job, original = batch.jobs[place], batch.originals[place]
                clipped += count
                target.write(job.index, job.tile, with_alpha(samples, original))
            continue
        for place, residual in zip(group, found, strict=True):
            job, original = batch.jobs[place], batch.originals[place]
            crop = residual[batch.crops[place]]
            if not np.isfinite(crop.sum()):
                # Half precision overflows on extreme outliers; such pixels stay as they were.
                crop = np.nan_to_num(crop, nan=0.0, posinf=0.0, neginf=0.0)
            for first in range(0, job.tile.height, BAND):
                band = slice(first, first + BAND)
                span = strength * batch.scales[place].span
                restored, count = add_residual(original[band], crop[band], span)
                clipped += count
                start = job.tile.top + first
                rows = job.tile._replace(top=start, bottom=start + len(restored))
                target.write(job.index, rows, restored)
            if original.dtype.kind == "f":
                # NaN + change is NaN and inf + change is inf already; this only counts them.
                invalid += original.size - int(np.count_nonzero(np.isfinite(original)))
    return clipped, invalid


def _same_shape(windows: list[NDArray[np.float32]]) -> list[list[int]]:
    """Positions of windows by shape: tiles at a border see less halo than those inside."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, window in enumerate(windows):
        groups.setdefault(window.shape, []).append(position)
    return list(groups.values())
