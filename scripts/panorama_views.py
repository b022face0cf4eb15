"""Photographs to train on, out of panoramas in linear light (Radiance HDR or OpenEXR).

    pip install OpenImageIO
    python scripts/panorama_views.py PANORAMAS OUT

A panorama of a room shows what a camera would have seen in every direction, in light that no tone
curve has bent. Six views of each are developed as a camera would: exposed for most of what is
seen, what is brighter rolled off, then the curve of sRGB. They are 384 × 288 pixels, upright or
not, of 65 to 110 degrees, so that panoramas of 1024 × 512 pixels are hardly enlarged.
`dehaze-color` has learned from such views: its card names the panoramas.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import OpenImageIO
from PIL import Image
from scipy.ndimage import map_coordinates

from napari_restore.evaluation.classical import to_srgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

VIEWS = 6
LONG, SHORT = 384, 288
#: What is brighter than this share of the range is rolled off instead of cut.
_SHOULDER = 0.8
#: Shares of red, green and blue in what looks bright (Rec. 709).
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def read(path: Path) -> NDArray[np.float32]:
    """Read the light of a panorama, (Y, X, 3); X goes once around, Y from zenith to nadir."""
    file = OpenImageIO.ImageBuf(str(path))
    pixels = None if file.has_error else file.get_pixels(OpenImageIO.FLOAT)
    if pixels is None or pixels.shape[2] < 3 or pixels.shape[1] != 2 * pixels.shape[0]:
        found = file.geterror() or f"it has {file.spec().width} × {file.spec().height} pixels"
        raise SystemExit(
            f"'{path}' is no panorama in color: {found}. Give a folder of Radiance HDR or OpenEXR "
            "files that are twice as wide as high."
        )
    return np.nan_to_num(pixels[..., :3]).clip(0, 6e4)


def view(
    panorama: NDArray[np.float32], yaw: float, pitch: float, field: float, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Find what a camera sees that looks that way; angles and width of the field in degrees."""
    height, width = shape
    focal = width / 2 / np.tan(np.radians(field) / 2)
    x, y = np.meshgrid(np.arange(width) - width / 2 + 0.5, np.arange(height) - height / 2 + 0.5)
    way = np.stack([x, y, np.full_like(x, focal)], -1)
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    tilt, turn = np.radians(pitch), np.radians(yaw)
    right = way[..., 0]
    down = way[..., 1] * np.cos(tilt) - way[..., 2] * np.sin(tilt)
    ahead = way[..., 1] * np.sin(tilt) + way[..., 2] * np.cos(tilt)
    right, ahead = (
        right * np.cos(turn) + ahead * np.sin(turn),
        -right * np.sin(turn) + ahead * np.cos(turn),
    )
    rows, columns = panorama.shape[:2]
    place = [
        (np.arcsin(down.clip(-1, 1)) / np.pi + 0.5) * rows - 0.5,
        (np.arctan2(right, ahead) / (2 * np.pi) + 0.5) * columns - 0.5,
    ]
    # A border, for places between the last column and the first.
    around = np.pad(panorama, ((2, 2), (0, 0), (0, 0)), mode="edge")
    around = np.pad(around, ((0, 0), (3, 3), (0, 0)), mode="wrap")
    place = [place[0] + 2, place[1] + 3]
    return np.stack(
        [map_coordinates(around[..., c], place, order=1, mode="nearest") for c in range(3)], -1
    )


def develop(light: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a picture of a scene's light, as a camera does."""
    bright = rng.uniform(0.35, 0.55)
    usual = float(np.percentile(light @ _LUMA, rng.uniform(60, 80)))
    seen = light * (0.45 * bright / max(usual, 1e-6))
    room = 1 - _SHOULDER
    rolled = _SHOULDER + room * (1 - np.exp(-(seen - _SHOULDER) / room))
    seen = np.where(seen < _SHOULDER, seen, rolled).astype(np.float32)
    return (255 * to_srgb(seen)).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("panoramas", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for path in sorted(options.panoramas.iterdir()):
        panorama = read(path)
        start = rng.uniform(0, 360)
        name = path.stem.removesuffix("_1k").replace("_", "-")
        for number in range(VIEWS):
            if rng.random() < 0.7:
                field, shape = rng.uniform(85, 110), (SHORT, LONG)
            else:
                field, shape = rng.uniform(65, 85), (LONG, SHORT)
            yaw = start + 360 / VIEWS * number
            light = view(panorama, yaw, rng.uniform(-18, 12), field, shape)
            picture = Image.fromarray(develop(light, rng))
            picture.save(options.out / f"room_hdri-{name}_{number}.png")


if __name__ == "__main__":
    main()
