"""What computations run in: device, threads and memory; progress and cancellation; whole files."""

from __future__ import annotations

import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    import torch as torch


class _LazyTorch:
    """PyTorch, which is imported when something of it is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_torch(), name)


if not TYPE_CHECKING:
    torch = _LazyTorch()


def available_devices() -> tuple[str, ...]:
    """Devices that torch can use here, best first; always ends with "cpu".

    Cards of AMD are "cuda" in PyTorch for ROCm, those of Intel "xpu", and those of Apple "mps".
    """
    card = torch.accelerator.current_accelerator()
    if card is None or not torch.accelerator.is_available():
        return ("cpu",)
    kind, count = card.type, torch.accelerator.device_count()
    several = [f"{kind}:{index}" for index in range(count)]
    return (*([kind] if count == 1 else several), "cpu")


def import_torch() -> Any:
    """Import torch, explaining the failure that is common on Windows.

    Raises
    ------
    DeviceError
        If torch's libraries cannot be loaded.
    """
    try:
        return import_module("torch")
    except OSError as error:
        raise DeviceError(
            f"PyTorch's libraries could not be loaded ({error}). On Windows this happens when Qt "
            "was loaded first: start napari with 'napari-restore gui', which loads PyTorch first."
        ) from error


def resolve_device(device: str = "auto") -> str:
    """Name of the device to use.

    Parameters
    ----------
    device : str
        "auto" takes the first card, or the CPU; else "cpu", "cuda", "cuda:1", "xpu", "mps".

    Raises
    ------
    DeviceError
        If it does not exist here.
    """
    present = available_devices()
    if device == "auto":
        return present[0]
    kinds = {name.partition(":")[0] for name in present}
    if device in present or device in kinds:
        return device
    if device in [f"{kind}:0" for kind in kinds - {"cpu"}]:
        return device.partition(":")[0]
    raise DeviceError(
        f"Device '{device}' is not available here. Choose one of: auto, {', '.join(present)}."
    )


#: How many threads compute on the processor; as many as PyTorch takes while nobody said.
_threads: int | None = None


def use_threads(count: int) -> None:
    """Compute with so many threads on the processor, in this process and from now on.

    Torch keeps a number for each of its threads, and one that has computed keeps its own: so the
    number is stored here, and applied by `apply_threads` wherever a network is run.
    """
    global _threads
    _threads = count
    apply_threads()


def apply_threads() -> None:
    """Compute in the calling thread with as many threads as `use_threads` was told."""
    if _threads is not None:
        torch.set_num_threads(_threads)


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
    use_threads(worker.state.nthreads)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Reduced precision that is quicker on a device, or None to stay with float32.

    On CPUs bfloat16 pays only where matrix units compute in it: with vector instructions for it
    alone, the bundled networks were measured to take half as long again as in float32.
    """
    reduced = None
    if device.startswith("cuda"):
        reduced = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    elif device.startswith("xpu"):
        reduced = torch.bfloat16
    elif device == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        reduced = torch.bfloat16
    return reduced


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and nothing else."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # MPS and the CPU allocator raise plain RuntimeErrors.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "_alloc_failed" in text
    )


def free_memory(device: str) -> None:
    """Give cached memory back after running out."""
    if device != "cpu":
        getattr(torch, device.partition(":")[0]).empty_cache()


def memory_left(device: str) -> int | None:
    """Bytes that are free on a card; None where that is not known."""
    ask = getattr(getattr(torch, device.partition(":")[0]), "mem_get_info", None)
    return None if ask is None else int(ask(device)[0])


Result = TypeVar("Result")

