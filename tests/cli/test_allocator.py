"""What the command line does to the allocator."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from napari_restore.cli.restore import give_back_what_is_freed

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc.mallinfo2.restype = Info
if {called}:
    give_back_what_is_freed()
# What is freed first teaches the C library to keep what is no larger.
libc.free(libc.malloc(2**24))
before = libc.mallinfo2().hblkhd
libc.malloc(2**23)
print(libc.mallinfo2().hblkhd - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="a newer GNU C library only",
)
@pytest.mark.parametrize("called", [True, False])
def test_large_arrays_are_apart_from_the_heap(called: bool) -> None:
    script = SCRIPT.format(called=called)
    # Dask sets some of these for its workers.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    # What lies apart goes back to the system when it is freed.
    assert (int(done.stdout) >= 2**23) == called
