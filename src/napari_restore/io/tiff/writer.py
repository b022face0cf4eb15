"""Write TIFF files that say what the original said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from napari_restore.errors import FileError
from napari_restore.image.layout import invert
from napari_restore.io.image_file import ALL, ordered_axes, stored_order, with_alpha
from napari_restore.runtime import installed_version

from . import imagej, ome
from .tags import names_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_restore.io.image_file import ImageFile

#: Bytes of samples that a classic TIFF holds beside its tags; more needs BigTIFF.
CLASSIC_BYTES = 2**32 - 2**25

#: Side of the tiles of a file that is written tile by tile, in pixels.
TILE = 512
#: Stands for the provenance until all samples are written.
_LATER = "napari-restore: unfinished"

_OME_DTYPES = "bool int8 int16 int32 uint8 uint16 uint32 float32 float64".split()


@dataclass
class Tiles:
    """Samples that are written tile by tile, as they are made.

    Attributes
    ----------
    shape : tuple of int
        Of the whole array.
    axes : str
        Of it; the last are YX or YXS.
    dtype : dtype
    tiles : iterator of ndarray
        (`TILE`, `TILE`) or (`TILE`, `TILE`, S), less at the ends: plane by plane, row by row.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    tiles: Iterator[NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


#: Kinds of TIFF: what notes call them, and what they hold, see `Format`.
FLAVORS = {
    "ome": ("OME-TIFF", frozenset({"sizes", "resolution", "channels", "inversion"})),
    "imagej": ("ImageJ's TIFF", frozenset({"resolution", "inversion"})),
    "shaped": ("Plain TIFF", frozenset({"resolution", "inversion"})),
    "plain": ("Plain TIFF", frozenset({"resolution", "inversion"})),
}
#: Names in `ImageFile.said` that every TIFF holds.
_HELD = {"ICC profile", "XMP", "comment", "that zero is white"}


def flavor_of(name: str, picture: ImageFile) -> str:
    """Which kind of TIFF the result becomes, a key of `FLAVORS`.

    Parameters
    ----------
    name : str
        File name of the result.
    picture : ImageFile
    """
    if name.lower().endswith((".ome.tif", ".ome.tiff")):
        return "ome"
    axes = picture.axes or ""
    flavor = picture.extras.get("flavor", "plain") if picture.format == "tiff" else "plain"
    named = len(set(axes)) == len(axes) and set(axes) <= set("TZCYXS")
    if named and (picture.format == "zarr" or (flavor == "plain" and picture.pixel_size)):
        # Both keep the names of axes, and OME the pixel sizes along all of them.
        return "ome" if picture.data.dtype.name in _OME_DTYPES else "shaped"
    if flavor == "imagej" and not set(axes) <= set("TZCYXS"):
        return "shaped"
    if flavor == "imagej" and picture.data.nbytes > CLASSIC_BYTES:
        return "ome"  # ImageJ's own TIFF ends at 4 GB
    if flavor == "plain" and (set(axes) & set("TZC") or len(axes.replace("S", "")) > 3):
        return "shaped"  # bare pages have but one axis, without a name
    return str(flavor)


def keeps_calibration(name: str, picture: ImageFile) -> bool:
    """Whether a result holds samples as they are stored in a TIFF, with what says what they mean.

    Only ImageJ calibrates samples in TIFF.
    """
    return picture.plain is None or flavor_of(name, picture) == "imagej"


def form_of_tiff(name: str, picture: ImageFile) -> tuple[str, frozenset[str]]:
    """Say what notes call a result, and what it holds."""
    flavor = flavor_of(name, picture)
    label, held = FLAVORS[flavor]
    same = picture.format == "tiff" and picture.extras["flavor"] == flavor
    return label, ALL if same else held


def unheld_by_tiff(name: str, picture: ImageFile) -> list[str]:
    """Name what `write_tiff` leaves out of what the original says."""
    if picture.format != "tiff":
        return [word for word in picture.said if word not in _HELD]
    if flavor_of(name, picture) == picture.extras["flavor"]:
        return []
    held = _HELD | set(names_of(picture.extras["tags"]))
    lost = ["tags and descriptions of single pages"] if picture.extras.get("pages") else []
    return lost + [word for word in picture.said if word not in held]


def can_be_tiled(name: str, picture: ImageFile) -> bool:
    """Whether `write_tiff` can write a result tile by tile.

    ImageJ's own TIFF is one piece, booleans are packed by the row, and alpha is joined at last.
    """
    boolean = picture.data.dtype == bool
    return flavor_of(name, picture) != "imagej" and not boolean and picture.alpha is None


def is_our_tiff(path: Path) -> bool:
    """Whether a file was written by `write_tiff`."""
    with tifffile.TiffFile(path) as tif:
        return "napari-restore " in str(tif.pages.first.tags["Software"].value)


def check_tiff(name: str, picture: ImageFile) -> None:
    """Raise a `FileError` if TIFF, or this kind of TIFF, cannot hold the image."""
    data, axes = picture.data, ordered_axes(picture)
    if data.size == 0:
        raise FileError(
            f"TIFF cannot hold an empty image (shape {data.shape}). Name the result .npy."
        )
    if data.dtype.kind == "f" and data.dtype.itemsize > 8:
        raise FileError(f"TIFF cannot hold {data.dtype} samples. Name the result .npy.")
    if flavor_of(name, picture) != "ome":
        return
    if data.dtype.name not in _OME_DTYPES:
        raise FileError(
            f"OME-TIFF cannot hold {data.dtype} samples. Name the result .npy, or .tif without "
            ".ome."
        )
    unknown = set(axes) - set("TZCYXS") or len(set(axes)) != len(axes)
    if unknown and picture.extras.get("flavor") != "ome":
        raise FileError(
            f"OME-TIFF names its axes T, Z and C; those of this image are '{axes}' (Q: unknown). "
            "Give them with --axes, for example ZYX, or name the result .tif without .ome."
        )


def write_tiff(
    path: Path,
    name: str,
    data: NDArray[Any] | Tiles,
    picture: ImageFile,
    provenance: str = _LATER,
) -> None:
    """Write a TIFF file.

    Parameters
    ----------
    path : Path
        Where to write.
    name : str
        The name that the file gets at last; ``.ome.tif`` asks for OME.
    data : ndarray or Tiles
        Restored samples, like ``picture.data``; tiles are in an order of their own.
    picture : ImageFile
        The original.
    provenance : str
        JSON in ASCII. It goes into the Software tag, and where people look for such things: a
        comment annotation of OME, the Info of ImageJ. What is not known beforehand is left to
        `add_provenance`.
    """
    if isinstance(data, Tiles):
        axes = data.axes
    else:
        data, axes = with_alpha(*stored_order(data, picture.axes or ""), picture)
    flavor = flavor_of(name, picture)
    extras = picture.extras if picture.format == "tiff" else {}
    options = _storage(data, axes, extras, picture)
    options["software"] = f"napari-restore {installed_version()} {provenance}"
    if flavor == "imagej" and isinstance(data, np.ndarray):
        data, options["metadata"] = imagej.restored_metadata(
            data, axes, extras["imagej"], provenance
        )
        options |= {"imagej": True, "compression": None, "bigtiff": False}
    elif flavor == "ome" and extras.get("flavor") == "ome" and set(axes) <= set("TZCYXS"):
        of_planes = [n for n, letter in zip(data.shape, axes, strict=True) if letter not in "YXS"]
        planes = int(np.prod(of_planes, dtype=np.int64))
        bits = None
        if "SignificantBits" in extras["xml"]:
            held = 1 if data.dtype == bool else 8 * data.dtype.itemsize
            bits = held if picture.top is None else picture.top.bit_length()
        xml = ome.restored_document(extras["xml"], axes, planes, provenance, bits)
        options |= {"description": xml.encode(), "metadata": None, "ome": False, "shaped": False}
    elif flavor == "ome":
        comment = {"Namespace": ome.PROVENANCE, "Value": provenance}
        options["metadata"] = {
            "axes": axes,
            # Not every file name is text.
            "Name": picture.path.stem.encode("utf-8", "replace").decode(),
            "Description": picture.said.get("comment"),
            **ome.attributes(picture.pixel_size),
            "CommentAnnotation": comment,
        }
        options["metadata"] |= _channels(data.shape, axes, picture)
        options["ome"] = True
    else:
        options |= {"ome": False, "description": picture.said.get("comment", "").encode() or None}
        kept = {
            k: v for k, v in extras.get("shaped", {}).items() if k not in ("shape", "truncated")
        }
        options["metadata"] = None if flavor == "plain" else kept | {"axes": axes}
    top = extras.get("inverted")
    samples: Any = data if top is None or isinstance(data, Tiles) else invert(data, top)
    if isinstance(data, Tiles):
        samples = data.tiles if top is None else (invert(tile, top) for tile in data.tiles)
        options |= {"shape": data.shape, "dtype": data.dtype, "tile": (TILE, TILE)}
    pages = extras.get("pages", ())
    try:
        if pages and flavor == "plain" and isinstance(data, np.ndarray):
            _write_pages(path, samples, axes, pages, options)
        else:
            tifffile.imwrite(path, samples, **options)
    except (ValueError, tifffile.OmeXmlError) as error:
        raise FileError(f"The result cannot be written as TIFF: {error}. Name it .npy.") from error


def _write_pages(
    path: Path,
    data: NDArray[Any],
    axes: str,
    pages: Sequence[tuple[str, list[Any]]],
    options: dict[str, Any],
) -> None:
    """Write pages that have descriptions and tags of their own."""
    plane = 3 if "S" in axes else 2
    planes = data.reshape(-1, *data.shape[data.ndim - plane :])
    common = [tag for tag in options["extratags"] or () if tag[0] in (274, 700)]
    of_file = {key: options.pop(key) for key in ("bigtiff", "ome")}
    with tifffile.TiffWriter(path, **of_file) as writer:
        for samples, (description, tags) in zip(planes, pages, strict=True):
            own = options | {"extratags": [*common, *tags] or None, "contiguous": False}
            writer.write(samples, **own | {"description": description.encode() or None})


def _channels(shape: tuple[int, ...], axes: str, picture: ImageFile) -> dict[str, Any]:
    """Names and colors of channels, as tifffile takes them for OME."""
    count = shape[axes.index("C")] if "C" in axes else 1
    found: dict[str, Any] = {}
    if len(picture.channels) == count:
        found["Name"] = picture.channels
    if len(picture.colors) == count:
        found["Color"] = [ome.color_number(color) for color in picture.colors]
    return {"Channel": found} if found and "S" not in axes else {}


def add_provenance(path: Path, provenance: str) -> None:
    """Say in a TIFF file how it was made, where `write_tiff` left that open."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        tags = tif.pages.first.tags
        software = tags["Software"].value.replace(_LATER, provenance)
        tags["Software"].overwrite(software)
        if tif.is_ome:
            text = tags["ImageDescription"].value.replace(_LATER, escape(provenance))
            tags["ImageDescription"].overwrite(text.encode())


def _storage(
    data: NDArray[Any] | Tiles, axes: str, extras: dict[str, Any], picture: ImageFile
) -> dict[str, Any]:
    """Arguments of `tifffile.imwrite` about samples and tags."""
    samples = data.shape[axes.index("S")] if "S" in axes else 1
    # Also of more samples than three, which are restored each by itself, three are colors.
    rgb = picture.color or extras.get("photometric") == tifffile.PHOTOMETRIC.RGB
    colors = 3 if rgb and samples > 2 else 1
    photometric = "rgb" if colors == 3 else "minisblack"
    if colors == 1 and extras.get("colormap") is not None and data.dtype.kind == "u":
        photometric = "palette"
    elif colors == 1 and extras.get("photometric") == tifffile.PHOTOMETRIC.MINISWHITE:
        photometric = "miniswhite"
    tags = list(extras.get("tags", ()))
    if picture.orientation != 1:
        tags.append((274, 3, 1, picture.orientation, False))
    if xmp := picture.said.get("XMP"):
        tags.append((700, 1, len(xmp), xmp, True))
    planar = {"YXS": "contig", "SYX": "separate"}
    options: dict[str, Any] = {
        "photometric": photometric,
        "planarconfig": next((planar[p] for p in planar if axes.endswith(p)), None),
        "bigtiff": data.nbytes > CLASSIC_BYTES,
        "compression": "zlib" if extras.get("compressed") else None,
        "iccprofile": picture.said.get("ICC profile"),
        "extratags": tags or None,
    }
    if photometric == "palette":
        options["colormap"] = extras["colormap"]
    if samples > colors:
        kinds = extras.get("extrasamples", ())
        alpha = picture.alpha is not None or (picture.color and samples == 4)
        if len(kinds) != samples - colors:
            kinds = (2 if alpha else 0,) * (samples - colors)
        options["extrasamples"] = [int(kind) for kind in kinds]
    if extras.get("resolution"):
        options |= {"resolution": extras["resolution"], "resolutionunit": extras["unit"]}
    elif picture.dpi:
        options |= {"resolution": picture.dpi, "resolutionunit": 2}
    return options
