"""Weights for colour that begin a training for mono, and the reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_restore.models.spec import build_network
from napari_restore.training.warm_start import adapt_channels

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
SMALL = {"channels": 1, "width": 8, **BLOCKS}


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("direction", ["colour to mono", "mono to colour"])
def test_channels_adapt_so_that_grey_images_come_out_the_same(
    unshuffle: int, direction: str, scramble: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    options = {**SMALL, "unshuffle": unshuffle}
    colour, mono = (build_network("nafnet", {**options, "channels": c}) for c in (3, 1))
    source, target = (colour, mono) if direction == "colour to mono" else (mono, colour)
    scramble(source)
    target.load_state_dict(adapt_channels(source.state_dict(), target))
    grey = torch.rand(1, 1, 16, 24)
    with torch.inference_mode():
        in_colour = colour.eval()(grey.expand(1, 3, -1, -1))
        in_mono = mono.eval()(grey)
    assert float((in_mono - grey).abs().max()) > 0.01
    torch.testing.assert_close(in_colour.mean(1, keepdim=True), in_mono, atol=1e-5, rtol=0)
    if direction == "mono to colour":
        torch.testing.assert_close(in_colour, in_mono.expand_as(in_colour), atol=1e-5, rtol=0)


def test_weights_that_fit_are_kept_as_they_are(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    network = scramble(build_network("nafnet", SMALL))
    state = network.state_dict()
    assert all(
        torch.equal(value, state[key]) for key, value in adapt_channels(state, network).items()
    )
