"""The networks themselves: shapes, published keys, and what the attention window does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_restore.models.affine import AffineDehazer, guided_filter
from napari_restore.models.nafnet import NAFNet, WindowMean

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


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (33, 50)], ids=str)
def test_the_affine_network_maps_colours_by_smooth_positive_gains(
    size: tuple[int, int], scramble: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    network = scramble(AffineDehazer(3, view=64, **SMALL))
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        field = network.coefficients(image)
        assert field.shape == (2, 6, (size[0] + 1) // 2, (size[1] + 1) // 2)
        assert float(field[:, :3].min()) > 0
        assert float(field[:, :3].max()) <= 20.1
        low, high = network(image), network(image + 0.1)
        assert low.shape == image.shape
        # With one set of coefficients, brighter stays brighter.
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        first, second = (
            network.apply_coefficients(x, field, box.expand(2, 4)) for x in (image, image + 0.1)
        )
        assert bool((second > first).all())
        torch.testing.assert_close(first, low)
    assert not torch.equal(low, high)


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 1.5)], ids=str)
def test_coefficients_are_interpolated_between_the_centres_of_their_cells(
    box: tuple[float, float, float, float],
) -> None:
    rows, columns = torch.rand(2, 3), torch.rand(2, 5)
    field = torch.zeros(1, 2, 3, 5)
    field[:, 0], field[:, 1] = rows[0][:, None] * columns[0], rows[1][:, None] + columns[1]
    image = torch.rand(1, 1, 24, 35)
    out = AffineDehazer.apply_coefficients(image, field, torch.tensor([box]))[0, 0]

    def along(values: torch.Tensor, start: float, stop: float, count: int) -> torch.Tensor:
        places = start + (stop - start) * (np.arange(count) + 0.5) / count
        centres = (np.arange(len(values)) + 0.5) / len(values)
        return torch.from_numpy(np.interp(places, centres, values.numpy())).float()

    gain, offset = (
        (along(rows[k], box[0], box[2], 24)[:, None], along(columns[k], box[1], box[3], 35))
        for k in (0, 1)
    )
    expected = image[0, 0] * (gain[0] * gain[1]) + (offset[0] + offset[1])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_an_untrained_affine_network_returns_its_input() -> None:
    image = torch.rand(1, 3, 20, 21)
    with torch.inference_mode():
        torch.testing.assert_close(AffineDehazer(3, view=32, **SMALL).eval()(image), image)


def test_guided_filter_smooths_noise_and_keeps_steps_of_the_guide() -> None:
    guide = torch.zeros(1, 1, 60, 60)
    guide[..., 30:] = 0.6
    noise = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(0))
    result = guided_filter(guide + 1 + 0.1 * noise, guide)
    assert float((result - guide - 1).abs().max()) < 0.08
    step = (result[..., 30] - result[..., 29]).mean()
    assert 0.55 < float(step) < 0.65
    constant = torch.full((1, 3, 9, 7), 2.5)
    assert torch.allclose(guided_filter(constant, guide[..., :9, 26:33]), constant, atol=1e-5)
