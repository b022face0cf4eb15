"""Restore arrays with one call."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import RestoreError
from napari_restore.image.layout import is_lazy
from napari_restore.restoration.dask_graph import restore_lazily
from napari_restore.restoration.plan import (
    Options,
    find_motion,
    make_plan,
    takes_options,
)
from napari_restore.restoration.run import find_psfs, light_note, restore_array
from napari_restore.runtime import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_restore.analysis.point_spread import PSF
    from napari_restore.restoration.plan import Plan
    from napari_restore.runtime import Progress


@takes_options
def restore(
    image: Any,
    task: str,
    *,
    axes: str | None = None,
    rgb: bool | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Any:
    """Restore an image.

    Parameters
    ----------
    image : array
        Two or more dimensions; integers, floats or booleans. NumPy, dask or zarr.
    task : {"deblur", "dehaze", "motion_deblur", "denoise"}
    axes : str, optional
        One letter for each axis, for example "TZCYX" or "YXS" (S: RGB samples, C: channels, each
        with its own intensity scale). Without it the plane is the last two axes, before the color
        axis.
    rgb : bool, optional
        Whether the last axis is RGB or RGBA. Without it, a last axis of 3 or 4 on uint8 is.
    progress : callable, optional
        Called with a `Progress` after every batch of tiles, and meanwhile. An exception that it
        raises ends the restoration.
    **options
        model, device, tile, strength, structure_size, frames, exposure, psf, pixel_size: see
        `napari_restore.restoration.plan.Options`.

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
    What says nothing of the scene (hot pixels, hidden colors, empty planes, bars along the
    borders) stays as it is and does not count for the scale. Integers of few counts are rounded up
    or down by a pattern that depends on the place alone, so that on average no light is lost.
    """
    plan = make_plan(image, Options.of(task, options), axes=axes, rgb=rgb)
    if is_lazy(image):
        return restore_lazily(image, plan)
    return Watch(progress).run(_restored, image, plan)


def _restored(image: Any, plan: Plan) -> Any:
    result = restore_array(np.asarray(image), plan, blur=False)
    if "light" in result.provenance:
        said = light_note(result.provenance["light"], plan.dimensions == 3)
        warnings.warn(f"{said}.", stacklevel=6)
    return result.data


@takes_options
def deblur(image: Any, **options: Any) -> Any:
    """Remove defocus and optical blur; options as for `restore`."""
    return restore(image, "deblur", **options)


@takes_options
def dehaze(image: Any, **options: Any) -> Any:
    """Remove haze, smoke or out-of-focus light; options as for `restore`."""
    return restore(image, "dehaze", **options)


@takes_options
def denoise(image: Any, **options: Any) -> Any:
    """Remove noise alone, and leave blur as it is; options as for `restore`."""
    return restore(image, "denoise", **options)


@takes_options
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
    reading = {name: options.pop(name, None) for name in ("axes", "rgb")}
    plan = make_plan(image, Options.of("motion_deblur", options), **reading)
    source = image if is_lazy(image) else np.asarray(image)
    return result, Watch(progress).run(find_motion, source, plan)


def estimate_psf(
    image: Any,
    *,
    axes: str | None = None,
    rgb: bool | None = None,
    task: str = "deblur",
    device: str = "auto",
    pixel_size: Any = None,
    invalid_value: float | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> PSF | tuple[PSF, ...]:
    """Find the point spread function that blurred an image, from the image alone.

    Parameters
    ----------
    image : array
        As for `restore`. A few windows of one plane are read, whatever its size.
    axes, rgb, device, invalid_value, progress
        As for `restore`.
    task : {"deblur", "motion_deblur"}
        With "deblur", disks, Gaussians and pupils are tried; with "motion_deblur" also lines and
        paths of any form, which takes longer.
    pixel_size : length, optional
        Side of a pixel of the image, "65 nm" or 0.065 (µm), say; or height and width.

    Returns
    -------
    PSF, or tuple of PSF
        With its array, family, uncertainty, and in ``found`` how it was found and whether it
        explains the image. If none can be found that is no error: the PSF returned is false
        (``if psf: …``), its family is ``none``, its array is the one pixel that changes nothing,
        and ``found`` says why. For an image with several channels (``axes="CYX"``) a tuple, one for
        each. What is returned can be given as ``psf`` to `deblur` and `motion_deblur`; with a false
        one they restore as without.

    Raises
    ------
    RestoreError
        If image or options are of no use.
    """
    options = Options.of(
        task,
        {
            "psf": "auto",
            "device": device,
            "pixel_size": pixel_size,
            "invalid_value": invalid_value,
        },
    )
    if task not in ("deblur", "motion_deblur"):
        raise RestoreError(f"task must be 'deblur' or 'motion_deblur'; got {task!r}.")
    plan = make_plan(image, options, axes=axes, rgb=rgb)
    source = image if is_lazy(image) else np.asarray(image)
    found = Watch(progress).run(find_psfs, source, plan)
    return found if plan.layout.groups > 1 else found[0]
