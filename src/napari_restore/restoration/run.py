"""The run that library, docks and command line share: facts, blocks, provenance."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.blocks import blocks, pixels_of
from napari_restore.image.tiling import Region
from napari_restore.inference.protocol import Report
from napari_restore.watch import tell

from .block import BlockTask
from .connection import survey
from .executors import restore_here, restore_on
from .facts import Facts, find_facts, try_blur
from .plan import suited
from .provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client

    from napari_restore.image.blocks import Block
    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout
    from napari_restore.inference.protocol import TileOptions

    from .connection import Workers
    from .executors import Done
    from .facts import Blur
    from .plan import Plan


#: What is said while a model is loaded.
LOADING = "Loading the model"


@dataclass(frozen=True)
class Restoration:
    """A restored array and how it was made.

    Attributes
    ----------
    data : array
    provenance : dict
    facts : Facts
        What was found of the image before.
    """

    data: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    facts: Facts = field(default_factory=lambda: Facts(()))

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Intensity scales that were used; none for an empty image."""
        return self.facts.scales


@dataclass
class Run:
    """The restoration of one image, block by block, in any order and in several sessions.

    Attributes
    ----------
    image : array
        NumPy, memory map, zarr or dask. Read block by block, each with its halo.
    plan : Plan
        With tiles that suit the workers, if a cluster computes.
    facts : Facts
    client : distributed.Client, optional
        Cluster to compute on.
    workers : Workers, optional
        What it offers.
    finish : callable, optional
        Last step for the samples of a block: returns them and how many it clipped.
    report : Report
        What happened, of all blocks so far.
    """

    image: Any
    plan: Plan
    facts: Facts
    client: Client | None = None
    workers: Workers | None = None
    finish: Callable[[Any], tuple[Any, int]] | None = None
    report: Report = field(default_factory=Report)

    @property
    def task(self) -> BlockTask:
        """What the blocks have in common."""
        return BlockTask(self.plan, self.facts)

    @contextmanager
    def blocks(
        self,
        todo: Sequence[tuple[int, Block]],
        *,
        source: Any = None,
        in_order: bool = False,
        done: int = 0,
    ) -> Iterator[Iterator[Done]]:
        """Restore blocks. On the way out, what is under way is cancelled.

        Parameters
        ----------
        todo : sequence of (number, block)
        source : array, optional
            The image as the workers of a cluster read it themselves.
        in_order : bool
            Whether the blocks must come as they are listed.
        done : int
            Pixels of the image that were restored before.
        """
        total = done + sum(pixels_of(self.plan.layout, block) for _, block in todo)
        tell(done, total, "Restoring" if self.workers is None else f"Restoring on {self.workers}")
        if self.client is None:
            results = restore_here(self.task, self.image, todo, done)
        else:
            results = restore_on(
                self.client, self.task, self.image, todo, source, in_order=in_order
            )
        counted = self._counted(results, todo, done)
        try:
            yield counted
        finally:
            counted.close()
            results.close()  # type: ignore[attr-defined]

    def _counted(
        self, results: Iterator[Done], todo: Sequence[tuple[int, Block]], done: int
    ) -> Any:
        total = done + sum(pixels_of(self.plan.layout, block) for _, block in todo)
        for number, block, samples, report in results:
            if self.finish is not None:
                samples, clipped = self.finish(samples)
                report.clipped += clipped
            self.add(report)
            done += pixels_of(self.plan.layout, block)
            tell(done, total, report.notes[-1] if report.notes else "")
            yield number, block, samples, report
            del samples  # not needed while the next is computed

    def add(self, report: Report) -> None:
        """Count a block in."""
        self.report.add(report)
        # Here only one at a time; workers may have several kinds.
        self.report.device = report.device if self.workers is None else self.workers.device

    def provenance(self, *, blur: bool = True, seconds: float | None = None) -> dict[str, Any]:
        """Say how the result was made; with ``blur``, also how blurred the image was."""
        estimate = None
        if blur and self.facts.scales:
            # A fall back to the CPU holds here too; the devices of workers do not.
            device = self.plan.device if self.workers else self.report.device or self.plan.device
            here = replace(self.plan, device=device)
            estimate = try_blur(self.image, here, self.facts.scales, self.report)
        return provenance(
            self.plan,
            self.facts,
            self.report,
            blur=estimate,
            seconds=seconds,
            workers=self.workers,
        )


