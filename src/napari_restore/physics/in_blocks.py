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

#: Voxels, margins among them, that are deconvolved at once: some 1.5 GB at work.
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


def blocks(shape: Sequence[int], margins: Sequence[int], voxels: int) -> Iterator[Block]:
    """Cut an image into blocks which, with their margins, have at most so many voxels."""
    lines = [
        [slice(start, min(n, start + side)) for start in range(0, n, side)]
        for n, side in zip(shape, sides_of(shape, margins, voxels), strict=True)
    ]
    return product(*lines)


def sides_of(shape: Sequence[int], margins: Sequence[int], voxels: int) -> list[int]:
    """Sides of blocks which, with their margins, have at most so many voxels."""
    counts = [1] * len(shape)

    def sides() -> list[int]:
        return [math.ceil(n / count) for n, count in zip(shape, counts, strict=True)]

    def work() -> int:
        read = zip(sides(), margins, shape, strict=True)
        return math.prod(min(n, side + 2 * margin) for side, margin, n in read)

    while work() > voxels and max(sides()) > 1:
        # Cut where most is left beside the margins.
        shares = [s / (2 * m + 1) if s > 1 else 0 for s, m in zip(sides(), margins, strict=True)]
        counts[shares.index(max(shares))] += 1
    return sides()


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
