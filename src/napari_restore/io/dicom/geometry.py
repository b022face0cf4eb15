"""Frames of DICOM files in space: their order, their distance, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError

from .dataset import frame_count, functional, numbers, value_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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
        Why the slices are not evenly spaced, for people; empty if they are.
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
    position = _vectors(frames, "PlanePositionSequence", "ImagePositionPatient", 3)
    direction = _vectors(frames, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
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


def _vectors(
    frames: list[tuple[Any, int]], sequence: str, keyword: str, length: int
) -> NDArray[np.float64] | None:
    found = [numbers(functional(*frame, sequence, keyword), length) for frame in frames]
    return None if None in found else np.array(found)


def _check_directions(direction: NDArray[np.float64], paths: list[Path]) -> None:
    other = np.abs(direction - direction[0]).max(axis=1) > _SAME_DIRECTION
    if other.any():
        raise FileError(
            f"The slices of the series do not lie in one direction: {np.count_nonzero(other)} of "
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
        "The files do not say where their slices lie; they are taken in the order of their numbers."
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
            f"At {depth[starts[crowded]]:.2f} mm lie {counts[crowded]} slices of the series ("
            f"{', '.join(paths[i].name for i in there[:4])}), at "
            f"{depth[starts[counts.argmin()]]:.2f} mm {counts.min()}. Take the surplus files out "
            "of the folder, or name the files to restore each by itself."
        )
    if repeats > 1:
        order = np.array(arrangement.order).reshape(-1, repeats).T
        arrangement.order = order.ravel().tolist()
        arrangement.notes.append(
            f"Every place has {repeats} slices (times, echoes or the like): they are taken for "
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
    arrangement.uneven = (
        f"Slices are {what}: {steps[place]:.4g} mm {between}, {step:.4g} mm elsewhere"
        f"{f' ({wrong.size} such places)' if wrong.size > 1 else ''}."
    )
    arrangement.notes.append(arrangement.uneven)


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
_CENTIMETRES = 3  # the code of physical units in ultrasound


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
        notes.append(f"Its PixelSpacing is '{shown}', which is no two sizes: it is not used.")
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
        if units == [_CENTIMETRES] * 2 and all(steps):
            found.add(tuple(abs(step[0]) * 10 for step in steps if step))
    if len(found) > 1:
        notes.append("Its regions have pixels of different sizes: the size is not used.")
    if len(found) != 1:
        return {}
    return _both(list(found.pop()))
