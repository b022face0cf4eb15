from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
import torch
from scipy import ndimage

import napari_restore.evaluation.check as checking
from napari_restore import check
from napari_restore.errors import ImageError, RestoreError
from napari_restore.evaluation.agreement import (
    FEATURES,
    SYMMETRIES,
    _turned_box,
    calibrations,
    turned,
    turned_back,
)
from napari_restore.evaluation.likeness import STATISTICS, likeness, statistics
from napari_restore.evaluation.metrics import ms_ssim
from napari_restore.models.catalog import CATALOG, INVERTERS

SHARP = 40 + 180 * (
    ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(96, 112)), 2) > 0
).astype(float)


@pytest.fixture
def pair():
    """An image, and a result that explains it: without the blur and the noise."""
    noise = np.random.default_rng(1).normal(0, 2, SHARP.shape)
    blurred = ndimage.gaussian_filter(SHARP, 1.5)
    return (blurred + noise).round().astype(np.uint8), SHARP.round().astype(np.uint8)


@pytest.fixture
def network(monkeypatch):
    """A network that adds a gradient from left to right, so that turns of it differ."""

    class Slanted:
        multiple_of, halo, view, estimates_blur, device = 8, 8, 0, False, "cpu"
        frames, takes_device_tiles = 1, False

        def __init__(self):
            self.shapes = []

        def __call__(self, tiles, context, boxes):
            self.shapes.append(tuple(tiles.shape))
            return tiles + 0.1 * torch.linspace(0, 1, tiles.shape[-1])

    fake = Slanted()
    monkeypatch.setattr("napari_restore.inference.predictor.load_predictor", lambda *_: fake)
    return fake


# ---------------------------------------------------------------- without a model


def test_a_result_that_explains_the_image(pair):
    found = check(*pair)
    assert len(found.sentences) == 3 and "explains the image" in found.sentences[1]
    assert found.error.shape == pair[0].shape and found.error.dtype == np.float32
    assert any("How the result was made is not known" in note for note in found.notes)
    assert re.search(r"Gaussian of σ 1\.[3-7]", found.figures["re-blur"]["how"])


def test_a_result_that_does_not_explain_the_image(pair):
    image, result = pair
    found = check(image, np.roll(result, 5, 0))
    assert "does not explain the image" in found.sentences[1]
    assert found.figures["re-blur"]["ratio_to_noise"] > 3


def test_denoising_has_taken_away_noise_and_nothing_else(network):
    noise = np.random.default_rng(1).normal(0, 4, SHARP.shape)
    image = (SHARP + noise).round().clip(0, 255).astype(np.uint8)
    found = check(image, SHARP.round().astype(np.uint8), task="denoise")
    assert "explains the image" in found.sentences[1]
    assert "noise alone" in found.figures["re-blur"]["how"]
    # What a wide Gaussian takes away is structure, though its noise is gone too.
    soft = ndimage.gaussian_filter(SHARP, 2.5).round().astype(np.uint8)
    found = check(image, soft, task="denoise")
    assert "does not explain the image" in found.sentences[1]


def test_light_range_and_ends(pair):
    image, result = pair
    brighter = result.astype(int) + 20
    brighter[:2, :10] = 255
    light = check(image, brighter.astype(np.uint8)).figures["light"]
    assert light["samples_at_an_end_that_were_not"] == 20
    assert light["samples_above_the_image"] >= 20
    assert light["ratio"] == pytest.approx(brighter.sum() / image.sum(), rel=1e-4)
    assert light["range_after"] == [float(brighter.min()), 255.0]


def test_against_a_reference_after_a_shift_and_a_fit(pair):
    image, result = pair
    moved = ndimage.shift(3.0 * SHARP + 100, (1.5, -2.25), order=3, mode="nearest")
    figures = check(image, result, reference=moved).figures["against the reference"]
    assert figures["shift_after_px"] == pytest.approx([1.5, -2.25], abs=0.1)
    assert figures["psnr_after_db"] > figures["psnr_before_db"] + 3
    assert figures["psnr_after_db"] > figures["psnr_after_as_it_is_db"]
    assert figures["ms_ssim_after"] > 0.9


