"""Adapting from a dock: the button, what it refuses, and how it is taken back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_restore.gui import adapt
from napari_restore.gui.psf_controls import FOUND, LAYER, NONE
from napari_restore.gui.widget import DeblurWidget, DehazeWidget
from napari_restore.models import catalog, library
from napari_restore.models.catalog import own_names
from napari_restore.physics import psf
from napari_restore.training import adapting
from napari_restore.training.adapting import NoiseSplit
from waiting import LIMIT_MS

KERNEL = psf.disk(2.0)


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "own_folder", lambda: tmp_path / "library")
    monkeypatch.setattr(adapting, "_STEPS", 3)
    monkeypatch.setattr(adapting, "_CROP", 32)


@pytest.fixture
def judged(monkeypatch):
    """Scores that the judge gives, one after another."""
    scores = [30.0, 31.0, 29.0, 29.0]
    monkeypatch.setattr(
        NoiseSplit, "measure", lambda *_: dict.fromkeys(("score", "output"), scores.pop(0))
    )
    return scores


@pytest.fixture
def dock(viewer, qtbot, small_inverters):
    rng = np.random.default_rng(0)
    scene = torch.from_numpy(ndimage.gaussian_filter(rng.random((112, 128)), 1))[None, None]
    cells = psf.convolve(scene, psf.stack([KERNEL]))[0, 0].numpy()
    viewer.add_image(KERNEL, name="psf")
    viewer.add_image((30000 * cells).astype(np.uint16), name="cells")
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)
    dock.controls.psf.source.value = LAYER
    dock.controls.psf.layer.value = viewer.layers["psf"]
    yield dock
    dock.session.close()


def waited(dock, qtbot):
    qtbot.waitUntil(lambda: not dock.session.running, timeout=LIMIT_MS)


def test_adapted_restored_and_undone_with_one_click(dock, viewer, qtbot, judged):
    row, button = dock.adapt_row, dock.adapt_row.button
    assert not row.isHidden()
    assert (button.text(), button.isEnabled()) == ("Adapt to this image", True)
    button.click()
    assert not button.isEnabled()
    waited(dock, qtbot)
    assert "'cells adapted' is in your library" in dock.status.text()
    assert dock.controls.model.value == "cells adapted"
    assert button.text() == "Undo adapting"
    dock.restore()
    waited(dock, qtbot)
    result = viewer.layers[-1]
    viewer.layers["cells"].visible = False
    assert result.metadata["napari_restore"]["model"] == "cells adapted"
    button.click()
    assert [layer.name for layer in viewer.layers] == ["psf", "cells"]
    assert viewer.layers["cells"].visible
    assert own_names("deblur") == []
    assert dock.controls.model.value == "auto"
    assert "cells adapted" not in dock.controls.model.choices
    assert f"'{result.name}' went with it" in dock.status.text()
    assert (button.text(), button.isEnabled()) == ("Adapt to this image", True)


def test_what_does_not_help_changes_nothing(dock, qtbot, judged):
    judged[1] = 29.0
    dock.adapt_row.adapt()
    waited(dock, qtbot)
    assert dock.status.text().startswith("Adapting did not help this image")
    assert (own_names("deblur"), dock.controls.model.value) == ([], "auto")
    assert dock.adapt_row.button.text() == "Adapt to this image"


def test_a_model_that_somebody_else_removed_is_not_taken_back(dock, qtbot, judged):
    dock.adapt_row.adapt()
    waited(dock, qtbot)
    library.remove("cells adapted")
    adapt.LIBRARY.changed.emit()
    assert dock.adapt_row.button.text() == "Adapt to this image"
    assert dock.controls.model.value == "auto"


def test_what_cannot_be_adapted_to_is_said(dock, viewer, qtbot, monkeypatch):
    seen = []
    monkeypatch.setattr(adapt, "show_error", seen.append)
    dock.controls.psf.source.value = NONE
    assert dock.adapt_row.adapt() is None
    assert "psf is none" in dock.status.text()
    dock.controls.psf.source.value = FOUND
    viewer.layers.selection = set(viewer.layers)
    assert dock.adapt_row.adapt() is None
    assert "Select one layer" in dock.status.text()
    viewer.layers.selection = {viewer.layers["psf"]}
    assert dock.adapt_row.adapt() is None
    assert "needs 96 on each side" in dock.status.text()
    assert len(seen) == 3


def test_docks_that_undo_no_blur_have_no_such_button(viewer, qtbot):
    dock = DehazeWidget(viewer)
    qtbot.addWidget(dock)
    assert dock.adapt_row.isHidden()
    dock.session.close()