def begin(
    image: Any,
    plan: Plan,
    *,
    facts: Facts | None = None,
    client: Client | None = None,
    tiles: TileOptions | None = None,
    blurs: tuple[Blur, ...] | None = None,
) -> Run:
    """Load the model and find what all blocks of an image share, before any is restored.

    Parameters
    ----------
    image : array
    plan : Plan
    facts : Facts, optional
        If they are known.
    client : distributed.Client, optional
    tiles : TileOptions, optional
        Of an earlier run that is continued: other tiles round otherwise.
    blurs : tuple of Blur, optional
        Of an earlier run that is continued.

    Raises
    ------
    ClusterError
        If the workers cannot restore.
    """
    workers = None
    if client is not None:
        # Before anything is read: that workers are missing shows at once.
        tell(0, plan.layout.pixels, "Asking the workers")
        workers = survey(client, plan.options.device)
        if not plan.tiles.fixed:
            plan = replace(plan, tiles=suited(workers.tiles, plan.spec, workers.device))
    if tiles is not None and not plan.tiles.fixed:
        plan = replace(plan, tiles=tiles)
    if plan.layout.pixels and not plan.in_space:
        tell(0, plan.layout.pixels, LOADING)
        plan.predictor()
    facts = facts or find_facts(image, plan, blurs=blurs)
    return Run(image, plan, facts, client, workers)


def restore_array(
    image: Any,
    plan: Plan,
    *,
    facts: Facts | None = None,
    out: Any = None,
    block: Block | None = None,
    client: Client | None = None,
    blur: bool = True,
) -> Restoration:
    """Restore an image into memory.

    Parameters
    ----------
    image : array
        What the plan was made for. Of lazy arrays, only what is restored is read.
    plan : Plan
    facts : Facts, optional
        What all blocks of the image have in common, if it is known.
    out : array, optional
        Where the result goes, for example a memory map; of the image's shape and dtype.
    block : tuple of slice, optional
        The part to restore, as it would be in the whole result; everything without it.
    client : distributed.Client, optional
        Cluster to restore on, see `napari_restore.restoration.cluster.connect`.
    blur : bool
        Also estimate how blurred the image is, where the model can; for the provenance.

    Returns
    -------
    Restoration
    """
    started = time.monotonic()
    run = begin(image, plan, facts=facts, client=client)
    layout = plan.layout
    whole = tuple(slice(0, length) for length in layout.shape)
    block = whole if block is None else block
    shape = [part.stop - part.start for part in block]
    result = out
    if not layout.pixels or 0 in shape:
        result = np.empty(shape, np.dtype(image.dtype)) if out is None else out
    else:
        todo = [block]
        if client is not None or out is not None:
            # Each tile that would be computed here is a block, so that the results are the same.
            inside = blocks(shape, block_of_tile(run.plan))
            todo = [_moved(part, block) for part in inside]
        origin = tuple(part.start for part in block)
        with run.blocks(list(enumerate(todo))) as restored:
            for _, place, samples, _ in restored:
                if samples.shape == tuple(shape) and out is None:
                    result = samples
                    break
                if result is None:
                    result = np.empty(shape, samples.dtype)
                key = tuple(
                    slice(part.start - start, part.stop - start)
                    for part, start in zip(place, origin, strict=True)
                )
                result[key] = samples
    record = run.provenance(blur=blur, seconds=time.monotonic() - started)
    if run.workers is not None:
        record["workers"] = run.workers.count
    return Restoration(result, record, run.facts)


def _moved(inner: Block, outer: Block) -> Block:
    return tuple(
        slice(part.start + around.start, part.stop + around.start)
        for part, around in zip(inner, outer, strict=True)
    )


def block_of_tile(plan: Plan) -> list[int]:
    """Shape of the blocks: a tile of the plane, or as many small planes as have its pixels."""
    layout, side = plan.layout, plan.tiles.side
    if plan.in_space:
        from .in_space import block_in_space

        return block_in_space(plan)
    height, width = layout.size
    shape = [1] * len(layout.shape)
    for axis, letter in enumerate(layout.axes):
        if letter in "YXS":
            shape[axis] = layout.shape[axis] if letter == "S" else side
    if layout.leading and plan.spec.frames == 1:
        shape[layout.leading[-1]] = max(1, side**2 // (height * width))
    return shape


def plane_of(layout: Layout, block: Block) -> tuple[tuple[int, ...], Region]:
    """First plane of a block, and the region of it."""
    rows, columns = (block[layout.axes.index(letter)] for letter in "YX")
    index = tuple(block[axis].start for axis in layout.leading)
    return index, Region(rows.start, columns.start, rows.stop, columns.stop)