def test_the_result_is_the_image(pair):
    found = check(pair[0], pair[0].copy())
    assert found.sentences[0].startswith("Nothing was changed")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, bool])
def test_dtypes(dtype):
    image = SHARP > 100 if dtype is bool else SHARP.astype(dtype)
    noisy = ndimage.gaussian_filter(image.astype(float), 1.0)
    found = check((noisy > 0.5) if dtype is bool else noisy.astype(dtype), image)
    assert np.isfinite(found.error).all()


def test_gaps_harm_nothing(pair):
    image, result = (part.astype(np.float32) for part in pair)
    for part in (image, result):
        part[10:20, 30:40] = np.nan
    found = check(image, result)
    assert np.isfinite(found.error).all() and np.isfinite(found.figures["light"]["ratio"])


def test_lazy_stacks_show_the_plane_that_is_asked_for(pair):
    image, result = (da.from_array(np.stack([part] * 3), chunks=(1, 64, 64)) for part in pair)
    found = check(image, result, axes="ZYX", index=[2], region=(0, 0, 64, 64))
    assert found.index == (2,) and found.region == (0, 0, 64, 64)
    assert any("64 × 64 pixels of 3 planes" in note for note in found.notes)
    assert check(image, result, axes="ZYX").index == (1,)


def test_large_planes_are_looked_at_in_part(pair, monkeypatch):
    monkeypatch.setattr(checking, "MOST", 48**2)
    assert check(*pair).error.shape == (48, 48)
    assert check(*pair, region=(0, 0, 96, 96)).region == (24, 24, 72, 72)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, r: (i, r[:-1]), r"result has the shape \(95, 112\) and the image \(96, 112\)"),
        (lambda i, r: (i, np.stack([r] * 3, -1)), "of them is color"),
        (lambda i, r: (i[:1, :1], r[:1, :1]), "1 × 1 pixels shows too little"),
        (lambda i, r: (i * 1j, r), "complex"),
        (lambda i, r: (i * np.nan, r * 1.0), "finite"),
        (lambda i, r: (np.full_like(i, 7), r), "constant"),
        (lambda i, r: (i, "result.tif"), "must be an array; got str"),
    ],
)
def test_what_cannot_be_checked(pair, change, message):
    with pytest.raises(ImageError, match=message):
        check(*change(*pair))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provenance": "deblur"}, "provenance must be a mapping; got str"),
        ({"strength": 0.5}, "belongs to a task"),
        ({"index": [3]}, "not a plane"),
        ({"region": (0, 0, 500, 20)}, "does not lie in the plane"),
        ({"task": "sharpen"}, "sharpen"),
        ({"reference": np.zeros((5, 5))}, "reference has the shape"),
    ],
)
def test_options_of_no_use(pair, options, message):
    with pytest.raises(RestoreError, match=message):
        check(*pair, **options)


@pytest.mark.parametrize(
    ("record", "note"),
    [
        ({"task": "deblur", "model": "gone.safetensors"}, "cannot be repeated"),
        ({"task": "deblur", "model": "invert-volume", "dimensions": 3}, "restored as a volume"),
        ({"task": "deblur", "model": "wiener", "method": "wiener"}, "restored by wiener"),
    ],
)
def test_what_is_not_checked_is_said(pair, record, note):
    assert any(note in text for text in check(*pair, provenance=record).notes)


# ---------------------------------------------------------------- with one


def test_turns_come_back():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    for symmetry in SYMMETRIES:
        assert torch.equal(turned_back(turned(image, symmetry), symmetry), image)
    assert len({tuple(turned(image, s).flatten().tolist()) for s in SYMMETRIES}) == 8


