"""Connect to dask clusters, and see what they offer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_restore.device import autocast_dtype, resolve_device
from napari_restore.errors import ClusterError, RestoreError
from napari_restore.inference.protocol import TileOptions, default_tiles

if TYPE_CHECKING:
    from distributed import Client

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
            f"'{address}' is no address of a dask scheduler. Enter the one that 'dask scheduler' "
            "prints when it starts, such as tcp://HOST:8786."
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
    from napari_restore import __version__

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
                f"{__version__} where the workers run."
            )
        if isinstance(state, RestoreError):
            raise ClusterError(f"Worker {name}: {state}") from state
        if isinstance(state, BaseException):
            raise ClusterError(
                f"Worker {name} does not answer as it should ({type(state).__name__}: {state}). "
                "Restart it, and see its log."
            ) from state
        if state[0] != __version__:
            raise ClusterError(
                f"napari-restore is {state[0]} on worker {name} and {__version__} here. Install "
                "the same version on both."
            )
    devices = sorted({state[1].partition(":")[0] for state in states.values()})
    precisions = sorted({state[2] for state in states.values()})
    tiles = min((state[3] for state in states.values()), key=lambda each: (each.side, each.batch))
    return Workers(len(states), ", ".join(devices), ", ".join(precisions), tiles)


def _state(device: str) -> tuple[str, str, str, TileOptions]:
    """Version, device, precision and tile options, on a worker."""
    from napari_restore import __version__

    found = resolve_device(device)
    dtype = autocast_dtype(found)
    precision = str(dtype or "float32").removeprefix("torch.")
    return __version__, found, precision, default_tiles(found)


def address_of(client: Client) -> str:
    """Address of a client's scheduler, for messages."""
    return str(getattr(client.scheduler, "address", "an unknown address"))
