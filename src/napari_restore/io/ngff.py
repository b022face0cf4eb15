"""What OME-Zarr says about an image (NGFF 0.4 and 0.5), and the same for the restored one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

from .measures import as_size, for_ngff, ngff_name, unit_along

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .image_file import ImageFile

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
#: Labels of channels that are the samples of RGB or RGBA color.
_COLORS = (["r", "g", "b"], ["r", "g", "b", "a"], ["red", "green", "blue"])
#: Longest side of the coarsest level in pixels.
COARSEST = 512


def letters_of(axes: Sequence[Any]) -> str:
    """Letters for the axes of a multiscale image: T, C, Z, Y, X, and Q for any other."""
    named = [axis if isinstance(axis, dict) else {"name": str(axis)} for axis in axes]
    out = []
    for axis in named:
        letter, kind = str(axis.get("name", "")).upper(), axis.get("type")
        if kind in ("time", "channel"):
            letter = kind[0].upper()
        out.append(letter if letter in _TYPES else "Q")
    if not {"Y", "X"} <= set(out):
        # Named otherwise; the order of the axes of space is fixed.
        space = [i for i, axis in enumerate(named) if axis.get("type") == "space"]
        for place, letter in zip(reversed(space), "XYZ", strict=False):
            out[place] = letter
    return "".join(out)


def transform_of(
    entry: Mapping[str, Any], level: int, ndim: int
) -> tuple[list[float], list[float]]:
    """Scale and translation of a level: its own, then those of the whole entry."""
    scale, shift = np.ones(ndim), np.zeros(ndim)
    own = entry["datasets"][level].get("coordinateTransformations") or []
    for step in [*own, *(entry.get("coordinateTransformations") or [])]:
        if step.get("type") == "scale" and "scale" in step:
            factor = np.asarray(step["scale"], float)
            # A size that is infinite is said later, and not used.
            with np.errstate(invalid="ignore"):
                scale, shift = scale * factor, shift * factor
        elif step.get("type") == "translation" and "translation" in step:
            shift = shift + np.asarray(step["translation"], float)
    return scale.tolist(), shift.tolist()


def pixel_size(
    axes: Sequence[Any], letters: str, scale: Sequence[float]
) -> dict[str, tuple[float, str]]:
    """Size of a step along X, Y, Z and T where the axis has a unit."""
    sizes = {}
    for axis, letter, step in zip(axes, letters, scale, strict=True):
        spelled = axis.get("unit") if isinstance(axis, dict) else None
        unit, size = unit_along(letter, str(spelled or "")), as_size(step)
        if unit and size and letter in "TZYX":
            sizes[letter] = (size, unit)
    return sizes


def in_ngff(sizes: Mapping[str, tuple[float, str]]) -> dict[str, tuple[float, str]]:
    """Sizes in units that NGFF has."""
    return {axis: for_ngff(*size) for axis, size in sizes.items()}


def is_color(omero: Mapping[str, Any], channels: int) -> bool:
    """Whether the channels are named as the samples of RGB or RGBA."""
    labels = [str(channel.get("label", "")).lower() for channel in omero.get("channels") or []]
    return len(labels) == channels and labels in _COLORS


def colors_of(omero: Mapping[str, Any]) -> list[str]:
    """Colors "RRGGBB" of the channels; empty if no channel has one."""
    found = [str(channel.get("color", "")) for channel in omero.get("channels") or []]
    # Some writers give alpha as well, or a leading "#".
    plain = [color.lstrip("#")[:6].upper() for color in found]
    valid = [
        color if len(color) == 6 and set(color) <= set("0123456789ABCDEF") else "FFFFFF"
        for color in plain
    ]
    return valid if any(found) else []


def said(
    extras: Mapping[str, Any], omero: Mapping[str, Any], sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what an OME-Zarr says beside what `ImageFile` has fields for, named as in notes."""
    out: dict[str, Any] = {}
    if any("window" in channel for channel in omero.get("channels") or []):
        out["display ranges"] = omero
    if any(extras["translation"]):
        out["origin (translation)"] = extras["translation"]
    bare = [
        letter
        for letter, step in zip(extras["letters"], extras["scale"], strict=True)
        if step != 1 and letter not in sizes
    ]
    if bare:
        out[f"scale along {', '.join(bare)} (without a unit)"] = extras["scale"]
    named = [*extras["ome"], *extras["other"]]
    return out | {f"attribute '{key}'": True for key in named if key not in ("omero", "version")}


def stored_order(axes: str) -> tuple[int, ...]:
    """Positions of an image's axes in the order that OME-Zarr wants: time, channel, space.

    Raises
    ------
    FileError
        If OME-Zarr has no room for such axes.
    """
    other = [letter for letter in axes if letter not in "TZYX"]
    if len(other) > 1:
        raise FileError(
            f"OME-Zarr holds time, space and one axis of channels or the like; the axes of this "
            f"image are '{axes}' (S: RGB, Q: unknown). Give them with --axes, for example TZYX, or "
            "name the result .tif."
        )
    order = ["T", *other, "Z", "Y", "X"]
    return tuple(sorted(range(len(axes)), key=lambda axis: order.index(axes[axis])))


