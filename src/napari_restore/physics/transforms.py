"""Fourier transforms of real images in two and three dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    On processors volumes go plane by plane, then along Z. The Math Kernel Library of Intel writes
    beyond its memory where it transforms two axes at once and the last one is not among them
    (PyTorch issue 125664): the process ends, sooner or later. So do not call `torch.fft.rfftn` and
    `torch.fft.irfftn` for three axes.
    """
    axes = tuple(range(-len(size), 0))
    if len(size) < 3 or x.device.type != "cpu":
        whole: torch.Tensor = torch.fft.rfftn(x, s=tuple(size), dim=axes)
        return whole
    shape = (*x.shape[:-2], size[1], size[2] // 2 + 1)
    spectrum = torch.empty(shape, dtype=x.dtype.to_complex())
    planes = x.reshape(-1, *x.shape[-2:])
    for plane, place in zip(planes, spectrum.view(-1, *shape[-2:]), strict=True):
        torch.fft.rfft2(plane, s=tuple(size[1:]), out=place)
    along: torch.Tensor = torch.fft.fft(spectrum, n=size[0], dim=-3)
    return along


def backward(spectrum: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Undo `forward`: real samples of a size; see there."""
    axes = tuple(range(-len(size), 0))
    if len(size) < 3 or spectrum.device.type != "cpu":
        whole: torch.Tensor = torch.fft.irfftn(spectrum, s=tuple(size), dim=axes)
        return whole
    planes = torch.fft.ifft(spectrum, dim=-3).reshape(-1, *spectrum.shape[-2:])
    shape = (*spectrum.shape[:-3], *size)
    out = torch.empty((math.prod(shape[:-2]), *size[1:]), dtype=spectrum.dtype.to_real())
    for plane, place in zip(planes, out, strict=True):
        torch.fft.irfft(torch.fft.ifft(plane, dim=0), n=size[2], out=place)
    return out.view(shape)
