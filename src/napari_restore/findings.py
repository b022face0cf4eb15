"""What models find out about an image, beside restoring it: blur, motion, exposure, haze."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.axes import Planes
from .core.block_job import known_scales
from .core.chunked import FromSample, as_dask, is_lazy
from .core.gauge import estimate_blur
from .core.intensity import find_scales
from .core.lazy import lazy_contexts
from .core.motion import CELL, motion_steps
from .core.transmission import lazy_transmission, transmission_steps, without_colour
from .errors import RestoreError

if TYPE_CHECKING:
    from collections.abc import Generator

    from .core.block_job import Scales
    from .core.gauge import BlurEstimate
    from .core.intensity import Scale
    from .core.motion import Motion
    from .core.protocol import Predictor, Progress, Report
    from .core.tiles import Region
    from .models.spec import ModelSpec
    from .plan import Plan


def predictor_of(
    spec: ModelSpec,
    device: str,
    structure_size: float = 0.0,
    exposure: float | FromSample[float] | None = None,
) -> Predictor:
    """As `find_predictor`; a task that refers to this one needs no torch where it is only sent."""
    from .models.predictor import find_predictor

    return find_predictor(spec, device, structure_size, exposure)


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
    from .models.predictor import find_predictor

    predictor = find_predictor(plan.spec, plan.device)
    return estimate_blur(Planes(image, plan.layout), predictor, scales, within)


def find_motion(
    image: Any, plan: Plan, scales: tuple[Scale, ...] | None = None, spacing: int = CELL
) -> Generator[Progress, None, Motion]:
    """Find the motion in an image step by step: see `napari_restore.core.motion`.

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

    Yields
    ------
    Progress

    Returns
    -------
    Motion

    Raises
    ------
    RestoreError
        If the model does not find motion.
    """
    from .models.predictor import find_predictor

    if plan.spec.gauge != "motion":
        raise RestoreError(
            f"Model '{plan.spec.name}' does not say how things moved. Choose 'auto', or one that "
            "was trained for motion_deblur with estimates."
        )
    source = Planes(image, plan.layout)
    predictor = find_predictor(plan.spec, plan.device)
    if scales is None:
        scales = find_scales(source, plan.spec.black_is_zero)
    return (yield from motion_steps(source, predictor, scales, spacing))


def exposure_of(image: Any, plan: Plan, scales: tuple[Scale, ...]) -> float:
    """Find the share of the time between two frames that the shutter was open.

    Parameters
    ----------
    image : array
        A movie; NumPy, dask or zarr, of which a bounded sample is read.
    plan : Plan
        For two frames.
    scales : tuple of Scale
        Intensity scales, as the restoration uses them.
    """
    return sampled_exposure(Planes(image, plan.layout), plan.spec, plan.device, scales)


def sampled_exposure(planes: Planes, spec: ModelSpec, device: str, scales: Scales) -> float:
    """As `exposure_of`, in a form that a worker can be sent."""
    from .models.exposure import find_exposure

    return find_exposure(planes, predictor_of(spec, device), known_scales(scales))


def transmission(
    image: Any, plan: Plan, scales: tuple[Scale, ...]
) -> Generator[Progress, None, Any]:
    """Estimate how much of the light came through the haze, step by step.

    Parameters
    ----------
    image : array
        Colour; NumPy, dask or zarr.
    plan : Plan
        Of a model that looks at whole planes.
    scales : tuple of Scale
        Intensity scales, as the restoration uses them.

    Yields
    ------
    Progress

    Returns
    -------
    array
        float32 in [0, 1], the image's shape without the colour axis; lazy if the image is.
    """
    find, layout = partial(predictor_of, plan.spec, plan.asked_device), plan.layout
    if not layout.pixels:
        return np.ones(without_colour(layout).shape, np.float32)
    if not is_lazy(image):
        return (yield from transmission_steps(Planes(image, layout), find(), scales))
    source = as_dask(image)
    source = source.rechunk({layout.axes.index("S"): -1})
    contexts = lazy_contexts(source, layout, scales, plan.spec.view, find)
    return lazy_transmission(source, layout, contexts, find, scales)
