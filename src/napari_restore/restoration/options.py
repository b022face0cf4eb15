"""What can be asked of a restoration: one list for library, docks and command line."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.errors import RestoreError

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Options:
    """How an image is to be restored.

    Attributes
    ----------
    task : {"deblur", "dehaze", "motion_deblur"}
    model : str
        "auto", a name of the catalog, or a file of weights.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "xpu", "mps". With "auto", each worker of a cluster takes
        the best it has.
    tile : int or "auto"
        Side of the tiles in pixels.
    strength : float
        0 keeps the input, 1 is the full result, linear between.
    structure_size : float, optional
        For out-of-focus light in single-channel images: structures up to this many pixels across
        stay, whatever the network takes for haze.
    frames : {1, 2}
        For motion: restore each frame alone, or with its neighbor along T (the next one; of the
        last frame, the one before) and the motion between them. Without ``axes``, the one axis
        before the plane is time.
    exposure : float, optional
        With two frames: share of the time between them that the shutter is open, above 0 and up to
        1. Found from the movie without it. Where two frames tell less than one, because the blur
        is short or nothing shows how long it is, each is restored alone.
    psf : None, "none", "auto", array, PSF or Optics
        Point spread function of the blur, for ``deblur`` and ``motion_deblur`` of one frame; the
        network that inverts it restores then. An array, (Y, X) of any size, is centered, freed from
        its background and normalized. "auto" finds it from the image, and does without where none
        explains the image. None is "auto" for motion in images of one plane, else "none". Also what
        `psf_from_beads` returns, the arguments of `Optics` as a dictionary, or a list: one for each
        channel.
    pixel_size : length, optional
        Side of a pixel of the image, or height and width: "65 nm", or a number in µm; of a volume,
        the distance of planes, height and width. A PSF that has a pixel size too is resampled to
        it, and optics need it.
    dimensions : {2, 3, "auto"}
        Restore plane by plane, or as a volume along Z, Y and X with a PSF that has planes. Without
        ``axes``, the one axis before the plane is Z. "auto" restores as a volume where an axis is
        named Z and the PSF has planes, and says so.
    method : {"network", "richardson-lucy", "wiener"}
        How a PSF is inverted, for ``deblur``. The last two are classical methods; they need a PSF.
    keep_range : bool, optional
        Hold the result between the least and the largest value of the image. Without it, signed
        integers are, as those of CT and MR.
    invalid_value : float, optional
        Value of samples that were not measured. They stay as they are and harm nothing else, as NaN
        does; so do values that nothing but a fill can have, such as -3.4e38.
    """

    task: str
    model: str = "auto"
    device: str = "auto"
    tile: int | str = "auto"
    strength: float = 1.0
    structure_size: float | None = None
    frames: int = 1
    exposure: float | None = None
    psf: Any = None
    pixel_size: Any = None
    dimensions: int | str = 2
    method: str = "network"
    keep_range: bool | None = None
    invalid_value: float | None = None

    @classmethod
    def of(cls, task: str, given: dict[str, Any]) -> Options:
        """Make options from named values.

        Raises
        ------
        RestoreError
            If there is no option of a name.
        """
        known = cls.names()
        for name in given:
            if name not in known:
                raise RestoreError(f"No option '{name}'. Choose from: {', '.join(known)}.")
        return cls(task, **given)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the options, but for the task."""
        return tuple(field.name for field in fields(cls) if field.name != "task")


def takes_options(function: Function) -> Function:
    """Show the options in the signature of a function that takes them by name."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    for field in fields(Options):
        if field.name not in signature.parameters and field.default is not MISSING:
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
            )
    parameters.sort(key=lambda p: p.kind)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function
