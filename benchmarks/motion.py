"""Motion blur that is made otherwise than in the training, restored from one frame and from two.

    python benchmarks/motion.py --sharp FOLDER [--clips FOLDER …] [--model NAME …]

One frame: photographs under straight lines of 9 to 25 pixels and under shake of 6 to 18, without
noise and with 2/255, 8 bits; in color, and shake without noise in gray. Beside the model: unsharp
mask, Richardson–Lucy with the line that one would guess and with the true kernel.

Two frames: each folder of ``--clips`` holds consecutive sharp frames of one clip, in the order of
their names. The motion between two of them (TV-L1, smoothed by 2 pixels), made longer until a
twentieth of the places moves by 3 to 16 pixels, moves the first; both frames are its means over an
exposure of 0.3 to 0.9 of the time, with noise of 2/255, in 8 bits. So motion and sharp frame are
known exactly. Prints the mean end-point error and time of TV-L1, ILK (scikit-image) and the model,
and PSNR of the blurred frame, of the result from one frame, and from two with the true and with the
found exposure.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.io import imread
from skimage.registration import optical_flow_ilk, optical_flow_tvl1

from napari_restore import motion_deblur
from napari_restore.cli import format_table
from napari_restore.evaluation.classical import richardson_lucy, unsharp_mask
from napari_restore.evaluation.metrics import psnr, ssim
from napari_restore.physics import motion
from napari_restore.restoration.plan import Options, find_motion, make_plan
from napari_restore.restoration.run import restore_array

SIDE = 384
#: Frames from one pair of a clip to the next.
STRIDE = 8
GUESS = np.full((1, 9), 1 / 9)


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    half = len(kernel) // 2
    padded = np.pad(image, [(half, half)] * 2 + [(0, 0)] * (image.ndim - 2), mode="reflect")
    if image.ndim == 2:
        return fftconvolve(padded, kernel, "valid")
    return np.stack([fftconvolve(padded[..., c], kernel, "valid") for c in range(3)], -1)


def to_8_bits(image: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    noisy = image + rng.normal(0, noise / 255, image.shape) if noise else image
    return (255 * noisy).round().clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------- one frame


def one_frame(folder: Path, model: str) -> None:
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for number, path in enumerate(sorted(folder.iterdir())):
        pixels = imread(path)
        if pixels.ndim != 3 or path.name.startswith("tissue"):
            continue
        color = pixels[:SIDE, :SIDE, :3] / 255.0
        rng = np.random.default_rng(number)
        line = motion.kernel(motion.line(rng.uniform(9, 25), rng.uniform(0, np.pi)))
        shake = motion.kernel(motion.shake(rng, rng.uniform(6, 18), jerk=0.02))
        gray = color @ [0.299, 0.587, 0.114]
        sets = [
            ("line or shake, noise 2/255", color, (line, shake)[number % 2], 2.0),
            ("line or shake", color, (line, shake)[number % 2], 0.0),
            ("shake, gray", gray, shake, 0.0),
        ]
        for name, sharp, kernel, noise in sets:
            seen = to_8_bits(blur(sharp, kernel.astype(float)), noise, rng)
            view = seen / 255.0
            results = {
                "input": view,
                "unsharp": unsharp_mask(view),
                "RL, guess": richardson_lucy(view, GUESS, 10),
                "RL, true": richardson_lucy(view, kernel.astype(float)),
                "model": motion_deblur(seen, model=model, rgb=sharp.ndim == 3) / 255.0,
            }
            before = psnr(view, sharp, 1.0)
            for method, result in results.items():
                figure = psnr(result, sharp, 1.0)
                rows[name, method].append(
                    (figure, ssim(result, sharp, 1.0), float(figure > before))
                )
    table = [
        [name, method, *_cells(np.mean(values, axis=0))] for (name, method), values in rows.items()
    ]
    print(format_table(["blur", "method", "PSNR", "SSIM", "better"], table))


def _cells(means: np.ndarray) -> list[str]:
    return [f"{means[0]:.2f} dB", f"{means[1]:.3f}", f"{100 * means[2]:.0f} %"]


# ---------------------------------------------------------------- two frames


def moved(sharp: np.ndarray, following: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """Two blurred frames (2, Y, X, 3) of a sharp one, the flow between them and the exposure."""
    rng = np.random.default_rng(seed)
    found = optical_flow_tvl1(sharp.mean(-1), following.mean(-1))
    found = np.stack([gaussian_filter(part, 2) for part in found])
    reach = np.percentile(np.hypot(*found), 95)
    back = -torch.from_numpy(found * rng.uniform(3, 16) / max(reach, 0.1)).float()[None]
    light = torch.from_numpy(sharp).permute(2, 0, 1)[None].float()
    exposure = rng.uniform(0.3, 0.9)
    frames = [
        motion.sweep(light, back, at - exposure / 2, at + exposure / 2)[0].permute(1, 2, 0).numpy()
        for at in (0.0, 1.0)
    ]
    flow = -back
    for _ in range(8):
        flow = -motion.warp(back, flow)
    return np.stack([to_8_bits(f, 2.0, rng) for f in frames]), flow[0].numpy(), exposure


def pooled(flow: np.ndarray, cell: int = 16) -> np.ndarray:
    """Means (rows, columns, 2) over cells, of (2, Y, X)."""
    height, width = (length // cell * cell for length in flow.shape[1:])
    parts = flow[:, :height, :width].reshape(2, height // cell, cell, width // cell, cell)
    return parts.mean((2, 4)).transpose(1, 2, 0)


def two_frames(clips: list[Path], gray: bool) -> None:
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    figures: dict[str, list[float]] = defaultdict(list)
    guesses = []
    for clip in clips:
        paths = sorted(clip.iterdir())
        for number, first in enumerate(paths[:-1:STRIDE]):
            sharp, following = (
                imread(p)[:SIDE, :SIDE, :3] / 255.0 for p in (first, paths[STRIDE * number + 1])
            )
            frames, flow, exposure = moved(sharp, following, number)
            if gray:
                frames = (frames @ [0.299, 0.587, 0.114]).round().astype(np.uint8)
                sharp = sharp @ [0.299, 0.587, 0.114]
            truth, light = pooled(flow), frames / 255.0
            planes = light if gray else light.mean(-1)
            for name, method in (("TV-L1", optical_flow_tvl1), ("ILK", optical_flow_ilk)):
                start = time.perf_counter()
                found = pooled(method(planes[0], planes[1]))
                seconds = time.perf_counter() - start
                errors[name].append((np.linalg.norm(found - truth, axis=-1).mean(), seconds))
            options = Options("motion_deblur", frames=2)
            plan = make_plan(frames, replace(options, exposure=exposure), rgb=not gray)
            start = time.perf_counter()
            vectors = find_motion(frames, plan).vectors[0]
            seconds = (time.perf_counter() - start) / 2
            rows, columns = truth.shape[:2]
            distance = np.linalg.norm(vectors[:rows, :columns] - truth, axis=-1).mean()
            errors["model"].append((distance, seconds))
            errors["none at all"].append((np.linalg.norm(truth, axis=-1).mean(), 0.0))
            two = restore_array(frames, plan, blur=False)
            found = restore_array(frames, make_plan(frames, options, rgb=not gray), blur=False)
            guesses.append(abs(found.provenance["exposure"] - exposure))
            one = motion_deblur(frames[0], rgb=not gray)
            still = motion_deblur(
                np.stack([to_8_bits(sharp, 0, np.random.default_rng(0))] * 2),
                rgb=not gray,
                frames=2,
                exposure=exposure,
            )
            for name, result in (
                ("blurred", frames[0]),
                ("one frame", one),
                ("two, true exposure", two.data[0]),
                ("two, found exposure", found.data[0]),
                ("static pair", still[0]),
            ):
                figures[name].append(psnr(result / 255.0, sharp, 1.0))
    kind = "gray" if gray else "color"
    print(f"\n{kind}, {len(figures['blurred'])} pairs of frames")
    table = [
        [n, f"{np.mean(v, 0)[0]:.2f} px", f"{np.mean(v, 0)[1]:.2f} s"] for n, v in errors.items()
    ]
    print(format_table(["motion", "end-point error", "time"], table))
    before = np.array(figures["one frame"])
    table = [
        [n, f"{np.mean(v):.2f} dB", f"{100 * np.mean(np.array(v) > before):.0f} %"]
        for n, v in figures.items()
    ]
    print(format_table(["restored", "PSNR", "better than one frame"], table))
    print(f"exposure found within {np.mean(guesses):.2f} on average")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sharp", type=Path)
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--model", default="auto")
    args = parser.parse_args()
    if args.sharp:
        one_frame(args.sharp, args.model)
    if args.clips:
        for gray in (False, True):
            two_frames(args.clips, gray)


if __name__ == "__main__":
    main()
