"""The intensity scale: found once, affine, inverted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .tiles import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .axes import Layout, Planes

#: Percentiles that become 0 and 1.
PERCENTILES = (0.5, 99.9)
#: Most pixels the scale is found from.
SAMPLE_PIXELS = 2**23
_WINDOW, _WINDOWS = 512, 16


@dataclass(frozen=True)
class Scale:
    """Affine map of intensities: ``low`` becomes 0, ``low + span`` becomes 1.

    A span of 0 marks a constant image, in which there is nothing to restore.
    """

    low: float
    span: float

    def normalise(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """To the network's range; the difference is taken before precision is lost."""
        if self.span == 0:
            return np.zeros(block.shape, np.float32)
        wide = np.dtype(np.float64 if block.dtype.itemsize > 2 else np.float32)
        normal: NDArray[Any] = (block.astype(wide) - wide.type(self.low)) / wide.type(self.span)
        return normal.astype(np.float32)


def sample_regions(
    layout: Layout, pixels: int = SAMPLE_PIXELS
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Choose a bounded, even sample of an image: (plane index, region).

    Small images are taken whole. Of large ones, planes are spread evenly over the stack and square
    windows evenly over each plane, so that lazy data read few chunks. The choice depends on the
    shape alone.
    """
    height, width = layout.size
    if layout.pixels <= pixels:
        whole = Region(0, 0, height, width)
        yield from ((index, whole) for index in layout.indices())
        return
    # The channel axis is walked in full, the others are counted through.
    channel = layout.axes.find("C")
    counts = tuple(1 if axis == channel else layout.shape[axis] for axis in layout.leading)
    total = int(np.prod(counts, dtype=np.int64))
    share = pixels // layout.groups
    want = min(total, max(1, share // min(height * width, _WINDOWS * _WINDOW**2)))
    for number in np.unique(np.linspace(0, total - 1, want).round().astype(np.int64)):
        index = tuple(int(i) for i in np.unravel_index(int(number), counts)) if counts else ()
        for group in range(layout.groups):
            chosen = tuple(
                group if axis == channel else i
                for axis, i in zip(layout.leading, index, strict=True)
            )
            yield from ((chosen, region) for region in _spread(height, width, share // want))


def _spread(height: int, width: int, budget: int) -> Iterator[Region]:
    if height * width <= budget:
        yield Region(0, 0, height, width)
        return
    side = max(1, min(_WINDOW, int(budget**0.5)))
    count = max(1, int((budget / side**2) ** 0.5))
    for top in _starts(height, count, side):
        for left in _starts(width, count, side):
            yield Region(top, left, min(top + side, height), min(left + side, width))


def _starts(length: int, count: int, side: int) -> list[int]:
    last = max(0, length - side)
    count = min(count, -(-length // side))
    if count == 1:
        return [last // 2]
    return np.linspace(0, last, count).round().astype(int).tolist()  # type: ignore[no-any-return]


def find_scales(planes: Planes, from_zero: bool = False) -> tuple[Scale, ...]:
    """Find the scale of each channel of an image.

    Parameters
    ----------
    planes : Planes
        The whole image.
    from_zero : bool
        Take 0 for black, where it has a physical meaning, instead of a percentile.

    Returns
    -------
    tuple of Scale
        One for each channel; one alone where there is no channel axis. 8-bit colour is /255, all
        else lies between robust percentiles of a bounded sample. NaN and infinities do not count.
    """
    layout, dtype = planes.layout, np.dtype(planes.array.dtype)
    if dtype == np.bool_:
        return (Scale(0.0, 1.0),) * layout.groups
    if layout.colour and dtype == np.uint8:
        return (Scale(0.0, 255.0),) * layout.groups
    values: list[list[NDArray[Any]]] = [[] for _ in range(layout.groups)]
    for index, region in sample_regions(layout):
        block = planes.read(index, region)[..., : layout.channels]
        values[layout.group(index)].append(block[np.isfinite(block)].ravel())
    return tuple(
        _scale(np.concatenate(parts) if parts else np.empty(0), from_zero) for parts in values
    )


def _scale(values: NDArray[Any], from_zero: bool) -> Scale:
    if values.size == 0:
        return Scale(0.0, 0.0)
    # NumPy interpolates in the dtype, where differences of signed integers can wrap around.
    wide = (
        values.astype(np.float64)
        if values.dtype.itemsize > 2 or values.dtype.kind in "if"
        else values
    )
    low, high = (float(value) for value in np.percentile(wide, PERCENTILES))
    if high <= low:
        # A few structures on an even background: percentiles see the background alone.
        low, high = float(wide.min()), float(wide.max())
    if from_zero:
        low = min(0.0, low)
    return Scale(low, high - low if np.isfinite(high - low) else 0.0)


def fill_invalid(block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Replace NaN and infinities by their nearest valid pixel.

    Parameters
    ----------
    block : ndarray
        (h, w, S).

    Returns
    -------
    filled, invalid
        The block without gaps, and where they were ((h, w, S)); None if there were none.
    """
    if block.dtype.kind != "f":
        return block, None
    invalid = ~np.isfinite(block)
    if not invalid.any():
        return block, None
    from scipy.ndimage import distance_transform_edt

    filled = block.copy()
    for sample in range(block.shape[-1]):
        gaps = invalid[..., sample]
        if gaps.all():
            filled[..., sample] = 0
        elif gaps.any():
            nearest = distance_transform_edt(gaps, return_distances=False, return_indices=True)
            filled[..., sample] = block[..., sample][tuple(nearest)]
    return filled, invalid


def removed_light(source: Any, result: Any) -> Any:
    """Find what a restoration took away: the result plus this is the source, exactly.

    Only the sum of two float64 is rounded.

    Parameters
    ----------
    source, result : array
        Of one shape and dtype; NumPy or dask.

    Returns
    -------
    array
        int32 or int64, float64 for floats. Differences of 64-bit integers may wrap around; added
        to the result they still give the source.
    """
    dtype = np.dtype(source.dtype)
    wide: Any = np.int32 if dtype.itemsize <= 2 else np.int64
    if dtype.kind == "f":
        wide = np.float64
    # Infinities are in both.
    with np.errstate(invalid="ignore"):
        return source.astype(wide) - result.astype(wide)


def add_change(block: NDArray[Any], change: NDArray[np.floating]) -> tuple[NDArray[Any], int]:
    """Add the restoration's change to the original samples, in the original dtype.

    Adding the change, instead of converting the restored values back, keeps untouched pixels
    bit for bit.

    Parameters
    ----------
    block : ndarray
        Original samples.
    change : ndarray
        What to add, in the units of ``block``; float64, or float32 for integers of up to 16 bits.

    Returns
    -------
    result, clipped
        The sum in the dtype of ``block``, and how many samples had to be clipped into it.
    """
    dtype = block.dtype
    if dtype.kind == "b":
        return block.astype(np.float32) + change >= 0.5, 0
    if dtype.kind == "f":
        # A float16 sum may leave the range of the dtype; wider floats do not.
        wide = block.astype(np.float64)
        with np.errstate(over="ignore"):
            # Adding 0 would turn a negative zero into a positive one.
            total = np.where(change == 0, wide, wide + change)
        limit = float(np.finfo(dtype).max)
        clipped = np.isfinite(block) & (np.abs(total) > limit)
        if clipped.any():
            total = np.where(clipped, np.clip(total, -limit, limit), total)
        return total.astype(dtype), int(np.count_nonzero(clipped))
    limits = np.iinfo(dtype)
    if dtype.itemsize < 8:
        total = block.astype(change.dtype)
        total += change
        np.rint(total, out=total)
        count = 0
        if total.size and (total.min() < limits.min or total.max() > limits.max):
            count = int(np.count_nonzero((total < limits.min) | (total > limits.max)))
            np.clip(total, limits.min, limits.max, out=total)
        return total.astype(dtype), count
    # float64 does not hold every 64-bit integer: the room up to the limit is found in integers,
    # modulo 2**64.
    step, start = np.rint(change), block.astype(np.uint64)
    size = np.minimum(np.abs(step), 2.0**64 - 2048).astype(np.uint64)
    first = np.array(limits.min, dtype).astype(np.uint64)
    room = np.where(step > 0, np.uint64(limits.max) - start, start - first)
    clipped, size = size > room, np.minimum(size, room)
    result = np.where(step > 0, start + size, start - size).astype(dtype)
    return result, int(np.count_nonzero(clipped))
