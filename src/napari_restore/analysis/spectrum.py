"""What the power spectrum of an image says about its blur.

Images of all kinds have spectra that fall with the frequency as a power of it, nearly. Blur
multiplies that by its transfer function: a disk leaves rings of zeros, a Gaussian a smooth fall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Rings of the spectrum, from frequency 0 to half a cycle per pixel; the first hold the shape of
#: the window.
_RINGS, _FIRST = 85, 4
#: Side of the transform of a point spread function.
_SIDE = 256
#: More samples in a ring than this make it no surer: images are not quite as the model has them.
_ENOUGH = 100
#: How far a law may bend on a logarithmic scale, and its exponents.
_BEND, _EXPONENTS = 0.6, (0.5, 4.5)


class Spectrum(NamedTuple):
    """Mean power in rings of equal frequency.

    Attributes
    ----------
    frequency : ndarray
        (rings,), cycles per pixel.
    power : ndarray
        (rings,), the image's units squared.
    weight : ndarray
        (rings,), how much each counts.
    """

    frequency: Floats
    power: Floats
    weight: Floats


def _ring(shape: tuple[int, int]) -> tuple[Floats, NDArray[np.intp]]:
    """Frequency of each sample of a transform, and its ring; `_RINGS` beyond the last."""
    along = (np.fft.fftfreq(length) for length in shape)
    y, x = np.meshgrid(*along, indexing="ij", sparse=True)
    frequency = np.hypot(y, x).ravel()
    ring = np.minimum((frequency * 2 * _RINGS).astype(np.intp), _RINGS)
    return frequency, ring


def _means(values: Floats, ring: NDArray[np.intp]) -> tuple[Floats, Floats]:
    count = np.bincount(ring, minlength=_RINGS + 1)[:_RINGS].astype(np.float64)
    total = np.bincount(ring, weights=values.ravel(), minlength=_RINGS + 1)[:_RINGS]
    return total / np.maximum(count, 1), count


def power_spectrum(plane: NDArray[np.floating]) -> Spectrum:
    """Find the power spectrum of a plane (H, W), apart from its lowest frequencies.

    Its border is faded out (Hann window), so that it does not count as an edge.
    """
    fade = np.outer(*(np.hanning(length + 2)[1:-1] for length in plane.shape))
    samples = plane.astype(np.float64)
    samples = (samples - (samples * fade).sum() / fade.sum()) * fade
    power = np.abs(np.fft.fft2(samples)) ** 2 / (fade**2).sum()
    frequency, ring = _ring((plane.shape[0], plane.shape[1]))
    means, count = _means(power, ring)
    where, _ = _means(frequency, ring)
    kept = np.flatnonzero((count > 0) & (means > 0))
    kept = kept[kept >= _FIRST]
    return Spectrum(where[kept], means[kept], np.sqrt(np.minimum(count[kept], _ENOUGH)))


def transfer(psf: NDArray[np.floating]) -> Floats:
    """Square of the modulation transfer function of a PSF (k, k), for each of the rings."""
    power = np.abs(np.fft.fft2(psf.astype(np.float64), (_SIDE, _SIDE))) ** 2
    return _means(power, _ring((_SIDE, _SIDE))[1])[0]


def misfit(spectrum: Spectrum, transferred: Floats) -> float:
    """Say how badly a blur explains a spectrum: the less, the better.

    Fitted are a bent power law, which is the sharp image's, times the transfer function, and even
    noise.

    Parameters
    ----------
    spectrum : Spectrum
    transferred : ndarray
        Of `transfer`.

    Returns
    -------
    float
        Half the sum of weighted squares of what is left of the logarithm; large ones count less.
    """
    frequency, power, weight = spectrum
    passed = np.interp(frequency, (np.arange(_RINGS) + 0.5) / (2 * _RINGS), transferred)
    line, seen = np.log(frequency), np.log(power)
    bend = (line - line.mean()) ** 2
    low, high = float(seen.min()) - 12, float(seen.max()) + 12

    def parts(law: Floats) -> tuple[Floats, float]:
        return np.exp(law[0] - law[1] * line - law[2] * bend) * passed, float(np.exp(law[3]))

    def left(law: Floats) -> Floats:
        sharp, noise = parts(law)
        off: Floats = weight * (seen - np.log(sharp + noise))
        return off

    def slopes(law: Floats) -> Floats:
        sharp, noise = parts(law)
        share = sharp / (sharp + noise)
        columns = (-share, share * line, share * bend, share - 1)
        slope: Floats = weight[:, None] * np.stack(columns, 1)
        return slope

    floor = float(np.sort(seen)[:5].mean())
    start = [float(seen[:5].mean() + 2 * line[:5].mean()), 2.0, 0.0, floor]
    least, most = _EXPONENTS
    found = optimize.least_squares(
        left,
        start,
        slopes,
        bounds=([low - 20, least, -_BEND, low], [high + 20, most, _BEND, high]),
        loss="soft_l1",
    )
    return float(found.cost)
