"""Adapting a model to one image: what is kept, what is refused, and how the model is used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_restore import adapt, deblur, motion_deblur
from napari_restore.analysis.find import Finding
from napari_restore.analysis.point_spread import PSF
from napari_restore.cli import main
from napari_restore.errors import ModelError, RestoreError
from napari_restore.models import catalog, library
from napari_restore.models.catalog import INVERTERS, load_state, own_names
from napari_restore.physics import camera, motion, psf
from napari_restore.restoration.plan import Blur, Options, make_plan
from napari_restore.restoration.run import restore_array
from napari_restore.training import adapting
from napari_restore.training.adapting import BlurredAgain, NoiseSplit, Subject
from napari_restore.training.fine_tuning import find_base

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_restore.models.catalog import ModelSpec

KERNEL = psf.disk(3.0)
NOISE = 0.02


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of its own for each test, and few steps."""
    folder = tmp_path / "library"
    monkeypatch.setattr(catalog, "own_folder", lambda: folder)
    monkeypatch.setattr(adapting, "_STEPS", 10)
    monkeypatch.setattr(adapting, "_RATE", 3e-4)
    monkeypatch.setattr(adapting, "_CROP", 64)
    monkeypatch.setattr(adapting, "_DRAWS", 2)
    return folder


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds each network better than the one before."""
    scores = iter(np.arange(30.0, 40.0))
    monkeypatch.setattr(
        NoiseSplit, "measure", lambda *_: dict.fromkeys(("score", "output"), next(scores))
    )


def scene(seed: int = 0, side: int = 128) -> np.ndarray:
    """Blobs and edges, in [0, 1]."""
    rng = np.random.default_rng(seed)
    spots = ndimage.gaussian_filter((rng.random((side, side)) > 0.98).astype(float), 1)
    cells = ndimage.gaussian_filter(rng.random((side, side)), 6)
    picture = spots / spots.max() + 0.7 * (cells > np.median(cells))
    return np.asarray(picture / picture.max(), np.float32)


def blurred(sharp: np.ndarray, kernel: np.ndarray = KERNEL, noise: float = NOISE) -> np.ndarray:
    light = psf.convolve(torch.from_numpy(sharp)[None, None], psf.stack([kernel]))[0, 0].numpy()
    drawn = np.random.default_rng(1).normal(0, noise, sharp.shape)
    return (10000 + 20000 * (light + drawn)).astype(np.uint16)


SHARP = scene()
IMAGE = blurred(SHARP)


def error(result: np.ndarray) -> float:
    return float(np.square((result - 10000.0) / 20000 - SHARP)[16:-16, 16:-16].mean())


# ---------------------------------------------------------------- what is made


def test_a_blur_that_the_network_never_saw_is_undone_better() -> None:
    line = motion.kernel(motion.line(33, 0.6))
    image, told = blurred(SHARP, line, 0.01), list[Any]()
    found = adapt(image, name="mine", psf=line, progress=told.append)
    assert found
    assert found.after > found.before
    assert "'mine' is in your library, for this image alone" in found.statement
    shares = [step.done / step.total for step in told]
    assert sorted(shares) == shares
    assert len(set(shares)) > 10
    plain = deblur(image, psf=line)
    by_name = restore_array(image, make_plan(image, Options("deblur", model="mine")))
    # It is better in truth too, by what it is told of the blur once and for all.
    assert error(by_name.data) < 0.97 * error(plain)
    np.testing.assert_array_equal(by_name.data, deblur(image, model="mine", psf=line))
    entry = library.find_entry("mine")
    record = by_name.provenance
    assert (record["model"], record["weights_sha256"]) == ("mine", entry.spec.sha256)
    np.testing.assert_array_equal(PSF.from_record(record["psf"]).array, found_psf(line))
    # The last blocks alone have learned.
    before, after = load_state(INVERTERS[1].path), load_state(entry.spec.path)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith("network.decoders") for key in changed)
    card = entry.card()
    for part in (
        "adapted to",
        "for this image alone",
        "FWHM",
        "before it was adapted",
        "**steps**: 10",
    ):
        assert part in card
    assert entry.origin == "adapted"
    assert record["notes"][0] == "'mine' was adapted to one image and suits no other."


def found_psf(kernel: np.ndarray) -> np.ndarray:
    """A kernel as a plan has it."""
    return make_plan(SHARP, Options("deblur", psf=kernel)).psfs[0].array


@pytest.mark.usefixtures("small_inverters", "sure")
def test_color_and_stacks_and_lines_of_motion() -> None:
    light = torch.from_numpy(np.stack([SHARP, 0.8 * SHARP, SHARP[::-1].copy()]))[None]
    seen = camera.to_srgb(psf.convolve(camera.to_linear(light), psf.stack([KERNEL])))
    color = (255 * seen[0].permute(1, 2, 0).numpy()).round().astype(np.uint8)
    assert adapt(color, name="color", psf=KERNEL).name == "color"
    assert deblur(color, model="color").dtype == np.uint8
    stack = np.stack([IMAGE, blurred(scene(5)), IMAGE])
    found = adapt(stack, name="stack", psf=KERNEL, task="motion_deblur")
    assert found.statement.startswith("Adapted to plane 1, the middle one.")
    assert own_names("motion_deblur") == ["stack"]
    assert motion_deblur(stack, model="stack").shape == stack.shape
    # A model for color is none for gray.
    with pytest.raises(ModelError, match="needs 3 channels"):
        deblur(IMAGE, model="color")


@pytest.mark.usefixtures("small_inverters")
def test_what_does_not_help_is_dropped_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(77)
    asked = iter(range(9))
    monkeypatch.setattr(
        NoiseSplit, "measure", lambda self, _: {"score": 30.0, "output": 30.0 - next(asked)}
    )
    found = adapt(IMAGE, psf=KERNEL)
    assert not found
    assert found.statement == "Adapting did not help this image: the model is unchanged."
    assert own_names("deblur") == []
    # Nor are the random numbers of whoever calls begun anew.
    assert torch.initial_seed() == 77


@pytest.mark.usefixtures("small_inverters")
def test_who_stops_keeps_nothing() -> None:
    def stop(step: Any) -> None:
        if step.done > 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(IMAGE, psf=KERNEL, progress=stop)
    assert own_names("deblur") == []


# ---------------------------------------------------------------- the judge


def subject(kernel: np.ndarray = KERNEL) -> tuple[Subject, torch.Tensor]:
    """A window, and what is sharp of it."""
    sharp = torch.from_numpy(SHARP)[None, None]
    seen = psf.convolve(sharp, psf.stack([kernel]))
    noise = NOISE * torch.randn(seen.shape, generator=torch.Generator().manual_seed(3))
    return Subject([seen + noise], Blur(PSF(kernel), NOISE, "given", ""), False), sharp


def returning(restored: torch.Tensor) -> Callable[..., Any]:
    return lambda image, exposure, told: (restored, None)


def test_the_judge_tells_what_is_nearer_to_the_truth() -> None:
    seen, sharp = subject()
    clouds = np.random.default_rng(2).normal(0, 1, SHARP.shape)
    off = sharp + torch.from_numpy(ndimage.gaussian_filter(clouds, 6)).float()[None, None]
    for first, second, better in ((off, sharp, True), (sharp, off, False)):
        judge = NoiseSplit(seen, torch.device("cpu"))
        before = judge.measure(returning(first))["output"]
        assert (judge.measure(returning(second))["output"] > before) is better


def test_a_change_that_the_blur_hides_is_not_believed() -> None:
    seen, _ = subject(psf.gaussian(3.0))
    soft = torch.from_numpy(ndimage.gaussian_filter(SHARP, 1.5))[None, None]
    better = soft + 0.3 * (torch.from_numpy(ndimage.gaussian_filter(SHARP, 1.2)) - soft)
    waves = torch.arange(SHARP.shape[1]) % 2 * 0.2 - 0.1
    judge = NoiseSplit(seen, torch.device("cpu"))
    before = judge.measure(returning(soft))
    assert judge.measure(returning(better))["output"] > before["output"]
    hidden = judge.measure(returning(better + waves))
    # What it foretells is better all the same.
    assert hidden["score"] > before["score"]
    assert hidden["output"] < before["output"]


@pytest.mark.parametrize("linear", [False, True])
def test_what_is_learned_from_is_blurred_as_the_image_is(linear: bool) -> None:
    seen, sharp = subject()
    made = BlurredAgain(replace(seen, linear=linear))
    pair = made(sharp, np.random.default_rng(0), torch.Generator().manual_seed(0))
    light = camera.to_linear(sharp) if linear else sharp
    again = psf.convolve(light, psf.stack([KERNEL]))
    again = camera.to_srgb(again) if linear else again
    edge = made.margin
    left = pair.image - again[..., edge:-edge, edge:-edge]
    assert float(left.std()) == pytest.approx(NOISE, rel=0.1)
    assert torch.equal(pair.target, sharp[..., edge:-edge, edge:-edge])
    assert pair.told is not None
    assert bool(pair.told.linear.all()) is linear


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (IMAGE[:80], {"psf": KERNEL}, r"80 × 128 pixels.*needs 96"),
        (np.stack([IMAGE, IMAGE]), {"psf": KERNEL, "axes": "CYX"}, "2 channels.*one of them"),
        (IMAGE, {"task": "denoise"}, "denoise was asked"),
        (IMAGE, {"model": "deblur-mono"}, "Leave the model at auto"),
        (IMAGE, {"psf": "none"}, "psf is none"),
        (IMAGE, {"psf": KERNEL, "method": "wiener"}, "leave the method"),
        (IMAGE, {"psf": psf.gaussian(20)}, "too small for a point spread function"),
        (IMAGE, {"psf": KERNEL, "name": "deblur-mono"}, "There is a model 'deblur-mono'"),
    ],
)
def test_what_cannot_be_adapted_to(image: np.ndarray, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        adapt(image, **options)


def test_an_image_without_blur_is_nothing_to_adapt_to(monkeypatch: pytest.MonkeyPatch) -> None:
    sharp = Finding("sharp", None, 0.01, "The image is sharp: there is no blur to undo.")
    monkeypatch.setattr("napari_restore.restoration.psf_search.find_psf", lambda *_, **__: sharp)
    with pytest.raises(RestoreError, match="no point spread function to adapt to: The image is sh"):
        adapt(IMAGE)


def test_a_model_that_is_told_a_psf_needs_one(
    small_inverters: dict[int, ModelSpec], write_model: Callable[..., str]
) -> None:
    # One that was adapted to nothing: what it is told is found in the image.
    entry = library.add(small_inverters[1].path, "told")
    assert entry.spec.psf
    plan = make_plan(IMAGE, Options("deblur", model="told"))
    assert (plan.options.psf, plan.inverter, plan.spec.name) == ("auto", entry.spec, "deblur-mono")
    assert own_names("deblur", told=False) == []
    with pytest.raises(RestoreError, match="'told' is told a point spread function"):
        deblur(IMAGE, model="told", psf="none")
    with pytest.raises(RestoreError, match="is no classical method"):
        deblur(IMAGE, model="told", psf=KERNEL, method="wiener")
    with pytest.raises(ModelError, match="cannot be a default"):
        library.use_by_default("told")
    with pytest.raises(ModelError, match="cannot be trained further"):
        find_base("told")


# ---------------------------------------------------------------- from a shell


@pytest.mark.usefixtures("small_inverters", "sure")
def test_the_command_adapts_and_says_how_to_use_and_undo_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, array in (("cells", IMAGE), ("point", KERNEL), ("small", IMAGE[:40])):
        np.save(tmp_path / f"{name}.npy", array)
    cells, point = (str(tmp_path / f"{name}.npy") for name in ("cells", "point"))
    assert main(["adapt", cells, "--psf", point, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "--model 'cells adapted'" in said
    assert "models remove 'cells adapted'" in said
    assert main(["deblur", cells, "-o", str(tmp_path / "o.npy"), "--model", "cells adapted"]) == 0
    assert main(["adapt", str(tmp_path / "small.npy"), "--psf", point]) == 1
    assert "needs 96 on each side" in capsys.readouterr().err
