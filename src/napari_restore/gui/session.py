"""One dock's work on a viewer: what is selected, preview, restore, cancel. Knows no widget."""

from __future__ import annotations

import math
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from psygnal import Signal

from napari_restore.errors import RestoreError
from napari_restore.runtime import part_of

from .canvas import visible_block
from .compare import comparison_of
from .describe import blur_text, duration, title
from .jobs import LayerJob, plan_layer
from .layers import METADATA_KEY, SUFFIXES
from .lineage import meant_by, results_of, source_of
from .live import Live
from .options import DockOptions
from .preview import Preview
from .rates import known_rates
from .region import block_in, channels_of
from .runner import Runner, notify
from .stacking import Run, add_result
from .strength import FreshResult
from .work import KnownFacts, Outcome, restore_all, restore_what_is_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.qt.threading import GeneratorWorker

    from napari_restore.image.layout import Block
    from napari_restore.restoration.plan import Blur

#: Longest side of a preview in pixels, so that it comes at once on a CPU too.
_PREVIEW_SIDE = {"cpu": 1024}
_PREVIEW_SIDE_GPU = 2048
#: Changes of a layer that a preview does not survive, and that the dock speaks of.
_PLACE = {"data", "scale", "translate", "rotate", "shear", "affine", "units"}
_NAMED = {"name", "data", "axis_labels", "scale", "units"}
_SAID = _NAMED - _PLACE


#: Sessions of open docks.
_OPEN: weakref.WeakSet[Session] = weakref.WeakSet()


