"""From samples to what a network sees, and from what it changes to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.gaps import fill_gaps, find_gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes
    from napari_restore.image.tiling import Region

#: Side in pixels of the squares that integers of few counts keep their light in.
SQUARE = 8
#: Rows that are converted at once: what is in between stays small.
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
    dither: NDArray[np.float32] | None = None,
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
    dither : ndarray, optional
        (h, w, 1), see `add_change`.

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
    restored, count = add_change(seen, scaled, dither)
    held = 0
    if scale.holds and restored.dtype != np.bool_:
        floor, ceiling = (np.array(end).astype(seen.dtype) for end in (scale.floor, scale.ceiling))
        # What is outside already, beyond the sample that the range was found from, stays.
        inside = np.clip(restored, np.minimum(seen, floor), np.maximum(seen, ceiling))
        held = int(np.count_nonzero((inside != restored) & (restored == restored)))
        restored = inside
    return with_alpha(restored, original), count, held


def dither_of(plane: int, tile: Region) -> NDArray[np.float32]:
    """Numbers in [0, 1) for the pixels of a tile, (h, w, 1): the same for a place, always.

    In every square of `SQUARE` pixels they are spread evenly over the range, so that sums over
    squares are kept nearly exactly; their order within is random.

    Parameters
    ----------
    plane : int
        Number of the plane.
    tile : Region
    """
    top, left = (start // SQUARE for start in (tile.top, tile.left))
    bottom, right = (-(-stop // SQUARE) for stop in (tile.bottom, tile.right))
    rows = np.arange(top * SQUARE, bottom * SQUARE, dtype=np.uint32)[:, None]
    columns = np.arange(left * SQUARE, right * SQUARE, dtype=np.uint32)[None]
    mixed = rows * np.uint32(0x9E3779B1) + columns * np.uint32(0x85EBCA77)
    mixed += np.uint32(plane * 0xC2B2AE3D & 0xFFFFFFFF)
    # The last steps of MurmurHash3 (Appleby): every bit of the place reaches every bit.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    grid = (bottom - top, SQUARE, right - left, SQUARE)
    squares = mixed.reshape(grid).transpose(0, 2, 1, 3).reshape(*grid[::2], -1)
    rank = squares.argsort(-1, kind="stable").argsort(-1)
    within = (squares * np.uint32(0x9E3779B1) >> np.uint32(16)).astype(np.float32) / 2**16
    even = ((rank + within) / SQUARE**2).astype(np.float32)
    ordered = even.reshape(*grid[::2], SQUARE, SQUARE).transpose(0, 2, 1, 3)
    whole = ordered.reshape(grid[0] * SQUARE, grid[2] * SQUARE)
    first, start = tile.top - top * SQUARE, tile.left - left * SQUARE
    part: NDArray[np.float32] = whole[first : first + tile.height, start : start + tile.width]
    # Rounded up, the last of them would be 1.
    return part.clip(max=np.float32(1 - 2**-24))[..., None]


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


def add_change(
    block: NDArray[Any],
    change: NDArray[np.floating],
    dither: NDArray[np.floating] | None = None,
) -> tuple[NDArray[Any], int]:
    """Add the restoration's change to the original samples, in the original dtype.

    Adding the change, instead of converting the restored values back, keeps untouched pixels
    bit for bit.

    Parameters
    ----------
    block : ndarray
        Original samples.
    change : ndarray
        What to add, in the units of ``block``; float64, or float32 for integers of up to 16 bits.
    dither : ndarray, optional
        Numbers in [0, 1) by which changes of integers are rounded, so that on average none of the
        light is lost: down if a number and the fraction of the change are less than 1 together.

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
    if dither is not None:
        change = np.floor(change + dither)
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
