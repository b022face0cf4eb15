"""Samples as plain numbers, for formats that keep no slope and no intercept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class RescaleTransform:
    """How the samples of a picture become numbers in the units of the image (Hounsfield, say).

    Attributes
    ----------
    dtype : dtype
        Of the numbers.
    convert : callable
        From the samples to the numbers, in the same shape.
    """

    dtype: np.dtype[Any]
    convert: Callable[[NDArray[Any]], NDArray[Any]]


def integer_dtype(low: float, high: float, whole: bool) -> np.dtype[Any] | None:
    """Find the integers that hold a range exactly, of those that every format knows.

    Parameters
    ----------
    low, high : float
        The range.
    whole : bool
        Whether all numbers in it are whole.

    Returns
    -------
    dtype or None
        uint8, int16, uint16 or, if none will do, None.
    """
    for dtype in (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.uint16)):
        limits = np.iinfo(dtype)
        if whole and limits.min <= low and high <= limits.max:
            return dtype
    return None


def as_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers to a dtype; to integers by rounding, inside their range."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return rounded
