"""Plans in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_restore.restoration.plan import Options, make_plan

if TYPE_CHECKING:
    from napari_restore.restoration.plan import Plan


def plan(
    image: Any, task: str, *, axes: str | None = None, rgb: bool | None = None, **options: Any
) -> Plan:
    return make_plan(image, Options.of(task, options), axes=axes, rgb=rgb)
