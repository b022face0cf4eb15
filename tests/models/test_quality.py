"""The bundled weights help, on images that they were not trained on, and leave sharp ones alone."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from napari_restore.evaluation import report
from napari_restore.models.catalog import TASKS
from napari_restore.samples import load_sample
from napari_restore.training.data import SharpImage


def color_images() -> list[SharpImage]:
    pictures = (data.astronaut(), data.chelsea(), data.coffee())
    return [SharpImage(picture, "photo", str(n)) for n, picture in enumerate(pictures)]


def mono_images() -> list[SharpImage]:
    """Samples shrunk by two, which hides the blur that they were given."""
    images = []
    for key in ("mitochondria", "actin", "chest_ct"):
        plane = np.asarray(load_sample(key)[0], np.float32)
        plane = plane[len(plane) // 2] if plane.ndim == 3 else plane
        height, width = (length // 2 * 2 for length in plane.shape)
        small = plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        low, high = np.percentile(small, (0.5, 99.9))
        pixels = ((small - low) / (high - low) * 200).clip(0, 255).astype(np.uint8)
        images.append(SharpImage(pixels[..., None], key, key))
    return images


#: Mean gain in dB over these few images, and share of them improved: what is there today, rounded
#: down. Figures on more images stand in the model cards.
LEAST = {
    ("deblur", "color"): (1.5, 0.85),
    ("deblur", "mono"): (3.0, 0.9),
    ("dehaze", "color"): (1.0, 0.8),
    ("dehaze", "mono"): (2.0, 0.9),
    ("motion_deblur", "color"): (0.7, 0.8),
    ("motion_deblur", "mono"): (1.0, 0.8),
    # Two of nine have noise that is fainter than their own texture, and lose up to 1.3 dB.
    ("denoise", "color"): (4.0, 0.75),
    ("denoise", "mono"): (3.0, 0.9),
}


@pytest.mark.parametrize("kind", ["color", "mono"])
@pytest.mark.parametrize("task", TASKS)
def test_model_makes_degraded_images_better_and_sharp_ones_not_worse(
    task: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Classical methods are a matter of tests/evaluation.
    monkeypatch.setattr(report, "classical_methods", lambda *_: ())
    images = color_images() if kind == "color" else mono_images()
    if (task, kind) == ("dehaze", "mono"):
        # Out-of-focus light is a matter of microscopy; see the model's card.
        images = [image for image in images if image.name != "chest_ct"]
    # What is gained by finding the PSF is a matter of tests/analysis/test_find_psf.py.
    results = [report.evaluate(images, task, kind, psf="none", seed=n, size=128) for n in range(3)]
    gain, improved = LEAST[task, kind]
    assert np.mean([result.rows[-1].gain for result in results]) >= gain
    assert np.mean([result.rows[-1].improved for result in results]) >= improved
    assert np.mean([r.rows[-1].ssim - r.rows[0].ssim for r in results]) > 0
    assert results[0].identity >= (33 if task == "dehaze" else 36)
