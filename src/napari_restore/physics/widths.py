"""Full widths of point spread functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .lengths import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def full_widths(psf: NDArray[np.floating], peak: Sequence[int] | None = None) -> tuple[float, ...]:
    """Full widths at half maximum along the axes through the brightest pixel, in pixels.

    Parameters
    ----------
    psf : ndarray
        Any number of axes.
    peak : sequence of int, optional
        The pixel, where it is not the brightest.
    """
    if peak is None:
        peak = [int(place) for place in np.unravel_index(int(psf.argmax()), psf.shape)]
    widths = []
    for axis in range(psf.ndim):
        place: tuple[int | slice, ...] = (*peak[:axis], slice(None), *peak[axis + 1 :])
        line = psf[place].astype(np.float64)
        level, top = line[peak[axis]] / 2, int(peak[axis])
        width = 0.0
        for side in (line[top::-1], line[top:]):
            under = np.flatnonzero(side < level)
            if len(under):
                end = int(under[0])
                width += end - (level - side[end]) / (side[end - 1] - side[end])
            else:
                width += len(side) - 0.5
        widths.append(width)
    return tuple(widths)


def describe_widths(psf: NDArray[np.floating], pixel_size: Sequence[float] | None = None) -> str:
    """Write down the full widths at half maximum, in pixels and, where known, in lengths."""
    widths = full_widths(psf)
    text = " × ".join(f"{width:.2f}" for width in widths) + " pixels"
    if pixel_size is None:
        return text
    lengths = (named(w * size) for w, size in zip(widths, pixel_size, strict=True))
    return f"{text} ({' × '.join(lengths)})"
