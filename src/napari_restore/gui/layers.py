"""Between napari layers and arrays: what is read from a layer, and how a result becomes one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image, Labels
from napari.utils.transforms import Affine

from napari_restore.api import Restoration, restore_lazily, restore_steps
from napari_restore.core.axes import Planes, find_layout
from napari_restore.core.intensity import find_scales
from napari_restore.core.lazy import as_dask, is_lazy
from napari_restore.core.tiles import Region
from napari_restore.errors import ImageError
from napari_restore.plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.layers import Layer

    from napari_restore.core.protocol import Progress

#: What a result is called after its source.
SUFFIXES = {"deblur": "deblurred", "dehaze": "dehazed", "motion_deblur": "motion deblurred"}
#: Key of the provenance in a layer's metadata.
METADATA_KEY = "napari_restore"


class LayerImage(NamedTuple):
    """What the engine needs of a layer.

    Attributes
    ----------
    levels : list of array
        The image, finest first; one unless the layer is multiscale.
    axes : str
        A letter for each axis of the array, see `napari_restore.core.axes.Layout`.
    """

    levels: list[Any]
    axes: str

    @property
    def array(self) -> Any:
        """The image at full resolution."""
        return self.levels[0]


def read_layer(layer: Layer) -> LayerImage:
    """Take the image out of a layer.

    Raises
    ------
    ImageError
        If it is not an image layer.
    """
    if isinstance(layer, Labels) or not isinstance(layer, Image):
        raise ImageError(
            f"Layer '{layer.name}' is a {type(layer).__name__} layer. Select an Image layer."
        )
    levels = list(layer.data) if layer.multiscale else [layer.data]
    plane = "YXS" if layer.rgb else "YX"
    # An axis that the user called channel gets an intensity scale for each channel.
    labels = [str(label).lower() for label in layer.axis_labels]
    letters = iter("TZUVWABDEFGHIJKLMNOPQR")
    leading = ""
    for label in labels[: layer.ndim - 2]:
        channel = label in ("c", "ch", "channel", "channels") and "C" not in leading
        leading += "C" if channel else next(letters)
    return LayerImage(levels, leading + plane)


def plan_layer(layer: Layer, task: str, **options: Any) -> Plan:
    """Decide how a layer will be restored; ``options`` as for `napari_restore.restore`.

    Raises
    ------
    RestoreError
        If it cannot be; the message names the layer.
    """
    image = read_layer(layer)
    return plan(image.array, task, axes=image.axes, **options)


def result_layer(layer: Image, restoration: Restoration, task: str) -> Image:
    """Make the result's layer: place, units and looks of its source, and how it was made."""
    _, state, _ = layer.as_layer_data_tuple()
    state["name"] = f"{layer.name} [{SUFFIXES[task]}]"
    state["metadata"] = {**layer.metadata, METADATA_KEY: restoration.provenance}
    state["visible"] = True
    return Image(restoration.data, **state)


