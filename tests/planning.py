"""Plans in one line, and a microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_restore.physics.optics import Optics
from napari_restore.restoration.plan import Options, make_plan

if TYPE_CHECKING:
    from napari_restore.restoration.plan import Plan

WATER_CONFOCAL = Optics(
    na=0.9,
    wavelength=0.52,
    pixel_size=0.13,
    z_step=0.4,
    refractive_index=1.33,
    modality="confocal",
)


def plan(
    image: Any, task: str, *, axes: str | None = None, rgb: bool | None = None, **options: Any
) -> Plan:
    return make_plan(image, Options.of(task, options), axes=axes, rgb=rgb)
