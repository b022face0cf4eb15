"""DICOM: a file, or the files of a folder that make up a series, read and written as one image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_restore.errors import FileError

from .image_file import ImageFile, RescaleTransform, as_dtype, integer_dtype
from .libraries import medical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


#: float32 tells so many steps of the stored integers apart, with bits to spare for rounding.
_STEPS = 2**20


def read_dicom(path: Path, series: str | None = None) -> ImageFile:
    """Read a DICOM file, or the files of a series from a folder.

    Parameters
    ----------
    path : Path
        A file, with one frame or several, or a folder.
    series : str, optional
        SeriesNumber or SeriesInstanceUID of the series, where the folder holds several.

    Returns
    -------
    ImageFile
        Single-channel samples are floats in the units of the image (slope and intercept, of each
        slice, applied), NaN where pixels are padding, and have the opposite sign where low values
        are shown bright. Colors are RGB. Slices are sorted along their normal. ``extras`` holds
        ``files`` and ``storages`` in the order of the slices, ``affine`` (see `Arrangement`),
        ``uneven``, ``low_is_bright`` (MONOCHROME1) and ``depth``, words for the stored integers.

    Raises
    ------
    FileError
        If it is damaged, or holds no image or several.
    """
    notes: list[str] = []
    with pydicom_speaks(notes):
        paths = dicom_files(path) if path.is_dir() else [path]
        if path.is_dir():
            look_at_others(path, paths, notes)
        headers = [open_dataset(file, pixels=False) for file in paths]
        if path.is_dir():
            look_at_imageless(paths, headers, notes)
            paths, headers = _one_series(paths, headers, series)
        storages = [
            _storage(header, file, path) for header, file in zip(headers, paths, strict=True)
        ]
        _check_alike(headers, paths)
        arrangement = arrange(headers, paths)
        order = arrangement.order
        files = [paths[i] for i in order]
        storages = [storages[i] for i in order]
        data = read_frames(files, storages, _float_dtype(storages))
    head = headers[0]
    color = is_color(head)
    notes += arrangement.notes
    if "ModalityLUTSequence" in head:
        notes.append("Its values are indices into a table (modality LUT): restored as such.")
    axes = arrangement.axes + "S" * color
    shape = (*arrangement.shape, *data.shape[1:])
    extras = {
        "files": files,
        "storages": storages,
        "affine": arrangement.affine,
        "uneven": arrangement.uneven,
        "low_is_bright": head.PhotometricInterpretation == "MONOCHROME1",
        "depth": f"{storages[0].bits} bits",
    }
    picture = ImageFile(path, data.reshape(shape), axes, "dicom", color, extras=extras)
    picture.pixel_size, picture.notes = arrangement.sizes, list(dict.fromkeys(notes))
    if not color:
        _add_units(picture, extras["low_is_bright"])
    return picture


def _storage(header: Any, file: Path, given: Path) -> Storage:
    try:
        return storage_of(header)
    except FileError as error:
        if file == given:
            raise
        raise FileError(f"{file.name}: {error}") from error


def _one_series(
    paths: list[Path], headers: list[Any], wanted: str | None
) -> tuple[list[Path], list[Any]]:
    """Files of the one series in a folder that is meant; those without an image do not count."""
    groups: dict[str, list[int]] = {}
    for i, header in enumerate(headers):
        if "Rows" in header:
            groups.setdefault(str(header.get("SeriesInstanceUID")), []).append(i)
    names = {
        uid: f"number {headers[group[0]].get('SeriesNumber')} "
        f"'{headers[group[0]].get('SeriesDescription', '')}' "
        f"({headers[group[0]].get('Modality')}, {len(group)} files, such as "
        f"{paths[group[0]].name}; {uid})"
        for uid, group in groups.items()
    }
    chosen = [
        group
        for uid, group in groups.items()
        if wanted in (None, uid, str(headers[group[0]].get("SeriesNumber")))
    ]
    if not groups:
        raise FileError("None of the DICOM files in the folder holds an image.")
    if len(chosen) != 1:
        say = f"{len(chosen)} are series '{wanted}'. " if wanted is not None else ""
        raise FileError(
            f"The folder holds {len(groups)} series: {'; '.join(names.values())}. {say}Choose one "
            "with --series and its number or UID, or put each into a folder of its own."
        )
    return [paths[i] for i in chosen[0]], [headers[i] for i in chosen[0]]


def _check_alike(headers: list[Any], paths: list[Path]) -> None:
    if len(headers) == 1:
        return
    first = headers[0]
    seen: dict[str, Path] = {}
    for header, path in zip(headers, paths, strict=True):
        if frame_count(header) > 1:
            raise FileError(
                f"The series has {len(headers)} files, and {path.name} alone holds "
                f"{frame_count(header)} frames. Restore the files by themselves: name them, not "
                "the folder."
            )
        for keyword in ("Rows", "Columns", "PhotometricInterpretation", "BitsAllocated"):
            if header.get(keyword) != first.get(keyword):
                raise FileError(
                    f"The files of the series are of different kinds: {keyword} is "
                    f"{first.get(keyword)} in {paths[0].name}, {header.get(keyword)} in "
                    f"{path.name}. Restore the files by themselves: name them, not the folder."
                )
        uid = str(header.get("SOPInstanceUID"))
        if uid in seen:
            raise FileError(
                f"{seen[uid].name} and {path.name} are the same image (SOPInstanceUID {uid}). "
                "Remove one of them from the folder."
            )
        seen[uid] = path


def _float_dtype(storages: list[Storage]) -> np.dtype[Any]:
    """Floats that bring every stored integer back exactly."""
    steps = max(
        float(np.max((np.abs(s.intercept) + 2.0**s.bits * np.abs(s.slope)) / np.abs(s.slope)))
        for s in storages
    )
    return np.dtype(np.float32 if steps <= _STEPS else np.float64)


def read_frames(
    files: list[Path], storages: list[Storage], dtype: np.dtype[Any], *, gaps: bool = True
) -> NDArray[Any]:
    """Decode files of one kind one after the other.

    Parameters
    ----------
    files : list of Path
    storages : list of Storage
    dtype : dtype
        Of single-channel samples.
    gaps : bool
        Whether padding becomes NaN.

    Returns
    -------
    ndarray
        (frames, Y, X) in the units of the image, or (frames, Y, X, 3) RGB.
    """
    out, start = None, 0
    total = sum(len(storage.slope) for storage in storages)
    for file, storage in zip(files, storages, strict=True):
        dataset = open_dataset(file)
        words = decoded(dataset, file)
        color = is_color(dataset)
        if out is None:
            out = np.empty((total, *words.shape[1:]), words.dtype if color else dtype)
        for frame, plane in enumerate(words, start):
            if color:
                out[frame] = plane
                continue
            stored = storage.stored(plane)
            out[frame] = storage.samples(stored, frame - start)
            if gaps:
                out[frame][storage.gaps(stored)] = np.nan
        start += len(words)
    return cast("NDArray[Any]", out)


def _add_units(picture: ImageFile, inverse: bool) -> None:
    """Say what range the samples have, and what they are as plain numbers."""
    storages: list[Storage] = picture.extras["storages"]
    slope = np.concatenate([storage.slope for storage in storages])
    intercept = np.concatenate([storage.intercept for storage in storages])
    frames = [storage for storage in storages for _ in storage.slope]
    ends = np.array([storage.range for storage in frames]) * slope[:, None] + intercept[:, None]
    low, high, slack = ends.min(axis=1), ends.max(axis=1), np.abs(slope) / 2
    sign = -1 if inverse else 1
    whole = bool((slope == np.rint(slope)).all() and (intercept == np.rint(intercept)).all())
    dtype = integer_dtype((sign * ends).min(), (sign * ends).max(), whole) or picture.data.dtype
    files = picture.extras["files"]

    def fit(data: NDArray[Any]) -> int:
        """Clip to the stored range; half a step beyond is rounded, not clipped."""
        clipped = 0
        for number, index in enumerate(np.ndindex(data.shape[:-2])):
            plane, room = data[index], slack[number]
            clipped += int(
                np.count_nonzero((plane < low[number] - room) | (plane > high[number] + room))
            )
            np.clip(plane, low[number], high[number], out=plane)
        return clipped

    def convert(data: NDArray[Any]) -> NDArray[Any]:
        gaps = np.isnan(data)
        if gaps.any():
            before = read_frames(files, storages, data.dtype, gaps=False).reshape(data.shape)
            data = np.where(gaps, before, data)
        return as_dtype(sign * data, dtype)

    picture.fit, picture.plain = fit, RescaleTransform(np.dtype(dtype), convert)


@contextmanager
def pydicom_speaks(notes: list[str]) -> Iterator[None]:
    """Collect the warnings of pydicom and of `value_of`, one of each kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = " ".join(str(warning.message).split())
        if text not in notes:
            notes.append(text)


