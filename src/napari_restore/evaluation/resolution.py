"""Resolution of a single image: Fourier ring correlation and decorrelation analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float64]

#: Correlation of rings below which there is more noise than signal, and periods in pixels that
#: halves of an image, or the image itself, cannot show.
_SEVENTH, FINEST_RING, FINEST_PEAK = 1 / 7, 4.0, 2.0
#: Least side of a plane in pixels.
LEAST_SIDE = 48
#: Filters that are tried, least height of a peak, and least depth of the dip behind it.
_FILTERS, _LEAST_PEAK, _LEAST_DIP = 12, 0.05, 5e-4


def ring_correlation(plane: Any) -> tuple[Plane, Plane]:
    """Compute the Fourier ring correlation of the diagonal halves of one image.

    Parameters
    ----------
    plane : array
        (h, w), of at least `LEAST_SIDE` pixels on each side.

    Returns
    -------
    ndarray, ndarray
        Frequencies in periods for each pixel, up to a quarter, and the correlation there.

    Notes
    -----
    Koho et al., "Fourier ring correlation simplifies image restoration in fluorescence microscopy",
    2019: even and odd pixels are images of the same scene with noise of their own. That one is
    shifted by half of its pixels is undone in the spectrum, in place of a correction of the result.
    """
    faded = _faded(plane)
    side = min(faded.shape) // 2 * 2
    faded = faded[:side, :side]
    pairs = ((faded[::2, ::2], faded[1::2, 1::2], 1), (faded[::2, 1::2], faded[1::2, ::2], -1))
    fy, fx = np.fft.fftfreq(side // 2)[:, None], np.fft.fftfreq(side // 2)[None]
    rings = np.rint(np.hypot(fy, fx) * (side // 2)).astype(int).ravel()
    count = side // 4
    curve = np.zeros(count)
    for first, second, sign in pairs:
        # The second lies half a pixel further down, and to the right or to the left.
        shift = np.exp(-1j * np.pi * (fy + sign * fx))
        one, other = np.fft.fft2(first), np.fft.fft2(second) * shift
        sums = [
            np.bincount(rings, part.ravel(), count)[:count]
            for part in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
        ]
        curve += sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-300)) / len(pairs)
    return np.arange(count) / side, curve


def ring_resolution(plane: Any) -> float | None:
    """Period in pixels from which on the ring correlation is below a seventh.

    Returns
    -------
    float or None
        `FINEST_RING` if it is that or finer, which one image cannot tell; None if no structure is
        above the noise.
    """
    frequencies, curve = ring_correlation(plane)
    # Single rings of few samples fall by chance.
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    below = np.flatnonzero(smooth[1:] < _SEVENTH) + 1
    if not below.size:
        return FINEST_RING
    first = int(below[0])
    if first < 3:
        return None
    high, low = smooth[first - 1], smooth[first]
    share = (high - _SEVENTH) / max(high - low, 1e-12)
    at = frequencies[first - 1] + share * (frequencies[first] - frequencies[first - 1])
    return max(FINEST_RING, float(1 / at))


def decorrelation_resolution(plane: Any) -> float | None:
    """Period in pixels of the finest detail, by decorrelation analysis.

    Parameters
    ----------
    plane : array
        (h, w), of at least `LEAST_SIDE` pixels on each side.

    Returns
    -------
    float or None
        At least `FINEST_PEAK`; None where no filter shows a peak, as in noise.

    Notes
    -----
    Descloux, Grußmayer and Radenovic, "Parameter-free image resolution estimation based on
    decorrelation analysis", 2019: the correlation of the image with itself, of all equal
    amplitudes within a circle, has a peak where noise begins to outweigh. High-pass filters move
    it up to the finest detail.
    """
    faded = _faded(plane)
    side = min(faded.shape)
    faded = faded[:side, :side]
    spectrum = np.abs(np.fft.fft2(faded))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    inside = frequency < 0.5
    bins, count = np.rint(frequency[inside] * side).astype(int), side // 2
    spectrum, frequency = spectrum[inside], frequency[inside]
    first = _peak(_decorrelation(spectrum, bins, count))
    widest = side / 2 if first is None else 1 / max(first[0], 0.02)
    best = 0.0 if first is None else first[0]
    for sigma in np.geomspace(widest, 0.15, _FILTERS):
        passed = spectrum * (1 - np.exp(-2 * (np.pi * sigma * frequency) ** 2))
        peak = _peak(_decorrelation(passed, bins, count))
        if peak is not None:
            best = max(best, peak[0])
    return max(FINEST_PEAK, 2 / best) if best > 0 else None


def _decorrelation(spectrum: Plane, bins: NDArray[np.int_], count: int) -> Plane:
    """Correlation for circles of growing radius."""
    sums = np.cumsum(np.bincount(bins, spectrum, count + 1)[: count + 1])
    numbers = np.cumsum(np.bincount(bins, minlength=count + 1)[: count + 1])
    curve: Plane = sums / np.sqrt(max(float((spectrum**2).sum()), 1e-300) * numbers)
    return curve


def _peak(curve: Plane) -> tuple[float, float] | None:
    """Place of the last peak that something dips behind, as a share of half a period a pixel."""
    end = len(curve)
    while end > 2:
        at = int(curve[:end].argmax())
        if at < end - 1:
            dip = curve[at] - curve[at:].min()
            high = curve[at] > _LEAST_PEAK and dip > _LEAST_DIP and at > 1
            return (at / (len(curve) - 1), float(curve[at])) if high else None
        end = at
    return None


def _faded(plane: Any) -> Plane:
    from skimage.filters import window

    values = np.asarray(plane, np.float64)
    good = np.isfinite(values)
    values = np.where(good, values, values[good].mean() if good.any() else 0.0)
    fade = window("hann", values.shape)
    faded: Plane = (values - values.mean()) * fade
    return faded
