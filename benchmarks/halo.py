"""How much the halo of each model leaves of the difference between tiles and the whole image.

    python benchmarks/halo.py IMAGES... [--models NAME ...]

Prints, for several halos, the largest difference between the image restored in tiles of 128 pixels
and in one piece, as a share of the intensity range. The halos in the catalog are the smallest
multiples of 16 pixels that keep it below 0.5 %.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.io import imread

from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes, TileOptions, find_layout, with_time
from napari_restore.inference.engine import run
from napari_restore.inference.predictor import AtExposure, TorchPredictor
from napari_restore.models.catalog import CATALOG

HALOS = (16, 32, 48, 64, 96, 128, 160)


def largest_difference(predictor: TorchPredictor, image: np.ndarray) -> float:
    layout = find_layout(image, rgb=predictor.spec.channels == 3)
    if predictor.frames == 2:
        layout = with_time(layout)
    source = Planes(image, layout)
    scales = find_scales(source, predictor.spec.black_is_zero)
    results = []
    for side in (4096, 128):
        out = np.empty_like(image)
        run(source, Planes(out, layout), predictor, scales, tiles=TileOptions(side))
        results.append(out)
    return float(np.abs(results[0] - results[1]).max() / scales[0].span)


def read(path: Path, channels: int) -> np.ndarray:
    """A part of an image with a little noise, float32."""
    image = imread(path).astype(np.float32)
    if channels == 1 and image.ndim == 3:
        image = image[..., :3].mean(-1)
    image = image[:600, :600, :3] if channels == 3 else image[:600, :600]
    noise = np.random.default_rng(0).normal(0, 0.01 * np.ptp(image), image.shape)
    return image + noise.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--models", nargs="*", default=[spec.name for spec in CATALOG])
    options = parser.parse_args()
    print("model".ljust(16), *(f"{halo:>8}" for halo in HALOS))
    for spec in CATALOG:
        if spec.name not in options.models or spec.view:
            continue
        colors = [path for path in options.images if spec.channels == 1 or imread(path).ndim == 3]
        images = [read(path, spec.channels) for path in colors]
        if spec.frames == 2:
            images = [np.stack([image, np.roll(image, (4, 7), (0, 1))]) for image in images]
        worst = []
        for halo in HALOS:
            predictor = TorchPredictor(replace(spec, halo=halo), "cpu")
            if spec.frames == 2:
                predictor = AtExposure(predictor, 0.6)
            worst.append(max(largest_difference(predictor, image) for image in images))
        print(spec.name.ljust(16), *(f"{value:8.3%}" for value in worst))


if __name__ == "__main__":
    main()
