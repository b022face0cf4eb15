"""Compute on dask clusters with a bounded number of tasks under way."""

from __future__ import annotations

import time
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.errors import ClusterError
from napari_restore.watch import check

from .connection import Workers, address_of, check_address, connect, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import dask.array as da
    import numpy as np
    from distributed import Client, Future

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
        If nobody waits any more; what is under way is cancelled, as on closing the generator.
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