def restore_layer_steps(layer: Image, plan: Plan) -> Generator[Progress, None, Restoration]:
    """Restore all levels of a layer, step by step; touches no viewer, so it may run in a thread.

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
    image = read_layer(layer)
    if is_lazy(image.array):
        # Found now, from a bounded sample: else every look at a slice would read the sample again.
        # The finest level's scale serves all, or levels would differ in contrast.
        scales = find_scales(Planes(as_dask(image.array), plan.layout), plan.spec.black_is_zero)
        levels = [_restore_level(level, plan, scales) for level in image.levels]
        data: Any = levels if layer.multiscale else levels[0]
        return Restoration(data, {**plan.provenance(), "lazy": True})
    result = yield from restore_steps(np.asarray(image.array), plan)
    if not layer.multiscale:
        return result
    shapes = [tuple(level.shape) for level in image.levels[1:]]
    return Restoration(pyramid(result.data, shapes), result.provenance)


def _restore_level(level: Any, plan: Plan, scales: Any) -> Any:
    layout = find_layout(level, plan.layout.axes)
    return restore_lazily(level, replace(plan, layout=layout), scales)


def pyramid(finest: np.ndarray[Any, Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Coarser levels of given shapes, averaged from the finest.

    Parameters
    ----------
    finest : ndarray
    shapes : sequence of tuple
        Shapes of the coarser levels, of as many axes.

    Returns
    -------
    list of ndarray
        The finest level and the others, in its dtype.
    """
    from skimage.transform import downscale_local_mean

    levels = [finest]
    for shape in shapes:
        factors = tuple(max(1, round(a / b)) for a, b in zip(finest.shape, shape, strict=True))
        wanted = [b * f for b, f in zip(shape, factors, strict=True)]
        grow = [(0, max(0, w - a)) for a, w in zip(finest.shape, wanted, strict=True)]
        fitted = np.pad(finest, grow, mode="edge")[tuple(slice(w) for w in wanted)]
        mean = downscale_local_mean(fitted, factors)
        if np.issubdtype(finest.dtype, np.integer):
            mean = np.rint(mean)
        levels.append(mean.astype(finest.dtype))
    return levels


def restore_layer(
    layer: Image,
    task: str,
    *,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
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
    decided = plan_layer(layer, task, model=model, device=device, tile=tile, strength=strength)
    steps = restore_layer_steps(layer, decided)
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return result_layer(layer, stop.value, task)
        if progress is not None:
            progress(step)


# ---------------------------------------------------------------- the visible region


def visible_region(
    layer: Image, point: Sequence[float], longest: int
) -> tuple[tuple[int, ...], Region]:
    """Which part of which plane of a layer the canvas shows.

    Parameters
    ----------
    layer : napari.layers.Image
    point : sequence of float
        World coordinates of the slice that is shown, one for each axis of the layer.
    longest : int
        Longest side of the region in pixels; of a larger view its middle is taken.

    Returns
    -------
    index, region
        Of the plane over the leading axes, and the pixels in it.

    Raises
    ------
    ImageError
        If the canvas shows other axes than the image plane.
    """
    displayed = list(layer._slice_input.displayed)
    if displayed != [layer.ndim - 2, layer.ndim - 1]:
        raise ImageError(
            f"A preview of '{layer.name}' needs the 2D view of its last two axes. Leave the 3D "
            "view and put the axes in their order, or press Restore."
        )
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim]
    position = layer.world_to_data(point)
    index = tuple(
        int(np.clip(round(position[axis]), 0, shape[axis] - 1)) for axis in range(layer.ndim - 2)
    )
    corners = np.array(layer.corner_pixels, float)[:, -2:]
    # Without a canvas the corners are all zero: take the whole plane.
    everything = not corners.any()
    corners[1] += 1
    if layer.multiscale:
        corners *= np.asarray(layer.downsample_factors)[layer.data_level][-2:]
    bounds = []
    for start, stop, length in zip(*corners, shape[-2:], strict=True):
        first, last = (0, length) if everything else (int(start), int(stop))
        first, last = max(0, min(first, length - 1)), max(1, min(last, length))
        if last - first > longest:
            first = (first + last - longest) // 2
            last = first + longest
        bounds.append((first, last))
    return index, Region(bounds[0][0], bounds[1][0], bounds[0][1], bounds[1][1])


def region_layer(
    layer: Image, index: tuple[int, ...], region: Region, data: Any, name: str
) -> Image:
    """Layer that shows a restored region exactly over its place in the source."""
    _, state, _ = layer.as_layer_data_tuple()
    data_to_world = Affine(
        scale=layer.scale, rotate=layer.rotate, shear=layer.shear, translate=layer.translate
    )
    corner = (*index, region.top, region.left)
    state |= {
        "name": name,
        "metadata": {},
        "multiscale": False,
        "translate": data_to_world(corner),
        "visible": True,
        "opacity": 1.0,
    }
    return Image(data[(np.newaxis,) * len(index)], **state)
