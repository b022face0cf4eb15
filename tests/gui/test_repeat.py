from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image
from napari.layers._source import layer_source
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_restore import restore
from napari_restore.cli import main, make_parser
from napari_restore.errors import RestoreError
from napari_restore.gui.options import DockOptions
from napari_restore.gui.psf_source import BeadsIn, OpticsOf
from napari_restore.gui.remembered import Settings
from napari_restore.gui.repeat import arguments_of, command_of, python_of
from napari_restore.gui.widget import DeblurWidget, DehazeWidget
from napari_restore.io import read_image
from napari_restore.models.catalog import CATALOG
from waiting import LIMIT_MS


@pytest.fixture
def widget(viewer, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: bool(widget.devices), timeout=LIMIT_MS)
    yield widget
    widget.session.close()


def finished(qtbot, session) -> None:
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)


# ---------------------------------------------------------------- copy


def test_python_runs_as_copied(widget, viewer, image, predictor, monkeypatch):
    viewer.add_image(image, name="it's")
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    widget.controls.strength.value = 0.5
    widget.controls.tile.value = 128
    widget.more.actions["Copy as Python"].trigger()
    exec(QApplication.clipboard().text(), {})
    np.testing.assert_array_equal(
        viewer.layers[-1].data, restore(image, "deblur", strength=0.5, tile=128)
    )
    assert viewer.layers[-1].name == "it's [deblurred 0.5]"


def test_python_names_layers_of_point_spread_functions(session, viewer, image):
    spot = np.zeros((9, 9))
    spot[3:6, 3:6] = 1
    psf = viewer.add_image(spot, name="psf")
    viewer.layers.selection = {viewer.add_image(image, name="cells")}
    options = DockOptions(psf=psf)
    assert 'psf=viewer.layers["psf"]'.replace('"', "'") in python_of(
        session.jobs(options), options, "deblur"
    )
    optics = DockOptions(psf=OpticsOf({"na": 1.4, "wavelength": "520 nm", "pixel_size": "65 nm"}))
    text = python_of(session.jobs(optics), optics, "deblur")
    assert "OpticsOf({'na': 1.4" in text
    compile(text, "copied", "exec")


def test_command_runs_as_copied(widget, viewer, image, predictor, tmp_path):
    folder = tmp_path / "my images"
    folder.mkdir()
    np.save(folder / "cells.npy", image)
    with layer_source(path=str(folder / "cells.npy")):
        viewer.add_image(image)
    widget.controls.strength.value = 0.5
    widget.more.actions["Copy as command"].trigger()
    words = shlex.split(QApplication.clipboard().text())
    assert words[0] == "napari-restore"
    assert main(words[1:]) == 0
    result = read_image(folder / "cells deblurred.npy")
    np.testing.assert_array_equal(result.data, restore(image, "deblur", strength=0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DockOptions(), []),
        (DockOptions(keep_range=True, tile=256), ["--tile", "256", "--keep-range"]),
        (DockOptions(keep_range=False), ["--no-keep-range"]),
        (DockOptions(device="cpu", model="deblur-mono"), ["--model", "deblur-mono"]),
        (DockOptions(psf="auto"), ["--psf", "auto"]),
        (
            DockOptions(psf=OpticsOf({"na": 1.4, "wavelength": ["450 nm", "520 nm"]})),
            ["--na", "1.4", "--wavelength", "450nm,520nm"],
        ),
        (
            DockOptions(psf=OpticsOf({"na": 1.0, "modality": "spinning disk"})),
            ["--modality", "spinning disk"],
        ),
    ],
)
def test_arguments_are_those_of_the_command_line(options, words):
    found = arguments_of(options, "deblur")
    assert found[0] == "deblur"
    text = "\n".join(found)
    assert "\n".join(words) in text
    try:
        args = make_parser().parse_args([*found, "in.tif", "-o", "out.tif"])
    except SystemExit:
        pytest.fail(f"the command line does not know {found}")
    assert args.strength == options.strength


def test_what_comes_from_no_file_is_refused(session, viewer, image):
    viewer.add_image(image, name="cells")
    with pytest.raises(RestoreError, match="'cells' was not opened from a file"):
        command_of(session.jobs(DockOptions()), DockOptions(), "deblur")
    deep = DockOptions(psf=OpticsOf({"na": 1.0, "unheard_of": "3 µm"}))
    with pytest.raises(RestoreError, match="no option --unheard-of"):
        arguments_of(deep, "deblur")
    beads = DockOptions(psf=BeadsIn(Image(image, name="beads")))
    with pytest.raises(RestoreError, match="'beads' was not opened"):
        arguments_of(beads, "deblur")


# ---------------------------------------------------------------- remembered


def test_dock_remembers_in_the_settings_it_was_opened_with(
    widget, settings, monkeypatch, tmp_path, qtbot
):
    # What is remembered a moment later must not reach a dock that was opened with others.
    later = Settings(tmp_path / "later.json")
    monkeypatch.setattr("napari_restore.gui.widget.known_settings", lambda: later)
    widget.controls.model.value = "deblur-color"
    qtbot.waitUntil(
        lambda: settings.last("deblur").get("model") == "deblur-color", timeout=LIMIT_MS
    )
    assert later.last("deblur") == {}


