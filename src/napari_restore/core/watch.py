"""What is said between the rows of a tile: how far a network is, and that nobody waits for it."""

from __future__ import annotations

from concurrent.futures import wait
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

Result = TypeVar("Result")

#: Seconds between two looks at a thread that computes.
LOOK = 0.1


class Stopped(BaseException):
    """Nobody waits for the result any more.

    Like ``GeneratorExit`` no `Exception`: whoever turns errors into notes lets it pass.
    """


class Watch:
    """Follows a computation from another thread, and may stop it.

    What runs within it calls `advanced` and `check`; watches within watches are stopped with them.
    One thread writes the share and any may read it or stop: both are single assignments.

    Attributes
    ----------
    share : float
        How far it is, from 0 to 1.
    """

    def __init__(self) -> None:
        self.share = 0.0
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
        token = _CURRENT.set(self)
        try:
            check()
            return function(*arguments)
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Watch | None] = ContextVar("napari_restore_watch", default=None)


def check() -> None:
    """Raise `Stopped` if nobody waits for what is being computed."""
    watch = _CURRENT.get()
    if watch is not None and watch.stopped:
        raise Stopped


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
