"""Measured point spread functions: made fit for an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import interpolate, ndimage

from napari_restore.errors import PsfError

from .lengths import micrometers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .lengths import Length

    Floats = NDArray[np.float64]
    Sizes = Length | Sequence[Length]

#: A border that holds less of the light than this, if it went all the way, is no background.
BACKGROUND = 0.1
#: Light that may be cut off with the edge of a PSF that is larger than the image.
LOST = 0.02


@dataclass(frozen=True)
class MeasuredPsf:
    """A point spread function that fits an image.

    Attributes
    ----------
    array : ndarray
        (Y, X) or (Z, Y, X), float32, odd sides, sum 1, the point in the middle.
    notes : tuple of str
        What was done to the measurement.
    """

    array: NDArray[np.float32]
    notes: tuple[str, ...] = ()


def as_psf(
    array: Any,
    pixel_size: Sizes | None = None,
    image_pixel_size: Sizes | None = None,
    dimensions: int = 2,
    *,
    image_shape: Sequence[int] | None = None,
    center: bool | None = None,
    computed: bool = False,
) -> MeasuredPsf:
    """Make a measured point spread function fit for an image.

    Parameters
    ----------
    array : array-like
        (Y, X) or (Z, Y, X), and axes of length 1 anywhere; any number of pixels. Equal channels (a
        gray picture saved as RGB) count as one.
    pixel_size, image_pixel_size : length or sequence of lengths, optional
        Of the measurement and of the image: one for all axes, or one for each axis. Numbers are µm,
        unless both are plain numbers: then any unit will do. Without one of them, both are equal.
    dimensions : int
        2 or 3.
    image_shape : sequence of int, optional
        (Y, X) or (Z, Y, X).
    center : bool, optional
        Whether the center of mass is brought to the middle. By default it is, unless the
        array is plainly a kernel already: odd sides, no background, nothing below 0, pixels of the
        image. Then its middle is where the point was, whatever its shape.
    computed : bool
        It was computed, not measured: there is no background in it.

    Raises
    ------
    PsfError
        Where no point spread function can be made of it.
    """
    values, notes = _plain(array, dimensions)
    exact = all(side % 2 for side in values.shape) and values.min() >= 0
    removed: list[str] = []
    if not (computed and exact):
        values, removed = _without_background(values)
    notes += removed
    factors = _factors(pixel_size, image_pixel_size, dimensions)
    middle = [(side - 1) / 2 for side in values.shape]
    exact = exact and not removed and all(factor == 1 for factor in factors)
    if center or (center is None and not exact):
        middle, moved = _center(values)
        notes += moved
    if not exact or center:
        values, resampled = _resampled(values, middle, factors)
        notes += resampled
    if image_shape is not None:
        values, cut = _fitting(values, image_shape, computed)
        notes += cut
    return MeasuredPsf((values / values.sum()).astype(np.float32), tuple(notes))


def _plain(array: Any, dimensions: int) -> tuple[Floats, list[str]]:
    """Numbers without axes of length 1, if there is one of them for each place."""
    if dimensions not in (2, 3):
        raise PsfError(f"An image is restored in 2 or 3 dimensions, not {dimensions}.")
    given = np.asarray(array)
    if given.dtype.kind not in "buif":
        raise PsfError(f"The PSF has the dtype {given.dtype}. Give real numbers.")
    values, notes = given.astype(np.float64), []
    if values.ndim > dimensions:
        spare = [axis for axis, side in enumerate(values.shape) if side == 1]
        values = values.squeeze(tuple(spare[: values.ndim - dimensions]))
    if values.ndim == dimensions + 1 and values.shape[-1] in (3, 4):
        colors = values[..., :3]
        if (colors == colors[..., :1]).all():
            values = colors[..., 0]
            notes.append("The three channels of the PSF are equal: one was taken.")
    if values.ndim != dimensions:
        axes = "(Y, X)" if dimensions == 2 else "(Z, Y, X)"
        raise PsfError(
            f"The PSF has the shape {given.shape}, and {axes} is needed. "
            f"{_remedy(given, dimensions)}"
        )
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise PsfError(
            f"The PSF holds {count} samples that are NaN or infinite. Replace them by 0, or by the "
            "mean of their neighbors."
        )
    if not values.any():
        raise PsfError(f"The PSF of shape {values.shape} is 0 everywhere. Choose another.")
    if values.sum() <= 0:
        raise PsfError(
            f"The PSF has the sum {values.sum():.4g}, and light is positive. Was too much "
            "background subtracted from it, or is it inverted?"
        )
    return values, notes


def _remedy(given: NDArray[Any], dimensions: int) -> str:
    if given.ndim == dimensions + 1 and (given.shape[-1] in (3, 4) or given.shape[0] <= 4):
        return "It seems to have several channels: choose one, or restore each with its own."
    if given.ndim == 3 and dimensions == 2:
        return f"Choose its plane in focus, psf[{given.shape[0] // 2}], or restore as a volume."
    if given.ndim == 2 and dimensions == 3:
        return "Give a PSF with planes, or restore plane by plane."
    return "Choose a part of it with the right axes."


def _without_background(values: Floats) -> tuple[Floats, list[str]]:
    """Remove an even background and the noise on it, where the border shows them."""
    notes: list[str] = []
    border = np.ones(values.shape, bool)
    border[tuple(slice(1, -1) if side > 2 else slice(None) for side in values.shape)] = False
    if min(values.shape[-2:]) >= 5 and border.sum() >= 16:
        edge = values[border]
        level = float(np.median(edge))
        noise = 1.4826 * float(np.median(np.abs(edge - level)))
        matters = abs(level) * values.size > BACKGROUND * np.abs(values).sum()
        if (matters or values.min() < 0) and level + 3 * noise < 0.5 * values.max():
            values = values - level
            faint = values < 2 * noise
            values = np.where(faint, 0, values)
            notes.append(f"A background of {level:.4g} (noise {noise:.2g}) was removed.")
    if values.min() < 0:
        share = -values[values < 0].sum() / values[values > 0].sum()
        values = values.clip(0)
        notes.append(f"Samples below 0 ({share:.2g} of the light) were set to 0.")
    return values, notes


def _factors(have: Sizes | None, want: Sizes | None, dimensions: int) -> list[float]:
    """Pixels of the image for one of the measurement, along each axis."""
    if have is None or want is None:
        return [1.0] * dimensions
    sizes = [_each(size, dimensions, name) for size, name in ((have, "PSF"), (want, "image"))]
    return [
        a / b if not math.isclose(a, b, rel_tol=1e-3) else 1.0 for a, b in zip(*sizes, strict=True)
    ]


def _each(size: Sizes, dimensions: int, name: str) -> list[float]:
    each: Any = size
    if not isinstance(each, (tuple, list)) and np.ndim(getattr(each, "magnitude", each)) == 0:
        each = [each] * dimensions
    lengths = [micrometers(length, f"pixel size of the {name}") for length in each]
    if len(lengths) != dimensions or min(lengths) <= 0:
        raise PsfError(
            f"The pixel size of the {name} is {size!r}. Give one length above 0 for all axes, or "
            f"{dimensions}, one for each."
        )
    return lengths


def _center(values: Floats) -> tuple[list[float], list[str]]:
    """Center of the light, without what is faint: noise far out weighs most."""
    bright = np.where(values >= 0.1 * values.max(), values, 0)
    middle = [float(place) for place in ndimage.center_of_mass(bright)]
    moves = [m - (side - 1) / 2 for m, side in zip(middle, values.shape, strict=True)]
    if max(map(abs, moves)) < 0.05:
        return middle, []
    text = ", ".join(f"{move:+.2f}" for move in moves)
    return middle, [f"The PSF was centered; its center lay {text} pixels from the middle."]


def _resampled(
    values: Floats, middle: Sequence[float], factors: Sequence[float]
) -> tuple[Floats, list[str]]:
    """Sample anew with the point in the middle of an odd number of pixels along each axis."""
    sides = values.shape
    for axis, (center, factor) in enumerate(zip(middle, factors, strict=True)):
        side = values.shape[axis]
        half = math.ceil(max(center, side - 1 - center) * factor - 1e-6)
        # Pixels larger than those measured hold the mean of several.
        parts = 1 if factor >= 1 else 2 * math.ceil(1 / factor)
        line = np.arange(-half, half + 1)[:, None] + (np.arange(parts) + 0.5) / parts - 0.5
        places = line / factor + center
        weights = _spline_weights(side, places)
        values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
    values = _trimmed(values.clip(0))
    if all(factor == 1 for factor in factors):
        return values, []
    names = "ZYX"[-len(factors) :]
    text = ", ".join(f"{n} × {f:.4g}" for n, f in zip(names, factors, strict=True))
    said = f"The PSF was resampled to the pixels of the image ({text})"
    return values, [f"{said}: {sides} → {values.shape}."]


def _spline_weights(side: int, places: Floats) -> Floats:
    """Means of cubic splines through samples at groups of places, as a matrix; 0 outside."""
    if side < 4:
        tent = np.maximum(0, 1 - np.abs(places[..., None] - np.arange(side)))
        means: Floats = tent.mean(axis=1)
        return means
    # Zeros around keep the spline from swinging out of the samples.
    padded = interpolate.make_interp_spline(np.arange(-3, side + 3), np.eye(side + 6), k=3)
    means = padded(places.clip(-3, side + 2))[..., 3:-3].mean(axis=1)
    return means


def _trimmed(values: Floats, least: float = 1e-4) -> Floats:
    """Cut edges off, the same on both sides, that hold next to nothing."""
    for axis in range(values.ndim):
        others = tuple(other for other in range(values.ndim) if other != axis)
        line, half = values.sum(axis=others), values.shape[axis] // 2
        kept = [line[half - h : half + h + 1].sum() for h in range(half + 1)]
        near = next(h for h, light in enumerate(kept) if light >= (1 - least) * kept[-1])
        values = np.take(values, range(half - near, half + near + 1), axis)
    return values


def _fitting(
    values: Floats, shape: Sequence[int], computed: bool = False
) -> tuple[Floats, list[str]]:
    """Cut off what reaches beyond an image, if that is next to nothing, or no mistake."""
    # Planes further apart than the stack is high never meet; that is no sign of a mistake.
    limits = [2 * shape[-3] - 1] if values.ndim == 3 else []
    limits += [side - 1 + side % 2 for side in shape[-2:]]
    if all(side <= limit for side, limit in zip(values.shape, limits, strict=True)):
        return values, []
    inner = []
    for side, limit in zip(values.shape, limits, strict=True):
        off = max(0, side // 2 - limit // 2)
        inner.append(slice(off, side - off))
    cut = values[tuple(inner)]
    across = values.sum(axis=tuple(range(values.ndim - 2)))[tuple(inner[-2:])].sum()
    if across < (1 - LOST) * values.sum() and not computed:
        raise PsfError(
            f"The PSF has {values.shape[-2:]} pixels, in those of the image, which has "
            f"{tuple(shape[-2:])}. A PSF is smaller than its image: check the pixel sizes, or give "
            "the part around the point."
        )
    return cut, [f"The PSF was cut to what fits the image: {values.shape} → {cut.shape}."]