def test_places_turn_with_the_image():
    plane = torch.zeros(40, 60)
    plane[4:10, 6:30] = 1
    for symmetry in SYMMETRIES:
        there = turned(plane, symmetry)
        rows, columns = (np.flatnonzero(there.amax(axis).numpy()) for axis in (1, 0))
        height, width = there.shape
        box = _turned_box((4 / 40, 6 / 60, 10 / 40, 30 / 60), symmetry)
        ends = (rows[0] / height, columns[0] / width)
        assert box == pytest.approx((*ends, (rows[-1] + 1) / height, (columns[-1] + 1) / width))


def test_a_model_that_disagrees_with_itself(pair, network):
    image, _ = pair
    result = image.copy()
    found = check(image, result, task="deblur", psf="none")
    agreement = found.figures["agreement"]
    assert agreement["turned_and_mirrored_share_of_contrast"] > 0.01
    assert any("gives another result than this one" in note for note in found.notes)
    assert found.meaning == "± at 68 %" and (found.error > 0).all()
    # Eight turns and two with other noise.
    assert len(network.shapes) == 10


def test_what_was_asked_for_may_be_told_by_the_provenance(pair, network):
    image, _ = pair
    record = {"task": "deblur", "model": "deblur-mono", "axes": "YX", "strength": 0.5}
    found = check(image, image, provenance=record)
    assert "agreement" in found.figures and found.card.endswith("/deblur-mono/")
    assert any("full strength" in note for note in found.notes)


def test_progress_and_the_end_of_it(pair, network):
    told = []

    def progress(step):
        told.append(step.message)
        if "noise" in step.message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(*pair, task="deblur", psf="none", progress=progress)
    assert any("mirrored" in message for message in told)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", [s.name for s in (*CATALOG, *INVERTERS.values())])
def test_every_model_is_calibrated(name):
    entry = calibrations()[name]
    assert 0.60 <= entry["error"]["coverage"] <= 0.76
    assert set(entry["error"]["weights"]) == set(FEATURES)
    assert min(entry["error"]["weights"].values()) >= 0
    assert len(entry["likeness"]["center"]) == len(STATISTICS)
    assert entry["likeness"]["fires_on_right"] <= 0.05


@pytest.mark.parametrize("name", ["deblur-mono", "deblur-color"])
def test_noise_and_masks_are_unlike_what_was_learned(name):
    channels = 3 if name.endswith("color") else 1
    noise = np.random.default_rng(0).normal(0.5, 0.15, (128, 128, 1)).repeat(channels, -1)
    mask = ((SHARP[:96, :96] > 100) * 1.0)[..., None].repeat(channels, -1)
    for window in (noise, mask):
        found = likeness([window], calibrations()[name]["likeness"])
        assert found.unlike and found.strange


def test_statistics_of_anything_are_finite():
    for window in (np.zeros((40, 40, 1)), np.ones((128, 128, 3)), SHARP[..., None]):
        assert np.isfinite(statistics(window)).all()


# ---------------------------------------------------------------- the report


def test_the_report_needs_nothing_else(pair, tmp_path):
    record = {"task": "deblur", "model": "gone", "source": "<cells>", "psf": {"samples": [[1.0]]}}
    found = check(*pair, provenance=record)
    found.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Not for diagnosis" in page and "&lt;cells&gt;" in page and "<cells>" not in page
    assert "<script" not in page and page.count("data:image/png;base64,") >= 5
    assert not re.findall(r"(?:src|href)=['\"](?!data:|https://napari-restore)", page)
    for sentence in found.sentences:
        assert sentence.split(";")[0] in page


def test_a_report_that_cannot_be_written(pair, tmp_path):
    with pytest.raises(RestoreError, match="cannot be written"):
        check(*pair).save(tmp_path / "no" / "report.html")


def test_ms_ssim_of_equal_and_of_other_images():
    assert ms_ssim(SHARP, SHARP, 255) == pytest.approx(1)
    noisy = SHARP + np.random.default_rng(0).normal(0, 20, SHARP.shape)
    assert ms_ssim(noisy + 20, SHARP, 255) < ms_ssim(noisy, SHARP, 255) < 1
    small = SHARP[:20, :20]
    assert ms_ssim(small, small, 255) == pytest.approx(1)
