"""The networks themselves: shapes, published keys, and what the attention window does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_restore.networks.nafnet import NAFNet, WindowMean

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {"width": 4, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 16])
def test_the_network_returns_its_shape_and_untrained_its_input(
    channels: int, unshuffle: int, window: int | None
) -> None:
    network = NAFNet(channels, unshuffle=unshuffle, attention_window=window, **SMALL).eval()
    assert network.multiple_of == 4 * unshuffle
    image = torch.rand(2, channels, 3 * network.multiple_of, 5 * network.multiple_of)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), image, rtol=0, atol=0)


def test_every_parameter_takes_part(scramble: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    network = scramble(NAFNet(3, attention_window=16, **SMALL))
    network(torch.rand(1, 3, 32, 32)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_levels_must_pair_up() -> None:
    with pytest.raises(ValueError, match="same length"):
        NAFNet(3, encoder_blocks=(1, 1), decoder_blocks=(1,))


def test_keys_are_those_of_the_publication() -> None:
    keys = set(NAFNet(3, unshuffle=1, attention_window=384, **SMALL).state_dict())
    block = "encoders.1.0."
    published = [
        *("intro.weight", "intro.bias", "ending.weight", "ending.bias"),
        *("downs.0.weight", "downs.0.bias", "ups.0.0.weight", "middle_blks.0.beta"),
        *(f"{block}{name}" for name in ("beta", "gamma", "norm1.weight", "norm2.bias")),
        *(f"{block}conv{number}.{part}" for number in range(1, 6) for part in ("weight", "bias")),
        *(f"{block}sca.1.{part}" for part in ("weight", "bias")),
        "decoders.0.0.conv5.bias",
    ]
    assert set(published) <= keys
    assert "ups.0.0.bias" not in keys


@pytest.mark.parametrize("size", [(5, 5), (8, 30), (40, 33)], ids=str)
@pytest.mark.parametrize("window", [1, 6, 7])
def test_a_window_mean_counts_the_pixels_that_are_there(size: tuple[int, int], window: int) -> None:
    x = torch.rand(1, 2, *size)
    half = window // 2
    mean = WindowMean(window).eval()(x).expand(1, 2, *size)
    for y, col in ((0, 0), (size[0] // 2, size[1] // 2), (size[0] - 1, 1)):
        around = x[..., max(0, y - half) : y + half + 1, max(0, col - half) : col + half + 1]
        torch.testing.assert_close(mean[..., y, col], around.mean((2, 3)))


def test_a_window_beyond_the_image_and_training_take_the_mean_of_all() -> None:
    x = torch.rand(1, 2, 8, 9)
    whole = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(WindowMean(100).eval()(x), whole)
    torch.testing.assert_close(WindowMean(3).train()(x), whole)