def test_settings_outlive_the_dock(widget, viewer, settings, image, qtbot):
    viewer.add_image(image)
    widget.controls.strength.value = 0.35
    widget.controls.psf.source.value = "from optics"
    widget.controls.psf.fields["na"].value = "1.2"
    widget.controls.channels.value = 0
    qtbot.waitUntil(lambda: settings.last("deblur").get("strength") == 0.35, timeout=LIMIT_MS)
    widget.remember()
    other = DeblurWidget(viewer)
    qtbot.addWidget(other)
    assert other.controls.strength.value == 0.35
    assert other.controls.psf.fields["na"].value == "1.2"
    # Which axis holds channels is another matter for each image.
    assert other.controls.channels.value == "auto"
    other.session.close()
    third = DehazeWidget(viewer)
    qtbot.addWidget(third)
    assert third.controls.strength.value == 1
    third.session.close()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"last": 3}', '{"last": {"deblur": {"strength": "x"}}}']
)
def test_damaged_settings_are_none(text, viewer, settings, qtbot):
    settings._path.write_text(text)
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.controls.strength.value == 1
    widget.session.close()


def test_presets_are_saved_taken_and_deleted(widget, settings, monkeypatch):
    monkeypatch.setattr("qtpy.QtWidgets.QInputDialog.getText", lambda *_: (" gentle ", True))
    widget.controls.strength.value = 0.3
    widget.more.ask_and_save()

    def press(*names: str) -> None:
        widget.more.fill_presets()
        menu = widget.more.presets
        for name in names:
            action = next(each for each in menu.actions() if each.text() == name)
            menu = action.menu()
        action.trigger()

    press("Defaults")
    assert widget.controls.strength.value == 1
    press("gentle")
    assert widget.controls.strength.value == 0.3
    press("Delete", "gentle")
    assert settings.presets("deblur") == {}


# ---------------------------------------------------------------- again, undo, replace


def test_again_with_the_settings_of_a_result(widget, viewer, image, predictor, qtbot):
    source = viewer.add_image(image, name="cells")
    again = widget.more.actions["Again with the settings of the result"]
    assert not again.isEnabled()
    widget.controls.strength.value = 0.5
    widget.controls.tile.value = 256
    widget.restore()
    finished(qtbot, widget.session)
    widget.controls.tile.value = "auto"
    assert again.isEnabled()
    again.trigger()
    assert (widget.controls.strength.value, widget.controls.tile.value) == (0.5, 256)
    assert viewer.layers.selection == {source}


def test_again_with_a_result_of_a_script(widget, viewer, image):
    record = {"task": "deblur", "strength": 0.25, "tile": 512, "keep_range": True}
    viewer.add_image(image, name="r", metadata={"napari_restore": record})
    widget.more.actions["Again with the settings of the result"].trigger()
    assert widget.controls.strength.value == 0.25
    assert widget.controls.keep_range.value == "of the source"
    assert "Its source is not in the viewer" in widget.status.text()


def test_undo_takes_away_what_a_run_added(widget, viewer, image, predictor, qtbot):
    source = viewer.add_image(image, name="cells")
    undo = widget.more.actions["Undo the last run"]
    assert not undo.isEnabled()
    widget.controls.hide_source.value = True
    widget.restore()
    finished(qtbot, widget.session)
    assert not source.visible
    undo.trigger()
    assert list(viewer.layers) == [source]
    assert source.visible
    assert not undo.isEnabled()


def test_an_earlier_result_is_replaced_and_comes_back(widget, viewer, image, predictor, qtbot):
    source = viewer.add_image(image, name="cells")
    widget.restore()
    finished(qtbot, widget.session)
    first = viewer.layers[-1]
    widget.controls.replace_earlier.value = True
    widget.restore()
    finished(qtbot, widget.session)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [deblurred]"]
    assert first not in viewer.layers
    widget.more.actions["Undo the last run"].trigger()
    assert list(viewer.layers) == [source, first]


# ---------------------------------------------------------------- keys, links, samples


def test_escape_cancels(widget, viewer, image, predictor, qtbot):
    viewer.add_image(np.stack([image] * 9), name="cells")
    predictor.hold()
    widget.restore()
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    key = next(key for key in viewer.keymap if str(key) == "Escape")
    viewer.keymap[key](viewer)
    predictor.free()
    finished(qtbot, widget.session)
    assert "Canceled" in widget.status.text()


def test_links_are_pages_of_the_guide(widget, viewer, image, monkeypatch):
    opened = []
    monkeypatch.setattr("qtpy.QtGui.QDesktopServices.openUrl", opened.append)
    viewer.add_image(image)
    widget.more.actions["Guide"].trigger()
    widget.more.actions["Model card"].trigger()
    pages = [url.path().removeprefix("/napari-restore/").strip("/") for url in opened]
    assert pages == ["docks/deblur", "models/deblur-mono"]
    docs = Path(__file__).parents[2] / "docs"
    for page in (*pages, *(f"models/{spec.name}" for spec in CATALOG)):
        assert (docs / f"{page}.md").is_file(), page


def test_an_empty_dock_offers_a_sample(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    assert not widget.sample_button.isHidden()
    qtbot.mouseClick(widget.sample_button, Qt.MouseButton.LeftButton)
    assert len(viewer.layers) == 1
    assert widget.sample_button.isHidden()
