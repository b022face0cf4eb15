"""Peak memory of restoring a large uint16 image from disk.

    python benchmarks/memory.py --size 16000 --source memmap
    python benchmarks/memory.py --size 16000 --source dask

Linux only: reads the peak of the resident set from /proc.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np


def peak_mib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def write_image(path: Path, size: int) -> None:
    """Noise over a pattern, written in strips."""
    image = np.lib.format.open_memmap(path, "w+", np.uint16, (size, size))
    rng = np.random.default_rng(0)
    columns = 2000 + 1000 * np.sin(np.arange(size) / 9)
    for top in range(0, size, 500):
        strip = image[top : top + 500]
        strip[:] = columns + rng.normal(0, 80, strip.shape)
    image.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=16000)
    parser.add_argument("--source", choices=["memmap", "dask"], default="memmap")
    parser.add_argument("--task", default="deblur")
    options = parser.parse_args()

    import napari_restore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        write_image(path, options.size)
        image = np.load(path, mmap_mode="r")
        started = time.monotonic()
        if options.source == "memmap":
            result = napari_restore.restore(image, options.task)
        else:
            import dask.array as da

            lazy = da.from_array(image, chunks=2048)
            result = napari_restore.restore(lazy, options.task).compute()
        seconds = time.monotonic() - started
    megapixels = options.size**2 / 1e6
    print(
        f"{options.source} {result.shape[0]} x {result.shape[1]} {result.dtype}: "
        f"{seconds:.0f} s, {megapixels / seconds:.2f} Mpixel/s, peak {peak_mib()} MiB"
    )


if __name__ == "__main__":
    main()
