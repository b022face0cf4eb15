"""The progress bar of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.core.steps import drain

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_restore.core.protocol import Progress

Result = TypeVar("Result")


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


def follow(steps: Generator[Progress, None, Result], bar: Any) -> Result:
    """Take every step, show it on a bar from where that is, return what the generator does."""
    start, last = bar.n, -1

    def show(step: Progress) -> None:
        nonlocal last
        bar.update(start + step.done - bar.n)
        # A cluster gives many signs of life that say nothing new.
        if step.message or step.done > last:
            bar.set_postfix_str(step.message)
        last = step.done

    return drain(steps, show)
