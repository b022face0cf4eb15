"""Deblurring of sharp images under known disks and Gaussians, by kind of image.

    python benchmarks/deblur.py --color FOLDER --mono FOLDER [--color-model NAME …]

Blurs every image with a disk of radius 1.5 to 5 pixels and with a Gaussian of σ 1 to 3, adds noise
(photographs 2/255; fluorescence 200 photons at the peak; electron micrographs 2 %, others 1 % of
the range), rounds to 8-bit color or 16-bit mono, and prints the mean PSNR of input, classical
methods and model. Images are grouped by the first word of their file names. Mono results are first
brought to the intensities of the sharp image by an affine fit.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve
from skimage.io import imread

from napari_restore import deblur
from napari_restore.cli import format_table
from napari_restore.evaluation.classical import (
    gaussian_kernel,
    richardson_lucy,
    unsharp_mask,
    wiener,
)
from napari_restore.evaluation.metrics import affine_fit, psnr
from napari_restore.physics import psf

SIDE = 384
GUESS = gaussian_kernel(1.5)
METHODS = {
    "unsharp": lambda image, kernel: unsharp_mask(image),
    "RL, guess": lambda image, kernel: richardson_lucy(image, GUESS, 10),
    "RL, true": richardson_lucy,
    "Wiener, true": wiener,
}


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    if image.ndim == 3:
        return np.stack([blur(image[..., c], kernel) for c in range(3)], -1)
    return fftconvolve(np.pad(image, len(kernel) // 2, mode="reflect"), kernel, "valid")


def kernels(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    drawn = {"disk": psf.disk(rng.uniform(1.5, 5)), "Gaussian": psf.gaussian(rng.uniform(1, 3))}
    return {name: kernel.astype(np.float64) for name, kernel in drawn.items()}


def detect(image: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Samples of a blurred image, (Y, X, 3) uint8 or (Y, X) uint16."""
    rng = np.random.default_rng(seed)
    if image.ndim == 3:
        noisy = image + rng.normal(0, 2 / 255, image.shape)
        return (255 * noisy).round().clip(0, 255).astype(np.uint8)
    if kind.startswith("fluo"):
        noisy = rng.poisson(image.clip(min=0) * 200) / 200
    else:
        noisy = image + rng.normal(0, 0.02 if kind.startswith("em") else 0.01, image.shape)
    return (5000 + 40000 * noisy).round().clip(0, 65535).astype(np.uint16)


def develop(samples: np.ndarray) -> np.ndarray:
    return samples / 255.0 if samples.ndim == 3 else (samples - 5000.0) / 40000


def read(path: Path, channels: int) -> np.ndarray | None:
    pixels = imread(path)
    if channels == 3:
        return pixels[:SIDE, :SIDE, :3] / 255.0 if pixels.ndim == 3 else None
    gray = pixels[..., :3].mean(-1) if pixels.ndim == 3 else pixels.astype(float)
    low, high = np.percentile(gray, (0.1, 99.9))
    return ((gray[:SIDE, :SIDE] - low) / (high - low)).clip(0, 1.3)


def measure(folder: Path, channels: int, model: str) -> None:
    figures: dict[str, list[list[float]]] = defaultdict(list)
    same: dict[str, list[float]] = defaultdict(list)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        sharp = read(path, channels)
        if sharp is None:
            continue
        kind = path.name.split("_")[0]

        def run(samples: np.ndarray) -> np.ndarray:
            return develop(deblur(samples, rgb=channels == 3, model=model))

        def score(result: np.ndarray, truth: np.ndarray = sharp) -> float:
            fitted = result if channels == 3 else affine_fit(result, truth)
            return min(psnr(fitted, truth, 1.0), 100.0)

        for name, kernel in kernels(number).items():
            samples = detect(blur(sharp, kernel), kind, number)
            seen = develop(samples)
            results = [seen, *(method(seen, kernel) for method in METHODS.values()), run(samples)]
            figures[f"{kind}, {name}"].append([score(result) for result in results])
        clean = detect_clean(sharp)
        same[kind].append(min(psnr(run(clean), develop(clean), 1.0), 100.0))
    header = ["images, blur", "input", *METHODS, "model", "gain", "better"]
    rows = []
    for name, scores in sorted(figures.items()):
        table = np.array(scores)
        gains = table[:, -1] - table[:, 0]
        cells = [f"{value:.2f}" for value in table.mean(0)]
        rows.append([name, *cells, f"{gains.mean():+.2f}", f"{(gains > 0).mean():.0%}"])
    print(format_table(header, rows))
    for kind, values in same.items():
        print(f"sharp {kind} returned at {np.mean(values):.1f} dB (worst {min(values):.1f})")


def detect_clean(sharp: np.ndarray) -> np.ndarray:
    if sharp.ndim == 3:
        return (255 * sharp).round().astype(np.uint8)
    return (5000 + 40000 * sharp).round().astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for kind in ("color", "mono"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FOLDER")
        parser.add_argument(f"--{kind}-model", default="auto", metavar="NAME")
    options = parser.parse_args()
    if options.color:
        measure(options.color, 3, options.color_model)
    if options.mono:
        measure(options.mono, 1, options.mono_model)


if __name__ == "__main__":
    main()
