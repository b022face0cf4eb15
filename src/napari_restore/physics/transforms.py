"""Fourier transforms of real images in two and three dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import scipy.fft
import torch

from .psf import fast_length

if TYPE_CHECKING:
    from collections.abc import Sequence


#: What a sample of an image costs, beside one of a length that 16 divides, if 2 divides the length
#: so often.
_COSTS = (1.25, 1.2, 1.18, 1.07, 1.0)


def quick_size(shape: Sequence[int]) -> list[int]:
    """Lengths of at least a shape that are transformed quickly: few samples, many factors of 2.

    The factors count where Intel's library transforms images. SciPy, which transforms volumes, is
    as quick with 3 and 5.
    """
    if len(shape) > 2:
        return [fast_length(length) for length in shape]
    return [_quick_length(length) for length in shape]


def _quick_length(length: int) -> int:
    found, least = length, math.inf
    while (length := fast_length(length)) < least:
        cost = length * _COSTS[min((length & -length).bit_length() - 1, len(_COSTS) - 1)]
        if cost < least:
            found, least = length, cost
        length += 1
    return found


def forward(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Transform the last axes of real samples.

    Parameters
    ----------
    x : Tensor
        (…, Y, X) or (…, Z, Y, X), real.
    size : sequence of int
        Lengths of the axes that are transformed, at least those of ``x``: what is missing is 0.

    Returns
    -------
    Tensor
        (…, *size) but for the last axis, which has the frequencies from 0 on: complex.

    Notes
    -----
    On processors SciPy transforms volumes. The Math Kernel Library of Intel writes beyond its
    memory where it transforms two axes at once and the last one is not among them (PyTorch issue
    125664): the process ends, sooner or later. So do not call `torch.fft.rfftn` and
    `torch.fft.irfftn` for three axes. Plane by plane PyTorch is as quick on one core; on several
    its threads wait for each other at every plane, ten times as long as the work takes where other
    programs use the cores too.
    """
    axes = tuple(range(-len(size), 0))
    if len(size) < 3 or x.device.type != "cpu":
        whole: torch.Tensor = torch.fft.rfftn(x, s=tuple(size), dim=axes)
        return whole
    depth, workers = size[0], torch.get_num_threads()
    planes = scipy.fft.rfft2(x.numpy(), s=tuple(size[1:]), workers=workers)
    done = scipy.fft.fft(planes, n=depth, axis=-3, overwrite_x=True, workers=workers)
    return torch.from_numpy(done)


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
    workers = torch.get_num_threads()
    samples = spectrum.resolve_conj().numpy()
    # What is not wanted along one axis need not be transformed along the next.
    for axis, length in zip(axes[:-1], shape[:-1], strict=True):
        samples = scipy.fft.ifft(samples, axis=axis, overwrite_x=True, workers=workers)
        samples = samples.swapaxes(axis, 0)[:length].swapaxes(axis, 0)
    rows = scipy.fft.irfft(samples, n=size[-1], workers=workers)[..., : shape[-1]]
    return torch.from_numpy(rows).contiguous()
