"""What napari's command palette offers beside the docks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
from napari.utils.notifications import show_error, show_info

from napari_restore.errors import RestoreError

from .compare import Comparison, comparison_of
from .session import end

if TYPE_CHECKING:
    from collections.abc import Callable


def _compare(look: Callable[[Comparison], Any]) -> None:
    viewer = napari.current_viewer()
    if viewer is None:
        return
    try:
        said = look(comparison_of(viewer))
    except RestoreError as error:
        show_error(str(error))
        return
    if said:
        show_info(said)


def swipe() -> None:
    """Compare with a line across the canvas."""
    _compare(Comparison.swipe)


def side_by_side() -> None:
    """Compare in two halves of the canvas."""
    _compare(Comparison.side_by_side)


def difference() -> None:
    """Add the difference as a layer."""
    _compare(Comparison.difference)


def line_profile() -> None:
    """Plot both along a line."""
    _compare(Comparison.profile)


def show_source() -> None:
    """Show the source in place of the result, or the result again."""
    _compare(Comparison.toggle)


def stop() -> None:
    """End the comparison."""
    _compare(Comparison.stop)


def cancel() -> None:
    """Cancel what runs in the docks, or end the comparison."""
    viewer = napari.current_viewer()
    if viewer is not None:
        end(viewer)
