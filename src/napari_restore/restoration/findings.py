"""What models find out about an image, beside restoring it: blur, motion, exposure, haze."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_restore.analysis.blur import estimate_blur
from napari_restore.analysis.motion import CELL, field_of_motion
from napari_restore.analysis.point_spread import PSF
from napari_restore.errors import RestoreError
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes

from .facts import find_facts

if TYPE_CHECKING:
    from napari_restore.analysis.blur import BlurEstimate
    from napari_restore.analysis.motion import Motion
    from napari_restore.image.intensity import Scale
    from napari_restore.image.tiling import Region
    from napari_restore.inference.protocol import Report

    from .plan import Plan


def try_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    report: Report,
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Measure blur after a restoration: if that fails, a note says so and the result stays."""
    try:
        return measure_blur(image, plan, scales, within)
    except (RuntimeError, MemoryError) as error:
        report.notes.append(f"How blurred the image was could not be estimated: {error}")
        return None


def measure_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Estimate how blurred an image is, from a bounded sample of it.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
    scales : tuple of Scale
        Intensity scales, as the restoration uses them.
    within : (plane index, Region), optional
        Where to look; without it, everywhere.

    Returns
    -------
    BlurEstimate or None
        None if the plan's model cannot tell, or the image has too little structure.
    """
    return estimate_blur(Planes(image, plan.layout), plan.predictor(), scales, within)


def find_motion(
    image: Any, plan: Plan, scales: tuple[Scale, ...] | None = None, spacing: int = CELL
) -> Motion:
    """Find the motion in an image: see `napari_restore.analysis.motion`.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. Read tile by tile.
    plan : Plan
        Of a model that finds motion.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    spacing : int
        Side of the cells of the field in pixels, a multiple of 16.

    Returns
    -------
    Motion

    Raises
    ------
    RestoreError
        If the model does not find motion.
    """
    if plan.spec.gauge != "motion":
        raise RestoreError(
            f"Model '{plan.spec.name}' does not say how things moved. Choose 'auto', or one that "
            "was trained for motion_deblur with estimates."
        )
    source = Planes(image, plan.layout)
    if scales is None:
        scales = find_scales(source, **plan.scaling)
    return field_of_motion(source, plan.predictor(), scales, spacing)


def find_psfs(image: Any, plan: Plan) -> tuple[PSF, ...]:
    """Point spread functions of the channels of an image, as the plan says: found, or given.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
        With an inverter.

    Returns
    -------
    tuple of PSF
        What is known of each stands in ``found``; where none was found it is false.
    """
    facts = find_facts(image, plan)
    if not facts.blurs:
        return (PSF.none("The image is empty."),) * plan.layout.groups
    return tuple(
        PSF.none(blur.statement) if blur.psf is None else replace(blur.psf, found=blur.statement)
        for blur in facts.blurs
    )
