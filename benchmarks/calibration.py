"""How errors follow from disagreement, and what images each model knows: makes calibration.json.

    python benchmarks/calibration.py --train DIR… --validation DIR… [--model NAME…] [--cache DIR]

Sharp images are degraded as in the recipe of the model and restored as users restore them. From
the training images the size of the errors is fitted as a function of what can be seen without the
truth, and the likeness to what was learned; both are verified on the validation images. With
``--cache`` what was restored is kept, and only what is missing is restored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_restore.analysis.noise import noise_level
from napari_restore.evaluation.agreement import FEATURES, find_agreement
from napari_restore.evaluation.pairs import Camera, load_sharp
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes
from napari_restore.image.tiling import Region
from napari_restore.inference.conversion import normalized
from napari_restore.models.catalog import CATALOG, INVERTERS
from napari_restore.restoration.facts import Blur, Facts
from napari_restore.restoration.options import Options
from napari_restore.restoration.plan import make_plan
from napari_restore.training.data import CropSource, as_scene, center_crop
from napari_restore.training.recipes import get_recipe

if TYPE_CHECKING:
    from napari_restore.models.spec import ModelSpec
    from collections.abc import Callable

    from napari_restore.training.data import SharpImage

    #: From number, random numbers and side to (1, C, side, side) in [0, 1].
    Crops = Callable[[int, np.random.Generator, int], torch.Tensor]

MODELS = {spec.name: spec for spec in (*CATALOG, *INVERTERS.values())}
TARGET = 0.68
SIZES = {"dehaze": 144}
SIZE, BORDER = 96, 8
TABLE = Path(__file__).parents[1] / "src/napari_restore/evaluation/calibration.json"


def drawn(images: list[SharpImage], spec: ModelSpec) -> Crops:
    """Crops as in training."""
    recipe = get_recipe(spec.name)
    source = CropSource(
        images,
        scenes=recipe.scenes,
        emphasis=recipe.emphasis,
        clearness=recipe.clearness,
    )
    return lambda number, rng, size: source.batch(rng, 1, size)


def middles(images: list[SharpImage], spec: ModelSpec) -> Crops:
    """Middle of each image."""
    scenes = get_recipe(spec.name).scenes

    def crop(number: int, rng: np.random.Generator, size: int) -> torch.Tensor:
        image = images[number % len(images)]
        return center_crop(as_scene(image, scenes[0]) if scenes else image, size)

    return crop


def degraded(
    crops: Crops, spec: ModelSpec, seed: tuple[int, int], size: int
) -> tuple[Any, Any, Any, Any]:
    """Samples as files have them, the truth in their units, kernel, exposure."""
    recipe = get_recipe(spec.name)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    pair = recipe.degradation(
        crops(seed[1], rng, size + 2 * recipe.degradation.margin), rng, generator
    )
    frames = [
        part[0].permute(1, 2, 0).double().numpy() for part in pair.image.split(spec.channels, 1)
    ]
    target = pair.target[0].permute(1, 2, 0).double().numpy()
    camera = Camera.for_image(np.concatenate(frames), "color" if spec.channels == 3 else "mono")
    samples = np.stack([camera.expose(frame) for frame in frames])
    # The truth is neither rounded nor clipped.
    ends = np.array([[[camera.low]], [[camera.low + camera.span]]])
    black, white = camera.expose(ends).ravel()[[0, -1]].astype(float)
    truth = (target - camera.low) / camera.span * (white - black) + black
    told = None if pair.told is None else pair.told.psf[0].double().numpy()
    exposure = None if pair.exposure is None else float(pair.exposure.flatten()[0])
    return samples if spec.frames == 2 else samples[0], truth, told, exposure


def planned(samples: Any, spec: ModelSpec, kernel: Any, exposure: float | None) -> tuple[Any, Any]:
    """Plan and facts, as of a user who knows the kernel or the exposure."""
    color = spec.channels == 3
    axes = ("T" if spec.frames == 2 else "") + "YX" + ("S" if color else "")
    options: dict[str, Any] = {"device": "cpu", "frames": spec.frames}
    if spec.psf:
        options["psf"] = kernel
    if exposure is not None:
        options["exposure"] = max(exposure, 0.05)
    plan = make_plan(samples, Options(spec.task, **options), axes=axes)
    planes = Planes(samples, plan.layout)
    scales = find_scales(planes, **plan.scaling)
    blurs: tuple[Blur, ...] = ()
    if spec.psf:
        index = (0,) * len(plan.layout.leading)
        seen, _ = normalized(planes, index, Region(0, 0, *plan.layout.size), scales[0], 1)
        blurs = (Blur(plan.psfs[0], noise_level(seen), "given", ""),)
    return plan, Facts(scales, exposure, blurs)


def measured(crops: Crops, spec: ModelSpec, seed: tuple[int, int]) -> dict[str, Any]:
    """What a degraded image and its restorations are, and the truth; as the network sees them."""
    samples, truth, kernel, exposure = degraded(crops, spec, seed, SIZES.get(spec.task, SIZE))
    plan, facts = planned(samples, spec, kernel, exposure)
    index = (0,) * len(plan.layout.leading)
    found = find_agreement(samples, plan, facts, index, Region(0, 0, *plan.layout.size))
    scale = facts.scales[0]
    target = (truth.reshape(found.seen.shape) - scale.low) / max(scale.span, 1e-12)
    names = ("seen", "restored", "turns", "noise", "level")
    return {name: getattr(found, name) for name in names} | {"truth": target.astype(np.float32)}


def gather(
    crops: Crops, spec: ModelSpec, count: int, cache: Path | None, name: str
) -> list[dict[str, Any]]:
    """Measure images, or take them from the cache."""
    all_found = []
    for number in range(count):
        file = None if cache is None else cache / f"{spec.name}-{name}-{number}.npz"
        if file is not None and file.exists():
            with np.load(file) as stored:
                found = dict(stored)
        else:
            found = measured(crops, spec, (len(name), number))
            if file is not None:
                np.savez_compressed(file, **found)
            print(f"{spec.name} {name} {number + 1}/{count}", flush=True)
        all_found.append(found)
    return all_found


def fit(features: Any, errors: Any) -> dict[str, Any]:
    """Fit the quantile of the logarithm of errors, growing with every feature."""
    x = torch.from_numpy(features.reshape(-1, features.shape[-1])).double()
    y = torch.from_numpy(np.log(errors.reshape(-1, errors.shape[-1]) + 1e-5)).double()
    weights = torch.full((x.shape[1],), 0.1, dtype=torch.double, requires_grad=True)
    constant = torch.zeros(1, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.Adam([weights, constant], lr=0.03)
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - step / 1500) + 1e-4
        rest = y - (x @ weights + constant)[:, None]
        loss = torch.maximum(TARGET * rest, (TARGET - 1) * rest).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=0)
    found = weights.detach().numpy().round(4)
    rest = y.numpy() - (x.numpy() @ found)[:, None]
    return {
        "weights": dict(zip(FEATURES, found.tolist(), strict=True)),
        "constant": round(float(np.quantile(rest, TARGET)), 4),
    }


def coverage(features: Any, errors: Any, error: dict[str, Any]) -> Any:
    """Share of the errors within what is said, of each image."""
    weights = np.array([error["weights"][name] for name in FEATURES])
    said = np.exp(features @ weights + error["constant"])[..., None]
    return (errors <= said).mean((1, 2))


def main() -> None:
    """Make the table, or the entries of some models in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", nargs="+", required=True, type=Path)
    parser.add_argument("--validation", nargs="+", required=True, type=Path)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--count", type=int, default=40, help="images of each model, at most")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    for name in args.model:
        spec = MODELS[name]
        kind = "color" if spec.channels == 3 else "mono"
        gather(drawn(load_sharp(args.train, kind), spec), spec, args.count, args.cache, "train")
        held_out = load_sharp(args.validation, kind, args.count)
        gather(middles(held_out, spec), spec, args.count, args.cache, "validation")


if __name__ == "__main__":
    main()
