"""Restore on a dask cluster: connect, ask its workers, and keep them busy."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.errors import ClusterError, RestoreError
from napari_restore.inference.engine import default_tiles
from napari_restore.runtime import autocast_dtype, check, installed_version, resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import dask.array as da
    import numpy as np
    from distributed import Client, Future

    from napari_restore.image.layout import TileOptions

_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_INSTALL = 'pip install "napari-restore[distributed]"'


@dataclass(frozen=True)
class Workers:
    """What a cluster offers.

    Attributes
    ----------
    count : int
    device : str
        Kinds of device that they compute on.
    precision : str
    tiles : TileOptions
        That suit all of them.
    """

    count: int
    device: str
    precision: str
    tiles: TileOptions

    def __str__(self) -> str:
        return f"{self.count} worker{'' if self.count == 1 else 's'} ({self.device})"


def check_address(address: str) -> str:
    """Return the address of a scheduler without spaces around it.

    Raises
    ------
    ClusterError
        If it is none.
    """
    address = address.strip()
    if not address:
        raise ClusterError(
            "The address of the dask scheduler is missing. Enter the one that 'dask scheduler' "
            "prints when it starts, such as tcp://HOST:8786."
        )
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) > 65535:
        raise ClusterError(
            f"'{address}' is not the address of a dask scheduler. Enter the one that 'dask "
            "scheduler' prints when it starts, such as tcp://HOST:8786."
        )
    return address


def connect(address: str, timeout: float = 5.0) -> Client:
    """Connect to the scheduler of a dask cluster.

    Parameters
    ----------
    address : str
        "tcp://HOST:8786", as the scheduler says when it starts.
    timeout : float
        Seconds to wait for it.

    Returns
    -------
    distributed.Client
        Close it when it is not needed any more. It is not the default of the process: other dask
        arrays are computed as before.

    Raises
    ------
    ClusterError
        If nothing useful answers there; the message says why and what to do.
    """
    address = check_address(address)
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"The package for clusters, distributed, cannot be imported ({error}). Install it: "
            f"{_INSTALL}"
        ) from error
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"No dask scheduler answers at {address} within {timeout:.0f} s. Is it running "
            "('dask scheduler'), is the address the one that it printed, and does a firewall let "
            "the port through?"
        ) from error
    except (ValueError, RuntimeError, ImportError) as error:
        raise ClusterError(
            f"The dask scheduler at {address} cannot be used: {error}. Check the address, and that "
            "dask and distributed are of the same version there and here."
        ) from error
    try:
        _check_versions(client, address)
    except BaseException:
        client.close()
        raise
    return client


def _check_versions(client: Client, address: str) -> None:
    versions: Any = client.get_versions(check=False)
    here = versions["client"]
    peers = {"scheduler": versions["scheduler"]}
    peers |= {f"worker {name}": state for name, state in versions["workers"].items()}
    for name, state in peers.items():
        for what, mine, theirs in (
            *((p, here["packages"][p], state["packages"][p]) for p in ("dask", "distributed")),
            ("Python", _minor(here), _minor(state)),
        ):
            if mine != theirs:
                raise ClusterError(
                    f"{what} is {theirs} on the {name} of {address} and {mine} here. Install the "
                    "same version on both: results and tasks cannot be exchanged safely otherwise."
                )


def _minor(state: dict[str, Any]) -> str:
    version = str(state["packages"].get("python") or state["host"]["python"])
    return ".".join(version.split(".")[:2])


def survey(client: Client, device: str = "auto") -> Workers:
    """Look at the workers of a cluster: their number and devices.

    Parameters
    ----------
    client : distributed.Client
    device : str
        What the user chose; with "auto" each worker takes the best it has.

    Raises
    ------
    ClusterError
        If there are none, or they cannot restore: napari-restore is not there, is of another
        version, or the device is absent.
    """
    here = installed_version()
    states = client.run(_state, device, on_error="return")
    address = address_of(client)
    if not states:
        raise ClusterError(
            f"The dask scheduler at {address} has no workers. Start some: dask worker {address}"
        )
    for name, state in states.items():
        if isinstance(state, ImportError):
            raise ClusterError(
                f"Worker {name} cannot import napari-restore ({state}). Install version "
                f"{here} where the workers run."
            )
        if isinstance(state, RestoreError):
            raise ClusterError(f"Worker {name}: {state}") from state
        if isinstance(state, BaseException):
            raise ClusterError(
                f"Worker {name} does not answer as it should ({type(state).__name__}: {state}). "
                "Restart it, and see its log."
            ) from state
        if state[0] != here:
            raise ClusterError(
                f"napari-restore is {state[0]} on worker {name} and {here} here. Install "
                "the same version on both."
            )
    devices = sorted({state[1].partition(":")[0] for state in states.values()})
    precisions = sorted({state[2] for state in states.values()})
    tiles = min((state[3] for state in states.values()), key=lambda each: (each.side, each.batch))
    return Workers(len(states), ", ".join(devices), ", ".join(precisions), tiles)


def _state(device: str) -> tuple[str, str, str, TileOptions]:
    """Version, device, precision and tile options, on a worker."""
    found = resolve_device(device)
    dtype = autocast_dtype(found)
    precision = str(dtype or "float32").removeprefix("torch.")
    return installed_version(), found, precision, default_tiles(found)


def address_of(client: Client) -> str:
    """Address of a client's scheduler, for messages."""
    return str(getattr(client.scheduler, "address", "an unknown address"))


