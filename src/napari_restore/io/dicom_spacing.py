"""How large the pixels of a DICOM image are."""

from __future__ import annotations

from typing import Any

from .dicom_values import functional, numbers, value_of

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
