"""Live preview: what the canvas shows is restored as one moves, block by block."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_restore.errors import ImageError, RestoreError
from napari_restore.image.layout import Region
from napari_restore.restoration.run import restore_array

from .canvas import camera_of, visible_block
from .patches import Patched, Patches, first_of, grid_around, rectangles, seen
from .preview import Preview
from .rates import Stopwatch
from .runner import Runner, notify
from .work import KnownFacts, Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_restore.image.layout import Block

    from .jobs import LayerJob
    from .rates import Rates

#: Milliseconds without a movement after which it is computed.
_PAUSE = 120
#: Options whose restorations are kept.
_KEPT = 4
#: Seconds after which the first part of a view should be there, and up to which a part is not
#: divided: each has margins that are computed too.
_SOON, _AT_ONCE = 0.5, 0.8
#: Options on which a restoration at full strength does not hang.
_OF_NO_MATTER = ("strength", "device", "tile", "psf", "pixel_size")


class LivePreview(Preview):
    """A temporary layer in the place of its source, to which restored blocks are added."""

    def __init__(self, job: LayerJob, block: Block, patches: Patches) -> None:
        self.patches = patches
        super().__init__(job, block, None, None)

    def move(self, block: Block) -> None:
        """Outline another region."""
        if block != self._block:
            self._block = block
            self._outline()

    def use(self, patches: Patches) -> None:
        """Show the blocks of other options."""
        self.patches = patches
        patches.strength = self.strength
        for level in self.layer.data if self._multiscale else [self.layer.data]:
            level.patches = patches
        self.refresh()

    def blend(self, strength: float) -> None:
        """Show another strength; no network is needed."""
        if strength != self.strength:
            self.strength = self.patches.strength = strength
            self.refresh()

    def refresh(self) -> None:
        """Draw blocks that came."""
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _data(self, restored: Any) -> Any:
        before = len(self._block) - 2
        finest = self._levels[0].shape
        levels = [
            Patched(
                level, self.patches, before, max(1, round(finest[before] / level.shape[before]))
            )
            for level in self._levels
        ]
        return levels if self._multiscale else levels[0]


class Live:
    """Keeps what the canvas shows of an image restored, while it is on.

    Each movement is waited out, what is computed for a view that is gone is given up between two
    rows, and blocks that were restored with the same options are not restored again. While the
    blur is being found, which can take longer than one waits for a picture, the image is restored
    without a point spread function.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    find_job : callable
        Returns the `LayerJob` of what is selected, at full strength.
    facts : KnownFacts
    side_of_view : callable
        Longest side in pixels of what is restored, of a device's name.
    rates : Rates
        Say how much can be seen soon, and learn.
    """

    #: What is restored, in a sentence.
    said = Signal(str)
    #: On or off.
    switched = Signal(bool)
    #: Blocks were added to the layer.
    drawn = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        find_job: Callable[[], LayerJob],
        facts: KnownFacts,
        side_of_view: Callable[[str], int],
        rates: Rates,
    ) -> None:
        self.on = False
        self.shown: LivePreview | None = None
        self.runner, self._search = Runner(), Runner()
        self.runner.ended.connect(lambda _: self.look())
        self._search.progressed.connect(lambda step: self._say(step.message))
        self._viewer, self._find_job, self._facts = viewer, find_job, facts
        self._side, self._rates = side_of_view, rates
        self._strength = 1.0
        self._known: OrderedDict[Any, Patches] = OrderedDict()
        #: What of the facts is found soon; and for what the blur is looked for.
        self._soon_found, self._sought = KnownFacts(), None
        self._now: tuple[Any, Region, Region] | None = None
        self._part = self._told = ""
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self.look)

    @property
    def busy(self) -> bool:
        """Whether something is computed, or will be."""
        return self.runner.running or self._search.running or self._timer.isActive()

    def start(self, strength: float) -> None:
        """Switch it on."""
        if self.on:
            return
        self.on, self._strength = True, strength
        for event in self._movements():
            event.connect(self.soon)
        self.switched.emit(True)
        self.look()

    def stop(self) -> None:
        """Switch it off, and show the source."""
        if not self.on:
            return
        self.on = False
        self._timer.stop()
        self.runner.abandon()
        self._search.abandon()
        for event in self._movements():
            event.disconnect(self.soon)
        shown, self.shown = self.shown, None
        if shown is not None:
            shown.remove()
        self._tell("")
        self.switched.emit(False)

    def soon(self, _: Any = None) -> None:
        """Look at what is seen when it has come to rest."""
        if self.on:
            self._timer.start()

    def blend(self, strength: float) -> None:
        """Show another strength."""
        self._strength = strength
        if self.shown is not None:
            self.shown.blend(strength)

    def forget(self, layer: Image) -> None:
        """Let go of what is known of an image that is gone, or was exchanged or changed."""
        # Another one may get its place in memory.
        for key in [key for key in self._known if key[0] == id(layer)]:
            del self._known[key]
        for facts in (self._facts, self._soon_found):
            facts.forget(layer.data[0] if layer.multiscale else layer.data)

    def look(self) -> None:
        """Restore what is seen and not restored yet."""
        if not self.on:
            return
        try:
            job = self._find_job()
            index, region = self._seen(job)
        except RestoreError as error:
            self.runner.abandon()
            self._search.abandon()
            self._tell(f"Live preview: {error}")
            return
        wanted, job = job, self._possible(job)
        key = self._key(job)
        patches = self._patches(key)
        if self.shown is None or self.shown.source is not job.layer:
            self._replace(job, block_of(index, region), patches)
        elif self.shown.patches is not patches:
            self.shown.use(patches)
        assert self.shown is not None
        self.shown.move(block_of(index, region))
        size = job.plan.layout.size
        missing = patches.missing(index, region, size)
        parts = rectangles(missing, grid_around(region, size)[:2], size, job.plan.spec.halo)
        self._look_for_blur(wanted, job, patches)
        if not parts:
            self.runner.abandon()
            patches.under = None
            self._say("", self._blur_of(wanted, index))
            return
        if self.runner.running:
            if self._of_use((key, index), parts):
                return
            self.runner.abandon()
        part, each = parts[0], self._rates.per_pixel(job)
        new = self._now is None or self._now[:2] != ((key, index), region)
        if new and seen(part, size, job.plan.spec.halo) * each > _AT_ONCE:
            # Of a view that is new, a part is seen first.
            part = first_of(part, size, job.plan.spec.halo, _SOON / each)
        self._now = (key, index), region, part
        self._say("Restoring")
        facts = self._facts if job is wanted else self._soon_found
        self.runner.start(
            partial(attempt, _restore, job, index, part, facts),
            "",
            part.pixels,
            partial(self._add, job, patches, index, part),
        )

    # ------------------------------------------------------------ how

    def _possible(self, job: LayerJob) -> LayerJob:
        """Make the job that needs no blur, until it is found."""
        if job.plan.inverter is None or job.plan.psfs or self._facts.recall(job) is not None:
            return job
        return replace(job, plan=replace(job.plan, inverter=None))

    def _look_for_blur(self, wanted: LayerJob, job: LayerJob, patches: Patches) -> None:
        """Find the blur, once there is something to see meanwhile."""
        key = None if job is wanted else self._key(wanted)
        if self._search.running and key != self._sought:
            self._search.abandon()
        if key is None or self._search.running or patches.empty:
            return
        self._sought, soon = key, self._soon_found.recall(job)
        self._search.start(
            partial(attempt, self._facts.find, wanted, None if soon is None else soon.scales),
            "",
            wanted.pixels,
            partial(self._found, key, patches),
        )

    def _found(self, key: Any, patches: Patches, outcome: Outcome) -> str:
        """Restore with what was found; what is shown stays until then."""
        if not self.on:
            return ""
        if outcome.error is not None:
            return self._fail(outcome.error)
        if all(blur.psf is None and not blur.untouched for blur in outcome.result.blurs):
            # It is restored as it was meanwhile.
            self._known[key] = patches
        else:
            self._patches(key).under = patches
        self.look()
        return ""

    def _fail(self, error: Exception) -> str:
        text = notify(error, "No live preview")
        self.stop()
        self._tell(text)
        return text

    def _blur_of(self, job: LayerJob, index: tuple[int, ...]) -> str:
        """Say what is known of the blur of a plane."""
        facts = self._facts.recall(job)
        if facts is None or not facts.blurs:
            return ""
        return facts.blurs[job.plan.layout.group(index)].statement

    def _say(self, doing: str, known: str = "") -> None:
        """Tell what is shown, what is done about it, and what is known."""
        text = f"Live preview{self._part}"
        if self._search.running:
            text += ", as yet without a point spread function"
        self._tell(f"{text}. {doing} …" if doing else f"{text}. {known}".rstrip())

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.said.emit(text)

    def _of_use(self, what: Any, parts: list[Region]) -> bool:
        """Whether what is being computed is wanted still."""
        if self._now is None or self._now[0] != what:
            return False
        now = self._now[2]
        return any(
            part.top < now.bottom
            and now.top < part.bottom
            and part.left < now.right
            and now.left < part.right
            for part in parts
        )

    def _seen(self, job: LayerJob) -> tuple[tuple[int, ...], Region]:
        shown = self.shown
        layer = shown.layer if shown is not None and shown.source is job.layer else job.layer
        side = self._side(job.plan.device)
        if job.space is not None:
            raise ImageError(
                f"'{job.name}' is restored as a volume, and a live preview needs single planes. "
                "Press Preview, or restore plane by plane."
            )
        *places, rows, columns = visible_block(layer, self._viewer.dims, side)
        index = tuple(place.start for place in places)
        region = Region(rows.start, columns.start, rows.stop, columns.stop)
        self._part = " of the middle of the view" if _cut(region, side) else ""
        return index, region

    def _replace(self, job: LayerJob, block: Block, patches: Patches) -> None:
        # Only what is removed while it is shown ends all.
        shown, self.shown = self.shown, None
        if shown is not None:
            shown.remove()
        patches.strength = self._strength
        self.shown = LivePreview(job, block, patches)
        self.shown.strength = self._strength
        self.shown.show(self._viewer)
        if not job.layer.multiscale:
            # Until it is drawn it does not know what is seen of it.
            self.shown.layer.corner_pixels = job.layer.corner_pixels.copy()

    def _patches(self, key: Any) -> Patches:
        patches = self._known.pop(key, None) or Patches()
        self._known[key] = patches
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return patches

    def _key(self, job: LayerJob) -> Any:
        options = job.plan.options
        said = [getattr(options, x.name) for x in fields(options) if x.name not in _OF_NO_MATTER]
        return (id(job.layer), id(job.array), job.partner, KnownFacts._key(job), *map(str, said))

    def _add(
        self,
        job: LayerJob,
        patches: Patches,
        index: tuple[int, ...],
        region: Region,
        outcome: Outcome,
    ) -> str:
        if not self.on or self.shown is None:
            return ""
        if outcome.error is not None:
            return self._fail(outcome.error)
        original, restored, times = outcome.result
        if not self._search.running:  # beside which all takes longer
            self._rates.learn(job, times)
        patches.add(index, region, original, restored)
        self.shown.refresh()
        self.drawn.emit()
        return ""

    def _movements(self) -> list[Any]:
        camera, dims = camera_of(self._viewer).events, self._viewer.dims.events
        events = [camera.center, camera.zoom, dims.point, dims.order, dims.ndisplay]
        canvas = getattr(self._viewer, "canvas", None)  # since napari 0.9
        return events if canvas is None else [*events, canvas.events.size]


def _cut(region: Region, side: int) -> bool:
    return region.height == side or region.width == side


def block_of(index: tuple[int, ...], region: Region) -> Block:
    """Region of a plane as a block of a layer."""
    rows, columns = slice(region.top, region.bottom), slice(region.left, region.right)
    return (*(slice(place, place + 1) for place in index), rows, columns)


def _restore(job: LayerJob, index: tuple[int, ...], region: Region, facts: KnownFacts) -> Any:
    stopwatch, plan = Stopwatch(), job.plan
    place = job.place(block_of(index, region))
    known = facts.find(job)
    with stopwatch.watch().around():
        restored = restore_array(job.array, plan, facts=known, block=place, blur=False).data
    times = stopwatch.times(plan.seen(region) / 1e6, region.pixels / 1e6)
    plane = (0,) * (restored.ndim - 2 - plan.layout.color)
    return np.asarray(job.array[place])[plane], restored[plane], times
