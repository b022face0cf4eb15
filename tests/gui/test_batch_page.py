from __future__ import annotations

import numpy as np
import pytest

from napari_restore import restore
from napari_restore.gui.widget import DeblurWidget
from waiting import LIMIT_MS


@pytest.fixture
def folder(tmp_path, image):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"cells{number}.npy", image + number)
    return folder


@pytest.fixture
def page(viewer, qtbot, predictor):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: bool(widget.devices), timeout=LIMIT_MS)
    widget.more.actions["Batch …"].trigger()
    yield widget.more.batch
    widget.session.close()


def states(page) -> dict[str, str]:
    rows = range(page.table.rowCount())
    return {page.table.item(row, 0).text(): page.table.item(row, 1).text() for row in rows}


def ended(qtbot, page) -> None:
    qtbot.waitUntil(lambda: not page.runner.running, timeout=LIMIT_MS)


def test_a_folder_is_restored_as_the_controls_say(page, folder, image, tmp_path, qtbot):
    page._controls.strength.value = 0.5
    assert not page.buttons["start_button"].isEnabled()
    page.add(folder)
    page.output.setText(str(tmp_path / "out"))
    page.buttons["start_button"].click()
    ended(qtbot, page)
    assert states(page) == {f"cells{number}.npy": "done" for number in range(3)}
    assert page.progress_bar.value() == 1000
    for number in range(3):
        expected = restore(image + number, "deblur", strength=0.5)
        np.testing.assert_array_equal(np.load(tmp_path / f"out/cells{number}.npy"), expected)
    assert "3 of 3 files restored" in page.status.text()


def test_what_fails_is_said_and_ends_no_other(page, folder, tmp_path, qtbot):
    (folder / "cells1.npy").write_bytes(b"no image")
    page.add(*sorted(folder.iterdir()), folder / "gone.tif")
    page.output.setText(str(tmp_path / "out"))
    page.buttons["start_button"].click()
    ended(qtbot, page)
    found = states(page)
    assert (found["cells0.npy"], found["cells2.npy"]) == ("done", "done")
    assert found["cells1.npy"].startswith("failed: ")
    assert found["gone.tif"].startswith("failed: ")
    assert "2 of 4 files restored" in page.status.text()
    # Earlier results are replaced only if that is asked for.
    page.buttons["start_button"].click()
    ended(qtbot, page)
    assert states(page)["cells0.npy"].startswith("failed: ")
    page.force.setChecked(True)
    page.buttons["start_button"].click()
    ended(qtbot, page)
    assert states(page)["cells0.npy"] == "done"


def test_cancel_keeps_what_is_finished(page, folder, tmp_path, predictor, qtbot):
    page.add(folder)
    page.output.setText(str(tmp_path / "out"))
    predictor.hold(after=1)
    page.buttons["start_button"].click()
    qtbot.waitUntil(lambda: "done" in states(page).values(), timeout=LIMIT_MS)
    page.buttons["cancel_button"].click()
    predictor.free()
    ended(qtbot, page)
    assert "Canceled" in page.status.text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cells0.npy"]


def test_one_file_goes_into_the_folder_too(page, folder, tmp_path, qtbot):
    page.add(folder / "cells0.npy")
    page.output.setText(str(tmp_path / "new"))
    page.buttons["start_button"].click()
    ended(qtbot, page)
    assert (tmp_path / "new" / "cells0.npy").is_file()


def test_wrong_output_is_said(page, folder, tmp_path, qtbot, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("napari.utils.notifications.show_error", lambda text: None)
    page.add(folder)
    page.output.setText(str(tmp_path / "file"))
    page.buttons["start_button"].click()
    ended(qtbot, page)
    assert "Nothing was restored" in page.status.text()
