"""Pairs of low and high quality that were recorded: matched, registered, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from napari_restore.errors import RestoreError
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes, find_layout

from .blurs import log_uniform
from .data import SUFFIXES, SharpImage, read_plane
from .degradations import Pair, column

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.float32]

#: Smallest correlation of two images of one scene, smoothed and registered.
LEAST_CORRELATION = 0.5
#: Largest shift between two images of a pair, as a share of their shorter side.
LARGEST_SHIFT = 0.2
#: Shortest side, in pixels, of what both images of a pair show.
LEAST_SIDE = 64


class Registered(NamedTuple):
    """Two images of one scene, brought over each other.

    Attributes
    ----------
    low, high : ndarray
        (H, W, C), what both show. ``high`` has the intensities of ``low``.
    shift : (float, float)
        Rows and columns that ``high`` was moved by.
    gain : float
        By how much ``high`` was brighter.
    correlation : float
    """

    low: Image
    high: Image
    shift: tuple[float, float]
    gain: float
    correlation: float


@dataclass
class RecordedPairs:
    """Split crops of pairs into image and target, with any gain and offset for mono.

    Attributes
    ----------
    channels : {1, 3}
    margin : int
    """

    channels: int
    margin: int = 0

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Split a batch: (N, 2 C, H, W), image and target."""
        image, target = sharp.split(self.channels, 1)
        if self.channels == 1:
            count = len(sharp)
            gain = column([log_uniform(rng, 0.8, 1.25) for _ in range(count)], sharp)
            offset = column([rng.normal(0, 0.03) for _ in range(count)], sharp)
            image, target = image * gain + offset, target * gain + offset
        return Pair(image.contiguous(), target.contiguous())


