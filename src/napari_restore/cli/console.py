"""What a command says and shows: lines, tables, a progress bar. None of it can stop the command."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_restore.errors import RestoreError
from napari_restore.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_restore.watch import Progress


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
    print(in_one_line(f"napari-restore: {text}"), file=sys.stderr)


def in_one_line(text: str) -> str:
    """Escape line breaks and other control characters: names of files may hold them."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text
    )


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


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Align rows under a header.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequence of str
        Each as long as the header.
    left : int
        How many columns are aligned to the left; the others are figures.
    """
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def progress_bar(pixels: int, name: str, done: int = 0) -> Any:
    """Bar with time left and pixels a second; on a terminal alone.

    Parameters
    ----------
    pixels : int
        In all.
    name : str
        Of the image.
    done : int
        Pixels that an earlier run has restored.
    """
    from tqdm import tqdm

    # disable=None: only on a terminal.
    return tqdm(
        total=pixels,
        initial=done,
        desc=name,
        unit="pixel",
        unit_scale=True,
        disable=None,
        leave=False,
    )


@contextmanager
def shown_on(bar: Any) -> Iterator[None]:
    """Show the progress of what runs in a with block on a bar."""
    last = -1

    def show(step: Progress) -> None:
        nonlocal last
        bar.update(step.done - bar.n)
        # A cluster gives many signs of life that say nothing new.
        if step.message or step.done > last:
            bar.set_postfix_str(step.message)
        last = step.done

    with Watch(show).around():
        yield
