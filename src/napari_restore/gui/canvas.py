"""Which part of a layer the canvas shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_restore.errors import ImageError
from napari_restore.image.tiling import Region

if TYPE_CHECKING:
    from napari.components import Dims, ViewerModel
    from napari.layers import Image


def grid_of(viewer: ViewerModel) -> Any:
    """Grid of a viewer; it had another place before napari 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return canvas.grid if hasattr(canvas, "grid") else viewer.grid


def camera_of(viewer: ViewerModel) -> Any:
    """Camera of a viewer; it had another place before napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def visible_region(layer: Image, dims: Dims, longest: int) -> tuple[tuple[int, ...], Region]:
    """Which part of which plane of a layer the canvas shows.

    Parameters
    ----------
    layer : napari.layers.Image
    dims : napari.components.Dims
        Of the viewer.
    longest : int
        Longest side of the region in pixels; of a larger view its middle is taken.

    Returns
    -------
    index, region
        Of the plane over the leading axes, and the pixels in it.

    Raises
    ------
    ImageError
        If the canvas shows other axes than the image plane, or nothing of the layer.
    """
    if not _shows_planes(layer, dims):
        raise ImageError(
            f"A preview of '{layer.name}' needs the 2D view of its last two axes. Leave the 3D "
            "view and put the axes in their order, or press Restore."
        )
    absent = ImageError(
        f"'{layer.name}' is not on the canvas. Move the sliders or the view to it, or press "
        "Restore."
    )
    index = shown_plane(layer, dims)
    if index is None:
        raise absent
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim]
    corners = np.array(layer.corner_pixels, float)[:, -2:]
    # Before the canvas is drawn the corners are all zero: take the whole plane.
    everything = not np.any(layer.corner_pixels)
    if not everything and np.any(corners[1] <= corners[0]) and min(shape[-2:]) > 1:
        raise absent
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


def _shows_planes(layer: Image, dims: Dims) -> bool:
    before = dims.ndim - layer.ndim
    order = [axis - before for axis in dims.order if axis >= before]
    return dims.ndisplay == 2 and order[-2:] == [layer.ndim - 2, layer.ndim - 1]


def shown_plane(layer: Image, dims: Dims) -> tuple[int, ...] | None:
    """Find which plane of a layer the viewer shows, if it shows one."""
    if not _shows_planes(layer, dims):
        return None
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim - 2]
    index = []
    for position, length in zip(_slice_position(layer, dims), shape, strict=True):
        if not -0.5 <= position <= length - 0.5:
            return None
        index.append(int(np.clip(np.round(position), 0, length - 1)))
    return tuple(index)


def _slice_position(layer: Image, dims: Dims) -> np.ndarray[Any, Any]:
    """Position of the shown slice along the leading axes of the data, as napari slices it.

    As napari does, rotation and shear out of the plane are left aside.
    """
    hidden = list(range(layer.ndim - 2))
    if not hidden:
        return np.empty(0)
    point = np.asarray(dims.point[dims.ndim - layer.ndim :], float)[hidden]
    point = point * _unit_ratios(layer, dims)[hidden]
    physical = Affine(
        scale=layer.scale, rotate=layer.rotate, shear=layer.shear, translate=layer.translate
    )
    to_world = layer.affine.affine_matrix @ physical.affine_matrix
    linear, shift = to_world[np.ix_(hidden, hidden)], to_world[hidden, -1]
    return np.linalg.solve(linear, point - shift)


def _unit_ratios(layer: Image, dims: Dims) -> np.ndarray[Any, Any]:
    """How many of the layer's units one of the viewer's units is, for each axis."""
    import pint

    units = getattr(dims, "units", None)
    if units is None:
        return np.ones(layer.ndim)
    registry = pint.get_application_registry()
    ratios = []
    for of_viewer, of_layer in zip(units[dims.ndim - layer.ndim :], layer.units, strict=True):
        try:
            ratios.append(registry.Quantity(1, of_viewer).to(of_layer).magnitude)
        except pint.DimensionalityError:
            # napari draws such layers without units.
            return np.ones(layer.ndim)
    return np.array(ratios, float)
