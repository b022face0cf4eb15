"""What the controls of a dock say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class DockOptions:
    """What the dock's controls say; as for `napari_restore.restore`.

    ``psf`` may also be a layer, or what is in `napari_restore.gui.psf_source`.
    ``region`` and ``slices`` are as in `napari_restore.gui.region.block_in`.
    ``structure_size`` is in the units of each layer; ``scheduler`` is the address of a dask
    cluster, or None for this computer.
    """

    model: str = "auto"
    device: str = "auto"
    tile: int | str = "auto"
    strength: float = 1.0
    structure_size: float | None = None
    show_removed: bool = False
    frames: int = 1
    exposure: float | None = None
    time_axis: int | None = None
    channel_axis: int | str | None = "auto"
    psf: Any = None
    dimensions: int | str = "auto"
    method: str = "network"
    keep_range: bool | None = None
    show_motion: bool = False
    hide_source: bool = False
    replace_earlier: bool = False
    region: str = "everything"
    slices: str = ""
    scheduler: str | None = None

    def planning(self) -> dict[str, Any]:
        """Those that decide a plan."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("hide_source", "replace_earlier", "region", "slices"):
            del options[name]
        return options