def level_shapes(
    shape: tuple[int, ...], axes: str, original: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """Shapes of the coarser levels.

    Parameters
    ----------
    shape : tuple of int
        Of the finest level.
    axes : str
        Of it, in the same order.
    original : sequence of shapes
        Of the levels of the image that was restored; empty if it had none. They are kept where
        each is a whole fraction of the one above.

    Returns
    -------
    list of tuple
        Without the finest. By default Y and X are halved until both are at most `COARSEST`.
    """
    kept = [tuple(int(n) for n in level) for level in original]
    if len(kept) > 1 and kept[0] == shape and all(map(_is_fraction, kept, kept[1:])):
        return kept[1:]
    out: list[tuple[int, ...]] = []
    plane = [axes.index(letter) for letter in "YX"]
    while max(shape[axis] for axis in plane) > COARSEST:
        shape = tuple(-(-n // 2) if axis in plane else n for axis, n in enumerate(shape))
        out.append(shape)
    return out


def _is_fraction(finer: tuple[int, ...], coarser: tuple[int, ...]) -> bool:
    factors = [max(1, round(a / max(1, b))) for a, b in zip(finer, coarser, strict=True)]
    return all(
        b in (a // f, -(-a // f)) and b for a, b, f in zip(finer, coarser, factors, strict=True)
    )


def restored_attributes(
    picture: ImageFile, axes: str, shapes: Sequence[tuple[int, ...]], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Attributes of the group of a restored image.

    Parameters
    ----------
    picture : ImageFile
        The original. Of an OME-Zarr, everything that its attributes say is kept.
    axes : str
        Axes as they are stored; S is the axis of colors.
    shapes : sequence of tuple
        Of all levels, in the order of ``axes``.
    provenance : mapping
        How the result was made.
    """
    kept = picture.extras.get("ngff", {})
    version = version_of(picture)
    if kept and kept["letters"] == axes.replace("S", "C"):
        described, scale, shift = kept["axes"], kept["scale"], kept["translation"]
    else:
        sizes = in_ngff(picture.pixel_size)
        described = [_axis(letter, sizes) for letter in axes]
        scale = [sizes.get(letter, (1.0, ""))[0] for letter in axes]
        shift = [0.0] * len(axes)
    datasets = []
    for level, shape in enumerate(shapes):
        factor = np.asarray([round(a / b) for a, b in zip(shapes[0], shape, strict=True)], float)
        # The middle of the first coarse pixel is the middle of those that it is the mean of.
        place = np.asarray(shift) + np.asarray(scale) * (factor - 1) / 2
        steps: list[dict[str, Any]] = [
            {"type": "scale", "scale": (np.asarray(scale) * factor).tolist()}
        ]
        if place.any():
            steps.append({"type": "translation", "translation": place.tolist()})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    entry = {"name": kept.get("name") or picture.path.name.split(".")[0], "axes": described}
    entry |= {"datasets": datasets, "type": "mean"}
    ome: dict[str, Any] = dict(kept.get("ome", {}))
    omero = _omero(picture, axes, provenance.get("scales", ()))
    if omero and "omero" not in ome:
        ome["omero"] = omero
    other = dict(kept.get("other", {})) | {"napari_restore": dict(provenance)}
    if version == "0.4":
        return ome | other | {"multiscales": [{"version": version, **entry}]}
    return other | {"ome": ome | {"version": version, "multiscales": [entry]}}


def version_of(picture: ImageFile) -> str:
    """Version of the result: 0.4 for an image of 0.4 or before, else 0.5."""
    kept = picture.extras.get("ngff", {})
    return "0.4" if kept and kept["zarr_format"] == 2 else "0.5"


def _axis(letter: str, sizes: Mapping[str, tuple[float, str]]) -> dict[str, str]:
    axis = {"name": "c" if letter == "S" else letter.lower()}
    kind = _TYPES.get("C" if letter == "S" else letter)
    if kind:
        axis["type"] = kind
    unit = ngff_name(sizes[letter][1]) if letter in sizes else None
    if unit:
        axis["unit"] = unit
    return axis


def _omero(picture: ImageFile, axes: str, scales: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Names, colors and ranges of channels, where the original names them."""
    given = picture.axes or ""
    count = max(len(picture.channels), len(picture.colors))
    if count != (picture.data.shape[given.index("C")] if "C" in given else 1):
        count = 0  # the user named other axes than the file
    labels = picture.channels[:count] or [f"Channel {number}" for number in range(count)]
    colors = picture.colors[:count] or ["FFFFFF"] * count
    if "S" in axes:
        count = picture.data.shape[given.index("S")]
        labels = list("RGBA")[:count]
        colors = ["FF0000", "00FF00", "0000FF", "FFFFFF"][:count]
    dtype = np.dtype(picture.data.dtype)
    channels = []
    for number, (label, color) in enumerate(zip(labels, colors, strict=True)):
        # What was black and white for the network is a good range to look at.
        start, end = scales[min(number, len(scales) - 1)] if scales else (0.0, 1.0)
        limits = (start, end)
        if dtype.kind in "iu":
            limits = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
        window = {"min": limits[0], "max": limits[1], "start": start, "end": end}
        channels.append({"label": label, "color": color, "active": True, "window": window})
    return {"channels": channels, "rdefs": {"model": "color"}} if channels else {}
