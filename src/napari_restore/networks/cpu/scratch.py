"""Memory for what a network computes on a processor and needs for a moment."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor


class _Scratch(threading.local):
    """Memory by name, kept for each thread.

    Taken anew each time, it would be cold in the processor's cache, or have to be cleared by the
    system first: convolutions were measured to take half as long again.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Take memory of any content; what was taken by that name before is overwritten."""
        size = math.prod(shape)
        memory = self._memory.get((name, dtype))
        if memory is None or len(memory) < size:
            # It may be taken in inference mode, and again outside of it.
            with torch.inference_mode(False):
                memory = self._memory[name, dtype] = torch.empty(size, dtype=dtype)
        return memory[:size].view(shape)


scratch = _Scratch()
