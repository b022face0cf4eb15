"""Peak memory of restoring uint16 images of several sizes from disk.

    python benchmarks/memory.py                              # OME-Zarr to OME-Zarr, as from a shell
    python benchmarks/memory.py --megapixels 4 64 400 --stand-in
    python benchmarks/memory.py --planes 16 --megapixels 64 --stand-in
    python benchmarks/memory.py --source memmap --megapixels 64
    python benchmarks/memory.py --volume wiener --planes 128 --megapixels 64 512

Each size runs in a process of its own. --stand-in takes a box filter for the network, with the
halo of the real one: it shows how memory grows with size in minutes instead of hours. The peak
holds what the network keeps of one tile: to compare images smaller than a few tiles, give --tile.
--volume restores all planes as one volume, with a confocal PSF.
Linux only: reads the peak of the resident set from /proc, which counts the pages of a memory map.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

#: How a volume is told from the shell.
VOLUME = "--psf optics --na 1.2 --wavelength 520nm --ri 1.33 --modality confocal --dimensions 3"
#: Size of a voxel along Z, Y and X, in µm.
STEP = 0.25, 0.1, 0.1
SOURCES = {
    "ome-zarr": "OME-Zarr to OME-Zarr with all levels, as the command line does",
    "tiff": "tiled, compressed TIFF to tiled OME-TIFF, as the command line does",
    "memmap": "NumPy memory map into an array",
    "dask": "dask over zarr into an array",
    "zarr": "dask over zarr into zarr",
}


def peak_mib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def write_image(path: Path, shape: tuple[int, ...], source: str) -> None:
    """Noise over a pattern, written in strips."""
    rng = np.random.default_rng(0)
    columns = 2000 + 1000 * np.sin(np.arange(shape[-1]) / 9)
    noise = rng.normal(0, 80, (min(2048, shape[1]), shape[2])).astype(np.float32)

    def strips() -> Any:
        for plane in range(shape[0]):
            for top in range(0, shape[1], 2048):
                rows = min(2048, shape[1] - top)
                moved = np.roll(noise, int(rng.integers(shape[2])), 1)[:rows]
                yield plane, top, (columns + moved).astype(np.uint16)

    if source == "tiff":
        import tifffile

        tiles = (
            strip[y : y + 512, x : x + 512]
            for _, _, strip in strips()
            for y in range(0, len(strip), 512)
            for x in range(0, shape[2], 512)
        )
        sizes = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", STEP, strict=True)}
        metadata = {"axes": "ZYX"} | sizes
        options = {"tile": (512, 512), "compression": "zlib", "metadata": metadata}
        tifffile.imwrite(path, tiles, shape=shape, dtype="uint16", **options)
        return
    if source == "memmap":
        image: Any = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
    else:
        import zarr

        side = 1024 if source == "ome-zarr" else 2048
        group = zarr.create_group(path)
        image = group.create_array("0", shape=shape, chunks=(1, side, side), dtype="uint16")
        step = [{"type": "scale", "scale": list(STEP)}]
        entry = {
            "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": step}],
        }
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    for plane, top, strip in strips():
        image[plane, top : top + len(strip)] = strip


class StandIn:
    """A box filter where the network would be."""

    def __init__(self, network: Any) -> None:
        self.multiple_of, self.halo, self.frames = network.multiple_of, network.halo, 1
        self.view, self.estimates_blur, self.device = 0, False, "cpu"
        self.takes_device_tiles = False

    def __call__(self, tiles: Any, *_: object) -> Any:
        import torch

        return torch.nn.functional.avg_pool2d(tiles, 3, 1, 1)


def box_filter(image: Any, *_: object) -> Any:
    """Filter a volume where a method would restore it."""
    import torch

    return torch.nn.functional.avg_pool3d(image[None, None], 3, 1, 1)[0, 0]


def restore(path: Path, target: Path, options: argparse.Namespace, said: Any) -> None:
    """Restore and tell seconds and peak memory."""
    source, task = options.source, options.task
    import napari_restore
    from napari_restore.cli import main
    from napari_restore.inference import predictor

    if options.stand_in:
        real = predictor.find_predictor
        predictor.find_predictor = lambda *args: StandIn(real(*args))
        if options.volume:
            from napari_restore.restoration import in_space

            in_space.method_of = lambda *_: box_filter
    # Modules and weights are loaded by this, and count in every size.
    napari_restore.restore(np.zeros((64, 64), np.uint16), task, device="cpu")
    base, started = peak_mib(), time.monotonic()
    if source in ("ome-zarr", "tiff"):
        command = [task.replace("_", "-"), str(path), "-o", str(target), "--device", "cpu"]
        if options.volume:
            command += [*VOLUME.split(), "--method", options.volume]
        if main([*command, "--tile", str(options.tile)]):
            raise SystemExit("the restoration failed")
    elif source == "memmap":
        napari_restore.restore(np.load(path, mmap_mode="r"), task, device="cpu", tile=options.tile)
    else:
        import dask.array as da

        result = napari_restore.restore(
            da.from_zarr(path / "0"), task, device="cpu", tile=options.tile
        )
        if source == "zarr":
            da.to_zarr(result, target)
        else:
            result.compute()
    said.put((time.monotonic() - started, base, peak_mib()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megapixels", type=float, nargs="+", default=[4, 16, 64])
    parser.add_argument("--planes", type=int, default=1, help="planes that share the pixels")
    parser.add_argument("--source", choices=list(SOURCES), default="ome-zarr")
    parser.add_argument("--task", default="deblur")
    parser.add_argument(
        "--tile", type=lambda text: text if text == "auto" else int(text), default="auto"
    )
    parser.add_argument("--stand-in", action="store_true", help="a box filter for the network")
    parser.add_argument(
        "--volume",
        choices=("network", "richardson-lucy", "wiener"),
        help="restore OME-Zarr or TIFF as one volume, by this method",
    )
    parser.add_argument("--folder", type=Path, help="where the images go for the time")
    options = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    print(SOURCES[options.source])
    print(f"{'Mpixel':>8} {'shape':>20} {'s':>7} {'Mpixel/s':>9} {'before':>11} {'peak':>11}")
    for megapixels in options.megapixels:
        side = round((megapixels * 1e6 / options.planes) ** 0.5)
        shape = (options.planes, side, side)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            ending = {"ome-zarr": "ome.zarr", "tiff": "ome.tif", "memmap": "npy"}
            name = ending.get(options.source, "zarr")
            paths = Path(folder) / f"image.{name}", Path(folder) / f"result.{name}"
            said = processes.Queue()
            for target, arguments in (
                (write_image, (paths[0], shape, options.source)),
                (restore, (*paths, options, said)),
            ):
                process = processes.Process(target=target, args=arguments)
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(f"{target.__name__} failed")
            seconds, base, peak = said.get()
        count = np.prod(shape) / 1e6
        print(
            f"{count:8.1f} {'×'.join(map(str, shape)):>20} {seconds:7.0f} {count / seconds:9.2f} "
            f"{base:7} MiB {peak:7} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
