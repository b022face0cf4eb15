"""What libraries log while they read a file, for the user."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def listening_to(logger: str, notes: list[str]) -> Iterator[None]:
    """Collect what a library logs, instead of showing it.

    Parameters
    ----------
    logger : str
        Its name.
    notes : list of str
        Gets the messages, as sentences.
    """

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(f"{logger.partition('.')[0]} says: {record.getMessage()}.")

    log, listener = logging.getLogger(logger), Listener()
    handlers, passes_on = log.handlers, log.propagate
    log.handlers, log.propagate = [listener], False
    try:
        yield
    finally:
        log.handlers, log.propagate = handlers, passes_on
