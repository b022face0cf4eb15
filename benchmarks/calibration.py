"""How errors follow from disagreement, and what images each model knows: makes calibration.json.

    python benchmarks/calibration.py --train DIR… --validation DIR… [--model NAME…] [--cache DIR]
                                     [--likeness]

Sharp images are degraded as in the recipe of the model and restored as users restore them. From
the training images the size of the errors is fitted as a function of what can be seen without the
truth, and the likeness to what was learned; both are verified on the validation images. With
``--cache`` what was restored is kept, and only what is missing is restored.
"""

from __future__ import annotations

import argparse
import io
import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from napari_restore.analysis.find import noise_level
from napari_restore.evaluation.agreement import FEATURES, Agreement, find_agreement
from napari_restore.evaluation.likeness import SIDE, distances, statistics, with_squares
from napari_restore.evaluation.pairs import Camera, load_sharp
from napari_restore.image.intensity import find_scales, normalized
from napari_restore.image.layout import Layout, Planes, Region
from napari_restore.models.catalog import CATALOG, INVERTERS
from napari_restore.restoration.plan import Blur, Facts, Options, make_plan
from napari_restore.training.data import CropSource, as_scene, center_crop
from napari_restore.training.recipes import get_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_restore.models.catalog import ModelSpec
    from napari_restore.training.data import SharpImage

    #: From number, random numbers and side to (1, C, side, side) in [0, 1].
    Crops = Callable[[int, np.random.Generator, int], torch.Tensor]

MODELS = {spec.name: spec for spec in (*CATALOG, *INVERTERS.values())}
TARGET = 0.68
SIZES = {"dehaze": 144}
SIZE, BORDER, PIXELS = 96, 8, 1500
#: Share of right images that are within the distance, and beside each plane; of wrong ones that
#: may be; and how much of the room between is left to right ones.
ALLOWED, KIND_ALLOWED, KIND_MISSED, ROOM = 1.0, 0.995, 0.04, 0.85
#: What was sharpened and what is sharp are hard to tell apart, and no model is for the latter: of
#: right images alone this share is beside the plane.
SHARPENED, SHARPENED_ALLOWED = "an image that was sharpened before", 0.975
TABLE = Path(__file__).parents[1] / "src/napari_restore/evaluation/calibration.json"


def drawn(images: list[SharpImage], spec: ModelSpec) -> Crops:
    """Crops as in training."""
    recipe = get_recipe(spec.name)
    source = CropSource(images, scenes=recipe.scenes, emphasis=recipe.emphasis)
    return lambda number, rng, size: source.batch(rng, 1, size)


def later(make: Callable[[], Crops]) -> Crops:
    """Make crops that take long to prepare when the first is asked for."""
    made: list[Crops] = []

    def crop(number: int, rng: np.random.Generator, size: int) -> torch.Tensor:
        if not made:
            made.append(make())
        return made[0](number, rng, size)

    return crop


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


# ---------------------------------------------------------------- errors


