"""Read OME-Zarr (NGFF 0.1 to 0.5) and plain zarr arrays, lazily."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

from . import ngff
from .image_file import ImageFile
from .stored import StoredArray

if TYPE_CHECKING:
    from pathlib import Path

#: Files that tell a folder of zarr from others.
_MARKS = ("zarr.json", ".zgroup", ".zarray")
#: Names that are listed in a message.
_NAMED = 6


def is_zarr(path: Path) -> bool:
    """Whether a path names a zarr group or array, there or to be."""
    return path.suffix.lower() == ".zarr" or is_zarr_folder(path)


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: Path) -> ImageFile:
    """Read the full size of an OME-Zarr image, or a plain zarr array, lazily.

    Parameters
    ----------
    path : Path
        Its folder.

    Returns
    -------
    ImageFile
        ``data`` is read in parts. ``extras["ngff"]`` holds what the attributes say: ``axes``,
        ``letters``, ``scale`` and ``translation`` of the full size, ``shapes`` of all levels,
        ``name``, ``ome`` and ``other`` (all other attributes), ``provenance`` of an image that was
        restored, and ``zarr_format``.

    Raises
    ------
    FileError
        If there is no image in it: it says what there is, and what to name instead.
    """
    import zarr

    try:
        found = zarr.open(path, mode="r")
    # zarr raises whatever a damaged store makes it stumble over.
    except Exception as error:
        raise FileError(f"The folder cannot be read as zarr: {error or repr(error)}.") from error
    if isinstance(found, zarr.Array):
        return _bare(path, found)
    attributes: dict[str, Any] = found.attrs.asdict()
    ome = dict(attributes["ome"]) if "ome" in attributes else attributes
    try:
        if not ome.get("multiscales"):
            raise FileError(_what_is_there(path, found, ome))
        return _read(path, found, attributes, ome)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"The metadata of the OME-Zarr are damaged: {error!r}.") from error


def _bare(path: Path, array: Any) -> ImageFile:
    """Take an array without a group, which may name its axes."""
    attributes = array.attrs.asdict()
    names = getattr(array.metadata, "dimension_names", None) or attributes.pop(
        "_ARRAY_DIMENSIONS", None
    )
    axes = ngff.letters_of(names) if names and all(names) else ""
    picture = ImageFile(path, StoredArray(array), None, "zarr")
    named = [letter for letter in axes if letter != "Q"]
    if {"Y", "X"} <= set(named) and len(axes) == array.ndim and len(set(named)) == len(named):
        picture.axes = axes
    if attributes:
        names = ", ".join(f"'{name}'" for name in list(attributes)[:_NAMED])
        picture.notes.append(f"The attributes of the zarr array are not carried over: {names}.")
    return picture


def _read(path: Path, group: Any, attributes: dict[str, Any], ome: dict[str, Any]) -> ImageFile:
    if "image-label" in ome:
        raise FileError("It holds labels, which are no intensities. Name the image itself.")
    notes = []
    entries = ome["multiscales"]
    if len(entries) > 1:
        notes.append(f"The group holds {len(entries)} multiscale images; the first is restored.")
    entry = entries[0]
    levels = [group[dataset["path"]] for dataset in entry["datasets"]]
    data = StoredArray(levels[0])
    # Before 0.3 there were always five.
    axes = list(entry.get("axes") or "tczyx")
    if len(axes) != data.ndim:
        raise FileError(f"Its metadata name {len(axes)} axes; the array has shape {data.shape}.")
    letters = ngff.letters_of(axes)
    scale, shift = ngff.transform_of(entry, 0, data.ndim)
    sizes = ngff.pixel_size(axes, letters, scale)
    color = "C" in letters and ngff.is_color(ome.get("omero") or {}, data.shape[letters.index("C")])
    if "labels" in group:
        notes.append("The labels of the OME-Zarr are not carried over.")
    described = [dict(axis) if isinstance(axis, dict) else {"name": axis} for axis in axes]
    for axis, letter in zip(described, letters, strict=True):
        if letter in "TCZYX":
            axis.setdefault("type", {"T": "time", "C": "channel"}.get(letter, "space"))
    for at, step in enumerate(scale):
        if not math.isfinite(step) or step == 0 or not math.isfinite(shift[at]):
            notes.append(f"The scale along {letters[at]} is given as {step}, which is no size.")
            scale[at], shift[at] = 1.0, 0.0
            described[at].pop("unit", None)
    kept = {"multiscales", "bioformats2raw.layout", "version"}
    inner = {key: value for key, value in ome.items() if key not in kept and key != "ome"}
    nested = "ome" in attributes
    extras = {
        "axes": described,
        "letters": letters,
        "scale": scale,
        "translation": shift,
        "shapes": [level.shape for level in levels],
        "name": entry.get("name"),
        "ome": inner if nested else {key: inner[key] for key in ("omero",) if key in inner},
        "other": {key: value for key, value in (attributes if nested else inner).items()
                  if key not in ("ome", "omero", "napari_restore")},
        "provenance": attributes.get("napari_restore", {}),
        "zarr_format": group.metadata.zarr_format,
    }  # fmt: skip
    omero = ome.get("omero") or {}
    channels = [str(channel.get("label", "")) for channel in omero.get("channels") or []]
    return ImageFile(
        path,
        data,
        letters.replace("C", "S") if color else letters,
        "zarr",
        color,
        extras={"ngff": extras},
        pixel_size=sizes,
        notes=notes,
        channels=channels if any(channels) else [],
        colors=[] if color else ngff.colors_of(omero),
        said=ngff.said(extras, omero, sizes),
    )


def _what_is_there(path: Path, group: Any, ome: dict[str, Any]) -> str:
    """Why there is no image in a group, and what to name instead."""
    if "plate" in ome:
        wells = [well["path"] for well in ome["plate"].get("wells", [])]
        example = f"{path / wells[0]}/0" if wells else f"{path}/A/1/0"
        return f"It is a plate of {len(wells)} wells. Name one image of it, for example {example}."
    if "well" in ome:
        images = [image["path"] for image in ome["well"].get("images", [])]
        return f"It is a well with {len(images)} images. Name one: {_listed(path, images)}."
    groups, arrays = sorted(name for name, _ in group.groups()), sorted(group.array_keys())
    if "bioformats2raw.layout" in ome:
        images = [name for name in groups if name != "OME"]
        return f"It is a collection of {len(images)} images. Name one: {_listed(path, images)}."
    if groups or arrays:
        return (
            "It is a zarr group without an image (no 'multiscales' in its attributes). Name what "
            f"is in it: {_listed(path, arrays + groups)}."
        )
    return "It is an empty zarr group."


def _listed(path: Path, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(str(path / name) for name in names[:_NAMED]) + more
