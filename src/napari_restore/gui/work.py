"""What runs in a thread: generators that touch neither viewer nor layer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_restore.core.axes import Planes
from napari_restore.core.protocol import Progress, Report
from napari_restore.core.steps import relayed
from napari_restore.findings import try_blur
from napari_restore.restoration import region_steps

from .layers import restore_job
from .motion import motion_of
from .rates import Stopwatch, Times
from .removed import removed_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_restore.core.gauge import BlurEstimate
    from napari_restore.core.motion import Motion
    from napari_restore.core.tiles import Region
    from napari_restore.restoration import Restoration

    from .jobs import LayerJob
    from .preview import KnownScales


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work: its result, or why there is none."""

    result: Any = None
    error: Exception | None = None


class Restored(NamedTuple):
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


def attempt(steps: Generator[Progress, None, Any]) -> Generator[Progress, None, Outcome]:
    """Turn any error into an outcome.

    One piece that fails does not take the others with it; and the thread worker swallows
    RuntimeErrors, which is what torch raises.
    """
    try:
        return Outcome(result=(yield from steps))
    except Exception as error:
        return Outcome(error=error)


def restore_region_steps(
    job: LayerJob, index: tuple[int, ...], region: Region, scales: KnownScales
) -> Generator[Progress, None, Outcome]:
    """Restore what a preview shows; the outcome holds a `Previewed`."""

    def steps() -> Generator[Progress, None, Previewed]:
        watch = Stopwatch()
        place = job.place(index)
        known, plan = yield from watch.follow(scales.find(job, region))
        restored = yield from watch.follow(region_steps(job.array, plan, place, region, known))
        blur = try_blur(job.array, plan, known, Report(), (place, region))
        original = Planes(job.array, plan.layout).read(place, region)
        original = original if plan.layout.colour else original[..., 0]
        seen = plan.seen(region) / 1e6
        return Previewed(restored, original, blur, watch.times(seen, region.pixels / 1e6))

    return attempt(steps())


def restore_all_steps(jobs: Sequence[LayerJob]) -> Generator[Progress, None, list[Outcome]]:
    """Restore layer after layer; one that fails does not take the others with it.

    Each outcome holds a `Restored`.
    """
    total, before = sum(job.pixels for job in jobs), 0
    outcomes = []
    for job in jobs:

        def within_all(step: Progress, before: int = before) -> Progress:
            return Progress(before + step.done, total, step.message)

        outcomes.append((yield from relayed(attempt(_restore_and_show(job)), within_all)))
        before += job.pixels
    return outcomes


def _restore_and_show(job: LayerJob) -> Generator[Progress, None, Restored]:
    """Restore a layer, and find what was removed and how things moved if that is wanted."""
    watch = Stopwatch()
    restoration = yield from watch.follow(restore_job(job))
    began = time.monotonic()
    removed = motion = None
    if job.show_removed:
        steps = removed_steps(job, restoration)
        removed = yield from _extra(steps, job, restoration, "What was removed from")
    if job.show_motion:
        steps = motion_of(job, restoration)
        motion = yield from _extra(steps, job, restoration, "The motion in")
    layout = job.plan.layout
    seen = job.plan.work * job.pixels / max(1, layout.pixels)
    times = watch.times(seen / 1e6, job.pixels / 1e6, time.monotonic() - began)
    return Restored(restoration, times, removed, motion)


def _extra(
    steps: Generator[Progress, None, Any], job: LayerJob, restoration: Restoration, what: str
) -> Generator[Progress, None, Any]:
    """Take steps after the restoration is done: if they fail, a note says so and it stays."""

    def at_the_end(step: Progress) -> Progress:
        return Progress(job.pixels, job.pixels, step.message)

    outcome = yield from relayed(attempt(steps), at_the_end)
    if outcome.error is not None:
        note = f"{what} '{job.name}' cannot be shown: {outcome.error}"
        restoration.provenance.setdefault("notes", []).append(note)
    return outcome.result
