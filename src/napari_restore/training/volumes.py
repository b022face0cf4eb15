"""Train the network that restores volumes: ``python -m napari_restore.training.volumes``.

Volumes are made up (`scenes`) or cut from recorded ones, and seen by random microscopes. Richardson
and Lucy take most of the time, so that each volume serves for several steps.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_restore.analysis.find import noise_level
from napari_restore.models.catalog import VOLUME, VOLUME_INVERTER, save_weights
from napari_restore.networks.volume_inverter import VolumeInverter
from napari_restore.physics.deconvolution import RichardsonLucy, Scale
from napari_restore.physics.optics import Optics
from napari_restore.runtime import whole_file

from .blurs import log_uniform
from .scenes import KEPT, TRAINED, Seen, around, part_of, see

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Shape of the volumes, and of the crops that a step sees.
SHAPE, CROP = (24, 64, 64), (16, 48, 48)
#: Most pixels to each side of the center of a PSF: in Z, in Y and X.
MOST = (14, 20)
#: Volumes that are kept, steps for each new one, and crops in a step.
KEPT_VOLUMES, STEPS_EACH, CROPS = 160, 12, 2
#: Largest rate of learning.
RATE = 4e-3
#: Share of the volumes whose optics are told wrong.
_MISTOLD = 1 / 3


@dataclass(frozen=True)
class Example:
    """A volume as the network sees it, and its truth, in the range that networks see."""

    image: torch.Tensor
    estimates: torch.Tensor
    truth: torch.Tensor
    noise: float


def random_optics(rng: np.random.Generator) -> Optics:
    """Draw a microscope of any usual kind, with a sampling near Nyquist's."""
    n, na = [(1.0, 0.8), (1.33, 1.15), (1.515, 1.4)][int(rng.integers(3))]
    na *= rng.uniform(0.7, 1)
    modality = str(
        rng.choice(["widefield", "widefield", "confocal", "spinning disk", "light sheet"])
    )
    wavelength = rng.uniform(0.45, 0.7)
    more: dict[str, Any] = {}
    if modality == "light sheet":
        more["sheet_thickness"] = rng.uniform(1.5, 5)
    if modality in ("confocal", "spinning disk"):
        more |= {"pinhole": rng.uniform(0.7, 2), "excitation": 0.92 * wavelength}
    lateral = wavelength / (4 * na)
    axial = wavelength / (2 * (n - math.sqrt(n**2 - na**2)))
    depth = 0.88 * wavelength / (n - math.sqrt(n**2 - na**2))
    if "sheet_thickness" in more:
        depth = 1 / math.hypot(1 / depth, 1 / more["sheet_thickness"])
    return Optics(
        na=na,
        wavelength=wavelength,
        pixel_size=lateral * rng.uniform(0.5, 1.4),
        z_step=min(axial * rng.uniform(0.4, 1.3), 0.75 * depth),
        refractive_index=n,
        modality=modality,
        model="scalar",
        **more,
    )


def mistold(optics: Optics, rng: np.random.Generator) -> Optics:
    """Draw what somebody tells of a microscope who does not know it well: up to 10 % off."""

    def off() -> float:
        return float(rng.uniform(0.9, 1.1)) if rng.random() < 0.5 else 1.0

    hole = optics.pinhole
    return replace(
        optics,
        # The aperture is what decides, and what is the least known.
        na=min(optics.na * float(rng.uniform(0.9, 1.1)), 0.97 * optics.immersion),
        wavelength=optics.wavelength * off(),
        pinhole=None if hole is None else hole * off(),
    )


