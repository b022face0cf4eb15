"""The three faces of the dock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .widget import RestoreWidget

if TYPE_CHECKING:
    import napari.viewer


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
DOCKS = (DEBLUR, DEHAZE, MOTION_DEBLUR)


class DeblurWidget(RestoreWidget):
    """Dock that removes defocus and optical blur."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, DEBLUR)


class DehazeWidget(RestoreWidget):
    """Dock that removes haze, smoke and out-of-focus light."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, DEHAZE)


class MotionDeblurWidget(RestoreWidget):
    """Dock that removes motion blur."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, MOTION_DEBLUR)
