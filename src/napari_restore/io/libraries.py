"""Libraries that read files: those that come with an extra, and what they log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def medical(module: str) -> ModuleType:
    """Import nibabel or pydicom, or a part of them.

    Raises
    ------
    FileError
        If it is not installed; says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise FileError(
            f"Medical images need {library}, which cannot be imported ({error}). Install it: "
            'pip install "napari-restore[medical]"'
        ) from error


# ---------------------------------------------------------------- what they log


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
