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
    SQUARE,
    Place,
    add_residual,
    as_they_are,
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
    places : list of Region
        What is converted of each: itself, and of few counts the squares around it, see
        `napari_restore.inference.conversion.Place`.
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
            boxes = torch.tensor(
                [
                    [w.top / height, w.left / width, w.bottom / height, w.right / width]
                    for w in places
                ]
            )
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
