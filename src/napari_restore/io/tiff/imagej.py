"""What ImageJ says in its TIFF files, and the same for the restored image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.layout import as_size, length_unit, time_unit
from napari_restore.io.image_file import RescaleTransform, as_dtype, integer_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_restore.io.image_file import ImageFile

#: What is said in a field of `ImageFile`, follows from the samples, or concerns how they are shown.
_HANDLED = {
    *("ImageJ", "images", "channels", "slices", "frames", "order", "axes", "hyperstack"),
    *("mode", "loop", "fps", "unit", "yunit", "zunit", "tunit", "spacing", "finterval"),
    *("cf", "c0", "c1", "Info", "LUTs"),
}
_NAMES = {
    **{"Labels": "labels of slices", "ROI": "region of interest", "Overlays": "overlays"},
    **{"Ranges": "display ranges", "min": "display ranges", "max": "display ranges"},
    **{"Properties": "properties", "Plot": "plot", "vunit": "unit of the values"},
    **{"xorigin": "origin", "yorigin": "origin", "zorigin": "origin"},
}
_STRAIGHT_LINE = 0  # the calibration function c0 + c1 · value


def take_over(
    picture: ImageFile, meta: Mapping[str, Any], resolution: Sequence[float] | None
) -> None:
    """Note in a picture what ImageJ says of it.

    Parameters
    ----------
    picture : ImageFile
        Its axes and samples are as they will be.
    meta : mapping
        As tifffile reads it.
    resolution : (float, float) or None
        Pixels for each unit along X and Y.
    """
    _sizes(picture, meta, resolution)
    _calibration(picture, meta)
    _colors(picture, meta)
    if meta.get("Info"):
        picture.said["comment"] = str(meta["Info"])
    for key, value in meta.items():
        if key not in _HANDLED:
            picture.said[_NAMES.get(key, f"ImageJ's '{key}'")] = value


def planes(meta: Mapping[str, Any], color: bool) -> int:
    """How many planes a file has, as it says itself."""
    counts = [meta.get("frames", 1), meta.get("slices", 1)]
    # ImageJ counts the samples of a pixel among the channels or not.
    counts += [] if color else [meta.get("channels", 1)]
    whole = [count for count in counts if isinstance(count, int) and count > 0]
    product = int(np.prod(whole, dtype=np.int64))
    images = meta.get("images", 1)
    return max(product, images) if isinstance(images, int) and product == 1 else product


def _sizes(picture: ImageFile, meta: Mapping[str, Any], resolution: Sequence[float] | None) -> None:
    given = {"X": meta.get("unit"), "Y": meta.get("yunit"), "Z": meta.get("zunit")}
    steps: dict[str, float | None] = dict.fromkeys("XYZ")
    if resolution:
        steps |= {
            axis: as_size(1 / r) if r else None for axis, r in zip("XY", resolution, strict=True)
        }
    if "spacing" in meta:
        steps["Z"] = as_size(abs(meta["spacing"]) if _is_number(meta["spacing"]) else None)
        if steps["Z"] is None:
            picture.notes.append(f"The spacing is given as {meta['spacing']}, which is not a size.")
    for axis, step in steps.items():
        spelled = str(given[axis] or given["X"] or "")
        unit = length_unit(spelled)
        if step is not None and unit:
            picture.pixel_size[axis] = (step, unit)
        elif step is not None and spelled.strip().lower() not in ("", "pixel", "pixels", "px"):
            picture.said[f"size along {axis} ({step:.4g} '{spelled}', a unit unknown here)"] = step
    if "finterval" in meta:
        spelled = str(meta.get("tunit") or "s")
        interval, unit = as_size(meta["finterval"]), time_unit(spelled)
        if interval is not None and unit:
            picture.pixel_size["T"] = (interval, unit)
        elif interval is not None:
            picture.said[f"frame interval ({interval:.4g} '{spelled}', a unit unknown here)"] = 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _calibration(picture: ImageFile, meta: Mapping[str, Any]) -> None:
    """Say what the samples are as calibrated numbers (ImageJ stores int16 so, for one)."""
    if "cf" not in meta and "c0" not in meta:
        return
    dtype = np.dtype(picture.data.dtype)
    if dtype.kind not in "iu" or dtype.itemsize > 2 or "S" in (picture.axes or ""):
        return  # ImageJ calibrates 8 and 16 bits alone
    start, slope = meta.get("c0", 0), meta.get("c1", 1)
    if meta.get("cf", _STRAIGHT_LINE) != _STRAIGHT_LINE or not (
        _is_number(start) and _is_number(slope) and np.isfinite([start, slope]).all()
    ):
        picture.said[f"calibration of the values (ImageJ's function {meta.get('cf')})"] = start
        return
    if (start, slope) == (0, 1) or slope == 0:
        return
    ends = [float(end) * slope + start for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
    whole = float(slope).is_integer() and float(start).is_integer()
    target = integer_dtype(min(ends), max(ends), whole) or np.dtype(np.float32)
    inverted = picture.extras.get("inverted")

    def convert(samples: NDArray[Any]) -> NDArray[Any]:
        stored = (
            samples.astype(np.float64) if inverted is None else inverted - samples.astype(float)
        )
        return as_dtype(stored * slope + start, target)

    picture.plain = RescaleTransform(target, convert)


def _colors(picture: ImageFile, meta: Mapping[str, Any]) -> None:
    tables = meta.get("LUTs")
    if tables is None or not len(tables):
        return
    if np.ndim(tables) == 2:
        tables = [tables]  # the palette of one channel, which TIFF has a tag for
    ramp = np.arange(256)[None] / 255
    colors = []
    for table in tables:
        last = np.asarray(table)[:, -1:].astype(float)
        if np.abs(np.asarray(table) - last * ramp).max() > 2:
            picture.said["look-up tables"] = tables
            return
        colors.append("".join(f"{int(value):02X}" for value in last.ravel()))
    axes = picture.axes or ""
    if len(colors) == (picture.data.shape[axes.index("C")] if "C" in axes else 1):
        picture.colors = colors
    else:
        picture.said["look-up tables"] = tables


def restored_metadata(
    data: NDArray[Any], axes: str, original: dict[str, Any], provenance: str
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Array in ImageJ's order and its metadata."""
    order = sorted(range(len(axes)), key=lambda axis: "TZCYXS".index(axes[axis]))
    derived = ("images", "channels", "slices", "frames", "order")
    meta = {key: _escaped(value) for key, value in original.items() if key not in derived}
    meta.setdefault("hyperstack", False)
    meta["axes"] = "".join(axes[axis] for axis in order)
    info = original.get("Info", "")
    meta["Info"] = f"{info}\n" if info else ""
    meta["Info"] += f"napari-restore: {provenance}\n"
    # These stand in a tag of their own, which holds any text.
    meta |= {key: original[key] for key in ("Labels", "Properties") if key in original}
    return data.transpose(order), meta


def _escaped(value: Any) -> Any:
    """ImageJ's description is ASCII and spells the micro sign out."""
    if not isinstance(value, str):
        return value
    value = value.replace("µ", "\\u00B5").replace("μ", "\\u00B5")
    return value.encode("ascii", "backslashreplace").decode()
