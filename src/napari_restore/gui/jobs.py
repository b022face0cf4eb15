"""What is read from napari layers: axes, pixel size, and what will be done to them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_restore.cluster import check_address
from napari_restore.core.axes import UNNAMED, name_time
from napari_restore.core.chunked import is_lazy
from napari_restore.core.stacked import stacked
from napari_restore.errors import ImageError, RestoreError
from napari_restore.plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Layer

#: Letters of axes by their usual labels; any other axis gets an `UNNAMED` one.
_LETTERS = {"z": "Z", "t": "T", "time": "T", "c": "C", "ch": "C", "channel": "C", "channels": "C"}


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

    @property
    def array(self) -> Any:
        """The image at full resolution."""
        return self.levels[0]

    @property
    def lazy(self) -> bool:
        """Whether the result will be computed where it is looked at."""
        return is_lazy(self.array)

    @property
    def pixels(self) -> int:
        """Pixels that will be restored."""
        return self.plan.layout.pixels // (1 if self.partner is None else 2)

    def place(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Which plane of the plan's layout a plane of the layer is."""
        return index if self.partner is None else (0, *index)


def read_axes(layer: Image, moves: bool = False, time_axis: int | None = None) -> str:
    """Letters of a layer's axes, see `napari_restore.core.axes.Layout`.

    Parameters
    ----------
    layer : napari.layers.Image
    moves : bool
        Whether one of them has to be time: a single axis before the plane that is labelled neither
        z nor channel is.
    time_axis : int, optional
        Which one it is, whatever the labels say.

    Raises
    ------
    ImageError
        If the labels say that the image plane is not the last two axes, or no axis is time.
    """
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    if any(label in ("y", "x") for label in labels[:-2]):
        raise ImageError(
            f"The axes of layer '{layer.name}' are labelled {', '.join(labels)}: the plane (y, x) "
            "must be the last two. Transpose the data, or correct the labels."
        )
    neutral, letters = iter(UNNAMED), ""
    for label in labels[:-2]:
        letter = _LETTERS.get(label, "")
        letters += letter if letter and letter not in letters else next(neutral)
    if moves:
        letters = _with_time(layer, letters, time_axis)
    return letters + ("YXS" if layer.rgb else "YX")


def _with_time(layer: Image, letters: str, time_axis: int | None) -> str:
    """Letters of the axes before the plane, one of them T."""
    if time_axis is not None:
        if time_axis >= len(letters):
            raise ImageError(
                f"Layer '{layer.name}' has {len(letters)} axes before the plane, and axis "
                f"{time_axis} was chosen for time. Choose another under Advanced, or auto."
            )
        unused = next(letter for letter in UNNAMED if letter not in letters)
        letters = letters.replace("T", unused)
        return letters[:time_axis] + "T" + letters[time_axis + 1 :]
    named = name_time(letters)
    if named is not None:
        return named
    if not letters:
        raise ImageError(
            f"Layer '{layer.name}' is a single image: two frames need a layer with an axis of "
            "time, or two selected layers of one size. Select the next frame too, or restore each "
            "frame alone."
        )
    labels = ", ".join(str(label) for label in layer.axis_labels)
    raise ImageError(
        f"Which axis of layer '{layer.name}' ({labels}) is time? Choose it under Advanced, or "
        "restore each frame alone."
    )


def pixel_size(state: Mapping[str, Any]) -> tuple[float, str]:
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
    partner: Image | None = None,
    scheduler: str | None = None,
    **options: Any,
) -> LayerJob:
    """Decide how a layer will be restored.

    Parameters
    ----------
    layer : napari.layers.Layer
    task : str
    structure_size : float, optional
        In the layer's units, see `pixel_size`. Colour layers go without.
    show_removed, show_motion : bool
    time_axis : int, optional
        Axis of the frames, where two of them are used and the labels do not say it.
    partner : napari.layers.Image, optional
        The next frame to this one.
    scheduler : str, optional
        Address of the dask cluster that is to compute.
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
    axes = read_axes(layer, moves, time_axis)
    levels = _levels(layer)
    _, state, _ = layer.as_layer_data_tuple()
    if structure_size is not None and not layer.rgb:
        options["structure_size"] = structure_size / pixel_size(state)[0]
    try:
        if partner is not None:
            pairs = zip(levels, _levels(partner), strict=True)
            levels, axes = [stacked(pair) for pair in pairs], f"T{axes.replace('T', 'K')}"
        decided = plan(levels[0], task, axes=axes, **options)
    except RestoreError as error:
        raise type(error)(f"'{layer.name}': {error}") from error
    state["contrast_limits_range"] = layer.contrast_limits_range
    state["metadata"] = _copied(layer.metadata)
    name = None if partner is None else partner.name
    return LayerJob(
        layer, layer.name, levels, state, decided, show_removed, show_motion, name, address
    )


def _levels(layer: Image) -> list[Any]:
    """Levels of a layer's image, finest first."""
    return list(layer.data) if layer.multiscale else [layer.data]


def _copied(metadata: dict[str, Any]) -> dict[str, Any]:
    """Copy of a layer's metadata that shares no list or dict with it."""
    plain = (dict, list, tuple, set, str, int, float, bool, type(None))
    return {k: copy.deepcopy(v) if isinstance(v, plain) else v for k, v in metadata.items()}
