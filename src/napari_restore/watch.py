"""Progress and cancellation of a computation, handed down without being passed as an argument."""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

Result = TypeVar("Result")

#: Seconds between two looks at a thread that computes.
LOOK = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a restoration is: ``done`` of ``total`` pixels."""

    done: int
    total: int
    message: str = ""


class Stopped(BaseException):
    """Nobody waits for the result any more.

    Like ``GeneratorExit`` no `Exception`: whoever turns errors into notes lets it pass.
    """


class Watch:
    """Follows a computation and may stop it, from any thread.

    What runs within it calls `tell`, `advanced` and `check`. Watches within watches stop with them.

    Parameters
    ----------
    on_progress : callable, optional
        Gets every `Progress`, in the thread that computes. An exception of it ends the computation.

    Attributes
    ----------
    share : float
        How far a step is that counts no pixels, from 0 to 1.
    progress : Progress
        The last that was told.
    """

    def __init__(self, on_progress: Callable[[Progress], object] | None = None) -> None:
        self.share, self.progress = 0.0, Progress(0, 0)
        self._on_progress = on_progress
        self._stopped = False
        self._around = _CURRENT.get()

    @property
    def stopped(self) -> bool:
        """Whether it, or one around it, was stopped."""
        return self._stopped or (self._around is not None and self._around.stopped)

    def stop(self) -> None:
        """Let what runs within it end at its next `check`."""
        self._stopped = True

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function within this watch, in the thread that calls.

        Raises
        ------
        Stopped
            If it was stopped.
        """
        with self.around():
            check()
            return function(*arguments)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Watch what runs in a with block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def tell(self, progress: Progress) -> None:
        """Note how far it is."""
        self.progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)


_CURRENT: ContextVar[Watch | None] = ContextVar("napari_restore_watch", default=None)


def check() -> None:
    """Raise `Stopped` if nobody waits for what is being computed."""
    watch = _CURRENT.get()
    if watch is not None and watch.stopped:
        raise Stopped


def tell(done: int, total: int, message: str = "") -> None:
    """Tell how far the computation is, in pixels; raises as `check` does."""
    check()
    watch = _CURRENT.get()
    if watch is not None:
        watch.tell(Progress(done, total, message))


def part_of(before: int, total: int) -> Watch:
    """Make a watch for a part of a computation, which counts its own pixels.

    Parameters
    ----------
    before, total : int
        Pixels that were done before the part, and in all.
    """
    return relaying(lambda step: Progress(before + step.done, total, step.message))


def relaying(change: Callable[[Progress], Progress]) -> Watch:
    """Make a watch that tells the watch around it what becomes of each step."""
    around = _CURRENT.get()

    def relay(step: Progress) -> None:
        changed = change(step)
        if around is not None:
            around.tell(changed)

    return Watch(relay)


def advanced(share: float) -> None:
    """Tell how far the computation is, from 0 to 1; raises as `check` does."""
    check()
    watch = _CURRENT.get()
    if watch is not None:
        watch.share = share


def call_in(executor: Executor, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a thread of its own, watched as the caller is, and wait for its result.

    Raises
    ------
    Stopped
        As soon as nobody waits any more; a function that does not look ends later by itself.
    """
    future = executor.submit(copy_context().run, function, *arguments)
    while not wait([future], LOOK).done:
        check()
    return future.result()