def end(viewer: Any) -> None:
    """Cancel what runs in the docks of a viewer; if nothing does, end the comparison."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    running = [
        session
        for session in _OPEN
        if getattr(session.viewer, "__wrapped__", session.viewer) is viewer and session.running
    ]
    for session in running:
        session.cancel()
    if not running:
        comparison_of(viewer).stop()


def _side_of_preview(device: str) -> int:
    return _PREVIEW_SIDE.get(device, _PREVIEW_SIDE_GPU)


def _partners(sources: Sequence[Image]) -> list[Image] | list[None]:
    """Of two single images, each is the neighbor of the other; movies have their own frames."""
    if len(sources) == 2 and all(layer.ndim == 2 for layer in sources):
        return [sources[1], sources[0]]
    return [None] * len(sources)


def _sides(block: Block) -> str:
    """Sides of a part of a plane."""
    sides = [part.stop - part.start for part in block]
    return " × ".join(str(side) for side in sides if side > 1) or "1"


class Session:
    """Restore the selected layers of a viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        With or without a window.
    task : str
        As in `napari_restore.restore`.
    """

    #: The selection, or a selected layer, is not what it was.
    changed = Signal()

    def __init__(self, viewer: ViewerModel, task: str) -> None:
        self.viewer, self.task = viewer, task
        self.runner, self.rates = Runner(), known_rates()
        #: Name of the layer, or how many there are, that the running or last work is for.
        self.target = ""
        self._preview: Preview | None = None
        self._fresh: list[FreshResult] = []
        self._known_facts = KnownFacts()
        self._blurs: tuple[LayerJob, Sequence[Blur]] | None = None
        self._inserting = False
        self._runs: list[Run] = []
        self._options: Callable[[], DockOptions] = DockOptions
        self.live = Live(viewer, self._live_job, self._known_facts, _side_of_preview, self.rates)
        _OPEN.add(self)
        # The list tells of its layers' events too.
        viewer.layers.events.connect(self._on_layers)
        viewer.layers.selection.events.changed.connect(self._on_selection)

    def close(self) -> None:
        """Stop and let go of the viewer."""
        _OPEN.discard(self)
        self.viewer.layers.events.disconnect(self._on_layers)
        self.viewer.layers.selection.events.changed.disconnect(self._on_selection)
        self.abandon()

    # ------------------------------------------------------------ what is selected

    def sources(self) -> list[Image]:
        """Images that are meant by the selection, from bottom to top; see `meant_by`."""
        layers, chosen = self.viewer.layers, self.viewer.layers.selection
        meant = {meant_by(layer, self.task, layers) for layer in chosen}
        return [layer for layer in layers if layer in meant and isinstance(layer, Image)]

    def jobs(self, options: DockOptions) -> list[LayerJob]:
        """Decide what will be done to each selected image.

        Raises
        ------
        RestoreError
            If nothing is selected or a layer cannot be restored.
        """
        sources = self.sources()
        if sources:
            partners = _partners(sources) if options.frames == 2 else [None] * len(sources)
            return [
                plan_layer(layer, self.task, partner=partner, **options.planning())
                for layer, partner in zip(sources, partners, strict=True)
            ]
        selected = list(self.viewer.layers.selection)
        if not selected:
            raise RestoreError("Select one or more image layers.")
        names = ", ".join(f"'{layer.name}' ({type(layer).__name__})" for layer in selected)
        raise RestoreError(f"No image among the selected layers: {names}. Select an Image layer.")

    def channels(self) -> list[Image]:
        """Layers that are channels of the same image as what is selected; none if it has one."""
        sources = self.sources()
        found = channels_of(sources[-1], self.viewer.layers) if sources else []
        return found if len(found) > 1 else []

    def select_channels(self) -> None:
        """Select all channels of the image."""
        self.viewer.layers.selection = set(self.channels())

    def _on_selection(self, event: Any) -> None:
        if not self._inserting:
            self.changed.emit()

    def _on_layers(self, event: Any) -> None:
        if event.type == "removed":
            layer = event.value
        elif event.type in _PLACE | _NAMED and not self._inserting:
            layer = self.viewer.layers[event.index]
        else:
            return
        gone, preview = event.type == "removed", self._preview or self.live.shown
        if preview is not None:
            if (gone and layer is preview.layer) or (
                layer is preview.source and event.type not in _SAID
            ):
                self.remove_preview()
        if event.type == "data" or gone:
            self._fresh = [x for x in self._fresh if layer is not x.source and x.untouched]
            if isinstance(layer, Image):
                self.live.forget(layer)
        if event.type in _NAMED and layer in self.sources():
            self.changed.emit()

    def blur_of(self, job: LayerJob) -> Blur | None:
        """Return what the last run found of a blur, if a run would find the same again."""
        if self._blurs is None:
            return None
        known, blurs = self._blurs
        same = known.layer is job.layer and known.array is job.array
        asked = [[psf.digest for psf in one.plan.psfs] for one in (known, job)]
        if not (same and blurs and asked[0] == asked[1] and job.plan.inverter is not None):
            return None
        return next((blur for blur in blurs if blur.psf is not None), blurs[0])

    # ------------------------------------------------------------ running

    @property
    def running(self) -> bool:
        """Whether a preview or a restoration is under way."""
        return self.runner.running

    def cancel(self) -> None:
        """Stop between two rows of a tile; the viewer stays as it was."""
        self.runner.cancel()

    def abandon(self) -> None:
        """Stop and add nothing: nobody is left to show a result to."""
        self.runner.abandon()
        self.remove_preview()

    def restore(
        self, options: DockOptions, controls: Mapping[str, Any] | None = None
    ) -> GeneratorWorker[Any, Any, Any]:
        """Start restoring the selected layers in a thread; results are added when all are done.

        Parameters
        ----------
        options : DockOptions
        controls : mapping, optional
            Values of the controls, which the results remember.

        Returns
        -------
        GeneratorWorker
            Started; its ``returned`` signal carries a list of `Outcome`, one for each layer.

        Raises
        ------
        RestoreError
            If something else is running or nothing can be restored.
        """
        self.runner.refuse_if_running()
        jobs = self.jobs(options)
        # Before the preview goes: while it is there, it knows what is seen.
        blocks = [block_in(job, self.viewer, options.region, options.slices) for job in jobs]
        jobs = [replace(job, block=block) for job, block in zip(jobs, blocks, strict=True)]
        self.remove_preview()
        self.target = title(jobs)
        return self.runner.start(
            partial(restore_all, jobs, self._known_facts),
            f"Restoring {self.target}",
            sum(job.pixels for job in jobs),
            partial(self._add_results, jobs, options, controls),
        )

    def preview(self, options: DockOptions) -> GeneratorWorker[Any, Any, Any]:
        """Start restoring what the canvas shows of the topmost selected layer, in a thread.

        Returns
        -------
        GeneratorWorker
            Started; when it returns, a temporary layer lies over the region.

        Raises
        ------
        RestoreError
            If something else is running or there is nothing to preview.
        """
        self.runner.refuse_if_running()
        job = self.jobs(options)[-1]
        self.live.stop()
        # The full change is kept, and blended with the source as the strength says.
        job = replace(job, plan=job.plan.at_strength(1.0))
        self.target = job.name
        side = _side_of_preview(job.plan.device)
        block = visible_block(job.layer, self.viewer.dims, side, job.space)
        size = [part.stop - part.start for part in block]
        return self.runner.start(
            partial(restore_what_is_seen, job, block, self._known_facts),
            f"Previewing {_sides(block)} pixels of {job.name}",
            math.prod(size),
            partial(self._show_preview, job, block, options.strength),
        )

    def preview_docks(self, options: DockOptions) -> GeneratorWorker[Any, Any, Any]:
        """Start a preview of what is seen by each of the docks, beside each other.

        The other docks' own controls are at their defaults.

        Returns
        -------
        GeneratorWorker
            Started; when it returns, a grid shows the source and a preview of each.

        Raises
        ------
        RestoreError
            As of `preview`.
        """
        self.runner.refuse_if_running()
        layer = self.jobs(options)[-1].layer
        common = DockOptions(
            device=options.device,
            tile=options.tile,
            strength=options.strength,
            channel_axis=options.channel_axis,
        )
        jobs = [
            plan_layer(layer, task, **(options if task == self.task else common).planning())
            for task in SUFFIXES
        ]
        side = _side_of_preview(jobs[0].plan.device)
        block = visible_block(layer, self.viewer.dims, side)
        pixels = math.prod(part.stop - part.start for part in block)
        self.target = layer.name
        # Facts of another model are others.
        facts = [
            self._known_facts if job.plan.spec.task == self.task else KnownFacts() for job in jobs
        ]

        def work() -> list[Outcome]:
            outcomes = []
            for number, (job, known) in enumerate(zip(jobs, facts, strict=True)):
                with part_of(number * pixels, len(jobs) * pixels).around():
                    outcomes.append(restore_what_is_seen(job, block, known))
            return outcomes

        return self.runner.start(
            work,
            f"Previewing {layer.name} in all docks",
            len(jobs) * pixels,
            partial(self._show_docks, jobs, block),
        )

    # ------------------------------------------------------------ results

    def _add_results(
        self,
        jobs: Sequence[LayerJob],
        options: DockOptions,
        controls: Mapping[str, Any] | None,
        outcomes: list[Outcome],
    ) -> str:
        """Add all results, and say in one line what became of each layer."""
        texts: list[str] = []
        added: list[tuple[LayerJob, Image]] = []
        run = Run(self.viewer)
        with self._quietly():
            for fresh in self._fresh:
                if any(job.layer is fresh.source for job in jobs):
                    # The new result is of the strength that was tried on the last one.
                    fresh.as_made()
            for job, outcome in zip(jobs, outcomes, strict=True):
                if outcome.error is not None:
                    texts.append(notify(outcome.error, f"'{job.name}' was not restored"))
                    continue
                self.rates.learn(job, outcome.result.times)
                self._blurs = job, outcome.result.restoration.facts.blurs
                if options.replace_earlier:
                    run.remove(results_of(job.layer, self.task, self.viewer.layers))
                result, text = add_result(self.viewer, job, outcome.result)
                if controls is not None:
                    record = result.metadata[METADATA_KEY] | {"controls": dict(controls)}
                    result.metadata = {**result.metadata, METADATA_KEY: record}
                added.append((job, result))
                texts.append(text)
                if options.hide_source and job.layer in self.viewer.layers:
                    job.layer.visible = False
            if added:
                results = [result for _, result in added]
                self.viewer.layers.selection.active = results[-1]
                self.viewer.layers.selection = set(results)
        self._fresh = [FreshResult(*each) for each in added]
        run.end()
        if added:
            self._runs.append(run)
        if len(texts) > 3:
            failed = len(jobs) - len(added)
            text = f"{len(added)} layers restored."
            return f"{text} {failed} failed." if failed else text
        return " ".join(texts)

    # ------------------------------------------------------------ live

    def go_live(self, options: Callable[[], DockOptions]) -> None:
        """Keep what is seen restored, from now on, with what the controls say at each time.

        Raises
        ------
        RestoreError
            If something else is running or nothing can be restored.
        """
        self.runner.refuse_if_running()
        self.jobs(options())
        self.remove_preview()
        self._options = options
        self.live.start(options().strength)

    def _live_job(self) -> LayerJob:
        """Job of what is selected; of what was, while labels are painted."""
        options, shown = self._options(), self.live.shown
        if shown is not None and not self.sources():
            job = plan_layer(shown.source, self.task, **options.planning())
        else:
            job = self.jobs(options)[-1]
        return replace(job, plan=job.plan.at_strength(1.0))

    def undo(self) -> str:
        """Take away what the last run added, and show again what it hid or replaced.

        Raises
        ------
        RestoreError
            If there is nothing to undo.
        """
        self.runner.refuse_if_running()
        if not self._runs:
            raise RestoreError("There is nothing to undo: this dock has added no result.")
        with self._quietly():
            said = self._runs.pop().undo()
        self.changed.emit()
        return said

    def take_away(self, which: Callable[[Layer], bool]) -> list[str]:
        """Take results away, which `undo` gives back, and return their names.

        What they were made from is seen again, and selected if nothing else is.
        """
        run, layers = Run(self.viewer), self.viewer.layers
        chosen = [layer for layer in layers if which(layer)]
        with self._quietly():
            found = [source_of(layer, layers) for layer in chosen]
            sources = {source for source in found if source is not None and source not in chosen}
            run.remove(chosen)
            for source in sources:
                source.visible = True
            if not layers.selection:
                layers.selection = sources
        run.end()
        if chosen:
            self._runs.append(run)
        return [f"'{layer.name}'" for layer in chosen]

    @property
    def can_undo(self) -> bool:
        """Whether a run added something."""
        return bool(self._runs)

    def set_strength(self, strength: float) -> None:
        """Show another strength on the preview and the fresh results of what is selected."""
        sources = self.sources()
        self.live.blend(strength)
        with self._quietly():
            if self._preview is not None and self._preview.source in sources:
                self._preview.blend(strength)
            for fresh in self._fresh:
                if fresh.source in sources:
                    fresh.blend(strength)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Change layers and selection, and tell of it once, at the end."""
        self._inserting = True
        try:
            yield
        finally:
            self._inserting = False
        self.changed.emit()

    # ------------------------------------------------------------ preview

    def _show_preview(
        self,
        job: LayerJob,
        block: Block,
        strength: float,
        outcome: Outcome,
    ) -> str:
        self.remove_preview()
        if outcome.error is not None:
            return notify(outcome.error, f"No preview of '{job.name}'")
        if job.layer not in self.viewer.layers:
            return f"No preview: '{job.name}' is gone."
        found = outcome.result
        self.rates.learn(job, found.times)
        self._blurs = job, found.facts.blurs
        preview = Preview(job, block, found.original, found.restored)
        preview.blend(strength)
        with self._quietly():
            preview.show(self.viewer)
        self._preview = preview
        size = f"{_sides(block)} pixels"
        if job.space is not None:
            size += ", as in the whole volume,"
        seen = "" if found.blur is None else f" {blur_text(found.blur.record(), job.state)}"
        return (
            f"Preview of {size} of '{job.name}' in {duration(found.times.total)}.{seen} The "
            "preview disappears when you restore."
        )

    def _show_docks(
        self,
        jobs: Sequence[LayerJob],
        block: Block,
        outcomes: Sequence[Outcome],
    ) -> str:
        source = jobs[0].layer
        if source not in self.viewer.layers:
            return f"No preview: '{source.name}' is gone."
        self.remove_preview()
        layers, texts = [], []
        for job, outcome in zip(jobs, outcomes, strict=True):
            done = SUFFIXES[job.plan.spec.task]
            if outcome.error is not None:
                texts.append(notify(outcome.error, f"'{job.name}' was not {done}"))
                continue
            found = outcome.result
            layer = Preview(job, block, found.original, found.restored).layer
            layer.name = f"{done}: {job.name} [preview]"
            layers.append(layer)
        if layers:
            comparison_of(self.viewer).show_docks(source, layers)
            texts.insert(0, "The source and what each dock would make of it.")
        return " ".join(texts)

    def remove_preview(self) -> None:
        """Take the temporary layer away, if there is one."""
        self.live.stop()
        preview, self._preview = self._preview, None
        if preview is not None:
            preview.remove()
