"""From samples to what a network sees, and from what it changes to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_restore.image.gaps import fill_gaps, find_gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes
    from napari_restore.image.tiling import Region

#: Side in pixels of the squares that integers of few counts keep their light in.
SQUARE = 8
#: Rows that are converted at once: what is in between stays small. A multiple of `SQUARE`.
BAND = 64


def as_seen(
    block: NDArray[Any], scale: Scale, layout: Layout, rows: range, columns: range
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Bring samples to what a network sees, with their surroundings in the place of gaps.

    Parameters
    ----------
    block : ndarray
        (h, w, S), samples of one plane.
    scale : Scale
    layout : Layout
        Of the whole image.
    rows, columns : range
        Where the samples are in their plane.

    Returns
    -------
    ndarray, ndarray or None
        (h, w, C), and where the gaps are, see `napari_restore.image.gaps.find_gaps`.
    """
    gaps = find_gaps(block, scale, layout.channels, rows, columns, layout.size)
    filled = fill_gaps(block[..., : layout.channels], gaps)
    seen = np.empty(filled.shape, np.float32)
    for first in range(0, len(seen), BAND):
        band = slice(first, first + BAND)
        seen[band] = scale.normalize(filled[band])
    return seen, gaps


def normalized(
    source: Planes,
    index: tuple[int, ...],
    region: Region,
    scale: Scale,
    frames: int,
    block: NDArray[Any] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Read what a network sees of a region: (h, w, C), or with two frames (h, w, 2 C).

    ``block`` is what `Planes.read` gives for the region, if it was read already. The gaps of the
    first frame come with it, see `as_seen`.
    """
    rows, columns = range(region.top, region.bottom), range(region.left, region.right)
    block = source.read(index, region) if block is None else block
    seen, gaps = as_seen(block, scale, source.layout, rows, columns)
    if frames == 1:
        return seen, gaps
    block = source.read(source.layout.neighbor(index), region)
    other, _ = as_seen(block, scale, source.layout, rows, columns)
    # A frame without an image, the shutter closed or the camera blinded, shows no motion.
    return np.concatenate([seen, seen if is_even(other) else other], -1), gaps


def is_even(block: NDArray[Any]) -> bool:
    """Whether all samples (h, w, C) of each channel are the same."""
    return bool(block.size == 0 or (block == block[:1, :1]).all())


def as_they_are(
    source: Planes, index: tuple[int, ...], region: Region, frames: int, block: NDArray[Any]
) -> NDArray[Any]:
    """Read the samples of what a network sees of a region; parameters as for `normalized`."""
    channels = source.layout.channels
    blocks = [block]
    if frames == 2:
        blocks.append(source.read(source.layout.neighbor(index), region))
    if len(blocks) == 1 and channels == block.shape[-1]:
        return np.ascontiguousarray(block)
    return np.concatenate([part[..., :channels] for part in blocks], -1)


def fit_float32(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every sum of a sample and a change of it: integers of 8 and 16 bits."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def add_residual(
    original: NDArray[Any],
    change: NDArray[np.float32],
    scale: Scale,
    strength: float,
    gaps: NDArray[np.bool_] | None = None,
    place: Place | None = None,
) -> tuple[NDArray[Any], int, int]:
    """Add the network's change to samples (h, w, S).

    Parameters
    ----------
    original : ndarray
        (h, w, S).
    change : ndarray
        (h, w, C).
    scale : Scale
    strength : float
    gaps : ndarray, optional
        (h, w, C), samples that stay as they are.
    place : Place, optional
        Where integers of few counts lie, which keep their light: see `whole_changes`.

    Returns
    -------
    ndarray, int, int
        The samples, how many were clipped, and how many were held in the range of the image.
    """
    kind = np.float32 if fit_float32(original.dtype) else np.float64
    scaled: NDArray[Any] = change * kind(strength * scale.span)
    if gaps is not None:
        scaled[gaps] = 0
    seen = original[..., : change.shape[-1]]
    if place is not None:
        scaled = whole_changes(seen, scaled, scale.floor, place)
    restored, count = add_change(seen, scaled)
    restored = _not_missing(restored, seen, scale)
    held = 0
    if scale.holds and restored.dtype != np.bool_:
        floor, ceiling = (np.array(end).astype(seen.dtype) for end in (scale.floor, scale.ceiling))
        # What is outside already, beyond the sample that the range was found from, stays.
        inside = np.clip(restored, np.minimum(seen, floor), np.maximum(seen, ceiling))
        held = int(np.count_nonzero((inside != restored) & (restored == restored)))
        restored = inside
    return with_alpha(restored, original), count, held


class Place(NamedTuple):
    """Where samples are in their image.

    Attributes
    ----------
    plane : int
        Number of the plane.
    region : Region
        Rows and columns of it.
    in_squares : bool
        Whether it holds squares of `SQUARE` pixels as a whole, but for the far borders of the
        plane.
    """

    plane: int
    region: Region
    in_squares: bool


def whole_changes(
    seen: NDArray[Any], change: NDArray[np.floating], floor: float, place: Place
) -> NDArray[np.float64]:
    """Round changes of integers up or down so that no light is lost.

    On average every change is what it was, and in every square the sum is, to less than 1. What
    would leave samples below the least that they can be is taken from the others in the square.

    Parameters
    ----------
    seen : ndarray
        (h, w, C), integers.
    change : ndarray
        (h, w, C), what will be added.
    floor : float
        Least value of a result.
    place : Place
        The same place is rounded the same way always.

    Returns
    -------
    ndarray
        (h, w, C), whole numbers.
    """
    height, width, channels = seen.shape
    order, start = _order_of(place)
    if not place.in_squares:
        # As in squares of one sample each.
        even = order.argsort(-1) + start[..., None]
        dither = _from_squares(even[..., None] / SQUARE**2, place.region)
        rounded: NDArray[np.float64] = np.floor(change + dither)
        return rounded
    below, right = -height % SQUARE, -width % SQUARE
    shape = (height + below) // SQUARE, SQUARE, (width + right) // SQUARE, SQUARE, channels

    def squares(samples: NDArray[Any]) -> NDArray[np.float64]:
        padded = np.pad(samples.astype(np.float64), ((0, below), (0, right), (0, 0)))
        parts = padded.reshape(shape).transpose(0, 2, 4, 1, 3)
        return parts.reshape(*parts.shape[:3], SQUARE**2)

    least = max(floor, float(np.iinfo(seen.dtype).min))
    # More than enough to take from, and exact in float64.
    step, room = squares(change), np.minimum(squares(seen) - least, 2.0**40)
    wanted = np.where(step != 0, room + step, 0)
    too_little = np.minimum(wanted, 0).sum(-1, keepdims=True)
    wanted = np.maximum(wanted, 0)
    total = wanted.sum(-1, keepdims=True)
    share = np.maximum(0, 1 + too_little / np.where(total > 0, total, 1))
    step = np.where((step != 0) & (too_little < 0), wanted * share - room, step)
    along = np.broadcast_to(order[:, :, None], step.shape)
    # Systematic sampling: sums along the order, from a start that is random, are rounded down.
    sums = np.take_along_axis(step, along, -1).cumsum(-1)
    whole = np.diff(np.floor(sums + start[:, :, None, None]), axis=-1, prepend=0)
    out = np.empty_like(whole)
    np.put_along_axis(out, along, whole, -1)
    out = out.reshape(*out.shape[:3], SQUARE, SQUARE).transpose(0, 3, 1, 4, 2)
    return out.reshape(height + below, width + right, channels)[:height, :width]


def _order_of(place: Place) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find an order of the pixels of each square, (rows, columns, pixels), and where to start.

    Both are random, and belong to the place alone; starts are in [0, 1).
    """
    tile = place.region
    top, left = (start // SQUARE for start in (tile.top, tile.left))
    bottom, right = (-(-stop // SQUARE) for stop in (tile.bottom, tile.right))
    rows = np.arange(top * SQUARE, bottom * SQUARE, dtype=np.uint32)[:, None]
    columns = np.arange(left * SQUARE, right * SQUARE, dtype=np.uint32)[None]
    mixed = rows * np.uint32(0x9E3779B1) + columns * np.uint32(0x85EBCA77)
    mixed += np.uint32(place.plane * 0xC2B2AE3D & 0xFFFFFFFF)
    # The last steps of MurmurHash3 (Appleby): every bit of the place reaches every bit.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    grid = (bottom - top, SQUARE, right - left, SQUARE)
    squares = mixed.reshape(grid).transpose(0, 2, 1, 3).reshape(*grid[::2], -1)
    start = squares[..., 0] * np.uint32(0x9E3779B1) >> np.uint32(16)
    return squares.argsort(-1, kind="stable"), start / 2**16


def _from_squares(squares: NDArray[np.float64], region: Region) -> NDArray[np.float64]:
    """Bring numbers of the pixels of squares, (rows, columns, pixels, 1), to those of a region."""
    rows, columns = squares.shape[:2]
    grid = squares.reshape(rows, columns, SQUARE, SQUARE, 1).transpose(0, 2, 1, 3, 4)
    whole = grid.reshape(rows * SQUARE, columns * SQUARE, 1)
    top, left = region.top % SQUARE, region.left % SQUARE
    return whole[top : top + region.height, left : left + region.width]


def with_alpha(restored: NDArray[Any], original: NDArray[Any]) -> NDArray[Any]:
    """Add the alpha of the original, if it has one."""
    if restored.shape == original.shape:
        return restored
    return np.concatenate([restored, original[..., restored.shape[-1] :]], -1)


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


def _not_missing(restored: NDArray[Any], seen: NDArray[Any], scale: Scale) -> NDArray[Any]:
    """Let no sample get the value of those that were not measured, but the next to it."""
    for value in scale.missing:
        mark = np.asarray(value).astype(seen.dtype)
        taken = (restored == mark) & (seen != mark)
        if mark != value or not taken.any():
            continue
        if seen.dtype.kind == "f":
            restored = np.where(taken, np.nextafter(mark, seen), restored)
        else:
            step = np.where(seen > mark, 1, -1).astype(seen.dtype)
            restored = np.where(taken, mark + step, restored)
    return restored


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
