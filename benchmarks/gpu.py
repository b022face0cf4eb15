"""What a graphics card does with the bundled models: checks, speed and memory, as a table.

    make gpu                                      # or, with torch and numpy alone:
    PYTHONPATH=src python benchmarks/gpu.py [--output docs/gpu.md] [--device cuda] [--minutes 8]

Without a card the processor stands in, with small images: the table then says nothing about speed,
and that the program works. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import time
import types
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_restore.models.catalog import ModelSpec

ROOT = Path(__file__).parents[1]
#: Seconds after which no further long step is begun, unless the command line says otherwise.
MINUTES = 8.0
#: Largest mean difference between a card and the processor, as a share of the image's range, in
#: float32 and in half precision. Products have 11 bits in TF32 and in float16, 8 in bfloat16.
FULL, HALF = 2e-3, 8e-3
#: Largest difference of what helpers say of blur and motion, in float32, as a share or in pixels.
HELPERS = 2e-2
#: Where the tests lie that need a card; others import what is not on every machine.
FOLDERS = ("tests/inference", "tests/models", "tests/networks")
FIRST = """
import numpy as np, napari_restore
napari_restore.deblur(np.tile(np.arange(256, dtype='uint8'), (256, 1)), device={device!r})
"""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    figure: str
    good: bool | None = None


@dataclass(frozen=True)
class Bench:
    """Where, how large and how long.

    Attributes
    ----------
    device : str
    side : int
        Of the images on which models are compared.
    sizes : tuple of float
        Megapixels of the images whose speed is measured.
    until : float
        When no further long step is begun.
    """

    device: str
    side: int
    sizes: tuple[float, ...]
    until: float

    @property
    def card(self) -> bool:
        """Whether it is one; else the processor stands in."""
        return self.device != "cpu"


# ---------------------------------------------------------------- what the checks share


def offer_safetensors() -> None:
    """Stand in for the package safetensors where it is not installed: its reader, and no more."""
    if importlib.util.find_spec("safetensors") is not None:
        return
    types_of = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16}

    def load_file(path: Path) -> dict[str, torch.Tensor]:
        data = bytearray(Path(path).read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        header, state = json.loads(data[8:start]), {}
        header.pop("__metadata__", None)
        for name, told in header.items():
            first, last = told["data_offsets"]
            values = data[start + first : start + last]
            flat = torch.frombuffer(values, dtype=types_of[told["dtype"]])
            state[name] = flat.reshape(told["shape"])
        return state

    package, inner = types.ModuleType("safetensors"), types.ModuleType("safetensors.torch")
    package.SafetensorError = type("SafetensorError", (Exception,), {})  # type: ignore[attr-defined]
    inner.load_file = load_file  # type: ignore[attr-defined]
    sys.modules |= {"safetensors": package, "safetensors.torch": inner}


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """Discs, stripes and noise, uint8; for frames, (T, Y, X) or (T, Y, X, C), they move."""
    rng = np.random.default_rng(0)
    height, width = shape[-3:-1] if shape[-1] == 3 else shape[-2:]
    tile = np.zeros((512, 512), np.float32)
    y, x = np.mgrid[:512, :512]
    for _ in range(60):
        top, left, radius = *rng.integers(0, 512, 2), rng.integers(4, 40)
        tile[(y - top) ** 2 + (x - left) ** 2 < radius**2] += rng.uniform(20, 60)
    tile += 20 * np.sin(x / 9) + rng.normal(0, 3, tile.shape) + 40
    tile = tile.clip(0, 255).astype(np.uint8)
    plane = np.tile(tile, (-(-height // 512), -(-width // 512)))[:height, :width]
    planes = plane[..., None] if shape[-1] == 3 else plane
    if len(shape) == planes.ndim + 1 or (shape[-1] == 3 and len(shape) == 4):
        planes = np.stack([np.roll(planes, 3 * n, 1) for n in range(shape[0])])
    return np.ascontiguousarray(np.broadcast_to(planes, shape))


def restored(
    spec: ModelSpec, image: np.ndarray, device: str, tile: int | str = "auto"
) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples and provenance."""
    if spec.psf:
        return inverted(spec, image, device, tile)
    from napari_restore.restoration.plan import Options, make_plan
    from napari_restore.restoration.run import restore_array

    options: dict[str, Any] = {"frames": 2, "exposure": 0.5} if spec.frames == 2 else {}
    color = "S" if spec.channels == 3 else ""
    axes = ("T" if spec.frames == 2 else "") + "YX" + color
    asked = Options(spec.task, model=spec.name, device=device, tile=tile, **options)
    done = restore_array(image, make_plan(image, asked, axes=axes), blur=False)
    return done.data, done.provenance


