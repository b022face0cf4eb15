"""Which part of a layer the canvas shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_restore.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import Dims, ViewerModel
    from napari.layers import Image

    from napari_restore.image.layout import Block


def grid_of(viewer: ViewerModel) -> Any:
    """Grid of a viewer; it had another place before napari 0.9."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.grid if canvas is None else canvas.grid


def camera_of(viewer: ViewerModel) -> Any:
    """Camera of a viewer; it had another place before napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def visible_block(
    layer: Image, dims: Dims, longest: int, space: Sequence[int] | None = None
) -> Block:
    """Which part of a layer the canvas shows.

    Parameters
    ----------
    layer : napari.layers.Image
    dims : napari.components.Dims
        Of the viewer.
    longest : int
        Longest side of the part in pixels; of a larger view its middle is taken.
    space : sequence of int, optional
        Axes of the layer of which any two may be shown: those of a volume. Without it, the image
        plane, which is the last two.

    Returns
    -------
    tuple of slice
        For each axis of the layer but that of color; the axes that are not shown have a length
        of 1.

    Raises
    ------
    ImageError
        If the canvas shows other axes, or nothing of the layer.
    """
    plane = (layer.ndim - 2, layer.ndim - 1)
    shown = _shown_axes(layer, dims)
    if shown is None or not set(shown) <= set(plane if space is None else space):
        which, view = "its last two axes", "the 3D view and put the axes in their order"
        if space is not None:
            which, view = "two axes of the volume", "the 3D view"
        raise ImageError(
            f"A preview of '{layer.name}' needs the 2D view of {which}. Leave {view}, or press "
            "Restore."
        )
    absent = ImageError(
        f"'{layer.name}' is not on the canvas. Move the sliders or the view to it, or press "
        "Restore."
    )
    places = _shown_places(layer, dims, shown)
    if places is None:
        raise absent
    shape = _finest(layer).shape[: layer.ndim]
    along = list(shown)
    corners = np.array(layer.corner_pixels, float)[:, along]
    # Before the canvas is drawn the corners are all zero: take the whole plane.
    everything = not np.any(layer.corner_pixels)
    sides = [shape[axis] for axis in along]
    if not everything and np.any(corners[1] <= corners[0]) and min(sides) > 1:
        raise absent
    corners[1] += 1
    if layer.multiscale:
        corners *= np.asarray(layer.downsample_factors)[layer.data_level][along]
    block = [slice(place, place + 1) for place in places]
    for axis, start, stop, length in zip(along, *corners, sides, strict=True):
        first, last = (0, length) if everything else (int(start), int(stop))
        first, last = max(0, min(first, length - 1)), max(1, min(last, length))
        if last - first > longest:
            first = (first + last - longest) // 2
            last = first + longest
        block[axis] = slice(first, last)
    return tuple(block)


def shows(layer: Image, dims: Dims, block: Block) -> tuple[int, int] | None:
    """Axes of a layer that the viewer shows, if what it shows goes through a block."""
    shown = _shown_axes(layer, dims)
    places = None if shown is None else _shown_places(layer, dims, shown)
    if shown is None or places is None:
        return None
    hidden = [axis for axis in range(layer.ndim) if axis not in shown]
    through = all(block[axis].start <= places[axis] < block[axis].stop for axis in hidden)
    return shown if through else None


def shown_plane(layer: Image, dims: Dims) -> tuple[int, ...] | None:
    """Find which plane of a layer the viewer shows, if it shows one."""
    shown = _shown_axes(layer, dims)
    if shown is None or shown != (layer.ndim - 2, layer.ndim - 1):
        return None
    places = _shown_places(layer, dims, shown)
    return None if places is None else tuple(places[:-2])


def _finest(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _shown_axes(layer: Image, dims: Dims) -> tuple[int, int] | None:
    """Axes of a layer that a 2D view shows, from top to bottom and from left to right."""
    before = dims.ndim - layer.ndim
    order = [axis - before for axis in dims.order[-2:]]
    return (order[0], order[1]) if dims.ndisplay == 2 and min(order) >= 0 else None


def _shown_places(layer: Image, dims: Dims, shown: tuple[int, int]) -> list[int] | None:
    """Place of what the viewer shows along each axis, 0 along those that it shows whole.

    None where it lies beside the layer.
    """
    hidden = [axis for axis in range(layer.ndim) if axis not in shown]
    shape, places = _finest(layer).shape, [0] * layer.ndim
    for axis, position in zip(hidden, _slice_position(layer, dims, hidden), strict=True):
        if not -0.5 <= position <= shape[axis] - 0.5:
            return None
        places[axis] = int(np.clip(np.round(position), 0, shape[axis] - 1))
    return places


def _slice_position(layer: Image, dims: Dims, hidden: list[int]) -> np.ndarray[Any, Any]:
    """Position of the shown slice along the hidden axes of the data, as napari slices it.

    As napari does, rotation and shear out of the plane are left aside.
    """
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
