"""How well point spread functions are found, and what that is worth: by family, on own images.

    python benchmarks/psf.py FOLDER [--inverter WEIGHTS] [--task deblur] [--families "shake;disk"]

Each image is blurred by random kernels of a family, with seeds, and rounded to 8 bits. A table has,
for each family: the error of the size, the likeness of found and true kernel, and the PSNR of the
input, of the network that is told nothing, and of the inverter told the truth, told a size that is
off, and told what was found.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from napari_restore.analysis.find import Finding, find_psf, noise_level
from napari_restore.models.catalog import INVERTERS, find_model
from napari_restore.physics import camera, motion, psf
from napari_restore.restoration.psf_search import make_tools

if TYPE_CHECKING:
    from napari_restore.analysis.find import Tools

#: Name: (kernel of a random generator, noise, photons or none).
FAMILIES = {
    "shake": (lambda rng: _shake(rng), 0.0075, None),
    "line": (lambda rng: _line(rng), 2 / 255, None),
    "line, clean": (lambda rng: _line(rng), 0.0, None),
    "disk": (lambda rng: psf.disk(rng.uniform(1.5, 5)), 0.0, None),
    "disk, noise": (lambda rng: psf.disk(rng.uniform(1.5, 5)), 2 / 255, None),
    "gaussian": (lambda rng: psf.gaussian(rng.uniform(1, 3)), 0.0, None),
    "gaussian, noise": (lambda rng: psf.gaussian(rng.uniform(1, 3)), 2 / 255, None),
    "photons": (lambda rng: psf.gaussian(rng.uniform(1, 2.5)), 0.0, 200),
    "sharp": (lambda rng: None, 0.0, None),
}
#: Factors of the size by which the PSF that is told is off.
OFF = (0.85, 0.92, 1.08, 1.15)
_BORDER = 16
TASKS = ("deblur", "motion_deblur")


def _shake(rng: np.random.Generator) -> np.ndarray:
    length = rng.uniform(13, 27) - 3
    if rng.random() < 0.5:
        path = motion.shake(rng, length, jerk=rng.uniform(0.005, 0.05))
    else:
        path = motion.wander(rng, length)
    return psf.combine(motion.kernel(path), psf.gaussian(rng.uniform(0.3, 0.6)))


def _line(rng: np.random.Generator) -> np.ndarray:
    return motion.kernel(motion.line(rng.uniform(9, 25), rng.uniform(0, np.pi)))


def degrade(sharp: torch.Tensor, family: str, seed: int) -> tuple[torch.Tensor, np.ndarray | None]:
    """Blur (1, C, H, W) in light for color, add noise, round to 8 bits."""
    make, noise, photons = FAMILIES[family]
    rng = np.random.default_rng(seed)
    kernel, color = make(rng), sharp.shape[1] == 3
    if kernel is None:
        return camera.quantize(sharp), None
    light = psf.convolve(camera.to_linear(sharp) if color else sharp, psf.stack([kernel]))
    if photons:
        counts = rng.poisson(light.clamp(min=0).numpy() * photons) / photons
        return torch.from_numpy(counts.astype(np.float32)), kernel
    seen = camera.to_srgb(light) if color else light
    noisy = seen + noise * torch.from_numpy(rng.normal(size=seen.shape).astype(np.float32))
    return camera.quantize(noisy), kernel


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of the inside, at the best shift by whole pixels: where a kernel's middle is, is free."""
    inside = first[..., _BORDER:-_BORDER, _BORDER:-_BORDER]
    errors = [
        (inside - second.roll((dy, dx), (-2, -1))[..., _BORDER:-_BORDER, _BORDER:-_BORDER])
        .square()
        .mean()
        for dy in range(-3, 4)
        for dx in range(-3, 4)
    ]
    return -10 * float(torch.stack(errors).min().clamp(min=1e-7).log10())


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Largest normalized correlation of two kernels, over shifts."""
    size = [2 * max(first.shape[0], second.shape[0])] * 2
    product = np.fft.rfft2(first, size) * np.fft.rfft2(second, size).conj()
    norm = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float(np.fft.irfft2(product, size).max() / norm)


def tools_for(channels: int, weights: Path | None, moving: bool) -> Tools:
    """Bundled networks of one task, and an inverter, perhaps from a file."""
    inverter = INVERTERS[channels]
    if weights is not None:
        inverter = replace(inverter, weights=str(weights.resolve()), sha256=None)
    return make_tools(inverter, find_model(TASKS[moving], channels), "cpu")


def restored_by(
    finding: Finding, image: torch.Tensor, tools: Tools, linear: bool, moving: bool
) -> torch.Tensor:
    """What a user gets: told the PSF, or by the plain network, or as it was."""
    if finding.verdict == "sharp" and moving:
        return image
    if finding.psf is None or finding.verdict == "varies":
        samples = image[0].permute(1, 2, 0).numpy()
        return torch.from_numpy(tools.plain(samples)).permute(2, 0, 1)[None]
    return tools.invert(image, psf.stack([finding.psf.array]), finding.noise, linear)


def measure(
    sharp: torch.Tensor, family: str, seed: int, tools: Tools, moving: bool
) -> dict[str, float | str]:
    """One row: errors of the estimate, and PSNRs."""
    image, kernel = degrade(sharp, family, seed)
    low, span = 0.0, 1.0
    linear = sharp.shape[1] == 3
    if not linear:
        low, high = (float(v) for v in np.percentile(image.numpy(), (0.5, 99.9)))
        span = max(high - low, 1e-6)
    image, sharp = (image - low) / span, (sharp - low) / span
    samples = image[0].permute(1, 2, 0).numpy()
    start, busy = time.perf_counter(), time.process_time()
    finding = find_psf(samples, tools, linear=linear, free_form=moving)
    row: dict[str, float | str] = {"seconds": time.perf_counter() - start}
    row["cpu"] = time.process_time() - busy
    row |= {"verdict": finding.verdict, "family": finding.psf.family if finding.psf else "-"}
    noise = noise_level(samples)
    row["input"] = psnr(sharp, image)
    row["found"] = psnr(sharp, restored_by(finding, image, tools, linear, moving))
    row["plain"] = psnr(
        sharp, restored_by(Finding("plain", None, 0, ""), image, tools, linear, moving)
    )
    row["fits"] = float("nan") if finding.check is None else finding.check.ratio
    if kernel is None:
        return row
    row["true"] = psnr(sharp, tools.invert(image, psf.stack([kernel]), noise, linear))
    for factor in OFF:
        told = psf.stack([psf.resized(kernel, factor)])
        row[f"x {factor}"] = psnr(sharp, tools.invert(image, told, noise, linear))
    if finding.psf is not None:
        true = psf.equivalent_sigma(kernel)
        row["size error"] = psf.equivalent_sigma(finding.psf.array) / true - 1
        row["likeness"] = likeness(kernel, finding.psf.array)
    return row


def images(folder: Path, channels: int, count: int, side: int, shrink: float) -> list[torch.Tensor]:
    """Middles of the images of a folder, made smaller so that they are sharp."""
    found = []
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
    for path in files[:: max(1, len(files) // count)][:count]:
        picture = Image.open(path).convert("L" if channels == 1 else "RGB")
        small = picture.resize([round(length / shrink) for length in picture.size], 1)
        array = np.asarray(small, np.float32) / 255
        array = array[..., None] if channels == 1 else array
        top, left = ((max(0, length - side)) // 2 for length in array.shape[:2])
        cut = array[top : top + side, left : left + side]
        height, width = (length // 16 * 16 for length in cut.shape[:2])
        tensor = torch.from_numpy(cut[:height, :width].copy()).permute(2, 0, 1)[None]
        found.append(tensor)
    return found


def main() -> None:
    """Print a row for each image and the means of each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inverter", type=Path, help="weights; default: those that are bundled")
    parser.add_argument("--task", choices=TASKS, default="motion_deblur")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--families", default=";".join(FAMILIES))
    parser.add_argument("--count", type=int, default=6, help="images for each family")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--shrink", type=float, default=1.5)
    options = parser.parse_args()
    tools = tools_for(options.channels, options.inverter, options.task == "motion_deblur")
    sharp = images(options.folder, options.channels, options.count, options.side, options.shrink)
    for family in (f for f in FAMILIES if f in options.families.split(";")):
        rows = []
        for seed, image in enumerate(sharp):
            rows.append(measure(image, family, 1000 + seed, tools, options.task == "motion_deblur"))
            print(f"  {family}: {_text(rows[-1])}", flush=True)
        names = [n for n in rows[0] | rows[-1] if not isinstance(rows[0].get(n, 0.0), str)]
        means = {n: float(np.mean([r[n] for r in rows if n in r])) for n in names}
        gains = [r["found"] - r["input"] for r in rows]
        better = np.mean([gain > 0 for gain in gains])
        print(f"{family}: {_text(means)}; better {better:.0%}, worst {min(gains):+.2f}", flush=True)


def _text(row: dict[str, float | str]) -> str:
    parts = (
        f"{name} {value if isinstance(value, str) else f'{value:.2f}'}"
        for name, value in row.items()
    )
    return ", ".join(parts)


if __name__ == "__main__":
    main()