class PairSource:
    """Random crops of pairs, those with more structure rather.

    Parameters
    ----------
    pairs : sequence of SharpImage
        Of `load_pairs`.
    """

    def __init__(self, pairs: Sequence[SharpImage]) -> None:
        self._pairs = list(pairs)
        areas = np.array([pair.pixels.size for pair in pairs], float) ** 0.5
        self._weights = areas / areas.sum()

    def batch(self, rng: np.random.Generator, count: int, size: int) -> torch.Tensor:
        """Draw crops: (count, 2 C, size, size)."""
        return torch.stack([self._crop(rng, size) for _ in range(count)])

    def _crop(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        best, most = None, -1.0
        pixels = self._pairs[int(rng.choice(len(self._pairs), p=self._weights))].pixels
        for _ in range(int(rng.integers(1, 4))):
            crop = _window(pixels, rng, size)
            target = crop[..., crop.shape[-1] // 2 :]
            energy = float(ndimage.uniform_filter(target, (4, 4, 0))[::4, ::4].std())
            if energy > most:
                best, most = crop, energy
        assert best is not None
        if rng.random() < 0.5:
            best = best[:, ::-1]
        best = np.rot90(best, int(rng.integers(4)))
        return torch.from_numpy(best.transpose(2, 0, 1).copy()).float() / 255


def _window(image: NDArray[Any], rng: np.random.Generator, size: int) -> NDArray[Any]:
    height, width = image.shape[:2]
    if min(height, width) < size:
        below, right = max(0, size - height), max(0, size - width)
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
        height, width = image.shape[:2]
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    return image[top : top + size, left : left + size]


# ---------------------------------------------------------------- loading


def load_pairs(
    low: Iterable[str | Path], high: Iterable[str | Path], channels: int
) -> tuple[list[SharpImage], list[str]]:
    """Load pairs from folders, register them, and leave out those that do not match.

    Parameters
    ----------
    low, high : iterable of path
        Folders of images of low and of high quality: pairs have the same name, or the same place
        in the order of names.
    channels : {1, 3}

    Returns
    -------
    list of SharpImage
        Float32 (H, W, 2 C), low and high, in the range that a network sees times 255.
    list of str
        What should be known: what was moved, scaled or left out.

    Raises
    ------
    RestoreError
        If fewer than two pairs match; the message says why.
    """
    pairs, notes, refused = [], [], []
    for first, second in match_names(_files(low), _files(high)):
        try:
            found = register(_as_image(first, channels), _as_image(second, channels))
        except RestoreError as error:
            refused.append(f"{first.name}: {error}")
            continue
        said = []
        if max(map(abs, found.shift)) >= 0.5:
            said.append("moved by {:+.1f}, {:+.1f} pixels".format(*found.shift))
        if not 0.8 < found.gain < 1.25:
            said.append(f"intensities differ by a factor of {found.gain:.2g}, which was taken out")
        if said:
            notes.append(f"{first.name}: {' and '.join(said)}.")
        both = np.concatenate(_seen(found.low, found.high, channels), -1)
        group = first.stem.split("_plane")[0]
        pairs.append(SharpImage(np.ascontiguousarray(both, np.float32), group, first.name))
    if len(pairs) < 2:
        why = " ".join(refused[:3]) or "There is one pair alone."
        raise RestoreError(
            f"The pairs do not match: {len(pairs)} can be used, of at least 2. {why}"
        )
    return pairs, [f"Left out: {text}" for text in refused] + notes


def _files(folders: Iterable[str | Path]) -> list[Path]:
    files = []
    for folder in folders:
        inside = sorted(Path(folder).rglob("*"))
        files += [path for path in inside if path.suffix.lower() in SUFFIXES]
    return files


def match_names(low: Sequence[Path], high: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Find which files belong together: those of one name, else those of one place.

    Raises
    ------
    RestoreError
        If that cannot be known.
    """
    if not low or not high:
        missing = "low" if not low else "high"
        raise RestoreError(
            f"No image of {missing} quality. Give folders that hold files ending in "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    by_name = {path.stem: path for path in high}
    if len(by_name) == len(high) and all(path.stem in by_name for path in low):
        return [(path, by_name[path.stem]) for path in low]
    if len(low) == len(high):
        return list(zip(low, high, strict=True))
    alone = [path.name for path in low if path.stem not in by_name][:3]
    raise RestoreError(
        f"{len(low)} images of low quality and {len(high)} of high quality do not pair: nothing of "
        f"high quality is called as {', '.join(alone)}. Give both images of a pair the same name."
    )


def _as_image(path: Path, channels: int) -> Image:
    pixels = read_plane(path)
    if channels == 3:
        if pixels.ndim == 2:
            raise RestoreError("it is gray, and the model is for color.")
        full = np.iinfo(pixels.dtype).max
        return (pixels / np.float32(full)).astype(np.float32)
    pixels = pixels.astype(np.float32)
    if pixels.ndim == 3:
        pixels = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    if not np.isfinite(pixels).all():
        raise RestoreError("it has values that are not finite.")
    return pixels[..., None]


def _seen(low: Image, high: Image, channels: int) -> tuple[Image, Image]:
    """Both in the range that the network sees, times 255: that of the image of low quality."""
    if channels == 3:
        return 255 * low, 255 * high
    plane = np.ascontiguousarray(low[..., 0])
    scale = find_scales(Planes(plane, find_layout(plane)))[0]
    return 255 * (low - scale.low) / scale.span, 255 * (high - scale.low) / scale.span


# ---------------------------------------------------------------- registration


def register(low: Image, high: Image) -> Registered:
    """Bring the image of high quality over the other, and give it its intensities.

    The shift is found by phase correlation (Kuglin and Hines, 1975) to a tenth of a pixel, on
    smoothed images; the intensities by a straight line.

    Parameters
    ----------
    low, high : ndarray
        (H, W, C).

    Raises
    ------
    RestoreError
        If they do not show the same scene.
    """
    from skimage.registration import phase_cross_correlation

    if low.shape != high.shape:
        raise RestoreError(
            f"the shapes differ: {low.shape[0]} × {low.shape[1]} and {high.shape[0]} × "
            f"{high.shape[1]} pixels."
        )
    if min(low.shape[:2]) < LEAST_SIDE:
        raise RestoreError(
            f"it has {low.shape[0]} × {low.shape[1]} pixels, and needs {LEAST_SIDE} on each side."
        )
    planes = [ndimage.gaussian_filter(image.mean(-1), 1.5) for image in (low, high)]
    fade = np.outer(*(np.hanning(length + 2)[1:-1] for length in low.shape[:2]))
    faded = [(plane - plane.mean()) * fade for plane in planes]
    found, _, _ = phase_cross_correlation(*faded, upsample_factor=10, normalization="phase")
    plain, _, _ = phase_cross_correlation(*faded, upsample_factor=10, normalization=None)
    # Noise can win over the scene: what makes them most alike counts.
    shifts = [(0.0, 0.0), *((float(s[0]), float(s[1])) for s in (found, plain))]
    limit = LARGEST_SHIFT * min(low.shape[:2])
    near = [shift for shift in shifts if max(map(abs, shift)) <= limit]
    correlations = [_correlation(planes[0], planes[1], shift) for shift in near]
    best = int(np.argmax(correlations))
    shift, correlation = near[best], correlations[best]
    if correlation < LEAST_CORRELATION:
        raise RestoreError(
            f"it does not show what its partner shows: their correlation is {correlation:.2f}, and "
            f"has to be {LEAST_CORRELATION} or more."
        )
    whole = (float(round(shift[0])), float(round(shift[1])))
    exact = max(abs(shift[0] - whole[0]), abs(shift[1] - whole[1])) < 0.25
    # Interpolation softens: what is nearly whole pixels is moved by whole ones.
    shift = whole if exact else shift
    if any(shift):
        moved = ndimage.shift(high, (*shift, 0), order=0 if exact else 5, mode="nearest")
        place = _overlap(low.shape, shift)
        low, high = low[place], moved[place]
    if min(low.shape[:2]) < LEAST_SIDE:
        raise RestoreError(f"what both show is {low.shape[0]} × {low.shape[1]} pixels: too small.")
    smooth = [ndimage.gaussian_filter(image, (4, 4, 0)) for image in (low, high)]
    centers = [part.mean() for part in smooth]
    spread = ((smooth[0] - centers[0]) ** 2).mean()
    gain = float(((smooth[0] - centers[0]) * (smooth[1] - centers[1])).mean() / max(spread, 1e-12))
    if gain <= 0:
        raise RestoreError("bright places of one are dark in the other.")
    matched = (high - centers[1]) / gain + centers[0]
    return Registered(low, matched.astype(np.float32), shift, gain, correlation)


def _overlap(shape: tuple[int, ...], shift: tuple[float, float]) -> tuple[slice, slice]:
    def part(length: int, moved: float) -> slice:
        edge = int(np.ceil(abs(moved)))
        return slice(edge, length) if moved > 0 else slice(0, length - edge)

    return part(shape[0], shift[0]), part(shape[1], shift[1])


def _correlation(first: Any, second: Any, shift: tuple[float, float]) -> float:
    place = _overlap(first.shape, shift)
    moved = ndimage.shift(second, shift, order=1, mode="nearest")[place].ravel()
    seen = first[place].ravel()
    spreads = float(seen.std() * moved.std())
    if not spreads > 0:
        return 0.0
    return float(((seen - seen.mean()) * (moved - moved.mean())).mean() / spreads)
