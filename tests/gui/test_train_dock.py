"""The dock that trains: a process of its own does it, and outlives the dock."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from napari.layers import Image
from scipy import ndimage

from napari_restore.gui import train
from napari_restore.gui.curve import Curve
from napari_restore.gui.train import TrainWidget, write_layers
from napari_restore.models import catalog, library
from napari_restore.training import projects
from napari_restore.training.projects import Project, Settings, Status
from waiting import LIMIT, LIMIT_MS

SMALL = {
    "channels": 1,
    "widths": [8, 12],
    "encoder_blocks": [1],
    "middle_blocks": 1,
    "decoder_blocks": [1],
}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A folder of data for each test, which programs inherit."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    own = tmp_path / "data" / "napari-restore"
    monkeypatch.setattr(catalog, "own_folder", lambda: own / "models")
    for module in (projects, train):
        monkeypatch.setattr(module, "projects_folder", lambda: own / "trainings")
    monkeypatch.setattr(TrainWidget, "_processes", {})


@pytest.fixture
def base(write_model):
    """A small network that changes nothing yet, in the library."""
    path = Path(write_model("small", "deblur", "resunet", **SMALL))
    state = library.load_state(path)
    state |= {key: torch.zeros_like(state[key]) for key in ("ending.weight", "ending.bias")}
    said = {"task": "deblur", "architecture": "resunet", "options": SMALL}
    library.save_weights(path, state, said)
    return library.add(path, "small base").name


def scene(seed):
    rng = np.random.default_rng(seed)
    spots = (rng.random((128, 128)) > 0.97).astype(float)
    return (20000 * ndimage.gaussian_filter(spots, 0.8)).astype(np.uint16)


@pytest.fixture
def dock(viewer, qtbot, base):
    for seed in range(3):
        viewer.add_image(scene(seed), name=f"scene {seed}")
    dock = TrainWidget(viewer)
    qtbot.addWidget(dock)
    dock.base.value = base
    dock.name.value = "mine"
    dock.minutes.value = 0.1
    dock.as_trained.value = False
    dock.blur[0].value, dock.blur[1].value = 1.4, 1.6
    yield dock
    for process in TrainWidget._processes.values():
        process.kill()
        process.wait(LIMIT)


def take_all(dock):
    dock.viewer.layers.selection = set(dock.viewer.layers)
    dock.sharp.add_selected()


def begun(dock, qtbot):
    """Wait until the training takes steps."""
    dock.train()
    qtbot.waitUntil(lambda: dock.project is not None, timeout=LIMIT_MS)
    qtbot.waitUntil(lambda: dock.project.status.step > 0, timeout=LIMIT_MS)


def test_layers_become_a_model_that_docks_offer(dock, qtbot):
    assert not dock.train_button.isEnabled()
    take_all(dock)
    assert "scene 2" in dock.sharp.text.text()
    assert dock.train_button.isEnabled()
    dock.show_example()
    assert "as the model will see it" in dock.example_text.text()
    begun(dock, qtbot)
    assert dock.project.settings.blur == (1.4, 1.6)
    qtbot.waitUntil(lambda: dock.project.status.ended, timeout=LIMIT_MS)
    dock.look()
    assert dock.project.status.result == "mine"
    assert "'mine' is in your library" in dock.state.text()
    assert not dock.pause_button.isEnabled()
    assert len(dock.curve.psnr) > 1
    assert dock.pictures.pixmap().width() == 300
    # What was written of the layers is not kept.
    assert not (dock.project.folder / "sharp").exists()
    assert (
        library.find_entry("mine").figures["output"] > library.find_entry("mine").figures["start"]
    )


def test_a_pause_and_the_best(dock, qtbot):
    dock.minutes.value = 5
    take_all(dock)
    begun(dock, qtbot)
    dock.look()
    assert dock.pause_button.text() == "Pause"
    assert "It goes on if napari is closed" in dock.state.text()
    dock.pause_or_continue()
    qtbot.waitUntil(lambda: dock.project.status.state == "paused", timeout=LIMIT_MS)
    # Even while the process that pauses is still there.
    dock.keep()
    qtbot.waitUntil(lambda: dock.project.status.ended, timeout=LIMIT_MS)
    assert (
        "mine" in dock.project.status.message or "Nothing was kept" in dock.project.status.message
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_another_dock_finds_what_was_broken_off(dock, viewer, qtbot):
    dock.minutes.value = 5
    take_all(dock)
    begun(dock, qtbot)
    process = TrainWidget._processes.pop("mine")
    other = TrainWidget(viewer)
    qtbot.addWidget(other)
    # It runs, whoever has started it.
    assert other.project.settings.name == "mine"
    assert other.pause_button.text() == "Pause"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(LIMIT)
    other.look()
    assert "broken off" in other.state.text()
    assert other.pause_button.text() == "Continue"
    before = other.project.status.step
    other.pause_or_continue()
    qtbot.waitUntil(lambda: other.project.status.state == "training", timeout=LIMIT_MS)
    qtbot.waitUntil(lambda: other.project.status.step > 0, timeout=LIMIT_MS)
    assert before > 0
    other.pause_or_continue()
    qtbot.waitUntil(lambda: not other._runs(other.project), timeout=LIMIT_MS)
    other.discard()
    assert other.training.value == "new training"
    assert list(other.training.choices) == ["new training"]


def test_one_layer_is_too_few_and_that_is_said(dock, qtbot):
    dock.viewer.layers.selection = {dock.viewer.layers[0]}
    dock.sharp.add_selected()
    dock.train()
    qtbot.waitUntil(lambda: dock.project is not None, timeout=LIMIT_MS)
    qtbot.waitUntil(lambda: not dock._runs(dock.project), timeout=LIMIT_MS)
    dock.look()
    assert dock.project.status.state == "failed"
    assert "One image is too few" in dock.state.text()


def test_what_cannot_be_is_said_before_anything_is_written(dock, qtbot, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "show_error", seen.append)
    take_all(dock)
    dock.name.value = "a/b"
    dock._try(dock.train)
    assert "cannot be called" in dock.status.text()
    dock.name.value = "mine"
    dock.blur[0].value, dock.blur[1].value = 3, 1
    dock.train()
    qtbot.waitUntil(lambda: not dock.runner.running, timeout=LIMIT_MS)
    assert "3 to 1" in dock.status.text()
    assert len(seen) == 2
    assert projects.all_projects() == []


def test_controls_suit_the_model_and_the_images(dock):
    take_all(dock)
    dock.show()
    assert dock._blur_row.isVisible()
    dock.as_trained.value = True
    assert not dock._blur_row.isVisible()
    dock.base.value = "denoise-mono"
    dock.as_trained.value = False
    assert (dock._blur_row.isVisible(), dock._noise_row.isVisible()) == (False, True)
    assert dock.settings.blur is None
    assert dock.settings.noise == (0.005, 0.05)
    dock.kind.value = "pairs of low and high quality"
    assert (dock.sharp.isVisible(), dock.low.isVisible()) == (False, True)
    assert not dock.train_button.isEnabled()
    for part in (dock.low, dock.high):
        part.add_folder("somewhere")
    assert dock.train_button.isEnabled()
    assert (dock.settings.blur, dock.settings.noise) == (None, None)


def test_layers_are_written_as_they_are(tmp_path):
    stack = np.arange(60 * 8 * 9, dtype=np.int16).reshape(60, 8, 9)
    color = np.random.default_rng(0).random((8, 9, 4)).astype(np.float32)
    hole = np.full((8, 9), 2.5)
    hole[3, 3] = np.nan
    layers = [("stack", stack, False), ("color", color, True), ("hole", hole, False)]
    write_layers(layers, tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert sum(file.name.startswith("layer000_plane") for file in files) == 48
    np.testing.assert_array_equal(tifffile.imread(files[0]), stack[0])
    np.testing.assert_array_equal(tifffile.imread(files[47]), stack[59])
    assert tifffile.imread(files[48]).dtype == np.uint8
    assert np.isfinite(tifffile.imread(files[49])).all()


def test_layers_that_are_multiscale_are_taken_at_full_resolution():
    layer = Image([np.zeros((64, 64)), np.zeros((32, 32))], multiscale=True)
    assert train.as_source(layer)[1].shape == (64, 64)


def test_the_curve_is_drawn_whatever_there_is(qtbot):
    curve = Curve()
    qtbot.addWidget(curve)
    curve.resize(300, 140)
    empty = curve.grab().toImage()
    curve.show_rows([], 30.0, 5.0)
    one = curve.grab().toImage()
    rows = [{"minutes": m, "output": 30 + m, "loss": -m} for m in (1.0, 2.0)]
    curve.show_rows([*rows, {"minutes": 3.0, "output": float("nan")}], 30.0, 5.0)
    assert curve.psnr == [(0.0, 30.0), (1.0, 31.0), (2.0, 32.0)]
    assert len({bytes(each.constBits().asarray(each.sizeInBytes())) for each in (empty, one)}) == 2


def test_a_process_that_cannot_start_is_explained(dock, qtbot, monkeypatch, tmp_path):
    project = Project.create(Settings("x", "small base", sharp=(str(tmp_path),)))
    monkeypatch.setattr(train.sys, "executable", "/nonexistent/python")
    dock.choose("x")
    seen = []
    monkeypatch.setattr(train, "show_error", seen.append)
    dock._try(dock.pause_or_continue)
    assert "could not be started" in dock.status.text()
    assert seen
    project.tell(replace(Status(), state="training", step=3))
    dock.look()
    assert "broken off" in dock.state.text()
