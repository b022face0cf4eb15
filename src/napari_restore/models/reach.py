"""How far a network looks, measured: what its tiles need around them, and where they may begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.errors import ModelError
from napari_restore.runtime import tell, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Halos that are tried, in pixels.
HALOS = (16, 32, 48, 64, 96, 128, 160, 192)
#: Steps of the grid on which tiles begin that are tried, as far as the network takes them.
STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 64)
#: Most that a tile may differ from the whole image, for a range of 1: a quarter of 8 bits' step.
TOLERANCE = 1e-3
#: Side of the tile.
_CORE = 32


def measure(network: nn.Module, channels: int, step: int, device: str = "cpu") -> tuple[int, int]:
    """Find the smallest halo, and the step of the grid, with which tiles agree with the whole.

    An image is restored whole, and cut out around one tile.

    Parameters
    ----------
    network : nn.Module
        Takes (1, C, H, W), about [0, 1]; gives the same shape.
    channels : int
    step : int
        Sides that it takes are multiples of this.
    device : str

    Returns
    -------
    step, halo : int
        Pixels.

    Raises
    ------
    ModelError
        If no halo is enough.
    """
    steps = [tried for tried in STEPS if tried % step == 0]
    if not steps:
        raise ModelError(
            f"It takes image sides in multiples of {step}; those of {STEPS[-1]} are supported."
        )
    margin, most = STEPS[-1], HALOS[-1]
    side = 2 * (margin + most) + _CORE + margin
    image = _image(channels, -(-side // margin) * margin).to(device)
    total, done = len(steps) + len(HALOS) + 3, 0

    def restored(start: int, stop: int) -> Tensor:
        nonlocal done
        tell(done, total, "Measuring how far the network looks")
        done += 1
        with torch.inference_mode():
            result: Tensor = network(image[..., start:stop, start:stop])
        return result

    whole = restored(0, image.shape[-1])
    if whole.shape != image.shape:
        raise ModelError(f"It turns images of {tuple(image.shape)} into {tuple(whole.shape)}.")
    if not torch.isfinite(whole).all():
        raise ModelError("Its result is not finite.")

    def agrees(step: int, halo: int) -> bool:
        # So many steps that no coarser grid that is tried fits by chance.
        begin = step * max(k for k in range(1, margin // step + 1) if k % 2 and k % 7)
        # Whole steps, with no more than the halo around the tile.
        core = _CORE + -(2 * halo + _CORE) % step
        part = restored(begin, begin + 2 * halo + core)[..., halo : halo + core, halo : halo + core]
        there = slice(begin + halo, begin + halo + core)
        return bool((part - whole[..., there, there]).abs().max() <= TOLERANCE)

    # Where the coarsest grids do not help, no other does.
    coarsest = [
        tried for tried in steps if not any(other % tried == 0 for other in steps if other > tried)
    ]
    if not any(agrees(tried, most) for tried in coarsest):
        raise ModelError(
            f"Its result at a place depends on the image more than {most} pixels away: tiles would "
            "not agree with the whole image. Such networks are not supported."
        )
    step = next(tried for tried in steps if agrees(tried, most))
    return step, next(halo for halo in HALOS if agrees(step, halo))


def _image(channels: int, side: int) -> Tensor:
    """Structure of all sizes, (1, C, side, side) in [0, 1], always the same."""
    generator = torch.Generator().manual_seed(3)
    image = torch.zeros(1, channels, side, side)
    for cell in (2, 8, 32, 128):
        coarse = torch.rand(1, channels, side // cell + 1, side // cell + 1, generator=generator)
        fine = coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
        image += fine[..., :side, :side] / 4
    return image
