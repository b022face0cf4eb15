"""The network that removes out-of-focus light, and how much it trusts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_restore.networks.unveil_net import UnveilNet

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {
    "channels": 1,
    "widths": (4, 8),
    "encoder_blocks": (1,),
    "middle_blocks": 1,
    "decoder_blocks": (1,),
}
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


class Remover(UnveilNet):
    """Takes the same share of what it sees each time it is asked."""

    def __init__(self, taken: float) -> None:
        super().__init__(**SMALL)
        self.taken = taken

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (1 - self.taken) * image


@pytest.mark.parametrize(
    ("taken", "share"), [(0.0, 1.0), (1.0, 1.0), (0.95, 1.0), (0.89, 0.8), (0.8, 0.6), (0.1, 0.6)]
)
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 32)], ids=str)
def test_what_goes_on_taking_away_is_trusted_less(
    size: tuple[int, int], taken: float, share: float
) -> None:
    image = torch.rand(2, 1, *size) + torch.linspace(0, 1, size[1])
    network = Remover(taken)
    context = network.context(image)
    assert context.shape == (2, 1, 1, 1)
    # One pixel varies by nothing, and has nothing to lose.
    wanted = torch.full((2, 1, 1, 1), share if size != (1, 1) else 1.0)
    torch.testing.assert_close(context, wanted, atol=1e-3, rtol=0)
    kept = network.apply_context(image, context, WHOLE.expand(2, 4))
    torch.testing.assert_close(kept, image * (1 - taken * context))


def test_planes_of_one_image_are_restored_to_the_same_degree(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    network = scramble(UnveilNet(**SMALL)).eval()
    with torch.inference_mode():
        found = [network.context(torch.rand(1, 1, 24, 32)) for _ in range(3)]
        common = network.common([found[0], torch.ones(1, 1, 1, 1)])
        torch.testing.assert_close(common, (found[0] + 1) / 2)
        assert torch.equal(network.context(torch.rand(1, 1, 24, 32), common), common)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_cannot_be_told_is_not_held_against_it(bad: float) -> None:
    view = torch.rand(1, 1, 16, 16)
    view[..., 3, 4] = bad
    assert torch.equal(Remover(0.5).context(view), torch.ones(1, 1, 1, 1))
