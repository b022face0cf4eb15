"""Read OME-Zarr (NGFF 0.1 to 0.5) and plain zarr arrays lazily; write OME-Zarr block by block."""

from __future__ import annotations

import itertools
import json
import math
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.layout import (
    Block,
    StoredArray,
    as_size,
    blocks,
    for_ngff,
    ngff_name,
    unit_along,
)
from napari_restore.image.pyramid import pyramid

from .image_file import ImageFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


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
    # A damaged store can make zarr raise any error.
    except Exception as error:
        raise FileError(f"The folder cannot be read as zarr: {error or repr(error)}.") from error
    if isinstance(found, zarr.Array):
        return _bare(path, found)
    attributes: dict[str, Any] = found.attrs.asdict()
    ome = dict(attributes["ome"] if "ome" in attributes else attributes)
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
    axes = letters_of(names) if names and all(names) else ""
    picture = ImageFile(path, StoredArray(array), None, "zarr")
    named = [letter for letter in axes if letter != "Q"]
    if {"Y", "X"} <= set(named) and len(axes) == array.ndim and len(set(named)) == len(named):
        picture.axes = axes
    if attributes:
        names = ", ".join(f"'{name}'" for name in list(attributes)[:_NAMED])
        picture.notes.append(f"The result lacks these attributes of the zarr array: {names}.")
    return picture


def _read(path: Path, group: Any, attributes: dict[str, Any], ome: dict[str, Any]) -> ImageFile:
    if "image-label" in ome:
        raise FileError("It holds labels, which are not intensities. Name the image itself.")
    notes = []
    entries = ome["multiscales"]
    if len(entries) > 1:
        notes.append(f"The group holds {len(entries)} multiscale images; the first is restored.")
    entry = entries[0]
    levels = [group[dataset["path"]] for dataset in entry["datasets"]]
    data = StoredArray(levels[0])
    # Before 0.3 there were always five.
    axes = list(entry.get("axes") or "tczyx")
    if not entry.get("axes") and data.ndim != len(axes):
        axes = [f"dim_{number}" for number in range(data.ndim - 2)] + ["y", "x"]
        notes.append("The OME-Zarr does not name its axes: the last two are taken for Y and X.")
    if len(axes) != data.ndim:
        raise FileError(f"Its metadata name {len(axes)} axes; the array has shape {data.shape}.")
    letters = letters_of(axes)
    scale, shift = transform_of(entry, 0, data.ndim)
    sizes = pixel_size(axes, letters, scale)
    omero = _omero_of(ome, notes)
    color = "C" in letters and is_color(omero, data.shape[letters.index("C")])
    notes += _beside(group, entry)
    described = [dict(axis) if isinstance(axis, dict) else {"name": axis} for axis in axes]
    for axis, letter in zip(described, letters, strict=True):
        if letter in "TCZYX":
            axis.setdefault("type", {"T": "time", "C": "channel"}.get(letter, "space"))
    for at, step in enumerate(scale):
        if not math.isfinite(step) or step == 0 or not math.isfinite(shift[at]):
            notes.append(f"The scale along {letters[at]} is given as {step}, which is not a size.")
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
        "entry": {key: value for key, value in entry.items() if key not in _OF_LEVELS},
        "other": {key: value for key, value in (attributes if nested else inner).items()
                  if key not in ("ome", "omero", "napari_restore")},
        "provenance": attributes.get("napari_restore", {}),
        "zarr_format": group.metadata.zarr_format,
    }  # fmt: skip
    channels = [str(channel.get("label") or "") for channel in omero.get("channels") or []]
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
        colors=[] if color else colors_of(omero),
        said=said(extras, omero, sizes),
    )


#: Keys of a multiscale image that are written anew.
_OF_LEVELS = {
    "axes",
    "datasets",
    "coordinateTransformations",
    "name",
    "version",
    "type",
    "metadata",
}


