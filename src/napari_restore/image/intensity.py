"""Intensities: the scale of an image, found once, and the way to what a network sees and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_restore.errors import ImageError

from .layout import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .layout import Layout, Planes

    Mask = NDArray[np.bool_]

#: Percentiles that become 0 and 1.
PERCENTILES = (0.5, 99.9)


#: Share of the usual contrast below which a plane is empty, and says nothing of the others.
_EMPTY = 0.05
#: Most of a height or width that bars can be.
_MOST_BARS = 0.6
#: Share of the pixels within that have the value of a bar, above which it is the background.
_BACKGROUND = 0.1
#: Largest robust range of floats.
_WIDEST = 1e36
#: Medians and means of integers below which rounding may lose more than a hundredth of the light.
_FEW_MEDIAN, _FEW_MEAN = 10, 50


@dataclass(frozen=True)
class Scale:
    """What holds for the intensities of a whole image, or of a channel of it.

    Attributes
    ----------
    low, span : float
        The affine map to what a network sees: ``low`` becomes 0, ``low + span`` becomes 1. A span
        of 0 marks a constant image, in which there is nothing to restore.
    missing : tuple of float
        Values of samples that were not measured.
    bars : tuple of float
        Even bars along the borders (top, left, bottom, right), as shares of height and width.
    few : bool
        Whether samples are integers of so few counts that rounding would lose light.
    floor, ceiling : float
        The range that results are held in.
    usual : (float, float) or None
        Between which samples usually lie, if that is not what becomes 0 and 1.
    """

    low: float
    span: float
    missing: tuple[float, ...] = ()
    bars: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    few: bool = False
    floor: float = -np.inf
    ceiling: float = np.inf
    usual: tuple[float, float] | None = None

    def normalize(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """To the network's range; the difference is taken before precision is lost."""
        if self.span == 0:
            return np.zeros(block.shape, np.float32)
        wide = np.dtype(np.float64 if block.dtype.itemsize > 2 else np.float32)
        normal: NDArray[Any] = (block.astype(wide) - wide.type(self.low)) / wide.type(self.span)
        return normal.astype(np.float32)

    @property
    def holds(self) -> bool:
        """Whether results are held in a range."""
        return self.floor > -np.inf or self.ceiling < np.inf


def find_scales(
    planes: Planes,
    from_zero: bool = False,
    invalid_value: float | None = None,
    keep_range: bool = False,
) -> tuple[Scale, ...]:
    """Find the scale of each channel of an image.

    Parameters
    ----------
    planes : Planes
        The whole image.
    from_zero : bool
        Take 0 for black, where it has a physical meaning, instead of a percentile.
    invalid_value : float, optional
        Value of samples that were not measured.
    keep_range : bool
        Hold results within the range of the image.

    Returns
    -------
    tuple of Scale
        One for each channel; one alone where there is no channel axis. 8-bit color is /255, all
        else lies between robust percentiles of a bounded sample. What says nothing of the scene
        does not count: NaN and infinities, values of fills, hidden colors, outliers, empty planes,
        and even bars along the borders.

    Raises
    ------
    ImageError
        If samples have a range that no measurement has.
    """
    layout = planes.layout
    if np.dtype(planes.array.dtype) == np.bool_:
        return (Scale(0.0, 1.0),) * layout.groups
    samples: list[list[_Sample]] = [[] for _ in range(layout.groups)]
    for index, region in sample_regions(layout):
        block = planes.read(index, region)
        samples[layout.group(index)].append(_Sample(index, region, block, layout))
    declared = () if invalid_value is None or np.isnan(invalid_value) else (float(invalid_value),)
    return tuple(_scale(parts, layout, from_zero, declared, keep_range) for parts in samples)


