"""Restore with a plan, step by step, a region alone, or lazily: joins models and engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.axes import Planes
from .core.chunked import as_dask, is_lazy
from .core.engine import run
from .core.gauge import estimate_blur
from .core.intensity import Scale, find_scales
from .core.lazy import lazy_contexts, run_lazy
from .core.protocol import Progress, Report
from .core.steps import drain
from .core.transmission import lazy_transmission, transmission_steps, without_colour

if TYPE_CHECKING:
    from collections.abc import Generator

    from .core.gauge import BlurEstimate
    from .core.tiles import Region
    from .plan import Plan


@dataclass(frozen=True)
class Restoration:
    """A restored array and how it was made.

    Attributes
    ----------
    data : array
    provenance : dict
    scales : tuple of Scale or None
        Intensity scales that were used; None for an empty image.
    """

    data: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    scales: tuple[Scale, ...] | None = None


def restore_steps(
    image: Any,
    plan: Plan,
    *,
    scales: tuple[Scale, ...] | None = None,
    out: Any = None,
    gauge: bool = True,
) -> Generator[Progress, None, Restoration]:
    """Restore step by step: the generator behind library, docks and command line.

    Parameters
    ----------
    image : array
        What the plan was made for. NumPy; for lazy arrays the result is computed into memory.
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    out : array, optional
        Where the result goes, for example a memory map; of the image's shape and dtype.
    gauge : bool
        Also estimate how blurred the image is, where the model can; for the provenance.

    Yields
    ------
    Progress
        After every batch of tiles. Close the generator to stop.

    Returns
    -------
    Restoration
    """
    started, report = time.monotonic(), Report()
    result = np.empty(plan.layout.shape, np.dtype(image.dtype)) if out is None else out
    if plan.layout.pixels:
        target = Planes(result, plan.layout)
        scales = yield from _steps(image, plan, target, scales, report=report)
    blur = try_blur(image, plan, scales, report) if gauge and scales else None
    seconds = time.monotonic() - started
    record = plan.provenance(report=report, seconds=seconds, scales=scales, blur=blur)
    return Restoration(result, record, scales)


def try_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    report: Report,
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Measure blur after a restoration: if that fails, a note says so and the result stays."""
    on_device = replace(plan, device=report.device or plan.device)
    try:
        return measure_blur(image, on_device, scales, within)
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


def _steps(
    image: Any,
    plan: Plan,
    target: Planes,
    scales: tuple[Scale, ...] | None,
    **options: Any,
) -> Generator[Progress, None, tuple[Scale, ...]]:
    """Load, find the scales if need be, run; returns the scales."""
    from .models.predictor import find_predictor

    source = Planes(image, plan.layout)
    yield Progress(0, plan.layout.pixels, "Loading the model")
    predictor = find_predictor(plan.spec, plan.device, plan.structure_size)
    if scales is None:
        yield Progress(0, plan.layout.pixels, "Finding the range of intensities")
        scales = find_scales(source, plan.spec.black_is_zero)
    yield Progress(0, plan.layout.pixels, "Restoring")
    yield from run(
        source, target, predictor, scales, tiles=plan.tiles, strength=plan.strength, **options
    )
    return scales


def region_steps(
    image: Any,
    plan: Plan,
    index: tuple[int, ...],
    region: Region,
    scales: tuple[Scale, ...] | None = None,
) -> Generator[Progress, None, np.ndarray[Any, np.dtype[Any]]]:
    """Restore a region of one plane step by step, as it would be in the whole result.

    Parameters
    ----------
    image : array
        The whole image; only the region, its halo and the sample for the scale are read.
    plan : Plan
    index : tuple of int
        Which plane, over the leading axes.
    region : Region
        Rows and columns of it.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.

    Yields
    ------
    Progress

    Returns
    -------
    ndarray
        (region.height, region.width), with the colour axis last if there is one.
    """
    layout, place = plan.layout, iter(index)
    shape, origin = [], []
    for letter, length in zip(layout.axes, layout.shape, strict=True):
        start, count = {
            "Y": (region.top, region.height),
            "X": (region.left, region.width),
            "S": (0, length),
        }.get(letter) or (next(place), 1)
        origin.append(start)
        shape.append(count)
    window = Planes(np.empty(shape, np.dtype(image.dtype)), layout, tuple(origin))
    yield from _steps(image, plan, window, scales, regions=[(index, region)])
    out = window.read(index, region)
    return out if layout.colour else out[..., 0]


def restore_region(
    image: Any,
    plan: Plan,
    index: tuple[int, ...],
    region: Region,
    scales: tuple[Scale, ...] | None = None,
) -> np.ndarray[Any, np.dtype[Any]]:
    """Restore a region of one plane; see `region_steps`."""
    return drain(region_steps(image, plan, index, region, scales))


def restore_lazily(image: Any, plan: Plan, scales: Any = None) -> Any:
    """Restore a dask or zarr array chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array or zarr.Array
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known; else they are found when the first chunk is asked for.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks.
    """
    from .models.predictor import find_predictor

    spec = plan.spec
    return run_lazy(
        as_dask(image),
        plan.layout,
        partial(find_predictor, spec, plan.device, plan.structure_size),
        halo=plan.halo,
        multiple_of=spec.multiple_of,
        view=spec.view,
        from_zero=spec.black_is_zero,
        tiles=plan.tiles,
        strength=plan.strength,
        scales=scales,
    )


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
    from .models.predictor import find_predictor

    find, layout = partial(find_predictor, plan.spec, plan.device), plan.layout
    if not layout.pixels:
        return np.ones(without_colour(layout).shape, np.float32)
    if not is_lazy(image):
        return (yield from transmission_steps(Planes(image, layout), find(), scales))
    source = as_dask(image)
    source = source.rechunk({layout.axes.index("S"): -1})
    contexts = lazy_contexts(source, layout, scales, plan.spec.view, find)
    return lazy_transmission(source, layout, contexts, find, scales)