def _omero_of(ome: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """How the channels are shown; what is damaged is taken out of the metadata, and said."""
    omero = ome.get("omero") or {}
    channels = omero.get("channels") or [] if isinstance(omero, dict) else None
    if isinstance(channels, list) and all(isinstance(channel, dict) for channel in channels):
        return omero
    del ome["omero"]
    notes.append("What the OME-Zarr says about the channels ('omero') is damaged and was left out.")
    return {}


def _beside(group: Any, entry: Mapping[str, Any]) -> list[str]:
    """Name what a group holds, or says, beside its levels and attributes."""
    notes = []
    own = {str(dataset["path"]).strip("/").split("/")[0] for dataset in entry["datasets"]}
    others = sorted(set(group.keys()) - own - {"OME"})
    if "labels" in others:
        others.remove("labels")
        notes.append("The result lacks the labels of the OME-Zarr.")
    if others:
        listed = ", ".join(f"'{name}'" for name in others[:_NAMED])
        notes.append(f"The result lacks what else is in the OME-Zarr: {listed}.")
    if entry.get("metadata"):
        notes.append("The result lacks what the OME-Zarr says about how its levels were made.")
    return notes


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


# ---------------------------------------------------------------- writing

#: Side of the chunks in the plane, unless those of the original are kept.
CHUNK = 1024
#: Sides of an original's chunks in the plane that are kept, in pixels, and most samples of one.
_KEPT_SIDES, _KEPT_SAMPLES = (256, 2048), 2**24
#: Samples that one coarser block is the mean of, about.
_REDUCED = 2**21


def check_zarr(picture: ImageFile) -> None:
    """Raise a `FileError` if OME-Zarr cannot hold the image."""
    data = picture.data
    if data.size == 0:
        raise FileError(
            f"OME-Zarr of an empty image (shape {data.shape}) would have no levels. Name the "
            "result .npy."
        )
    if np.dtype(data.dtype).kind == "f" and data.dtype.itemsize > 8:
        raise FileError(f"OME-Zarr cannot hold {data.dtype} samples. Name the result .npy.")
    if picture.alpha is not None:
        raise FileError(
            "OME-Zarr has no place for the alpha of a gray image. Name the result .tif."
        )
    stored_order(picture.axes or "")


class OmeZarr:
    """An OME-Zarr image that is being written. It has no attributes before it is finished.

    Parameters
    ----------
    folder : Path
        Of the group.
    picture : ImageFile
        The original; its axes are named.

    Attributes
    ----------
    chunks : tuple of int
        Of the full size, for each axis of the original. Blocks that are written end at chunks.
    """

    def __init__(self, folder: Path, picture: ImageFile) -> None:
        self._folder, self._picture = folder, picture
        axes = picture.axes or ""
        self._order = stored_order(axes)
        self._axes = "".join(axes[axis] for axis in self._order)
        shape = tuple(int(picture.data.shape[axis]) for axis in self._order)
        original = picture.extras.get("ngff", {}).get("shapes", ())
        self._shapes = [shape, *level_shapes(shape, self._axes, original)]
        self.chunks = _chunks(picture, axes)
        self._levels: list[Any] = []

    def create(self) -> None:
        """Make the arrays of all levels, empty."""
        import zarr

        kind: Literal[2, 3] = 2 if version_of(self._picture) == "0.4" else 3
        group = zarr.create_group(self._folder, zarr_format=kind)
        # By its size: NumPy has two names for integers of 64 bits, of which zarr knows one.
        dtype = np.dtype(np.dtype(self._picture.data.dtype).newbyteorder("=").str)
        names = [name["name"] for name in self._described()]
        options: dict[str, Any] = (
            {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            if kind == 2
            else {"dimension_names": names}
        )
        chunks = [self.chunks[axis] for axis in self._order]
        for level, shape in enumerate(self._shapes):
            size = tuple(min(a, b) for a, b in zip(chunks, shape, strict=True))
            group.create_array(str(level), shape=shape, chunks=size, dtype=dtype, **options)

    def open(self) -> None:
        """Open the arrays to write to them."""
        import zarr

        group = zarr.open_group(self._folder, mode="r+")
        self._levels = [group[str(level)] for level in range(len(self._shapes))]

    def write(self, block: Block, data: NDArray[Any]) -> None:
        """Write a block of the full size; afterward it is on disk.

        Parameters
        ----------
        block : tuple of slice
            In the order of the original's axes.
        data : ndarray
        """
        place = tuple(block[axis] for axis in self._order)
        self._put(0, place, data.transpose(self._order))

    def coarser(self) -> Iterable[tuple[int, list[Block]]]:
        """Levels below the full size, finest first, and the blocks to `reduce` in each."""
        for level, shape in enumerate(self._shapes[1:], 1):
            finer = self._shapes[level - 1]
            factor = np.prod([round(a / b) for a, b in zip(finer, shape, strict=True)])
            step = list(self._levels[level].chunks)
            # Whole chunks, of as many columns as fit, then of as many rows.
            for axis in reversed(range(len(shape))):
                room = _REDUCED // int(factor * np.prod(step))
                step[axis] = min(shape[axis], step[axis] * max(1, room))
            yield level, blocks(shape, step)

    def reduce(self, level: int, block: Block) -> None:
        """Compute a block of a coarser level, the mean of the level above, and write it."""
        finer, coarser = self._levels[level - 1], self._levels[level]
        factors = [round(a / b) for a, b in zip(finer.shape, coarser.shape, strict=True)]
        above = tuple(
            slice(part.start * f, min(part.stop * f, length))
            for part, f, length in zip(block, factors, finer.shape, strict=True)
        )
        shape = tuple(part.stop - part.start for part in block)
        self._put(level, block, pyramid(finer[above], [shape])[-1])

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the attributes, with which the folder becomes an image."""
        import zarr

        # Through JSON, so that what NumPy made of a number is plain; JSON knows no infinity.
        attributes = json.loads(
            json.dumps(restored_attributes(self._picture, self._axes, self._shapes, provenance)),
            parse_constant=lambda _: None,
        )
        group = zarr.open_group(self._folder, mode="r+")
        group.attrs.update(attributes)
        _to_disk([path for path in self._folder.iterdir() if path.is_file()])

    def _described(self) -> list[dict[str, Any]]:
        attributes = restored_attributes(self._picture, self._axes, self._shapes, {})
        entry = attributes.get("ome", attributes)["multiscales"][0]
        axes: list[dict[str, Any]] = entry["axes"]
        return axes

    def _put(self, level: int, block: Block, data: NDArray[Any]) -> None:
        array = self._levels[level]
        array[block] = data
        numbers = (
            range(part.start // chunk, -(-part.stop // chunk))
            for part, chunk in zip(block, array.chunks, strict=True)
        )
        root = self._folder / str(level)
        files = [root / array.metadata.encode_chunk_key(at) for at in itertools.product(*numbers)]
        # Chunks of zeros alone are not stored.
        _to_disk([path for path in files if path.exists()])


def _chunks(picture: ImageFile, axes: str) -> tuple[int, ...]:
    own = getattr(picture.data, "chunks", None) if picture.format == "zarr" else None
    low, high = _KEPT_SIDES
    if own and int(np.prod(own)) <= _KEPT_SAMPLES:
        sides = [own[axes.index(letter)] for letter in "YX"]
        if all(low <= side <= high for side in sides):
            return tuple(int(n) for n in own)
    shape = picture.data.shape
    return tuple(min(CHUNK, shape[i]) if a in "YX" else 1 for i, a in enumerate(axes))


def _to_disk(paths: Iterable[Path]) -> None:
    """Wait until files and the folders that name them are on disk."""
    paths = list(paths)
    for path in [*paths, *{path.parent for path in paths}]:
        try:
            handle = os.open(path, os.O_RDONLY)
        except PermissionError:
            continue  # Windows does not open folders
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_zarr(folder: Path, data: NDArray[Any], picture: ImageFile, provenance: str) -> None:
    """Write a whole array as OME-Zarr.

    Parameters
    ----------
    folder : Path
        To be made.
    data : ndarray
        In the shape of ``picture.data``.
    picture : ImageFile
        The original; its axes are named.
    provenance : str
        JSON that says how the result was made.
    """
    image = OmeZarr(folder, picture)
    image.create()
    image.open()
    for block in blocks(data.shape, image.chunks):
        image.write(block, data[block])
    for level, todo in image.coarser():
        for block in todo:
            image.reduce(level, block)
    image.finish(json.loads(provenance))


def is_our_zarr(path: Path) -> bool:
    """Whether a group was written by `OmeZarr`."""
    group = path / "zarr.json"
    if group.is_file():
        attributes: Any = json.loads(group.read_text("utf-8")).get("attributes", {})
    else:
        attributes = json.loads((path / ".zattrs").read_text("utf-8"))
    return bool(attributes.get("napari_restore"))


# ---------------------------------------------------------------- metadata: NGFF 0.4 and 0.5

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
        named = zip(extras["letters"], extras["axes"], strict=True)
        units = dict.fromkeys(str(axis.get("unit") or "") for at, axis in named if at in bare)
        units.pop("", None)
        which = f"with the unit '{', '.join(units)}'" if units else "without a unit"
        out[f"scale along {', '.join(bare)} ({which})"] = extras["scale"]
    attributes = [*extras["ome"], *extras["other"]]
    return out | {
        f"attribute '{key}'": True for key in attributes if key not in ("omero", "version")
    }


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
    entry |= kept.get("entry", {}) | {"datasets": datasets, "type": "mean"}
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
