"""What a file says and a result cannot hold: kept, or named in a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conversion import plain_form
from .formats import file_format
from .image_file import stored_axes
from .photo_writer import unheld_by_photo
from .tiff_tags import names_of
from .tiff_writer import flavor_of

if TYPE_CHECKING:
    from pathlib import Path

    from .image_file import ImageFile

#: Names in `ImageFile.said` that the formats hold, beside those of images of their own kind.
HELD = {
    "tiff": {"ICC profile", "XMP", "comment", "that zero is white"},
}
#: Names that are listed in one note.
_NAMED = 12


def losses(target: Path, picture: ImageFile) -> list[str]:
    """Name what a result cannot hold of what its original says.

    Parameters
    ----------
    target : Path
        Name of the result.
    picture : ImageFile
        The original; its axes are named.

    Returns
    -------
    list of str
        Whole sentences; none if nothing is lost.
    """
    kind, flavor = file_format(target, picture), ""
    if kind == "tiff":
        axes, form = picture.axes or "", plain_form(picture, target)
        order = "".join(axes[axis] for axis in stored_axes(axes))
        flavor = flavor_of(target.name, form, order, form.data.nbytes)
    photo = kind in ("png", "jpeg")
    same = kind == picture.format and flavor in ("", picture.extras.get("flavor"))
    if same and not photo:
        return []
    flavor = flavor or kind
    held, notes = HELD.get(kind, set()), []
    lost = [] if same else _common(picture, flavor)
    if kind == picture.format == "tiff":
        held = held | set(names_of(picture.extras["tags"]))
        lost += ["tags and descriptions of single pages"] if picture.extras.get("pages") else []
    if photo:
        lost += unheld_by_photo(kind, picture)
    else:
        lost += [name for name in picture.said if name not in held]
    if picture.extras.get("inverted") is not None and picture.plain is None and kind != "tiff":
        notes.append(f"Zero is white in the file; {_NAMES[flavor]} holds what is seen, inverted.")
    if not lost:
        return notes
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    named = ", ".join(lost[:_NAMED])
    return [*notes, f"{_NAMES[flavor]} does not hold, and the result lacks: {named}{more}."]


_NAMES = {
    **{
        "tiff": "TIFF",
        "ome": "OME-TIFF",
        "imagej": "ImageJ's TIFF",
        "plain": "Plain TIFF",
    },
    **{
        "shaped": "Plain TIFF",
        "zarr": "OME-Zarr",
        "png": "PNG",
        "jpeg": "JPEG",
        "npy": "NPY",
    },
    **{"nifti": "NIfTI", "dicom": "DICOM"},
}


def _common(picture: ImageFile, flavor: str) -> list[str]:
    """Names of what all formats have a field for in `ImageFile`, and this one has no place for."""
    lost = []
    physical = flavor in ("ome", "zarr", "nifti", "dicom")
    if picture.pixel_size and not physical:
        sizes = (f"{axis} {size:.4g} {unit}" for axis, (size, unit) in picture.pixel_size.items())
        lost.append(f"pixel size ({', '.join(sizes)})")
    if picture.dpi and flavor not in ("ome", "plain", "shaped", "imagej", "png", "jpeg"):
        lost.append(f"resolution ({picture.dpi[0]:.4g} dpi)")
    if any(picture.channels) and flavor not in ("ome", "zarr"):
        lost.append("names of channels")
    if picture.colors and flavor not in ("ome", "zarr"):
        lost.append("colors of channels")
    if picture.format in ("nifti", "dicom") and flavor != "nifti":
        lost.append(f"header of {_NAMES[picture.format]}")
    return lost
