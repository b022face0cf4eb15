"""What a command says: never the reason why it stops."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_restore.errors import RestoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Steady:
    """A stream that takes everything: what cannot be encoded, and what nobody reads any more.

    Parameters
    ----------
    stream : text stream or None
        None where there is no console, as under ``pythonw``.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream

    def write(self, text: str) -> int:
        """Write; characters that the encoding lacks become escapes."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                plain = text.encode(encoding, "backslashreplace").decode(encoding)
                self._stream.write(plain)
        except (OSError, ValueError):
            self._gone()
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody listens."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._gone()

    def _gone(self) -> None:
        """Nobody listens, or the disk is full: what is buffered must not fail again at the end."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_output() -> Iterator[None]:
    """Let nothing that is said fail, neither here nor in libraries."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Steady(stream) for stream in before)
    try:
        yield
    finally:
        for stream, given in zip((sys.stdout, sys.stderr), before, strict=True):
            stream.flush()
            if given is None:
                stream.close()
        sys.stdout, sys.stderr = before


def say(text: str) -> None:
    """Tell the user something beside the results."""
    print(f"napari-restore: {text}", file=sys.stderr)


def complain(about: object, error: Exception, *, verbose: bool) -> None:
    """Say in one line what went wrong with a file.

    Parameters
    ----------
    about : object
        The file, as the user named it.
    error : Exception
    verbose : bool
        Whether the traceback follows.
    """
    text = " ".join(str(error).split("\n")).strip()
    if isinstance(error, MemoryError):
        text = f"There is not enough memory. {text}"
    elif not isinstance(error, RestoreError):
        where = "" if verbose else " This should not happen; --verbose shows where."
        text = f"{type(error).__name__}: {text or 'without a message'}.{where}"
    say(f"{about}: {text}")
    if verbose:
        sys.stderr.write("".join(traceback.format_exception(error)))
