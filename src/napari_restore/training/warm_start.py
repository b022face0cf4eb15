"""Begin a training from the weights of another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

_COLOURS = 3
#: Keys that weights may lack: a gauge, and blocks of a `ResUNet`.
_ADDED = re.compile(r"gauge\..*|(encoders\.\d+|decoders\.\d+|middle)\.\d+\.conv[12]\.\w+")


def adapt_state(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Fit a state dict to a network of more blocks or of another count of channels.

    From colour to mono the first sums and the last averages over the colours; from mono to colour
    they share and repeat. Residual blocks that the weights do not have begin as the identity, a
    gauge that they do not have begins fresh. Everything else is kept.

    Raises
    ------
    KeyError, ValueError
        If the weights are of another network.
    """
    out = dict(state)
    for key, target in network.state_dict().items():
        if key not in state and _ADDED.fullmatch(key):
            # Without its last convolution a residual block changes nothing.
            out[key] = torch.zeros_like(target) if ".conv2." in key else target
            continue
        weight = state[key]
        for axis, length in enumerate(target.shape[:2]):
            if weight.shape[axis] != length:
                weight = _fit(weight, axis, length, key)
        out[key] = weight
    return out


def _fit(weight: torch.Tensor, axis: int, length: int, key: str) -> torch.Tensor:
    """Fit one axis: 0 holds the channels that come out of a convolution, 1 those that go in."""
    have = weight.shape[axis]
    # Pixel-unshuffled channels are ordered (colour, place).
    if have == _COLOURS * length:
        parts: torch.Tensor = weight.unflatten(axis, (_COLOURS, length))
        return parts.mean(axis) if axis == 0 else parts.sum(axis)
    if length == _COLOURS * have:
        shared = weight if axis == 0 else weight / _COLOURS
        return torch.cat([shared] * _COLOURS, axis)
    raise ValueError(f"{key} has {have} channels on axis {axis} and not {length}")
