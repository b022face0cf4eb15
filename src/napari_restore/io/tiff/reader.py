"""Read TIFF files: OME, ImageJ and plain; memory-mapped or in parts, where that is possible."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import PHOTOMETRIC, TiffFile, TiffPageSeries

from napari_restore.errors import FileError
from napari_restore.image.layout import (
    Inverted,
    StoredArray,
    as_size,
    in_memory_or_mapped,
    invert,
    length_unit,
    white,
)
from napari_restore.io.image_file import ImageFile

from . import imagej, ome, tags

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        # A damaged file can make tifffile raise any error.
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
        notes.append("The file holds a pyramid; the result holds only the full size.")
    extras, axes = _storage(page, series), series.axes
    document = None
    if tif.is_ome and series.kind == "ome":
        extras |= {"flavor": "ome", "xml": tif.ome_metadata}
        document = ome.facts(extras["xml"])
        if not set(axes) <= set("TZCYXS"):
            notes.append("The result keeps only axes and pixel sizes of the OME metadata.")
    elif series.kind == "imagej":
        extras |= {"flavor": "imagej", "imagej": dict(tif.imagej_metadata or {})}
    elif series.kind == "shaped":
        kept = dict((tif.shaped_metadata or ({},))[0])
        extras |= {"flavor": "shaped", "shaped": kept}
    else:
        extras |= {"flavor": "plain"}
        if series.kind not in ("generic", "uniform"):
            notes.append(
                f"The result keeps only axes and pixel sizes of the {series.kind} metadata."
            )
    picture = ImageFile(path, _samples(tif, series, path), axes, "tiff", extras=extras, notes=notes)
    picture.orientation = tags.orientation(page)
    tags.take_over(picture, page, extras["tags"])
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
    pages = tags.differing(series)
    if not pages:
        return
    extras = picture.extras
    if extras["flavor"] == "plain" and len(pages) == len(series.pages):
        extras["pages"] = pages
        return
    first = {code: (count, value) for code, _, count, value, _ in pages[0][1]}
    differ = {
        code
        for _, own in pages[1:]
        for code, _, count, value, _ in own
        if first.get(code) != (count, value)
    }
    names = [tags.name_of(code) for code in sorted(differ)]
    if extras["flavor"] == "plain" and any(text != pages[0][0] for text, _ in pages):
        names.append("descriptions of pages")
    if names:
        picture.notes.append(
            f"The result has these tags only for the first page: {', '.join(names)}."
        )


def _samples(tif: TiffFile, series: Any, path: Path) -> Any:
    if series.dataoffset is not None and series.nbytes:
        dtype = np.dtype(tif.byteorder + series.dtype.str[1:])
        return in_memory_or_mapped(np.memmap(path, dtype, "r", series.dataoffset, series.shape))
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
    held = page.tags
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
        "tags": tags.carried(page),
        "resolution": page.resolution if {282, 283} <= set(held.keys()) else None,
        "unit": int(held.valueof(296, default=2)),
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
            f"Its samples are stored as {name}, which are not intensities. Convert it to RGB or "
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


# ---------------------------------------------------------------- which image of a file is meant

#: What tifffile says of files that end too early.
_CUT_SHORT = (
    *("corrupted tag list of page", "invalid offset to page", "invalid page offset"),
    *("metadata invalid or corrupted file", "LSM file incompletely written"),
)
#: Kinds of files whose pages can be taken without what the metadata say of them.
_WITHOUT = ("ome", "imagej", "shaped")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


@contextmanager
def opened(path: Path, notes: list[str]) -> Iterator[TiffFile]:
    """Open a TIFF file so that every page of it counts, whatever its metadata say."""
    with TiffFile(path) as tif:
        if not _leaves_pages_out(tif):
            yield tif
            return
        kind = tif.series[0].kind
    notes.append(
        f"The {kind} metadata speak of fewer planes than the file holds. All are restored, without "
        "these metadata."
    )
    with TiffFile(path, is_ome=False, is_imagej=False, is_shaped=False) as tif:
        yield tif


def _leaves_pages_out(tif: TiffFile) -> bool:
    series = tif.series
    if not series or any(one.kind not in _WITHOUT for one in series):
        return False
    return len(tif.pages) > sum(_planes(level) for one in series for level in one.levels)


def main_image(tif: TiffFile, notes: list[str]) -> Any:
    """Choose the image that is restored: the first that is no preview and no mask.

    Parameters
    ----------
    tif : tifffile.TiffFile
    notes : list of str
        Gets what the user should know.

    Returns
    -------
    tifffile.TiffPageSeries

    Raises
    ------
    FileError
        If there is none.
    """
    found = list(tif.series)
    if not found:
        raise FileError("The file holds no image.")
    own = [series for series in found if not _is_beside(series.keyframe)]
    if not own:
        # Cameras keep the photograph below its preview.
        below = [page for page in _subordinate(tif) if not _is_beside(page)]
        if below:
            page = max(below, key=lambda page: page.size)
            notes.append("The image below the preview, in a SubIFD, is restored.")
            return TiffPageSeries([page], page.shape, page.dtype, page.axes, kind="generic")
        own = found
    chosen = own[0]
    larger = [series for series in own[1:] if _is_preview(chosen, series)]
    if larger:
        chosen = max(larger, key=lambda series: series.keyframe.size)
    if len(found) > 1:
        number = found.index(chosen)
        which = _ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th"
        why = "; what comes before is a preview of it or a mask" if number else ""
        notes.append(f"The file holds {len(found)} images; the {which} is restored{why}.")
    return chosen


def _is_beside(page: Any) -> bool:
    """Whether a page is said to be a smaller copy, or a mask, of another."""
    return bool(page.is_reduced or page.is_mask)


def _subordinate(tif: TiffFile) -> list[Any]:
    first = tif.pages.first
    return [page.aspage() for page in first.pages or ()] if first.subifds else []


def _is_preview(first: Any, other: Any) -> bool:
    """Whether an image is, by its looks, a smaller copy of one that comes after it."""
    small, large = first.keyframe, other.keyframe
    if len(first) > len(other):
        return False
    ratios = (
        large.imagelength / max(1, small.imagelength),
        large.imagewidth / max(1, small.imagewidth),
    )
    return bool(min(ratios) >= 2 and max(ratios) <= 1.05 * min(ratios))


def check_whole(tif: TiffFile, series: Any, messages: list[str]) -> None:
    """Raise a `FileError` if the file says that it holds more than it does.

    Parameters
    ----------
    tif : tifffile.TiffFile
    series : tifffile.TiffPageSeries
    messages : list of str
        What tifffile has said.
    """
    len(tif.pages)  # goes along the chain of pages to its end
    page = series.keyframe
    there = _planes(series)
    if tif.is_imagej:
        meta = tif.imagej_metadata or {}
        _compare(imagej.planes(meta, page.samplesperpixel > 1), there)
    elif tif.is_shaped and tif.shaped_metadata:
        shape = tif.shaped_metadata[0].get("shape", ())
        if series is tif.series[0]:
            _compare(int(np.prod(shape, dtype=np.int64)) // max(1, page.size), there)
    for message in messages:
        if any(words in message for words in _CUT_SHORT):
            raise _cut_short(message)
    size = tif.filehandle.size
    for number, frame in enumerate(series.pages, 1):
        if frame is None:
            continue
        ends = [a + b for a, b in zip(frame.dataoffsets, frame.databytecounts, strict=False)]
        if series.dataoffset is not None:
            ends = [series.dataoffset + series.nbytes]
        if ends and max(ends) > size:
            raise _cut_short(f"plane {number} ends at byte {max(ends)}, the file at {size}")
        if series.dataoffset is not None:
            break


def _cut_short(why: str) -> FileError:
    return FileError(
        f"The file cannot be read as TIFF, as it is cut short or damaged: {why}. Copy it again, or "
        "save what can be read of it, for example with Fiji, and restore that."
    )


def _planes(series: Any) -> int:
    return int(np.prod(series.shape, dtype=np.int64)) // max(1, int(series.keyframe.size))


def _compare(said: int, there: int) -> None:
    if said > there:
        raise _cut_short(f"it says that it holds {said} planes, and not all are there")


@contextmanager
def tifffile_speaks(messages: list[str]) -> Iterator[None]:
    """Collect what tifffile logs, such as missing pages that it fills with zeros."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Without the name of the object that speaks.
            text = f"tifffile says about the file: {record.getMessage().split('> ', 1)[-1]}"
            # Where it cannot read the value of no data, we can.
            if text not in messages and "GDAL_NODATA" not in text:
                messages.append(text)

    logger, handler = logging.getLogger("tifffile"), Collector(logging.WARNING)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


