"""Restore the sample images, write before/after pictures into demo/, and open napari.

``--figures FOLDER`` writes the pictures of the README and of the model cards instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_restore.restoration.plan import Options, make_plan
from napari_restore.restoration.run import restore_array
from napari_restore.samples import SAMPLES, Sample, load_sample

ROOT = Path(__file__).parents[1]
#: Crops of the README's picture: sample, top, left; and their side in pixels.
FIGURE = (("tissue", 150, 90), ("pagoda", 90, 60), ("raccoon", 120, 290))
FIGURE_SIDE = 300
#: Height of the labels and width of the gap between two pictures.
_BAR, _GAP = 26, 4
#: Pixels of a picture's width under which its label would not fit.
_LEAST = 200

Array = np.ndarray[Any, np.dtype[Any]]


def restore_sample(sample: Sample) -> tuple[Array, Array, dict[str, Any], dict[str, Any]]:
    """Return a sample, its restoration, its layer options and the provenance."""
    image, options = load_sample(sample.key)
    asked: dict[str, Any] = {"frames": 2 if sample.movie and sample.task == "motion_deblur" else 1}
    axes = None
    if sample.optics is not None:
        axes = "".join(options["axis_labels"]).upper()
        asked |= {"psf": sample.optics, "pixel_size": sample.scale, "dimensions": 3}
    plan = make_plan(image, Options(sample.task, **asked), rgb=sample.rgb, axes=axes)
    result = restore_array(image, plan)
    return image, result.data, options, result.provenance


def to_picture(pixels: Array, limits: tuple[float, float], rgb: bool) -> Image.Image:
    """8-bit picture of an image; of a stack its middle plane."""
    if rgb:
        return Image.fromarray(pixels[..., :3])
    while pixels.ndim > 2:
        pixels = pixels[len(pixels) // 2]
    low, high = limits
    shown = (pixels.astype(np.float32) - low) / max(high - low, 1e-6)
    return Image.fromarray((shown.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")


def labeled(pictures: list[Image.Image], labels: list[str]) -> Image.Image:
    """Pictures of one size beside each other, each under its label."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (width + _GAP) - _GAP, height + _BAR), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        draw.text((number * (width + _GAP) + 6, 4), label, fill="black", font=font)
        sheet.paste(picture, (number * (width + _GAP), _BAR))
    return sheet


def before_after(
    before: Array, after: Array, options: dict[str, Any], labels: list[str], least: int = 0
) -> Image.Image:
    """Both at the same brightness, side by side; small ones enlarged to ``least`` pixels."""
    limits = options.get("contrast_limits") or tuple(np.percentile(before, (0.1, 99.8)))
    pictures = [to_picture(p, limits, options["rgb"]) for p in (before, after)]
    times = max(1, -(-least // pictures[0].width))
    pictures = [
        picture.resize([times * n for n in picture.size], Image.Resampling.NEAREST)
        for picture in pictures
    ]
    return labeled(pictures, labels)


def write_all(folder: Path) -> None:
    """Restore every sample and write its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        started = time.monotonic()
        before, after, options, provenance = restore_sample(sample)
        path = folder / f"{sample.key}.png"
        labels = ["before", f"after {provenance['model']}"]
        before_after(before, after, options, labels, _LEAST).save(path)
        seconds = time.monotonic() - started
        print(f"{path}  {provenance['model']} on {provenance['device']}, {seconds:.1f} s")


def write_figures(folder: Path) -> None:
    """Write the README's picture, a crop of one sample for each task, and one for each card."""
    folder.mkdir(parents=True, exist_ok=True)
    columns, cards = {}, {}
    places = {key: (top, left) for key, top, left in FIGURE}
    for sample in SAMPLES:
        before, after, options, provenance = restore_sample(sample)
        height, width = before.shape[:2] if sample.rgb else before.shape[-2:]
        side = min(FIGURE_SIDE, height, width)
        top, left = places.get(sample.key, ((height - side) // 2, (width - side) // 2))
        crop = np.s_[..., top : top + side, left : left + side]
        crop = crop[1:] if sample.rgb else crop
        pair = before[crop], after[crop]
        cards.setdefault(provenance["model"], []).append(
            before_after(*pair, options, [sample.title, "restored"])
        )
        if sample.key in places:
            task = sample.task.replace("_", " ").capitalize()
            labels = [f"{task}: before", f"{task}: after"]
            columns[sample.key] = before_after(*pair, options, labels)
    write_columns([columns[key] for key, *_ in FIGURE], folder / "before-after.png")
    for model, sheets in cards.items():
        write_columns(sheets, folder / f"{model}.png")


def write_columns(columns: list[Image.Image], path: Path) -> None:
    """Write pairs of pictures beside each other, each pair one above the other."""
    # So that three fit the width of a page.
    side, height = (columns[0].width - _GAP) // 2, columns[0].height
    sheet = Image.new("RGB", (len(columns) * (side + 12) - 12, 2 * height), "white")
    for number, column in enumerate(columns):
        for row, start in enumerate((0, side + _GAP)):
            picture = column.crop((start, 0, start + side, height))
            sheet.paste(picture, (number * (side + 12), row * height))
    sheet.save(path, optimize=True)
    print(path)


def open_napari(key: str = "mitochondria") -> None:
    """Open napari with a sample and its dock, and stay until it is closed."""
    import napari

    sample = next(sample for sample in SAMPLES if sample.key == key)
    viewer = napari.Viewer(title="napari-restore")
    array, options = load_sample(key)
    viewer.add_image(array, **options)
    viewer.window.add_plugin_dock_widget("napari-restore", sample.task.capitalize())
    napari.run()


def has_display() -> bool:
    """Whether a window can be expected to open here."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="Restore the sample images.")
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder of the pictures")
    parser.add_argument(
        "--figures", type=Path, help="write the pictures of the docs to this folder"
    )
    parser.add_argument("--no-window", action="store_true", help="do not open napari")
    parser.add_argument("--window", action="store_true", help="only open napari")
    args = parser.parse_args()
    if args.window:
        open_napari()
    elif args.figures:
        write_figures(args.figures)
    else:
        write_all(args.output)
        print(f"Before/after pictures are in {args.output}")
        if args.no_window:
            return
        if not has_display():
            print("There is no display here, so napari is not opened.")
            return
        print("Opening napari: select the layer, press Preview or Restore. Close it to go on.")
        # Qt ends the whole process where the display cannot be reached.
        if subprocess.run([sys.executable, __file__, "--window"], check=False).returncode:
            print("napari could not be opened on this display; the pictures are written.")


if __name__ == "__main__":
    main()
