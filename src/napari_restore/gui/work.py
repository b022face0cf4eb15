"""What runs in a thread: generators that touch neither viewer nor layer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_restore.api import measure_blur, region_steps
from napari_restore.core.protocol import Progress

from .layers import LayerJob, restore_job

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_restore.core.gauge import BlurEstimate
    from napari_restore.core.tiles import Region

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
        blur = measure_blur(job.array, job.plan, known, (index, region)) if data.size else None
        return data, time.monotonic() - started, blur

    return attempt(steps())


def restore_all_steps(jobs: Sequence[LayerJob]) -> Generator[Progress, None, list[Outcome]]:
    """Restore layer after layer; one that fails does not take the others with it."""
    total, before = sum(job.plan.layout.pixels for job in jobs), 0
    outcomes = []
    for job in jobs:
        steps = attempt(restore_job(job))
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                outcomes.append(stop.value)
                break
            yield Progress(before + step.done, total, step.message)
        before += job.plan.layout.pixels
    return outcomes
