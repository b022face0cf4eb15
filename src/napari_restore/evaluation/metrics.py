"""Figures that compare a result with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Sides below this are too small for the window of `ssim`.
SSIM_WINDOW = 11


def _pair(result: Any, target: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(result, np.float64), np.asarray(target, np.float64)
    if first.shape != second.shape or not first.size:
        raise ImageError(
            f"Figures compare two images of one shape with pixels; got {first.shape} and "
            f"{second.shape}."
        )
    return first, second


def _check_range(data_range: float) -> None:
    if not 0 < data_range < np.inf:
        raise ImageError(f"data_range must be more than 0 and finite; got {data_range}.")


def psnr(result: Any, target: Any, data_range: float) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    result, target : array
        Of one shape, in the same units.
    data_range : float
        Difference between white and black, in the units of the images: 255 for 8 bits.

    Returns
    -------
    float
        In dB; infinite where the images are equal.

    Raises
    ------
    ImageError
        If the shapes differ, the images are empty, or the range is not positive.
    """
    first, second = _pair(result, target)
    _check_range(data_range)
    error = float(np.mean((first - second) ** 2))
    return float(10 * np.log10(data_range**2 / error)) if error else float("inf")


def ssim(result: Any, target: Any, data_range: float) -> float:
    """Structural similarity with a Gaussian window of σ = 1.5 (Wang et al., 2004).

    Parameters
    ----------
    result, target : array
        (Y, X), or (Y, X, C) for the mean over colors; sides of at least 11 pixels.
    data_range : float
        Difference between white and black, in the units of the images.

    Returns
    -------
    float
        At most 1, for equal images.

    Raises
    ------
    ImageError
        If the shapes differ or are too small, or the range is not positive.
    """
    from skimage.metrics import structural_similarity

    first, second = _pair(result, target)
    _check_range(data_range)
    if first.ndim not in (2, 3) or min(first.shape[:2]) < SSIM_WINDOW:
        raise ImageError(
            f"SSIM needs (Y, X) or (Y, X, C) with sides of at least {SSIM_WINDOW}; got "
            f"{first.shape}."
        )
    return float(
        structural_similarity(
            second,
            first,
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1 if first.ndim == 3 else None,
        )
    )


#: Weights of the scales of `ms_ssim`.
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(result: Any, target: Any, data_range: float) -> float:
    """Multiscale structural similarity (Wang, Simoncelli and Bovik, 2003).

    Parameters
    ----------
    result, target, data_range
        As for `ssim`.

    Returns
    -------
    float
        At most 1. Images of sides below 176 pixels have fewer scales, whose weights grow.

    Raises
    ------
    ImageError
        As `ssim`.
    """
    from scipy.ndimage import gaussian_filter

    whole = ssim(result, target, data_range)
    first, second = _pair(result, target)
    first, second = (part if part.ndim == 3 else part[..., None] for part in (first, second))
    sides = [side // SSIM_WINDOW for side in first.shape[:2]]
    count = max(1, min(len(_SCALES), int(np.log2(min(sides))) + 1))
    if count == 1:
        return whole
    weights = np.array(_SCALES[:count]) / sum(_SCALES[:count])
    low, high = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(part: NDArray[np.float64]) -> NDArray[np.float64]:
        filtered: NDArray[np.float64] = gaussian_filter(part, (1.5, 1.5, 0), truncate=3.5)
        return filtered

    total = 1.0
    for scale in range(count):
        means = mean(first), mean(second)
        variances = mean(first**2) - means[0] ** 2, mean(second**2) - means[1] ** 2
        both = mean(first * second) - means[0] * means[1]
        likeness = (2 * both + high) / (variances[0] + variances[1] + high)
        if scale == count - 1:
            likeness = likeness * (2 * means[0] * means[1] + low)
            likeness = likeness / (means[0] ** 2 + means[1] ** 2 + low)
        # Structure that is reversed has no root.
        total *= max(float(likeness.mean()), 0.0) ** weights[scale]
        height, width = (length // 2 * 2 for length in first.shape[:2])
        first, second = (
            part[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))
            for part in (first, second)
        )
    return float(total)


def ciede2000(result: Any, target: Any) -> float:
    """Mean color difference ΔE00 (Sharma, Wu and Dalal, 2005).

    Parameters
    ----------
    result, target : array
        sRGB (Y, X, 3) in [0, 1]; values outside are clipped.

    Returns
    -------
    float
        About 1 is just noticeable.

    Raises
    ------
    ImageError
        If the shapes differ or are not those of color images.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    first, second = _pair(result, target)
    if first.ndim != 3 or first.shape[-1] != 3:
        raise ImageError(f"ΔE00 compares colors, (Y, X, 3); got shape {first.shape}.")
    return float(
        deltaE_ciede2000(*(rgb2lab(np.clip(image, 0, 1)) for image in (second, first))).mean()
    )


def affine_fit(result: Any, target: Any) -> NDArray[np.float64]:
    """Gain and offset that bring a result nearest to the truth, applied to it.

    For comparisons in which a constant background and the brightness do not count: a method that
    removes out-of-focus light cannot know how much of the constant is light.

    Parameters
    ----------
    result, target : array
        Of one shape.

    Returns
    -------
    ndarray
        ``gain * result + offset`` of least squared distance to ``target``; float64.

    Raises
    ------
    ImageError
        If the shapes differ or the images are empty.
    """
    first, second = _pair(result, target)
    centered = first - first.mean()
    power = float((centered**2).sum())
    gain = float((centered * (second - second.mean())).sum()) / power if power else 0.0
    fitted: NDArray[np.float64] = gain * centered + second.mean()
    return fitted
