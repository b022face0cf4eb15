"""Page of the model library, and the docks that follow it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_restore.gui.models import ModelsWidget
from napari_restore.gui.widget import DeblurWidget, DehazeWidget
from napari_restore.models import catalog, library
from napari_restore.models.catalog import SHIPPED
from small_networks import SMALL
from spandrel_stand_in import Blur, stand_in_for_spandrel
from waiting import LIMIT_MS


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "own_folder", lambda: tmp_path / "library")


@pytest.fixture
def page(qtbot):
    page = ModelsWidget()
    qtbot.addWidget(page)
    return page


def shown(page) -> list[str]:
    rows = range(page.table.rowCount())
    return [page.table.item(row, 0).text() for row in rows if not page.table.isRowHidden(row)]


def test_page_lists_what_ships_with_cards(page):
    assert shown(page) == [spec.name for spec in SHIPPED]
    page.select("deblur-mono")
    assert "BSD-3-Clause" in page.card.toPlainText()
    assert page.buttons["Export …"].isEnabled()
    for name in ("Rename …", "Remove …", "Use by default"):
        assert not page.buttons[name].isEnabled()


def test_docks_follow_the_library(page, viewer, mono_model, qtbot):
    docks = [DeblurWidget(viewer), DehazeWidget(viewer)]
    for dock in docks:
        qtbot.addWidget(dock)
    try:
        page.add(Path(mono_model))
        assert shown(page)[0] == "small-mono"
        choices = [list(dock.controls.model.choices) for dock in docks]
        assert ["small-mono" in names for names in choices] == [True, False]
        docks[0].controls.model.value = "small-mono"
        page._call(page.toggle_default)
        assert page.buttons["Use by default"].text() == "Not by default"
        assert shown(page)[0] == "small-mono (default)"
        # The dock stays with what it had.
        assert docks[0].controls.model.value == "small-mono"
        page._call(page.toggle_default)
        assert not library.find_entry("small-mono").default
        page.rename("mine")
        assert page.selected.name == "mine"
        page.remove()
        assert list(docks[0].controls.model.choices) == ["auto", "deblur-color", "deblur-mono"]
        assert docks[0].controls.model.value == "auto"
    finally:
        for dock in docks:
            dock.session.close()


def test_networks_of_others_are_imported_in_a_thread_and_restore_in_a_dock(
    page, viewer, qtbot, tmp_path, monkeypatch
):
    network = catalog.build_network("nafnet", {"channels": 1, "unshuffle": 1, **SMALL})
    path = tmp_path / "NAFNet.pth"
    torch.save(network.state_dict(), path)
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    try:
        page.add_slowly(path, "deblur")
        assert page.status.text() == "Importing 'NAFNet.pth' …"
        qtbot.waitUntil(lambda: not page.runner.running, timeout=LIMIT_MS)
        assert page.status.text() == "Imported 'NAFNet'. All docks offer it."
        assert page.selected.name == "NAFNet"
        assert "NAFNet" in dock.controls.model.choices
        torch.save({"a": torch.zeros(1)}, path)
        seen = []
        monkeypatch.setattr("napari.utils.notifications.show_error", seen.append)
        monkeypatch.setitem(sys.modules, "spandrel", None)
        page.add_slowly(path, "deblur")
        qtbot.waitUntil(lambda: not page.runner.running, timeout=LIMIT_MS)
        assert "napari-restore[spandrel]" in page.status.text()
        assert seen == [page.status.text()]
    finally:
        dock.session.close()


def test_a_published_network_restores_in_a_dock(page, viewer, qtbot, tmp_path, monkeypatch):
    stand_in_for_spandrel(monkeypatch)
    path = tmp_path / "published.pth"
    torch.save({"params": Blur().state_dict()}, path)
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    try:
        page.add_slowly(path, "deblur")
        qtbot.waitUntil(lambda: not page.runner.running, timeout=LIMIT_MS)
        assert page.selected.name == "published"
        assert "network Blur" in page.card.toPlainText()
        image = np.random.default_rng(0).integers(0, 255, (90, 100), np.uint8)
        viewer.add_image(image, name="cells")
        dock.controls.model.value = "published"
        qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)
        dock.restore()
        qtbot.waitUntil(lambda: not dock.session.running, timeout=LIMIT_MS)
        result = viewer.layers[-1]
        assert result.metadata["napari_restore"]["model"] == "published"
        assert (result.data != image).any()
    finally:
        dock.session.close()


def test_search_hides_the_others(page):
    page.search.setText("dehaze mono")
    assert shown(page) == ["dehaze-mono"]


def test_a_page_that_was_closed_hears_nothing(qtbot, mono_model, page):
    other = ModelsWidget()
    qtbot.addWidget(other)
    other.deleteLater()
    del other
    qtbot.wait(10)
    page.add(Path(mono_model))
    assert page.selected.name == "small-mono"


def test_what_cannot_be_is_said(page, monkeypatch):
    seen = []
    monkeypatch.setattr("napari_restore.gui.models.show_error", seen.append)
    page._call(lambda: page.add(Path("nothing.safetensors")))
    assert "nothing.safetensors" in page.status.text()
    assert seen == [page.status.text()]
