"""The allocator of the C library, where the process is ours."""

from __future__ import annotations

import ctypes

#: Of <malloc.h>.
_M_MMAP_THRESHOLD = -3
#: Bytes.
_LARGE = 2**20


def give_back_what_is_freed() -> None:
    """Let large arrays go back to the system when they are freed, with the GNU C library.

    It would keep them, for each thread apart, and in pieces that the next large array does not fit
    in: the larger an image, the more. Elsewhere this does nothing.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (AttributeError, OSError, TypeError):
        return
