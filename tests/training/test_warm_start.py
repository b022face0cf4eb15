"""Weights that begin a training for other channels, or of a deeper network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_restore.models.catalog import build_network
from napari_restore.training.warm_start import adapt_state
from rounding import rounding, terms_of

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
SMALL = {"channels": 1, "width": 8, **BLOCKS}


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("direction", ["color to mono", "mono to color"])
def test_channels_adapt_so_that_gray_images_come_out_the_same(
    unshuffle: int, direction: str, scramble: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    options = {**SMALL, "unshuffle": unshuffle}
    color, mono = (build_network("nafnet", {**options, "channels": c}) for c in (3, 1))
    source, target = (color, mono) if direction == "color to mono" else (mono, color)
    scramble(source)
    target.load_state_dict(adapt_state(source.state_dict(), target))
    gray = torch.rand(1, 1, 16, 24)
    with torch.inference_mode():
        in_color = color.eval()(gray.expand(1, 3, -1, -1))
        in_mono = mono.eval()(gray)
    assert float((in_mono - gray).abs().max()) > 0.01
    atol = rounding(terms_of(color), in_mono)
    torch.testing.assert_close(in_color.mean(1, keepdim=True), in_mono, atol=atol, rtol=0)
    if direction == "mono to color":
        torch.testing.assert_close(in_color, in_mono.expand_as(in_color), atol=atol, rtol=0)


def test_weights_that_fit_are_kept_as_they_are(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    network = scramble(build_network("nafnet", SMALL))
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in adapt_state(state, network).items())


def test_a_deeper_network_begins_where_the_shallower_one_stood(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    shallow = {"channels": 1, "widths": [8, 12], "encoder_blocks": [1], "decoder_blocks": [1]}
    deep = {**shallow, "encoder_blocks": [2], "middle_blocks": 4, "estimates": 1}
    small = scramble(build_network("resunet", {**shallow, "middle_blocks": 2}))
    large = build_network("resunet", deep)
    large.load_state_dict(adapt_state(small.state_dict(), large))
    image = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(large(image), small(image))
    # Every new part learns.
    large(image).square().mean().backward()
    assert bool(large.middle[3].conv2.weight.grad.any())


def test_a_network_of_other_kind_is_refused(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    state = scramble(build_network("nafnet", SMALL)).state_dict()
    options = {"channels": 1, "widths": [8, 12], "encoder_blocks": [1], "decoder_blocks": [1]}
    with pytest.raises((KeyError, ValueError)):
        adapt_state(state, build_network("resunet", options))


def test_an_inverter_begins_with_the_estimate_of_a_network_that_is_told_nothing(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    options = {"channels": 1, "widths": [8, 12], "encoder_blocks": [1], "decoder_blocks": [1]}
    source = scramble(build_network("resunet", options)).eval()
    target = build_network("inverter", options).eval()
    target.load_state_dict(adapt_state(source.state_dict(), target))
    image, further = torch.rand(1, 1, 16, 24), torch.rand(1, 6, 16, 24)
    with torch.no_grad():
        out = target.network.change(torch.cat([image, further], 1))
        torch.testing.assert_close(image + out[:, :1], source(image))
    assert not out[:, 1:].any()


def test_weights_of_a_network_with_more_channels_are_refused() -> None:
    options = {"channels": 1, "widths": [8, 12], "encoder_blocks": [1], "decoder_blocks": [1]}
    state = build_network("inverter", {**options, "strengths": [1, 2, 3]}).state_dict()
    smaller = build_network("inverter", {**options, "strengths": [1, 2]})
    with pytest.raises(ValueError, match=r"network\.intro\.weight has 20 channels .* not 16"):
        adapt_state(state, smaller)


PAIR = {
    "flow": {"widths": [4, 6, 8], "decoder": [8, 8], "radius": 2},
    "restorer": {"widths": [8, 12], "encoder_blocks": [1], "decoder_blocks": [1]},
}


def test_two_frames_begin_as_one(scramble: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    single = scramble(build_network("motion", {"restorer": PAIR["restorer"], "channels": 3}))
    both = build_network("framepair", {**PAIR, "channels": 3})
    both.load_state_dict(adapt_state(single.state_dict(), both))
    frames, exposure = torch.rand(1, 6, 32, 48), torch.full((1, 1, 1, 1), 0.5)
    # Given the same motion, they return the same.
    moves, unsure = torch.randn(1, 2, 32, 48), torch.zeros(1, 1, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(
            both.restorer(frames[:, :3], moves, unsure, frames[:, 3:]),
            single.restorer(frames[:, :3], moves, unsure),
        )
    # And back again.
    again = build_network("motion", {"restorer": PAIR["restorer"], "channels": 3})
    again.load_state_dict(adapt_state(both.state_dict(), again))
    with torch.inference_mode():
        torch.testing.assert_close(
            again.restorer(frames[:, :3], moves, unsure),
            single.restorer(frames[:, :3], moves, unsure),
        )
    # It can learn to look at the neighbor.
    both(frames, exposure).square().mean().backward()
    intro = both.restorer.network.intro.weight.grad
    assert bool((intro[:, -12:].abs().sum((0, 2, 3)) > 0).all())


def test_pairs_of_gray_frames_come_out_the_same_in_color(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    color = scramble(build_network("framepair", {**PAIR, "channels": 3}))
    mono = build_network("framepair", {**PAIR, "channels": 1})
    mono.load_state_dict(adapt_state(color.state_dict(), mono))
    gray, exposure = torch.rand(1, 2, 32, 32), torch.full((1, 1, 1, 1), 0.7)
    in_color = gray.repeat_interleave(3, dim=1)
    with torch.inference_mode():
        one, three = mono(gray, exposure), color(in_color, exposure)
    atol = rounding(terms_of(color), one)
    torch.testing.assert_close(three.mean(1, keepdim=True), one, atol=atol, rtol=0)
    assert float((one - gray[:, :1]).abs().max()) > 0.01
