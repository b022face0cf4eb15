"""Time and memory of whole restorations beside the bare network, MONAI and classical methods.

    python benchmarks/speed.py overhead [--sizes 0.25 4 64 400] [--plot FILE]
    python benchmarks/speed.py monai [--size 16]           # needs: pip install monai
    python benchmarks/speed.py classical [--size 1]        # volumes: pip install RedLionfish
    python benchmarks/speed.py models [--device cuda]
    python benchmarks/speed.py cores [--threads 2] [--sides 1024 2600]

Sizes are in megapixels of noise over a pattern. On the CPU one thread is used unless ``--threads``
says otherwise, and processor time is measured, so that other programs disturb less; rivals and
the network take turns in one process. On a GPU it is the time on the clock.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_restore.cli import format_table
from napari_restore.evaluation.classical import gaussian_kernel, richardson_lucy
from napari_restore.image.layout import Grid, Region, split
from napari_restore.inference.predictor import AtExposure, TorchPredictor, load_predictor
from napari_restore.models.catalog import CATALOG, ModelSpec, build_network, load_state
from napari_restore.restoration.plan import Options, Plan, make_plan
from napari_restore.restoration.run import begin, restore_array
from napari_restore.runtime import use_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_restore.image.layout import Block, Layout

    Regions = list[tuple[tuple[int, ...], Region]]

#: Pixels of an image of which only a part is restored, to keep the time in bounds.
PART = 64e6
#: Side of the windows on which the bare network runs.
BARE = 1024
#: Tiles that are restored before the bare network has its turn.
TURN = 2


def picture(side: int, channels: int, frames: int = 1) -> np.ndarray:
    """(frames, side, side, channels) without the axes of length 1: noise over a pattern, uint8."""
    rng = np.random.default_rng(0)
    block = rng.integers(0, 60, (frames, 512, 512, channels), np.uint8)
    block += (90 + 80 * np.sin(np.arange(512) / 9)).astype(np.uint8)[None, None, :, None]
    count = -(-side // 512)
    return np.tile(block, (1, count, count, 1))[:, :side, :side].squeeze()


def model(name: str) -> ModelSpec:
    return next(spec for spec in CATALOG if spec.name == name)


class Clock:
    """Seconds of processor time on the CPU, of the clock on a GPU."""

    def __init__(self, device: str) -> None:
        self._gpu = device != "cpu"

    def __call__(self, call: Callable[..., object], *arguments: object, times: int = 1) -> float:
        gc.collect()
        now = time.perf_counter if self._gpu else time.process_time
        start = now()
        for _ in range(times):
            call(*arguments)
        if self._gpu:
            torch.cuda.synchronize()
        return now() - start


def planned(image: np.ndarray, task: str, *, rgb: bool = False, **options: Any) -> Plan:
    return make_plan(image, Options.of(task, options), rgb=rgb)


def restored(image: np.ndarray, plan: Plan) -> np.ndarray:
    return restore_array(image, plan, blur=False).data


def plane_block(layout: Layout, index: tuple[int, ...], region: Region) -> Block:
    """The block that is a region of a plane."""
    rows, columns = slice(region.top, region.bottom), slice(region.left, region.right)
    key = layout.key(tuple(slice(place, place + 1) for place in index), rows, columns)
    return tuple(
        slice(0, length) if part == slice(None) else part
        for part, length in zip(key, layout.shape, strict=True)
    )


def restored_parts(image: np.ndarray, plan: Plan, regions: Regions) -> None:
    todo = [plane_block(plan.layout, index, region) for index, region in regions]
    with begin(image, plan).blocks(list(enumerate(todo))) as results:
        for _ in results:
            pass


def bare(predictor: TorchPredictor, spec: ModelSpec, side: int = BARE) -> Callable[[], object]:
    """The network on one window."""
    if spec.frames == 2:
        predictor = AtExposure(predictor, 0.5)
    tile = torch.rand(1, spec.channels * spec.frames, side, side)
    context = None
    if spec.view:
        context = predictor.encode(torch.rand(1, spec.channels, spec.view, spec.view), None)
    return lambda: predictor(tile, context, torch.tensor([[0.0, 0, 1, 1]]))


def regions_of(plan: Plan) -> Regions:
    """Whole tiles from the middle of a plane, `PART` pixels of them at most."""
    height, width = plan.layout.size
    tiles = list(split(Region(0, 0, height, width), plan.tiles.side))
    count = max(1, int(PART / tiles[0].pixels))
    first = max(0, (len(tiles) - count) // 2)
    index = (0,) * len(plan.layout.leading)
    return [(index, tile) for tile in tiles[first : first + count]]


# ---------------------------------------------------------------- overhead


def overhead(options: argparse.Namespace) -> None:
    spec, rows = model(options.model), []
    clock = Clock(options.device)
    network = bare(load_predictor(spec, options.device), spec)
    network()
    for size in options.sizes:
        side = round((size * 1e6) ** 0.5 / 16) * 16
        image = picture(side, spec.channels)
        plan = planned(image, spec.task, rgb=spec.channels == 3, device=options.device)
        regions = regions_of(plan)
        grid = Grid(plan.layout.size, spec.multiple_of, plan.halo)
        pixels = sum(tile.pixels for _, tile in regions)
        seen = sum(grid.window(tile).pixels for _, tile in regions)
        # By turns, every few seconds: the speed of a machine varies.
        groups = [regions[n : n + TURN] for n in range(0, len(regions), TURN)]
        rounds = 3 if pixels < 8e6 else 1
        whole = alone = 0.0
        calls = 0
        for group in groups * rounds:
            part = sum(tile.pixels for _, tile in group)
            times = max(1, round(part / BARE**2 / 2))
            alone += clock(network, times=times)
            whole += clock(restored_parts, image, plan, group)
            alone += clock(network, times=times)
            calls += 2 * times
        whole /= rounds
        share = whole / pixels / (alone / calls / BARE**2)
        rows.append((size, pixels / 1e6, seen / pixels, share, share * pixels / seen, whole))
    print(
        format_table(
            ["Mpixel", "restored", "pixels seen", "time, halo in", "without halo", "Mpixel/s"],
            [
                [f"{m:g}", f"{p:.1f}", f"{s:.2f}", f"{t:.2f}", f"{e:.2f}", f"{p / w:.3f}"]
                for m, p, s, t, e, w in rows
            ],
        )
    )
    if options.plot:
        _plot(rows, options.plot)


def _plot(rows: list[tuple[float, ...]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    sizes = [row[0] for row in rows]
    axes.semilogx(sizes, [row[3] for row in rows], "o-", label="with halo")
    axes.semilogx(sizes, [row[4] for row in rows], "s--", label="for each pixel that is seen")
    axes.axhline(1, color="gray", linewidth=0.5)
    axes.set(xlabel="Mpixel", ylabel="time ÷ bare network", ylim=(0.8, None))
    axes.legend()
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- MONAI


def monai(options: argparse.Namespace) -> None:
    from monai.inferers import SlidingWindowInferer

    spec = model(options.model)
    side = round((options.size * 1e6) ** 0.5 / 16) * 16
    image = picture(side, spec.channels)
    plan = planned(image, spec.task, rgb=spec.channels == 3, device=options.device)
    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_state(spec.path, spec.sha256))
    network = network.eval().to(options.device, memory_format=torch.channels_last)
    halo, tile = plan.halo, plan.tiles.side

    def slide(window: int, overlap: float) -> Callable[[], object]:
        inferer = SlidingWindowInferer((window, window), 1, overlap, mode="constant")

        def run() -> object:
            with torch.inference_mode():
                tensor = torch.from_numpy(image / np.float32(255)).reshape(side, side, -1)
                tensor = tensor.permute(2, 0, 1)[None].to(options.device)
                result = inferer(tensor, network)
            return (255 * result).round().clamp(0, 255).byte().cpu().numpy()

        return run

    window = min(side, tile + 2 * halo)
    rivals = {
        "napari-restore": partial(restored, image, plan),
        f"MONAI, windows of {window}, overlap {2 * halo}": slide(window, 2 * halo / window),
        f"MONAI, windows of {window}, overlap 0.25": slide(window, 0.25),
        "MONAI, windows of 512, overlap 0.25": slide(512, 0.25),
    }
    if options.only is not None:
        list(rivals.values())[options.only]()
        print(peak_mib())
        return
    clock, times = Clock(options.device), {name: [] for name in rivals}
    for _ in range(options.repeats):
        for name, run in rivals.items():
            times[name].append(clock(run))
    best, rows = min(times["napari-restore"]), []
    for number, (name, found) in enumerate(times.items()):
        # Memory in a process of its own.
        command = [sys.executable, *sys.argv, "--only", str(number)]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        speed, ratio = side**2 / 1e6 / min(found), min(found) / best
        rows.append([name, f"{speed:.3f}", f"{ratio:.2f}", peak[-1]])
    print(format_table(["", "Mpixel/s", "time ÷ ours", "peak, MiB"], rows))


def peak_mib() -> int:
    """Peak of the resident set; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


