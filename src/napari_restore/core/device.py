"""Devices: which there are, which to take, and what their errors mean."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from napari_restore.errors import DeviceError

if TYPE_CHECKING:
    import torch


def available_devices() -> tuple[str, ...]:
    """Devices that torch can use here, best first; always ends with "cpu"."""
    torch = import_torch()
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if len(devices) == 1:
        devices = ["cuda"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return (*devices, "cpu")


def import_torch() -> Any:
    """Import torch, explaining the failure that is common on Windows.

    Raises
    ------
    DeviceError
        If torch's libraries cannot be loaded.
    """
    try:
        import torch
    except OSError as error:
        raise DeviceError(
            f"PyTorch's libraries could not be loaded ({error}). On Windows this happens when Qt "
            "was loaded first: start napari with 'napari-restore gui', which loads PyTorch first."
        ) from error
    return torch


def resolve_device(device: str = "auto") -> str:
    """Name of the device to use.

    Parameters
    ----------
    device : str
        "auto" takes CUDA, then MPS, then the CPU; else "cpu", "cuda", "cuda:1", "mps".

    Raises
    ------
    DeviceError
        If it does not exist here.
    """
    present = available_devices()
    if device == "auto":
        return present[0]
    if device in present or (device == "cuda" and any(name.startswith("cuda") for name in present)):
        return device
    if device == "cuda:0" and "cuda" in present:
        return "cuda"
    raise DeviceError(
        f"Device '{device}' is not available here. Choose one of: auto, {', '.join(present)}."
    )


def use_threads_of_worker() -> None:
    """Within a dask worker, compute with as many threads as dask gave it; elsewhere, do nothing.

    Workers share a machine: with PyTorch's own choice each of them would take all its processors,
    and dask's nannies limit their workers to one thread, since it counts on tasks being many. A
    worker runs one network at a time.
    """
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    _set_threads(worker.state.nthreads)


@lru_cache(maxsize=1)
def _set_threads(count: int) -> None:
    import_torch().set_num_threads(count)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Reduced precision that is quicker on a device, or None to stay with float32.

    On CPUs bfloat16 pays only where matrix units compute in it: with vector instructions for it
    alone, the bundled networks were measured to take half as long again as in float32.
    """
    torch = import_torch()
    reduced = None
    if device.startswith("cuda"):
        reduced = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    elif device == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        reduced = torch.bfloat16
    return reduced


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and nothing else."""
    torch = import_torch()
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # MPS and the CPU allocator raise plain RuntimeErrors.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "_alloc_failed" in text
    )


def free_memory(device: str) -> None:
    """Give cached memory back after running out."""
    torch = import_torch()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
