"""Denoising of sharp images with Gaussian noise of known strength, by kind of image.

    python benchmarks/denoise.py --color FOLDER --mono FOLDER [--color-model NAME …]

Adds Gaussian noise of 10, 25 and 50/255 of the range, rounds to 8-bit color (clipped) or 16-bit
mono, and prints the means of PSNR and SSIM of input, non-local means (which is told the noise) and
model. Images are grouped by the first word of their file names.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from skimage.io import imread
from skimage.restoration import denoise_nl_means

from napari_restore import denoise
from napari_restore.cli import format_table
from napari_restore.evaluation.metrics import psnr, ssim

SIDE = 256
SIGMAS = (10, 25, 50)


def non_local_means(image: np.ndarray, sigma: float) -> np.ndarray:
    """Scikit-image's, with the parameters of its example."""
    options = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma}
    axis = -1 if image.ndim == 3 else None
    return denoise_nl_means(image, fast_mode=False, channel_axis=axis, **options)


def read(path: Path, channels: int) -> np.ndarray | None:
    """The middle of an image, in [0, 1]."""
    pixels = imread(path)
    if channels == 3 and pixels.ndim == 2:
        return None
    top, left = (max(0, (length - SIDE) // 2) for length in pixels.shape[:2])
    part = pixels[top : top + SIDE, left : left + SIDE]
    if channels == 3:
        return part[..., :3] / 255.0
    gray = part[..., :3].mean(-1) if part.ndim == 3 else part.astype(float)
    low, high = np.percentile(gray, (0.1, 99.9))
    return ((gray - low) / max(high - low, 1e-6)).clip(0, 1.3)


def detect(image: np.ndarray) -> np.ndarray:
    """Samples as files have them: (Y, X, 3) uint8 or (Y, X) uint16."""
    if image.ndim == 3:
        return (255 * image).round().clip(0, 255).astype(np.uint8)
    return (10000 + 40000 * image).round().clip(0, 65535).astype(np.uint16)


def develop(samples: np.ndarray) -> np.ndarray:
    return samples / 255.0 if samples.ndim == 3 else (samples - 10000.0) / 40000


def measure(folder: Path, channels: int, model: str) -> None:
    figures: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    same: dict[str, list[float]] = defaultdict(list)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        sharp = read(path, channels)
        if sharp is None:
            continue
        kind = path.name.split("_")[0]

        def run(samples: np.ndarray) -> np.ndarray:
            return develop(denoise(samples, rgb=channels == 3, model=model))

        for level in SIGMAS:
            sigma = level / 255
            noisy = sharp + np.random.default_rng(number).normal(0, sigma, sharp.shape)
            samples = detect(noisy)
            seen = develop(samples)
            results = [seen, non_local_means(seen, sigma), run(samples)]
            measures = [psnr(r, sharp, 1.0) for r in results]
            # Beyond its border SSIM is cut to the range of the image.
            planes = [r if channels == 3 else r[..., None] for r in (sharp, *results)]
            measures += [ssim(r, planes[0], 1.0) for r in planes[1:]]
            figures[kind, level].append(measures)
        clean = detect(sharp)
        same[kind].append(min(psnr(run(clean), develop(clean), 1.0), 100.0))
    header = ["images", "σ · 255", "input", "NLM", "model", "gain", "worst"]
    header += ["SSIM input", "NLM", "model", "above NLM"]
    rows = []
    for (kind, level), scores in sorted(figures.items()):
        table = np.array(scores)
        gains, means = table[:, 2] - table[:, 0], table.mean(0)
        above = (table[:, 2] > table[:, 1]).mean()
        cells = [f"{value:.2f}" for value in means[:3]]
        cells += [f"{gains.mean():+.2f}", f"{gains.min():+.2f}"]
        cells += [f"{value:.3f}" for value in means[3:]]
        rows.append([kind, str(level), *cells, f"{above:.0%}"])
    print(format_table(header, rows))
    for kind, values in same.items():
        print(f"sharp {kind} returned at {np.mean(values):.1f} dB (worst {min(values):.1f})")


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
