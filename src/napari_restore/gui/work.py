"""What runs in a thread: functions that touch neither viewer nor layer."""

from __future__ import annotations

import math
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_restore.inference.engine import Report
from napari_restore.restoration.plan import try_blur
from napari_restore.restoration.run import find_facts, plane_of, restore_array
from napari_restore.runtime import Progress, part_of, relaying

from .extras import motion_of, removed_from
from .layers import restore_job
from .rates import Stopwatch, Times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.analysis.motion import Motion
    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Block
    from napari_restore.restoration.plan import BlurEstimate, Facts
    from napari_restore.restoration.run import Restoration

    from .jobs import LayerJob


#: Arrays and options of which facts are kept.
_KEPT = 4


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work: its result, or why there is none."""

    result: Any = None
    error: Exception | None = None


class RestoredLayer(NamedTuple):
    """A restored layer, what else was asked for, and how long it took."""

    restoration: Restoration
    times: Times
    removed: Any = None
    motion: Motion | None = None


class Previewed(NamedTuple):
    """A restored region, the region as it was, how blurred that is, and how long it took."""

    restored: NDArray[Any]
    original: NDArray[Any]
    blur: BlurEstimate | None
    times: Times
    facts: Facts


class KnownFacts:
    """Facts of the arrays that were previewed last.

    Finding them on a large image takes longer than restoring what the canvas shows.
    """

    def __init__(self) -> None:
        #: The newest first: a weak reference to the array, all else on which they hang, and facts.
        self._known: list[tuple[Any, object, Facts]] = []

    def recall(self, job: LayerJob) -> Facts | None:
        """Return the facts of a layer if they were found before."""
        key = self._key(job)
        found = (facts for array, of, facts in self._known if array() is job.array and of == key)
        return next(found, None)

    def forget(self, array: Any) -> None:
        """Let go of the facts of an array."""
        self._known = [known for known in self._known if known[0]() is not array]

    @staticmethod
    def _key(job: LayerJob) -> object:
        """All on which the facts hang, beside the array."""
        plan = job.plan
        psf = [psf.digest for psf in plan.psfs] or plan.inverter is not None
        name = plan.spec.name
        how = plan.dimensions, plan.options.method, plan.options.exposure
        return (plan.layout, name, *how, *plan.scaling.values(), psf)

    def find(self, job: LayerJob, scales: tuple[Scale, ...] | None = None) -> Facts:
        """Find the facts of a layer, or return those found before; scales may be known already."""
        if (known := self.recall(job)) is not None:
            return known
        facts = find_facts(job.array, job.plan, scales)
        with suppress(TypeError):  # of an array that cannot be referred to weakly
            newest = weakref.ref(job.array), self._key(job), facts
            self._known = [newest, *self._known][:_KEPT]
        return facts


def attempt(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function and turn any error into an outcome.

    One piece that fails does not take the others with it; and the thread worker swallows
    RuntimeErrors, which is what torch raises.
    """
    try:
        return Outcome(result=function(*arguments))
    except Exception as error:
        return Outcome(error=error)


def restore_what_is_seen(job: LayerJob, block: Block, facts: KnownFacts) -> Outcome:
    """Restore what a preview shows; the outcome holds a `Previewed`."""
    return attempt(_preview, job, block, facts)


def _preview(job: LayerJob, block: Block, facts: KnownFacts) -> Previewed:
    stopwatch = Stopwatch()
    plan, place = job.plan, job.place(block)
    with stopwatch.watch().around():
        known = facts.find(job)
        result = restore_array(job.array, plan, facts=known, block=place, blur=False)
    index, region = plane_of(plan.layout, place)
    # What is known of the blur of a volume need not be measured.
    blur = None
    if plan.dimensions == 2:
        blur = try_blur(job.array, plan, known.scales, Report(), (index, region))
    original = np.asarray(job.array[place])
    pixels = math.prod(part.stop - part.start for part in block)
    seen = pixels if plan.dimensions == 3 else plan.seen(region)
    times = stopwatch.times(seen / 1e6, pixels / 1e6)
    restored = result.data
    if job.partner is not None:
        restored, original = restored[0], original[0]
    return Previewed(restored, original, blur, times, known)


def restore_all(jobs: Sequence[LayerJob], facts: KnownFacts) -> list[Outcome]:
    """Restore layer after layer; one that fails does not take the others with it.

    Each outcome holds a `RestoredLayer`.
    """
    total, before = sum(job.pixels for job in jobs), 0
    outcomes = []
    for job in jobs:
        with part_of(before, total).around():
            outcomes.append(attempt(_restore_and_show, job, facts.recall(job)))
        before += job.pixels
    return outcomes


def _restore_and_show(job: LayerJob, facts: Facts | None) -> RestoredLayer:
    """Restore a layer, and find what was removed and how things moved if that is wanted."""
    stopwatch = Stopwatch()
    with stopwatch.watch().around():
        restoration = restore_job(job, facts)
    began = time.monotonic()
    removed = motion = None
    if job.block is not None and (job.show_removed or job.show_motion):
        note = (
            f"What was removed from '{job.name}', and its motion, are shown only if everything "
            "is restored."
        )
        restoration.provenance.setdefault("notes", []).append(note)
        job = replace(job, show_removed=False, show_motion=False)
    if job.show_removed:
        removed = _extra(removed_from, job, restoration, "What was removed from")
    if job.show_motion:
        motion = _extra(motion_of, job, restoration, "The motion in")
    seen = job.plan.work * job.pixels / max(1, job.plan.layout.pixels)
    times = stopwatch.times(seen / 1e6, job.pixels / 1e6, time.monotonic() - began)
    return RestoredLayer(restoration, times, removed, motion)


def _extra(
    find: Callable[[LayerJob, Restoration], Any],
    job: LayerJob,
    restoration: Restoration,
    what: str,
) -> Any:
    """Find something after the restoration: if that fails, a note says so and the result stays."""
    with relaying(lambda step: Progress(job.pixels, job.pixels, step.message)).around():
        outcome = attempt(find, job, restoration)
    if outcome.error is not None:
        note = f"{what} '{job.name}' cannot be shown: {outcome.error}"
        restoration.provenance.setdefault("notes", []).append(note)
    return outcome.result
