"""What runs in a thread: generators that touch neither viewer nor layer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_restore.core.protocol import Progress, Report
from napari_restore.core.steps import relayed
from napari_restore.findings import try_blur
from napari_restore.restoration import region_steps

from .layers import restore_job
from .motion import motion_of
from .removed import removed_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

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
    """A restored layer, and what else was asked for."""

    restoration: Restoration
    removed: Any = None
    motion: Motion | None = None


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
    """Restore what a preview shows; the outcome holds pixels, seconds and the estimate of blur."""

    def steps() -> Generator[Progress, None, tuple[Any, float, BlurEstimate | None]]:
        started = time.monotonic()
        known, plan = yield from scales.find(job, region)
        place = job.place(index)
        data = yield from region_steps(job.array, plan, place, region, known)
        blur = try_blur(job.array, plan, known, Report(), (place, region))
        return data, time.monotonic() - started, blur

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
    restoration = yield from restore_job(job)
    removed = motion = None
    if job.show_removed:
        steps = removed_steps(job, restoration)
        removed = yield from _extra(steps, job, restoration, "What was removed from")
    if job.show_motion:
        steps = motion_of(job, restoration)
        motion = yield from _extra(steps, job, restoration, "The motion in")
    return Restored(restoration, removed, motion)


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