# ---------------------------------------------------------------- files in a folder

#: Endings of other images, which may be part of what is meant.
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".zarr", ".nii", ".gz")
#: Files that belong to a medium or a file manager.
_NO_SLICES = ("DICOMDIR", "Thumbs.db", "desktop.ini")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by what it says after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files that lie directly in a folder, by name; hidden files are left out."""
    return sorted(_dicom_in(folder))


def holds_dicom(folder: Path) -> bool:
    """Whether `dicom_files` would find one; opens no more files than needed."""
    return next(_dicom_in(folder), None) is not None


def _dicom_in(folder: Path) -> Iterator[Path]:
    found = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    # The directory of a medium says nothing about pixels.
    return (path for path in found if path.name != "DICOMDIR" and is_dicom(path))


def look_at_others(folder: Path, paths: list[Path], notes: list[str]) -> None:
    """Refuse damaged slices and other images beside a series; note what else is there."""
    found = set(paths)
    others = sorted(
        path
        for path in folder.iterdir()
        if path not in found and path.name[0] != "." and path.name not in _NO_SLICES
    )
    for path in others:
        if path.is_file() and (path.suffix.lower() == ".dcm" or not path.stat().st_size):
            what = "not DICOM (it lacks the mark DICM)" if path.stat().st_size else "empty"
            raise FileError(
                f"{path.name} is {what}, and may be a damaged slice. Repair it, or remove it from "
                "the folder."
            )
        if path.suffix.lower() in _IMAGES:
            raise FileError(
                f"The folder holds a DICOM series and other images, such as {path.name}. Put them "
                "into folders of their own."
            )
    files = [path.name for path in others if path.is_file()]
    if files:
        notes.append(
            f"{len(files)} files of the folder are not DICOM and were left out, such as {files[0]}."
        )


def look_at_imageless(paths: list[Path], headers: list[Any], notes: list[str]) -> None:
    """Note reports and the like, which hold no image; refuse slices that have lost theirs."""
    images = [header for header in headers if "Rows" in header]
    without = [(p, h) for p, h in zip(paths, headers, strict=True) if "Rows" not in h]
    for path, header in without:
        if not _says_other(header, images):
            raise FileError(
                f"{path.name} does not give the number of rows of its image, and may be a damaged "
                "slice. Repair it, or remove it from the folder."
            )
    if without:
        notes.append(f"{len(without)} DICOM files without an image were left out.")


def _says_other(header: Any, images: list[Any]) -> bool:
    """Whether a file says in full that it is of another kind than all images."""
    told = ("Modality", "SOPClassUID")
    return all(keyword in header for keyword in told) and any(
        header.get(keyword) not in [image.get(keyword) for image in images] for keyword in told
    )


#: Difference of direction cosines, and share of the distance of slices, that rounding explains.
_SAME_DIRECTION, _SAME_STEP = 1e-3, 0.05


@dataclass
class Arrangement:
    """How frames make up an image.

    Attributes
    ----------
    order : list of int
        Position of each file among those given.
    axes : str
        Of the image, with Y and X, without S.
    shape : tuple of int
        Of the axes before the plane.
    sizes : mapping
        Size of a step along axes with its unit.
    affine : ndarray or None
        (4, 4): from column, row and slice to millimeters toward left, posterior and head; None
        if the files do not say or no such matrix exists.
    uneven : str
        Why the slices make no volume, for people; empty if they do.
    notes : list of str
    """

    order: list[int]
    axes: str = "YX"
    shape: tuple[int, ...] = ()
    sizes: dict[str, tuple[float, str]] = field(default_factory=dict)
    affine: NDArray[np.float64] | None = None
    uneven: str = ""
    notes: list[str] = field(default_factory=list)


def arrange(headers: list[Any], paths: list[Path]) -> Arrangement:
    """Find the order of the frames of one series, or of one file.

    Parameters
    ----------
    headers : list of Dataset
        All of one size.
    paths : list of Path
        Their files, for messages.

    Raises
    ------
    FileError
        If the slices do not lie in one direction, or some places occur more often than others.
    """
    frames = [(header, i) for header in headers for i in range(frame_count(header))]
    arrangement = Arrangement(list(range(len(headers))))
    arrangement.sizes = pixel_spacing(headers[0], arrangement.notes)
    _check_spacing(arrangement, frames, paths)
    notes = arrangement.notes
    position = _vectors(frames, "PlanePositionSequence", "ImagePositionPatient", 3, notes)
    direction = _vectors(frames, "PlaneOrientationSequence", "ImageOrientationPatient", 6, notes)
    if len(headers) > 1 and direction is not None:
        _check_directions(direction, paths)
    if (
        position is not None
        and direction is not None
        and np.ptp(direction, axis=0).max() <= _SAME_DIRECTION
    ):
        _by_place(arrangement, position, direction[0], headers, paths)
    elif len(frames) > 1:
        _by_number(arrangement, headers, len(frames))
    if len(frames) == 1:
        arrangement.axes, arrangement.shape = "YX", ()
    return arrangement


def _check_spacing(
    arrangement: Arrangement, frames: list[tuple[Any, int]], paths: list[Path]
) -> None:
    """Slices whose pixels differ in size make no volume, and have no size in common."""
    given = [
        numbers(functional(*frame, "PixelMeasuresSequence", "PixelSpacing"), 2) or [0.0, 0.0]
        for frame in frames
    ]
    other = ~np.isclose(given, given[0], rtol=_SAME_DIRECTION, atol=0).all(axis=1)
    if not other.any():
        return
    place = int(other.argmax())
    first, second = (
        f"{given[i][0]:g} × {given[i][1]:g} mm" if min(given[i]) > 0 else "not given"
        for i in (0, place)
    )
    names = [path.name for path in paths] if len(paths) == len(frames) else []
    one, two = (names[0], names[place]) if names else ("frame 1", f"frame {place + 1}")
    arrangement.uneven = (
        f"Pixels do not have one size: PixelSpacing is {first} in {one}, {second} in {two}."
    )
    arrangement.notes.append(arrangement.uneven)
    arrangement.sizes = {}


def _vectors(
    frames: list[tuple[Any, int]], sequence: str, keyword: str, length: int, notes: list[str]
) -> NDArray[np.float64] | None:
    given = [functional(*frame, sequence, keyword) for frame in frames]
    found = [numbers(each, length) for each in given]
    wrong = [each for each, vector in zip(given, found, strict=True) if each and not vector]
    if wrong:
        notes.append(
            f"Its {keyword} is '{_shown(wrong[0])}', which is not {length} numbers, so it is not "
            "used."
        )
    return None if None in found else np.array(found)


def _check_directions(direction: NDArray[np.float64], paths: list[Path]) -> None:
    other = np.abs(direction - direction[0]).max(axis=1) > _SAME_DIRECTION
    if other.any():
        raise FileError(
            f"The slices of the series do not have one orientation: {np.count_nonzero(other)} of "
            f"{len(paths)}, such as {paths[int(other.argmax())].name}, are turned against "
            f"{paths[0].name}. Restore the files by themselves: name them, not the folder."
        )


def _by_number(arrangement: Arrangement, headers: list[Any], frames: int) -> None:
    """Frames without a place: in the order of their numbers, along time if they are a cine."""
    first = headers[0]
    arrangement.shape = (frames,)
    if len(headers) == 1:
        interval = numbers(value_of(first, "FrameTime"), 1)
        cine = any(value_of(first, key) for key in ("FrameTime", "FrameTimeVector", "CineRate"))
        arrangement.axes = "TYX" if cine else "QYX"
        if interval and interval[0] > 0:
            arrangement.sizes["T"] = (interval[0], "ms")
        return
    arrangement.axes = "QYX"
    counted = [numbers(value_of(header, "InstanceNumber"), 1) for header in headers]
    ranks = [number[0] for number in counted if number]
    if len(set(ranks)) == len(headers):
        arrangement.order.sort(key=lambda i: ranks[i])
    arrangement.notes.append(
        "The files do not give the positions of their slices; the slices are read in the order of "
        "their numbers."
    )


def _by_place(
    arrangement: Arrangement,
    position: NDArray[np.float64],
    direction: NDArray[np.float64],
    headers: list[Any],
    paths: list[Path],
) -> None:
    normal = np.cross(direction[:3], direction[3:])
    depth = position @ normal
    ranks = [(numbers(value_of(h, "InstanceNumber"), 1) or [0.0])[0] for h in headers]
    if len(headers) > 1:
        arrangement.order.sort(key=lambda i: (round(float(depth[i]), 2), ranks[i]))
        depth, position = depth[arrangement.order], position[arrangement.order]
    elif depth[-1] < depth[0]:
        depth = -depth  # the frames of one file keep their order
    starts = np.flatnonzero(np.diff(depth, prepend=depth[0] - 1e3) > 0.01)
    counts = np.diff(starts, append=len(depth))
    if len(headers) == 1 and len(starts) != len(depth):
        # Frames of one place, or not in order: not for a sort to decide.
        _by_number(arrangement, headers, len(depth))
        return
    repeats = int(counts[0])
    if counts.min() != counts.max():
        crowded = int(counts.argmax())
        there = arrangement.order[starts[crowded] : starts[crowded] + counts[crowded]]
        raise FileError(
            f"At {depth[starts[crowded]]:.2f} mm lie {counts[crowded]} slices of the series "
            f"({', '.join(paths[i].name for i in there[:4])}), at "
            f"{depth[starts[counts.argmin()]]:.2f} mm {counts.min()}. Remove the surplus files "
            "from the folder, or name the files to restore each by itself."
        )
    if repeats > 1:
        order = np.array(arrangement.order).reshape(-1, repeats).T
        arrangement.order = order.ravel().tolist()
        arrangement.notes.append(
            f"Every place has {repeats} slices (times, echoes or the like): they are read as "
            f"{repeats} volumes, in the order of their numbers."
        )
    depth, position = depth[::repeats], position[::repeats]
    volumes = (repeats,) if repeats > 1 else ()
    arrangement.axes, arrangement.shape = "Q" * len(volumes) + "ZYX", (*volumes, len(depth))
    names = [paths[i].name for i in arrangement.order] if len(headers) > 1 else []
    _measure(arrangement, depth, position, direction, names)
    if len(depth) == 1:
        header = headers[0]
        given = (value_of(header, key) for key in ("SpacingBetweenSlices", "SliceThickness"))
        thick = next((abs(found[0]) for each in given if (found := numbers(each, 1))), 0.0)
        _place(arrangement, position[0], direction, normal * (thick or 1))


def _measure(
    arrangement: Arrangement,
    depth: NDArray[np.float64],
    position: NDArray[np.float64],
    direction: NDArray[np.float64],
    names: list[str],
) -> None:
    if len(depth) < 2:
        return
    steps = np.diff(depth)
    step = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - step) > max(_SAME_STEP * step, 0.01))
    if not wrong.size:
        arrangement.sizes["Z"] = (round(step, 6), "mm")
        _place(arrangement, position[0], direction, (position[-1] - position[0]) / len(steps))
        return
    place = int(wrong[0])
    between = f"between {names[place]} and {names[place + 1]}" if names else f"at frame {place + 1}"
    missing = steps[place] / step
    guess = round(missing) - 1 if abs(missing - round(missing)) < _SAME_STEP * missing else 0
    what = f"{guess} missing" if guess > 0 else "unevenly spaced"
    where = (
        f"Slices are {what}: {steps[place]:.4g} mm {between}, {step:.4g} mm elsewhere"
        f"{f' ({wrong.size} such places)' if wrong.size > 1 else ''}."
    )
    arrangement.uneven = f"{arrangement.uneven} {where}".lstrip()
    arrangement.notes.append(where)


def _place(
    arrangement: Arrangement,
    origin: NDArray[np.float64],
    direction: NDArray[np.float64],
    step: NDArray[np.float64],
) -> None:
    if "X" not in arrangement.sizes:
        return
    affine = np.eye(4)
    affine[:3, 0] = direction[:3] * arrangement.sizes["X"][0]
    affine[:3, 1] = direction[3:] * arrangement.sizes["Y"][0]
    affine[:3, 2], affine[:3, 3] = step, origin
    arrangement.affine = affine


# ---------------------------------------------------------------- the size of a pixel

#: Where the size is that at a detector or of a film, and not in the body.
_OUTSIDE = {
    "ImagerPixelSpacing": "at the detector",
    "NominalScannedPixelSpacing": "on the film that was scanned",
}
_CENTIMETERS = 3  # the code of physical units in ultrasound


def pixel_spacing(header: Any, notes: list[str]) -> dict[str, tuple[float, str]]:
    """Find the size of a pixel along Y and X, in millimeters.

    Parameters
    ----------
    header : Dataset
    notes : list of str
        Gets words for a size that is not one in the body, or that cannot be read.

    Returns
    -------
    dict
        Axis to (size, unit); empty if the file does not say.
    """
    given = functional(header, 0, "PixelMeasuresSequence", "PixelSpacing")
    sizes, shown = _both(given), _shown(given)
    if given is not None and not sizes:
        notes.append(f"Its PixelSpacing is '{shown}', which is not two sizes, so it is not used.")
    elif "," in shown:
        notes.append(f"Its PixelSpacing is '{shown}', read as {sizes['Y'][0]:g} mm.")
    for keyword, where in _OUTSIDE.items():
        if sizes:
            break
        sizes = _both(value_of(header, keyword))
        if sizes:
            notes.append(
                f"Its pixel spacing, {sizes['Y'][0]:g} mm, is that {where} ({keyword}), not in "
                "the body."
            )
    return sizes or _of_ultrasound(header, notes)


def _both(value: Any) -> dict[str, tuple[float, str]]:
    found = numbers(value, 2)
    if found is None or min(found) <= 0:
        return {}
    return {"Y": (found[0], "mm"), "X": (found[1], "mm")}


def _shown(value: Any) -> str:
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    return "\\".join(str(each) for each in value) if several else str(value)


def _of_ultrasound(header: Any, notes: list[str]) -> dict[str, tuple[float, str]]:
    """Size in the regions of an ultrasound image, where all have the same."""
    found = set()
    for region in value_of(header, "SequenceOfUltrasoundRegions") or []:
        steps = [numbers(value_of(region, f"PhysicalDelta{axis}"), 1) for axis in "YX"]
        units = [value_of(region, f"PhysicalUnits{axis}Direction") for axis in "YX"]
        if units == [_CENTIMETERS] * 2 and all(steps):
            found.add(tuple(abs(step[0]) * 10 for step in steps if step))
    if len(found) > 1:
        notes.append("Its regions have pixels of different sizes: the size is not used.")
    if len(found) != 1:
        return {}
    return _both(list(found.pop()))


def value_of(dataset: Any, keyword: str) -> Any:
    """Look a value up; None where it is missing, empty, or, with a warning, cannot be decoded."""
    try:
        value = dataset.get(keyword)
    except Exception as error:
        # pydicom decodes when asked; a sloppy value can make it raise any error. Where nothing can
        # be done without the value, `unreadable` tells it from one that is missing.
        why = " ".join(str(error).split()) or repr(error)
        warnings.warn(f"Its {keyword} cannot be decoded ({why}), so it is not used.", stacklevel=2)
        return None
    return None if value in ("", []) else value


def unreadable(dataset: Any, keyword: str) -> bool:
    """Whether a header says something that cannot be decoded."""
    if keyword not in dataset or value_of(dataset, keyword) is not None:
        return False
    raw = dataset.get_item(keyword).value
    return raw is not None and bool(len(raw))


def numbers(value: Any, count: int) -> list[float] | None:
    """Read finite numbers, also with a decimal comma; None unless there are ``count``."""
    if isinstance(value, str):
        value = value.split("\\")
    values = list(value) if isinstance(value, Iterable) else [value]
    try:
        found = [float(str(each).strip().replace(",", ".")) for each in values]
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def functional(dataset: Any, frame: int, sequence: str, keyword: str) -> Any:
    """Look up what holds for a frame: its own group, the group of all frames, the file itself."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = value_of(dataset, groups) or []
        number = frame if groups.startswith("Per") else 0
        inner = value_of(items[number], sequence) if number < len(items) else None
        if inner and value_of(inner[0], keyword) is not None:
            return value_of(inner[0], keyword)
    return value_of(dataset, keyword)


