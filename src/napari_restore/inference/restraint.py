"""What a network may not change, wherever it runs: the even stays even, the neutral neutral."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.device import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Side of the blocks in pixels of which one at least is even where anything far from all structure
#: could be.
_BLOCK = 16
#: Pixels around one that is neutral in neutral surroundings: colors meet by chance in one alone.
_AROUND = 2
#: Pixels within which light is kept.
_LIGHT = 12
#: Pixels within which colors are seen.
_NEAR = 4


def restrain(change: torch.Tensor, seen: torch.Tensor, reach: int) -> torch.Tensor:
    """Take out of a change what nothing in the image asks for.

    Where all samples within ``reach`` are one value, there is nothing to restore: the change fades
    out on the way there. Where red, green and blue are the same, the change is the same for them.

    Parameters
    ----------
    change : Tensor
        (N, C, h, w). It may be overwritten.
    seen : Tensor
        (N, C, h, w), what the network saw.
    reach : int
        Pixels, fewer than those that the windows of tiles overlap by. Few of them, or 0 for a
        network that sees whole planes, say nothing of what is even.
    """
    if seen.shape[1] == 3:
        change = _neutral(change, seen)
    if reach >= _BLOCK:
        change = _faded(change, seen, reach)
    return change


def _neutral(change: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    colored = (seen[:, :1] != seen[:, 1:]).any(1, keepdim=True)
    if colored.all():
        return change
    side = 2 * _AROUND + 1
    near = torch.nn.functional.max_pool2d(colored.float(), side, 1, _AROUND) > 0
    neutral: Tensor = torch.where(near, change, change.mean(1, keepdim=True))
    return neutral


def _faded(change: torch.Tensor, seen: torch.Tensor, reach: int) -> torch.Tensor:
    functional = torch.nn.functional
    edges = seen.new_zeros(len(seen), 1, *seen.shape[-2:])
    for axis in (2, 3):
        length = seen.shape[axis] - 1
        differ = seen.narrow(axis, 0, length) != seen.narrow(axis, 1, length)
        for start in (0, 1):
            edges.narrow(axis, start, length)[differ.any(1, keepdim=True)] = 1
    block = min(_BLOCK, *seen.shape[-2:])
    if functional.max_pool2d(edges, block).min() > 0:
        return change
    fade = reach // 4
    near = reach - fade
    for size, padding in (((2 * near + 1, 1), (near, 0)), ((1, 2 * near + 1), (0, near))):
        edges = functional.max_pool2d(edges, size, 1, padding)
    for size, padding in (((2 * fade + 1, 1), (fade, 0)), ((1, 2 * fade + 1), (0, fade))):
        edges = functional.avg_pool2d(edges, size, 1, padding, count_include_pad=False)
    return change.mul_(edges)


def within_colors(restored: Tensor, seen: Tensor) -> Tensor:
    """Keep the colors of a restoration among those that are seen around each place.

    Motion is common to the channels: what it mixed up was there, close by. Other colors beside an
    edge are channels that were restored differently.

    Parameters
    ----------
    restored, seen : Tensor
        (N, 3, h, w).

    Returns
    -------
    Tensor
        What a channel differs by from the mean of ``restored`` lies in the range of what is seen
        within a few pixels.
    """
    pool = torch.nn.functional.max_pool2d
    brightness = restored.mean(1, keepdim=True)
    colors = seen - seen.mean(1, keepdim=True)
    side = 2 * _NEAR + 1
    most, least = pool(colors, side, 1, _NEAR), -pool(-colors, side, 1, _NEAR)
    kept: Tensor = brightness + (restored - brightness).clamp(least, most)
    return kept


def not_below(change: Tensor, seen: Tensor, black: float) -> Tensor:
    """Keep a restoration at or above black without a gain of light.

    What would be below black is clipped where samples have no sign. As much as that adds is taken
    from what is brighter around.

    Parameters
    ----------
    change, seen : Tensor
        (C, h, w).
    black : float
        In the units of ``seen``.

    Returns
    -------
    Tensor
        The change that is left.
    """
    light = seen + change - black
    above = light.clamp(min=0)
    wanted, there = (_local_mean(field[None])[0] for field in (light, above))
    return above * (wanted / there.clamp(min=1e-12)).clamp(0, 1) + black - seen


def _local_mean(field: Tensor) -> Tensor:
    pool = torch.nn.functional.avg_pool2d
    side = 2 * _LIGHT + 1
    rows = pool(field, (side, 1), 1, (_LIGHT, 0), count_include_pad=False)
    mean: Tensor = pool(rows, (1, side), 1, (0, _LIGHT), count_include_pad=False)
    return mean
