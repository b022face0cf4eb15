"""Waiting for what happens, however busy the machine is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds, and milliseconds as Qt counts, after which what was waited for will never come.
LIMIT = 120
LIMIT_MS = 1000 * LIMIT


def until(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


def replaced(client: Any, victim: int) -> bool:
    """Whether a cluster has two workers again, and a killed one is none of them."""
    pids = client.run(os.getpid, on_error="return").values()
    return len(pids) == 2 and victim not in pids and all(isinstance(pid, int) for pid in pids)
