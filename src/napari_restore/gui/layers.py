"""From results back to napari layers: place, units, looks, and how they were made."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine

from napari_restore.image.layout import as_dask, find_layout
from napari_restore.image.pyramid import pyramid
from napari_restore.restoration.cluster import on_client
from napari_restore.restoration.dask_graph import restore_lazily
from napari_restore.restoration.plan import takes_options
from napari_restore.restoration.run import Restoration, begin, restore_array
from napari_restore.runtime import Watch, tell

from .clients import client_of
from .jobs import LayerJob, plan_layer, side_of_pixel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.restoration.plan import Facts
    from napari_restore.runtime import Progress

#: What a result is called after its source.
SUFFIXES = {
    "deblur": "deblurred",
    "dehaze": "dehazed",
    "motion_deblur": "motion deblurred",
    "denoise": "denoised",
}
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
    strength = plan.options.strength if strength is None else strength
    said = [SUFFIXES[plan.spec.task] + ("" if strength == 1 else f" {strength:g}")]
    if job.block is not None:
        said.append("part")
    if taken and plan.structure_size:
        side, unit = side_of_pixel(job.state)
        said.append(f"up to {plan.structure_size * side:.3g} {unit}")
    if taken and plan.spec.frames == 2:
        said.append("2 frames")
    if taken and plan.dimensions == 3:
        said.append("as a volume")
    if taken:
        said.append(plan.model.name if plan.options.method == "network" else plan.options.method)
    return f"{job.name} [{', '.join(said)}]"


def result_layer(job: LayerJob, restoration: Restoration) -> Image:
    """Make the result's layer: place, units and looks of its source, and how it was made."""
    record = {"source": job.name, **restoration.provenance}
    if job.partner is not None:
        record["neighbor"] = job.partner
    # A restoration of a restoration tells the whole story.
    if METADATA_KEY in job.state["metadata"]:
        record["previous"] = job.state["metadata"][METADATA_KEY]
    state = job.state | {
        "name": result_name(job),
        "metadata": {**job.state["metadata"], METADATA_KEY: record},
        "visible": True,
    }
    if job.block is not None:
        start = [part.start for part in job.block]
        state |= {"multiscale": False, "translate": place_of_part(job.layer, start)}
    return make_layer(restoration.data, state)


def place_of_part(layer: Image, start: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Find the translation of a layer that shows a part of another.

    Parameters
    ----------
    layer : napari.layers.Image
        The other.
    start : sequence of float
        First pixel of the part along each axis, but that of color.
    """
    turned = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear)
    place: NDArray[Any] = turned.affine_matrix[:-1, :-1] @ np.asarray(start, float)
    place += np.asarray(layer.translate)
    return place


def restore_job(job: LayerJob, facts: Facts | None = None) -> Restoration:
    """Restore all levels of a layer; touches no layer, so it may run in a thread.

    A lazy layer gives a lazy result, each level restored when it is looked at. Of a multiscale
    layer in memory the finest level is restored and the others are averaged from it.

    Parameters
    ----------
    job : LayerJob
    facts : Facts, optional
        What a preview has found of it.

    Returns
    -------
    Restoration
        With a list of arrays as data for a multiscale layer.
    """
    plan, multiscale, client = job.plan, job.state["multiscale"], None
    if job.scheduler is not None:
        tell(0, job.pixels, f"Connecting to {job.scheduler}")
        client = client_of(job.scheduler)
    if job.block is not None:
        place = job.place(job.block)
        result = restore_array(job.array, plan, facts=facts, block=place, client=client)
        record = result.provenance | {"region": [[x.start, x.stop] for x in job.block]}
        data = result.data if job.partner is None else result.data[0]
        return replace(result, data=data, provenance=record)
    if job.lazy:
        # Facts are found now, from a bounded sample: else every look at a slice would read the
        # sample again. Those of the finest level serve all, or levels would differ in contrast.
        run = begin(as_dask(job.array), plan, facts=facts, client=client)
        levels = []
        for level in job.levels:
            layout = find_layout(level, plan.layout.axes)
            lazy = restore_lazily(level, replace(plan, layout=layout), run.facts)
            lazy = lazy if client is None else on_client(lazy, client)
            levels.append(lazy if job.partner is None else lazy[0])
        record = run.provenance() | {"lazy": True}
        if run.workers is not None:
            record["workers"] = run.workers.count
        return Restoration(levels if multiscale else levels[0], record, run.facts)
    if job.partner is None:
        result = restore_array(np.asarray(job.array), plan, facts=facts, client=client)
    else:
        first = tuple(slice(0, length) for length in (1, *plan.layout.shape[1:]))
        result = restore_array(job.array, plan, facts=facts, block=first, client=client)
        result = replace(result, data=result.data[0])
    if not multiscale:
        return result
    # Of two frames, the levels have an axis that the result has not.
    extra = 0 if job.partner is None else 1
    shapes = [tuple(level.shape)[extra:] for level in job.levels[1:]]
    return replace(result, data=pyramid(result.data, shapes))


@takes_options
def restore_layer(
    layer: Image,
    task: str,
    *,
    time_axis: int | None = None,
    channel_axis: int | str | None = "auto",
    scheduler: str | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Image:
    """Restore an image layer.

    Parameters
    ----------
    layer : napari.layers.Image
        2D, stack, series, RGB, multiscale, in memory or lazy.
    task : {"deblur", "dehaze", "motion_deblur", "denoise"}
    time_axis : int, optional
        Axis of the frames, where two of them are used and the labels do not say it.
    channel_axis : int, "auto" or None
        Axis of the channels, each of which gets an intensity scale of its own; None for none. With
        "auto" the one labeled so; else, in memory, one of up to five planes that differ much in
        brightness.
    scheduler : str, optional
        Address of a dask cluster to restore on, such as "tcp://HOST:8786".
    progress : callable, optional
        As for `napari_restore.restore`.
    **options
        As for `napari_restore.restore`, but ``structure_size`` is in the units of the layer if it
        has any, ``psf`` may be an image layer too, and ``pixel_size`` is that of the layer.

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
        time_axis=time_axis,
        channel_axis=channel_axis,
        scheduler=scheduler,
        **options,
    )
    if job.remark:
        warnings.warn(job.remark, stacklevel=2)
    return result_layer(job, Watch(progress).run(restore_job, job))
