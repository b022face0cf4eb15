"""One dock's work on a viewer: what is selected, preview, restore, cancel. Knows no widget."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from napari.utils import progress as napari_progress
from napari.utils.notifications import show_error, show_warning
from psygnal import Signal

from napari_restore.api import restore_region
from napari_restore.core.axes import Planes
from napari_restore.core.intensity import find_scales
from napari_restore.core.lazy import is_lazy
from napari_restore.core.protocol import Progress
from napari_restore.errors import RestoreError

from .layers import (
    METADATA_KEY,
    plan_layer,
    read_layer,
    region_layer,
    restore_layer_steps,
    result_layer,
    visible_region,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.qt.threading import FunctionWorker, GeneratorWorker

    from napari_restore.api import Restoration
    from napari_restore.core.tiles import Region
    from napari_restore.plan import Plan

#: Longest side of a preview in pixels, so that it comes at once on a CPU too.
PREVIEW_SIDE = {"cpu": 1024}
_PREVIEW_SIDE_GPU = 2048
#: Megapixels per second until a run has measured them.
_FIRST_GUESS = {"cpu": 2.0, "cuda": 60.0, "mps": 15.0}
#: Runs below this are mostly spent on loading the model and say nothing about speed.
_MEASURED_PIXELS = 4e6


@dataclass(frozen=True)
class Options:
    """What the dock's controls say; as for `napari_restore.restore`."""

    model: str = "auto"
    device: str = "auto"
    tile: int | str = "auto"
    strength: float = 1.0
    hide_source: bool = False

    def planning(self) -> dict[str, Any]:
        """Those that decide a plan."""
        return {
            "model": self.model,
            "device": self.device,
            "tile": self.tile,
            "strength": self.strength,
        }


@dataclass(frozen=True)
class Outcome:
    """What became of one layer: a restoration, or why there is none."""

    layer: Image
    plan: Plan
    restoration: Restoration | None = None
    error: RestoreError | None = None