# ---------------------------------------------------------------- classical methods


def classical(options: argparse.Namespace) -> None:
    side = round((options.size * 1e6) ** 0.5)
    clock, kernel, rows = Clock("cpu"), gaussian_kernel(1.5), []
    for name in ("deblur-color", "deblur-mono"):
        spec = model(name)
        image = picture(side, spec.channels)
        plan = planned(image, "deblur", rgb=spec.channels == 3, device="cpu")
        ours = min(clock(restored, image, plan) for _ in range(2))
        view = image / 255.0
        theirs = min(clock(richardson_lucy, view, kernel, 30) for _ in range(2))
        million = side**2 / 1e6
        rows.append([name, f"{ours / million:.2f}", f"{theirs / million:.2f}"])
    print("Seconds of one thread for each Mpixel; Richardson–Lucy with 30 iterations:")
    print(format_table(["", "model", "Richardson–Lucy"], rows))
    try:
        from RedLionfishDeconv import doRLDeconvolutionFromNpArrays
    except ImportError:
        print("RedLionfish is not installed: volumes are left out.")
        return
    volume = np.stack([picture(256, 1)] * 32)
    ball = np.multiply.outer(gaussian_kernel(1.5)[len(kernel) // 2], kernel).astype(np.float32)
    plan = planned(volume, "deblur", device="cpu")
    ours = clock(restored, volume, plan)
    theirs = clock(
        lambda: doRLDeconvolutionFromNpArrays(
            volume.astype(np.float32), ball / ball.sum(), niter=30, method="cpu"
        )
    )
    million = volume.size / 1e6
    print("A volume of 32 × 256 × 256, seconds for each Mvoxel:")
    rows = [["", f"{ours / million:.2f}", f"{theirs / million:.2f}"]]
    print(format_table(["", "deblur-mono, plane by plane", "RedLionfish, 30 iterations"], rows))


# ---------------------------------------------------------------- models


def models(options: argparse.Namespace) -> None:
    clock, rows = Clock(options.device), []
    for spec in CATALOG:
        side = round((options.size * 1e6) ** 0.5 / 16) * 16
        image = picture(side, spec.channels, spec.frames)
        plan = planned(
            image,
            spec.task,
            rgb=spec.channels == 3,
            device=options.device,
            frames=spec.frames,
            exposure=0.5 if spec.frames == 2 else None,
        )
        first = clock(restored, image, plan)
        whole = min(clock(restored, image, plan) for _ in range(2))
        network = bare(load_predictor(spec, options.device), spec)
        network()
        alone = min(clock(network) for _ in range(3)) / BARE**2
        pixels = side**2 * spec.frames
        rows.append(
            [
                spec.name,
                f"{pixels / 1e6 / whole:.2f}",
                f"{1e-6 / alone:.2f}",
                f"{100 * alone * pixels / whole:.0f} %",
                f"{first:.2f} s",
            ]
        )
    header = ["model", "Mpixel/s", "bare network", "share", "first result"]
    print(format_table(header, rows))


# ---------------------------------------------------------------- cores


def cores(options: argparse.Namespace) -> None:
    """One thread and several take turns; the least of each counts, by the clock on the wall."""
    spec, rows = model("deblur-mono"), []
    several = max(2, options.threads)
    for side in options.sides:
        image = picture(side, spec.channels).astype(np.uint16)
        plan = planned(image, spec.task, device="cpu")
        found = {}
        for threads in (1, several) * (options.repeats + 1):
            use_threads(threads)
            gc.collect()
            wall, busy = time.perf_counter(), time.process_time()
            restored(image, plan)
            times = time.perf_counter() - wall, time.process_time() - busy
            found.setdefault(threads, []).append(times)
        # The first of each loads the model and takes memory.
        (one, busy_one), (many, busy_many) = (
            map(min, zip(*found[threads][1:], strict=True)) for threads in (1, several)
        )
        ratios = f"{one / many:.2f}", f"{busy_many / busy_one:.2f}"
        rows.append([f"{side}²", f"{one:.2f}", f"{many:.2f}", *ratios])
    header = ["image", "1 thread, s", f"{several} threads, s", "times as fast", "processor time"]
    print(format_table(header, rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["overhead", "monai", "classical", "models", "cores"])
    parser.add_argument("--model", default="deblur-color")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25, 4, 64, 400])
    parser.add_argument("--size", type=float, default=4)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2600])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    globals()[options.what](options)


if __name__ == "__main__":
    main()
