"""Run a network over an image of any size, tile by tile.

The engine takes any `Predictor`, reads through `Planes`, and tells the watch around it after every
batch of tiles, and while they are computed, how far it is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from napari_restore.device import torch
from napari_restore.image.tiling import Region
from napari_restore.watch import LOOK, Watch, tell

from .batch import read_batch, write_batch
from .context import Contexts
from .device_transfer import restore_samples
from .protocol import Predictor, Report, TileOptions
from .restraint import not_below, restrain
from .tile_queue import TileQueue, step_down, unless_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Planes

    from .batch import Batch, Changes


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
