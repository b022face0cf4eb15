"""One block of an image restored for itself: by a task of dask, on this machine or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .axes import Planes
from .blocks import regions_of
from .chunked import FromSample
from .engine import run
from .protocol import Predictor, Report, TileOptions, default_tiles
from .steps import drain

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .axes import Layout
    from .intensity import Scale

    Scales: TypeAlias = "tuple[Scale, ...] | FromSample[tuple[Scale, ...]]"

Tiles: TypeAlias = TileOptions | Callable[[str], TileOptions]


@dataclass(frozen=True, eq=False)
class BlockJob:
    """What the tasks of all blocks have in common.

    Attributes
    ----------
    layout : Layout
    get_predictor : callable
        Returns the predictor, where it is called; picklable, and importing no torch when unpickled.
    scales : tuple of Scale, or FromSample
        Intensity scales, or how they are found when they are first needed.
    tiles : TileOptions, or callable
        Or how they are found from the name of the predictor's device.
    strength : float
    starts : tuple of list of int
        Along each axis, where the blocks begin, and at last the length.
    depth : dict
        By axis, how many samples before and after a block belong to its window.
    view : int
        As the predictor has it.
    common : FromSample, optional
        What the contexts of all planes have in common.
    """

    layout: Layout
    get_predictor: Callable[[], Predictor]
    scales: Scales
    starts: tuple[list[int], ...]
    depth: dict[int, tuple[int, int]]
    tiles: Tiles = default_tiles
    strength: float = 1.0
    view: int = 0
    common: FromSample[torch.Tensor | None] | None = None

    def region(self, place: tuple[int, ...]) -> tuple[slice, ...]:
        """Say which samples a block is, from its number along each axis."""
        return tuple(
            slice(starts[number], starts[number + 1])
            for starts, number in zip(self.starts, place, strict=True)
        )

    def window(self, place: tuple[int, ...]) -> tuple[slice, ...]:
        """Say which samples a block is restored from: itself and its halo."""
        return tuple(
            slice(
                max(0, part.start - self.depth.get(axis, (0, 0))[0]),
                min(self.starts[axis][-1], part.stop + self.depth.get(axis, (0, 0))[1]),
            )
            for axis, part in enumerate(self.region(place))
        )


def make_job(
    layout: Layout,
    chunks: tuple[tuple[int, ...], ...],
    *,
    reach: int,
    frames: int,
    **options: Any,
) -> BlockJob:
    """Say what is common to the blocks of an image.

    Parameters
    ----------
    layout : Layout
    chunks : tuple of tuple of int
        Lengths of the blocks along each axis.
    reach : int
        Pixels around a block that are read with it.
    frames : int
        As the predictor has it.
    **options
        Further attributes of `BlockJob`.
    """
    depth = {
        axis: (reach, reach) if len(chunks[axis]) > 1 else (0, 0)
        for axis in (layout.axes.index(letter) for letter in "YX")
    }
    if frames == 2:
        # The last frame takes the one before for its neighbour.
        time = layout.axes.index("T")
        depth[time] = (int(chunks[time][-1] == 1), 1)
    starts = tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in chunks)
    return BlockJob(layout, starts=starts, depth=depth, **options)


def known_scales(scales: Scales) -> tuple[Scale, ...]:
    """Intensity scales, found if need be."""
    return scales.get() if isinstance(scales, FromSample) else scales


def restore_block(
    job: BlockJob,
    place: tuple[int, ...],
    window: NDArray[Any],
    contexts: list[torch.Tensor] | None = None,
) -> tuple[NDArray[Any], Report]:
    """Restore one block.

    Parameters
    ----------
    job : BlockJob
    place : tuple of int
        Its number along each axis.
    window : ndarray
        Samples that `BlockJob.window` names.
    contexts : list of Tensor, optional
        Global contexts of its planes, if the predictor wants them.

    Returns
    -------
    block : ndarray
        Samples that `BlockJob.region` names.
    report : Report
    """
    layout, parts = job.layout, job.region(place)
    first = tuple(part.start for part in parts)
    origin = tuple(part.start for part in job.window(place))
    out = np.empty(tuple(part.stop - part.start for part in parts), window.dtype)
    regions = regions_of(layout, parts)
    known = None
    if contexts is not None:
        known = {index: context for (index, _), context in zip(regions, contexts, strict=True)}
    predictor, report = job.get_predictor(), Report()
    tiles = job.tiles if isinstance(job.tiles, TileOptions) else job.tiles(predictor.device)
    steps = run(
        Planes(window, layout, origin),
        Planes(out, layout, first),
        predictor,
        known_scales(job.scales),
        tiles=tiles,
        strength=job.strength,
        regions=regions,
        contexts=known,
        report=report,
    )
    drain(steps)
    return out, report
