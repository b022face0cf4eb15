"""Dehazing of clear images under haze that differs from that of the training.

    python benchmarks/dehaze.py --color FOLDER --mono FOLDER [--color-model NAME …]

Color: a smooth transmission of 0.2 to 0.8; planes seen in perspective with things standing on
them; dense, nearly even smoke that adds up in linear light. Airlight of 0.75 to 1, gray (smoke:
0.6 to 0.8, slightly colored), no noise, 8 bits. Mono: the image at 30 to 100 % of its brightness
under itself and its mirror image, blurred by σ 6 to 50, and a smooth background; 100 to 5,000
photons, 16 bits. Prints mean PSNR, SSIM and CIEDE2000 of input, classical methods and model. Images
are grouped by the first word of their names. Mono results are first brought to the intensities of
the clear image by an affine fit.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.io import imread

from napari_restore import dehaze
from napari_restore.cli import format_table
from napari_restore.evaluation.classical import classical_methods, to_linear, to_srgb
from napari_restore.evaluation.metrics import affine_fit, psnr, ssim

SIDE = 512


def smooth(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=shape), sigma, mode="reflect")
    return (field - field.min()) / np.ptp(field)


def mix(clear: np.ndarray, t: np.ndarray, air: np.ndarray | float) -> np.ndarray:
    return clear * t[..., None] + air * (1 - t[..., None])


def hazes(clear: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """The same image (Y, X, 3) in [0, 1] under several kinds of haze."""
    rng = np.random.default_rng(number)
    height, width = shape = clear.shape[:2]
    even = 0.2 + 0.6 * smooth(rng, shape, width / 5)
    out = {"smooth": mix(clear, even, rng.uniform(0.75, 1))}
    depth = np.tile(0.15 + 0.85 * np.linspace(1, 0, height)[:, None] ** 1.5, (1, width))
    for _ in range(4):
        left, wide = rng.integers(0, width), rng.integers(width // 10, width // 3)
        foot = rng.integers(height // 4, height)
        depth[height // 4 : foot, left : left + wide] = depth[foot, 0]
    out["planes"] = mix(clear, np.exp(-rng.uniform(0.8, 1.6) * depth), rng.uniform(0.75, 1))
    t = np.exp(-rng.uniform(0.5, 0.8) - 0.9 * smooth(rng, shape, width / 3))
    air = rng.uniform(0.6, 0.8) + rng.normal(0, 0.015, 3)
    light, glow = (to_linear(x.astype(np.float32)) for x in (clear, air))
    out["smoke"] = to_srgb(mix(light, t, glow).astype(np.float32))
    return out


def veil(clear: np.ndarray, number: int) -> np.ndarray:
    """Photons counted of an image (Y, X) under light of other planes, as 16-bit samples."""
    rng = np.random.default_rng(number)
    sigmas = np.exp(rng.uniform(np.log(6), np.log(50), 3))
    other = (gaussian_filter(clear[:, ::-1], s) for s in sigmas[1:])
    light = rng.uniform(0.3, 1.5) * gaussian_filter(clear, sigmas[0])
    light += rng.uniform(0.3, 1.5) * sum(other) / 2
    seen = rng.uniform(0.3, 1) * clear + light
    seen += rng.uniform(0, 0.3) * smooth(rng, clear.shape, max(clear.shape) / 4)
    photons = np.exp(rng.uniform(np.log(100), np.log(5000)))
    counts = rng.poisson(seen.clip(min=0) / seen.max() * photons) / photons
    return (500 + 60000 * counts).clip(0, 65535).astype(np.uint16)


def color_pairs(path: Path, number: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    pixels = imread(path)
    if pixels.ndim == 2:
        return {}
    clear = pixels[:SIDE, :SIDE, :3] / 255.0
    return {
        name: (clear, (255 * hazy.clip(0, 1)).round().astype(np.uint8))
        for name, hazy in hazes(clear, number).items()
    }


def mono_pairs(path: Path, number: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    gray = imread(path).astype(float)
    gray = gray[..., :3].mean(-1) if gray.ndim == 3 else gray
    low, high = np.percentile(gray, (0.5, 99.9))
    clear = ((gray[:SIDE, :SIDE] - low) / (high - low)).clip(0, 1.2)
    return {"veil": (clear, veil(clear, number))}


def measure(folder: Path, kind: str, model: str) -> None:
    methods = classical_methods("dehaze", kind)
    names = ["input", *(method.name for method in methods), "model"]
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    find = color_pairs if kind == "color" else mono_pairs
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        for name, (clear, samples) in find(path, number).items():
            full = float(np.iinfo(samples.dtype).max)
            seen = samples / full
            restored = dehaze(samples, rgb=kind == "color", model=model) / full
            results = [seen, *(method.run(seen, np.ones((1, 1))) for method in methods), restored]
            if kind == "mono":
                results = [affine_fit(result, clear) for result in results]
            rows = [
                [psnr(x, clear, 1.0), ssim(x, clear, 1.0), color_error(x, clear)] for x in results
            ]
            scores[f"{path.name.split('_')[0]}, {name}"].append(np.array(rows))
    table = []
    for group, found in sorted(scores.items()):
        stack = np.stack(found)
        for index, (name, means) in enumerate(zip(names, stack.mean(0), strict=True)):
            better = (stack[:, index, 0] > stack[:, 0, 0]).mean()
            error = f"{means[2]:.1f}" if kind == "color" else ""
            cells = [f"{means[0]:.2f}", f"{means[1]:.3f}", error, f"{better:.0%}" if index else ""]
            table.append([group if not index else "", name, *cells])
    print(format_table(["images, haze", "method", "PSNR", "SSIM", "ΔE00", "better"], table))


def color_error(image: np.ndarray, clear: np.ndarray) -> float:
    if image.ndim == 2:
        return np.nan
    return float(deltaE_ciede2000(rgb2lab(image), rgb2lab(clear)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for kind in ("color", "mono"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FOLDER")
        parser.add_argument(f"--{kind}-model", default="auto", metavar="NAME")
    options = parser.parse_args()
    if options.color:
        measure(options.color, "color", options.color_model)
    if options.mono:
        measure(options.mono, "mono", options.mono_model)


if __name__ == "__main__":
    main()
