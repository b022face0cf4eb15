"""Samples of up to 16 bits, scaled and rounded on the device of the network.

A graphics card restores more pixels than a processor could convert; and samples as they are take a
quarter of the way there and back that float32 would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.device import torch

from .conversion import fit_float32
from .restraint import restrain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale

    from .protocol import Predictor

#: What every device computes with; it has the bits of the other.
_STORED = {np.dtype(np.uint16): np.dtype(np.int16)}


def are_sent(dtype: np.dtype[Any], predictor: Predictor) -> bool:
    """Whether samples of a dtype go to the device as they are."""
    return fit_float32(dtype) and dtype.isnative and predictor.takes_device_tiles


@dataclass
class TilesInTransfer:
    """Samples on their way back.

    Attributes
    ----------
    samples : list of Tensor
        (h, w, C), one for each tile, with the bits of ``dtype``.
    dtype : dtype
    clipped : Tensor
        How many were clipped, for each tile.
    arrived : torch.cuda.Event or None
        Says when they are here.
    """

    samples: list[torch.Tensor]
    dtype: np.dtype[Any]
    clipped: torch.Tensor
    arrived: Any

    def wait(self) -> list[tuple[NDArray[Any], int]]:
        """Wait for the samples of each tile, and the number of them that were clipped."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return [
            (samples.numpy().view(self.dtype), int(count))
            for samples, count in zip(self.samples, self.clipped, strict=True)
        ]


def restore_samples(
    windows: NDArray[Any],
    crops: Sequence[tuple[slice, slice]],
    scales: Sequence[Scale],
    predictor: Predictor,
    context: torch.Tensor | None,
    boxes: torch.Tensor,
    strength: float,
) -> TilesInTransfer:
    """Send windows to the device of a predictor, restore them, and have the tiles sent back.

    On CUDA this returns before they arrive, so that the next windows can follow.

    Parameters
    ----------
    windows : ndarray
        (N, h, w, C), of both frames if the predictor wants two; integers of up to 16 bits.
    crops : sequence of (slice, slice)
        Rows and columns of the tile in each window.
    scales : sequence of Scale
        One for each window.
    predictor : Predictor
    context, boxes
        As the predictor takes them.
    strength : float
    """
    dtype, device = windows.dtype, predictor.device
    with torch.inference_mode():
        stored = torch.from_numpy(windows.view(_STORED.get(dtype, dtype)))
        if device.startswith("cuda"):
            stored = stored.pin_memory().to(device, non_blocking=True)
        else:
            stored = stored.to(device)
        values = _as_float(stored, dtype)
        low, span = (
            torch.tensor(numbers, dtype=torch.float32, device=values.device).view(-1, 1, 1, 1)
            for numbers in ([s.low for s in scales], [s.span or 1.0 for s in scales])
        )
        seen = ((values - low) / span).permute(0, 3, 1, 2)
        result = predictor(seen, context, boxes)
        channels = result.shape[1]
        seen = seen[:, :channels]
        change = restrain(result - seen, seen, predictor.halo // 2).permute(0, 2, 3, 1)
        # Half precision overflows on extreme outliers; such pixels stay as they were.
        change = change.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        tiles, counts = [], []
        limits = np.iinfo(dtype)
        for number, (rows, columns) in enumerate(crops):
            factor = float(np.float32(strength * scales[number].span))
            total = change[number, rows, columns] * factor
            total = (values[number, rows, columns, :channels] + total).round_()
            outside = (total < limits.min) | (total > limits.max)
            counts.append(torch.count_nonzero(outside))
            tiles.append(_as_stored(total.clamp_(limits.min, limits.max), dtype))
        return _sent_back(tiles, dtype, torch.stack(counts))


def _as_float(stored: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    values: torch.Tensor = stored.int() & 0xFFFF if dtype in _STORED else stored
    return values.float()


def _as_stored(values: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    whole = values.int()
    if dtype in _STORED:
        # As two's complement.
        whole, dtype = torch.where(whole > 0x7FFF, whole - 0x10000, whole), _STORED[dtype]
    narrow: torch.Tensor = whole.to(getattr(torch, dtype.name))
    return narrow


def _sent_back(
    tiles: list[torch.Tensor], dtype: np.dtype[Any], counts: torch.Tensor
) -> TilesInTransfer:
    device = counts.device
    if device.type != "cuda":
        return TilesInTransfer([tile.cpu() for tile in tiles], dtype, counts.cpu(), None)
    here = []
    for tensor in (*tiles, counts):
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        here.append(pinned.copy_(tensor, non_blocking=True))
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(device))
    return TilesInTransfer(here[:-1], dtype, here[-1], arrived)
