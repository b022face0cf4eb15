"""The run that library, docks and command line share: facts, blocks, and provenance."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from napari_restore.analysis.point_spread import PSF
from napari_restore.image.layout import (
    LazyStatistic,
    Planes,
    Region,
    blocks,
    let_go,
    pixels_of,
    reading_around,
    reading_of,
    regions_of,
)
from napari_restore.inference.engine import Contexts, Report, run
from napari_restore.models.catalog import is_own, sha256
from napari_restore.runtime import autocast_dtype, check, installed_version, part_of, tell, torch

from .cluster import finished, survey
from .plan import Facts, known, scales_of, suited, try_blur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client, Future
    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Block, Layout, TileOptions
    from napari_restore.inference.engine import Predictor
    from napari_restore.inference.predictor import TorchPredictor
    from napari_restore.models.catalog import ModelSpec

    from .cluster import Workers
    from .plan import Blur, BlurEstimate, MaybeFacts, Plan

    #: Number and place of a block, its samples, and what happened.
    Done: TypeAlias = tuple[int, Block, NDArray[Any], Report]

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
        """Restore blocks. On the way out, what is under way is canceled.

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


def find_facts(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...] | None = None,
    blurs: tuple[Blur, ...] | None = None,
) -> Facts:
    """Find what all blocks of an image have in common.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. If it is large, a bounded sample is read.
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    blurs : tuple of Blur, optional
        What blurred each channel, if that is known.
    """
    return _find(Planes(image, plan.layout), plan, scales, blurs)


def _find(
    planes: Planes,
    plan: Plan,
    scales: tuple[Scale, ...] | None = None,
    blurs: tuple[Blur, ...] | None = None,
) -> Facts:
    total = plan.layout.pixels
    if not total:
        return Facts(())
    if scales is None:
        tell(0, total, "Finding the range of intensities")
        scales = scales_of(planes, plan)
    exposure = None
    if plan.spec.frames == 2:
        from napari_restore.analysis.exposure import usable_exposure

        tell(0, total, "Finding the exposure")
        pair = cast("TorchPredictor", plan.predictor())
        exposure = usable_exposure(planes, pair, scales, plan.options.exposure)
    if plan.in_space:
        from .in_space import find_in_space

        return find_in_space(planes, plan, scales)
    if plan.inverter is None:
        return Facts(scales, exposure)
    if not blurs:
        from .psf_search import find_blurs

        blurs = find_blurs(planes, plan, scales)
    return Facts(scales, exposure, blurs)


def find_later(image: Any, plan: Plan) -> LazyStatistic[Facts]:
    """Find the facts of a dask array when they are first needed, once in each process.

    Parameters
    ----------
    image : dask.array.Array
    plan : Plan
        For workers, see `Plan.elsewhere`.
    """
    return LazyStatistic(image, plan.layout, _Finder(plan))


@dataclass(frozen=True)
class _Finder:
    """Finds facts on a worker: it is sent without torch being imported."""

    plan: Plan

    def __call__(self, planes: Planes) -> Facts:
        return _find(planes, self.plan)


