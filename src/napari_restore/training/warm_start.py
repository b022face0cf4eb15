"""Begin a training from the weights of another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from napari_restore.networks.motion_net import BLUR_CHANNELS, PARTS

if TYPE_CHECKING:
    from torch import nn

_COLORS = 3
#: Keys that weights may lack: what reads a scene, an estimator, what finds motion, and blocks of a
#: `ResUNet`.
_ADDED = re.compile(
    r"(gauge|flow|reader|reading|verdict|air)\..*|(.*\.)?(encoders\.\d+|decoders\.\d+|middle)\.\d+\.conv[12]\.\w+"
)
#: Where an image and what is known of its blur come in, of networks that restore along motion.
_ALONG_INTRO = "restorer.network.intro.weight"
#: The same of networks that invert a known blur; and where their result and weights come out.
_INVERTER_INTRO = "network.intro.weight"
_INVERTER_ENDING = re.compile(r"network\.ending\.(weight|bias)")


def adapt_state(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Fit a state dict to a network of more blocks, of another count of channels or of frames.

    From color to mono the first sums and the last averages over the colors; from mono to color
    they share and repeat. Residual blocks that the weights do not have begin as the identity, an
    estimator or what finds motion begins fresh if they do not have it. A network for two frames
    begins as one for a single frame that takes no notice of the other, and that as one that lost
    it; both as one that knows nothing of motion.
    Everything else is kept.

    Raises
    ------
    KeyError, ValueError
        If the weights are of another network.
    """
    wanted = network.state_dict()
    if _ALONG_INTRO in wanted and _ALONG_INTRO not in state:
        # A network that knows nothing of motion.
        own = {k: v for k, v in state.items() if not k.startswith("gauge.")}
        state = {f"restorer.network.{key}": value for key, value in own.items()}
    if _INVERTER_INTRO in wanted and _INVERTER_INTRO not in state:
        # A network that knows nothing of the blur.
        own = {k: v for k, v in state.items() if not k.startswith("gauge.")}
        state = {f"network.{key}": value for key, value in own.items()}
    out = {key: value for key, value in state.items() if key in wanted or not _ADDED.match(key)}
    for key, target in wanted.items():
        if key not in state and _ADDED.fullmatch(key):
            # Without its last convolution a residual block changes nothing.
            out[key] = torch.zeros_like(target) if ".conv2." in key else target
            continue
        weight = state[key]
        if key == _ALONG_INTRO:
            out[key] = _fit_along(weight, target, int(network.channels))  # type: ignore[arg-type]
            continue
        if key == _INVERTER_INTRO:
            out[key] = _begin_with(weight, target, 1, key)
            continue
        if _INVERTER_ENDING.fullmatch(key):
            out[key] = _begin_with(weight, target, 0, key)
            continue
        for axis, length in enumerate(target.shape[:2]):
            if weight.shape[axis] != length:
                weight = _fit(weight, axis, length, key)
        out[key] = weight
    return out


def _fit_along(weight: torch.Tensor, target: torch.Tensor, colors: int) -> torch.Tensor:
    """Fit the first convolution of a network that restores along motion.

    It gets the image, as many channels for each step of the inverse blur, the blur, and of two
    frames the other, each unshuffled into as many places.
    """
    if weight.shape == target.shape:
        return weight
    # Of the image alone; all else is not noticed yet.
    places, rest = divmod(target.shape[1], (PARTS + 1) * colors + BLUR_CHANNELS)
    if rest == 0 and weight.shape[1] in (places, _COLORS * places):
        seen = weight
        if weight.shape[1] != colors * places:
            seen = _fit(weight, 1, colors * places, _ALONG_INTRO)
        return torch.cat([seen, torch.zeros_like(target[:, colors * places :])], 1)
    for have in (1, _COLORS):
        for frames in (1, 2):
            places, rest = divmod(weight.shape[1], (PARTS + frames) * have + BLUR_CHANNELS)
            wanted = target.shape[1] / max(1, places) - BLUR_CHANNELS - PARTS * colors
            if rest or wanted not in (colors, 2 * colors):
                continue
            sizes = [have * places] * (PARTS + 1) + [BLUR_CHANNELS * places]
            parts = list(weight.split(sizes + [have * places] * (frames - 1), 1))
            for index, part in enumerate(parts):
                if have != colors and index != PARTS + 1:
                    parts[index] = _fit(part, 1, colors * places, _ALONG_INTRO)
            if wanted > colors and frames == 1:
                # No notice of the other frame yet.
                parts.append(torch.zeros_like(target[:, : colors * places]))
            return torch.cat(parts if wanted > colors else parts[: PARTS + 2], 1)
    raise ValueError(f"{_ALONG_INTRO} has {weight.shape[1]} channels and not {target.shape[1]}")


def _begin_with(weight: torch.Tensor, target: torch.Tensor, axis: int, key: str) -> torch.Tensor:
    """Let further channels of a convolution begin at zero."""
    missing = target.shape[axis] - weight.shape[axis]
    if missing < 0:
        raise ValueError(
            f"{key} has {weight.shape[axis]} channels on axis {axis} and not "
            f"{target.shape[axis]} or fewer"
        )
    return torch.cat([weight, torch.zeros_like(target.narrow(axis, 0, missing))], axis)


def _fit(weight: torch.Tensor, axis: int, length: int, key: str) -> torch.Tensor:
    """Fit one axis: 0 holds the channels that come out of a convolution, 1 those that go in."""
    have = weight.shape[axis]
    # Pixel-unshuffled channels are ordered (color, place).
    if have == _COLORS * length:
        parts: torch.Tensor = weight.unflatten(axis, (_COLORS, length))
        return parts.mean(axis) if axis == 0 else parts.sum(axis)
    if length == _COLORS * have:
        shared = weight if axis == 0 else weight / _COLORS
        return torch.cat([shared] * _COLORS, axis)
    raise ValueError(f"{key} has {have} channels on axis {axis} and not {length}")
