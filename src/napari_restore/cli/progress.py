"""The progress bar of the command line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_restore.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_restore.watch import Progress


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