class Session:
    """Restore the selected layers of a viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        With or without a window.
    task : str
        As in `napari_restore.restore`.
    """

    #: Work began (what), went on (a `Progress`), ended (one sentence).
    started = Signal(str)
    progressed = Signal(object)
    ended = Signal(str)

    def __init__(self, viewer: ViewerModel, task: str) -> None:
        self.viewer, self.task = viewer, task
        self.worker: GeneratorWorker[Any, Any, Any] | FunctionWorker[Any] | None = None
        self._bar: Any = None
        self._preview: Image | None = None
        self._preview_source: Image | None = None
        self._rates: dict[tuple[str, str], float] = {}
        self._first_tile: tuple[float, int] | None = None
        viewer.layers.events.removed.connect(self._on_removed)

    # ------------------------------------------------------------ what is selected

    def sources(self) -> list[Image]:
        """Image layers of the selection, from bottom to top, without previews."""
        chosen = self.viewer.layers.selection
        return [
            layer
            for layer in self.viewer.layers
            if layer in chosen
            and isinstance(layer, Image)
            and not isinstance(layer, Labels)
            and layer is not self._preview
        ]

    def plans(self, options: Options) -> list[tuple[Image, Plan]]:
        """Decide what will be done to each selected image.

        Raises
        ------
        RestoreError
            If nothing is selected or a layer cannot be restored.
        """
        sources = self.sources()
        if not sources:
            others = [layer for layer in self.viewer.layers.selection if layer is not self._preview]
            if others:
                names = ", ".join(f"'{layer.name}' ({type(layer).__name__})" for layer in others)
                raise RestoreError(
                    f"No image among the selected layers: {names}. Select an Image layer."
                )
            raise RestoreError("Select one or more image layers.")
        plans = []
        for layer in sources:
            try:
                plans.append((layer, plan_layer(layer, self.task, **options.planning())))
            except RestoreError as error:
                raise type(error)(f"'{layer.name}': {error}") from error
        return plans

    def describe(self, plans: list[tuple[Image, Plan]]) -> str:
        """Say in one line what a run will do."""
        device = plans[0][1].device
        models = sorted({plan.spec.name for _, plan in plans})
        parts = [plans[0][0].name if len(plans) == 1 else f"{len(plans)} layers"]
        parts.append("model " + " and ".join(models))
        if len(plans) == 1:
            parts.append(" × ".join(str(length) for length in plans[0][1].layout.shape))
        else:
            parts.append(f"{sum(plan.layout.pixels for _, plan in plans) / 1e6:.3g} Mpixel")
        parts.append(device.upper())
        if all(is_lazy(read_layer(layer).array) for layer, _ in plans):
            parts.append("lazily, where you look")
        else:
            parts.append(_duration(sum(self._seconds(plan) for _, plan in plans)))
        return " · ".join(parts)

    def _seconds(self, plan: Plan) -> float:
        guess = _FIRST_GUESS.get(plan.device.partition(":")[0], 10.0)
        return plan.layout.pixels / 1e6 / self._rates.get((plan.spec.name, plan.device), guess)

    # ------------------------------------------------------------ running

    @property
    def running(self) -> bool:
        """Whether a preview or a restoration is under way."""
        return self.worker is not None

    def restore(self, options: Options) -> GeneratorWorker[Any, Any, Any]:
        """Start restoring the selected layers in a thread; results are added when all are done.

        Returns
        -------
        GeneratorWorker
            Started; its ``returned`` signal carries a list of `Outcome`.

        Raises
        ------
        RestoreError
            If something else is running or nothing can be restored.
        """
        self._refuse_if_running()
        plans = self.plans(options)
        self.remove_preview()
        worker = create_worker(_restore_all, plans, _start_thread=False)
        worker.yielded.connect(self._on_progress)
        worker.returned.connect(lambda outcomes: self._add_results(outcomes, options.hide_source))
        worker.aborted.connect(lambda: self._end("Cancelled; nothing was changed."))
        worker.errored.connect(lambda error: self._end(f"Failed: {error}"))
        names = plans[0][0].name if len(plans) == 1 else f"{len(plans)} layers"
        total = sum(plan.layout.pixels for _, plan in plans)
        self._first_tile = None
        self._bar = napari_progress(total=total, desc=f"Restoring {names}")
        self._start(worker, f"Restoring {names} …")
        return worker

    def preview(self, options: Options) -> FunctionWorker[Any]:
        """Start restoring what the canvas shows of the topmost selected layer, in a thread.

        Returns
        -------
        FunctionWorker
            Started; when it returns, a temporary layer lies over the region.

        Raises
        ------
        RestoreError
            If something else is running or there is nothing to preview.
        """
        self._refuse_if_running()
        layer, plan = self.plans(options)[-1]
        side = PREVIEW_SIDE.get(plan.device, _PREVIEW_SIDE_GPU)
        point = self.viewer.dims.point[self.viewer.dims.ndim - layer.ndim :]
        index, region = visible_region(layer, point, side)
        worker = create_worker(_preview_region, layer, plan, index, region, _start_thread=False)
        worker.returned.connect(
            lambda result: self._show_preview(layer, plan, index, region, *result)
        )
        worker.errored.connect(self._on_preview_error)
        self._start(worker, f"Previewing {region.height} × {region.width} pixels …")
        return worker

    def cancel(self) -> None:
        """Stop after the tile that is being computed; the viewer stays as it was."""
        if self.worker is not None:
            self.worker.quit()

    def abandon(self) -> None:
        """Stop and add nothing: nobody is left to show a result to."""
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.returned.disconnect()
            worker.quit()
        self._close_bar()
        self.remove_preview()

    def close(self) -> None:
        """Stop and let go of the viewer."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.abandon()

    def _refuse_if_running(self) -> None:
        if self.running:
            raise RestoreError("A restoration is running. Wait for it or press Cancel.")

    def _start(self, worker: Any, message: str) -> None:
        self.worker = worker
        self.started.emit(message)
        worker.start()

    def _end(self, message: str) -> None:
        self.worker = None
        self._close_bar()
        self.ended.emit(message)

    def _close_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _on_progress(self, step: Progress) -> None:
        if self._bar is not None:
            self._bar.update(step.done - self._bar.n)
        self.progressed.emit(step if step.message else replace(step, message=self._time_left(step)))

    def _time_left(self, step: Progress) -> str:
        """Extrapolate from the second batch on: the first one has loaded the model."""
        now = time.monotonic()
        if not step.done:
            return ""
        if self._first_tile is None:
            self._first_tile = now, step.done
            return ""
        then, done = self._first_tile
        seconds = (step.total - step.done) * (now - then) / max(1, step.done - done)
        return f"{step.done / step.total:.0%}, {_duration(seconds)} left"

    # ------------------------------------------------------------ results

    def _add_results(self, outcomes: list[Outcome], hide_source: bool) -> None:
        layers = self.viewer.layers
        messages = []
        for outcome in outcomes:
            if outcome.restoration is None:
                show_error(f"'{outcome.layer.name}' was not restored: {outcome.error}")
                messages.append(f"'{outcome.layer.name}' failed.")
                continue
            result = result_layer(outcome.layer, outcome.restoration, self.task)
            self._insert_above(outcome.layer, result)
            if hide_source and outcome.layer in layers:
                outcome.layer.visible = False
            messages.append(self._summary(outcome, result))
        self._end(" ".join(messages))

    def _summary(self, outcome: Outcome, result: Image) -> str:
        record = result.metadata[METADATA_KEY]
        if record.get("lazy"):
            return f"'{result.name}' is restored where you look at it."
        seconds = record["seconds"]
        plan = outcome.plan
        if plan.layout.pixels > _MEASURED_PIXELS:
            self._rates[plan.spec.name, plan.device] = plan.layout.pixels / 1e6 / seconds
        text = f"'{result.name}' in {_duration(seconds, '')}."
        if record["clipped_samples"]:
            share = 100 * record["clipped_samples"] / plan.layout.pixels / plan.layout.channels
            text += f" {share:.2g} % of the samples were clipped to the range of {result.dtype}."
        for note in record["notes"]:
            show_warning(note)
        return text

    def _insert_above(self, source: Layer, layer: Layer) -> None:
        """Add a layer over another and keep the selection, which a new layer would take over."""
        layers = self.viewer.layers
        selected, active = set(layers.selection), layers.selection.active
        place = layers.index(source) + 1 if source in layers else len(layers)
        layers.insert(place, layer)
        layers.selection = {chosen for chosen in selected if chosen in layers}
        if active is not None and active in layers:
            layers.selection.active = active
            layers.selection.update(chosen for chosen in selected if chosen in layers)

    # ------------------------------------------------------------ preview

    def _show_preview(
        self,
        layer: Image,
        plan: Plan,
        index: tuple[int, ...],
        region: Region,
        data: Any,
        seconds: float,
    ) -> None:
        self.remove_preview()
        if layer in self.viewer.layers:
            self._preview = region_layer(layer, index, region, data, f"{layer.name} [preview]")
            self._preview_source = layer
            self._insert_above(layer, self._preview)
        self._end(
            f"Preview of {region.height} × {region.width} pixels in {_duration(seconds, '')}."
        )

    def _on_preview_error(self, error: Exception) -> None:
        self._end(f"No preview: {error}")

    def remove_preview(self) -> None:
        """Take the temporary layer away, if there is one."""
        preview, self._preview, self._preview_source = self._preview, None, None
        if preview is not None and preview in self.viewer.layers:
            self.viewer.layers.remove(preview)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._preview:
            self._preview = self._preview_source = None
        elif event.value is self._preview_source:
            self.remove_preview()


def _restore_all(
    plans: list[tuple[Image, Plan]],
) -> Generator[Progress, None, list[Outcome]]:
    """Restore layer after layer; one that fails does not take the others with it."""
    total, before = sum(plan.layout.pixels for _, plan in plans), 0
    outcomes = []
    for layer, plan in plans:
        steps = restore_layer_steps(layer, plan)
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                outcomes.append(Outcome(layer, plan, restoration=stop.value))
                break
            except RestoreError as error:
                outcomes.append(Outcome(layer, plan, error=error))
                break
            yield Progress(before + step.done, total, step.message)
        before += plan.layout.pixels
    return outcomes


def _preview_region(
    layer: Image, plan: Plan, index: tuple[int, ...], region: Region
) -> tuple[Any, float]:
    started = time.monotonic()
    array = read_layer(layer).array
    scales = find_scales(Planes(array, plan.layout), plan.spec.black_is_zero)
    data = restore_region(array, plan, index, region, scales)
    return data, time.monotonic() - started


def _duration(seconds: float, about: str = "about ") -> str:
    if seconds < 1:
        return "less than a second" if about else f"{seconds:.1f} s"
    if seconds < 90:
        return f"{about}{seconds:.0f} s" if seconds >= 10 or about else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{about}{seconds / 60:.0f} min"
    return f"{about}{seconds / 3600:.1f} h"
