"""What differs between the docks, and what their controls say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from napari_restore.restoration.plan import Options


@dataclass(frozen=True)
class DockConfig:
    """What differs between the docks.

    Attributes
    ----------
    task : str
        As in `napari_restore.restore`.
    title : str
    purpose : str
        One sentence under the title.
    removes_light : bool
        Whether something is taken away that can be limited and shown.
    undoes_blur : bool
        Whether a point spread function can be told.
    in_space : bool
        Whether stacks can be restored as volumes, and by classical methods.
    follows_motion : bool
        Whether motion can be followed from frame to frame, and shown.
    sample : str
        Key of a sample image that shows what the dock does.
    """

    task: str
    title: str
    purpose: str
    removes_light: bool = False
    follows_motion: bool = False
    undoes_blur: bool = False
    in_space: bool = False
    sample: str = ""


DEBLUR = DockConfig(
    "deblur",
    "Deblur",
    "Sharpens what is out of focus or softened by the optics.",
    undoes_blur=True,
    in_space=True,
    sample="mitochondria",
)
DEHAZE = DockConfig(
    "dehaze",
    "Dehaze",
    "Removes haze and smoke from color images, out-of-focus light from single-channel ones.",
    removes_light=True,
    sample="pagoda",
)
MOTION_DEBLUR = DockConfig(
    "motion_deblur",
    "Motion deblur",
    "Removes the smear of a moving camera, stage or subject.",
    follows_motion=True,
    undoes_blur=True,
    sample="raccoon",
)
DENOISE = DockConfig(
    "denoise",
    "Denoise",
    "Removes noise alone; what is blurred stays as it is.",
    sample="nuclei",
)
DOCKS = (DEBLUR, DEHAZE, MOTION_DEBLUR, DENOISE)


@dataclass(frozen=True)
class DockOptions(Options):
    """What the dock's controls say: options of the library, and what concerns layers.

    ``psf`` may also be a layer, or what is in `napari_restore.gui.psf_source`.
    ``region`` and ``slices`` are as in `napari_restore.gui.region.block_in`.
    ``structure_size`` is in the units of each layer; ``scheduler`` is the address of a dask
    cluster, or None for this computer. The dock has one task, so ``task`` is not used.
    """

    task: str = ""
    dimensions: int | str = "auto"
    time_axis: int | None = None
    channel_axis: int | str | None = "auto"
    show_removed: bool = False
    show_motion: bool = False
    hide_source: bool = False
    replace_earlier: bool = False
    region: str = "everything"
    slices: str = ""
    scheduler: str | None = None

    def planning(self) -> dict[str, Any]:
        """Those that decide a plan."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("task", "hide_source", "replace_earlier", "region", "slices"):
            del options[name]
        return options