__all__ = [
    "Workers",
    "check_address",
    "connect",
    "explain",
    "finished",
    "on_client",
    "survey",
]

Tag = TypeVar("Tag")

#: Seconds between two looks at what is under way, and without any worker until giving up.
_BEAT, _PATIENCE = 0.25, 60.0


def finished(
    client: Client,
    submitted: Iterable[tuple[Tag, Future[Any]]],
    in_flight: int | None = None,
    *,
    in_order: bool = False,
) -> Iterator[tuple[Tag, Any]]:
    """Take futures as they are needed, and give their results as they come.

    Parameters
    ----------
    client : distributed.Client
    submitted : iterable of (tag, Future)
        Taking the next one submits it.
    in_flight : int, optional
        Most that are under way at a time; twice the threads of all workers without it.
    in_order : bool
        Give the results in the order of their futures; those that are early wait on the workers.

    Yields
    ------
    tag, result
        What was submitted to a worker that dies is computed by another.

    Raises
    ------
    ClusterError
        If the cluster is lost, or a task kills workers again and again.
    Stopped
        If nobody waits any more; what is under way is canceled, as on closing the generator.
    """
    limit = in_flight or max(2, 2 * sum(client.nthreads().values()))
    under_way: dict[Future[Any], Tag] = {}
    done: Queue[Future[Any]] = Queue()
    coming, alive = iter(submitted), time.monotonic()
    try:
        while True:
            while len(under_way) < limit and (item := next(coming, None)) is not None:
                tag, future = item
                under_way[future] = tag
                future.add_done_callback(done.put)
            if not under_way:
                return
            future = next(iter(under_way))
            if not (in_order and future.done()):
                try:
                    arrived = done.get(timeout=_BEAT)
                except Empty:
                    alive = _check_alive(client, alive)
                    check()
                    continue
                alive = time.monotonic()
                if in_order:
                    continue  # perhaps it is the first; perhaps it has been taken
                future = arrived
            result = future.result()
            tag = under_way.pop(future)
            # Nothing of it stays on the workers.
            future.release()
            yield tag, result
    except Exception as error:
        explained = explain(error, client)
        if explained is None:
            raise
        raise explained from error
    finally:
        if under_way and client.status == "running":
            client.cancel(list(under_way), force=True)


def _check_connected(client: Client) -> None:
    """Raise if the scheduler is gone: its results are gone too, though the client may go on."""
    if client.status != "running":
        raise ClusterError(
            f"The connection to the dask scheduler at {address_of(client)} was lost. See whether "
            "it still runs, and start again."
        )


def _check_alive(client: Client, since: float) -> float:
    """Return when there was last a worker; raise if that is too long ago."""
    _check_connected(client)
    now = time.monotonic()
    if now - since < 10 * _BEAT or client.nthreads():
        return now if now - since >= 10 * _BEAT else since
    if now - since > _PATIENCE:
        raise ClusterError(
            f"The dask scheduler at {address_of(client)} has had no workers for {_PATIENCE:.0f} s. "
            "Start some ('dask worker ADDRESS'), and see the logs of those that ended."
        )
    return since


def explain(error: BaseException, client: Client) -> ClusterError | None:
    """Say what an error of the cluster means; None if it is of another kind."""
    from concurrent.futures import CancelledError

    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return ClusterError(
            f"A block ended {_times(error.allowed_failures + 1)}, the last one "
            f"{error.last_worker.address}. Most likely their memory does not suffice: give each "
            "worker more ('dask worker --memory-limit'), or choose smaller tiles or chunks."
        )
    if isinstance(error, (CancelledError, CommClosedError)):
        return ClusterError(
            f"The dask scheduler at {address_of(client)} gave up the work "
            f"({type(error).__name__}). See whether it still runs, and start again."
        )
    return None


def _times(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers one after another"


class _OnClient:
    """An array whose parts are computed on a cluster when they are read."""

    def __init__(self, array: da.Array, client: Client) -> None:
        self._array, self._client = array, client
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        _check_connected(self._client)
        future = self._client.compute(self._array[key])
        results = finished(self._client, [((), future)], 1)
        part: np.ndarray[Any, Any] = next(result for _, result in results)
        return part


def on_client(lazy: da.Array, client: Client) -> da.Array:
    """Bind a lazy array to a cluster, whatever computes the others of the process.

    Parameters
    ----------
    lazy : dask.array.Array
    client : distributed.Client

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks; what is read of it is computed by the client.
    """
    import dask.array as da
    import numpy as np

    bound: da.Array = da.from_array(
        _OnClient(lazy, client),
        chunks=lazy.chunks,
        name=f"on-client-{lazy.name}",
        asarray=False,
        # Or dask would read something to find out.
        meta=np.empty((0,) * lazy.ndim, lazy.dtype),
    )
    return bound
