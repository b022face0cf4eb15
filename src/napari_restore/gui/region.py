"""Which part of a layer is restored, and which layers are channels of one image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Shapes

from napari_restore.errors import ImageError

from .canvas import visible_block
from .layers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel

    from napari_restore.image.layout import Block

    from .jobs import LayerJob

EVERYTHING, SEEN, SLICE, SLICES, SHAPE = REGIONS = (
    "everything",
    "what is seen",
    "this slice",
    "slices",
    "inside a shape",
)


def block_in(job: LayerJob, viewer: ViewerModel, region: str, slices: str = "") -> Block | None:
    """Find the part of a layer that is to be restored; None for everything.

    Parameters
    ----------
    job : LayerJob
    viewer : napari.components.ViewerModel
    region : str
        One of `REGIONS`.
    slices : str
        First and last, as the slider counts them, such as "3-10".

    Returns
    -------
    tuple of slice
        For each axis of the layer but that of color.

    Raises
    ------
    ImageError
        If there is no such part.
    """
    layer = job.layer
    shape = (layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim]
    if region == EVERYTHING:
        return None
    if region == SLICES:
        return _slices(layer, viewer, shape, slices)
    if region == SHAPE:
        return _in_shape(layer, viewer, shape)
    block = visible_block(layer, viewer.dims, max(shape), job.space)
    if region == SEEN:
        return block
    # All of the axes that are shown: those that are not have a length of one.
    shown = {axis - viewer.dims.ndim + layer.ndim for axis in viewer.dims.displayed}
    return tuple(
        slice(0, n) if axis in shown else part
        for axis, (part, n) in enumerate(zip(block, shape, strict=True))
    )


def _slices(layer: Image, viewer: ViewerModel, shape: tuple[int, ...], text: str) -> Block:
    if layer.ndim < 3:
        raise ImageError(f"'{layer.name}' is one plane and has no slices. Choose another region.")
    # The slider that was moved last, if it is one of this layer.
    axis = viewer.dims.last_used - viewer.dims.ndim + layer.ndim
    axis = axis if 0 <= axis < layer.ndim - 2 else 0
    last = shape[axis] - 1
    found = re.fullmatch(r"\s*(\d+)\s*(?:[-–:]\s*(\d+)\s*)?", text)
    first, end = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
    if not 0 <= first <= end <= last:
        raise ImageError(
            f"Slices '{text}' of '{layer.name}' do not exist. Give the first and the last from 0 "
            f"to {last}, such as 0-{last}."
        )
    block = [slice(0, n) for n in shape]
    block[axis] = slice(first, end + 1)
    return tuple(block)


def _in_shape(layer: Image, viewer: ViewerModel, shape: tuple[int, ...]) -> Block:
    shapes = next(
        (x for x in reversed(viewer.layers) if isinstance(x, Shapes) and x.visible and x.nshapes),
        None,
    )
    if shapes is None:
        raise ImageError("Draw a rectangle in a Shapes layer first.")
    chosen = sorted(shapes.selected_data) or [shapes.nshapes - 1]
    corners = np.concatenate([shapes.data[number] for number in chosen])
    world = np.tile(np.asarray(viewer.dims.point, float), (len(corners), 1))
    drawn = np.array([shapes.data_to_world(corner) for corner in corners])
    world[:, -2:] = drawn[:, -2:]
    inside = np.array([layer.world_to_data(point[-layer.ndim :]) for point in world])[:, -2:]
    # Pixels whose middles lie inside.
    low, high = np.ceil(inside.min(axis=0)), np.floor(inside.max(axis=0)) + 1
    spans = [
        slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n)))
        for a, b, n in zip(low, high, shape[-2:], strict=True)
    ]
    if any(span.stop <= span.start for span in spans):
        raise ImageError(f"The shape in '{shapes.name}' lies outside of '{layer.name}'.")
    return (*(slice(0, n) for n in shape[:-2]), *spans)


def channels_of(layer: Image, layers: Iterable[Any]) -> list[Image]:
    """Layers that are channels of one image, from bottom to top: napari has split it.

    They have the shape and place of the layer, and come from the same file, the same array, or
    are additive and have the same name up to its last number.
    """
    return [x for x in layers if x is layer or (isinstance(x, Image) and _belong(layer, x))]


def _belong(one: Image, other: Image) -> bool:
    if METADATA_KEY in one.metadata or METADATA_KEY in other.metadata or one.rgb or other.rgb:
        return False
    if one.multiscale != other.multiscale or tuple(one.extent.data[1]) != tuple(
        other.extent.data[1]
    ):
        return False
    if not np.allclose(one.scale, other.scale) or not np.allclose(one.translate, other.translate):
        return False
    path, base = one.source.path, getattr(one.data, "base", None)
    same_file = path is not None and path == other.source.path
    same_array = base is not None and base is getattr(other.data, "base", None)
    # So napari shows channels that it has split; images beside each other cover each other.
    split = one.blending == other.blending == "additive"
    return same_file or same_array or (split and _stem(one.name) == _stem(other.name))


def _stem(name: str) -> str:
    """Name up to the number of a channel at its end."""
    found = re.fullmatch(r"(.*?)[\s_-]*(?:\[\d+\]|(?:c|ch|channel)[\s_-]?\d+)", name, re.IGNORECASE)
    return found[1] if found else name
