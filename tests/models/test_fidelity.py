"""What the bundled deblurring models must not do to a measurement: light, noise, structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data

from napari_restore import deblur
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes
from napari_restore.restoration.plan import measure_blur
from planning import plan

if TYPE_CHECKING:
    from napari_restore.restoration.plan import BlurEstimate

Array = NDArray[np.float64]
KINDS = pytest.mark.parametrize("kind", ["mono", "color"])


def scene(kind: str) -> Array:
    """Sharp photograph in [0, 1]: (Y, X) or (Y, X, 3)."""
    picture = data.camera()[:192, 100:292] if kind == "mono" else data.astronaut()[:192, 100:292]
    return picture / 255.0


def expose(image: Array, kind: str) -> NDArray[np.generic]:
    if kind == "color":
        return (255 * image).round().clip(0, 255).astype(np.uint8)
    return (10000 + 40000 * image).round().clip(0, 65535).astype(np.uint16)


def restored(samples: NDArray[np.generic], kind: str) -> Array:
    out = deblur(samples, rgb=kind == "color", device="cpu").astype(np.float64)
    return out / 255 if kind == "color" else (out - 10000) / 40000


def spots(rng: np.random.Generator, photons: float) -> tuple[NDArray[np.uint16], list[list[int]]]:
    """Fluorescent spots and cells under a wide-field blur, and where the lone spots are."""
    truth = np.zeros((256, 256))
    places = [[32 + 48 * i, 32 + 48 * j] for i in range(5) for j in range(2)]
    for y, x in places:
        truth[y, x] = 12.0
    rows, columns = np.mgrid[:256, :256]
    for _ in range(12):
        y, x, radius = rng.uniform(20, 236), rng.uniform(140, 236), rng.uniform(5, 14)
        truth += 0.6 * (np.hypot(rows - y, columns - x) < radius)
    seen = gaussian_filter(truth, 1.8)
    counts = rng.poisson(photons * seen / seen.max())
    return (100 + counts).astype(np.uint16), places


@pytest.mark.parametrize("photons", [50, 200, 2000])
def test_light_is_kept(photons: float) -> None:
    image, places = spots(np.random.default_rng(photons), photons)
    result = deblur(image, device="cpu").astype(float)
    before, after = (x.astype(float) - 100 for x in (image, result))
    assert after.sum() == pytest.approx(before.sum(), rel=0.02)
    discs = np.hypot(*(np.mgrid[-8:9, -8:9])) < 8
    light = [
        [x[r - 8 : r + 9, c - 8 : c + 9][discs].sum() for r, c in places] for x in (before, after)
    ]
    assert sum(light[1]) == pytest.approx(sum(light[0]), rel=0.05)
    # Background stays background.
    corner = (slice(None), slice(None, 16))
    assert abs(after[corner].mean() - before[corner].mean()) < 0.01 * photons
    assert after[corner].std() <= before[corner].std() + 0.002 * photons


def test_twice_the_intensity_gives_twice_the_result() -> None:
    image = gaussian_filter(scene("mono"), 1.5).astype(np.float32)
    once, twice = (deblur(x, device="cpu") for x in (image, 2 * image))
    np.testing.assert_allclose(twice, 2 * once, rtol=0, atol=1e-4)


@KINDS
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.08])
@pytest.mark.parametrize("sigma", [0, 2])
def test_a_static_noisy_movie_does_not_flicker(kind: str, sigma: float, noise: float) -> None:
    rng = np.random.default_rng(1)
    sharp = scene(kind)
    still = gaussian_filter(sharp, (sigma, sigma, 0)[: sharp.ndim])
    movie = expose(np.stack([still + rng.normal(0, noise, still.shape) for _ in range(3)]), kind)
    result = restored(movie, kind)
    span = 255 if kind == "color" else 40000
    before, after = (
        np.abs(np.diff(x, axis=0)).mean() for x in (movie.astype(float) / span, result)
    )
    assert after <= before


@KINDS
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_nothing_is_invented(kind: str, level: float, noise: float) -> None:
    """Constant, dark, saturated images and pure noise come back as even as they were."""
    rng = np.random.default_rng(2)
    shape = (192, 192, 3)[: 3 if kind == "color" else 2]
    samples = expose((level + rng.normal(0, noise, shape)).clip(0, 1), kind)
    span = 255 if kind == "color" else 40000
    before = (samples.astype(float) - (0 if kind == "color" else 10000)) / span
    after = restored(samples, kind)
    assert after.mean() == pytest.approx(before.mean(), abs=0.01)
    if not noise:
        np.testing.assert_allclose(after, before, atol=0.01)
        return
    # Neither stronger nor coarser.
    blur = (4, 4, 0)[: len(shape)]
    assert after.std() <= 1.02 * before.std()
    assert gaussian_filter(after, blur).std() <= 1.2 * gaussian_filter(before, blur).std() + 1e-3


def estimate(kind: str, sigma: float) -> BlurEstimate:
    sharp = scene(kind)
    image = gaussian_filter(sharp, (sigma, sigma, 0)[: sharp.ndim])
    samples = expose(image + np.random.default_rng(3).normal(0, 0.005, image.shape), kind)
    decided = plan(samples, "deblur", rgb=kind == "color", device="cpu")
    found = measure_blur(samples, decided, find_scales(Planes(samples, decided.layout)))
    assert found is not None
    return found


@KINDS
def test_the_estimate_of_blur_follows_the_blur(kind: str) -> None:
    found = [estimate(kind, sigma).sigma for sigma in (0.0, 1.0, 2.0, 3.0)]
    assert found == sorted(found)
    assert found[0] < 0.45
    np.testing.assert_allclose(found[1:], [1, 2, 3], rtol=0.3)


@KINDS
@pytest.mark.parametrize(
    ("sigma", "verdict"), [(0, "sharp"), (1.5, "blurred"), (5, "strong"), (8, "strong")]
)
def test_sharp_and_hopeless_images_are_told_apart(kind: str, sigma: float, verdict: str) -> None:
    assert estimate(kind, sigma).verdict == verdict
