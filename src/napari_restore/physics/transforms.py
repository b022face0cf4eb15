"""Fourier transforms of real images in two and three dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import scipy.fft
import torch

from .psf import fast_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


#: What a sample costs, beside one of a length that 16 divides, if 2 divides the length so often.
_COSTS = (1.25, 1.2, 1.18, 1.07, 1.0)


def quick_size(shape: Sequence[int]) -> list[int]:
    """Lengths of at least a shape that are transformed quickly: few samples, many factors of 2."""
    *deep, height, width = shape
    return [*map(fast_length, deep), _quick_length(height), _quick_length(width)]


def _quick_length(length: int) -> int:
    found, least = length, math.inf
    while (length := fast_length(length)) < least:
        cost = length * _COSTS[min((length & -length).bit_length() - 1, len(_COSTS) - 1)]
        if cost < least:
            found, least = length, cost
        length += 1
    return found


def forward(x: torch.Tensor, size: Sequence[int], out: torch.Tensor | None = None) -> torch.Tensor:
    """Transform the last axes of real samples.

    Parameters
    ----------
    x : Tensor
        (…, Y, X) or (…, Z, Y, X), real.
    size : sequence of int
        Lengths of the axes that are transformed, at least those of ``x``: what is missing is 0.
    out : Tensor, optional
        What may be written over, of the shape of the result.

    Returns
    -------
    Tensor
        (…, *size) but for the last axis, which has the frequencies from 0 on: complex.

    Notes
    -----
    On processors volumes go plane by plane, then along Z: there by SciPy, which is quicker along an
    axis that is not the last, and needs no more memory. The Math Kernel Library of Intel writes
    beyond its memory where it transforms two axes at once and the last one is not among them
    (PyTorch issue 125664): the process ends, sooner or later. So do not call `torch.fft.rfftn` and
    `torch.fft.irfftn` for three axes.
    """
    axes = tuple(range(-len(size), 0))
    if len(size) < 3 or x.device.type != "cpu":
        whole: torch.Tensor = torch.fft.rfftn(x, s=tuple(size), dim=axes)
        return whole
    spectrum = out
    if spectrum is None:
        shape = (*x.shape[:-3], size[0], size[1], size[2] // 2 + 1)
        spectrum = torch.empty(shape, dtype=x.dtype.to_complex())
    depth = x.shape[-3]
    for volume, place in zip(_volumes(x), _volumes(spectrum), strict=True):
        for plane, there in zip(volume, place[:depth], strict=True):
            torch.fft.rfft2(plane, s=tuple(size[1:]), out=there)
        place[depth:] = 0
    return _along_planes(scipy.fft.fft, spectrum)


def backward(
    spectrum: torch.Tensor, size: Sequence[int], shape: Sequence[int] | None = None
) -> torch.Tensor:
    """Undo `forward`: real samples of a size; see there.

    Parameters
    ----------
    spectrum : Tensor
        As `forward` returns it. It may be written over.
    size : sequence of int
        As for `forward`.
    shape : sequence of int, optional
        How many of the first samples along each axis are wanted; by default all.
    """
    axes = tuple(range(-len(size), 0))
    shape = tuple(size if shape is None else shape)
    if len(size) < 3 or spectrum.device.type != "cpu":
        whole: torch.Tensor = torch.fft.irfftn(spectrum, s=tuple(size), dim=axes)
        for axis, length in zip(axes, shape, strict=True):
            whole = whole.narrow(axis, 0, length)
        return whole
    out = torch.empty((*spectrum.shape[:-3], *shape), dtype=spectrum.dtype.to_real())
    rows, columns = shape[1:]
    spectrum = _along_planes(scipy.fft.ifft, spectrum.resolve_conj())
    for volume, place in zip(_volumes(spectrum), _volumes(out), strict=True):
        for plane, there in zip(volume[: shape[0]], place, strict=True):
            lines = torch.fft.ifft(plane, dim=0)[:rows]
            there.copy_(torch.fft.irfft(lines, n=size[2])[:, :columns])
    return out


def _volumes(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, *x.shape[-3:])


def _along_planes(transform: Callable[..., NDArray[Any]], spectrum: torch.Tensor) -> torch.Tensor:
    """Transform along Z, in place where the library can."""
    done = transform(spectrum.numpy(), axis=-3, overwrite_x=True, workers=torch.get_num_threads())
    return torch.from_numpy(done)
