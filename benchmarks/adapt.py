"""What adapting to one image is worth: images, blurs inside and outside of the training's, PSFs.

    python benchmarks/adapt.py --mono FOLDER [--color FOLDER] [--blurs disk8,gauss2] [--found]

Blurs sharp images, adds noise, rounds (8-bit color, 16-bit mono), and restores with the bundled
network and with the one that is adapted to the image; told the blur, or with --found the one that
is found in the image. A row for each image: PSNR in dB of input and both results, and whether the
adapted one was kept. The bundled networks have learned from no blur like disk8, gauss5 and line40.
The library of the user is left alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psf import images

from napari_restore import RestoreError, adapt, deblur
from napari_restore.evaluation.metrics import psnr
from napari_restore.models import catalog
from napari_restore.physics import camera, motion, psf
from napari_restore.runtime import use_threads

if TYPE_CHECKING:
    import torch

SIDE, BORDER = 256, 16
BLURS = {
    "disk3": (lambda: psf.disk(3.2), False),
    "gauss2": (lambda: psf.gaussian(2.0), False),
    "line15": (lambda: motion.kernel(motion.line(15, 0.6)), False),
    "disk8": (lambda: psf.disk(8.0), True),
    "gauss5": (lambda: psf.gaussian(5.0), True),
    "line40": (lambda: motion.kernel(motion.line(40, 0.6)), True),
}


def degrade(sharp: torch.Tensor, kernel: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Samples as files have them: (Y, X, 3) uint8 or (Y, X) uint16."""
    color, rng = sharp.shape[1] == 3, np.random.default_rng(seed)
    light = psf.convolve(camera.to_linear(sharp) if color else sharp, psf.stack([kernel]))
    seen = (camera.to_srgb(light) if color else light)[0].permute(1, 2, 0).numpy()
    seen = seen + noise * rng.normal(size=seen.shape)
    if color:
        return (255 * seen).round().clip(0, 255).astype(np.uint8)
    return (10000 + 40000 * seen[..., 0]).round().clip(0, 65535).astype(np.uint16)


def develop(samples: np.ndarray) -> np.ndarray:
    return samples / 255.0 if samples.ndim == 3 else (samples - 10000.0) / 40000


def figure(samples: np.ndarray, sharp: np.ndarray) -> float:
    inner = slice(BORDER, -BORDER), slice(BORDER, -BORDER)
    return psnr(develop(samples)[inner], sharp[inner], 1.0)


def measure(sharp: torch.Tensor, kernel: np.ndarray, noise: float, seed: int, found: bool) -> dict:
    """One row."""
    blurred = degrade(sharp, kernel, noise, seed)
    truth = sharp[0].permute(1, 2, 0).numpy()
    truth = truth if sharp.shape[1] == 3 else truth[..., 0]
    told = {} if found else {"psf": kernel}
    row = {"input": figure(blurred, truth), "bundled": figure(deblur(blurred, **told), truth)}
    start = time.perf_counter()
    try:
        made = adapt(blurred, **told)
    except RestoreError as error:
        return row | {"adapted": row["bundled"], "kept": f"no: {str(error)[:60]}"}
    row |= {"adapted": row["bundled"], "seconds": time.perf_counter() - start}
    row |= {"before": made.before, "after": made.after, "kept": "yes" if made else "no"}
    if made:
        row["adapted"] = figure(deblur(blurred, model=made.name), truth)
    return row


def main() -> None:
    """Print a row for each image and the means of each blur."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mono", type=Path)
    parser.add_argument("--color", type=Path)
    parser.add_argument("--blurs", default=",".join(BLURS))
    parser.add_argument("--noise", type=float, default=0.01, help="standard deviation of the range")
    parser.add_argument("--count", type=int, default=4, help="images for each blur")
    parser.add_argument("--first", type=int, default=0, help="leave out so many")
    parser.add_argument("--shrink", type=float, default=1.0)
    parser.add_argument("--found", action="store_true", help="find the PSF in each image")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        catalog.own_folder = lambda: Path(folder)
        for place, channels in ((options.mono, 1), (options.color, 3)):
            if place is None:
                continue
            kind = "color" if channels == 3 else "mono"
            sharp = images(place, channels, options.count, SIDE, options.shrink)[options.first :]
            for name in options.blurs.split(","):
                make, outside = BLURS[name]
                gains = []
                for number, image in enumerate(sharp):
                    row = measure(image, make(), options.noise, number, options.found)
                    gains.append(row["adapted"] - row["bundled"])
                    print(f"  {name}, {kind} {number}: {gains[-1]:+.2f}; {_text(row)}", flush=True)
                where = "outside" if outside else "inside"
                print(
                    f"{name} ({where}), {kind}: mean {np.mean(gains):+.3f}, best "
                    f"{max(gains):+.2f}, worst {min(gains):+.2f}",
                    flush=True,
                )


def _text(row: dict) -> str:
    parts = (f"{k} {v if isinstance(v, str) else f'{v:.2f}'}" for k, v in row.items())
    return ", ".join(parts)


if __name__ == "__main__":
    main()
