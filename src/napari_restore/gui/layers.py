"""From results back to napari layers: place, units, looks, and how they were made."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_restore.cluster import on_client, survey
from napari_restore.core.axes import Planes, find_layout
from napari_restore.core.chunked import as_dask
from napari_restore.core.intensity import find_scales
from napari_restore.core.protocol import Progress, Report
from napari_restore.core.pyramid import pyramid
from napari_restore.core.steps import drain
from napari_restore.core.tiles import Region
from napari_restore.findings import exposure_of, try_blur
from napari_restore.restoration import Restoration, restore_lazily, restore_steps

from .clients import client_of
from .jobs import LayerJob, pixel_size, plan_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from distributed import Client

#: What a result is called after its source.
SUFFIXES = {"deblur": "deblurred", "dehaze": "dehazed", "motion_deblur": "motion deblurred"}
#: Key of the provenance in a layer's metadata.
METADATA_KEY = "napari_restore"
#: Where a layer lies: arguments of ``Image`` and of other layers.
PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def make_layer(data: Any, state: dict[str, Any]) -> Image:
    """Image layer from the state of another."""
    state = dict(state)
    limits_range = state.pop("contrast_limits_range")
    layer = Image(data, **state)
    if not layer.rgb:
        layer.contrast_limits_range = limits_range
    return layer


def result_name(job: LayerJob, strength: float | None = None, *, taken: bool = False) -> str:
    """Name of a result, after its source and what was done.

    Parameters
    ----------
    job : LayerJob
    strength : float, optional
        Without it, that of the job's plan.
    taken : bool
        Whether there is a layer of that name: what else was chosen is named then.
    """
    plan = job.plan
    strength = plan.strength if strength is None else strength
    said = [SUFFIXES[plan.spec.task] + ("" if strength == 1 else f" {strength:g}")]
    if taken and plan.structure_size:
        side, unit = pixel_size(job.state)
        said.append(f"up to {plan.structure_size * side:.3g} {unit}")
    if taken and plan.spec.frames == 2:
        said.append("2 frames")
    if taken:
        said.append(plan.spec.name)
    return f"{job.name} [{', '.join(said)}]"


def result_layer(job: LayerJob, restoration: Restoration) -> Image:
    """Make the result's layer: place, units and looks of its source, and how it was made."""
    record = {"source": job.name, **restoration.provenance}
    if job.partner is not None:
        record["neighbour"] = job.partner
    # A restoration of a restoration tells the whole story.
    if METADATA_KEY in job.state["metadata"]:
        record["previous"] = job.state["metadata"][METADATA_KEY]
    state = job.state | {
        "name": result_name(job),
        "metadata": {**job.state["metadata"], METADATA_KEY: record},
        "visible": True,
    }
    return make_layer(restoration.data, state)


def restore_job(job: LayerJob) -> Generator[Progress, None, Restoration]:
    """Restore all levels of a layer, step by step; touches no layer, so it may run in a thread.

    A lazy layer gives a lazy result, each level restored when it is looked at. Of a multiscale
    layer in memory the finest level is restored and the others are averaged from it.

    Yields
    ------
    Progress

    Returns
    -------
    Restoration
        With a list of arrays as data for a multiscale layer.
    """
    decided, multiscale, client, workers = job.plan, job.state["multiscale"], None, None
    if job.scheduler is not None:
        yield Progress(0, job.pixels, f"Connecting to {job.scheduler}")
        client = client_of(job.scheduler)
    if job.lazy:
        if client is not None:
            workers = survey(client, decided.asked_device)
        # Found now, from a bounded sample: else every look at a slice would read the sample again.
        # The finest level's scale serves all, or levels would differ in contrast.
        finest = Planes(as_dask(job.array), decided.layout)
        scales = find_scales(finest, decided.spec.black_is_zero)
        exposure = decided.exposure
        if decided.spec.frames == 2 and exposure is None:
            exposure = exposure_of(finest.array, decided, scales)
        levels = []
        for level in job.levels:
            layout = find_layout(level, decided.layout.axes)
            here = replace(decided, layout=layout, exposure=exposure)
            result = restore_lazily(level, here, scales)
            result = result if client is None else on_client(result, client)
            levels.append(result if job.partner is None else result[0])
        report = Report()
        blur = try_blur(job.array, decided, scales, report)
        said = decided.provenance(scales=scales, blur=blur, exposure=exposure)
        record = {**said, "lazy": True}
        record["notes"] = report.notes
        if workers is not None:
            record |= {
                "device": workers.device,
                "precision": workers.precision,
                "workers": workers.count,
            }
        return Restoration(levels if multiscale else levels[0], record, scales)
    if job.partner is None:
        result = yield from restore_steps(np.asarray(job.array), decided, client=client)
    else:
        result = yield from _restore_first(job, client)
    if not multiscale:
        return result
    # Of two frames, the levels have an axis that the result has not.
    extra = 0 if job.partner is None else 1
    shapes = [tuple(level.shape)[extra:] for level in job.levels[1:]]
    return replace(result, data=pyramid(result.data, shapes))


def _restore_first(job: LayerJob, client: Client | None) -> Generator[Progress, None, Restoration]:
    """Restore the first of two frames that are layers of their own."""
    layout = job.plan.layout
    room = np.empty((1, *layout.shape[1:]), np.dtype(job.array.dtype))
    whole = Region(0, 0, *layout.size)
    regions = [(index, whole) for index in layout.indices() if index[0] == 0]
    result = yield from restore_steps(job.array, job.plan, out=room, regions=regions, client=client)
    return replace(result, data=room[0])


def restore_layer(
    layer: Image,
    task: str,
    *,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
    structure_size: float | None = None,
    frames: int = 1,
    exposure: float | None = None,
    time_axis: int | None = None,
    channel_axis: int | str | None = "auto",
    scheduler: str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Image:
    """Restore an image layer.

    Parameters
    ----------
    layer : napari.layers.Image
        2D, stack, series, RGB, multiscale, in memory or lazy.
    task : {"deblur", "dehaze", "motion_deblur"}
    model, device, tile, strength, progress
        As for `napari_restore.restore`.
    structure_size : float, optional
        As for `napari_restore.restore`, but in the units of the layer if it has any.
    frames, exposure
        As for `napari_restore.restore`.
    time_axis : int, optional
        Axis of the frames, where two of them are used and the labels do not say it.
    channel_axis : int, "auto" or None
        Axis of the channels, each of which gets an intensity scale of its own; None for none. With
        "auto" the one labelled so; else, in memory, one of up to five planes that differ much in
        brightness.
    scheduler : str, optional
        Address of a dask cluster to restore on, such as "tcp://HOST:8786".

    Returns
    -------
    napari.layers.Image
        Not yet in a viewer. Same dtype, place, units and looks; ``metadata["napari_restore"]`` says
        how it was made.

    Raises
    ------
    RestoreError
        If layer or options are of no use; the message names the value and the remedy.
    """
    job = plan_layer(
        layer,
        task,
        model=model,
        device=device,
        tile=tile,
        strength=strength,
        structure_size=structure_size,
        frames=frames,
        exposure=exposure,
        time_axis=time_axis,
        channel_axis=channel_axis,
        scheduler=scheduler,
    )
    if job.remark:
        warnings.warn(job.remark, stacklevel=2)
    return result_layer(job, drain(restore_job(job), progress))
