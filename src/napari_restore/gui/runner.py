"""Run a function in napari's thread worker, one at a time, and tell how it goes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import notification_manager
from psygnal import Signal

from napari_restore.errors import RestoreError
from napari_restore.runtime import Progress, Stopped, Watch

from .describe import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.qt.threading import GeneratorWorker

#: Seconds between two updates of the progress shown. Where OpenGL is computed in software, each
#: costs as much as a tenth of a second of work: the window is put together anew.
_REFRESH = 0.5
_CANCELED = "Canceled; nothing was changed."


def notify(error: Exception, about: str) -> str:
    """Show an error, advice as a message and a bug with its traceback, and return it in a line."""
    if isinstance(error, RestoreError):
        from napari.utils.notifications import show_error

        text = f"{about}: {error}"
        show_error(text)
        return text
    notification_manager.receive_error(type(error), error, error.__traceback__)
    return f"{about}: {type(error).__name__}: {error}"


class Runner:
    """At most one worker; signals from an earlier one are ignored."""

    #: Work began (what), goes on (a `Progress`), ended (one sentence).
    started = Signal(str)
    progressed = Signal(object)
    ended = Signal(str)

    def __init__(self) -> None:
        self.worker: GeneratorWorker[Any, Any, Any] | None = None
        self._watch = Watch()
        self._step = Progress(0, 0)
        self._shown = 0.0
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    @property
    def running(self) -> bool:
        """Whether something is under way."""
        return self.worker is not None

    def start(
        self,
        function: Callable[[], Any],
        message: str,
        total: int,
        finish: Callable[[Any], str],
    ) -> GeneratorWorker[Any, Any, Any]:
        """Start a worker.

        Parameters
        ----------
        function : callable
            Runs in a thread and touches neither viewer nor layer.
        message : str
            What is done, for the dock. Nothing is shown in napari's activity: its indicator turns
            all the time, and the window would be put together anew for each of its pictures.
        total : int
            Pixels to do.
        finish : callable
            Takes what the function returns, in the main thread; returns one sentence.

        Raises
        ------
        RestoreError
            If something is running.
        """
        self.refuse_if_running()

        told: SimpleQueue[Progress | None] = SimpleQueue()
        watch = Watch(told.put)

        def work() -> Generator[Progress, None, Any]:
            with ThreadPoolExecutor(1, thread_name_prefix="napari-restore-dock") as thread:
                computing = thread.submit(watch.run, function)
                computing.add_done_callback(lambda _: told.put(None))
                while (step := told.get()) is not None:
                    yield step
                try:
                    return computing.result()
                except Stopped:
                    return None

        worker = create_worker(work, _start_thread=False)
        worker.yielded.connect(lambda step: self._on_step(worker, step))
        worker.returned.connect(lambda result: self._on_returned(worker, result, finish))
        worker.errored.connect(lambda error: self._end(worker, f"Failed: {error}"))
        # Also after an abort, and after what the worker does not report otherwise.
        worker.finished.connect(lambda: self._end(worker, _CANCELED))
        self.worker, self._watch = worker, watch
        self._first = self._last = None
        self._shown = 0.0
        self._step = Progress(0, total)
        self.started.emit(f"{message} …")
        worker.start()
        return worker

    def refuse_if_running(self) -> None:
        """Raise a `RestoreError` if something is running."""
        if self.running:
            raise RestoreError("A restoration is running. Wait for it, or press Cancel.")

    def cancel(self) -> None:
        """Stop between two rows of the tile that is being computed, and say so at once."""
        if self.worker is not None and not self._watch.stopped:
            self._watch.stop()
            self.progressed.emit(replace(self._step, message="Canceling …"))

    def abandon(self) -> None:
        """Stop and hear nothing more of it."""
        self._watch.stop()
        self.worker = None

    def _on_step(self, worker: Any, step: Progress) -> None:
        if worker is not self.worker or self._watch.stopped:
            return
        self._step = step
        now = time.monotonic()
        if step.done:
            self._first = self._first or (now, step.done)
            self._last = now, step.done
        if step.done and step.done < step.total and now - self._shown < _REFRESH:
            return
        self._shown = now
        self.progressed.emit(step if step.message else replace(step, message=self._left(step)))

    def _left(self, step: Progress) -> str:
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return ""
        seconds, pixels = (b - a for a, b in zip(self._first, self._last, strict=True))
        left = (step.total - step.done) * seconds / pixels
        return f"{step.done / step.total:.0%}, {duration(left, 'about ')} left"

    def _on_returned(self, worker: Any, result: Any, finish: Callable[[Any], str]) -> None:
        if worker is not self.worker:
            return
        if self._watch.stopped:
            self._end(worker, _CANCELED)
            return
        text = "Failed."
        try:
            text = finish(result)
        finally:
            self._end(worker, text)

    def _end(self, worker: Any, text: str) -> None:
        if worker is self.worker:
            self._watch.stop()
            self.worker = None
            self.ended.emit(text)
