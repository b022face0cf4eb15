"""The intensity scale: found once, affine, inverted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import ImageError

from .gaps import edge_bars, find_fills, isolated, without_value
from .sampling import sample_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .layout import Layout, Planes
    from .tiling import Region

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
        samples[layout.group(index)].append(_Sample(index, region, block))
    declared = () if invalid_value is None or np.isnan(invalid_value) else (float(invalid_value),)
    return tuple(_scale(parts, layout, from_zero, declared, keep_range) for parts in samples)


@dataclass
class _Sample:
    """A region of a plane, and which of its samples count."""

    index: tuple[int, ...]
    region: Region
    block: NDArray[Any]

    def valid(self, channels: int, missing: tuple[float, ...]) -> NDArray[np.bool_]:
        gaps = without_value(self.block, channels, missing)
        return np.ones((*self.block.shape[:2], channels), bool) if gaps is None else ~gaps

    def bars(self, layout: Layout) -> tuple[int, int, int, int]:
        """Rows and columns of even bars that begin at the border of the plane."""
        seen = self.block[..., : layout.channels]
        ends = [n if at else 0 for n, at in zip(edge_bars(seen), self.touches(layout), strict=True)]
        top, left, bottom, right = _believable(ends, (*layout.size, *layout.size))
        inner = seen[top : len(seen) - bottom, left : seen.shape[1] - right]
        for side, corner in enumerate((seen[0, 0], seen[0, 0], seen[-1, -1], seen[-1, -1])):
            # What is frequent within too is the background.
            if ends[side] and inner.size and (inner == corner).all(-1).mean() > _BACKGROUND:
                return 0, 0, 0, 0
        return top, left, bottom, right

    def touches(self, layout: Layout) -> tuple[bool, bool, bool, bool]:
        """Which borders of the plane it reaches: top, left, bottom, right."""
        region, (height, width) = self.region, layout.size
        return region.top == 0, region.left == 0, region.bottom == height, region.right == width


def _scale(
    samples: list[_Sample],
    layout: Layout,
    from_zero: bool,
    missing: tuple[float, ...],
    keep_range: bool,
) -> Scale:
    channels = layout.channels
    values = _joined([s.block[..., :channels][s.valid(channels, missing)] for s in samples])
    fixed = layout.color and values.dtype == np.uint8
    if not fixed:
        missing += find_fills(values)
        values = _joined([s.block[..., :channels][s.valid(channels, missing)] for s in samples])
    if values.size == 0:
        return Scale(0.0, 255.0 if fixed else 0.0, missing)
    floor, ceiling = (float(values.min()), float(values.max())) if keep_range else (-np.inf, np.inf)
    kept, bars = _with_contrast(samples, layout, missing)
    few = False
    if kept:
        values = _joined(kept)
        if values.dtype.kind in "iu":
            size = np.abs(values.astype(np.float64))
            few = bool(np.median(size) < _FEW_MEDIAN and size.mean() < _FEW_MEAN)
    low, high = usual = _percentiles(values)
    if fixed:
        return Scale(0.0, 255.0, missing, bars, few, floor, ceiling, usual if high > low else None)
    if high <= low:
        # A few structures on an even background: percentiles see the background alone. Single
        # samples are no structures.
        rest = _joined([_without_outliers(sample, channels, missing) for sample in samples])
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


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.empty(0)


def _percentiles(values: NDArray[Any]) -> tuple[float, float]:
    # NumPy interpolates in the dtype, where differences of signed integers can wrap around.
    if values.dtype.itemsize > 2 or values.dtype.kind in "if":
        values = values.astype(np.float64)
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    return low, high


def _with_contrast(
    samples: list[_Sample], layout: Layout, missing: tuple[float, ...]
) -> tuple[list[NDArray[Any]], tuple[float, float, float, float]]:
    """Values of the planes that are not empty, without even bars; and the bars of all of them."""
    planes: dict[tuple[int, ...], list[NDArray[Any]]] = {}
    ends = [sample.bars(layout) for sample in samples]
    for sample, (top, left, bottom, right) in zip(samples, ends, strict=True):
        height, width = sample.block.shape[:2]
        inner = np.s_[top : max(top, height - bottom), left : max(left, width - right)]
        valid = sample.valid(layout.channels, missing)[inner]
        values = sample.block[..., : layout.channels][inner][valid]
        planes.setdefault(sample.index, []).append(values)
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
            bar[side]
            for sample, bar in zip(samples, ends, strict=True)
            if sample.index in full and sample.touches(layout)[side]
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


def _without_outliers(
    sample: _Sample, channels: int, missing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Values without single samples that differ from all around, if all else is one value."""
    valid = sample.valid(channels, missing)
    values = sample.block[..., :channels].astype(np.float64)
    if not valid.any():
        return values[valid]
    usual = np.median(values[valid])
    # Any other value is far outside of a range that is as good as empty.
    normal = np.where(valid, 0.5 + (values - usual) / max(1e-9 * abs(usual), 1e-300), 0.5)
    return values[valid & ~isolated(normal, valid & (values != usual))]
