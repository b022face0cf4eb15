"""What is read from napari layers: axes, pixel size, and what will be done to them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_restore.errors import ImageError, RestoreError
from napari_restore.image.layout import is_lazy, likely_color, stacked
from napari_restore.restoration.cluster import check_address
from napari_restore.restoration.plan import Options, make_plan

from .axes import read_axes
from .psf_source import resolve_psf, voxel_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Layer

    from napari_restore.image.layout import Block
    from napari_restore.restoration.plan import Plan


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
    show_removed, show_motion : bool
        Whether what was removed, and how things moved, is wanted too.
    partner : str or None
        Name of a layer that is the next frame to this one; levels and plan then have an axis of
        frames in front, and only the first is restored.
    scheduler : str or None
        Address of the dask cluster that computes; None for this computer.
    block : tuple of slice, optional
        The part that is restored, for each axis of the layer but that of color; else everything.
    remark : str
        What the user should know before, or nothing.
    """

    layer: Image
    name: str
    levels: list[Any]
    state: dict[str, Any]
    plan: Plan
    show_removed: bool = False
    show_motion: bool = False
    partner: str | None = None
    scheduler: str | None = None
    remark: str = ""
    block: Block | None = None

    @property
    def array(self) -> Any:
        """The image at full resolution."""
        return self.levels[0]

    @property
    def lazy(self) -> bool:
        """Whether the result will be computed where it is looked at."""
        return is_lazy(self.array) and self.block is None

    @property
    def pixels(self) -> int:
        """Pixels that will be restored."""
        if self.block is not None:
            return math.prod(part.stop - part.start for part in self.block)
        return self.plan.layout.pixels // (1 if self.partner is None else 2)

    @property
    def shown_levels(self) -> list[Any]:
        """Levels of the layer itself, without the neighbor beside it; the part of the finest."""
        if self.block is not None:
            part = np.asarray(self.array[self.place(self.block)])
            return [part if self.partner is None else part[0]]
        return self.levels if self.partner is None else [level[(0, ...)] for level in self.levels]

    def place(self, block: Block) -> Block:
        """Where a part of the layer, without its axis of color, lies in the plan's layout."""
        before = () if self.partner is None else (slice(0, 1),)
        color = (slice(0, self.plan.layout.shape[-1]),) if self.plan.layout.color else ()
        return (*before, *block, *color)

    @property
    def space(self) -> tuple[int, ...] | None:
        """Axes of the layer that are those of a volume; None where planes are restored."""
        if self.plan.dimensions == 2:
            return None
        return tuple(self.plan.layout.axes.index(letter) for letter in "ZYX")


def side_of_pixel(state: Mapping[str, Any]) -> tuple[float, str]:
    """Side of a pixel in the layer's units, and the unit; 1 and "px" without units.

    Parameters
    ----------
    state : mapping
        ``scale`` and ``units`` of the layer; the last two axes are the plane, and the mean counts
        where its pixels are not square. Each axis may have a unit of its own; the last counts.
    """
    along_y, along_x = state["units"][-2:]
    unit = f"{along_x:~P}"
    if unit in ("", "px", "pixel") or along_y.dimensionality != along_x.dimensionality:
        return 1.0, "px"
    height, width = (abs(step) for step in state["scale"][-2:])
    return float((height * along_y).to(along_x).magnitude + width) / 2, unit


def plan_layer(
    layer: Layer,
    task: str,
    *,
    structure_size: float | None = None,
    show_removed: bool = False,
    show_motion: bool = False,
    time_axis: int | None = None,
    channel_axis: int | str | None = "auto",
    partner: Image | None = None,
    scheduler: str | None = None,
    psf: Any = None,
    pixel_size: Any = None,
    **options: Any,
) -> LayerJob:
    """Decide how a layer will be restored.

    Parameters
    ----------
    layer : napari.layers.Layer
    task : str
    structure_size : float, optional
        In the layer's units, see `side_of_pixel`. Color layers go without.
    show_removed, show_motion : bool
    time_axis : int, optional
        Axis of the frames, where two of them are used and the labels do not say it.
    channel_axis : int, "auto" or None
        Axis of the channels, see `read_axes`.
    partner : napari.layers.Image, optional
        The next frame to this one.
    scheduler : str, optional
        Address of the dask cluster that is to compute.
    psf : Any
        As for `napari_restore.restore`, or a layer that shows it, or see `resolve_psf`.
    pixel_size : length, optional
        Without it, that of the layer.
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
    address = None if scheduler is None else check_address(scheduler)
    moves = options.get("frames", 1) == 2 and partner is None
    axes = read_axes(layer, moves, time_axis, channel_axis, deep=options.get("dimensions") == 3)
    levels = _levels(layer)
    _, state, _ = layer.as_layer_data_tuple()
    if structure_size is not None and not layer.rgb:
        options["structure_size"] = structure_size / side_of_pixel(state)[0]
    try:
        options["psf"] = resolve_psf(psf, layer, axes)
        options["pixel_size"] = voxel_of(layer, axes, psf) if pixel_size is None else pixel_size
        if partner is not None:
            pairs = zip(levels, _levels(partner), strict=True)
            levels, axes = [stacked(pair) for pair in pairs], f"T{axes.replace('T', 'K')}"
        plan = make_plan(levels[0], Options.of(task, options), axes=axes)
    except RestoreError as error:
        raise type(error)(f"'{layer.name}': {error}") from error
    state["contrast_limits_range"] = layer.contrast_limits_range
    state["metadata"] = _copied(layer.metadata)
    name = None if partner is None else partner.name
    assumed = (
        "" if layer.rgb else likely_color(tuple(_levels(layer)[0].shape), np.dtype(layer.dtype))
    )
    return LayerJob(
        layer,
        layer.name,
        levels,
        state,
        plan,
        show_removed,
        show_motion,
        name,
        address,
        assumed and f"{assumed} If its last axis is color, add the layer with rgb=True.",
    )


def _levels(layer: Image) -> list[Any]:
    """Levels of a layer's image, finest first."""
    return list(layer.data) if layer.multiscale else [layer.data]


def _copied(metadata: dict[str, Any]) -> dict[str, Any]:
    """Copy of a layer's metadata that shares no list or dict with it."""
    plain = (dict, list, tuple, set, str, int, float, bool, type(None))
    return {k: copy.deepcopy(v) if isinstance(v, plain) else v for k, v in metadata.items()}
