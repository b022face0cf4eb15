"""Which image of a TIFF file is meant, and whether the file holds all of it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from tifffile import TiffFile, TiffPageSeries

from napari_restore.errors import FileError

from . import imagej

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
            text = f"Of the file, tifffile says: {record.getMessage().split('> ', 1)[-1]}"
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
