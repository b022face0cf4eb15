"""Samples that say nothing of the scene: not measured, hidden, outliers, bars along the border.

A network sees their surroundings in their place, and they come back as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .intensity import Scale

    Mask = NDArray[np.bool_]

#: Spans beyond the scale at which no sample can be a measurement.
FAR = 1e5
#: Spans above or below the scale from which on an isolated sample is an outlier, and how much of
#: its excess its surroundings may have: a spot that a lens has blurred has more.
_OUTSIDE, _ALIKE = 0.5, 0.02
#: Places around a sample that are not in a 2x2 cluster with it.
_RING = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if max(abs(y), abs(x)) == 2]
#: Ranges of all other samples by which the value of a fill lies apart from them, and how many
#: samples have it at least.
_APART, _FILLED = 10.0, 16
#: Rows or columns of one value that make a bar at least. Of 8-bit photographs black bars may have
#: been compressed: levels that they have at most.
_BAR, _BLACK = 2, 4


def without_value(
    block: NDArray[Any], channels: int, missing: tuple[float, ...] = ()
) -> Mask | None:
    """Find samples that were not measured, or cannot be seen.

    Parameters
    ----------
    block : ndarray
        (h, w, S).
    channels : int
        Those that a network sees; a sample after them is alpha.
    missing : tuple of float
        Values of samples that were not measured.

    Returns
    -------
    ndarray or None
        (h, w, channels); None if all have a value.
    """
    seen = block[..., :channels]
    gaps: Mask | None = None
    if block.dtype.kind == "f":
        gaps = ~np.isfinite(seen)
    if block.shape[-1] > channels:
        hidden = np.broadcast_to(block[..., channels : channels + 1] == 0, seen.shape)
        gaps = hidden if gaps is None else gaps | hidden
    for value in missing:
        same = seen == np.asarray(value).astype(block.dtype)
        gaps = same if gaps is None else gaps | same
    return gaps if gaps is not None and gaps.any() else None


def find_gaps(
    block: NDArray[Any],
    scale: Scale,
    channels: int,
    rows: range,
    columns: range,
    size: tuple[int, int],
) -> Mask | None:
    """Find samples that are kept from a network.

    Parameters
    ----------
    block : ndarray
        (h, w, S).
    scale : Scale
    channels : int
        Those that the network sees.
    rows, columns : range
        Where the samples are in their plane.
    size : (int, int)
        Height and width of the plane.

    Returns
    -------
    ndarray or None
        (h, w, channels); None if there are none.
    """
    gaps = without_value(block, channels, scale.missing)
    masks = [
        gaps,
        _beyond(block[..., :channels], scale, gaps),
        _in_bars(scale, rows, columns, size),
    ]
    found = [mask for mask in masks if mask is not None]
    if not found:
        return None
    out = np.zeros((*block.shape[:2], channels), bool)
    for mask in found:
        out |= mask
    return out


def _in_bars(scale: Scale, rows: range, columns: range, size: tuple[int, int]) -> Mask | None:
    if not any(scale.bars):
        return None
    top, left, bottom, right = scale.bars
    height, width = size
    row, column = np.array(rows), np.array(columns)
    outside = (row < round(top * height)) | (row >= height - round(bottom * height))
    aside = (column < round(left * width)) | (column >= width - round(right * width))
    bars = outside[:, None, None] | aside[None, :, None]
    return bars if bars.any() else None


def _beyond(seen: NDArray[Any], scale: Scale, gaps: Mask | None) -> Mask | None:
    """Find outliers: single samples far from their surroundings, and values that none can have."""
    if scale.span == 0 or seen.size == 0 or seen.dtype == np.bool_:
        return None
    least, most = scale.usual or (scale.low, scale.low + scale.span)
    span = most - least
    low, high = least - _OUTSIDE * span, most + _OUTSIDE * span
    if gaps is None and seen.min() >= low and seen.max() <= high:
        return None
    with np.errstate(invalid="ignore"):
        suspects = (seen < low) | (seen > high)
    if gaps is not None:
        suspects &= ~gaps
    if not suspects.any():
        return None
    normal = (seen.astype(np.float64) - least) / span
    far = suspects & (np.abs(normal) > FAR)
    if gaps is not None:
        normal = np.where(gaps, 0.5, normal)
    out = far | isolated(np.where(far, 0.5, normal), suspects & ~far)
    return out if out.any() else None


def isolated(normal: NDArray[np.float64], suspects: Mask) -> Mask:
    """Tell which suspects are outliers: hot and dead pixels, alone or in twos.

    Parameters
    ----------
    normal : ndarray
        (h, w, C), the scale being 0 to 1.
    suspects : ndarray
        Samples outside of the scale.
    """
    out = np.zeros(suspects.shape, bool)
    y, x, c = np.nonzero(suspects)
    if len(y) == 0:
        return out
    excess = _excess(normal[y, x, c])
    around = np.zeros(len(y))
    height, width = suspects.shape[:2]
    for step_y, step_x in _RING:
        there_y, there_x = y + step_y, x + step_x
        inside = (there_y >= 0) & (there_y < height) & (there_x >= 0) & (there_x < width)
        there = normal[there_y.clip(0, height - 1), there_x.clip(0, width - 1), c]
        # Only what goes the same way is like it.
        alike = np.where(inside, _excess(there) * np.sign(excess), 0)
        around = np.maximum(around, alike)
    out[y, x, c] = around <= _ALIKE * np.abs(excess)
    return out


def _excess(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(normal - 1, 0) + np.minimum(normal, 0)


def find_fills(values: NDArray[Any]) -> tuple[float, ...]:
    """Find values that mark samples as not measured, though no file says so.

    Such a value is the least or the largest of all, many samples have exactly it, and it lies far
    from all others: -3.4e38, 1e20, -9999, or the white of a patch that is overexposed.

    Parameters
    ----------
    values : ndarray
        Finite samples of an image, in one dimension.
    """
    found: list[float] = []
    while values.size and len(found) < 4:
        ends = (float(values.min()), float(values.max()))
        for end in ends:
            same = values == end
            count = int(np.count_nonzero(same))
            if count < _FILLED or count == values.size:
                continue
            rest = values[~same].astype(np.float64)
            low, high = np.percentile(rest, (0.1, 99.9))
            near = rest.min() if end == ends[0] else rest.max()
            if high > low and abs(near - end) > _APART * (high - low):
                found.append(end)
                values = values[~same]
                break
        else:
            break
    return tuple(found)


def edge_bars(block: NDArray[Any]) -> tuple[int, int, int, int]:
    """Count rows and columns of one value along the borders: (top, left, bottom, right)."""
    ends = []
    for part in (block, block.transpose(1, 0, 2)):
        low, high = part.min(axis=1), part.max(axis=1)
        # A bar may have a color: each channel has its own value.
        even = (low == high).all(-1)
        for step in (1, -1):
            same = even[::step] & (low[::step] == low[::step][0]).all(-1)
            if block.dtype == np.uint8:
                same |= (high[::step] <= _BLACK).all(-1)
            count = len(same) if same.all() else int(same.argmin())
            ends.append(count if count >= _BAR else 0)
    top, bottom, left, right = ends
    return top, left, bottom, right


def fill_gaps(block: NDArray[Any], gaps: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Replace samples by their nearest ones that are no gaps.

    Parameters
    ----------
    block : ndarray
        (h, w, C).
    gaps : ndarray or None
        (h, w, C), see `find_gaps`.

    Returns
    -------
    ndarray
        The same where there are no gaps; 0 in a channel that is nothing else.
    """
    if gaps is None:
        return block
    from scipy.ndimage import distance_transform_edt

    filled, before = block.copy(), None
    for sample in range(block.shape[-1]):
        here = gaps[..., sample]
        if here.all():
            filled[..., sample] = 0
        elif here.any():
            if before is None or not np.array_equal(before, here):
                nearest = tuple(
                    distance_transform_edt(here, return_distances=False, return_indices=True)
                )
                before = here
            filled[..., sample] = block[..., sample][nearest]
    return filled
