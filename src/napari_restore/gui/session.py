"""One dock's work on a viewer: what is selected, preview, restore, cancel. Knows no widget."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_warning
from psygnal import Signal

from napari_restore.errors import RestoreError

from .canvas import visible_region
from .describe import Rates, blur_text, duration, summary, title
from .jobs import LayerJob, plan_layer
from .layers import result_layer
from .motion import motion_layer
from .preview import KnownScales, is_preview, preview_layer
from .removed import removed_layer
from .runner import Runner, notify
from .work import Outcome, restore_all_steps, restore_region_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.qt.threading import GeneratorWorker

    from napari_restore.core.tiles import Region

    from .options import Options

#: Longest side of a preview in pixels, so that it comes at once on a CPU too.
_PREVIEW_SIDE = {"cpu": 1024}
_PREVIEW_SIDE_GPU = 2048
#: Changes of a layer that a preview does not survive, and that the dock speaks of.
_PLACE = {"data", "scale", "translate", "rotate", "shear", "affine", "units"}
_NAMED = {"name", "data", "axis_labels", "scale", "units"}


def _partners(sources: Sequence[Image]) -> list[Image] | list[None]:
    """Of two single images, each is the neighbour of the other; movies have their own frames."""
    if len(sources) == 2 and all(layer.ndim == 2 for layer in sources):
        return [sources[1], sources[0]]
    return [None] * len(sources)


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
        self.runner, self.rates = Runner(), Rates()
        self._preview: Image | None = None
        self._source: Image | None = None
        self._known_scales = KnownScales()
        self._inserting = False
        # The list tells of its layers' events too.
        viewer.layers.events.connect(self._on_layers)
        viewer.layers.selection.events.changed.connect(self._on_selection)

    def close(self) -> None:
        """Stop and let go of the viewer."""
        self.viewer.layers.events.disconnect(self._on_layers)
        self.viewer.layers.selection.events.changed.disconnect(self._on_selection)
        self.abandon()

    # ------------------------------------------------------------ what is selected

    def sources(self) -> list[Image]:
        """Image layers of the selection, from bottom to top, without previews."""
        chosen = self.viewer.layers.selection
        return [
            layer
            for layer in self.viewer.layers
            if layer in chosen and isinstance(layer, Image) and not is_preview(layer)
        ]

    def jobs(self, options: Options) -> list[LayerJob]:
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
        if any(is_preview(layer) for layer in selected):
            raise RestoreError("This is a preview. Select the layer beneath it.")
        names = ", ".join(f"'{layer.name}' ({type(layer).__name__})" for layer in selected)
        raise RestoreError(f"No image among the selected layers: {names}. Select an Image layer.")

    def _on_selection(self, event: Any) -> None:
        if not self._inserting:
            self.changed.emit()

    def _on_layers(self, event: Any) -> None:
        if event.type == "removed":
            layer = event.value
        elif event.type in _PLACE | _NAMED:
            layer = self.viewer.layers[event.index]
        else:
            return
        if layer is self._preview and event.type == "removed":
            self._preview = self._source = None
        elif layer is self._source and event.type not in _NAMED - _PLACE:
            self.remove_preview()
        if event.type in _NAMED and layer in self.viewer.layers.selection:
            self.changed.emit()

    # ------------------------------------------------------------ running

    @property
    def running(self) -> bool:
        """Whether a preview or a restoration is under way."""
        return self.runner.running

    def cancel(self) -> None:
        """Stop after the tile that is being computed; the viewer stays as it was."""
        self.runner.cancel()

    def abandon(self) -> None:
        """Stop and add nothing: nobody is left to show a result to."""
        self.runner.abandon()
        self.remove_preview()

    def restore(self, options: Options) -> GeneratorWorker[Any, Any, Any]:
        """Start restoring the selected layers in a thread; results are added when all are done.

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
        self.remove_preview()
        return self.runner.start(
            partial(restore_all_steps, jobs),
            f"Restoring {title(jobs)}",
            sum(job.pixels for job in jobs),
            partial(self._add_results, jobs, options.hide_source),
        )

    def preview(self, options: Options) -> GeneratorWorker[Any, Any, Any]:
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
        side = _PREVIEW_SIDE.get(job.plan.device, _PREVIEW_SIDE_GPU)
        index, region = visible_region(job.layer, self.viewer.dims, side)
        return self.runner.start(
            partial(restore_region_steps, job, index, region, self._known_scales),
            f"Previewing {region.height} × {region.width} pixels of {job.name}",
            region.pixels,
            partial(self._show_preview, job, index, region),
        )

    # ------------------------------------------------------------ results

    def _add_results(self, jobs: Sequence[LayerJob], hide: bool, outcomes: list[Outcome]) -> str:
        """Add all results, and say in one line what became of each layer."""
        if len(jobs) == 1 and not (
            jobs[0].scheduler or jobs[0].lazy or jobs[0].show_removed or jobs[0].show_motion
        ):
            layout = jobs[0].plan.layout
            pixels, seconds = self.runner.measured()
            self.rates.learn(jobs[0], pixels * jobs[0].plan.work / max(1, layout.pixels), seconds)
        texts: list[str] = []
        results: list[tuple[Layer, Layer]] = []
        beneath: list[tuple[Layer, Layer]] = []
        above: list[tuple[Layer, Layer]] = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.error is not None:
                texts.append(notify(outcome.error, f"'{job.name}' was not restored"))
                continue
            restored, removed, motion = outcome.result
            result, record = result_layer(job, restored), restored.provenance
            if removed is not None:
                beneath.append((job.layer, removed_layer(job, removed, record)))
            if motion is not None:
                above.append((result, motion_layer(job, motion, record)))
            results.append((job.layer, result))
            for note in record["notes"]:
                show_warning(note)
            texts.append(summary(job, result))
        self._insert_above(results)
        # Beneath the results, which were inserted right above their sources.
        self._insert_above(beneath)
        self._insert_above(above)
        for source, _ in results:
            if hide and source in self.viewer.layers:
                source.visible = False
        if len(texts) > 3:
            failed = len(jobs) - len(results)
            text = f"{len(results)} layers restored."
            return f"{text} {failed} failed." if failed else text
        return " ".join(texts)

    def _insert_above(self, layers: Sequence[tuple[Layer, Layer]]) -> None:
        """Add layers over others and keep the selection, which new layers would take over."""
        present = self.viewer.layers
        selected, active = set(present.selection), present.selection.active
        self._inserting = True
        try:
            for source, layer in layers:
                place = present.index(source) + 1 if source in present else len(present)
                present.insert(place, layer)
            chosen = {layer for layer in selected if layer in present}
            if active is not None and active in chosen:
                present.selection.active = active
            present.selection = chosen
        finally:
            self._inserting = False

    # ------------------------------------------------------------ preview

    def _show_preview(
        self, job: LayerJob, index: tuple[int, ...], region: Region, outcome: Outcome
    ) -> str:
        self.remove_preview()
        if outcome.error is not None:
            return notify(outcome.error, f"No preview of '{job.name}'")
        if job.layer not in self.viewer.layers:
            return f"No preview: '{job.name}' is gone."
        data, seconds, blur = outcome.result
        self._preview, self._source = preview_layer(job, index, region, data), job.layer
        self._insert_above([(job.layer, self._preview)])
        size = f"{region.height} × {region.width} pixels"
        seen = "" if blur is None else f" {blur_text(blur.record(), job.state)}"
        return f"Preview of {size} in {duration(seconds)}.{seen} It goes when you restore."

    def remove_preview(self) -> None:
        """Take the temporary layer away, if there is one."""
        preview, self._preview, self._source = self._preview, None, None
        if preview is not None and preview in self.viewer.layers:
            self.viewer.layers.remove(preview)
