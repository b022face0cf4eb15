"""Make the pictures of the page on point spread functions, from our own sample image.

python scripts/psf_pictures.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from napari_restore import Optics, deblur, motion_deblur
from napari_restore.physics import motion, psf
from napari_restore.samples import load_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

TARGET = Path(__file__).parents[1] / "docs/images/psf-choices.png"
SIDE, MARGIN, TITLE = 180, 6, 18


def main() -> None:
    """Draw one row for each blur: the image, its PSF, and what becomes of it."""
    sharp = load_sample("tissue")[0].astype(np.float32).mean(2)
    sharp = sharp[: sharp.shape[0] // 2 * 2, : sharp.shape[1] // 2 * 2]
    # Half the size: what was out of focus is sharp then.
    sharp = sharp.reshape(len(sharp) // 2, 2, -1, 2).mean((1, 3))[:SIDE, :SIDE] / 255
    optics = Optics(na=0.5, wavelength="600 nm", pixel_size="300 nm", defocus="6 µm")
    shake = motion.kernel(motion.shake(np.random.default_rng(3), 14))
    rows = [
        ("out of focus", optics.psf(), deblur),
        ("shaken", psf.combine(shake, psf.gaussian(0.5)), motion_deblur),
    ]
    headings = ("image", "point spread function", "without", "with", "1.3 times too large")
    width = len(headings) * (SIDE + MARGIN) - MARGIN
    page = Image.new("L", (width, TITLE + len(rows) * (SIDE + MARGIN) - MARGIN), 255)
    draw = ImageDraw.Draw(page)
    for column, heading in enumerate(headings):
        draw.text((column * (SIDE + MARGIN) + 2, 3), heading, fill=0)
    for row, (name, kernel, restore) in enumerate(rows):
        blurred = _seen(sharp, kernel)
        pictures = [
            blurred,
            _drawn(kernel),
            restore(blurred),
            restore(blurred, psf=kernel),
            restore(blurred, psf=psf.resized(kernel, 1.3)),
        ]
        errors = [float(np.mean((p - sharp)[12:-12, 12:-12] ** 2)) for p in pictures]
        print(name, *(f"{-10 * np.log10(error):.2f} dB" for error in errors))
        for column, picture in enumerate(pictures):
            place = column * (SIDE + MARGIN), TITLE + row * (SIDE + MARGIN)
            page.paste(Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)), place)
    page.save(TARGET, optimize=True)


def _seen(sharp: Samples, kernel: Samples) -> Samples:
    light = torch.from_numpy(sharp)[None, None]
    blurred = psf.convolve(light, torch.from_numpy(kernel)[None])[0, 0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.004, sharp.shape)
    seen: Samples = (blurred + noise).astype(np.float32)
    return seen


def _drawn(kernel: Samples) -> Any:
    """Draw a kernel, faint light too, as large as the images."""
    shown = Image.fromarray((255 * np.sqrt(kernel / kernel.max())).astype(np.uint8))
    return np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.NEAREST)) / 255


if __name__ == "__main__":
    main()
