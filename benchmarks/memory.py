"""Peak memory of restoring a large uint16 image from disk.

    python benchmarks/memory.py --size 16000 --source memmap
    python benchmarks/memory.py --size 16000 --source dask     # from zarr into one array
    python benchmarks/memory.py --size 16000 --source zarr     # from zarr into zarr

Linux only: reads the peak of the resident set from /proc, which counts the pages of a memory map.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np


def peak_mib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def write_image(path: Path, size: int, as_zarr: bool) -> None:
    """Noise over a pattern, written in strips."""
    if as_zarr:
        import zarr

        image = zarr.create_array(path, shape=(size, size), chunks=(2048, 2048), dtype="uint16")
    else:
        image = np.lib.format.open_memmap(path, "w+", np.uint16, (size, size))
    rng = np.random.default_rng(0)
    columns = 2000 + 1000 * np.sin(np.arange(size) / 9)
    for top in range(0, size, 2048):
        rows = min(2048, size - top)
        noise = rng.normal(0, 80, (rows, size)).astype(np.float32)
        image[top : top + rows] = (columns + noise).astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=16000)
    parser.add_argument("--source", choices=["memmap", "dask", "zarr"], default="memmap")
    parser.add_argument("--task", default="deblur")
    options = parser.parse_args()

    import napari_restore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        lazy = options.source != "memmap"
        # In a process of its own, whose memory does not count.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_image, args=(path, options.size, lazy)
        )
        writer.start()
        writer.join()
        started = time.monotonic()
        if not lazy:
            result = napari_restore.restore(np.load(path, mmap_mode="r"), options.task)
        else:
            import dask.array as da

            result = napari_restore.restore(da.from_zarr(path), options.task)
            if options.source == "zarr":
                da.to_zarr(result, Path(folder) / "result")
            else:
                result = result.compute()
        seconds = time.monotonic() - started
    megapixels = options.size**2 / 1e6
    print(
        f"{options.source} {result.shape[0]} x {result.shape[1]} {result.dtype}: "
        f"{seconds:.0f} s, {megapixels / seconds:.2f} Mpixel/s, peak {peak_mib()} MiB"
    )


if __name__ == "__main__":
    main()