# ---------------------------------------------------------------- which values samples may have

#: MaxSampleValue, and the other tags that say which values occur.
_LARGEST = 281
_STATISTICS = (_LARGEST, 340, 341)


def find_depth(picture: ImageFile, page: Any, significant: int | None, room: int) -> None:
    """Find which range the samples have; turn them round where zero is white.

    Parameters
    ----------
    picture : ImageFile
        Gets ``top``, notes, and samples in which zero is black.
    page : tifffile.TiffPage
    significant : int or None
        Bits of a sample, as the metadata have it.
    room : int
        Bytes of samples that may be looked at, or changed, in memory.
    """
    data, extras = picture.data, picture.extras
    dtype = np.dtype(data.dtype)
    held = 1 if dtype.kind == "b" else dtype.itemsize * 8
    bits = page.bitspersample if isinstance(page.bitspersample, int) else held
    if dtype.kind == "u" and bits < held:
        picture.top = 2**bits - 1
        picture.notes.append(f"Samples of {bits} bits are written with {held}.")
    elif dtype.kind == "u":
        picture.top = _checked_top(picture, page, significant, room)
    if picture.top is not None and _LARGEST in page.tags:
        extras["tags"].append((_LARGEST, 3, 1, picture.top, True))
    elif any(code in page.tags for code in _STATISTICS):
        picture.notes.append("Tags with the smallest and the largest value are left out.")
    if extras["photometric"] != PHOTOMETRIC.MINISWHITE:
        return
    top = white(dtype, min(bits, held))
    if top is None:
        picture.said["that zero is white"] = True
        return
    extras["inverted"] = top
    small = isinstance(data, np.ndarray) and data.nbytes <= room
    picture.data = invert(np.asarray(data), top) if small else Inverted(data, top)
    if picture.invalid_value is not None:
        picture.invalid_value = top - picture.invalid_value


def _checked_top(picture: ImageFile, page: Any, significant: int | None, room: int) -> int | None:
    """Largest value by what the file says, if its samples keep to that."""
    data, dtype = picture.data, np.dtype(picture.data.dtype)
    largest = int(np.iinfo(dtype).max)
    said = largest
    if significant is not None:
        said = 2**significant - 1
    elif isinstance(value := page.tags.valueof(_LARGEST), int) and (value + 1).bit_count() == 1:
        said = value  # MaxSampleValue, where it is no statistic
    if not 0 < said < largest:
        return None
    bits, held = said.bit_length(), dtype.itemsize * 8
    if data.nbytes > room:
        picture.notes.append(f"The file says {bits} significant bits; the result may have {held}.")
        return None
    if (found := int(np.max(data))) > said:
        picture.notes.append(
            f"The file says {bits} significant bits and has values up to {found}; the result says "
            f"{held}."
        )
        return None
    return said