def find_psfs(image: Any, plan: Plan) -> tuple[PSF, ...]:
    """Point spread functions of the channels of an image, as the plan says: found, or given.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
        With an inverter.

    Returns
    -------
    tuple of PSF
        What is known of each stands in ``found``; where none was found it is false.
    """
    facts = find_facts(image, plan)
    if not facts.blurs:
        return (PSF.none("The image is empty."),) * plan.layout.groups
    return tuple(
        PSF.none(blur.statement) if blur.psf is None else replace(blur.psf, found=blur.statement)
        for blur in facts.blurs
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
        What the plan was made for. If it is lazy, only what is restored is read.
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
                let_go(result)
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


def restore_here(
    task: BlockTask, image: Any, todo: Sequence[tuple[int, Block]], done: int = 0
) -> Iterator[Done]:
    """Restore blocks one after another; the network uses every core for each.

    Parameters
    ----------
    task : BlockTask
    image : array
    todo : sequence of (number, block)
    done : int
        Pixels of the image that an earlier run has restored.
    """
    layout, contexts = task.plan.layout, task.contexts(image)
    total = done + sum(pixels_of(layout, block) for _, block in todo)
    with ThreadPoolExecutor(1, thread_name_prefix="napari-restore-read") as reader:
        ahead = [reader.submit(task.read, image, block) for _, block in todo[:1]]
        for place, (number, block) in enumerate(todo, 1):
            check()
            window = (ahead.pop() if ahead else reader.submit(task.read, image, block)).result()
            if task.plan.overlaps:
                # The next block is read while one is computed.
                ahead += [
                    reader.submit(task.read, image, after) for _, after in todo[place : place + 1]
                ]
            with part_of(done, total).around():
                samples, report = task(block, window, contexts)
            # Neither is the window needed while the block is written, nor are its samples while the
            # next is computed.
            del window
            if report.device != task.plan.device:
                task = task.without(report.device)
                contexts.to_cpu()
            done += pixels_of(layout, block)
            yield number, block, samples, report
            del samples


def restore_on(
    client: Client,
    task: BlockTask,
    image: Any,
    todo: Iterable[tuple[int, Block]],
    source: Any = None,
    *,
    in_order: bool = False,
) -> Iterator[Done]:
    """Restore blocks on a cluster, a bounded number at a time.

    What has to be known of the whole image is found here.

    Parameters
    ----------
    client : distributed.Client
    task : BlockTask
    image : array
    todo : iterable of (number, block)
    source : array, optional
        The image as the workers read it. Without it, windows are read here and sent.
    in_order : bool
        Give the blocks in the order of ``todo``, not as they are finished.
    """
    contexts = task.contexts(image)
    # Not scattered: what is scattered is lost with its worker, what is computed is made again.
    shared = client.submit(_same, (task.elsewhere(), source), pure=False)

    def submitted() -> Iterator[tuple[tuple[int, Block], Future[Any]]]:
        for number, block in todo:
            sent = _sendable(contexts, task, block)
            window = task.read(image, block) if source is None else None
            future = client.submit(_restore, shared, block, window, sent, pure=False)
            yield (number, block), future

    for (number, block), (samples, report) in finished(client, submitted(), in_order=in_order):
        yield number, block, samples, report


def _sendable(
    contexts: Contexts, task: BlockTask, block: Block
) -> dict[tuple[int, ...], torch.Tensor] | None:
    """Contexts of the planes of a block, for a worker with another device."""
    if not task.plan.spec.view:
        return None
    predictor = task.predictor()
    planes = [index for index, _ in regions_of(task.plan.layout, block)]
    found = {index: contexts.get(index, predictor).cpu() for index in planes}
    contexts.trim()
    return found


def _same(shared: tuple[BlockTask, Any]) -> tuple[BlockTask, Any]:
    return shared


def _restore(
    shared: tuple[BlockTask, Any],
    block: Block,
    window: NDArray[Any] | None,
    contexts: dict[tuple[int, ...], torch.Tensor] | None,
) -> tuple[NDArray[Any], Report]:
    """Restore a block on a worker."""
    task, source = shared
    return task(block, task.read(source, block) if window is None else window, contexts)


@dataclass(frozen=True)
class BlockTask:
    """Everything that the blocks of an image have in common, small and picklable.

    The samples of a block depend on image, task and the block's place alone, not on what was
    restored before it, nor on where.

    Attributes
    ----------
    plan : Plan
    facts : Facts, or LazyStatistic
        Or how they are found when they are first needed.
    """

    plan: Plan
    facts: MaybeFacts

    def elsewhere(self) -> BlockTask:
        """Make the task for a worker of a cluster, which has its own device."""
        return replace(self, plan=self.plan.elsewhere())

    def without(self, device: str) -> BlockTask:
        """Make the task that follows a block which ended on another device.

        Memory ran out at the smallest tile: no use to try it on every block.
        """
        return (
            self
            if device == self.plan.device
            else replace(self, plan=replace(self.plan, device=device))
        )

    def found(self) -> Facts:
        """Facts of the image, found if need be."""
        return known(self.facts)

    def predictor(self) -> Predictor:
        """Load the model; once in each process."""
        return self.plan.predictor(self.found())

    def window(self, block: Block) -> Block:
        """Find which samples a block is restored from: itself, its halo, its neighbor in time."""
        plan = self.plan
        if plan.in_space:
            return reading_around(plan.layout, block, dict(zip("ZYX", plan.margins, strict=True)))
        return reading_of(plan.layout, block, plan.spec.multiple_of, plan.halo, plan.spec.frames)

    def read(self, image: Any, block: Block) -> NDArray[Any]:
        """Read the window of a block; what is in memory is not copied."""
        part = image[self.window(block)]
        if type(part) is np.ndarray and type(image) is np.ndarray:
            return part
        samples = np.asarray(part)
        if not samples.flags.owndata:
            samples = samples.copy()  # of a memory map, say, whose pages are let go
        let_go(image)
        return samples

    def contexts(self, image: Any) -> Contexts:
        """Global contexts of the planes of a whole image, each found when it is asked for."""
        return Contexts(Planes(image, self.plan.layout), self.found().scales)

    def __call__(
        self,
        block: Block,
        window: NDArray[Any],
        contexts: Contexts | dict[tuple[int, ...], torch.Tensor] | None = None,
        *,
        origin: tuple[int, ...] | None = None,
    ) -> tuple[NDArray[Any], Report]:
        """Restore a block.

        Parameters
        ----------
        block : tuple of slice
            One for each axis of the image; all of the color axis.
        window : ndarray
            Samples around it, as `read` gives them, or more.
        contexts : Contexts or dict, optional
            Global contexts of its planes, if the model wants them.
        origin : tuple of int, optional
            Place of the window's first sample in the image; without it, that of `window`.

        Returns
        -------
        ndarray, Report
            The block's samples in the dtype and order of the image, and what happened.
        """
        plan, report, found = self.plan, Report(), self.found()
        layout, scales = plan.layout, found.scales
        if origin is None:
            origin = tuple(part.start for part in self.window(block))
        out = np.empty([part.stop - part.start for part in block], window.dtype)
        source = Planes(window, layout, origin)
        if isinstance(contexts, dict):
            contexts = Contexts(source, scales, contexts)
        target = Planes(out, layout, tuple(part.start for part in block))
        if plan.in_space:
            from .in_space import restore_in_space

            restore_in_space(source, target, plan, found, block, report)
            return out, report
        total, before = pixels_of(layout, block), 0
        for channel, regions in self._by_channel(block):
            predictor = plan.predictor(found, channel)
            if found.is_untouched(channel):
                report.device = predictor.device
                for index, region in regions:
                    target.write(index, region, source.read(index, region))
            else:
                with part_of(before, total).around():
                    run(
                        source,
                        target,
                        predictor,
                        scales,
                        tiles=plan.tiles_on(predictor.device),
                        strength=plan.options.strength,
                        regions=regions,
                        contexts=contexts,
                        report=report,
                    )
            before += sum(region.pixels for _, region in regions)
        return out, report

    def _by_channel(self, block: Block) -> Iterator[tuple[int, list[tuple[Any, Region]]]]:
        """Regions of a block: of each channel that has a blur of its own, or of all."""
        layout, regions = self.plan.layout, regions_of(self.plan.layout, block)
        if len(self.found().blurs) < 2:
            yield 0, regions
            return
        for channel in range(layout.groups):
            own = [part for part in regions if layout.group(part[0]) == channel]
            if own:
                yield channel, own


#: Share of the light of an image by which that of its result may differ without a word.
LIGHT = 0.01
#: Said of a movie of which two frames tell less than one.
ALONE = (
    "Each frame was restored alone: the blur between two is too short, not as long as was given, "
    "or nothing shows how long it is, and with both the result would be worse"
)


def provenance(
    plan: Plan,
    facts: Facts | None = None,
    report: Report | None = None,
    *,
    blur: BlurEstimate | None = None,
    seconds: float | None = None,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Say how a result is made.

    Parameters
    ----------
    plan : Plan
    facts : Facts, optional
        What was found of the image.
    report : Report, optional
        What happened.
    blur : BlurEstimate, optional
    seconds : float, optional
        Without it the record is the same for a run that was broken off and continued.
    workers : Workers, optional
        Of the cluster that computed.

    Returns
    -------
    dict
    """
    options, spec = plan.options, plan.spec
    blurs = () if facts is None else facts.blurs
    told = any(plan.psfs) if facts is None else facts.psf is not None
    if told and plan.inverter is not None:
        spec = plan.inverter
    classical = options.method != "network"
    dtype = autocast_dtype(plan.device)
    record: dict[str, Any] = {
        "task": options.task,
        "model": _model(spec) if not classical else options.method,
        "weights_sha256": None if classical else spec.sha256 or sha256(spec.path),
        "axes": plan.layout.axes,
        "strength": options.strength,
        "tile": plan.tiles.side if plan.tiles.fixed else "auto",
        "device": plan.device,
        "precision": "float32" if dtype is None else str(dtype).removeprefix("torch."),
        "versions": {"napari-restore": installed_version(), "torch": str(torch.__version__)},
    }
    if options.structure_size:
        record["structure_size"] = options.structure_size
    if plan.dimensions == 3:
        record["dimensions"] = 3
    if classical:
        record["method"] = options.method
    if plan.inverter is not None or classical:
        # What was asked for, which is known before anything is found.
        record["psf_asked"] = [psf.digest for psf in plan.psfs] or "auto"
    if plan.pixel_size is not None:
        record["pixel_size_um"] = list(plan.pixel_size)
    if blurs:
        records = [blur.record() for blur in blurs]
        record["psf"] = records if len(records) > 1 else records[0]
    if options.keep_range:
        record["keep_range"] = True
    if options.invalid_value is not None:
        record["invalid_value"] = options.invalid_value
    if spec.frames == 2:
        record["frames"] = 2
        found = None if facts is None else facts.exposure
        if found == 0:
            record["frames_used"] = 1
        if exposure := options.exposure or found:
            record["exposure"] = exposure
            record["exposure_found"] = options.exposure is None
    if report is not None:
        record |= {
            "device": report.device or plan.device,
            "clipped_samples": report.clipped,
            "held_samples": report.held,
            "invalid_samples": report.invalid,
            "notes": [*plan.notes, *report.notes, *_of_psfs(blurs)],
        }
    if report is not None:
        few = facts is not None and any(scale.few for scale in facts.scales)
        # To take away light is what Dehaze is for, but not where a pixel has few counts.
        if abs(report.light - 1) > LIGHT and (few or options.task != "dehaze"):
            record["light"] = round(report.light, 4)
            outside = plan.dimensions == 3
            record["notes"].append(light_note(report.light, outside))
    if record.get("frames_used") == 1:
        record["notes"] = [*record.get("notes", []), ALONE]
    if facts is not None and facts.scales:
        # What became 0 and 1 for the network, for each channel.
        record["scales"] = [[scale.low, scale.low + scale.span] for scale in facts.scales]
    if workers is not None:
        record |= {"device": workers.device, "precision": workers.precision}
    if blur is not None:
        record["blur"] = blur.record()
    if seconds is not None:
        record["seconds"] = round(seconds, 3)
    return record


def _of_psfs(blurs: Sequence[Blur]) -> list[str]:
    """Say of which channels another PSF is used than that of the optics that were told."""
    return [
        blur.doubt if len(blurs) == 1 else f"Channel {number}: {blur.doubt}"
        for number, blur in enumerate(blurs)
        if blur.doubt
    ]


def light_note(share: float, outside: bool = False) -> str:
    """Say that the sum of a result is not that of its image; ``outside``, as a volume has it."""
    said = (
        f"The result has {share:.1%} of the light of the image: take sums and means from the image"
    )
    if outside:
        # What the optics take out of the stack is more than noise and rounding ever change.
        said += (
            ". The point spread function carries light into the volume from beyond its borders, "
            "and out of it, and the result estimates what was there"
        )
    return said


def _model(spec: ModelSpec) -> str:
    """Name of a model; a user's own file outside the library is found again by its path."""
    return spec.weights if Path(spec.weights).is_absolute() and not is_own(spec) else spec.name
