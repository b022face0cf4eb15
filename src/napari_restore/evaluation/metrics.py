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
