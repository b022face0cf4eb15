"""How far networks look, and on which grid: measured on some of which it is known."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from napari_restore.errors import ModelError
from napari_restore.models.reach import measure


class Far(nn.Module):
    """Adds the pixel so far to the left and right."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (self.pixels, self.pixels))
        return x + padded[..., : x.shape[-1]] + padded[..., -x.shape[-1] :]


class Blocks(nn.Module):
    """Gives the mean of square blocks from the origin; what is left over counts as zeros."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % self.side, 0, -height % self.side))
        x = nn.functional.avg_pool2d(x, self.side)
        x = x.repeat_interleave(self.side, 2).repeat_interleave(self.side, 3)
        return x[..., :height, :width]


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("pixels", "halo"), [(0, 16), (16, 16), (17, 32), (100, 128), (192, 192)])
def test_the_halo_holds_what_a_network_looks_at(pixels: int, halo: int) -> None:
    assert measure(Far(pixels), 1, 1) == (1, halo)


@pytest.mark.parametrize(
    ("side", "needs", "step"), [(8, 1, 8), (8, 4, 8), (7, 1, 7), (16, 16, 16), (2, 32, 32)]
)
def test_the_grid_is_that_of_its_blocks(side: int, needs: int, step: int) -> None:
    assert measure(Blocks(side), 3, needs) == (step, 16)


@pytest.mark.parametrize("network", [Mean(), Far(193), Blocks(11)], ids=["mean", "far", "odd"])
def test_networks_whose_tiles_would_not_agree_are_refused(network: nn.Module) -> None:
    with pytest.raises(ModelError, match="more than 192 pixels away"):
        measure(network, 1, 1)


@pytest.mark.parametrize(
    ("network", "step", "said"),
    [
        (nn.Upsample(scale_factor=2), 1, r"turns images of"),
        (nn.Threshold(2, float("nan")), 1, "not finite"),
        (nn.Identity(), 128, "multiples of 128"),
    ],
    ids=["larger", "not finite", "coarse"],
)
def test_what_restores_nothing_is_said(network: nn.Module, step: int, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        measure(network, 1, step)
