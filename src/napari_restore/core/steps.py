"""Run a generator of steps to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .protocol import Progress

Result = TypeVar("Result")


def relayed(
    steps: Generator[Progress, None, Result], change: Callable[[Progress], Progress]
) -> Generator[Progress, None, Result]:
    """Take every step, yield what becomes of it, return what the generator returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return cast("Result", stop.value)
        yield change(step)


def drain(
    steps: Generator[Progress, None, Result], progress: Callable[[Progress], object] | None = None
) -> Result:
    """Take every step, tell of each, and return what the generator returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return cast("Result", stop.value)
        if progress is not None:
            progress(step)
