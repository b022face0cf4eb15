"""How well and how fast volumes are restored, with the true point spread function and a wrong one.

    python benchmarks/volumes.py quality [--scenes bars,nuclei] [--photons 100,1000] [FILES]
    python benchmarks/volumes.py speed [--shape 32,256,256] [--others] [--only wiener]
    python benchmarks/volumes.py memory

Quality is PSNR after the best affine fit, on volumes that are made up or cut from FILES, and
seen by a wide-field and a confocal microscope. Speed is by processor time; --others times
RedLionfish and scikit-image, if they are installed; --only names some of all. Memory is the peak
of a process that restores volumes of several depths chunk by chunk.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_restore import Optics, deblur
from napari_restore.evaluation.volumes import SharpVolume, compare, restored, see_middle
from napari_restore.training import scenes

MICROSCOPES = {
    name: Optics(
        na=1.2,
        wavelength=0.52,
        pixel_size=0.1,
        z_step=0.25,
        refractive_index=1.33,
        modality=name,
    )
    for name in ("widefield", "confocal")
}
if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("network", "richardson-lucy", "wiener")
SHAPE = (32, 96, 96)


def _scene(name: str, shape: scenes.Shape, step: float) -> np.ndarray:
    if Path(name).exists():
        import tifffile

        return tifffile.imread(name)
    return {**scenes.KEPT, **scenes.TRAINED}[name](shape, np.random.default_rng(11), step)


def quality(names: list[str], photons: list[float]) -> None:
    """Print a table: the image, each method, numerical apertures 10 % off, and the light.

    Light is the network's beside the truth's, and in brackets the image's beside the truth's.
    """
    head = ["in"]
    for kind, optics in MICROSCOPES.items():
        psf = optics.psf(dimensions=3)
        step = (optics.z_step or 1) / optics.pixel_size
        for name in names:
            sharp = _scene(name, scenes.around(SHAPE, psf.shape), step)
            for count in photons:
                volume = SharpVolume(sharp, name)
                image, truth = see_middle(volume, psf, SHAPE[1], count, np.random.default_rng(5))[
                    ::-1
                ]
                results = restored(image, psf)
                off = [
                    deblur(image, psf=replace(optics, na=far * optics.na), axes="ZYX", dimensions=3)
                    for far in (0.9, 1.1)
                ]
                if len(head) == 1:
                    head += [*results, "NA 10 % too small", "NA 10 % too large", "light"]
                    print("| microscope, scene, photons |" + " | ".join(head) + " |")
                    print("|---" * (len(head) + 1) + "|")
                *figures, last = (compare(each, truth) for each in (image, *results.values()))
                missed = [compare(each, truth) for each in off]
                row = " | ".join(f"{figure[0]:.2f}" for figure in (*figures, last, *missed))
                light = f"{last[2]:+.2%} ({figures[0][2]:+.2%})"
                label = f"{kind}, {Path(name).stem}, {count:g}"
                print(f"| {label} | {row} | {light} |", flush=True)


def speed(shape: tuple[int, ...], others: bool, only: list[str]) -> None:
    """Print Mvoxel/s of each method, and of other packages, by processor time.

    All run in turns, so that what else the computer does disturbs them alike. The first round does
    not count.
    """
    image = np.random.default_rng(0).poisson(100, shape).astype(np.float32)
    psf = MICROSCOPES["confocal"].psf(dimensions=3)
    told = {"psf": psf, "dimensions": 3, "axes": "ZYX"}
    runs: dict[str, Callable[[], object]] = {
        method: partial(deblur, image, method=method, **told) for method in METHODS
    }
    if others:
        from RedLionfishDeconv import doRLDeconvolutionFromNpArrays
        from skimage.restoration import richardson_lucy

        runs["scikit-image, 30 steps"] = partial(richardson_lucy, image, psf, 30, clip=False)
        runs["RedLionfish, 30 steps"] = partial(
            doRLDeconvolutionFromNpArrays, image, psf, niter=30, method="cpu"
        )
    runs = {name: run for name, run in runs.items() if not only or name.split(",")[0] in only}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(4):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    for name, each in seconds.items():
        print(f"{name}: {image.size / 1e6 / float(np.median(each[1:])):.3g} Mvoxel/s", flush=True)


def memory() -> None:
    """Print the peak memory for volumes of several depths, each in a process of its own."""
    for planes in (32, 128, 512):
        command = [sys.executable, __file__, "one", str(planes)]
        print(subprocess.run(command, check=True, text=True, capture_output=True).stdout.strip())


def _one(planes: int) -> None:
    import dask.array as da

    image = da.random.poisson(100, (planes, 512, 512), chunks=(32, 256, 256)).astype(np.uint16)
    psf = MICROSCOPES["confocal"].psf(dimensions=3)
    lazy = deblur(image, psf=psf, dimensions=3, axes="ZYX", method="richardson-lucy")
    light = lazy.sum(dtype=np.float64).compute(scheduler="threads", num_workers=2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{planes} planes, {image.size / 1e6:.0f} Mvoxel: {peak:.0f} MB (light {light:.4g})")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("quality", "speed", "memory", "one"))
    parser.add_argument("files", nargs="*")
    parser.add_argument("--scenes", default="bars,grains,filaments,membranes,nuclei,beads")
    parser.add_argument("--photons", default="100,1000")
    parser.add_argument("--shape", default="32,256,256")
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="methods, RedLionfish, scikit-image")
    args = parser.parse_args()
    if args.what == "quality":
        names = [*filter(None, args.scenes.split(",")), *args.files]
        quality(names, [float(count) for count in args.photons.split(",")])
    elif args.what == "speed":
        speed(tuple(int(side) for side in args.shape.split(",")), args.others, args.only)
    elif args.what == "memory":
        memory()
    else:
        _one(int(args.files[0]))


if __name__ == "__main__":
    main()
