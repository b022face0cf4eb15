"""Tiles that are restored together: read with what is around them, and written again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_restore.device import torch
from napari_restore.image.gaps import find_gaps, without_value
from napari_restore.image.tiling import Grid, Region, reflect

from .conversion import (
    BAND,
    add_residual,
    as_they_are,
    dither_of,
    is_even,
    normalized,
    with_alpha,
)
from .device_transfer import TilesInTransfer, are_sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Planes

    from .context import Contexts
    from .protocol import Predictor, Report
    from .tile_queue import Job

    #: Windows (places, h, w, C), samples or what the network sees; context and boxes.
    Seen: TypeAlias = tuple[NDArray[Any], torch.Tensor | None, torch.Tensor]
    #: Places in a batch, and what the network changes there (places, h, w, C), or their samples.
    Changes: TypeAlias = list[tuple[list[int], NDArray[np.float32] | TilesInTransfer]]


@dataclass
class Batch:
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
    gaps : list of ndarray or None
        Samples of each that stay as they are.
    sent : bool
        Whether they are samples as they are.
    """

    jobs: list[Job]
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
    height, width = layout.size
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
        top, left = job.tile.top - inside.top, job.tile.left - inside.left
        kept = slice(top, top + job.tile.height), slice(left, left + job.tile.width)
        if not batch.sent or around is None:
            scale = batch.scales[number]
            around, gaps = normalized(source, job.index, inside, scale, predictor.frames, block)
        seen.append(reflect(around, inside, window, layout.size))
        batch.originals.append(block[kept])
        batch.gaps.append(None if gaps is None else gaps[kept])
        top, left = job.tile.top - window.top, job.tile.left - window.left
        batch.crops.append((slice(top, top + job.tile.height), slice(left, left + job.tile.width)))
    for group in _same_shape(seen):
        frames = seen[group[0]][None] if len(group) == 1 else np.stack([seen[i] for i in group])
        context, boxes = None, torch.zeros(len(group), 4)
        if predictor.view:
            context = torch.cat([contexts.get(jobs[i].index, predictor) for i in group])
            places = [windows[i] for i in group]
            boxes = torch.tensor(
                [
                    [w.top / height, w.left / width, w.bottom / height, w.right / width]
                    for w in places
                ]
            )
        batch.groups.append((group, (frames, context, boxes)))
    return batch


def _as_they_are(
    source: Planes,
    index: tuple[int, ...],
    inside: Region,
    predictor: Predictor,
    block: NDArray[Any],
    scale: Scale,
) -> NDArray[Any] | None:
    """Read samples that a device can scale and round itself; None if there is more to do."""
    if not are_sent(block.dtype, predictor) or scale.few or scale.holds:
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
                target.write(job.index, job.tile, with_alpha(samples, original))
            continue
        for place, residual in zip(group, found, strict=True):
            write_tile(
                batch.jobs[place],
                batch.originals[place],
                residual[batch.crops[place]],
                target,
                batch.scales[place],
                strength,
                report,
                batch.gaps[place],
            )


def write_tile(
    job: Job,
    original: NDArray[Any],
    change: NDArray[np.float32],
    target: Planes,
    scale: Scale,
    strength: float,
    report: Report,
    gaps: NDArray[np.bool_] | None = None,
) -> None:
    """Add a change (h, w, C) to the samples of a tile (h, w, S), write them and count."""
    layout, dither = target.layout, None
    if not np.isfinite(change.sum()):
        # Half precision overflows on extreme outliers; such pixels stay as they were.
        change = np.nan_to_num(change, nan=0.0, posinf=0.0, neginf=0.0)
    lengths = tuple(layout.shape[axis] for axis in layout.leading)
    plane = int(np.ravel_multi_index(job.index, lengths)) if lengths else 0
    for first in range(0, job.tile.height, BAND):
        band = slice(first, first + BAND)
        start = job.tile.top + first
        rows = job.tile._replace(top=start, bottom=min(start + BAND, job.tile.bottom))
        if scale.few:
            dither = dither_of(plane, rows)
        stay = None if gaps is None else gaps[band]
        samples = add_residual(original[band], change[band], scale, strength, stay, dither)
        report.clipped += samples[1]
        report.held += samples[2]
        target.write(job.index, rows, samples[0])
    # They came through unchanged; this only counts them.
    without = without_value(original, original.shape[-1], scale.missing)
    report.invalid += 0 if without is None else int(np.count_nonzero(without))


def _same_shape(windows: list[NDArray[np.float32]]) -> list[list[int]]:
    """Positions of windows by shape: tiles at a border see less halo than those inside."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, window in enumerate(windows):
        groups.setdefault(window.shape, []).append(position)
    return list(groups.values())
