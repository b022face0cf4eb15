"""Run stages one after another on portions of data, on as many processors as there are."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Rows (N, C, h, W), and whether they are the last.
Rows: TypeAlias = tuple[Tensor, bool]


class Stage(Protocol):
    """A part of a network to which rows are pushed in order."""

    def push(self, x: Tensor, last: bool) -> Iterator[Rows]:
        """Take rows, give those of the result that are ready, if any; after the last come the last.

        The next push overwrites what comes back.
        """
        ...


def through(stages: Sequence[Stage], source: Iterator[Rows]) -> Iterator[Tensor]:
    """Push rows through stages, on as many threads as torch has in this one.

    Each stage gets its rows in order and one portion at a time, so results do not depend on the
    number of threads. While a stage has its second portion, the next stage can have the first.

    Parameters
    ----------
    stages : sequence of Stage
    source : iterator of (Tensor, bool)

    Yields
    ------
    Tensor
        Rows of the result in order. The next ones overwrite them.
    """
    threads = torch.get_num_threads()
    if threads > 1:
        # Whole stages in parallel: threads that share each small operation wait for each other.
        torch.set_num_threads(1)
        try:
            yield from _Pipeline(stages, source).run(threads)
        finally:
            torch.set_num_threads(threads)
        return
    rows = source
    for stage in stages:
        rows = _pushed(stage, rows)
    for x, _ in rows:
        yield x


def _pushed(stage: Stage, rows: Iterator[Rows]) -> Iterator[Rows]:
    for x, last in rows:
        yield from stage.push(x, last)


@lru_cache(maxsize=1)
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that help, kept: each one keeps memory for what networks compute."""
    return ThreadPoolExecutor(count, thread_name_prefix="napari-restore-rows")


class _State(NamedTuple):
    """How torch computes in the calling thread; other threads have to be told."""

    inference: bool
    autocast: bool
    dtype: torch.dtype


class _Pipeline:
    """Stages with queues between them.

    Parameters
    ----------
    stages : sequence of Stage
    source : iterator of (Tensor, bool)
    """

    def __init__(self, stages: Sequence[Stage], source: Iterator[Rows]) -> None:
        self._stages, self._source = stages, source
        #: What waits for each stage; after the last stage, the result.
        self._queues: list[deque[Rows]] = [deque() for _ in range(len(stages) + 1)]
        #: Stages at work; the number of stages stands for the source.
        self._busy: set[int] = set()
        self._drained = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self, threads: int) -> Iterator[Tensor]:
        """Yield the rows of the result; the calling thread does its share."""
        # Few portions under way are enough, and memory stays small.
        self._limit = 2 * threads
        state = _State(
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
        )
        pool = _helpers(threads - 1)
        helpers = [
            pool.submit(contextvars.copy_context().run, self._help, state)
            for _ in range(threads - 1)
        ]
        try:
            while (task := self._next(for_caller=True)) is not None:
                if task == len(self._stages):
                    with self._changed:
                        rows, _ = self._queues[-1].popleft()
                    yield rows
                else:
                    self._do(task)
            if self._error is not None:
                raise self._error
        finally:
            with self._changed:
                self._drained = True
                for queue in self._queues:
                    queue.clear()
                self._changed.notify_all()
            # A stage may still be at work, and keeps memory that the next image wants.
            for helper in helpers:
                if not helper.cancel():
                    helper.result()

    def _help(self, state: _State) -> None:
        torch.set_num_threads(1)
        reduced = torch.autocast("cpu", state.dtype, enabled=state.autocast)
        with torch.inference_mode(state.inference), reduced:
            while (task := self._next()) is not None:
                self._do(task)

    def _next(self, for_caller: bool = False) -> int | None:
        """Choose what to do: the stage furthest down that has rows, -1 for the source.

        None at the end. The result, a task for the caller alone, has the number after the last
        stage.
        """
        with self._changed:
            while True:
                if self._error is not None:
                    return None
                if for_caller and self._queues[-1]:
                    return len(self._stages)
                for place in range(len(self._stages) - 1, -1, -1):
                    if self._queues[place] and place not in self._busy:
                        self._busy.add(place)
                        return place
                waiting = sum(map(len, self._queues))
                if not self._drained and -1 not in self._busy and waiting < self._limit:
                    self._busy.add(-1)
                    return -1
                if self._drained and not self._busy and not waiting:
                    return None
                self._changed.wait()

    def _do(self, place: int) -> None:
        """Push what waits for a stage, or take the next rows from the source."""
        try:
            if place < 0:
                found = next(self._source, None)
                results, ended = ([], True) if found is None else ([found], False)
            else:
                with self._changed:
                    x, last = self._queues[place].popleft()
                # The stage overwrites what it gives.
                results = [(rows.clone(), end) for rows, end in self._stages[place].push(x, last)]
                ended = False
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._busy.discard(place)
                self._changed.notify_all()
            return
        with self._changed:
            self._drained |= ended
            self._queues[place + 1].extend(results)
            self._busy.discard(place)
            self._changed.notify_all()
