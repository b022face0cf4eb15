"""Restore on a dask cluster: here two processes of this machine, elsewhere as many as you have."""

from __future__ import annotations

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

from napari_restore import deblur
from napari_restore.restoration.cluster import survey
from napari_restore.samples import load_sample


def main() -> None:
    field, _ = load_sample("mitochondria")
    # A part, to be quick.
    slide = da.from_array(field[:192, :192], chunks=96)
    # Elsewhere: Client("tcp://HOST:8786"), with what 'dask scheduler' printed.
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        print(survey(client))
        # While there is a client, it computes the lazy result, or any part of it.
        restored = deblur(slide)
        corner = restored[:50, :50].compute()
        # Here into memory. A result that is too large for it: restored.to_zarr(PATH).
        result = restored.compute()
    print(f"the corner is the same: {np.array_equal(corner, result[:50, :50])}")


# Worker processes import this file.
if __name__ == "__main__":
    main()
