"""Fourier transforms of volumes, not by PyTorch where that ends the process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_restore.physics.deconvolution import RichardsonLucy, Scale, Wiener
from napari_restore.physics.transforms import backward, forward, quick_size


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((7, 9), (8, 9)),
        ((5, 7, 9), (5, 7, 9)),
        ((5, 7, 9), (6, 8, 10)),
        ((2, 3, 5, 7, 9), (6, 8, 10)),
        ((1, 6, 4), (3, 6, 5)),
    ],
)
def test_transforms_are_those_of_numpy(shape, size):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    axes = tuple(range(-len(size), 0))
    expected = np.fft.rfftn(x, size, axes)
    spectrum = forward(torch.from_numpy(x), size)
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=1e-4)
    back = backward(spectrum, size).numpy()
    whole = np.fft.irfftn(expected, size, axes)
    np.testing.assert_allclose(back, whole, atol=1e-5)
    first = [n - 1 for n in size]
    part = backward(forward(torch.from_numpy(x), size), size, first).numpy()
    np.testing.assert_allclose(part, whole[(..., *map(slice, first))], atol=1e-5)


def test_lengths_are_quick_and_not_much_longer():
    for length in range(1, 1200):
        deep, other, across = quick_size([length] * 3)
        height, width = quick_size([length] * 2)
        assert length <= deep == other == across <= height == width <= 1.27 * length + 1
        for each in (deep, width):
            for factor in (2, 3, 5):
                while each % factor == 0:
                    each //= factor
            assert each == 1
    assert quick_size([36, 266, 522]) == [36, 270, 540]
    assert quick_size([266, 522]) == [288, 576]


class _Transformed(TorchDispatchMode):
    """How many axes each complex transform takes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_fft_c2c" in func.name():
            self.axes.append(len(args[1]))
        elif "_fft_r2c" in func.name() or "_fft_c2r" in func.name():
            # Those of several axes are complex ones, but for the last.
            self.axes.append(max(1, len(args[1]) - 1))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", [RichardsonLucy(2), Wiener()])
def test_volumes_are_not_transformed_along_two_axes_at_once(method):
    """PyTorch's library for Intel processors writes beyond its memory then, and ends napari."""
    image, psf = torch.rand(6, 12, 14), torch.ones(3, 3, 3) / 27
    with _Transformed() as seen:
        torch.fft.rfftn(image)
    assert seen.axes == [2]
    with _Transformed() as seen:
        method(image, psf, Scale(1.0))
    assert set(seen.axes) <= {1}
