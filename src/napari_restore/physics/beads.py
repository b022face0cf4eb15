"""Point spread functions from images of beads: point sources, registered and averaged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_restore.errors import PsfError

from .lengths import full_widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: A bead stands out from the noise by so many of its standard deviations.
CLEAR = 8.0
#: Share of a bead's brightness from which a neighbor spoils it.
RIVAL = 0.1
#: Most beads that are averaged, the brightest: more bring little.
MOST = 200
#: Why a bead was not used, for messages, in the order in which it is asked.
REASONS = ("clipped", "at the border", "too close to another", "unlike the others")


@dataclass(frozen=True)
class BeadPsf:
    """A point spread function from beads.

    Attributes
    ----------
    array : ndarray
        (Y, X) or (Z, Y, X), float32, odd sides, sum 1, in the pixels of the image of beads.
    places : ndarray
        (N, 2) or (N, 3), centers of the beads that were used, in pixels.
    rejected : dict
        How many beads were not used, by reason.
    notes : tuple of str
    pixel_size : (float, float) or length, optional
        Pixel size of the image of beads, as it was given.
    """

    array: NDArray[np.float32]
    places: Floats
    rejected: dict[str, int]
    notes: tuple[str, ...]
    pixel_size: Any = None


def psf_from_beads(
    image: Any,
    *,
    half: Sequence[int] | None = None,
    clip: float | None = None,
    pixel_size: Any = None,
) -> BeadPsf:
    """Average the beads in an image to a point spread function.

    Parameters
    ----------
    image : array-like
        (Y, X) or (Z, Y, X): bright points on a dark ground.
    half : sequence of int, optional
        Pixels to each side of a bead that belong to it, for each axis. Found from the beads by
        default.
    clip : float, optional
        Samples of this value or more were cut off by the camera. By default the end of the range
        of integers, and a greatest value that neighbors share.
    pixel_size : length, optional
        Side of a pixel, "65 nm" or 0.065 (µm), say. An image that has pixels of another size gets
        the PSF resampled.

    Raises
    ------
    PsfError
        Where no bead can be used; the message says why.

    Notes
    -----
    Beads are maxima that stand out from the noise. Those clipped, at the border, beside another or
    unlike the median bead are left out; the rest is moved onto the average by fractions of a
    pixel, three times.
    """
    values = _checked(image)
    clipped = _clipped(np.asarray(image), clip)
    smooth = ndimage.gaussian_filter(values, 1.0)
    ground = float(np.median(smooth))
    noise = 1.4826 * float(np.median(np.abs(smooth - ground)))
    peaks = _peaks(smooth, ground + max(CLEAR * noise, 1e-3 * float(np.ptp(smooth))))
    if not len(peaks):
        raise PsfError(
            "No bead was found in the image: nothing stands out from its noise "
            f"(standard deviation {noise:.3g}). Choose an image of bright points on a dark ground."
        )
    size = _extent(values, peaks, ground) if half is None else tuple(int(h) for h in half)
    peaks = _without_rings(smooth - ground, peaks, size)
    good, reasons = _sorted_out(smooth - ground, peaks, clipped, size)
    crops = [_crop(values, peak, size) for peak in good[:MOST]]
    crops, good, odd = _alike(crops, good[:MOST])
    reasons["unlike the others"] += odd
    rejected = {reason: reasons[reason] for reason in REASONS if reasons[reason]}
    told = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
    if not crops:
        raise PsfError(
            f"None of the {len(peaks)} beads can be used: {told}. Choose an image with single, "
            "unclipped beads away from its border."
        )
    mean, places = _registered(values, good, crops, size)
    said = f"{len(crops)} of {len(peaks)} beads were averaged"
    notes = [f"{said}; left out: {told}." if told else f"{said}."]
    if len(crops) < 5:
        notes.append("Fewer than 5 beads: the PSF is noisy.")
    return BeadPsf(_cleaned(mean), places, rejected, tuple(notes), pixel_size)


def _checked(image: Any) -> Floats:
    given = np.asarray(image)
    if given.dtype.kind not in "uif" or given.ndim not in (2, 3) or min(given.shape) < 3:
        raise PsfError(
            f"The image of beads has the shape {given.shape} and the dtype {given.dtype}. Give "
            "numbers with the axes (Y, X) or (Z, Y, X), at least 3 along each."
        )
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise PsfError(
            f"The image of beads holds {int((~np.isfinite(values)).sum())} samples that are NaN or "
            "infinite. Replace them, or cut them off."
        )
    return values


def _clipped(given: NDArray[Any], clip: float | None) -> NDArray[np.bool_]:
    if clip is not None:
        return np.asarray(given >= clip)
    top: NDArray[np.bool_] = given == given.max()
    if given.dtype.kind in "ui" and given.max() == np.iinfo(given.dtype).max:
        return top
    # A camera of fewer bits, or a stretched copy: flat tops, which noise does not make.
    labels, count = ndimage.label(top, np.ones((3,) * given.ndim))
    sizes = np.bincount(labels.ravel())[1:]
    return top if count and sizes.max() >= 3 else np.zeros_like(top)


def _peaks(smooth: Floats, least: float) -> NDArray[np.intp]:
    """Places of maxima, brightest first."""
    from skimage.feature import peak_local_max

    peaks: NDArray[np.intp] = peak_local_max(
        smooth, min_distance=1, threshold_abs=least, exclude_border=False
    )
    return peaks


def _extent(values: Floats, peaks: NDArray[np.intp], ground: float) -> tuple[int, ...]:
    """Pixels to each side of a bead: some full widths of the median of the bright ones."""
    widths = []
    for peak in peaks[:50]:
        window = tuple(slice(max(0, p - 25), p + 26) for p in peak)
        place = [int(p) - part.start for p, part in zip(peak, window, strict=True)]
        widths.append(full_widths((values[window] - ground).clip(0), place))
    typical = np.median(widths, axis=0)
    typical[-2:] = typical[-2:].max()
    # Light outside the focus of a volume is a wide cone.
    half = np.ceil(typical * (3 if values.ndim == 2 else 4)).clip(3, 32).astype(int)
    limits = [(side - 1) // 2 for side in values.shape]
    return tuple(min(int(h), limit) for h, limit in zip(half, limits, strict=True))


def _without_rings(
    smooth: Floats, peaks: NDArray[np.intp], size: Sequence[int]
) -> NDArray[np.intp]:
    """Leave out maxima that are rings of a much brighter bead."""
    brightness = smooth[tuple(peaks.T)]
    kept = [
        index
        for index, peak in enumerate(peaks)
        if not (
            (np.abs(peaks[:index] - peak) <= np.asarray(size)).all(axis=1)
            & (brightness[:index] > brightness[index] / RIVAL)
        ).any()
    ]
    return peaks[kept]


def _sorted_out(
    smooth: Floats, peaks: NDArray[np.intp], clipped: NDArray[np.bool_], size: Sequence[int]
) -> tuple[list[NDArray[np.intp]], Counter[str]]:
    """Beads that stand alone, whole, within the image, brightest first."""
    good, reasons = [], Counter[str]()
    brightness = smooth[tuple(peaks.T)]
    for index, peak in enumerate(peaks):
        apart = np.abs(peaks - peak)
        rivals = (apart <= 1.3 * np.asarray(size)).all(axis=1) & (
            brightness > RIVAL * brightness[index]
        )
        rivals[index] = False
        core = tuple(slice(max(0, p - 2), p + 3) for p in peak)
        if clipped[core].any():
            reasons["clipped"] += 1
        elif any(p < h or p + h >= n for p, h, n in zip(peak, size, smooth.shape, strict=True)):
            reasons["at the border"] += 1
        elif rivals.any():
            reasons["too close to another"] += 1
        else:
            good.append(peak)
    return good, reasons


def _crop(values: Floats, center: Sequence[float] | NDArray[Any], size: Sequence[int]) -> Floats:
    """Cut a bead out about a center between pixels, its background removed and its sum 1."""
    whole = np.rint(np.asarray(center, float)).astype(int)
    margin = 2
    window = tuple(
        slice(max(0, c - h - margin), c + h + margin + 1) for c, h in zip(whole, size, strict=True)
    )
    grids = np.meshgrid(
        *(np.arange(-h, h + 1) + c - w.start for h, c, w in zip(size, center, window, strict=True)),
        indexing="ij",
    )
    crop = ndimage.map_coordinates(values[window], grids, order=3, mode="nearest")
    crop = crop - _ground(crop)
    total = crop.sum()
    normal: Floats = crop / (total if total > 0 else 1)
    return normal


def _radius(shape: Sequence[int]) -> Floats:
    """Distance from the axis, (Y, X): 1 at the middle of the nearer sides."""
    lines = [np.abs(np.arange(side) - side // 2) for side in shape[-2:]]
    radius: Floats = np.hypot(lines[0][:, None], lines[1]) / max(1, min(shape[-2:]) // 2)
    return radius


def _ground(crop: Floats) -> float:
    """Background in the corners, in the darkest plane: light outside the focus is a wide cone."""
    corners = crop[..., _radius(crop.shape) > 1.1]
    return float(np.median(corners, axis=-1).min())


def _alike(
    crops: list[Floats], peaks: list[NDArray[np.intp]]
) -> tuple[list[Floats], list[NDArray[np.intp]], int]:
    """Leave out beads unlike the median one: clumps, doubles closer than the resolution, dirt."""
    if len(crops) < 3:
        return crops, peaks, 0
    soft = [ndimage.gaussian_filter(crop, 0.7) for crop in crops]
    typical = np.median(soft, axis=0)
    likeness = np.array([np.corrcoef(crop.ravel(), typical.ravel())[0, 1] for crop in soft])
    width = np.array([1 / np.sqrt(np.square(crop).sum()) for crop in soft])
    middle, spread = np.median(width), 1.4826 * np.median(np.abs(width - np.median(width)))
    fine = (likeness > 0.8) & (np.abs(width - middle) < max(4 * spread, 0.08 * middle))
    kept = np.flatnonzero(fine)
    return [crops[k] for k in kept], [peaks[k] for k in kept], len(crops) - len(kept)


def _registered(
    values: Floats, peaks: list[NDArray[np.intp]], crops: list[Floats], size: Sequence[int]
) -> tuple[Floats, Floats]:
    """Average of the beads after each was moved onto it, and where their centers are."""
    from skimage.registration import phase_cross_correlation

    centers = np.asarray(peaks, float)
    middle = np.asarray(size, float)
    for _ in range(3):
        mean = np.mean(crops, axis=0)
        soft = ndimage.gaussian_filter(mean, 1.0)
        # The average may drift: its own center of light is what lies in the middle.
        bright = np.where(mean > 0.2 * mean.max(), mean, 0)
        drift = np.asarray(ndimage.center_of_mass(bright)) - middle
        for index, crop in enumerate(crops):
            shift, *_ = phase_cross_correlation(
                soft, ndimage.gaussian_filter(crop, 1.0), upsample_factor=20, normalization=None
            )
            centers[index] += np.clip(drift - shift, -1.5, 1.5)
        crops = [_crop(values, center, size) for center in centers]
    mean = np.mean(crops, axis=0)
    return mean, centers


def _cleaned(mean: Floats) -> NDArray[np.float32]:
    """Calm what is faint: its mean around the axis keeps its light and loses its noise."""
    radius = _radius(mean.shape)
    corners = mean[..., radius > 1.1]
    noise = 1.4826 * float(np.median(np.abs(corners - np.median(corners, -1, keepdims=True))))
    ring = np.rint(radius * (min(mean.shape[-2:]) // 2)).astype(int)
    planes = mean.reshape(-1, *mean.shape[-2:])
    around = np.stack([ndimage.mean(p, ring, np.arange(ring.max() + 1))[ring] for p in planes])
    faint = planes < 5 * noise
    clean = np.where(faint, around, planes).clip(0).reshape(mean.shape)
    psf: NDArray[np.float32] = (clean / clean.sum()).astype(np.float32)
    return psf
