"""Deconvolution of images of any size: in blocks whose margins follow from the PSF."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_restore.errors import PsfError

from .deconvolution import RichardsonLucy, Scale, Wiener

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Block = tuple[slice, ...]

#: Voxels, margins among them, that are deconvolved at once: 0.5 to 1.8 GB at work, by the method.
VOXELS = 2**24


class _Samples(Protocol):
    """An array of NumPy, dask or zarr."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, place: Any, /) -> Any: ...


Method = RichardsonLucy | Wiener


def deconvolve(
    image: NDArray[np.floating] | NDArray[np.integer],
    psf: NDArray[np.floating],
    method: Method | None = None,
    *,
    background: float = 0.0,
    voxels: int = VOXELS,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Deconvolve an image in memory.

    Parameters
    ----------
    image : ndarray
        (Y, X) or (Z, Y, X).
    psf : ndarray
        As many axes, odd sides, sum 1.
    method : RichardsonLucy or Wiener, optional
    background : float
        What the image shows where there is no light. It is added again.
    voxels : int
        Most voxels, margins among them, that are worked on at once.
    device : str
        For torch.

    Returns
    -------
    ndarray
        The same shape, float32, in the units of the image.
    """
    out = np.empty(image.shape, np.float32)
    for place, block in deconvolved_blocks(
        image, psf, method, background=background, voxels=voxels, device=device
    ):
        out[place] = block
    return out


def deconvolved_blocks(
    image: _Samples,
    psf: NDArray[np.floating],
    method: Method | None = None,
    *,
    background: float = 0.0,
    voxels: int = VOXELS,
    device: str = "cpu",
) -> Iterator[tuple[Block, NDArray[np.float32]]]:
    """Deconvolve an image of any size block by block, as `deconvolve` does.

    Yields
    ------
    place : tuple of slice
        Of a block in the image.
    block : ndarray
        Float32. Blocks are equal to the whole up to what reaches through their margins.
    """
    method = RichardsonLucy() if method is None else method
    if psf.ndim != len(image.shape) or any(side % 2 == 0 for side in psf.shape):
        raise PsfError(
            f"The PSF has the shape {psf.shape}, the image {tuple(image.shape)}. "
            "Give a PSF with as many axes as the image, and odd sides."
        )
    kernel = torch.from_numpy(np.ascontiguousarray(psf, np.float32)).to(device)
    margins = [reach(psf, axis) for axis in range(psf.ndim)]
    places = list(blocks(image.shape, margins, voxels))

    def read(place: Block) -> tuple[torch.Tensor, Block]:
        window, inside = with_margin(place, margins, image.shape)
        samples = np.asarray(image[window], dtype=np.float32) - np.float32(background)
        return torch.from_numpy(samples).to(device), inside

    middle = places[len(places) // 2]
    sample, _ = read(middle)
    scale = _scale_of(sample)
    if isinstance(method, RichardsonLucy) and method.momenta is None and len(places) > 1:
        momenta = method.found_momenta(sample, kernel, scale)
        method = replace(method, momenta=momenta)
    del sample
    for place in places:
        samples, inside = read(place)
        result = method(samples, kernel, scale)[inside] + background
        yield place, result.cpu().numpy()


def _scale_of(sample: torch.Tensor) -> Scale:
    values = sample.cpu().numpy()[tuple(slice(None, None, 1 + n // 128) for n in sample.shape)]
    low, high = np.percentile(values, [0.5, 99.5])
    level = max(float(high), float(np.abs(values).max()) * 1e-3, 1e-30)
    return Scale(level, max(0.0, -2 * float(low)))


def reach(psf: NDArray[np.floating], axis: int, kept: float = 0.99) -> int:
    """Margin of blocks along an axis: twice as far as nearly all light of the PSF goes."""
    others = tuple(other for other in range(psf.ndim) if other != axis)
    line = psf.sum(axis=others)
    half = len(line) // 2
    inside = [float(line[half - h : half + h + 1].sum()) for h in range(half + 1)]
    near = next((h for h, share in enumerate(inside) if share >= kept * inside[-1]), half)
    return 2 * near + 6


def blocks(
    shape: Sequence[int], margins: Sequence[int], voxels: int, place: Block | None = None
) -> Iterator[Block]:
    """Cut an image, or a place in it, into blocks of at most so many voxels with their margins."""
    place = _all_of(shape) if place is None else place
    lines = [
        [slice(at, min(part.stop, at + side)) for at in range(part.start, part.stop, side)]
        for part, side in zip(place, sides_of(shape, margins, voxels, place), strict=True)
    ]
    return product(*lines)


def sides_of(
    shape: Sequence[int], margins: Sequence[int], voxels: int, place: Block | None = None
) -> list[int]:
    """Find the sides of the blocks that `blocks` makes: of those that fit, the least work.

    Margins reach beyond the place, as far as the image does: what a block needs depends neither on
    the place that it is cut from nor on the size of the image.
    """
    sides, most, work = [], np.ones(()), np.ones(())
    for part, margin, length in zip(
        _all_of(shape) if place is None else place, margins, shape, strict=True
    ):
        n = part.stop - part.start
        line = sorted({math.ceil(n / count) for count in range(1, n + 1)}, reverse=True) or [1]
        read = []
        for side in line:
            starts = np.arange(part.start, part.stop, side)
            stops = np.minimum(starts + side, part.stop)
            read.append(np.minimum(stops + margin, length) - np.maximum(starts - margin, 0))
        sides.append(line)
        most = most[..., None] * [int(each.max(initial=0)) for each in read]
        work = work[..., None] * [int(each.sum()) for each in read]
    fits = most <= max(voxels, most.min())
    best = np.unravel_index(np.argmin(np.where(fits, work, np.inf)), work.shape)
    return [line[int(number)] for line, number in zip(sides, best, strict=True)]


def _all_of(shape: Sequence[int]) -> Block:
    return tuple(slice(0, length) for length in shape)


def with_margin(place: Block, margins: Sequence[int], shape: Sequence[int]) -> tuple[Block, Block]:
    """Window that is read for a block, and where the block lies in it."""
    window = tuple(
        slice(max(0, part.start - margin), min(length, part.stop + margin))
        for part, margin, length in zip(place, margins, shape, strict=True)
    )
    inside = tuple(
        slice(part.start - read.start, part.stop - read.start)
        for part, read in zip(place, window, strict=True)
    )
    return window, inside