class _Sample:
    """A region of a plane, and which of its samples count."""

    def __init__(
        self, index: tuple[int, ...], region: Region, block: NDArray[Any], layout: Layout
    ) -> None:
        self.index, self.block = index, block
        (height, width), channels = layout.size, layout.channels
        #: Samples (h, w, channels) that a network sees.
        self.seen = block[..., :channels]
        #: Which borders of the plane it reaches: top, left, bottom, right.
        self.touches = (
            region.top == 0,
            region.left == 0,
            region.bottom == height,
            region.right == width,
        )
        #: Rows and columns of even bars that begin at these borders.
        self.bars = self._bars((height, width))

    def valid(self, missing: tuple[float, ...]) -> Mask | None:
        """Where samples have a value; None for everywhere."""
        gaps = without_value(self.block, self.seen.shape[-1], missing)
        return None if gaps is None else ~gaps

    def values(self, missing: tuple[float, ...]) -> NDArray[Any]:
        """Those that have one."""
        return _chosen(self.seen, self.valid(missing))

    def _bars(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        seen = self.seen
        if not seen.size:
            return 0, 0, 0, 0
        found = zip(edge_bars(seen), self.touches, strict=True)
        ends = [bar if touches else 0 for bar, touches in found]
        top, left, bottom, right = _believable(ends, (*size, *size))
        inner = seen[top : len(seen) - bottom, left : seen.shape[1] - right]
        for side, corner in enumerate((seen[0, 0], seen[0, 0], seen[-1, -1], seen[-1, -1])):
            # What is frequent within too is the background.
            if ends[side] and inner.size and (inner == corner).all(-1).mean() > _BACKGROUND:
                return 0, 0, 0, 0
        return top, left, bottom, right


def _chosen(seen: NDArray[Any], valid: Mask | None) -> NDArray[Any]:
    return seen.reshape(-1) if valid is None else seen[valid]


def _scale(
    samples: list[_Sample],
    layout: Layout,
    from_zero: bool,
    missing: tuple[float, ...],
    keep_range: bool,
) -> Scale:
    values = _joined([sample.values(missing) for sample in samples])
    fixed = layout.color and values.dtype == np.uint8
    if not fixed:
        fills = find_fills(values)
        rest = values[~np.isin(values, fills)] if fills else values
        fills += tuple(v for v in find_fills(rest, _APART_IN_AREAS) if _is_area(v, samples))
        if fills:
            missing += fills
            values = _joined([sample.values(missing) for sample in samples])
    if values.size == 0:
        return Scale(0.0, 255.0 if fixed else 0.0, missing)
    floor, ceiling = (float(values.min()), float(values.max())) if keep_range else (-np.inf, np.inf)
    valid = [_within(sample, missing) for sample in samples]
    kept, bars = _with_contrast(samples, layout, valid)
    few = False
    if kept:
        values = _joined(kept)
        few = values.dtype.kind in "iu" and _are_few(values)
    low, high = usual = _percentiles(values)
    if 0 < high - low < _WIDEST:
        # Also few outliers change percentiles, where few pixels are bright; or lines of one value.
        scale = Scale(low, high - low)
        harmed = [_harmed(seen, scale, mask) for seen, mask in valid]
        if any(harm is not None for harm in harmed):
            valid = [
                (seen, mask if harm is None else ~harm if mask is None else mask & ~harm)
                for (seen, mask), harm in zip(valid, harmed, strict=True)
            ]
            sure, _ = _with_contrast(samples, layout, valid)
            if sure and sum(part.size for part in sure) < values.size:
                values = _joined(sure)
                low, high = usual = _percentiles(values)
    if fixed:
        return Scale(0.0, 255.0, missing, bars, few, floor, ceiling, usual if high > low else None)
    if high <= low:
        # A few structures on an even background: percentiles see the background alone. Single
        # samples are no structures.
        rest = _joined([_without_outliers(sample, missing) for sample in samples])
        low, high = float(rest.min()), float(rest.max())
    usual = low, high
    if from_zero:
        low = min(0.0, low)
    if values.dtype.kind == "f" and not high - low < _WIDEST and values.dtype.itemsize > 2:
        raise ImageError(
            f"Samples lie between {low:.3g} and {high:.3g} (for {PERCENTILES[0]} % and "
            f"{PERCENTILES[1]} % of them less and more): no measurement has such a range. Replace "
            "values that mark missing pixels by NaN."
        )
    known = usual == (low, high) or usual[0] == usual[1]
    return Scale(low, high - low, missing, bars, few, floor, ceiling, None if known else usual)


def _is_area(value: float, samples: list[_Sample]) -> bool:
    """Whether a value is that of areas, beside areas without it: their borders are short."""
    inside, outside, borders = 0, 0, 0
    for sample in samples:
        same = (sample.seen == value).all(-1)
        inside += int(np.count_nonzero(same))
        outside += int(np.count_nonzero(~same))
        borders += sum(int(np.count_nonzero(np.diff(same, axis=axis))) for axis in (0, 1))
    return borders <= _RAGGED * min(inside, outside)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0].ravel()
    return np.concatenate([part.ravel() for part in parts]) if parts else np.empty(0)


#: Values that are counted at once.
_COUNTED = 2**20


