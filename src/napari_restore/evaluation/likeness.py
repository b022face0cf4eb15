"""How like the images that a model learned from an image is: statistics, and a distance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_restore.analysis.find import noise_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Plane = NDArray[np.float64]

#: Side of the windows in pixels that statistics are taken of; they depend on it.
SIDE = 128
#: What is looked at, and how that is called where an image is unlike the others.
STATISTICS = {
    "noise": "its noise",
    "fine": "how much of it is fine detail",
    "middle": "how much of it is detail of some pixels",
    "coarse": "how much of it is coarse structure",
    "edges": "how its edges stand out",
    "fine edges": "how its finest detail stands out",
    "overshoot": "light and dark rims along its edges",
    "rims": "dark and light rims on both sides of its edges",
    "near rims": "light and dark rims two pixels from its edges",
    "middle rims": "light and dark rims three pixels from its edges",
    "far rims": "light and dark rims five pixels from its edges",
    "flat": "how much of it is flat",
    "equal": "how many neighboring pixels are equal",
    "levels": "how few gray levels it has",
    "steps": "a grid of blocks in it",
    "direction": "that its detail has one direction",
    "dark": "how dark it is",
    "skew": "how its brightness is distributed",
    "clipped": "how much of it is at the ends of its range",
    "color": "its colors",
    "veil": "how far from black its darkest colors are",
}
_LEAST = 1e-6
#: Pixels to both sides of an edge that are looked at, and which edges are.
_REACH, _STRONGEST = 8, 0.96
#: Standard deviations of the Gaussians, in pixels, that take away what is coarse, and how far apart
#: the pixels are that are compared then: sharpening makes neighbors at its radius differ.
_RINGS = ((1.5, 2), (3.0, 3), (6.0, 5))


def statistics(window: NDArray[np.floating]) -> Plane:
    """Describe a window by `STATISTICS`.

    Parameters
    ----------
    window : ndarray
        (h, w, C), about [0, 1], as a network sees it; finite.

    Returns
    -------
    ndarray
        One number for each, most of them logarithms of ratios, so that brightness and contrast
        count for little.
    """
    samples = np.asarray(window, np.float64)
    gray = samples.mean(-1)
    spread = gray.std() + _LEAST
    blurred = [gray, *(ndimage.gaussian_filter(gray, sigma) for sigma in (0.8, 1.6, 3.2, 6.4))]
    bands = [first - second for first, second in pairwise(blurred)]
    powers = [_size(band) for band in bands]
    across = [np.diff(gray, axis=axis) for axis in (0, 1)]
    size = np.hypot(across[0][:, 1:], across[1][1:])
    local = ndimage.maximum_filter(gray, 3) - ndimage.minimum_filter(gray, 3)
    histogram = np.sort(np.histogram(gray, 64, (gray.min(), gray.max() + _LEAST))[0])[::-1]
    low, middle, high = np.percentile(gray, (2, 50, 98))
    color = float((samples.max(-1) - samples.min(-1)).mean())
    centered = (gray - gray.mean()) / spread
    values = (
        np.log((noise_level(gray) + 1e-3 * spread) / spread),
        np.log(powers[0] / powers[1]),
        np.log(powers[1] / powers[2]),
        np.log(powers[2] / powers[3]),
        np.log(_size(size) / (np.abs(size).mean() + _LEAST)),
        np.log(_size(bands[0]) / (np.abs(bands[0]).mean() + _LEAST)),
        _correlation(across, 1),
        _rims(gray),
        *(_correlation([gray - ndimage.gaussian_filter(gray, s)] * 2, lag) for s, lag in _RINGS),
        np.log((local < 0.02 * spread).mean() + 0.01),
        np.log(np.mean([(part == 0).mean() for part in across]) + 0.01),
        np.log(histogram[:4].sum() / histogram.sum() + _LEAST),
        _steps(across),
        _direction(gray),
        (middle - low) / (high - low + _LEAST),
        np.clip(np.mean(centered**3), -4, 4),
        np.log(((gray == gray.min()) | (gray == gray.max())).mean() + 0.003),
        np.log(color + 0.01),
        np.log(max(float(samples.min(-1).mean()), 0.0) + 0.02),
    )
    return np.array(values, np.float64)


def _size(part: Plane) -> float:
    return float(np.sqrt(np.mean(part**2))) + _LEAST


def _correlation(across: list[Plane], lag: int) -> float:
    """Of a plane along each axis with itself further along: below 0 behind rims, and in noise."""
    products = [
        (across[0][lag:] * across[0][:-lag]).mean(),
        (across[1][:, lag:] * across[1][:, :-lag]).mean(),
    ]
    powers = [np.mean(part**2) for part in across]
    return float(np.sum(products) / (np.sum(powers) + _LEAST**2))


def _rims(gray: Plane) -> float:
    """How far an edge goes beyond what lies on both sides of it, as a share of its height.

    Lines and spots fall off on their light side alone; what was sharpened too much does on both.
    """
    smooth = ndimage.gaussian_filter(gray, 0.7)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(gray, 1.0))
    size = np.hypot(slope_y, slope_x)
    inner = size[_REACH:-_REACH, _REACH:-_REACH]
    if not inner.size or inner.max() <= _LEAST:
        return 0.0
    y, x = np.nonzero(inner >= max(float(np.quantile(inner, _STRONGEST)), _LEAST))
    y, x = y + _REACH, x + _REACH
    way = np.stack([slope_y[y, x], slope_x[y, x]]) / size[y, x]
    offsets = np.arange(-_REACH, _REACH + 1)
    places = np.stack([y, x])[:, :, None] + way[:, :, None] * offsets
    profile = ndimage.map_coordinates(smooth, places, order=1, mode="nearest").mean(0)
    far = 2
    low, high = profile[:far].mean(), profile[-far:].mean()
    height = max(profile.max() - profile.min(), _LEAST)
    middle = profile[_REACH - 4 : _REACH + 5]
    return float(min(low - middle.min(), middle.max() - high) / height)


def _steps(across: list[Plane]) -> float:
    """How much larger differences are at every second, third, … row or column than at others."""
    highest = 0.0
    for axis, part in enumerate(across):
        along = np.abs(part).mean(1 - axis) + _LEAST
        # Single strong edges are no grid.
        along = np.minimum(along, 4 * np.median(along) + _LEAST)
        for period in (2, 3, 4, 8):
            means = [along[start::period].mean() for start in range(period)]
            rest = (sum(means) - max(means)) / (period - 1)
            highest = max(highest, float(np.log(max(means) / rest)))
    return highest


def _direction(gray: Plane) -> float:
    """Logarithm of how much more fine detail there is in one direction than across it."""
    smooth = ndimage.gaussian_filter(gray, 0.7)
    powers = []
    for step in ((0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (2, -1), (2, -2), (1, -2)):
        length = np.hypot(*step)
        second = ndimage.shift(smooth, step, order=0, mode="nearest")
        inner = np.s_[3:-3, 3:-3]
        powers.append(float(((smooth - second)[inner] ** 2).mean()) / length + _LEAST**2)
    ratios = [powers[i] / powers[(i + 4) % 8] for i in range(8)]
    return float(np.log(max(ratios)))


@dataclass(frozen=True)
class Likeness:
    """How far an image is from those that a model learned from.

    Attributes
    ----------
    distance : float
        Median over windows, in units of the threshold: 1 is passed by few images that are right.
    strange : tuple of str
        What is most unlike, most first; empty where the image is like the others.
    windows : int
        How many were looked at.
    """

    distance: float
    strange: tuple[str, ...]
    windows: int

    @property
    def unlike(self) -> bool:
        """Whether the image is unlike those that were learned from."""
        return self.distance > 1


def distances(found: Plane, calibration: Mapping[str, Any]) -> dict[str, Plane]:
    """Distance of statistics from images that were learned from; above 1 is far.

    Parameters
    ----------
    found : ndarray
        (n, `STATISTICS`).
    calibration : mapping
        ``likeness`` of an entry of the calibration.

    Returns
    -------
    dict
        ``""`` for the Mahalanobis distance, and for each kind of image that models are not for how
        much the image is like that; (n,) each, in units of the threshold.
    """
    standard = _standard(found, calibration)
    out = {"": _mahalanobis(standard, calibration) / calibration["threshold"]}
    extended = with_squares(standard)
    for kind, plane in calibration["kinds"].items():
        out[kind] = 1 + extended @ np.array(plane["weights"]) + plane["constant"]
    return out


def with_squares(standard: Plane) -> Plane:
    """Join standardized statistics with their squares; none counts without bounds."""
    bounded = standard.clip(-4, 4)
    return np.concatenate([bounded, bounded**2 - 1], -1)


def _standard(found: Plane, calibration: Mapping[str, Any]) -> Plane:
    center, spread = (np.array(calibration[name]) for name in ("center", "spread"))
    standard: Plane = (found - center) / spread
    return standard


def _mahalanobis(standard: Plane, calibration: Mapping[str, Any]) -> Plane:
    inverse = np.array(calibration["inverse"])
    size: Plane = np.sqrt(np.einsum("...i,ij,...j->...", standard, inverse, standard))
    return size


def likeness(windows: Iterable[NDArray[np.floating]], calibration: Mapping[str, Any]) -> Likeness:
    """Compare windows of an image with those that a model learned from.

    Parameters
    ----------
    windows : iterable of ndarray
        (h, w, C), as a network sees them; of `SIDE` pixels if the image is large enough.
    calibration : mapping
        ``likeness`` of an entry of the calibration.
    """
    found = np.array([statistics(window) for window in windows])
    if not len(found):
        return Likeness(0.0, (), 0)
    each = {kind: float(np.median(part)) for kind, part in distances(found, calibration).items()}
    worst = max(each, key=lambda kind: each[kind])
    strange: tuple[str, ...] = ()
    if each[worst] > 1 and worst:
        strange = (f"it looks like {worst}",)
    elif each[worst] > 1:
        parts = _standard(found, calibration)
        shares = np.median(parts * (parts @ np.array(calibration["inverse"])), 0)
        names = list(STATISTICS.values())
        strange = tuple(names[i] for i in np.argsort(-shares)[:2] if shares[i] > 0)
    return Likeness(each[worst], strange, len(found))
