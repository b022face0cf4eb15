"""Connections to dask clusters, one for each address, kept while napari runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from napari_restore.restoration.cluster import connect

if TYPE_CHECKING:
    from distributed import Client

_CLIENTS: dict[str, Client] = {}
_connecting = threading.Lock()


def client_of(address: str) -> Client:
    """Connect to a cluster, or return the connection that there is.

    Lazy layers go on using it after the restoration that made them.

    Raises
    ------
    ClusterError
        If there is no cluster at the address.
    """
    with _connecting:
        known = _CLIENTS.get(address)
        if known is None or known.status != "running":
            known = _CLIENTS[address] = connect(address)
        return known
