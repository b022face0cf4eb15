"""What rounding may change, from the arithmetic: no processor adds up in the order of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable


def rounding(terms: int, values: torch.Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Error of sums of so many terms, added in any order, whose results are like ``values``."""
    return torch.finfo(dtype).eps * terms * float(values.detach().abs().max())


def terms_of(network: nn.Module) -> int:
    """Terms that the convolutions of a network add up, one after another."""
    return sum(conv.weight[0].numel() for conv in _convolutions(network))


def _convolutions(network: nn.Module) -> Iterable[nn.Conv2d]:
    return (part for part in network.modules() if isinstance(part, nn.Conv2d))
