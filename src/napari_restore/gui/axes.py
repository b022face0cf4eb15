"""What the axes of a layer are: as its labels say, as its planes look, or as the user chose."""

from __future__ import annotations

import re
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import ImageError
from napari_restore.image.layout import UNNAMED, is_lazy, name_time

if TYPE_CHECKING:
    from napari.layers import Image

#: Letters of axes by their usual labels; any other axis gets an `UNNAMED` one.
_LETTERS = {"z": "Z", "t": "T", "time": "T", "c": "C", "ch": "C", "channel": "C", "channels": "C"}
#: Most planes along an axis that are taken for channels without being called so.
_MOST_CHANNELS = 5
#: How many times brighter than another a channel has to be to be taken for one.
_BRIGHTER = 3.0
#: Samples of each plane that are looked at.
_LOOKED_AT = 2**14
_GUESSES: weakref.WeakKeyDictionary[Image, tuple[weakref.ref[Any], tuple[str, ...], int | None]]
_GUESSES = weakref.WeakKeyDictionary()


def read_axes(
    layer: Image,
    moves: bool = False,
    time_axis: int | None = None,
    channel_axis: int | str | None = "auto",
    deep: bool = False,
) -> str:
    """Letters of a layer's axes, see `napari_restore.image.layout.Layout`.

    Parameters
    ----------
    layer : napari.layers.Image
    moves : bool
        Whether one of them has to be time: a single axis before the plane that is labeled neither
        z nor channel is.
    time_axis : int, optional
        Which one it is, whatever the labels say.
    channel_axis : int, "auto" or None
        Which axis holds channels, each with an intensity scale of its own; None for none. With
        "auto" the one that is labeled so; else, in memory, one of up to five planes of which one
        is several times as bright as another.

    deep : bool
        Whether one of them has to be depth: the only one without a label is.

    Raises
    ------
    ImageError
        If the labels say that the image plane is not the last two axes, no axis is time, or the
        axis that was chosen does not exist.
    """
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    if any(label in ("y", "x") for label in labels[:-2]):
        raise ImageError(
            f"The axes of layer '{layer.name}' are labeled {', '.join(labels)}: the plane (y, x) "
            "must be the last two. Transpose the data, or correct the labels."
        )
    recorded = "" if layer.rgb else _recorded_axes(layer)
    neutral, letters = iter(UNNAMED), ""
    for number, label in enumerate(labels[:-2]):
        if recorded and label == str(number - layer.ndim):
            # napari's reader leaves out what the file calls its axes.
            label = recorded[number].lower()
        letter = _LETTERS.get(label, "")
        if letter == "Z" and is_time(layer, number):
            if deep:
                raise ImageError(
                    f"Axis '{label}' of layer '{layer.name}' is counted in {layer.units[number]}: "
                    "that is time, not depth. Correct its unit, or restore plane by plane."
                )
            letter = "T"
        letters += letter if letter and letter not in letters else next(neutral)
    if channel_axis != "auto":
        letters = _with_channels(layer, letters, channel_axis)
    if moves:
        letters = _with_time(layer, letters, time_axis)
    unnamed = [letter for letter in letters if letter in UNNAMED]
    if deep and "Z" not in letters and len(unnamed) == 1:
        letters = letters.replace(unnamed[0], "Z")
    if channel_axis == "auto" and "C" not in letters and not layer.rgb:
        letters = _with_channels(layer, letters, _likely_channels(layer, letters))
    return letters + ("YXS" if layer.rgb else "YX")


def is_time(layer: Image, axis: int) -> bool:
    """Whether the unit of an axis is one of time."""
    return bool(layer.units[axis].dimensionality == {"[time]": 1})


def _recorded_axes(layer: Image) -> str:
    """Find what the TIFF of a layer calls its axes, if it has as many and says it."""
    path = layer.source.path
    if path is None or not str(path).lower().endswith((".tif", ".tiff")):
        return ""
    shape, axes = _in_file(str(path))
    data = layer.data[0] if layer.multiscale else layer.data
    return axes if shape == tuple(data.shape) else ""


