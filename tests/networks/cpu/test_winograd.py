"""Quicker convolutions: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_restore.networks.cpu import winograd
from napari_restore.networks.cpu.winograd import FEWEST_CHANNELS, WinogradConv2d, with_winograd
from rounding import rounding, terms_of


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3), (64, 33), (7, 130)], ids=str)
@pytest.mark.parametrize("channels", [(96, 96), (96, 128)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(
    size: tuple[int, int], channels: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    image = torch.randn(2, channels[0], *size)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = image.contiguous(memory_format=memory_format)
        with torch.inference_mode():
            expected, found = conv(given), WinogradConv2d(conv)(given)
        assert found.shape == expected.shape
        atol = rounding(terms_of(conv), expected)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(96, 96, 1),
        nn.Conv2d(96, 96, 3),
        nn.Conv2d(96, 96, 3, padding=1, stride=2),
        nn.Conv2d(96, 96, 3, padding=1, groups=96),
        nn.Conv2d(96, 96, 3, padding=2, dilation=2),
        nn.Conv2d(96, 96, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(FEWEST_CHANNELS - 1, 96, 3, padding=1),
        nn.ReLU(),
    ],
    ids=str,
)
def test_other_layers_stay(other: nn.Module) -> None:
    network = nn.Sequential(other, nn.Sequential(nn.Conv2d(96, 96, 3, padding=1)))
    with_winograd(network)
    assert network[0] is other
    assert isinstance(network[1][0], WinogradConv2d)


@pytest.mark.parametrize("height", [3, 8, 21])
def test_large_images_are_convolved_in_bands(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv, image = nn.Conv2d(96, 96, 3, padding=1), torch.randn(2, 96, height, 10)
    quick = WinogradConv2d(conv)
    with torch.inference_mode():
        expected = quick(image)
        monkeypatch.setattr(winograd, "_FRAME_BYTES", 1)
        found = quick(image)
    atol = rounding(terms_of(conv), expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
