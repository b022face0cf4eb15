"""The network of residual blocks: shapes, reach, light that is kept, estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_restore.networks.resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Callable

    Scramble = Callable[[torch.nn.Module], torch.nn.Module]

SMALL = {"widths": (4, 8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("keep_mean", [False, True])
def test_the_network_returns_its_shape_and_untrained_its_input(
    channels: int, unshuffle: int, keep_mean: bool
) -> None:
    network = ResUNet(channels, unshuffle=unshuffle, keep_mean=keep_mean, **SMALL).eval()
    assert network.multiple_of == 4 * unshuffle
    image = torch.rand(2, channels, 3 * network.multiple_of, 5 * network.multiple_of)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), image, rtol=0, atol=0)


def test_every_parameter_takes_part(scramble: Scramble) -> None:
    network = scramble(ResUNet(3, estimates=2, **SMALL))
    result, estimates = network.restore_and_estimate(torch.rand(1, 3, 32, 32))
    (result.square().mean() + estimates.square().mean()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_levels_must_pair_up() -> None:
    with pytest.raises(ValueError, match=r"3 widths need 2 .* got \(1,\) and \(1, 1\)"):
        ResUNet(3, widths=(4, 8, 8), encoder_blocks=(1,), decoder_blocks=(1, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_a_network_that_keeps_the_mean_neither_makes_nor_loses_light(
    channels: int, unshuffle: int, scramble: Scramble
) -> None:
    options = {"unshuffle": unshuffle, **SMALL}
    plain, keeping = ResUNet(channels, **options), ResUNet(channels, keep_mean=True, **options)
    scramble(plain)
    keeping.load_state_dict(plain.state_dict())
    image = torch.rand(2, channels, 240, 240)
    with torch.inference_mode():
        change, kept = plain(image) - image, keeping(image) - image
    middle = (..., slice(40, -40), slice(40, -40))
    light, kept_light = (x[middle].mean((-2, -1)).abs() for x in (change, kept))
    assert float(change.std()) > 1e-3
    assert float(kept_light.max()) < 0.1 * float(light.max())
    # Details are the same.
    detail = change[middle] - kept[middle]
    assert float(detail.diff(dim=-1).abs().max()) < 0.05 * float(change.diff(dim=-1).abs().max())


def test_estimates_come_with_the_restoration_or_alone(scramble: Scramble) -> None:
    network = scramble(ResUNet(1, estimates=3, **SMALL)).eval()
    image = torch.rand(2, 1, 64, 48)
    with torch.inference_mode():
        result, estimates = network.restore_and_estimate(image)
        assert estimates.shape == (2, 2, 3, 8, 6)
        torch.testing.assert_close(network(image), result)
        torch.testing.assert_close(network.estimate(image), estimates)
    with pytest.raises(ValueError, match="without estimates"):
        ResUNet(1, **SMALL).estimate(image)
