"""What runs in a thread: generators that touch neither viewer nor layer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_restore.core.protocol import Progress, Report
from napari_restore.core.steps import relayed
from napari_restore.restoration import region_steps, try_blur

from .layers import LayerJob, restore_job
from .removed import removed_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_restore.core.gauge import BlurEstimate
    from napari_restore.core.tiles import Region
    from napari_restore.restoration import Restoration

    from .preview import PreviewScales


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work: its result, or why there is none."""

    result: Any = None
    error: Exception | None = None


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
    job: LayerJob, index: tuple[int, ...], region: Region, scales: PreviewScales
) -> Generator[Progress, None, Outcome]:
    """Restore what a preview shows; the outcome holds pixels, seconds and the estimate of blur."""

    def steps() -> Generator[Progress, None, tuple[Any, float, BlurEstimate | None]]:
        started = time.monotonic()
        known = yield from scales.find(job, region)
        data = yield from region_steps(job.array, job.plan, index, region, known)
        blur = try_blur(job.array, job.plan, known, Report(), (index, region))
        return data, time.monotonic() - started, blur

    return attempt(steps())


def restore_all_steps(jobs: Sequence[LayerJob]) -> Generator[Progress, None, list[Outcome]]:
    """Restore layer after layer; one that fails does not take the others with it.

    Each outcome holds a `Restoration` and what was removed, None unless that is wanted.
    """
    total, before = sum(job.plan.layout.pixels for job in jobs), 0
    outcomes = []
    for job in jobs:

        def within_all(step: Progress, before: int = before) -> Progress:
            return Progress(before + step.done, total, step.message)

        outcomes.append((yield from relayed(attempt(_restore_and_show(job)), within_all)))
        before += job.plan.layout.pixels
    return outcomes


def _restore_and_show(job: LayerJob) -> Generator[Progress, None, tuple[Restoration, Any]]:
    """Restore a layer, and find what was removed if that is wanted."""
    restored = yield from restore_job(job)
    if not job.show_removed:
        return restored, None
    removed = yield from attempt(removed_steps(job, restored))
    if removed.error is not None:
        # The restoration is done, and stays.
        note = f"What was removed from '{job.name}' cannot be shown: {removed.error}"
        restored.provenance.setdefault("notes", []).append(note)
    return restored, removed.result
