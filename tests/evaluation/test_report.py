from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve

from napari_restore.analysis.point_spread import PSF
from napari_restore.evaluation import report
from napari_restore.evaluation.metrics import psnr
from napari_restore.evaluation.pairs import Camera, degraded_pair, find_recipe, load_sharp
from napari_restore.evaluation.report import evaluate
from napari_restore.models.catalog import TASKS
from napari_restore.training.data import SharpImage


def sharp_images(count, channels, size=96):
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (size // 6, size // 6, channels))
        pixels = coarse.repeat(6, 0).repeat(6, 1).astype(np.uint8)
        out.append(SharpImage(pixels, "test", f"{seed}.png"))
    return out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("kind", "channels"), [("color", 3), ("mono", 1)])
def test_pairs_are_repeatable_and_degraded(task, kind, channels):
    recipe = find_recipe(task, kind)
    assert (recipe.task, recipe.channels) == (task, channels)
    (image,) = sharp_images(1, channels)
    pairs = [degraded_pair(image, recipe, 48, (7, n)) for n in range(8)]
    for degraded, target, sharp, kernel, linear in pairs:
        assert not linear or (kind == "color" and task in ("deblur", "motion_deblur"))
        if task in ("dehaze", "denoise"):
            assert kernel is None
        else:
            assert kernel.sum() == pytest.approx(1, abs=1e-4)
        assert degraded.shape == target.shape == sharp.shape == (48, 48, channels)
        assert np.mean((degraded - target) ** 2) > 10**-4.5
    again = degraded_pair(image, recipe, 48, (7, 0))
    np.testing.assert_array_equal(again[0], pairs[0][0])
    assert not np.array_equal(pairs[0][0], pairs[1][0])


@pytest.mark.parametrize(
    ("kind", "channels", "dtype"), [("color", 3, "uint8"), ("mono", 1, "uint16")]
)
def test_camera_gives_back_what_it_took(kind, channels, dtype):
    image = np.random.default_rng(0).random((20, 30, channels))
    if kind == "mono":
        image = 3 * image - 1
    camera = Camera.for_image(image, kind)
    samples = camera.expose(image)
    assert samples.dtype == dtype
    assert samples.shape == ((20, 30, 3) if kind == "color" else (20, 30))
    step = 1 / 255 if kind == "color" else 3 / 40000
    np.testing.assert_allclose(camera.develop(samples), image, atol=step)


@pytest.fixture
def perfect(monkeypatch):
    """A model that returns the truth for every degraded image, and spoils sharp ones a little."""
    calls = []
    truth = {}
    real = report.degraded_pair

    def remember(image, recipe, size, seed):
        pair = real(image, recipe, size, seed)
        truth["pair"], truth["turn"] = pair, 0
        return pair

    def restore(samples, task, *, rgb, device, model="auto", psf=None):
        if psf is not None:
            assert model == "auto"
            return samples
        calls.append((samples.dtype, samples.shape, task, rgb))
        truth["turn"] += 1
        if truth["turn"] == 1:
            degraded, target, *_ = truth["pair"]
            return Camera.for_image(degraded, "color" if rgb else "mono").expose(target)
        return samples + np.array(400 if samples.dtype == np.uint16 else 1, samples.dtype)

    monkeypatch.setattr(report, "degraded_pair", remember)
    monkeypatch.setattr(report, "restore", restore)
    monkeypatch.setattr(report, "estimate_psf", lambda *_, **__: PSF.none("Not looked for."))
    return calls


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("kind", "channels", "dtype"), [("color", 3, "uint8"), ("mono", 1, "uint16")]
)
def test_a_perfect_model_gets_perfect_figures(perfect, task, kind, channels, dtype):
    result = evaluate(sharp_images(3, channels), task, kind, size=48)
    assert result.count == 3
    first, *_, last = result.rows
    assert (first.method, first.gain, first.improved) == ("input", 0, 0)
    assert last.improved == 1
    assert last.gain > 5
    assert last.ssim > 0.98
    assert last.psnr == pytest.approx(first.psnr + last.gain)
    assert np.isnan(last.delta_e) == (kind == "mono")
    rows = [row for row in result.rows[:-1] if not np.isnan(row.gain)]
    assert len(rows) > 1 and all(-60 < row.gain < last.gain for row in rows)
    knowing = [row for row in result.rows[:-1] if not np.isnan(row.told)]
    assert len(knowing) == (0 if task in ("dehaze", "denoise") else 2)
    # What nobody found changes nothing, up to the range that these methods keep to.
    assert all(row.found == pytest.approx(first.psnr, abs=0.2) for row in knowing)
    shapes = {
        (np.dtype(dtype), (48, 48, 3) if kind == "color" else (48, 48), task, kind == "color")
    }
    assert set(perfect) == shapes
    if kind == "color":
        # Every sample is one step of 255 off.
        assert result.identity == pytest.approx(result.identity_worst)
        assert result.identity == pytest.approx(48.13, abs=0.01)
    else:
        # 400 of 40,000 steps, and the range of the percentiles is a little smaller.
        assert result.identity == pytest.approx(40, abs=1.5)


def test_brightness_counts_except_for_mono_haze(monkeypatch):
    """An affine change of the result costs PSNR, but not where figures follow an affine fit."""
    monkeypatch.setattr(report, "restore", lambda samples, task, **_: samples // 2 + 5000)
    monkeypatch.setattr(report, "estimate_psf", lambda *_, **__: PSF.none("Not looked for."))
    images = sharp_images(2, 1)
    haze = evaluate(images, "dehaze", "mono", size=48)
    assert haze.rows[-1].gain == pytest.approx(0, abs=0.01)
    assert any("affine fit" in note for note in haze.notes)
    blur = evaluate(images, "deblur", "mono", size=48)
    assert blur.rows[-1].gain < -3


def test_limit_spreads_over_the_folder(tmp_path):
    from PIL import Image

    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    names = [image.name for image in load_sharp([tmp_path], "color", 3)]
    assert names == ["0.png", "4.png", "8.png"]
    assert len(load_sharp([tmp_path], "mono")) == 9
    assert len(load_sharp([tmp_path], "mono", 100)) == 9


def test_progress_counts_images(perfect):
    seen = []
    evaluate(sharp_images(2, 3), "deblur", "color", size=48, progress=seen.append)
    assert seen == [1, 2]


def test_rivals_that_know_the_blur_know_where_it_acted():
    """Told kernel and tone curve, a Wiener filter gets more from a noiseless image than untold."""
    from napari_restore.evaluation.classical import to_linear, to_srgb, wiener

    (image,) = sharp_images(1, 3, 192)
    sharp, kernel = image.pixels / 255, np.full((5, 5), 1 / 25)
    light = to_linear(sharp)
    blurred = to_srgb(convolve(light, kernel[..., None], mode="mirror"))
    np.testing.assert_allclose(to_srgb(light), sharp, atol=1e-6)
    told, untold = to_srgb(wiener(to_linear(blurred), kernel)), wiener(blurred, kernel)
    assert psnr(told, sharp, 1) > psnr(untold, sharp, 1) + 0.3


def test_the_network_is_measured_alone_where_no_psf_is_wanted(monkeypatch):
    monkeypatch.setattr(
        report, "estimate_psf", lambda *_, **__: pytest.fail("a PSF was looked for")
    )
    result = evaluate(sharp_images(1, 1), "motion_deblur", "mono", psf="none", size=48)
    assert result.rows[-1].method == "motion-mono"
    assert not any(np.isfinite((row.told, row.found)).any() for row in result.rows)
