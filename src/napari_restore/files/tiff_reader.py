"""Read TIFF files: OME, ImageJ and plain; memory-mapped or in parts, where that is possible."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import PHOTOMETRIC, TiffFile

from napari_restore.errors import FileError

from . import ome
from .picture import Picture
from .stored import StoredArray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: Bytes above which samples are not decompressed into memory at once.
SCRATCH_BYTES = 2**30
#: Largest tile or strip, in bytes, of a file that is read in parts.
_SEGMENT_BYTES = 2**26

#: Tags carried over as they are: authorship, orientation, and what electron microscopes note
#: (pixel sizes among it).
_KEPT_TAGS = (271, 272, 306, 315, 33432, 34118, 34680, 34682, 51023)

_UNITS = {
    **dict.fromkeys(("micron", "microns", "um", "µm", "μm", "\\u00b5m"), "µm"),
    **{unit: unit for unit in ("nm", "mm", "cm", "m", "pm")},
    **dict.fromkeys(("inch", "in"), "in"),
}


def read_tiff(path: Path) -> Picture:
    """Read the first image of a TIFF file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Picture
        ``extras`` holds ``flavour`` ("ome", "imagej", "shaped" for files with tifffile's shape
        notes, "plain"), how the samples are stored, and the metadata of the flavour.

    Raises
    ------
    FileError
        If it is damaged or holds no image with intensities.
    """
    notes: list[str] = []
    with _tifffile_speaks(notes):
        try:
            with TiffFile(path) as tif:
                return _read(tif, path, notes)
        except FileError:
            raise
        # tifffile raises whatever a damaged file makes it stumble over.
        except Exception as error:
            raise FileError(f"The file cannot be read as TIFF: {error or repr(error)}.") from error


def _read(tif: TiffFile, path: Path, notes: list[str]) -> Picture:
    if not tif.series:
        raise FileError("The file holds no image.")
    series = tif.series[0]
    page = series.keyframe
    if series.is_multifile or page.parent is not tif:
        raise FileError(
            "The file is one of several that hold one OME image. Save the image as one file, for "
            "example with Fiji, and restore that."
        )
    if len(tif.series) > 1:
        notes.append(f"The file holds {len(tif.series)} images; the first is restored.")
    if len(series.levels) > 1:
        notes.append("The file holds a pyramid; the result holds the full size alone.")
    data, axes = _samples(tif, series, path), series.axes
    extras = _storage(page, series)
    channels: list[str] = []
    if tif.is_ome and series.kind == "ome":
        extras |= {"flavour": "ome", "xml": tif.ome_metadata}
        channels = ome.channel_names(extras["xml"])
        if not set(axes) <= set("TZCYXS"):
            notes.append("Of the OME metadata, the result keeps axes and pixel sizes alone.")
    elif series.kind == "imagej":
        extras |= {"flavour": "imagej", "imagej": dict(tif.imagej_metadata or {})}
    elif series.kind == "shaped":
        kept = dict((tif.shaped_metadata or ({},))[0])
        extras |= {"flavour": "shaped", "shaped": kept}
    else:
        extras |= {"flavour": "plain"}
        if series.kind not in ("generic", "uniform"):
            notes.append(f"Of the {series.kind} metadata, the result keeps the axes alone.")
    picture = Picture(path, data, axes, "tiff", extras=extras, notes=notes)
    if "C" in axes and len(channels) == data.shape[axes.index("C")]:
        picture.channels = channels
    _interpret(picture, page)
    _find_sizes(picture, page)
    return picture


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
    grey_and_alpha = page.photometric != PHOTOMETRIC.RGB and bool(page.extrasamples)
    return grey_and_alpha or page.photometric == PHOTOMETRIC.PALETTE


def _storage(page: Any, series: Any) -> dict[str, Any]:
    """How the samples are stored, as far as the result is stored alike."""
    tags = page.tags
    description = page.description
    bare = series.kind in ("generic", "uniform", "shaped") and not description.startswith(
        ('{"shape"', "<?xml", "<OME")
    )
    extra_tags = [(274, 3, 1, tags[274].value, False)] if tags.valueof(274, default=1) != 1 else []
    for code in _KEPT_TAGS:
        tag = tags.get(code)
        if tag is not None and tag.dtype in (1, 2, 7):
            handle = page.parent.filehandle
            handle.seek(tag.valueoffset)
            raw = handle.read(tag.valuebytecount)
            extra_tags.append((code, int(tag.dtype), tag.count, raw, True))
    return {
        "photometric": page.photometric,
        "extrasamples": tuple(page.extrasamples),
        "colormap": page.colormap,
        "compressed": page.compression != 1,
        "description": description if bare else "",
        "icc": tags.valueof(34675),
        "tags": extra_tags,
        "resolution": page.resolution if {282, 283} <= set(tags.keys()) else None,
        "unit": int(tags.valueof(296, default=2)),
    }


def _interpret(picture: Picture, page: Any) -> None:
    """Decide what the samples of a pixel are: grey, RGB, indices into colours."""
    extras, photometric = picture.extras, page.photometric
    if photometric == PHOTOMETRIC.YCBCR and page.is_jfif | (page.compression in (6, 7)):
        photometric = extras["photometric"] = PHOTOMETRIC.RGB  # decoded so
    grey = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.PALETTE)
    if photometric not in (*grey, PHOTOMETRIC.RGB):
        name = getattr(photometric, "name", photometric)
        raise FileError(
            f"Its samples are stored as {name}, which are no intensities. Convert it to RGB or "
            "grey."
        )
    axes, data = picture.axes or "", picture.data
    if photometric == PHOTOMETRIC.PALETTE and extras["flavour"] in ("shaped", "plain"):
        # ImageJ and OME colour their intensities so; elsewhere the samples are indices.
        table = page.colormap.T
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        picture.data, picture.axes, picture.colour = table[data], axes + "S", True
        extras |= {"photometric": PHOTOMETRIC.RGB, "colormap": None}
        picture.notes.append("The colours of the palette became RGB.")
        return
    if "S" not in axes:
        return
    samples = data.shape[axes.index("S")]
    picture.colour = photometric == PHOTOMETRIC.RGB and samples in (3, 4)
    is_alpha = [int(kind) in (1, 2) for kind in extras["extrasamples"]]
    if photometric in grey and samples == 2 and axes.endswith("S") and is_alpha == [True]:
        picture.data, picture.alpha, picture.axes = data[..., 0], data[..., 1], axes[:-1]


def _find_sizes(picture: Picture, page: Any) -> None:
    extras, sizes = picture.extras, picture.pixel_size
    resolution = extras["resolution"]
    if extras["flavour"] == "ome":
        sizes |= ome.pixel_size(extras["xml"])
    if extras["flavour"] == "imagej":
        meta = extras["imagej"]
        unit = _UNITS.get(str(meta.get("unit", "")).lower())
        if unit:
            steps = dict(zip("XY", resolution or (0, 0), strict=True))
            sizes |= {axis: (1 / step, unit) for axis, step in steps.items() if step > 0}
            spacing = meta.get("spacing", 0)
            if isinstance(spacing, (int, float)) and spacing > 0:
                sizes["Z"] = (float(spacing), unit)
        interval = meta.get("finterval", 0)
        if isinstance(interval, (int, float)) and interval > 0:
            sizes["T"] = (float(interval), "s")
    factor = {2: 1.0, 3: 2.54}.get(extras["unit"])
    if resolution and factor and min(resolution) > 0:
        picture.dpi = (resolution[0] * factor, resolution[1] * factor)


@contextmanager
def _tifffile_speaks(notes: list[str]) -> Iterator[None]:
    """Collect what tifffile logs, such as missing pages that it fills with zeros."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger, handler = logging.getLogger("tifffile"), Collector(logging.WARNING)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
