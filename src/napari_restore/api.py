"""Restore arrays with one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .core.chunked import is_lazy
from .core.steps import drain
from .findings import find_motion
from .plan import plan
from .restoration import restore_lazily, restore_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.protocol import Progress


def restore(
    image: Any,
    task: str,
    *,
    axes: str | None = None,
    rgb: bool | None = None,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
    structure_size: float | None = None,
    frames: int = 1,
    exposure: float | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Any:
    """Restore an image.

    Parameters
    ----------
    image : array
        Two or more dimensions; integers, floats or booleans. NumPy, dask or zarr.
    task : {"deblur", "dehaze", "motion_deblur"}
    axes : str, optional
        One letter for each axis, for example "TZCYX" or "YXS" (S: RGB samples, C: channels, each
        with its own intensity scale). Without it the plane is the last two axes, before the colour
        axis.
    rgb : bool, optional
        Whether the last axis is RGB or RGBA. Without it, a last axis of 3 or 4 on uint8 is.
    model : str
        "auto", a name of the catalogue, or a file of weights.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "xpu", "mps".
    tile : int or "auto"
        Side of the tiles in pixels.
    strength : float
        0 keeps the input, 1 is the full result, linear between.
    structure_size : float, optional
        For out-of-focus light in single-channel images: structures up to this many pixels across
        stay, whatever the network takes for haze.
    frames : {1, 2}
        For motion: restore each frame alone, or with its neighbour along T (the next one; of the
        last frame, the one before) and the motion between them. Without ``axes``, the one axis
        before the plane is time.
    exposure : float, optional
        With two frames: share of the time between them that the shutter is open, above 0 and up to
        1. Found from the movie without it.
    progress : callable, optional
        Called with a `Progress` after every batch of tiles.

    Returns
    -------
    array
        Same shape and dtype. For NumPy a new array; for dask and zarr a dask array of the same
        chunks that restores each chunk when it is asked for.

    Raises
    ------
    RestoreError
        If image or options are of no use; the message names the value and the remedy.

    Notes
    -----
    Intensities are scaled once for the whole array (each channel), and what the network changes is
    added to the original samples: units and offsets stay, alpha, NaN and infinities are untouched.
    """
    decided = plan(
        image,
        task,
        axes=axes,
        rgb=rgb,
        model=model,
        device=device,
        tile=tile,
        strength=strength,
        structure_size=structure_size,
        frames=frames,
        exposure=exposure,
    )
    if is_lazy(image):
        return restore_lazily(image, decided)
    return drain(restore_steps(np.asarray(image), decided, gauge=False), progress).data


def deblur(image: Any, **options: Any) -> Any:
    """Remove defocus and optical blur; options as for `restore`."""
    return restore(image, "deblur", **options)


def dehaze(image: Any, **options: Any) -> Any:
    """Remove haze, smoke or out-of-focus light; options as for `restore`."""
    return restore(image, "dehaze", **options)


def motion_deblur(image: Any, *, return_motion: bool = False, **options: Any) -> Any:
    """Remove motion blur.

    Parameters
    ----------
    image : array
        With ``frames=2`` a movie, (T, Y, X) or with more axes that ``axes`` names.
    return_motion : bool
        Also find the motion, which is computed at once, for lazy arrays too.
    **options
        As for `restore`.

    Returns
    -------
    array, or (array, Motion)
        The result as from `restore`, and the `Motion` if it is asked for: one vector for each cell
        of 16 pixels.
    """
    result = restore(image, "motion_deblur", **options)
    if not return_motion:
        return result
    progress = options.pop("progress", None)
    decided = plan(image, "motion_deblur", **options)
    source = image if is_lazy(image) else np.asarray(image)
    return result, drain(find_motion(source, decided), progress)