def table_of(all_found: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Features (images, pixels, features) and logarithms of errors (images, pixels, channels)."""
    features, errors = [], []
    for number, found in enumerate(all_found):
        empty = np.zeros((0, *found["seen"].shape))
        known = Agreement(
            found["seen"],
            found["restored"],
            found["turns"],
            found["noise"],
            empty,
            float(found["level"]),
        )
        # Beyond the borders is nothing, which is rarer in images that are larger.
        inner = np.s_[BORDER:-BORDER, BORDER:-BORDER]
        error = np.log(np.abs(found["restored"] - found["truth"]) + 1e-5)[inner]
        count = error.shape[0] * error.shape[1]
        places = np.random.default_rng(number).choice(count, PIXELS, replace=False)
        features.append(known.features[inner].reshape(count, -1)[places])
        errors.append(error.reshape(count, -1)[places])
    return np.stack(features), np.stack(errors)


def fit(tables: list[tuple[Any, Any]]) -> Any:
    """Weights of the features, none below 0, for the quantile of errors of all models.

    What differs from model to model is the constant.
    """
    x = torch.cat([torch.from_numpy(f.reshape(-1, f.shape[-1])).double() for f, _ in tables])
    y = torch.cat([torch.from_numpy(e[..., 0].ravel()).double() for _, e in tables])
    owner = torch.cat(
        [torch.full((e[..., 0].size,), number) for number, (_, e) in enumerate(tables)]
    )
    weights = torch.full((x.shape[1],), 0.1, dtype=torch.double, requires_grad=True)
    constants = torch.zeros(len(tables), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.Adam([weights, constants], lr=0.03)
    for step in range(700):
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - step / 700) + 1e-3
        rest = y - (x @ weights + constants[owner])
        loss = torch.maximum(TARGET * rest, (TARGET - 1) * rest).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=0)
    return weights.detach().numpy().round(4)


def entry_of_errors(weights: Any, held_out: tuple[Any, Any]) -> dict[str, Any]:
    """Constant of a model from images that are held out, and its coverage of each other one."""
    features, errors = held_out
    rest = errors - (features @ weights)[..., None]
    inside = [
        (rest[number] <= np.quantile(np.delete(rest, number, 0), TARGET)).mean()
        for number in range(len(rest))
    ]
    return {
        "weights": dict(zip(FEATURES, weights.tolist(), strict=True)),
        "constant": round(float(np.quantile(rest, TARGET)), 4),
        "images": len(rest),
        "coverage": round(float(np.mean(inside)), 3),
        "coverage_spread": round(float(np.std(inside)), 3),
    }


def reliability(weights: Any, held_out: tuple[Any, Any], bins: int = 8) -> dict[str, Any]:
    """What is said, and the 68th percentile of the errors there, for parts of equal size.

    The constant for an image is that of the others.
    """
    features, errors = held_out
    base = features @ weights
    rest = errors - base[..., None]
    constants = [np.quantile(np.delete(rest, n, 0), TARGET) for n in range(len(rest))]
    said = (base + np.array(constants)[:, None])[..., None] + np.zeros_like(errors)
    edges = np.quantile(said, np.linspace(0, 1, bins + 1))
    place = np.searchsorted(edges[1:-1], said)
    return {
        "said": [round(float(np.exp(np.median(said[place == b]))), 5) for b in range(bins)],
        "found": [
            round(float(np.exp(np.quantile(errors[place == b], TARGET))), 5) for b in range(bins)
        ],
    }


# ---------------------------------------------------------------- likeness


def text_page(rng: np.random.Generator, side: int) -> Any:
    """Draw lines of letters, dark on light, some of them soft or noisy as scans are."""
    size = int(rng.integers(9, 22))
    font = ImageFont.load_default(size)
    page = Image.new("L", (side, side), int(rng.integers(225, 256)))
    draw, y = ImageDraw.Draw(page), -int(rng.integers(size))
    while y < side:
        x = 4.0
        while x < side:
            word = "".join(rng.choice(list("aeinorstlhdcumpfgywbvkxAETISN.,"), rng.integers(2, 9)))
            draw.text((x, y), word, fill=int(rng.integers(60)), font=font)
            x += draw.textlength(word + " ", font=font)
        y += int(size * (2.35 if rng.random() < 0.1 else 1.35))
    gray = np.asarray(page, float)
    if rng.random() < 0.5:
        gray = ndimage.gaussian_filter(gray, rng.uniform(0.3, 1.5))
    return gray + rng.normal(0, rng.uniform(0.5, 6), gray.shape) * (rng.random() < 0.35)


def noise_only(rng: np.random.Generator, side: int) -> Any:
    """Noise of one of three distributions around one value."""
    shape = (side, side)
    kinds = (
        lambda: rng.normal(100, 20, shape),
        lambda: 4.0 * rng.poisson(rng.uniform(1, 50), shape),
        lambda: rng.uniform(0, 255, shape),
    )
    return kinds[int(rng.integers(3))]()


def sharpened(gray: Any, rng: np.random.Generator) -> Any:
    """Sharpen far too much, until light and dark rims lie along the edges."""
    detail = gray - ndimage.gaussian_filter(gray, rng.uniform(0.8, 2.5))
    return (gray + rng.uniform(2, 5) * detail).clip(0, 255)


def posterized(gray: Any, rng: np.random.Generator) -> Any:
    """Leave two to five gray levels."""
    count = int(rng.integers(2, 6))
    low, high = np.percentile(gray, (1, 99))
    share = ((gray - low) / max(high - low, 1)).clip(0, 0.999)
    return np.floor(share * count) * (255 / (count - 1))


def labeled(gray: Any, rng: np.random.Generator) -> Any:
    """Number what is bright."""
    labels, count = ndimage.label(ndimage.gaussian_filter(gray, 2) > np.percentile(gray, 60))
    return labels * (255.0 / max(count, 1))


def compressed(gray: Any, rng: np.random.Generator) -> Any:
    """Compress until blocks show."""
    stream = io.BytesIO()
    quality = int(rng.integers(3, 11))
    Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), float)


def repeated(gray: Any, rng: np.random.Generator) -> Any:
    """Enlarge by repeating pixels."""
    factor = int(rng.integers(2, 5))
    large = np.kron(gray[::factor, ::factor], np.ones((factor, factor)))
    return large[: gray.shape[0], : gray.shape[1]]


#: What models are not for, as it is called: drawn, or made of a sharp image.
DRAWN = {"a page of text": text_page, "noise alone": noise_only}
MADE = {
    SHARPENED: sharpened,
    "an image of few gray levels": posterized,
    "a map of labels": labeled,
    "an image that was compressed too much": compressed,
    "an image that was enlarged by repeating pixels": repeated,
}


def as_network_sees(samples: Any, spec: ModelSpec) -> Any:
    """Bring samples to the range of a network: (h, w, C), the first frame of two."""
    axes = ("T" if spec.frames == 2 else "") + "YX" + ("S" if spec.channels == 3 else "")
    planes = Planes(samples, Layout(samples.shape, axes))
    scale = find_scales(planes, from_zero=spec.black_is_zero)[0]
    first = samples[0] if spec.frames == 2 else samples
    return scale.normalize(first if spec.channels == 3 else first[..., None])


def right_ones(crops: Crops, spec: ModelSpec, count: int, seed: int) -> dict[str, Any]:
    """Statistics of images that a model is for, as ``""``."""
    found = []
    for number in range(count):
        samples = degraded(crops, spec, (seed, number), SIDE)[0]
        found.append(statistics(as_network_sees(samples, spec)))
    return {"": np.array(found)}


def wrong_ones(images: list[SharpImage], spec: ModelSpec, count: int, seed: int) -> dict[str, Any]:
    """Statistics of images that no model is for, by kind; and of sharp images, as ``""``."""
    out: dict[str, Any] = {}
    for kind in ("", *DRAWN, *MADE):
        found = []
        for number in range(count):
            rng = np.random.default_rng((seed, len(out), number))
            image = images[number % len(images)]
            sharp = center_crop(image, SIDE)[0].permute(1, 2, 0).double().numpy() * 255
            if kind in DRAWN:
                parts = [DRAWN[kind](rng, SIDE)] * spec.channels
            elif kind in MADE:
                state = rng.bit_generator.state
                parts = []
                for channel in range(spec.channels):
                    rng.bit_generator.state = state
                    parts.append(MADE[kind](sharp[..., channel], rng))
            else:
                parts = list(np.moveaxis(sharp, -1, 0))
            samples = np.stack(parts, -1).round().clip(0, 255).astype(np.uint8)
            samples = samples if spec.channels == 3 else samples[..., 0]
            if spec.frames == 2:
                samples = np.stack([samples, samples])
            found.append(statistics(as_network_sees(samples, spec)))
        out[kind] = np.array(found)
    return out


def kept(cache: Path | None, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Find arrays, or take them from the cache."""
    file = None if cache is None else cache / f"{name}.npz"
    if file is not None and file.exists():
        with np.load(file) as stored:
            return {key.removeprefix("of "): stored[key] for key in stored}
    found = find()
    if file is not None:
        np.savez_compressed(file, **{f"of {key}": array for key, array in found.items()})
        print(name, flush=True)
    return found


def entry_of_likeness(right: Any, wrong: dict[str, Any]) -> dict[str, Any]:
    """Distance from right images, and planes between those and each kind of wrong ones."""
    center, spread = right.mean(0).round(4), (right.std(0) + 1e-3).round(4)
    standard = (right - center) / spread
    inverse = np.linalg.inv(np.cov(standard.T) + 0.05 * np.eye(len(center))).round(4)
    size = np.sqrt(np.einsum("ni,ij,nj->n", standard, inverse, standard))
    entry: dict[str, Any] = {
        "center": center.tolist(),
        "spread": spread.tolist(),
        "inverse": inverse.tolist(),
        "threshold": round(float(np.quantile(size, ALLOWED)), 3),
        "kinds": {},
    }
    good = with_squares((np.concatenate([right, wrong[""]]) - center) / spread)
    for kind, found in wrong.items():
        if not kind:
            continue
        bad = with_squares((found - center) / spread)
        x = torch.from_numpy(np.concatenate([good, bad]))
        y = torch.cat([torch.zeros(len(good)), torch.ones(len(bad))]).double()
        weights = torch.zeros(x.shape[1], dtype=torch.double, requires_grad=True)
        constant = torch.zeros(1, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.Adam([weights, constant], lr=0.05)
        for _ in range(400):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights + constant, y)
            loss = loss + 2e-3 * weights.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found_weights = weights.detach().numpy().round(4)
        # Right ones, and sharp ones, stay below; where there is room, most of it is theirs.
        highest = float(np.quantile(good @ found_weights, KIND_ALLOWED))
        if kind == SHARPENED:
            highest = float(np.quantile((good @ found_weights)[: len(right)], SHARPENED_ALLOWED))
        lowest = float(np.quantile(bad @ found_weights, KIND_MISSED))
        highest = max(highest, highest + ROOM * (lowest - highest))
        entry["kinds"][kind] = {
            "weights": found_weights.tolist(),
            "constant": round(-highest, 4),
        }
    return entry


def fires(found: Any, entry: dict[str, Any]) -> float:
    """Share of images that are called unlike."""
    return float((np.max(list(distances(found, entry).values()), axis=0) > 1).mean())


# ---------------------------------------------------------------- for the documentation

_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw the errors that were found over what was said, for each model; both axes are logs."""
    side, left, top, fine = 520, 80, 30, 2
    font = ImageFont.load_default(15 * fine)
    low, high = np.log10(3e-4), np.log10(0.5)
    picture = Image.new("RGB", ((side + left + 270) * fine, (side + top + 70) * fine), "white")
    draw = ImageDraw.Draw(picture)

    def place(said: float, found: float) -> tuple[float, float]:
        x, y = ((np.log10(max(v, 1e-5)) - low) / (high - low) * side for v in (said, found))
        return (left + x) * fine, (top + side - y) * fine

    for value in (0.001, 0.01, 0.1):
        for line in ([(value, 3e-4), (value, 0.5)], [(3e-4, value), (0.5, value)]):
            draw.line([place(*end) for end in line], fill="#dddddd", width=fine)
        x, y = place(value, 3e-4)
        draw.text((x, y + 8 * fine), f"{value:g}", "black", font, "ma")
        x, y = place(3e-4, value)
        draw.text((x - 8 * fine, y), f"{value:g}", "black", font, "rm")
    draw.line([place(3e-4, 3e-4), place(0.5, 0.5)], fill="#888888", width=fine)
    draw.rectangle([*place(3e-4, 0.5), *place(0.5, 3e-4)], outline="black", width=fine)
    x, y = place(0.012, 3e-4)
    draw.text((x, y + 34 * fine), "± that is said, as a share of the range", "black", font, "ma")
    draw.text((left * fine, 4 * fine), "68th percentile of the errors", "black", font)
    for number, (name, entry) in enumerate(table.items()):
        color, dashed = _COLORS[number % 5], number >= 5
        found = entry["reliability"]
        points = [place(*pair) for pair in zip(found["said"], found["found"], strict=True)]
        key = (left + side + 20) * fine, (top + 20 + 26 * number) * fine
        for one, other in (*pairwise(points), (key, (key[0] + 40 * fine, key[1]))):
            middle = (one[0] + other[0]) / 2, (one[1] + other[1]) / 2
            draw.line([one, middle if dashed else other], fill=color, width=2 * fine)
        for x, y in (*points, (key[0] + 20 * fine, key[1])):
            size = 4 * fine
            shape = [x - size, y - size, x + size, y + size]
            draw.rectangle(shape, fill=color) if dashed else draw.ellipse(shape, fill=color)
        draw.text((key[0] + 52 * fine, key[1]), name, "black", font, "lm")
    picture.resize([n // fine for n in picture.size], Image.Resampling.BOX).save(path)


def tables(table: dict[str, Any]) -> str:
    """Tables of the documentation."""
    lines = ["| model | coverage | spread over images | images |", "|---|---|---|---|"]
    for name, entry in table.items():
        error = entry["error"]
        lines.append(
            f"| {name} | {error['coverage']:.0%} | {error['coverage_spread']:.0%} "
            f"| {error['images']} |"
        )
    kinds = [*DRAWN, *MADE]
    short = ("text", "noise", "sharpened", "few levels", "labels", "JPEG", "repeated")
    lines += ["", f"| model | right | sharp | {' | '.join(short)} |", "|---" * 10 + "|"]
    for name, entry in table.items():
        found = entry["likeness"]
        shares = [found["fires_on_right"], found["fires_on_sharp"]]
        shares += [found["fires_on_wrong"][kind] for kind in kinds]
        lines.append(f"| {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the table, or the entries of some models in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", nargs="+", required=True, type=Path)
    parser.add_argument("--validation", nargs="+", required=True, type=Path)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--likeness", action="store_true", help="leave what is said of errors")
    parser.add_argument("--count", type=int, default=16, help="images of each model, at most")
    parser.add_argument("--cache", type=Path, help="folder for what was restored")
    parser.add_argument("--plot", type=Path, help="picture of the reliability to draw")
    args = parser.parse_args()
    if args.cache:
        args.cache.mkdir(parents=True, exist_ok=True)
    table = json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {}
    table.pop("about", None)
    torch.set_num_threads(1)
    fitted, verified = [], {}
    images: dict[tuple[str, str], Any] = {}
    for name in args.model:
        spec = MODELS[name]
        kind = "color" if spec.channels == 3 else "mono"
        for part, folders in (("train", args.train), ("validation", args.validation)):
            if (part, kind) not in images:
                images[part, kind] = load_sharp(folders, kind)
        if args.likeness:
            continue
        crops = later(partial(drawn, images["train", kind], spec))
        fitted.append(table_of(gather(crops, spec, args.count, args.cache, "train")))
        held_out = load_sharp(args.validation, kind, args.count)
        found = gather(middles(held_out, spec), spec, args.count, args.cache, "validation")
        verified[name] = table_of(found)
    if not args.likeness and (set(args.model) == set(MODELS) or not table):
        weights = fit(fitted)
    else:
        # Those that hold for all models stay.
        weights = np.array(list(next(iter(table.values()))["error"]["weights"].values()))
    for name in args.model:
        spec = MODELS[name]
        kind = "color" if spec.channels == 3 else "mono"
        train, held_out = images["train", kind], images["validation", kind]
        own = f"like-{name}"
        shared = f"unlike-{kind}-{spec.frames}-{spec.black_is_zero}"
        keep, crops = partial(kept, args.cache), later(partial(drawn, train, spec))
        right = keep(f"{own}-train", partial(right_ones, crops, spec, 200, 5))[""]
        crops = middles(held_out, spec)
        seen = keep(f"{own}-validation", partial(right_ones, crops, spec, 60, 6))[""]
        wrong = keep(f"{shared}-train", partial(wrong_ones, train, spec, 120, 7))
        verify = keep(f"{shared}-validation", partial(wrong_ones, held_out, spec, 30, 8))
        entry = entry_of_likeness(right, wrong)
        entry["fires_on_right"] = round(fires(seen, entry), 3)
        entry["fires_on_sharp"] = round(fires(verify.pop(""), entry), 3)
        entry["fires_on_wrong"] = {k: round(fires(found, entry), 3) for k, found in verify.items()}
        if not args.likeness:
            table[name] = {
                "weights_sha256": spec.sha256,
                "error": entry_of_errors(weights, verified[name]),
                "reliability": reliability(weights, verified[name]),
            }
        table[name]["likeness"] = entry
        print(name, json.dumps({k: v for k, v in table[name]["error"].items() if k != "weights"}))
        print("   ", {key: entry[key] for key in entry if key.startswith("fires")}, flush=True)
    about = {
        "made_by": "benchmarks/calibration.py",
        "degradations": "of the recipe of each model",
        "features_weighted_on": f"{args.count} crops of training images of each model",
        "constants_and_coverage_on": f"{args.count} held-out images, each left out in turn",
        "likeness_on": "200 crops of training images, 60 of held-out ones; 120 and 30 of each kind",
        "side_px": {"errors": SIZE, "errors, dehaze": SIZES["dehaze"], "likeness": SIDE},
    }
    lines = [f' "about": {json.dumps(about)}']
    lines += [f" {json.dumps(name)}: {json.dumps(table[name])}" for name in MODELS if name in table]
    print(tables(table))
    if args.plot is not None:
        plot(table, args.plot)
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