# ---------------------------------------------------------------- pixels

#: Kinds of images that restoration makes no sense of.
_NO_IMAGES = {"RTDOSE": "a dose distribution", "SEG": "a segmentation"}


def open_dataset(path: Path, *, pixels: bool = True) -> Any:
    """Read a DICOM file, or its header alone.

    Raises
    ------
    FileError
        If it is damaged or no DICOM.
    """
    pydicom = medical("pydicom")
    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except pydicom.errors.InvalidDicomError as error:
        raise FileError(
            f"{path.name} cannot be read as DICOM: it lacks the mark DICM after 128 bytes."
        ) from error
    # A damaged file can make pydicom raise any error.
    except Exception as error:
        raise FileError(f"{path.name} cannot be read as DICOM: {error or repr(error)}.") from error


@dataclass(frozen=True)
class Storage:
    """How the words of one file hold samples: sample = slope · stored + intercept.

    Attributes
    ----------
    bits : int
        Bits of a stored integer, the rest of the word being something else.
    shift : int
        Bits below them.
    signed : bool
    slope, intercept : ndarray
        For each frame. Both have the opposite sign where low values are shown bright (MONOCHROME1),
        so that bright is bright.
    padding : (int, int) or None
        Stored integers that mark pixels without a value.
    """

    bits: int
    shift: int
    signed: bool
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    padding: tuple[int, int] | None

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest stored integer."""
        return (
            (-(1 << self.bits - 1), (1 << self.bits - 1) - 1)
            if self.signed
            else (
                0,
                (1 << self.bits) - 1,
            )
        )

    def stored(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Take the stored integers out of words."""
        values: NDArray[np.int64] = (words.astype(np.int64) >> self.shift) & ((1 << self.bits) - 1)
        if self.signed:
            sign = 1 << self.bits - 1
            values = (values ^ sign) - sign
        return values

    def words(self, stored: NDArray[np.int64], before: NDArray[Any]) -> NDArray[Any]:
        """Put stored integers into words; what else was in the words (overlays) stays there."""

        def extended(values: NDArray[np.int64]) -> NDArray[Any]:
            return (values << self.shift).astype(before.dtype)

        after: NDArray[Any] = extended(stored) ^ before ^ extended(self.stored(before))
        return after

    def gaps(self, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where pixels have no value."""
        if self.padding is None:
            return np.zeros(stored.shape, bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])

    def samples(self, stored: NDArray[np.int64], frame: int) -> NDArray[np.float64]:
        """Find the samples of a frame in the units of the image."""
        found: NDArray[np.float64] = stored * self.slope[frame] + self.intercept[frame]
        return found

    def rounded(
        self, samples: NDArray[Any], frame: int, before: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Find the stored integers of restored samples, NaN being what was there before."""
        low, high = self.range
        wide = samples.astype(np.float64)
        values = np.rint((wide - self.intercept[frame]) / self.slope[frame])
        gaps = np.isnan(values)
        new = np.where(gaps, before, np.clip(np.where(gaps, 0, values), low, high).astype(np.int64))
        if self.padding is not None:
            # A restored value must not turn into the mark of a pixel without one.
            free = self.padding[1] + 1 if self.padding[1] < high else self.padding[0] - 1
            new = np.where(self.gaps(new) & ~gaps, free, new)
        return new


def is_color(dataset: Any) -> bool:
    """Whether the pixels become RGB."""
    palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    return palette or int(dataset.get("SamplesPerPixel") or 1) == 3


def frame_count(dataset: Any) -> int:
    """Frames of a file; 1 where it does not say."""
    given = value_of(dataset, "NumberOfFrames")
    found = [1.0] if given is None else numbers(given, 1)
    if unreadable(dataset, "NumberOfFrames") or not found or found[0] < 1 or found[0] % 1:
        raise FileError(
            f"Its NumberOfFrames is '{given}', which is not a count. Repair the header."
        )
    return int(found[0])


def storage_of(dataset: Any) -> Storage:
    """Read from a header how samples are stored.

    Raises
    ------
    FileError
        If the file holds no image, or the header contradicts itself.
    """
    _refuse(dataset)
    count = frame_count(dataset)
    group = "PixelValueTransformationSequence"
    slope, intercept = (
        np.array([_number(dataset, i, group, f"Rescale{word}", 1.0 - n) for i in range(count)])
        for n, word in enumerate(("Slope", "Intercept"))
    )
    if not (np.isfinite(slope) & (slope != 0) & np.isfinite(intercept)).all():
        raise FileError(
            f"Its RescaleSlope is {slope.min():g}, its RescaleIntercept {intercept.min():g}: the "
            "values have no meaning. Repair the header first."
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        slope, intercept = -slope, -intercept
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    shift = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    if not (0 < bits <= allocated and 0 <= shift <= allocated - bits):
        raise FileError(
            f"BitsAllocated {allocated}, BitsStored {bits} and HighBit {shift + bits - 1} "
            "contradict each other. Repair the header first."
        )
    if is_color(dataset) and bits != allocated:
        raise FileError(
            f"Its colors have {bits} bits in words of {allocated}. Convert them to 8 or 16 bits."
        )
    signed = bool(dataset.get("PixelRepresentation", 0))
    padding = None if is_color(dataset) else _padding(dataset, signed, allocated)
    return Storage(bits, shift, signed, slope, intercept, padding)


def _number(dataset: Any, frame: int, sequence: str, keyword: str, default: float) -> float:
    value = functional(dataset, frame, sequence, keyword)
    if value is None:
        if unreadable(dataset, keyword):
            raise FileError(f"Its {keyword} cannot be read. Repair the header first.")
        return default
    try:
        # No decimal comma here: who knows whether -1,024 is a thousand or one.
        return float(value)
    except (TypeError, ValueError):
        raise FileError(
            f"Its {keyword} is '{value}', which is not a number. Repair the header first."
        ) from None


def _padding(dataset: Any, signed: bool, allocated: int) -> tuple[int, int] | None:
    values = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    ends = [value for value in values if isinstance(value, int)]
    # Some files write a signed value as if it were unsigned, and the other way round.
    if signed:
        ends = [end - (1 << allocated) if end >= 1 << allocated - 1 else end for end in ends]
    else:
        ends = [end + (1 << allocated) if end < 0 else end for end in ends]
    return (min(ends), max(ends)) if isinstance(values[0], int) else None


def _refuse(dataset: Any) -> None:
    if "Rows" not in dataset or "PhotometricInterpretation" not in dataset:
        uid = dataset.get("SOPClassUID")
        raise FileError(
            f"The file holds no image, but {getattr(uid, 'name', None) or 'something else'}. Give "
            "the images."
        )
    for keyword in ("Columns", "BitsAllocated", "BitsStored"):
        if not isinstance(value_of(dataset, keyword), int):
            raise FileError(
                f"Its header lacks {keyword}, or the value there is not a number. Samples that are "
                "floats (parametric maps) are not read; convert them to NIfTI or TIFF."
            )
    modality = dataset.get("Modality")
    if modality in _NO_IMAGES or dataset.get("BitsAllocated") not in (8, 16, 32):
        what = _NO_IMAGES.get(str(modality)) or f"{dataset.get('BitsAllocated')}-bit words"
        raise FileError(f"The file holds {what}, which has no intensities to restore.")
    kinds = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB")
    kind = dataset.PhotometricInterpretation
    if kind not in kinds and not kind.startswith("YBR_"):
        raise FileError(
            f"Its samples are stored as {kind}, which are not intensities. Convert it to RGB or "
            "MONOCHROME2."
        )


def decoded(dataset: Any, path: Path) -> NDArray[Any]:
    """Decode the pixels of a file.

    Parameters
    ----------
    dataset : Dataset
        With its pixels.
    path : Path
        For messages.

    Returns
    -------
    ndarray
        (frames, Y, X) unsigned words, or (frames, Y, X, 3) RGB.

    Raises
    ------
    FileError
        If the pixels are damaged, or need a decoder that is missing.
    """
    pixels, color = medical("pydicom.pixels"), is_color(dataset)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        # The unused bits of a word are needed to write it again.
        options = {} if color else {"raw": True, "correct_unused_bits": False}
        array = np.asarray(pixels.pixel_array(dataset, **options))
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = pixels.apply_color_lut(array, dataset)
    # A damaged file can make pydicom and the decoders raise any error.
    except Exception as error:
        said = " ".join(str(error).split())
        remedy = ""
        if getattr(syntax, "is_compressed", False) and syntax.is_encapsulated:
            remedy = (
                " Decoders for more kinds of JPEG come with 'pip install pylibjpeg[all]'; or "
                "decompress the files first, for example with 'gdcmconv --raw'."
            )
        raise FileError(f"The pixels of {path.name} cannot be decoded: {said}.{remedy}") from error
    if frame_count(dataset) == 1 and array.ndim == 2 + color:
        array = array[None]
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native if color else native.view(f"u{native.dtype.itemsize}")


#: Group of the private block that holds the provenance; its creator is "napari-restore".
PRIVATE_GROUP = 0x0071
_DONE = {
    "deblur": "deblurred",
    "dehaze": "dehazed",
    "motion_deblur": "motion deblurred",
    "denoise": "denoised",
}
#: What says something about the old pixels alone, or about how they were encoded.
_STALE = (
    *("SmallestImagePixelValue", "LargestImagePixelValue"),
    *("SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"),
    *("DigitalSignaturesSequence", "MACParametersSequence"),
)
_PALETTE = ("Red", "Green", "Blue", "Alpha")


def check_dicom(picture: ImageFile) -> None:
    """Raise a `FileError` unless the result can become DICOM."""
    if picture.format != "dicom":
        raise FileError("Only DICOM images can become DICOM. Name the result .tif.")


def is_our_dicom(path: Path) -> bool:
    """Whether a file was written by `write_dicom`."""
    dataset = medical("pydicom").dcmread(path, stop_before_pixels=True)
    dataset.private_block(PRIVATE_GROUP, "napari-restore")
    return True


def write_dicom(path: Path, data: NDArray[Any], picture: ImageFile, provenance: str) -> None:
    """Write a DICOM file, or the files of a series into a folder.

    Headers are kept, but for identity, encoding and what says how the image came about. Pixels are
    stored uncompressed.

    Parameters
    ----------
    path : Path
        File, or folder to make if ``picture.path`` is one.
    data : ndarray
        Restored samples, like ``picture.data``.
    picture : ImageFile
        The original, from `read_dicom`. Its files are read again.
    provenance : str
        JSON in ASCII.
    """
    pydicom = medical("pydicom")
    if picture.path.is_dir():
        path.mkdir()
    series = pydicom.uid.generate_uid(None)
    planes = data.reshape(-1, *picture.data.shape[-3 if picture.color else -2 :])
    start = 0
    with pydicom_speaks([]):  # what there is to say was said when it was read
        for file, storage in zip(picture.extras["files"], picture.extras["storages"], strict=True):
            dataset = open_dataset(file)
            frames = planes[start : start + frame_count(dataset)]
            start += len(frames)
            _set_pixels(dataset, frames, storage, file)
            target = path / file.name if picture.path.is_dir() else path
            try:
                _derive(dataset, series, provenance)
                pydicom.dcmwrite(target, dataset, enforce_file_format=True)
            # What pydicom raises for headers that break the rules.
            except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
                raise FileError(
                    f"{file.name} has a header that cannot be written again: {error}. Name the "
                    "result .tif."
                ) from error


def _set_pixels(dataset: Any, frames: NDArray[Any], storage: Storage, path: Path) -> None:
    uid = medical("pydicom.uid")
    if is_color(dataset):
        words = frames
        dataset.PhotometricInterpretation = "RGB"
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        bits = 8 * words.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
        for color in _PALETTE:
            for keyword in ("Descriptor", "Data"):
                _drop(dataset, f"{color}PaletteColorLookupTable{keyword}")
        _drop(dataset, "PaletteColorLookupTableUID")
    else:
        words = decoded(dataset, path)
        for frame, samples in enumerate(frames):
            before = words[frame].copy()
            stored = storage.rounded(samples, frame, storage.stored(before))
            words[frame] = storage.words(stored, before)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.file_meta.TransferSyntaxUID = syntax = uid.ExplicitVRLittleEndian
    raw = words.astype(words.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    for keyword in _STALE:
        _drop(dataset, keyword)
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    # Bytes, so that nothing swaps them where words are big-endian.
    one = words.dtype.itemsize == 1 and not syntax.is_implicit_VR
    dataset["PixelData"].VR = "OB" if one else "OW"
    dataset["PixelData"].is_undefined_length = False


def _derive(dataset: Any, series: str, provenance: str) -> None:
    """Make the header that of a derived image, with a new identity."""
    pydicom = medical("pydicom")
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID = dataset.SOPClassUID
    source.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SourceImageSequence = [source, *(dataset.get("SourceImageSequence") or [])]
    dataset.SOPInstanceUID = pydicom.uid.generate_uid(None)
    dataset.SeriesInstanceUID = series
    kinds = dataset.get("ImageType") or []
    kept = [kinds] if isinstance(kinds, str) else list(kinds)
    dataset.ImageType = ["DERIVED", "SECONDARY", *kept[2:]]
    for element in list(dataset.iterall()):
        if element.keyword == "FrameType" and element.VM > 1:
            element.value = ["DERIVED", *list(element.value)[1:]]
    record = json.loads(provenance)
    now = datetime.now()
    dataset.InstanceCreationDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = now.strftime("%H%M%S")
    done = f" [{_DONE.get(record['task'], record['task'])}]"
    name = str(dataset.get("SeriesDescription") or "")
    dataset.SeriesDescription = (name[: 64 - len(done)] + done).strip()
    version = record.get("versions", {}).get("napari-restore", "")
    model = Path(str(record.get("model"))).name.encode("ascii", "replace").decode()
    text = (
        f"napari-restore {version}: {record['task']} with model {model}, weights "
        f"{str(record.get('weights_sha256'))[:12]}, strength {record.get('strength')}"
    )
    earlier = str(dataset.get("DerivationDescription") or "")
    dataset.DerivationDescription = (f"{earlier}; " if earlier else "")[: 1024 - len(text)] + text
    block = dataset.private_block(PRIVATE_GROUP, "napari-restore", create=True)
    block.add_new(0x01, "UT", provenance)


def _drop(dataset: Any, keyword: str) -> None:
    if keyword in dataset:
        del dataset[keyword]
