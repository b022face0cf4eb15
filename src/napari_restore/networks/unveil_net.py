"""Removing light of planes out of focus, as far as a second look agrees with the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Sequence


class UnveilNet(ResUNet):
    """U-Net whose change is made smaller where it would take away structure.

    Light of other planes that was removed is gone: given its own result, the network has nothing to
    do. Where it would go on, as in tissue that is dense in focus too, it takes structure for haze.
    How much it would go on is found once for a whole image, on a view; tiles share it.

    Parameters
    ----------
    view : int
        Longest side of the view in pixels.
    **options
        As for `ResUNet`.
    """

    #: Change of the result as a share of the first change: up to the first the network is trusted,
    #: from the second on least.
    sure, unsure = 0.08, 0.14
    #: Share of the change that is made then.
    least = 0.6
    #: Side in pixels of the squares whose mean changes are compared.
    cell = 8

    def __init__(self, view: int = 512, **options: Any) -> None:
        super().__init__(**options)
        self.view = view

    def context(self, view: Tensor, common: Tensor | None = None) -> Tensor:
        """Find which share of its change is made.

        Parameters
        ----------
        view : Tensor
            (N, C, h, w), whole images at low resolution.
        common : Tensor, optional
            What all planes of an image share: then this.

        Returns
        -------
        Tensor
            (N, 1, 1, 1).
        """
        if common is not None:
            return common.expand(len(view), -1, -1, -1)
        height, width = view.shape[-2:]
        multiple = max(self.multiple_of, self.cell)
        padding = (0, -width % multiple, 0, -height % multiple)
        seen = F.pad(view, padding, mode="replicate")
        once = self(seen).float()
        again = self(once).float()
        # Noise, which goes at once or not at all, says nothing of light from other planes.
        first, second = (
            F.avg_pool2d(change, self.cell).flatten(1).std(1, correction=0)
            for change in (once - seen, again - once)
        )
        # Of what is nothing there is no share.
        doubt = (second / first.clamp(min=1e-5) - self.sure) / (self.unsure - self.sure)
        share = 1 - (1 - self.least) * doubt.nan_to_num().clamp(0, 1)
        return share.view(-1, 1, 1, 1)

    def common(self, contexts: Sequence[Tensor]) -> Tensor:
        """Share (1, 1, 1, 1) for all planes of an image, which stay comparable."""
        return torch.stack(list(contexts)).mean(0)

    def apply_context(self, image: Tensor, context: Tensor, box: Tensor) -> Tensor:
        """Restore tiles (N, C, H, W); their places ``box`` do not matter."""
        restored: Tensor = self(image).float()
        return restored.sub_(image).mul_(context).add_(image)
