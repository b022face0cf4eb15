"""Keep what a network takes away smooth, so that structures up to a size stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_restore.device import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .protocol import Predictor


#: Standard deviation of the Gaussian in sizes of the structures that stay.
WIDTH = 1.5


class SmoothChange:
    """A predictor whose change of the image is blurred: what varies faster stays as it was.

    Parameters
    ----------
    predictor : Predictor
    size : float
        Structures up to this many pixels across stay, even if the network takes all of them away:
        of a disk of this diameter 95 % are left in its middle, of a long line of this width three
        quarters. The change is blurred by a Gaussian whose standard deviation is 1.5 times as
        large, computed on a coarser grid where it is wide.
    """

    def __init__(self, predictor: Predictor, size: float) -> None:
        self._predictor, self._size, self._sigma = predictor, size, WIDTH * size
        self.multiple_of, self.view = predictor.multiple_of, predictor.view
        self.estimates_blur, self.device = predictor.estimates_blur, predictor.device
        self.frames, self.takes_device_tiles = predictor.frames, False
        self.halo = halo_with(predictor.halo, size)
        # Windows begin at multiples of these.
        coarser = 1
        while coarser < predictor.multiple_of and 4 * coarser <= self._sigma:
            coarser *= 2
        self._coarser = coarser

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.encode(view, common)

    def merge_contexts(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.merge_contexts(contexts)

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.transmission(tiles, context, boxes)

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.estimate(image)

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.motion(tiles, cell)

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore tiles (N, C, h, w) by a smooth change."""
        change = self._predictor(tiles, context, boxes) - tiles
        # Half precision overflows on outliers; blurred, one of them would take its surroundings.
        change = change.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return tiles + self._blurred(change)

    def to_cpu(self) -> SmoothChange:
        """Return the same predictor on the CPU."""
        return SmoothChange(self._predictor.to_cpu(), self._size)

    def _blurred(self, change: torch.Tensor) -> torch.Tensor:
        functional = torch.nn.functional
        size, sigma = change.shape[-2:], self._sigma / self._coarser
        if self._coarser > 1:
            change = functional.avg_pool2d(change, self._coarser)
        reach = math.ceil(3 * sigma)
        line = torch.arange(-reach, reach + 1, dtype=change.dtype)
        weights = (-0.5 * (line / sigma) ** 2).exp()
        weights /= weights.sum()
        channels = change.shape[1]
        for axis in (2, 3):
            shape = [channels, 1, 1, 1]
            shape[axis] = -1
            kernel = weights.view([1, *shape[1:]]).expand(channels, *[-1] * 3)
            padding = [reach if axis == 3 else 0] * 2 + [reach if axis == 2 else 0] * 2
            change = functional.conv2d(
                functional.pad(change, padding, mode="replicate"), kernel, groups=channels
            )
        if self._coarser > 1:
            change = functional.interpolate(change, size=size, mode="bilinear", align_corners=False)
        return change


def halo_with(halo: int, size: float) -> int:
    """Halo in pixels of a predictor whose change is blurred for structures of a size."""
    return halo + math.ceil(3 * WIDTH * size) if size else halo
