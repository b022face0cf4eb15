"""Restore with a plan, step by step, a region alone, or lazily: joins models and engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .cluster import survey
from .core.axes import Planes
from .core.chunked import FromSample, as_dask
from .core.engine import run
from .core.intensity import Scale, find_scales
from .core.lazy import run_lazy
from .core.protocol import Progress, Report
from .core.steps import drain
from .findings import exposure_of, predictor_of, sampled_exposure, try_blur
from .remote import remote_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from distributed import Client

    from .core.block_job import Scales
    from .core.tiles import Region
    from .plan import Plan


#: What is said while a model is loaded.
LOADING = "Loading the model"


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
    regions: Sequence[tuple[tuple[int, ...], Region]] | None = None,
    client: Client | None = None,
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
    regions : sequence of (plane index, Region), optional
        What to restore; without it, everything. The rest of the result is undefined.
    client : distributed.Client, optional
        Cluster to restore on, see `napari_restore.cluster.connect`; regions are whole planes then.

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
    given, exposure, workers = plan, None, None
    if client is not None:
        # Before anything is read: that workers are missing shows at once.
        yield Progress(0, plan.layout.pixels, "Asking the workers")
        workers = survey(client, plan.asked_device)
    if plan.layout.pixels:
        target = Planes(result, plan.layout)
        scales, plan = yield from prepare(image, plan, scales)
        exposure = plan.exposure
        if client is None:
            yield from _run(image, plan, target, scales, report=report, regions=regions)
        else:
            yield Progress(0, plan.layout.pixels, f"Restoring on {workers}")
            yield from remote_steps(client, image, plan, result, scales, report, regions)
    # A fall back to the CPU holds here too; the devices of workers do not.
    here = plan if client else replace(plan, device=report.device or plan.device)
    blur = try_blur(image, here, scales, report) if gauge and scales else None
    record = given.provenance(
        report=report,
        seconds=time.monotonic() - started,
        scales=scales,
        blur=blur,
        exposure=exposure,
    )
    if workers is not None:
        record |= {"precision": workers.precision, "workers": workers.count}
    return Restoration(result, record, scales)


def prepare(
    image: Any, plan: Plan, scales: tuple[Scale, ...] | None
) -> Generator[Progress, None, tuple[tuple[Scale, ...], Plan]]:
    """Load the model, find scales and exposure if need be; the plan comes back complete."""
    from .models.predictor import find_predictor

    source = Planes(image, plan.layout)
    yield Progress(0, plan.layout.pixels, LOADING)
    find_predictor(plan.spec, plan.device)
    if scales is None:
        yield Progress(0, plan.layout.pixels, "Finding the range of intensities")
        scales = find_scales(source, plan.spec.black_is_zero)
    if plan.spec.frames == 2 and plan.exposure is None:
        yield Progress(0, plan.layout.pixels, "Finding the exposure")
        plan = replace(plan, exposure=exposure_of(image, plan, scales))
    return scales, plan


def _run(
    image: Any, plan: Plan, target: Planes, scales: tuple[Scale, ...], **options: Any
) -> Generator[Progress, None, None]:
    from .models.predictor import find_predictor

    yield Progress(0, plan.layout.pixels, "Restoring")
    predictor = find_predictor(plan.spec, plan.device, plan.structure_size, plan.exposure)
    yield from run(
        Planes(image, plan.layout),
        target,
        predictor,
        scales,
        tiles=plan.tiles,
        strength=plan.strength,
        **options,
    )


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
    scales, plan = yield from prepare(image, plan, scales)
    yield from _run(image, plan, window, scales, regions=[(index, region)])
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
        Same shape, dtype and chunks. Computed on a cluster, each worker takes its own device for
        "auto", and loads the model once.
    """
    spec, source = plan.spec, as_dask(image)
    find: Scales = scales or FromSample(
        source, plan.layout, partial(find_scales, from_zero=spec.black_is_zero)
    )
    exposure: float | FromSample[float] | None = plan.exposure
    if spec.frames == 2 and exposure is None and plan.layout.pixels:
        look = partial(sampled_exposure, spec=spec, device=plan.asked_device, scales=find)
        exposure = FromSample(source, plan.layout, look)
    return run_lazy(
        source,
        plan.layout,
        partial(predictor_of, spec, plan.asked_device, plan.structure_size, exposure),
        halo=plan.halo,
        multiple_of=spec.multiple_of,
        view=spec.view,
        frames=spec.frames,
        tiles=plan.tiles_elsewhere,
        strength=plan.strength,
        scales=find,
    )
