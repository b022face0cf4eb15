"""How blurred an image is, as a network sees it: measured on a bounded sample of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.device import torch
from napari_restore.image.lazy import read_together
from napari_restore.image.tiling import Grid, Region, reflect
from napari_restore.inference.conversion import as_seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes
    from napari_restore.inference.protocol import Predictor

#: Side of the windows in pixels, how many are looked at, and how many of those are measured: of
#: small images fewer, about an eighth of their pixels.
_SIDE, _CANDIDATES, _FEWEST, _MEASURED = 256, 27, 2, 6
#: Below, there is nothing to restore. From the second on, an image may be blurred more than any
#: that the networks were trained on: their estimates hardly grow further.
SHARP, STRONG = 0.45, 2.6
#: Roughness of averaged blocks, that of white noise being 1, up to which there is no structure.
_NOISE = 1.5
#: Standard deviation of log σ above which the network does not know.
_UNSURE = 0.7


@dataclass(frozen=True)
class BlurEstimate:
    """Blur of an image, as the standard deviation of an equivalent Gaussian.

    Attributes
    ----------
    sigma : float
        In pixels; see `napari_restore.physics.psf.equivalent_sigma`. A sharp image has about 0.3.
    low, high : float
        Smallest and largest of the windows that were measured.
    windows : int
        How many there were, those with the most structure of an even sample.
    """

    sigma: float
    low: float
    high: float
    windows: int

    @property
    def verdict(self) -> str:
        """What to expect: ``sharp``, ``blurred`` or ``strong``, which may be beyond repair."""
        if self.sigma < SHARP:
            return "sharp"
        return "blurred" if self.sigma < STRONG else "strong"

    def record(self) -> dict[str, Any]:
        """In plain types, for the provenance."""
        return {
            "sigma_px": round(self.sigma, 2),
            "range_px": [round(self.low, 2), round(self.high, 2)],
            "windows": self.windows,
            "verdict": self.verdict,
        }


def estimate_blur(
    source: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Estimate how blurred an image is.

    Parameters
    ----------
    source : Planes
        The whole image; at most some two million samples of it are read.
    predictor : Predictor
    scales : sequence of Scale
        One for each channel of the layout.
    within : (plane index, Region), optional
        Where to look; without it, everywhere.

    Returns
    -------
    BlurEstimate or None
        None if the model has no gauge, or there is too little structure to tell.
    """
    if not predictor.estimates_blur or source.layout.pixels == 0:
        return None
    windows, places = [], list(candidates(source.layout, within))
    layout = source.layout
    for (index, region), block in zip(places, read_together(source, places), strict=True):
        rows, columns = range(region.top, region.bottom), range(region.left, region.right)
        normal, _ = as_seen(block, scales[layout.group(index)], layout, rows, columns)
        windows.append((structure(normal), normal))
    windows.sort(key=lambda item: -item[0])
    logs, weights = [], []
    share = source.layout.pixels // (8 * _SIDE**2)
    for contrast, normal in windows[: min(max(share, _FEWEST), _MEASURED)]:
        if contrast == 0 or _is_noise(normal):
            continue
        mean, log_variance = window_estimates(normal, predictor)
        precision = np.exp(-log_variance)
        if 1 / math.sqrt(precision.mean()) <= _UNSURE:
            logs.append(float((precision * mean).sum() / precision.sum()))
            weights.append(float(precision.mean()))
    if not logs:
        return None
    sigma = math.exp(float(np.average(logs, weights=weights)))
    return BlurEstimate(sigma, math.exp(min(logs)), math.exp(max(logs)), len(logs))


def candidates(
    layout: Layout, within: tuple[tuple[int, ...], Region] | None
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Choose windows spread evenly over planes and over each plane, by the shape alone."""
    if within is not None:
        index, whole = within
        yield from ((index, region) for region in _spread(whole, 5))
        return
    lengths = [layout.shape[axis] for axis in layout.leading]
    places = list(_spread(Region(0, 0, *layout.size), 3 if layout.planes > 1 else 5))
    planes = max(1, min(layout.planes, _CANDIDATES // len(places)))
    # Evenly between the ends: the first and the last plane of a stack show the least.
    numbers = np.linspace(0, layout.planes - 1, planes + 2).round().astype(int)[1:-1]
    for number in np.unique(numbers):
        index = tuple(int(i) for i in np.unravel_index(int(number), lengths)) if lengths else ()
        yield from ((index, region) for region in places)


def _spread(whole: Region, most: int) -> Iterator[Region]:
    starts = []
    for start, length in ((whole.top, whole.height), (whole.left, whole.width)):
        count = min(most, -(-length // _SIDE))
        last = max(0, length - _SIDE)
        places = np.array([last // 2]) if count == 1 else np.linspace(0, last, count).round()
        starts.append([start + int(place) for place in places])
    for top in starts[0]:
        for left in starts[1]:
            bottom, right = min(top + _SIDE, whole.bottom), min(left + _SIDE, whole.right)
            yield Region(top, left, bottom, right)


def structure(normal: NDArray[np.float32]) -> float:
    """Mean gradient of a window, of details coarser than its noise."""
    height, width = (length // 4 * 4 for length in normal.shape[:2])
    if min(height, width) < 8:
        return float(np.ptp(normal))
    coarse = normal[:height, :width].reshape(height // 4, 4, width // 4, 4, -1).mean((1, 3))
    return float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean())


def _is_noise(normal: NDArray[np.float32]) -> bool:
    """Whether a window shows no more than noise: nothing lasts when pixels are averaged.

    The second differences of white noise, whatever its distribution, fall as the side of the
    averaged blocks grows; those of scenes, blurred or sharp, fall less or not at all.
    """
    side = next((side for side in (8, 4) if min(normal.shape[:2]) >= 8 * side), 0)
    if not side:
        return False
    height, width = (length // side * side for length in normal.shape[:2])
    blocks = normal[:height, :width].reshape(height // side, side, width // side, side, -1)
    fine = _roughness(normal)
    return fine > 0 and _roughness(blocks.mean((1, 3))) * side < _NOISE * fine


def _roughness(image: NDArray[np.float32]) -> float:
    second = np.diff(np.diff(image.astype(np.float64), 2, 0), 2, 1)
    return float(np.sqrt(np.mean(second**2)))


def window_estimates(
    normal: NDArray[np.float32], predictor: Predictor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and log variances over a window, the border of it left out where there is enough."""
    height, width = normal.shape[:2]
    size = (height, width)
    whole = Region(0, 0, height, width)
    window = Grid(size, predictor.multiple_of, 0).window(whole)
    tensor = torch.from_numpy(reflect(normal, whole, window, size))
    estimates = predictor.estimate(tensor.permute(2, 0, 1)[None])[0, :, 0].double().numpy()
    edge = 2 if min(estimates.shape[1:]) > 8 else 0
    inner = estimates[:, edge or None : -edge or None, edge or None : -edge or None]
    return inner[0], inner[1].clip(-6, 4)