#: Seconds between two looks at a thread that computes.
LOOK = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a restoration is: ``done`` of ``total`` pixels."""

    done: int
    total: int
    message: str = ""


class Stopped(BaseException):
    """Nobody waits for the result any more.

    Like ``GeneratorExit`` no `Exception`: whoever turns errors into notes lets it pass.
    """


class Watch:
    """Follows a computation and may stop it, from any thread.

    What runs within it calls `tell`, `advanced` and `check`. Watches within watches stop with them.

    Parameters
    ----------
    on_progress : callable, optional
        Gets every `Progress`, in the thread that computes. An exception of it ends the computation.

    Attributes
    ----------
    share : float
        How far a step is that counts no pixels, from 0 to 1.
    progress : Progress
        The last that was told.
    """

    def __init__(self, on_progress: Callable[[Progress], object] | None = None) -> None:
        self.share, self.progress = 0.0, Progress(0, 0)
        self._on_progress = on_progress
        self._stopped = False
        self._around = _CURRENT.get()

    @property
    def stopped(self) -> bool:
        """Whether it, or one around it, was stopped."""
        return self._stopped or (self._around is not None and self._around.stopped)

    def stop(self) -> None:
        """Let what runs within it end at its next `check`."""
        self._stopped = True

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function within this watch, in the thread that calls.

        Raises
        ------
        Stopped
            If it was stopped.
        """
        with self.around():
            check()
            return function(*arguments)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Watch what runs in a with block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def tell(self, progress: Progress) -> None:
        """Note how far it is."""
        self.progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)


_CURRENT: ContextVar[Watch | None] = ContextVar("napari_restore_watch", default=None)


def check() -> None:
    """Raise `Stopped` if nobody waits for what is being computed."""
    watch = _CURRENT.get()
    if watch is not None and watch.stopped:
        raise Stopped


def tell(done: int, total: int, message: str = "") -> None:
    """Tell how far the computation is, in pixels; raises as `check` does."""
    check()
    watch = _CURRENT.get()
    if watch is not None:
        watch.tell(Progress(done, total, message))


def part_of(before: int, total: int) -> Watch:
    """Make a watch for a part of a computation, which counts its own pixels.

    Parameters
    ----------
    before, total : int
        Pixels that were done before the part, and in all.
    """
    return relaying(lambda step: Progress(before + step.done, total, step.message))


def relaying(change: Callable[[Progress], Progress]) -> Watch:
    """Make a watch that tells the watch around it what becomes of each step."""
    around = _CURRENT.get()

    def relay(step: Progress) -> None:
        changed = change(step)
        if around is not None:
            around.tell(changed)

    return Watch(relay)


def advanced(share: float) -> None:
    """Tell how far the computation is, from 0 to 1; raises as `check` does."""
    check()
    watch = _CURRENT.get()
    if watch is not None:
        watch.share = share


def call_in(executor: Executor, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a thread of its own, watched as the caller is, and wait for its result.

    Raises
    ------
    Stopped
        As soon as nobody waits any more; a function that does not look ends later by itself.
    """
    future = executor.submit(copy_context().run, function, *arguments)
    while not wait([future], LOOK).done:
        check()
    return future.result()


def side_by_side(
    functions: Sequence[Callable[[], Result]], waiting: Callable[[int], None] = lambda done: None
) -> list[Result]:
    """Call functions at once, in as many threads as networks compute with, each with one of them.

    Parameters
    ----------
    functions : sequence of callable
        Each should `check` now and then.
    waiting : callable
        Told every now and then how many are done, in the thread that calls. What it raises ends
        them all.

    Returns
    -------
    list
        Their results, in order.
    """
    apply_threads()
    watch = Watch()

    def alone(function: Callable[[], Result]) -> Result:
        torch.set_num_threads(1)
        return watch.run(function)

    with ThreadPoolExecutor(min(len(functions), torch.get_num_threads()) or 1) as pool:
        futures = [pool.submit(copy_context().run, alone, function) for function in functions]
        try:
            while (state := wait(futures, LOOK)).not_done:
                check()
                waiting(len(state.done))
        except BaseException:
            watch.stop()
            raise
        return [future.result() for future in futures]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Name to write a file to: at the end it becomes ``path``, on an error it vanishes."""
    temporary = path.with_name(f".napari-restore-{secrets.token_hex(6)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, in place of what is there: the whole file appears, or none.

    Raises
    ------
    OSError
        If it cannot be written; what is there stays.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def installed_version() -> str:
    """Version as installed; sources that are used without that have none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-restore")
    except PackageNotFoundError:
        return "0+unknown"
