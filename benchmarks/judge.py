"""Learn what tells good kernels from bad ones: prints `MERIT` of `napari_restore.analysis.judge`.

    python benchmarks/judge.py FOLDER [--count 240] [--cache DIR] [--channels 1 3]

Sharp photographs are cut, moved by random kernels, and searched as Motion deblur does. What speaks
for each candidate is noted beside the PSNR of what it restores. The weights are those with which
the choice loses least against the best candidate of each image. What is lost on images that were
not learned from is printed beside: in six parts, each chosen by what the other five say.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from psf import FAMILIES, degrade, images, psnr, tools_for

from napari_restore.analysis.find import WINDOW, Looked, rich_windows
from napari_restore.analysis.judge import MERIT, Evidence, evidence

if TYPE_CHECKING:
    from napari_restore.analysis.find import Tools

#: What the images are moved by, and how often.
KINDS = ("shake", "shake", "shake, clean", "line")
SIDE, PARTS, STEPS = 256, 6, 300
#: A choice that is this many dB worse than the best is as bad as any.
WORST = 5.0


class Searched(NamedTuple):
    """What a search tried: (N, 6), (N,) dB, (N,) what the rules of lines add, whether of a line."""

    evidence: np.ndarray
    psnr: np.ndarray
    bonus: np.ndarray
    line: bool


def searched(sharp: torch.Tensor, kind: str, seed: int, tools: Tools) -> Searched | None:
    """Search as the docks do, and compare all that was tried with the truth."""
    image, _ = degrade(sharp, kind, seed)
    linear = sharp.shape[1] == 3
    if not linear:
        low, high = (float(v) for v in np.percentile(image.numpy(), (0.5, 99.9)))
        image, sharp = ((part - low) / max(high - low, 1e-6) for part in (image, sharp))
    windows = rich_windows(image[0].permute(1, 2, 0).numpy(), WINDOW, 1)
    looked = Looked(windows[0], tools, linear)
    if not looked.has_structure:
        return None
    tried = looked.tried()
    known = [evidence(one.restored, image, one.candidate.array) for one in tried]
    bonus = [looked.bonus(one.candidate) for one in tried]
    quality = [psnr(sharp, one.restored) for one in tried]
    return Searched(np.array(known), np.array(quality), np.array(bonus), kind == "line")


def learned(searches: list[Searched]) -> np.ndarray:
    """Weights with which the choice, drawn by their softmax, loses least."""
    most = max(len(one.psnr) for one in searches)
    known = torch.zeros(len(searches), most, len(Evidence._fields) + 1)
    loss, absent = torch.zeros(known.shape[:2]), torch.full(known.shape[:2], -1e9)
    for row, one in enumerate(searches):
        values = torch.from_numpy(np.c_[one.evidence, one.bonus])
        known[row, : len(values)] = values - values.mean(0)
        loss[row, : len(values)] = torch.from_numpy(one.psnr.max() - one.psnr).clamp(max=WORST)
        absent[row, : len(values)] = 0
    scale = known.flatten(0, 1)[absent.flatten() == 0].std(0).clamp(min=1e-9)
    weights = torch.zeros(known.shape[2], requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.03, weight_decay=1e-2)
    for _ in range(STEPS):
        share = torch.softmax(2 * (known / scale) @ weights + absent, 1)
        optimizer.zero_grad()
        (share * loss).sum(1).mean().backward()
        optimizer.step()
    found: np.ndarray = (weights / scale).detach().numpy()
    return found


def lost(searches: list[Searched], weights: np.ndarray) -> np.ndarray:
    """What each choice loses against the best candidate, in dB."""
    return np.array(
        [
            one.psnr.max() - one.psnr[(np.c_[one.evidence, one.bonus] @ weights).argmax()]
            for one in searches
        ]
    )


def collect(options: argparse.Namespace) -> list[Searched]:
    """Search as many images as are asked for, or take them from the cache."""
    found = []
    for channels in options.channels:
        tools = tools_for(channels, None, moving=True)
        count = options.count // len(options.channels)
        pictures = images(options.folder, channels, count, SIDE, 1.8)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            kept = options.cache and options.cache / f"{channels}-{number}.npz"
            if kept and kept.exists():
                with np.load(kept) as parts:
                    one = Searched(parts["known"], parts["psnr"], parts["bonus"], kind == "line")
                found.append(one)
                continue
            made = searched(pictures[number % len(pictures)], kind, 7000 + number, tools)
            if made is None:
                continue
            found.append(made)
            if kept:
                np.savez(kept, known=made.evidence, psnr=made.psnr, bonus=made.bonus)
            print(f"  {channels}-{number} {kind}: best {made.psnr.max():.2f}", flush=True)
    return found


def main() -> None:
    """Print the weights, and what is lost with the present ones and with these."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    FAMILIES["shake, clean"] = (FAMILIES["shake"][0], 0.0, None)
    searches = collect(options)
    lines = np.array([one.line for one in searches])
    unseen = np.zeros(len(searches))
    for part in range(PARTS):
        others = [one for number, one in enumerate(searches) if number % PARTS != part]
        unseen[part::PARTS] = lost(searches[part::PARTS], learned(others))
    for name, loss in (
        ("sparsity alone", lost(searches, -np.eye(len(MERIT) + 1)[0])),
        ("as it is", lost(searches, np.array([*MERIT, 1.0]))),
        ("learned, unseen", unseen),
    ):
        print(
            f"{name}: {loss.mean():.2f} dB lost; lines {loss[lines].mean():.2f}, others "
            f"{loss[~lines].mean():.2f}, nine of ten below {np.quantile(loss, 0.9):.2f}"
        )
    weights = learned(searches)
    print(Evidence(*(round(float(weight), 3) for weight in weights[:-1])))
    print(f"the bonus of lines x {weights[-1]:.2f}")


if __name__ == "__main__":
    main()
