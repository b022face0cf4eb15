"""Between napari layers and arrays: what is read from a layer, and how a result becomes one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_restore.core.axes import Planes, find_layout
from napari_restore.core.chunked import as_dask, is_lazy
from napari_restore.core.intensity import find_scales
from napari_restore.core.protocol import Report
from napari_restore.core.pyramid import pyramid
from napari_restore.core.steps import drain
from napari_restore.errors import ImageError, RestoreError
from napari_restore.plan import Plan, plan
from napari_restore.restoration import Restoration, restore_lazily, restore_steps, try_blur

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from napari.layers import Layer

    from napari_restore.core.protocol import Progress

#: What a result is called after its source.
SUFFIXES = {"deblur": "deblurred", "dehaze": "dehazed", "motion_deblur": "motion deblurred"}
#: Key of the provenance in a layer's metadata.
METADATA_KEY = "napari_restore"

#: Letters of axes by their usual labels; any other axis gets a letter without meaning.
_LETTERS = {"z": "Z", "t": "T", "time": "T", "c": "C", "ch": "C", "channel": "C", "channels": "C"}
_NEUTRAL = "QRUVWABDEFGHIJKLMNOP"


@dataclass(frozen=True)
class LayerJob:
    """One layer as it was when its restoration was asked for; later changes do not reach it.

    Attributes
    ----------
    layer : napari.layers.Image
        The source; workers do not touch it.
    name : str
    levels : list of array
        The image, finest first; one unless the layer is multiscale.
    state : dict
        Place, units and looks, as arguments of ``Image``.
    plan : Plan
    show_removed : bool
        Whether what was removed is wanted too, see `napari_restore.gui.removed`.
    """

    layer: Image
    name: str
    levels: list[Any]
    state: dict[str, Any]
    plan: Plan
    show_removed: bool = False

    @property
    def array(self) -> Any:
        """The image at full resolution."""
        return self.levels[0]

    @property
    def lazy(self) -> bool:
        """Whether the result will be computed where it is looked at."""
        return is_lazy(self.array)


def read_axes(layer: Image) -> str:
    """Letters of a layer's axes, see `napari_restore.core.axes.Layout`.

    Raises
    ------
    ImageError
        If the labels say that the image plane is not the last two axes.
    """
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    if any(label in ("y", "x") for label in labels[:-2]):
        raise ImageError(
            f"The axes of layer '{layer.name}' are labelled {', '.join(labels)}: the plane (y, x) "
            "must be the last two. Transpose the data, or correct the labels."
        )
    neutral, letters = iter(_NEUTRAL), ""
    for label in labels[:-2]:
        letter = _LETTERS.get(label, "")
        letters += letter if letter and letter not in letters else next(neutral)
    return letters + ("YXS" if layer.rgb else "YX")


def pixel_size(state: Mapping[str, Any]) -> tuple[float, str]:
    """Side of a pixel in the layer's units, and the unit; 1 and "px" without units.

    Parameters
    ----------
    state : mapping
        ``scale`` and ``units`` of the layer; the last two axes are the plane, and the mean counts
        where its pixels are not square.
    """
    unit = f"{state['units'][-1]:~P}"
    if unit in ("", "px", "pixel"):
        return 1.0, "px"
    return float(sum(abs(step) for step in state["scale"][-2:]) / 2), unit


def plan_layer(
    layer: Layer,
    task: str,
    *,
    structure_size: float | None = None,
    show_removed: bool = False,
    **options: Any,
) -> LayerJob:
    """Decide how a layer will be restored.

    Parameters
    ----------
    layer : napari.layers.Layer
    task : str
    structure_size : float, optional
        In the layer's units, see `pixel_size`. Colour layers go without.
    show_removed : bool
    **options
        As for `napari_restore.restore`.

    Raises
    ------
    RestoreError
        If it cannot be; the message names the layer.
    """
    if not isinstance(layer, Image):
        raise ImageError(
            f"Layer '{layer.name}' is a {type(layer).__name__} layer. Select an Image layer."
        )
    axes = read_axes(layer)
    levels = list(layer.data) if layer.multiscale else [layer.data]
    _, state, _ = layer.as_layer_data_tuple()
    if structure_size is not None and not layer.rgb:
        options["structure_size"] = structure_size / pixel_size(state)[0]
    try:
        decided = plan(levels[0], task, axes=axes, **options)
    except RestoreError as error:
        raise type(error)(f"'{layer.name}': {error}") from error
    state["contrast_limits_range"] = layer.contrast_limits_range
    state["metadata"] = _copied(layer.metadata)
    return LayerJob(layer, layer.name, levels, state, decided, show_removed)


def _copied(metadata: dict[str, Any]) -> dict[str, Any]:
    """Copy of a layer's metadata that shares no list or dict with it."""
    plain = (dict, list, tuple, set, str, int, float, bool, type(None))
    return {k: copy.deepcopy(v) if isinstance(v, plain) else v for k, v in metadata.items()}


def make_layer(data: Any, state: dict[str, Any]) -> Image:
    """Image layer from the state of another."""
    state = dict(state)
    limits_range = state.pop("contrast_limits_range")
    layer = Image(data, **state)
    if not layer.rgb:
        layer.contrast_limits_range = limits_range
    return layer


def result_layer(job: LayerJob, restoration: Restoration) -> Image:
    """Make the result's layer: place, units and looks of its source, and how it was made."""
    record = {"source": job.name, **restoration.provenance}
    # A restoration of a restoration tells the whole story.
    if METADATA_KEY in job.state["metadata"]:
        record["previous"] = job.state["metadata"][METADATA_KEY]
    state = job.state | {
        "name": f"{job.name} [{SUFFIXES[job.plan.spec.task]}]",
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
    decided, multiscale = job.plan, job.state["multiscale"]
    if job.lazy:
        # Found now, from a bounded sample: else every look at a slice would read the sample again.
        # The finest level's scale serves all, or levels would differ in contrast.
        finest = Planes(as_dask(job.array), decided.layout)
        scales = find_scales(finest, decided.spec.black_is_zero)
        levels = []
        for level in job.levels:
            layout = find_layout(level, decided.layout.axes)
            levels.append(restore_lazily(level, replace(decided, layout=layout), scales))
        report = Report()
        blur = try_blur(job.array, decided, scales, report)
        record = {**decided.provenance(scales=scales, blur=blur), "lazy": True}
        record["notes"] = report.notes
        return Restoration(levels if multiscale else levels[0], record, scales)
    result = yield from restore_steps(np.asarray(job.array), decided)
    if not multiscale:
        return result
    shapes = [tuple(level.shape) for level in job.levels[1:]]
    return replace(result, data=pyramid(result.data, shapes))


def restore_layer(
    layer: Image,
    task: str,
    *,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
    structure_size: float | None = None,
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
    )
    return result_layer(job, drain(restore_job(job), progress))
