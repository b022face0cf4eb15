"""Run a network over an image of any size, tile by tile.

The engine takes any `Predictor`, reads through `Planes`, and yields `Progress` after every batch
of tiles, so that the caller may show it, or stop by closing the generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import DeviceError

from .device import free_memory, import_torch, is_out_of_memory
from .intensity import add_change, fill_invalid
from .jobs import SMALLEST_TILE, Job, JobQueue
from .protocol import Predictor, Progress, Report, TileOptions
from .tiles import Grid, Region, reflect
from .view import Contexts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import torch
    from numpy.typing import NDArray

    from .axes import Planes
    from .intensity import Scale


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
        After every batch of tiles.

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
    queue, done = JobQueue(regions, tiles), 0
    looks = Contexts(source, scales, contexts)
    while batch := queue.take():
        try:
            counts = _restore_batch(batch, source, target, predictor, scales, strength, looks)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            counts = None
        if counts is None:
            # Outside of the except block: its traceback holds the batch's tensors.
            free_memory(predictor.device)
            note = queue.put_back_smaller(batch, predictor.device)
            if note is None:
                if predictor.device == "cpu":
                    raise DeviceError(
                        f"Memory ran out even with tiles of {SMALLEST_TILE} pixels. Close other "
                        "programs and try again."
                    )
                note = f"Memory of {predictor.device} ran out; going on with the CPU."
                predictor = predictor.to_cpu()
                looks.to_cpu()
                report.device = predictor.device
            report.notes.append(note)
            continue
        report.clipped += counts[0]
        report.invalid += counts[1]
        looks.trim()
        done += sum(job.tile.pixels for job in batch)
        yield Progress(done, total, report.notes[-1] if report.notes else "")


def _restore_batch(
    batch: list[Job],
    source: Planes,
    target: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    strength: float,
    looks: Contexts,
) -> tuple[int, int]:
    torch = import_torch()
    layout = source.layout
    grid = Grid(layout.size, predictor.multiple_of, predictor.halo)
    windows, originals, offsets = [], [], []
    changes: list[tuple[int, NDArray[np.float32]]] = []
    for job in batch:
        scale = scales[layout.group(job.index)]
        window = grid.window(job.tile)
        inside = grid.inside(window)
        block = source.read(job.index, inside)
        normal = normalised(source, job.index, inside, scale, predictor.frames, block)
        windows.append(reflect(normal, inside, window, layout.size))
        top, left = job.tile.top - inside.top, job.tile.left - inside.left
        originals.append(block[top : top + job.tile.height, left : left + job.tile.width])
        offsets.append((job.tile.top - window.top, job.tile.left - window.left))
    for group in _same_shape(windows):
        tensor = torch.from_numpy(np.stack([windows[i] for i in group])).permute(0, 3, 1, 2)
        context, boxes = None, torch.zeros(len(group), 4)
        if predictor.view:
            context = torch.cat([looks.get(batch[i].index, predictor) for i in group])
            height, width = layout.size
            boxes = torch.tensor(
                [
                    [w.top / height, w.left / width, w.bottom / height, w.right / width]
                    for w in (grid.window(batch[i].tile) for i in group)
                ]
            )
        restored = predictor(tensor, context, boxes)
        residual = (restored - tensor[:, : layout.channels]).permute(0, 2, 3, 1).numpy()
        changes.extend(zip(group, residual, strict=True))
    clipped = invalid = 0
    for i, residual in changes:
        job, original = batch[i], originals[i]
        top, left = offsets[i]
        crop = residual[top : top + job.tile.height, left : left + job.tile.width]
        if not np.isfinite(crop).all():
            # Half precision overflows on extreme outliers; such pixels stay as they were.
            crop = np.nan_to_num(crop, nan=0.0, posinf=0.0, neginf=0.0)
        change = crop.astype(np.float64) * (strength * scales[layout.group(job.index)].span)
        out = original.copy()
        out[..., : layout.channels], count = add_change(original[..., : layout.channels], change)
        clipped += count
        if original.dtype.kind == "f":
            # NaN + change is NaN and inf + change is inf already; this only counts them.
            invalid += int(np.count_nonzero(~np.isfinite(original)))
        target.write(job.index, job.tile, out)
    return clipped, invalid


def normalised(
    source: Planes,
    index: tuple[int, ...],
    region: Region,
    scale: Scale,
    frames: int,
    block: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Read what a network sees of a region: (h, w, C), or with two frames (h, w, 2 C).

    ``block`` is what `Planes.read` gives for the region, if it was read already.
    """
    channels = source.layout.channels
    blocks = [source.read(index, region) if block is None else block]
    if frames == 2:
        blocks.append(source.read(source.layout.neighbour(index), region))
    seen = [scale.normalise(fill_invalid(part)[0][..., :channels]) for part in blocks]
    return seen[0] if frames == 1 else np.concatenate(seen, axis=-1)


def _same_shape(windows: list[NDArray[np.float32]]) -> list[list[int]]:
    """Positions of windows by shape: tiles at a border see less halo than those inside."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, window in enumerate(windows):
        groups.setdefault(window.shape, []).append(position)
    return list(groups.values())
