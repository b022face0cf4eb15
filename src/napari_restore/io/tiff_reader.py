"""Read TIFF files: OME, ImageJ and plain; memory-mapped or in parts, where that is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import PHOTOMETRIC, TiffFile

from napari_restore.errors import FileError

from . import imagej, ome, tiff_tags
from .image_file import ImageFile
from .measures import as_size, length_unit
from .stored import StoredArray
from .tiff_depth import find_depth
from .tiff_series import check_whole, main_image, opened, tifffile_speaks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Bytes above which samples are not decompressed into memory at once.
SCRATCH_BYTES = 2**30
#: Largest tile or strip, in bytes, of a file that is read in parts.
_SEGMENT_BYTES = 2**26

#: What tifffile says that is passed on, at most.
_MESSAGES = 5


def read_tiff(path: Path) -> ImageFile:
    """Read the first image of a TIFF file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ImageFile
        ``extras`` holds ``flavor`` ("ome", "imagej", "shaped" for files with tifffile's shape
        notes, "plain"), how the samples are stored, and the metadata of the flavor.

    Raises
    ------
    FileError
        If it is damaged or holds no image with intensities.
    """
    notes: list[str] = []
    messages: list[str] = []
    with tifffile_speaks(messages):
        try:
            with opened(path, notes) as tif:
                picture = _read(tif, path, notes, messages)
        except FileError:
            raise
        # tifffile raises whatever a damaged file makes it stumble over.
        except Exception as error:
            raise FileError(f"The file cannot be read as TIFF: {error or repr(error)}.") from error
    picture.notes += messages[:_MESSAGES]
    return picture


def _read(tif: TiffFile, path: Path, notes: list[str], messages: list[str]) -> ImageFile:
    series = main_image(tif, notes)
    page = series.keyframe
    if series.is_multifile or page.parent is not tif:
        raise FileError(
            "The file is one of several that hold one OME image. Save the image as one file, for "
            "example with Fiji, and restore that."
        )
    check_whole(tif, series, messages)
    if len(series.levels) > 1:
        notes.append("The file holds a pyramid; the result holds the full size alone.")
    extras, axes = _storage(page, series), series.axes
    document = None
    if tif.is_ome and series.kind == "ome":
        extras |= {"flavor": "ome", "xml": tif.ome_metadata}
        document = ome.facts(extras["xml"])
        if not set(axes) <= set("TZCYXS"):
            notes.append("Of the OME metadata, the result keeps axes and pixel sizes alone.")
    elif series.kind == "imagej":
        extras |= {"flavor": "imagej", "imagej": dict(tif.imagej_metadata or {})}
    elif series.kind == "shaped":
        kept = dict((tif.shaped_metadata or ({},))[0])
        extras |= {"flavor": "shaped", "shaped": kept}
    else:
        extras |= {"flavor": "plain"}
        if series.kind not in ("generic", "uniform"):
            notes.append(
                f"Of the {series.kind} metadata, the result keeps axes and pixel sizes alone."
            )
    picture = ImageFile(path, _samples(tif, series, path), axes, "tiff", extras=extras, notes=notes)
    picture.orientation = tiff_tags.orientation(page)
    tiff_tags.take_over(picture, page, extras["tags"])
    _interpret(picture, page)
    find_depth(picture, page, None if document is None else document.bits, SCRATCH_BYTES)
    if document is not None:
        _take_over_ome(picture, document)
    elif extras["flavor"] == "imagej":
        imagej.take_over(picture, extras["imagej"], extras["resolution"])
    elif series.kind in ("lsm", "stk"):
        picture.pixel_size = _sizes_of_microscope(tif)
    _find_dpi(picture)
    _look_at_other_pages(picture, series)
    return picture


def _take_over_ome(picture: ImageFile, document: ome.Facts) -> None:
    picture.pixel_size, axes = document.pixel_size, picture.axes or ""
    count = picture.data.shape[axes.index("C")] if "C" in axes else 1
    for name, found in (("channels", document.channels), ("colors", document.colors)):
        if len(found) == count and "S" not in axes:
            setattr(picture, name, found)
        elif found and name == "channels":
            picture.said["names of channels"] = found
    if document.comment:
        picture.said["comment"] = document.comment
    picture.said |= dict.fromkeys((f"{name} (OME)" for name in document.others), True)
    picture.notes += document.notes


def _sizes_of_microscope(tif: TiffFile) -> dict[str, tuple[float, str]]:
    """Pixel sizes of Zeiss (meters, seconds) and MetaMorph (micrometers, as a rule)."""
    found: dict[str, tuple[Any, str]] = {}
    if tif.is_lsm:
        meta = tif.lsm_metadata or {}
        found = {axis: (meta.get(f"VoxelSize{axis}"), "µm") for axis in "XYZ"}
        # In meters in the file.
        found = {axis: (1e6 * size, unit) for axis, (size, unit) in found.items() if size}
        found["T"] = (meta.get("TimeIntervall", meta.get("TimeInterval")), "s")
    elif tif.is_stk:
        stk = tif.stk_metadata or {}
        unit = length_unit(str(stk.get("CalibrationUnits", ""))) or ""
        if stk.get("SpatialCalibration") and unit:
            found = {axis: (stk.get(f"{axis}Calibration"), unit) for axis in "XY"}
    sizes = ((axis, as_size(size), unit) for axis, (size, unit) in found.items())
    return {axis: (size, unit) for axis, size, unit in sizes if size}


def _look_at_other_pages(picture: ImageFile, series: Any) -> None:
    """Keep the tags of pages that have their own, or say which are lost."""
    pages = tiff_tags.differing(series)
    if not pages:
        return
    extras = picture.extras
    if extras["flavor"] == "plain" and len(pages) == len(series.pages):
        extras["pages"] = pages
        return
    first = {code: (count, value) for code, _, count, value, _ in pages[0][1]}
    differ = {
        code
        for _, tags in pages[1:]
        for code, _, count, value, _ in tags
        if first.get(code) != (count, value)
    }
    names = [tiff_tags.name_of(code) for code in sorted(differ)]
    if extras["flavor"] == "plain" and any(text != pages[0][0] for text, _ in pages):
        names.append("descriptions of pages")
    if names:
        picture.notes.append(
            f"The result has these tags of the first page alone: {', '.join(names)}."
        )


def _samples(tif: TiffFile, series: Any, path: Path) -> Any:
    if series.dataoffset is not None and series.nbytes:
        dtype = np.dtype(tif.byteorder + series.dtype.char)
        return np.memmap(path, dtype, "r", series.dataoffset, series.shape)
    if series.nbytes > SCRATCH_BYTES and not _has_alpha_or_palette(series):
        import zarr

        # The full size of a pyramid, tile by tile or strip by strip.
        lazy = zarr.open(series.aszarr(level=0), mode="r")
        segment = np.prod(lazy.chunks) * lazy.dtype.itemsize if isinstance(lazy, zarr.Array) else 0
        if 0 < segment <= _SEGMENT_BYTES:
            return StoredArray(lazy)
    out = "memmap" if series.nbytes > SCRATCH_BYTES else None
    data: NDArray[Any] = series.asarray(out=out)
    return data


def _has_alpha_or_palette(series: Any) -> bool:
    """Whether the samples are not restored as the file holds them."""
    page = series.keyframe
    gray_and_alpha = page.photometric != PHOTOMETRIC.RGB and bool(page.extrasamples)
    return gray_and_alpha or page.photometric == PHOTOMETRIC.PALETTE


def _storage(page: Any, series: Any) -> dict[str, Any]:
    """How the samples are stored, as far as the result is stored alike."""
    tags = page.tags
    description = page.description
    bare = series.kind in ("generic", "uniform", "shaped") and not description.startswith(
        ('{"shape"', "<?xml", "<OME")
    )
    return {
        "photometric": page.photometric,
        "extrasamples": tuple(page.extrasamples),
        "colormap": page.colormap,
        "compressed": page.compression != 1,
        "description": description if bare else "",
        "tags": tiff_tags.carried(page),
        "resolution": page.resolution if {282, 283} <= set(tags.keys()) else None,
        "unit": int(tags.valueof(296, default=2)),
    }


def _interpret(picture: ImageFile, page: Any) -> None:
    """Decide what the samples of a pixel are: gray, RGB, indices into colors."""
    extras, photometric = picture.extras, page.photometric
    if photometric == PHOTOMETRIC.YCBCR and page.is_jfif | (page.compression in (6, 7)):
        photometric = extras["photometric"] = PHOTOMETRIC.RGB  # decoded so
    gray = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.PALETTE)
    if photometric not in (*gray, PHOTOMETRIC.RGB):
        name = getattr(photometric, "name", photometric)
        raise FileError(
            f"Its samples are stored as {name}, which are no intensities. Convert it to RGB or "
            "gray."
        )
    axes, data = picture.axes or "", picture.data
    if photometric == PHOTOMETRIC.PALETTE and extras["flavor"] in ("shaped", "plain"):
        # ImageJ and OME color their intensities so; elsewhere the samples are indices.
        table = page.colormap.T
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        picture.data, picture.axes, picture.color = table[data], axes + "S", True
        extras |= {"photometric": PHOTOMETRIC.RGB, "colormap": None}
        picture.notes.append("The colors of the palette became RGB.")
        return
    if "S" not in axes:
        return
    samples = data.shape[axes.index("S")]
    is_alpha = [int(kind) in (1, 2) for kind in extras["extrasamples"]]
    rgb = photometric == PHOTOMETRIC.RGB
    picture.color = rgb and (samples == 3 or (samples == 4 and is_alpha == [True]))
    if photometric in gray and samples == 2 and axes.endswith("S") and is_alpha == [True]:
        picture.data, picture.alpha, picture.axes = data[..., 0], data[..., 1], axes[:-1]
    elif not picture.color and any(is_alpha):
        picture.notes.append("Every sample of a pixel is restored by itself, alpha among them.")
    elif rgb and samples == 4 and not picture.color:
        picture.notes.append(
            "The file does not say that the fourth sample of a pixel is alpha: all four are "
            "restored, each by itself. If it is, use --rgb."
        )
    elif rgb and samples > 4:
        picture.notes.append(f"The {samples} samples of a pixel are restored, each by itself.")


def _find_dpi(picture: ImageFile) -> None:
    resolution = picture.extras["resolution"]
    factor = {2: 1.0, 3: 2.54}.get(picture.extras["unit"])
    if resolution and factor and all(as_size(value) for value in resolution):
        picture.dpi = (resolution[0] * factor, resolution[1] * factor)