def _levels(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Levels of integers of up to 16 bits, and how many values have each."""
    limits = np.iinfo(values.dtype)
    counts = np.zeros(int(limits.max) - int(limits.min) + 1, np.int64)
    for first in range(0, values.size, _COUNTED):
        part = values[first : first + _COUNTED].astype(np.intp) - int(limits.min)
        counts += np.bincount(part, minlength=len(counts))
    there = np.flatnonzero(counts)
    return there + int(limits.min), counts[there]


def _are_counted(values: NDArray[Any]) -> bool:
    """Whether counting values takes a fraction of the time that sorting them does."""
    return fit_float32(values.dtype) and values.size >= 2 ** (8 * values.dtype.itemsize)


def _quantiles(
    levels: NDArray[np.int64], counts: NDArray[np.int64], shares: Sequence[float]
) -> NDArray[np.float64]:
    """Quantiles of values that were counted, as NumPy interpolates them, to the last bit."""
    last = counts.cumsum()
    at = np.array(shares) * (last[-1] - 1)
    below, share = np.floor(at), at % 1
    start, end = (
        levels[np.searchsorted(last, place, "right")].astype(np.float64)
        for place in (below, np.minimum(below + 1, last[-1] - 1))
    )
    step = end - start
    found: NDArray[np.float64] = np.where(
        share < 0.5, start + share * step, end - (1 - share) * step
    )
    return found


def _percentiles(values: NDArray[Any]) -> tuple[float, float]:
    if _are_counted(values):
        found = _quantiles(*_levels(values), [share / 100 for share in PERCENTILES])
    else:
        # NumPy interpolates in the dtype, where differences of integers can wrap around.
        found = np.percentile(values.astype(np.float64), PERCENTILES)
    low, high = (float(value) for value in found)
    return low, high


def _are_few(values: NDArray[Any]) -> bool:
    """Whether integers are so few counts that rounding them would lose light."""
    if not _are_counted(values):
        size = np.abs(values.astype(np.float64))
        return bool(size.mean() < _FEW_MEAN and np.median(size) < _FEW_MEDIAN)
    levels, counts = _levels(values)
    size, order = np.abs(levels), np.abs(levels).argsort()
    mean = (size * counts).sum() / values.size
    return bool(mean < _FEW_MEAN and _quantiles(size[order], counts[order], [0.5]) < _FEW_MEDIAN)


def _within(sample: _Sample, missing: tuple[float, ...]) -> tuple[NDArray[Any], Mask | None]:
    """Give the samples between bars, and which of them have a value; None for all."""
    top, left, bottom, right = sample.bars
    height, width = sample.seen.shape[:2]
    inner = np.s_[top : max(top, height - bottom), left : max(left, width - right)]
    valid = sample.valid(missing)
    return sample.seen[inner], None if valid is None else valid[inner]


def _harmed(seen: NDArray[Any], scale: Scale, valid: Mask | None) -> Mask | None:
    """Find outliers, and lines of one value."""
    if not seen.size:
        return None
    outliers = beyond(seen, scale, None if valid is None else ~valid)
    return either(outliers, even_lines(seen), seen.shape)


def _with_contrast(
    samples: list[_Sample],
    layout: Layout,
    valid: list[tuple[NDArray[Any], Mask | None]],
) -> tuple[list[NDArray[Any]], tuple[float, float, float, float]]:
    """Values of the planes that are not empty, without even bars; and the bars of all of them.

    ``valid`` is what lies within the bars of each sample, see `_within`.
    """
    planes: dict[tuple[int, ...], list[NDArray[Any]]] = {}
    for sample, (seen, mask) in zip(samples, valid, strict=True):
        planes.setdefault(sample.index, []).append(_chosen(seen, mask))
    joined = {index: _joined(parts) for index, parts in planes.items()}
    contrasts = {index: _contrast(values) for index, values in joined.items()}
    least = _EMPTY * float(np.median([c for c in contrasts.values() if c > 0] or [0.0]))
    full = {i for i, contrast in contrasts.items() if contrast > 0 and contrast >= least}
    if not full:
        return [values for values in joined.values() if values.size], (0.0, 0.0, 0.0, 0.0)
    # A bar is what every window along its border shows of it, in every plane.
    bars: list[int] = []
    lengths = (*layout.size, *layout.size)
    for side in range(4):
        along = [
            sample.bars[side] for sample in samples if sample.index in full and sample.touches[side]
        ]
        bars.append(min(along, default=0))
    found = _believable(bars, lengths)
    shares = tuple(end / length for end, length in zip(found, lengths, strict=True))
    return [joined[index] for index in full], (shares[0], shares[1], shares[2], shares[3])


def _believable(ends: list[int], lengths: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Bars as they are, unless those of two sides are most of the image: then it is the image."""
    out = list(ends)
    for first in (0, 1):
        if ends[first] + ends[first + 2] > _MOST_BARS * lengths[first]:
            out[first] = out[first + 2] = 0
    return out[0], out[1], out[2], out[3]


def _contrast(values: NDArray[Any]) -> float:
    low, high = _percentiles(values) if values.size else (0.0, 0.0)
    return high - low


def _without_outliers(sample: _Sample, missing: tuple[float, ...]) -> NDArray[np.float64]:
    """Values without single samples that differ from all around, if all else is one value."""
    gaps = without_value(sample.block, sample.seen.shape[-1], missing)
    values = sample.seen.astype(np.float64)
    valid = np.ones(values.shape, bool) if gaps is None else ~gaps
    if not valid.any():
        return values[valid]
    usual = np.median(values[valid])
    # Any other value is far outside of a range that is as good as empty.
    normal = np.where(valid, 0.5 + (values - usual) / max(1e-9 * abs(usual), 1e-300), 0.5)
    return values[valid & ~isolated(normal, valid & (values != usual), company=1)]


#: Most pixels the scale is found from.
SAMPLE_PIXELS = 2**23
_WINDOW, _WINDOWS = 512, 16


def sample_regions(
    layout: Layout, pixels: int = SAMPLE_PIXELS
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Choose a bounded, even sample of an image: (plane index, region).

    Small images are taken whole. Of large ones, planes are spread evenly over the stack and square
    windows evenly over each plane, so that lazy data read few chunks. The choice depends on the
    shape alone.
    """
    height, width = layout.size
    if layout.pixels <= pixels:
        whole = Region(0, 0, height, width)
        yield from ((index, whole) for index in layout.indices())
        return
    # The channel axis is walked in full, the others are counted through.
    channel = layout.axes.find("C")
    counts = tuple(1 if axis == channel else layout.shape[axis] for axis in layout.leading)
    total = int(np.prod(counts, dtype=np.int64))
    share = pixels // layout.groups
    want = min(total, max(1, share // min(height * width, _WINDOWS * _WINDOW**2)))
    for number in np.unique(np.linspace(0, total - 1, want).round().astype(np.int64)):
        index = tuple(int(i) for i in np.unravel_index(int(number), counts)) if counts else ()
        for group in range(layout.groups):
            chosen = tuple(
                group if axis == channel else i
                for axis, i in zip(layout.leading, index, strict=True)
            )
            yield from ((chosen, region) for region in _spread(height, width, share // want))


def _spread(height: int, width: int, budget: int) -> Iterator[Region]:
    if height * width <= budget:
        yield Region(0, 0, height, width)
        return
    side = max(1, min(_WINDOW, int(budget**0.5)))
    count = max(1, int((budget / side**2) ** 0.5))
    for top in _starts(height, count, side):
        for left in _starts(width, count, side):
            yield Region(top, left, min(top + side, height), min(left + side, width))


#: Side in pixels of the windows that `candidates` chooses, and how many there are at most.
LOOK_SIDE, _CANDIDATES = 256, 27


def candidates(
    layout: Layout, within: tuple[tuple[int, ...], Region] | None
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Choose windows spread evenly over planes and over each plane, by the shape alone."""
    if within is not None:
        index, whole = within
        yield from ((index, region) for region in _evenly(whole, 5))
        return
    lengths = [layout.shape[axis] for axis in layout.leading]
    places = list(_evenly(Region(0, 0, *layout.size), 3 if layout.planes > 1 else 5))
    planes = max(1, min(layout.planes, _CANDIDATES // len(places)))
    # Evenly between the ends: the first and the last plane of a stack show the least.
    numbers = np.linspace(0, layout.planes - 1, planes + 2).round().astype(int)[1:-1]
    for number in np.unique(numbers):
        index = tuple(int(i) for i in np.unravel_index(int(number), lengths)) if lengths else ()
        yield from ((index, region) for region in places)


def _evenly(whole: Region, most: int) -> Iterator[Region]:
    for row in _starts(whole.height, most, LOOK_SIDE):
        for column in _starts(whole.width, most, LOOK_SIDE):
            top, left = whole.top + row, whole.left + column
            bottom, right = min(top + LOOK_SIDE, whole.bottom), min(left + LOOK_SIDE, whole.right)
            yield Region(top, left, bottom, right)


def structure(normal: NDArray[np.float32]) -> float:
    """Mean gradient of a window, of details coarser than its noise."""
    height, width = (length // 4 * 4 for length in normal.shape[:2])
    if min(height, width) < 8:
        return float(np.ptp(normal))
    coarse = normal[:height, :width].reshape(height // 4, 4, width // 4, 4, -1).mean((1, 3))
    return float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean())


def _starts(length: int, count: int, side: int) -> list[int]:
    return evenly(length, side, min(count, -(-length // side)))


def evenly(length: int, side: int, count: int) -> list[int]:
    """Spread windows evenly over a line, a single one in its middle; give their starts."""
    last = max(0, length - side)
    if last == 0 or count == 1:
        return [last // 2]
    return np.unique(np.linspace(0, last, count).round().astype(int)).tolist()  # type: ignore[no-any-return]


#: Spans beyond the scale at which no sample can be a measurement.
FAR = 1e5
#: Spans above or below the scale from which on an isolated sample is an outlier; what share of its
#: rise over the ground a sample beside it has to have to be like it; and how many of those an
#: outlier may have: the others of two, three in a corner, or a line of defects.
_OUTSIDE, _ALIKE, _COMPANY = 0.5, 0.25, 2
#: Samples that a clump of defects has at most, and what share of their rise may show beside it: a
#: spot of a lens shows a fifth or more.
_CLUMP, _SHARP = 9, 0.15
#: Places beside a sample, and those around them, which show the ground that it rises from.
_BESIDE = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
_RING = np.array([(y, x) for y in range(-2, 3) for x in range(-2, 3) if max(abs(y), abs(x)) == 2])
#: Ranges of all other samples by which the value of a fill lies apart from them, and how many
#: samples have it at least.
_APART, _FILLED = 10.0, 16
#: The same for areas of one value, whose borders are sharper than a lens draws them; how long these
#: are at most, as a share of the pixels on either side.
_APART_IN_AREAS, _RAGGED = 1.0, 0.15
#: Rows or columns of one value that make a bar at least. Of 8-bit photographs black bars may have
#: been compressed: levels that they have at most.
_BAR, _BLACK = 2, 4
#: Rows of a block of JPEG with colors at half the resolution, and levels that nearly all samples
#: differ from the bar by in them.
_RIPPLED, _RIPPLE = 16, 24
#: Rows of a bar with noise at least, and the share of the range by which most of the row beside a
#: bar that has noise, or is a single row, differs from it.
_NOISY_BAR, _SHARP_END = 3, 0.05
#: Share of the row beside a bar that differs from it, and columns that are looked at for it first.
_ENDS, _LOOKED_AT = 0.5, 256
#: Share of the rows or columns that can be defects.
_FEW_LINES = 0.05


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
    seen = block[..., :channels]
    gaps = without_value(block, channels, scale.missing)
    # What is beside a bar is not measured against it.
    gaps = either(gaps, _in_bars(scale, rows, columns, size), seen.shape)
    return either(gaps, beyond(seen, scale, gaps), seen.shape)


def either(first: Mask | None, second: Mask | None, shape: tuple[int, ...]) -> Mask | None:
    """Join two masks of a shape, each of which may be None or broadcast."""
    if first is None or second is None:
        found = second if first is None else first
        return None if found is None else np.broadcast_to(found, shape)
    return np.broadcast_to(first | second, shape)


def between_bars(scales: Sequence[Scale], size: tuple[int, int]) -> Region:
    """Find the picture between bars along the borders.

    Parameters
    ----------
    scales : sequence of Scale
        Only what is a bar in all of these channels counts.
    size : (int, int)
        Height and width of the plane.
    """
    height, width = size
    top, left, bottom, right = (min(ends) for ends in zip(*(s.bars for s in scales), strict=True))
    below, aside = round(bottom * height), round(right * width)
    return Region(round(top * height), round(left * width), height - below, width - aside)


def _in_bars(scale: Scale, rows: range, columns: range, size: tuple[int, int]) -> Mask | None:
    if not any(scale.bars):
        return None
    inside = between_bars((scale,), size)
    row, column = np.array(rows), np.array(columns)
    outside = (row < inside.top) | (row >= inside.bottom)
    aside = (column < inside.left) | (column >= inside.right)
    bars = outside[:, None, None] | aside[None, :, None]
    return bars if bars.any() else None


def beyond(seen: NDArray[Any], scale: Scale, gaps: Mask | None) -> Mask | None:
    """Find outliers: single samples far from their surroundings, and values that none can have.

    Parameters
    ----------
    seen : ndarray
        (h, w, C).
    scale : Scale
    gaps : ndarray or None
        (h, w, C), samples without a value.

    Returns
    -------
    ndarray or None
        (h, w, C); None if there are none.
    """
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
    out_of_sight = far if gaps is None else far | gaps
    normal, suspects = np.where(out_of_sight, np.nan, normal), suspects & ~far
    out = far | isolated(normal, suspects) | _clumps(normal, suspects)
    return out if out.any() else None


def isolated(normal: NDArray[np.float64], suspects: Mask, company: int = _COMPANY) -> Mask:
    """Tell which suspects are outliers: hot and dead pixels, alone or in twos, and thin lines.

    What a lens has drawn goes over into what is around it, however bright it is. So beads and
    filaments are none.

    Parameters
    ----------
    normal : ndarray
        (h, w, C), the scale being 0 to 1; NaN where nothing is known.
    suspects : ndarray
        Samples outside of the scale.
    company : int
        How many of those beside it may be like an outlier.
    """
    out = np.zeros(suspects.shape, bool)
    y, x, c = np.nonzero(suspects)
    if len(y) == 0:
        return out
    height, width = suspects.shape[:2]

    def around(ring: NDArray[np.int_]) -> NDArray[np.float64]:
        there_y, there_x = y[:, None] + ring[:, 0], x[:, None] + ring[:, 1]
        inside = (there_y >= 0) & (there_y < height) & (there_x >= 0) & (there_x < width)
        there = normal[there_y.clip(0, height - 1), there_x.clip(0, width - 1), c[:, None]]
        return np.where(inside, there, np.nan)

    with warnings.catch_warnings():
        # Images of few pixels have no ring.
        warnings.simplefilter("ignore", RuntimeWarning)
        ground = np.nan_to_num(np.nanmedian(around(_RING), axis=1), nan=0.5)
    up = np.sign(normal[y, x, c] - 0.5)
    rise = up * (normal[y, x, c] - ground)
    alike = up[:, None] * (around(_BESIDE) - ground[:, None]) >= _ALIKE * rise[:, None]
    out[y, x, c] = (rise > _OUTSIDE) & (alike.sum(1) <= company)
    return out


def _clumps(normal: NDArray[np.float64], suspects: Mask) -> Mask:
    """Tell which suspects are clumps of defects, or hits of cosmic rays.

    Their few samples are about alike, and what is beside them shows nothing of them: a lens draws
    no such edge. Parameters as for `isolated`.
    """
    from scipy import ndimage

    out = np.zeros(suspects.shape, bool)
    for channel in range(suspects.shape[-1]):
        for up in (True, False):
            plane = np.nan_to_num(normal[..., channel], nan=0.5)
            plane = plane if up else 1 - plane
            here = suspects[..., channel] & (plane > 1)
            labels, _ = ndimage.label(here, np.ones((3, 3)))
            sizes = np.bincount(labels.ravel())
            few = np.flatnonzero((sizes > 1) & (sizes <= _CLUMP))
            few = few[few > 0]
            if not few.size:
                continue
            beside = np.where(here, 0, ndimage.maximum_filter(labels, 3))
            ground = np.asarray(ndimage.median(plane, beside, few))
            edge = np.asarray(ndimage.maximum(plane, beside, few)) - ground
            least = np.asarray(ndimage.minimum(plane, labels, few)) - ground
            most = np.asarray(ndimage.maximum(plane, labels, few)) - ground
            sharp = (least > _OUTSIDE) & (least > 0.5 * most) & (edge <= _SHARP * least)
            out[..., channel] |= np.isin(labels, few[sharp])
    return out


def find_fills(values: NDArray[Any], apart: float = _APART) -> tuple[float, ...]:
    """Find values that mark samples as not measured, though no file says so.

    Such a value is the least or the largest of all, many samples have exactly it, and it lies far
    from all others: -3.4e38, 1e20, -9999, or the white of a patch that is overexposed.

    Parameters
    ----------
    values : ndarray
        Finite samples of an image, in one dimension.
    apart : float
        Ranges of all other samples by which the value lies apart from them.
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
            if high > low and abs(near - end) > apart * (high - low):
                found.append(end)
                values = values[~same]
                break
        else:
            break
    return tuple(found)


def edge_bars(block: NDArray[Any]) -> tuple[int, int, int, int]:
    """Count rows and columns of even bars along the borders: (top, left, bottom, right).

    Bars have one value, or that of black with the noise of a camera.
    """
    top, bottom = _ends_of(block)
    # What lies aside is measured between what lies above and below.
    inside = _between(block, top, bottom)
    left, right = _ends_of(inside.transpose(1, 0, 2))
    inside = _between(inside.transpose(1, 0, 2), left, right)
    seen = inside[:, :: max(1, inside.shape[1] // BAND)]

    def counted(bar: _Bar) -> int:
        """Rows of a bar; 0 if what it reaches up to is all over the image: then it is ground."""
        everywhere = bar.ground is not None and (seen <= bar.ground).all(-1).mean() > _BACKGROUND
        return 0 if everywhere else bar.rows

    return counted(top), counted(left), counted(bottom), counted(right)


class _Bar(NamedTuple):
    """Rows of a bar, and what it reaches up to in each channel if it has noise."""

    rows: int
    ground: NDArray[np.float64] | None = None


def _between(block: NDArray[Any], above: _Bar, below: _Bar) -> NDArray[Any]:
    """Rows between two bars; all, if the bars are too large to be believed."""
    believed = above.rows + below.rows <= _MOST_BARS * len(block)
    return block[above.rows : len(block) - below.rows] if believed else block


def _ends_of(block: NDArray[Any]) -> tuple[_Bar, _Bar]:
    """Find the bars above and below."""
    bars = []
    for lines in (block, block[::-1]):
        count = _count_while(partial(_like_first, first=lines[0, 0]), lines)
        if block.dtype == np.uint8 and _RIPPLED // 2 <= count < len(lines):
            # The last rows of a compressed bar share blocks with the picture.
            beside = lines[count : count + _RIPPLED].astype(int)
            like = np.abs(beside - lines[0].min(0).astype(int)) <= _RIPPLE
            most = like.mean((1, 2)) > 1 - _FEW_LINES
            count += len(most) if most.all() else int(most.argmin())
        bars.append(_Bar(count) if count >= _BAR else _sharp_bar(lines))
    return bars[0], bars[1]


def _like_first(rows: NDArray[Any], first: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which rows have one value, that of the first sample; or are black."""
    # A bar may have a color: each channel has its own value.
    same: NDArray[np.bool_] = (rows == first).all((1, 2))
    if rows.dtype == np.uint8:
        same |= rows.max((1, 2)) <= _BLACK
    return same


def _count_while(holds: Callable[[NDArray[Any]], NDArray[np.bool_]], rows: NDArray[Any]) -> int:
    """Count the rows up to the first that something does not hold for; few are looked at beyond."""
    count, band = 0, 4
    while count < len(rows):
        found = holds(rows[count : count + band])
        if not found.all():
            return count + int(found.argmin())
        count, band = count + band, min(2 * band, BAND)
    return len(rows)


def _sharp_bar(block: NDArray[Any]) -> _Bar:
    """Find the first rows if they are a single even one, or even but for noise, and end sharply.

    Ground is no bar: what lies on it goes over into it.
    """
    first = block[0].astype(np.float64)
    if len(block) < 2 or not np.isfinite(first).all():
        return _Bar(0)
    value = np.median(first, axis=0)
    # Most of the noise is within, also where it was clipped at zero.
    spread = 1.5 * np.percentile(np.abs(first - value), 98, axis=0)

    def holds(rows: NDArray[Any], most: float = _FEW_LINES) -> NDArray[np.bool_]:
        off: NDArray[np.bool_] = (np.abs(rows - value) > spread).any(-1).mean(1) > most
        return ~off

    # A sharp end shows in a few columns as well.
    few = block[:, :: max(1, block.shape[1] // _LOOKED_AT)]
    count = _count_while(partial(holds, most=_ENDS / 2), few)
    # Noise is told from a gradient by a few rows.
    if not 0 < count < len(block) or (spread.any() and count < _NOISY_BAR):
        return _Bar(0)
    step = np.abs(block[count] - value)
    if (step > 2 * spread).any(-1).mean() < _ENDS or _count_while(holds, block[:count]) < count:
        return _Bar(0)
    inside = block[count :: max(1, len(block) // BAND)].astype(np.float64)
    inside = inside[np.isfinite(inside).all(-1)]
    if not inside.size:
        return _Bar(0)
    width = np.subtract(*np.percentile(inside, (99, 1), axis=0))
    edge = step > np.maximum(2 * spread, _SHARP_END * width)
    if edge.any(-1).mean() < _ENDS:
        return _Bar(0)
    return _Bar(count, value + spread if spread.any() else None)


def even_lines(block: NDArray[Any]) -> Mask | None:
    """Find rows and columns of one value within an image, as defects of a camera make them.

    Parameters
    ----------
    block : ndarray
        (h, w, C).

    Returns
    -------
    ndarray or None
        (h, w, C); None if there are none, or so many that they are the image.
    """
    rows, columns = (_even(lines) for lines in (block, block.transpose(1, 0, 2)))
    for lines in (rows, columns):
        if lines.mean() > _FEW_LINES:
            lines[:] = False
    if not (rows.any() or columns.any()):
        return None
    return np.broadcast_to((rows[:, None] | columns[None])[..., None], block.shape)


def _even(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which rows (h, w, C) have one value in each channel."""
    # A few columns show of nearly all rows that they have not.
    few = rows[:, :: max(1, rows.shape[1] // 16)]
    even: NDArray[np.bool_] = (few == few[:, :1]).all((1, 2))
    perhaps = np.flatnonzero(even)
    even[perhaps] = [bool((rows[row] == rows[row, 0]).all()) for row in perhaps]
    return even


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


#: Side in pixels of the squares that integers of few counts keep their light in.
SQUARE = 8
#: Rows that are converted at once: what is in between stays small. A multiple of `SQUARE`.
BAND = 64


def as_seen(
    block: NDArray[Any], scale: Scale, layout: Layout, rows: range, columns: range
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Bring samples to what a network sees, with their surroundings in the place of gaps.

    Parameters
    ----------
    block : ndarray
        (h, w, S), samples of one plane.
    scale : Scale
    layout : Layout
        Of the whole image.
    rows, columns : range
        Where the samples are in their plane.

    Returns
    -------
    ndarray, ndarray or None
        (h, w, C), and where the gaps are, see `napari_restore.image.intensity.find_gaps`.
    """
    gaps = find_gaps(block, scale, layout.channels, rows, columns, layout.size)
    filled = fill_gaps(block[..., : layout.channels], gaps)
    seen = np.empty(filled.shape, np.float32)
    for first in range(0, len(seen), BAND):
        band = slice(first, first + BAND)
        seen[band] = scale.normalize(filled[band])
    return seen, gaps


def normalized(
    source: Planes,
    index: tuple[int, ...],
    region: Region,
    scale: Scale,
    frames: int,
    block: NDArray[Any] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Read what a network sees of a region: (h, w, C), or with two frames (h, w, 2 C).

    ``block`` is what `Planes.read` gives for the region, if it was read already. The gaps of the
    first frame come with it, see `as_seen`.
    """
    rows, columns = range(region.top, region.bottom), range(region.left, region.right)
    block = source.read(index, region) if block is None else block
    seen, gaps = as_seen(block, scale, source.layout, rows, columns)
    if frames == 1:
        return seen, gaps
    block = source.read(source.layout.neighbor(index), region)
    other, _ = as_seen(block, scale, source.layout, rows, columns)
    # A frame without an image, the shutter closed or the camera blinded, shows no motion.
    return np.concatenate([seen, seen if is_even(other) else other], -1), gaps


def is_even(block: NDArray[Any]) -> bool:
    """Whether all samples (h, w, C) of each channel are the same."""
    return bool(block.size == 0 or (block == block[:1, :1]).all())


def as_they_are(
    source: Planes, index: tuple[int, ...], region: Region, frames: int, block: NDArray[Any]
) -> NDArray[Any]:
    """Read the samples of what a network sees of a region; parameters as for `normalized`."""
    channels = source.layout.channels
    blocks = [block]
    if frames == 2:
        blocks.append(source.read(source.layout.neighbor(index), region))
    if len(blocks) == 1 and channels == block.shape[-1]:
        return np.ascontiguousarray(block)
    return np.concatenate([part[..., :channels] for part in blocks], -1)


def fit_float32(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every sum of a sample and a change of it: integers of 8 and 16 bits."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def add_residual(
    original: NDArray[Any],
    change: NDArray[np.float32],
    scale: Scale,
    strength: float,
    gaps: NDArray[np.bool_] | None = None,
    place: Place | None = None,
) -> tuple[NDArray[Any], int, int]:
    """Add the network's change to samples (h, w, S).

    Parameters
    ----------
    original : ndarray
        (h, w, S).
    change : ndarray
        (h, w, C).
    scale : Scale
    strength : float
    gaps : ndarray, optional
        (h, w, C), samples that stay as they are.
    place : Place, optional
        Where integers of few counts lie, which keep their light: see `whole_changes`.

    Returns
    -------
    ndarray, int, int
        The samples, how many were clipped, and how many were held in the range of the image.
    """
    kind = np.float32 if fit_float32(original.dtype) else np.float64
    scaled: NDArray[Any] = change * kind(strength * scale.span)
    if gaps is not None:
        scaled[gaps] = 0
    seen = original[..., : change.shape[-1]]
    if place is not None:
        scaled = whole_changes(seen, scaled, scale.floor, place)
    restored, count = add_change(seen, scaled)
    restored = _not_missing(restored, seen, scale)
    held = 0
    if scale.holds and restored.dtype != np.bool_:
        floor, ceiling = (np.array(end).astype(seen.dtype) for end in (scale.floor, scale.ceiling))
        # What is outside already, beyond the sample that the range was found from, stays.
        inside = np.clip(restored, np.minimum(seen, floor), np.maximum(seen, ceiling))
        held = int(np.count_nonzero((inside != restored) & (restored == restored)))
        restored = inside
    return with_alpha(restored, original), count, held


class Place(NamedTuple):
    """Where samples are in their image.

    Attributes
    ----------
    plane : int
        Number of the plane.
    region : Region
        Rows and columns of it.
    in_squares : bool
        Whether it holds squares of `SQUARE` pixels as a whole, but for the far borders of the
        plane.
    """

    plane: int
    region: Region
    in_squares: bool


def whole_changes(
    seen: NDArray[Any], change: NDArray[np.floating], floor: float, place: Place
) -> NDArray[np.float64]:
    """Round changes of integers up or down so that no light is lost.

    On average every change is what it was, and in every square the sum is, to less than 1. What
    would leave samples below the least that they can be is taken from the others in the square.

    Parameters
    ----------
    seen : ndarray
        (h, w, C), integers.
    change : ndarray
        (h, w, C), what will be added.
    floor : float
        Least value of a result.
    place : Place
        The same place is rounded the same way always.

    Returns
    -------
    ndarray
        (h, w, C), whole numbers.
    """
    height, width, channels = seen.shape
    order, start = _order_of(place)
    if not place.in_squares:
        # As in squares of one sample each.
        even = order.argsort(-1) + start[..., None]
        dither = _from_squares(even[..., None] / SQUARE**2, place.region)
        rounded: NDArray[np.float64] = np.floor(change + dither)
        return rounded
    below, right = -height % SQUARE, -width % SQUARE
    shape = (height + below) // SQUARE, SQUARE, (width + right) // SQUARE, SQUARE, channels

    def squares(samples: NDArray[Any]) -> NDArray[np.float64]:
        padded = np.pad(samples.astype(np.float64), ((0, below), (0, right), (0, 0)))
        parts = padded.reshape(shape).transpose(0, 2, 4, 1, 3)
        return parts.reshape(*parts.shape[:3], SQUARE**2)

    least = max(floor, float(np.iinfo(seen.dtype).min))
    # More than enough to take from, and exact in float64.
    step, room = squares(change), np.minimum(squares(seen) - least, 2.0**40)
    wanted = np.where(step != 0, room + step, 0)
    too_little = np.minimum(wanted, 0).sum(-1, keepdims=True)
    wanted = np.maximum(wanted, 0)
    total = wanted.sum(-1, keepdims=True)
    share = np.maximum(0, 1 + too_little / np.where(total > 0, total, 1))
    step = np.where((step != 0) & (too_little < 0), wanted * share - room, step)
    along = np.broadcast_to(order[:, :, None], step.shape)
    # Systematic sampling: sums along the order, from a start that is random, are rounded down.
    sums = np.take_along_axis(step, along, -1).cumsum(-1)
    whole = np.diff(np.floor(sums + start[:, :, None, None]), axis=-1, prepend=0)
    out = np.empty_like(whole)
    np.put_along_axis(out, along, whole, -1)
    out = out.reshape(*out.shape[:3], SQUARE, SQUARE).transpose(0, 3, 1, 4, 2)
    return out.reshape(height + below, width + right, channels)[:height, :width]


def _order_of(place: Place) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find an order of the pixels of each square, (rows, columns, pixels), and where to start.

    Both are random, and belong to the place alone; starts are in [0, 1).
    """
    tile = place.region
    top, left = (start // SQUARE for start in (tile.top, tile.left))
    bottom, right = (-(-stop // SQUARE) for stop in (tile.bottom, tile.right))
    rows = np.arange(top * SQUARE, bottom * SQUARE, dtype=np.uint32)[:, None]
    columns = np.arange(left * SQUARE, right * SQUARE, dtype=np.uint32)[None]
    mixed = rows * np.uint32(0x9E3779B1) + columns * np.uint32(0x85EBCA77)
    mixed += np.uint32(place.plane * 0xC2B2AE3D & 0xFFFFFFFF)
    # The last steps of MurmurHash3 (Appleby): every bit of the place reaches every bit.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    grid = (bottom - top, SQUARE, right - left, SQUARE)
    squares = mixed.reshape(grid).transpose(0, 2, 1, 3).reshape(*grid[::2], -1)
    start = squares[..., 0] * np.uint32(0x9E3779B1) >> np.uint32(16)
    return squares.argsort(-1, kind="stable"), start / 2**16


def _from_squares(squares: NDArray[np.float64], region: Region) -> NDArray[np.float64]:
    """Bring numbers of the pixels of squares, (rows, columns, pixels, 1), to those of a region."""
    rows, columns = squares.shape[:2]
    grid = squares.reshape(rows, columns, SQUARE, SQUARE, 1).transpose(0, 2, 1, 3, 4)
    whole = grid.reshape(rows * SQUARE, columns * SQUARE, 1)
    top, left = region.top % SQUARE, region.left % SQUARE
    return whole[top : top + region.height, left : left + region.width]


def with_alpha(restored: NDArray[Any], original: NDArray[Any]) -> NDArray[Any]:
    """Add the alpha of the original, if it has one."""
    if restored.shape == original.shape:
        return restored
    return np.concatenate([restored, original[..., restored.shape[-1] :]], -1)


def removed_light(source: Any, result: Any) -> Any:
    """Find what a restoration took away: the result plus this is the source, exactly.

    Only the sum of two float64 is rounded.

    Parameters
    ----------
    source, result : array
        Of one shape and dtype; NumPy or dask.

    Returns
    -------
    array
        int32 or int64, float64 for floats. Differences of 64-bit integers may wrap around; added
        to the result they still give the source.
    """
    dtype = np.dtype(source.dtype)
    wide: Any = np.int32 if dtype.itemsize <= 2 else np.int64
    if dtype.kind == "f":
        wide = np.float64
    # Infinities are in both.
    with np.errstate(invalid="ignore"):
        return source.astype(wide) - result.astype(wide)


def _not_missing(restored: NDArray[Any], seen: NDArray[Any], scale: Scale) -> NDArray[Any]:
    """Let no sample get the value of those that were not measured, but the next to it."""
    for value in scale.missing:
        mark = np.asarray(value).astype(seen.dtype)
        taken = (restored == mark) & (seen != mark)
        if mark != value or not taken.any():
            continue
        if seen.dtype.kind == "f":
            restored = np.where(taken, np.nextafter(mark, seen), restored)
        else:
            step = np.where(seen > mark, 1, -1).astype(seen.dtype)
            restored = np.where(taken, mark + step, restored)
    return restored


def add_change(block: NDArray[Any], change: NDArray[np.floating]) -> tuple[NDArray[Any], int]:
    """Add the restoration's change to the original samples, in the original dtype.

    Adding the change, instead of converting the restored values back, keeps untouched pixels
    bit for bit.

    Parameters
    ----------
    block : ndarray
        Original samples.
    change : ndarray
        What to add, in the units of ``block``; float64, or float32 for integers of up to 16 bits.

    Returns
    -------
    result, clipped
        The sum in the dtype of ``block``, and how many samples had to be clipped into it.
    """
    dtype = block.dtype
    if dtype.kind == "b":
        return block.astype(np.float32) + change >= 0.5, 0
    if dtype.kind == "f":
        # A float16 sum may leave the range of the dtype; wider floats do not.
        wide = block.astype(np.float64)
        with np.errstate(over="ignore"):
            # Adding 0 would turn a negative zero into a positive one.
            total = np.where(change == 0, wide, wide + change)
        limit = float(np.finfo(dtype).max)
        clipped = np.isfinite(block) & (np.abs(total) > limit)
        if clipped.any():
            total = np.where(clipped, np.clip(total, -limit, limit), total)
        return total.astype(dtype), int(np.count_nonzero(clipped))
    limits = np.iinfo(dtype)
    if dtype.itemsize < 8:
        total = block.astype(change.dtype)
        total += change
        np.rint(total, out=total)
        count = 0
        if total.size and (total.min() < limits.min or total.max() > limits.max):
            count = int(np.count_nonzero((total < limits.min) | (total > limits.max)))
            np.clip(total, limits.min, limits.max, out=total)
        return total.astype(dtype), count
    # float64 does not hold every 64-bit integer: the room up to the limit is found in integers,
    # modulo 2**64.
    step, start = np.rint(change), block.astype(np.uint64)
    size = np.minimum(np.abs(step), 2.0**64 - 2048).astype(np.uint64)
    first = np.array(limits.min, dtype).astype(np.uint64)
    room = np.where(step > 0, np.uint64(limits.max) - start, start - first)
    clipped, size = size > room, np.minimum(size, room)
    result = np.where(step > 0, start + size, start - size).astype(dtype)
    return result, int(np.count_nonzero(clipped))