def cut(psf: NDArray[np.float32], most: tuple[int, int] = MOST) -> NDArray[np.float32]:
    """Middle of a PSF, of sum 1."""
    part = []
    for side, limit in zip(psf.shape, (most[0], most[1], most[1]), strict=True):
        off = max(0, side // 2 - limit)
        part.append(slice(off, side - off))
    inner = psf[tuple(part)]
    whole: NDArray[np.float32] = inner / inner.sum()
    return whole


def example(seen: Seen, psf: NDArray[np.float32], stages: Sequence[int]) -> Example:
    """Make what the network sees of a volume."""
    low, high = (float(v) for v in np.percentile(seen.blurred, [0.5, 99.9]))
    span = max(high - low, 1e-6)
    image = torch.from_numpy(((seen.blurred - low) / span).astype(np.float32))
    noise = noise_level(image[len(image) // 2].numpy())
    pedestal = max(0.0, -2 * float(np.percentile(image.numpy(), 0.5)))
    steps = RichardsonLucy(max(stages))
    with torch.inference_mode():
        estimates = steps.stages(image, torch.from_numpy(psf), Scale(1.0, pedestal), stages)
    truth = torch.from_numpy(((seen.sharp - low) / span).astype(np.float32))
    return Example(image, torch.stack(estimates), truth, noise)


def random_example(
    rng: np.random.Generator, recorded: Sequence[NDArray[Any]], stages: Sequence[int]
) -> Example:
    """Make a volume of any kind, seen by any microscope."""
    optics = random_optics(rng)
    psf = cut(optics.psf(dimensions=3))
    step = (optics.z_step or 1.0) / optics.pixel_size
    shape = around(SHAPE, psf.shape)
    if recorded and rng.random() < 0.2:
        sharp = part_of(recorded[int(rng.integers(len(recorded)))], shape, rng)
    else:
        names = rng.choice(list(TRAINED), 2, replace=False)
        sharp = TRAINED[names[0]](shape, rng, step)
        if rng.random() < 0.3:
            other = TRAINED[names[1]](shape, rng, step)
            sharp = sharp / max(sharp.max(), 1e-9) + rng.uniform(0.2, 1) * other / other.max()
    seen = see(sharp, psf, SHAPE, log_uniform(rng, 20, 5000), rng)
    if rng.random() < _MISTOLD:
        psf = cut(mistold(optics, rng).psf(dimensions=3))
    return example(seen, psf, stages)


def random_crops(
    examples: Sequence[Example], rng: np.random.Generator, count: int = CROPS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, estimates, truth and noise of crops, turned and mirrored."""
    parts = []
    for _ in range(count):
        one = examples[int(rng.integers(len(examples)))]
        start = [int(rng.integers(0, n - c + 1)) for n, c in zip(SHAPE, CROP, strict=True)]
        key = tuple(slice(s, s + c) for s, c in zip(start, CROP, strict=True))
        stack = torch.cat([one.image[None], one.estimates, one.truth[None]])[(slice(None), *key)]
        stack = torch.rot90(stack, int(rng.integers(4)), (2, 3))
        stack = stack.flip([axis for axis in (1, 2) if rng.random() < 0.5])
        parts.append((stack, one.noise))
    whole = torch.stack([stack for stack, _ in parts])
    noise = torch.tensor([level for _, level in parts], dtype=torch.float32)
    return whole[:, 0], whole[:, 1:-1], whole[:, -1], noise


def loss_of(result: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Error beside the contrast, as a logarithm so that volumes count alike; and that of roots."""
    variance = truth.var(dim=(1, 2, 3), keepdim=True) + 1e-3
    error = ((result - truth).square() / variance).mean((1, 2, 3))
    root = ((result.clamp(min=0) + 0.01).sqrt() - (truth.clamp(min=0) + 0.01).sqrt()).square()
    return (error + 1e-3).log().mean() + 3 * root.mean()


def psnr(result: NDArray[Any], truth: NDArray[Any]) -> float:
    """In decibels of the largest value of the truth, after the affine fit that suits best."""
    slope, offset = np.polyfit(result.ravel().astype(float), truth.ravel().astype(float), 1)
    error = np.mean((slope * result + offset - truth) ** 2)
    return float(10 * np.log10(truth.max() ** 2 / error))


def held_out(stages: Sequence[int]) -> Iterator[tuple[str, Example]]:
    """Volumes to measure with: a kind that nothing is trained on, and two trained kinds anew."""
    for number, modality in enumerate(("widefield", "confocal")):
        optics = Optics(
            na=1.2,
            wavelength=0.52,
            pixel_size=0.1,
            z_step=0.25,
            refractive_index=1.33,
            modality=modality,
        )
        psf = cut(optics.psf(dimensions=3))
        wrong = cut(replace(optics, na=0.9 * optics.na).psf(dimensions=3))
        for name, scene in {**KEPT, **{n: TRAINED[n] for n in ("nuclei", "grains")}}.items():
            rng = np.random.default_rng(1000 + number)
            sharp = scene(around(SHAPE, psf.shape), rng, 2.5)
            for photons in (100, 1000):
                seen = see(sharp, psf, SHAPE, photons, np.random.default_rng(7))
                yield f"{modality} {name} {photons}", example(seen, psf, stages)
            yield f"{modality} {name} 1000, NA 10 % off", example(seen, wrong, stages)


def train(folder: Path, target: Path, steps: int, seed: int = 0) -> None:
    """Train and write the weights, now and then and at last.

    What was interrupted goes on where it was: its state lies beside the weights until the end.

    Parameters
    ----------
    folder : Path
        Recorded volumes, TIFF.
    target : Path
    steps : int
    seed : int
    """
    import tifffile

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    recorded = [tifffile.imread(path) for path in sorted(folder.glob("*.tif"))]
    network = VolumeInverter(**VOLUME)  # type: ignore[arg-type]
    stages = network.stages
    tests = list(held_out(stages))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    mean = {key: value.detach().clone() for key, value in network.state_dict().items()}
    examples: list[Example] = []
    began, losses, first = time.monotonic(), [], 0
    state = target.with_name(target.name + ".state")
    if state.exists():
        # Volumes are not kept: others are made up.
        kept = torch.load(state, weights_only=False)
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        mean, first, rng = kept["mean"], kept["step"], kept["rng"]
        torch.set_rng_state(kept["torch"])
        examples = [random_example(rng, recorded, stages) for _ in range(8)]
    for step in range(first, steps):
        if step % STEPS_EACH == 0:
            examples.append(random_example(rng, recorded, stages))
            if len(examples) > KEPT_VOLUMES:
                del examples[0]
        share = step / steps
        rate = (
            RATE * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        image, estimates, truth, noise = random_crops(examples, rng)
        loss = loss_of(network.merge(image, estimates, noise), truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        keep = min(0.99, step / (step + 20))
        for key, value in network.state_dict().items():
            mean[key].lerp_(value, 1 - keep)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            minutes = (time.monotonic() - began) / 60
            print(f"{step + 1} steps, {minutes:.1f} min, loss {np.mean(losses[-200:]):.3f}")
            _report(mean, tests)
            spec = VOLUME_INVERTER
            metadata = {
                "name": spec.name,
                "task": spec.task,
                "architecture": spec.architecture,
                "options": dict(spec.options),
                "license": spec.license,
                "recorded_volumes": len(recorded),
                "seed": seed,
                "steps": step + 1,
            }
            save_weights(target, mean, metadata)
            checkpoint = {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "mean": mean,
                "step": step + 1,
                "rng": rng,
                "torch": torch.get_rng_state(),
            }
            with whole_file(state) as temporary:
                torch.save(checkpoint, temporary)
    state.unlink(missing_ok=True)


def _report(state: dict[str, torch.Tensor], tests: Sequence[tuple[str, Example]]) -> None:
    network = VolumeInverter(**VOLUME)  # type: ignore[arg-type]
    network.load_state_dict(state)
    gains = []
    for name, one in tests:
        with torch.inference_mode():
            noise = torch.tensor([one.noise])
            merged = network.merge(one.image[None], one.estimates[None], noise)[0].numpy()
        truth = one.truth.numpy()
        figures = [
            psnr(x.numpy(), truth) for x in (one.image, one.estimates[-2], one.estimates[-1])
        ]
        found = psnr(merged, truth)
        gains.append(found - figures[1])
        print(f"  {name}: " + " ".join(f"{v:.2f}" for v in figures) + f" | {found:.2f}")
    print(f"  mean gain over Richardson and Lucy: {np.mean(gains):.2f} dB", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="recorded volumes (TIFF)")
    parser.add_argument("target", type=Path, help="weights to write (.safetensors)")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.folder, args.target, args.steps, args.seed)


if __name__ == "__main__":
    main()