@lru_cache(maxsize=64)
def _in_file(path: str) -> tuple[tuple[int, ...], str]:
    """Shape and axes of a TIFF that names them; what cannot be read names nothing."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            if not (tif.is_ome or tif.is_imagej):
                return (), ""
            series = tif.series[0]
            shape, axes = tuple(series.shape), str(series.axes)
            return shape, _of_pixels(tif.ome_metadata, shape) or axes
    except (OSError, ValueError, IndexError, tifffile.TiffFileError):
        return (), ""


def _of_pixels(xml: str | None, shape: tuple[int, ...]) -> str:
    """Axes of a stack by the sizes that OME-XML tells, where only one of them is above 1.

    A document whose planes are not those of the file still says that much.
    """
    sizes = dict(re.findall(r'\bSize([ZTC])="(\d+)"', (xml or "").partition("</Pixels>")[0]))
    longer = [letter for letter, size in sizes.items() if int(size) > 1]
    fits = len(longer) == 1 and len(shape) == 3 and shape[0] == int(sizes[longer[0]])
    return f"{longer[0]}YX" if fits else ""


def _with_channels(layer: Image, letters: str, chosen: Any) -> str:
    """Letters of the axes before the plane, with C where it was chosen and nowhere else."""
    if "C" in letters and (chosen is None or letters[chosen : chosen + 1] != "C"):
        letters = letters.replace("C", _unused(letters))
    if chosen is None:
        return letters
    if chosen >= len(letters):
        raise ImageError(
            f"Layer '{layer.name}' has {len(letters)} axes before the plane, and axis {chosen} was "
            "chosen for channels. Choose another, or auto."
        )
    return letters[:chosen] + "C" + letters[chosen + 1 :]


def _with_time(layer: Image, letters: str, time_axis: int | None) -> str:
    """Letters of the axes before the plane, one of them T."""
    if time_axis is not None:
        if time_axis >= len(letters):
            raise ImageError(
                f"Layer '{layer.name}' has {len(letters)} axes before the plane, and axis "
                f"{time_axis} was chosen for time. Choose another under Advanced, or auto."
            )
        letters = letters.replace("T", _unused(letters))
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


def _unused(letters: str) -> str:
    return next(letter for letter in UNNAMED if letter not in letters)


def _likely_channels(layer: Image, letters: str) -> int | None:
    """Which unnamed axis holds planes of very different brightness, if one does.

    Lazy arrays are not looked at: that would compute them before anything was asked for.
    """
    data = layer.data[-1] if layer.multiscale else layer.data
    if is_lazy(data) or not all(data.shape):
        return None
    known = _GUESSES.get(layer)
    # Data are mostly replaced, not changed in place; looking again would be felt at each refresh.
    if known is not None and known[0]() is data and known[1] == tuple(letters):
        return known[2]
    ratios = {
        axis: _brightness_ratio(np.moveaxis(np.asarray(data), axis, 0))
        for axis, letter in enumerate(letters)
        if letter in UNNAMED and 2 <= data.shape[axis] <= _MOST_CHANNELS
    }
    best = max(ratios, key=lambda axis: ratios[axis], default=None)
    if best is not None and ratios[best] < _BRIGHTER:
        best = None
    try:
        _GUESSES[layer] = weakref.ref(data), tuple(letters), best
    except TypeError:
        pass
    return best


def _brightness_ratio(planes: np.ndarray[Any, Any]) -> float:
    """How many times more contrast the brightest plane has than the dimmest, or is apart from it.

    A plane without contrast, as at the end of a stack, says nothing.
    """
    spans, middles = [], []
    for plane in planes:
        steps = [max(1, round((plane.size / _LOOKED_AT) ** 0.5))] * 2
        key = (slice(None),) * (plane.ndim - 2) + tuple(slice(None, None, step) for step in steps)
        sample = np.asarray(plane[key], np.float64).ravel()
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            continue
        low, middle, high = np.percentile(sample, (1, 50, 99.8))
        if high > low:
            spans.append(high - low)
            middles.append(middle)
    if len(spans) < 2:
        return 1.0
    apart = (max(middles) - min(middles)) / max(spans)
    return float(max(max(spans) / min(spans), apart))
