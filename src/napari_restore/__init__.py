"""Remove blur, haze, motion blur and noise from images with CNNs.

Public names are resolved on first use: importing the package loads neither torch nor napari.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# OpenMP reads it once, when PyTorch is imported. Threads that wait for others would otherwise spin,
# and take the cores from those that work: from napari's own, or from other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from napari_restore.analysis.point_spread import PSF
    from napari_restore.api import deblur, dehaze, denoise, estimate_psf, motion_deblur, restore
    from napari_restore.errors import RestoreError
    from napari_restore.evaluation.check import check
    from napari_restore.evaluation.check_report import Check
    from napari_restore.gui.layers import restore_layer
    from napari_restore.physics.beads import psf_from_beads
    from napari_restore.physics.optics import Optics
    from napari_restore.training.adapting import adapt

    __version__: str

_HOMES = {
    "restore": "api",
    "deblur": "api",
    "dehaze": "api",
    "denoise": "api",
    "motion_deblur": "api",
    "estimate_psf": "api",
    "adapt": "training.adapting",
    "check": "evaluation.check",
    "Check": "evaluation.check_report",
    "restore_layer": "gui.layers",
    "PSF": "analysis.point_spread",
    "Optics": "physics.optics",
    "psf_from_beads": "physics.beads",
    "RestoreError": "errors",
}

__all__ = [
    "PSF",
    "Check",
    "Optics",
    "RestoreError",
    "__version__",
    "adapt",
    "check",
    "deblur",
    "dehaze",
    "denoise",
    "estimate_psf",
    "motion_deblur",
    "psf_from_beads",
    "restore",
    "restore_layer",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module(f"{__name__}.runtime").installed_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
