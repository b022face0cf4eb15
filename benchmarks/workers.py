"""Two dask workers of one thread each against one: the same image, the same chunks.

    python benchmarks/workers.py --size 4096 --chunk 1024

Needs two free processor cores. The workers load the model and find the scale before the clock
starts; the figures of each round come one after another, so that the machine is the same for both.
"""

from __future__ import annotations

import argparse
import os
import time

import dask.array as da
import numpy as np
from distributed import LocalCluster

from napari_restore import restore
from napari_restore.restoration.cluster import connect, finished


def block_of(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
    """Noise over a pattern, made by the worker that needs it."""
    rng = np.random.default_rng(block_id)
    columns = 2000 + 1000 * np.sin(np.arange(block.shape[1]) / 9)
    return (columns + rng.normal(0, 80, block.shape)).astype(block.dtype)


def seconds(image: da.Array, task: str, workers: int) -> tuple[float, int]:
    """Time to restore an image, and a sum of the result."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        connect(cluster.scheduler_address) as client,
    ):
        lazy = restore(image, task, device="cpu")
        # On each worker, or the second one would start cold.
        warm = [
            client.compute(lazy.blocks[0, 0], workers=[name], allow_other_workers=False)
            for name in client.nthreads()
        ]
        client.gather(warm)
        del warm
        started, total = time.perf_counter(), 0
        places = np.ndindex(*lazy.numblocks)
        for _, block in finished(client, ((n, client.compute(lazy.blocks[n])) for n in places)):
            total += int(block.sum(dtype=np.int64))
        return time.perf_counter() - started, total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--task", default="deblur")
    options = parser.parse_args()
    image = da.zeros((options.size,) * 2, "u2", chunks=options.chunk).map_blocks(
        block_of, meta=np.empty((0, 0), "u2")
    )
    print(f"{os.cpu_count()} processors, {options.size} x {options.size} {options.task}")
    ratios = []
    for _ in range(options.rounds):
        (one, sum_one), (two, sum_two) = (seconds(image, options.task, n) for n in (1, 2))
        assert sum_one == sum_two, "results differ"
        ratios.append(one / two)
        rate = options.size**2 / 1e6
        print(
            f"1 worker {one:.1f} s ({rate / one:.2f} Mpixel/s), "
            f"2 workers {two:.1f} s ({rate / two:.2f} Mpixel/s): ratio {one / two:.2f}"
        )
    print(f"median ratio {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