def inverted(
    spec: ModelSpec, image: np.ndarray, device: str, tile: int | str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples and provenance of a model that is told a point spread function."""
    from napari_restore.restoration.plan import Options, make_plan
    from napari_restore.restoration.run import restore_array

    z, y, x = np.ogrid[-2:3, -4:5, -4:5]
    psf = np.exp(-(y**2 + x**2) / 8 - z**2 / 4)
    volume = spec.architecture == "volume"
    axes = "ZYX" if volume else "YX" + "S" * (spec.channels == 3)
    options = {"psf": psf if volume else psf[2], "dimensions": 3 if volume else 2}
    asked = Options.of(spec.task, {"device": device, "tile": tile, **options})
    done = restore_array(image, make_plan(image, asked, axes=axes), blur=False)
    return done.data, done.provenance


def image_for(spec: ModelSpec, side: int) -> np.ndarray:
    if spec.architecture == "volume":
        return np.stack([picture((side, side))] * 8)
    shape = (2,) * (spec.frames == 2) + (side, side) + (3,) * (spec.channels == 3)
    return picture(shape)


@contextmanager
def float32() -> Iterator[None]:
    """Networks in float32, and products of its full precision, on whatever device."""
    from napari_restore.inference import predictor

    real, predictor.autocast_dtype = predictor.autocast_dtype, lambda device: None
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    predictor._load.cache_clear()
    try:
        yield
    finally:
        predictor.autocast_dtype = real
        torch.backends.cudnn.allow_tf32 = before
        predictor._load.cache_clear()


def differences(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest and mean difference, as shares of 255."""
    apart = np.abs(found.astype(np.float32) - expected.astype(np.float32)) / 255
    return float(apart.max()), float(apart.mean())


def compared(what: str, found: np.ndarray, expected: np.ndarray, limit: float) -> Row:
    largest, mean = differences(found, expected)
    figure = f"largest {largest:.4f}, mean {mean:.5f} of the range"
    return Row(what, figure, mean <= limit and found.shape == expected.shape)


def wait_for_card(bench: Bench) -> None:
    if bench.card:
        torch.accelerator.synchronize()


# ---------------------------------------------------------------- checks


def suite(bench: Bench) -> Iterator[Row]:
    """The tests that need a card."""
    if not bench.card or importlib.util.find_spec("pytest") is None:
        why = "no card" if not bench.card else "pytest is not installed"
        yield Row("tests that need a card", f"not run: {why}")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "card", *FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
    yield Row("tests that need a card", last.strip("= "), done.returncode == 0)


def models(bench: Bench) -> Iterator[Row]:
    """Each bundled model: card against processor, tiles against the whole, half precision."""
    from napari_restore.models import catalog

    for spec in catalog.SHIPPED:
        image = image_for(spec, bench.side)
        # Samples without rounding, in which small differences show.
        fine = image.astype(np.float32)
        with float32():
            here, _ = restored(spec, fine, "cpu")
            there, _ = restored(spec, fine, bench.device)
            tiled, _ = restored(spec, fine, bench.device, max(32, bench.side // 4))
            expected, _ = restored(spec, image, "cpu")
        reduced, record = restored(spec, image, bench.device)
        changed = differences(here, image)[0]
        yield Row(f"{spec.name}: changes", f"largest {changed:.3f} of the range", changed > 0)
        yield compared(f"{spec.name}: {bench.device} and cpu, float32", there, here, FULL)
        yield compared(f"{spec.name}: tiles and the whole, float32", tiled, there, FULL)
        what = f"{spec.name}: {record['precision']}, 8-bit samples, and cpu, float32"
        yield compared(what, reduced, expected, HALF)


def helpers(bench: Bench) -> Iterator[Row]:
    """What helps to find a point spread function: card against processor."""
    from napari_restore.models.catalog import INVERTERS, find_model
    from napari_restore.restoration.psf_search import make_tools

    for channels, inverter in INVERTERS.items():
        window = picture((bench.side, bench.side, 3)[: 2 + (channels == 3)])
        samples = window.reshape(bench.side, bench.side, channels).astype(np.float32) / 255
        found = []
        with float32():
            for device in ("cpu", bench.device):
                tools = make_tools(inverter, find_model("motion_deblur", channels), device)
                sigma, unsure = tools.estimator(samples)
                length, angle, vague = tools.direction(samples)
                # Its angle means nothing where nothing moved.
                moved = (length * np.cos(2 * angle), length * np.sin(2 * angle))
                found.append(np.array([sigma, unsure, *moved, vague]))
        apart = float((np.abs(found[1] - found[0]) / np.maximum(1, np.abs(found[0]))).max())
        figure = f"largest {apart:.5f} of blur (px), motion (px) and their uncertainties"
        yield Row(f"{inverter.name}: helpers, {bench.device} and cpu", figure, apart <= HELPERS)


@contextmanager
def little_memory(bench: Bench, spec: ModelSpec, image: np.ndarray) -> Iterator[str]:
    """Too little memory for a whole image; yields how that was done."""
    if not bench.device.startswith("cuda"):
        from napari_restore.inference.predictor import TorchPredictor

        real, most = TorchPredictor.__call__, image.shape[0] * image.shape[1] // 2

        def call(self: Any, tiles: torch.Tensor, *rest: Any) -> torch.Tensor:
            if tiles.shape[2] * tiles.shape[3] > most:
                raise torch.OutOfMemoryError("out of memory, as the benchmark pretends")
            return real(self, tiles, *rest)

        TorchPredictor.__call__ = call  # type: ignore[method-assign]
        try:
            yield f"pretended above {most} pixels"
        finally:
            TorchPredictor.__call__ = real  # type: ignore[method-assign]
        return
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(bench.device)
    # A fifth of what the whole image takes, beside what is there already.
    limit = before + (torch.cuda.max_memory_reserved(bench.device) - before) / 5
    torch.cuda.set_per_process_memory_fraction(limit / total, bench.device)
    try:
        yield f"{limit / 2**20:.0f} MiB of the card allowed"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
        torch.cuda.empty_cache()


def out_of_memory(bench: Bench) -> Iterator[Row]:
    """Memory runs out: smaller tiles, a note, and every pixel restored."""
    from napari_restore.models.catalog import CATALOG

    # A large network; the smallest, with the processor.
    name, side = ("deblur-mono", 4 * bench.side) if bench.card else ("dehaze-color", 512)
    spec = next(spec for spec in CATALOG if spec.name == name)
    image = image_for(spec, side)
    if bench.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    expected, _ = restored(spec, image, bench.device)
    with little_memory(bench, spec, image) as how:
        found, record = restored(spec, image, bench.device)
    notes = [note for note in record["notes"] if "ran out" in note]
    yield Row("memory runs out: the ladder", f"{how}; {' '.join(notes)}", bool(notes))
    yield Row("memory runs out: where it ended", f"on {record['device']}", True)
    yield compared("memory runs out: result", found, expected, HALF)


def speed(bench: Bench) -> Iterator[Row]:
    """Megapixels a second of whole restorations beside the bare network, and memory."""
    from napari_restore.inference.predictor import load_predictor
    from napari_restore.models.catalog import CATALOG

    for spec in CATALOG:
        if spec.frames == 2:
            continue
        predictor = load_predictor(spec, bench.device)
        window = 1024 if bench.card else 128
        tile = torch.rand(1, spec.channels, window, window)
        context = None
        if spec.view:
            context = predictor.encode(torch.rand(1, spec.channels, spec.view, spec.view), None)
        if bench.card:
            tile = tile.to(bench.device)
        call = partial(predictor, tile, context, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
        rate = window**2 / 1e6 / timed(bench, call, 3)
        yield Row(f"{spec.name}: bare network", f"{rate:.3g} Mpixel/s")
        for size in bench.sizes if spec.task == "deblur" else bench.sizes[:1]:
            if bench.until - time.monotonic() < 3 * size / rate:
                yield Row(f"{spec.name}: {size:g} Mpixel", "left out: the time is up")
                continue
            image = image_for(spec, round((size * 1e6) ** 0.5 / 16) * 16)
            pixels, peak = image.size / spec.channels / 1e6, Peak(bench)
            seconds = timed(bench, partial(restored, spec, image, bench.device), 1)
            figure = f"{pixels / seconds:.3g} Mpixel/s, {rate * seconds / pixels:.2f} × the time "
            figure += f"of the bare network, {peak()}"
            yield Row(f"{spec.name}: {size:g} Mpixel", figure)
            del image


def timed(bench: Bench, call: Callable[[], object], times: int) -> float:
    """Seconds of a call, after one that does not count unless it is long."""
    if times > 1:
        call()
    wait_for_card(bench)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait_for_card(bench)
    return (time.perf_counter() - start) / times


class Peak:
    """Most memory that was taken since: of a card, else of the process ever."""

    def __init__(self, bench: Bench) -> None:
        self._card = bench.device.partition(":")[0] if bench.card else ""
        module = getattr(torch, self._card, None)
        self._stats = module if hasattr(module, "max_memory_reserved") else None
        if self._stats is not None:
            self._stats.empty_cache()
            self._stats.reset_peak_memory_stats()

    def __call__(self) -> str:
        if self._stats is not None:
            return f"peak {self._stats.max_memory_reserved() / 2**30:.2f} GiB of the card"
        return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def first_result(bench: Bench) -> Iterator[Row]:
    """Seconds from nothing to a restored image of 256 × 256 pixels."""
    offer = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    offer += "import gpu; gpu.offer_safetensors()\n"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", offer + FIRST.format(device=bench.device)], check=True, timeout=240
    )
    yield Row("first result in a new process", f"{time.perf_counter() - start:.1f} s")


CHECKS = (first_result, suite, models, helpers, out_of_memory, speed)


# ---------------------------------------------------------------- the table


def run(bench: Bench) -> list[Row]:
    """Carry out the checks in turn; one that breaks off is a line, and the next follows."""
    rows: list[Row] = []
    for check in CHECKS:
        try:
            for row in check(bench):
                rows.append(row)
                print(line(row), flush=True)
        except Exception as error:
            rows.append(Row(check.__name__, f"{type(error).__name__}: {error}"[:300], False))
            print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    """A line of Markdown."""
    mark = {True: "good", False: "FAILED", None: ""}[row.good]
    figure = " ".join(row.figure.split()).replace("|", "/")
    return f"| {row.what} | {figure} | {mark} |"


def described(bench: Bench) -> str:
    """What the figures belong to."""
    name = platform.processor() or platform.machine()
    if bench.device.startswith("cuda"):
        name = torch.cuda.get_device_name(bench.device)
    text = f"{name} as '{bench.device}', PyTorch {torch.__version__}, NumPy {np.__version__}."
    if not bench.card:
        text += " **No card: the processor stood in, with small images.**"
    return text


def main(argv: list[str] | None = None) -> int:
    """Run all, print the table and write it; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="Markdown file; docs/gpu.md for a card")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--side", type=int, help="of the images on which models are compared")
    parser.add_argument("--sizes", type=float, nargs="*", help="megapixels, for the speed")
    options = parser.parse_args(argv)
    offer_safetensors()
    from napari_restore.runtime import resolve_device

    began, device = time.monotonic(), resolve_device(options.device)
    bench = Bench(device, 512, (4, 400), began + 0.75 * 60 * options.minutes)
    if not bench.card:
        bench = replace(bench, side=96, sizes=(0.02,))
    bench = replace(
        bench,
        side=options.side or bench.side,
        sizes=bench.sizes if options.sizes is None else tuple(options.sizes),
    )
    head = f"# Graphics card\n\n{described(bench)}\n\n| what | figure | |\n|---|---|---|"
    print(head)
    rows = run(bench)
    took = f"Made by `make gpu` in {time.monotonic() - began:.0f} s."
    print(f"\n{took}")
    # Figures of a processor stand in no documentation.
    output = options.output or (ROOT / "docs/gpu.md" if bench.card else None)
    if output is not None:
        output.write_text("\n".join([head, *map(line, rows), "", took, ""]), encoding="utf-8")
    return int(any(row.good is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
