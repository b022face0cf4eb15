from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_restore.gui.models import ModelsWidget
from napari_restore.gui.options import DOCKS
from napari_restore.gui.train import TrainWidget
from napari_restore.gui.widget import DeblurWidget, DehazeWidget, DenoiseWidget, MotionDeblurWidget
from waiting import LIMIT_MS

WIDGETS = {
    "Deblur": DeblurWidget,
    "Dehaze": DehazeWidget,
    "Motion deblur": MotionDeblurWidget,
    "Denoise": DenoiseWidget,
}


@pytest.fixture(params=WIDGETS.values(), ids=WIDGETS.keys())
def widget(request, viewer, qtbot):
    widget = request.param(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.session.close()


def finished(qtbot, widget) -> None:
    qtbot.waitUntil(lambda: not widget.session.running, timeout=LIMIT_MS)


def test_dock_says_what_to_do_before_anything_is_selected(widget, qtbot):
    qtbot.waitUntil(lambda: "Select" in widget.summary.text(), timeout=LIMIT_MS)
    assert not widget.restore_button.isEnabled()
    assert not widget.preview_button.isEnabled()
    assert not widget.cancel_button.isEnabled()


def test_buttons_restore_preview_and_cancel(widget, viewer, predictor, image, qtbot):
    viewer.add_image(np.stack([image] * 50), name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    assert widget.name.text() == "cells"
    assert "50 × 96 × 120" in widget.summary.text().replace("\N{NO-BREAK SPACE}", " ")
    qtbot.mouseClick(widget.preview_button, Qt.MouseButton.LeftButton)
    finished(qtbot, widget)
    assert viewer.layers[-1].name == "cells [preview]"
    predictor.hold()
    qtbot.mouseClick(widget.restore_button, Qt.MouseButton.LeftButton)
    assert widget.cancel_button.isEnabled()
    assert not widget.restore_button.isEnabled()
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    qtbot.mouseClick(widget.cancel_button, Qt.MouseButton.LeftButton)
    predictor.free()
    finished(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert "Canceled" in widget.status.text()
    qtbot.mouseClick(widget.restore_button, Qt.MouseButton.LeftButton)
    finished(qtbot, widget)
    assert len(viewer.layers) == 2
    assert "cells [" in widget.status.text()
    assert widget.restore_button.isEnabled()


def test_controls_reach_the_result(widget, viewer, predictor, image, qtbot):
    viewer.add_image(image, name="cells")
    widget.controls.strength.value = 0.0
    widget.controls.tile.value = 128
    qtbot.waitUntil(lambda: "cpu" in widget.controls.device.choices, timeout=LIMIT_MS)
    widget.controls.device.value = "cpu"
    widget.controls.hide_source.value = True
    widget.restore()
    finished(qtbot, widget)
    source, result = viewer.layers
    np.testing.assert_array_equal(result.data, image)
    record = result.metadata["napari_restore"]
    assert (record["strength"], record["tile"], record["device"]) == (0.0, 128, "cpu")
    assert not source.visible


def test_summary_follows_the_layer(widget, viewer, image, qtbot):
    qtbot.waitUntil(lambda: "Select" in widget.summary.text(), timeout=LIMIT_MS)
    layer = viewer.add_image(image, name="old")
    layer.name = "new"
    assert widget.name.text() == "new"
    layer.data = np.zeros((33, 44))
    assert "33" in widget.summary.text()


def test_only_models_of_the_task_are_offered(widget):
    task = widget.face.task.split("_")[0]
    assert widget.controls.model.choices[0] == "auto"
    assert len(widget.controls.model.choices) >= 3
    assert all(name.startswith(task) for name in widget.controls.model.choices[1:])


def test_unfit_model_is_said_before_the_run(widget, viewer, image, monkeypatch, qtbot):
    viewer.add_image(image, name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    color = next(name for name in widget.controls.model.choices if name.endswith("color"))
    widget.controls.model.value = color
    assert "3 channels" in widget.summary.text()
    assert not widget.restore_button.isEnabled()
    shown = []
    monkeypatch.setattr("napari_restore.gui.widget.show_error", shown.append)
    assert widget.restore() is None
    assert "mono" in shown[0]


# ---------------------------------------------------------------- in a real napari


def test_docks_open_from_the_manifest_and_close_in_a_run(
    make_napari_viewer, predictor, image, qtbot, qapp
):
    viewer = make_napari_viewer()
    for name in WIDGETS:
        open_and_close(name, viewer, predictor, image, qtbot, qapp)
        # The viewer goes on without the dock.
        viewer.layers.clear()


def open_and_close(name, viewer, predictor, image, qtbot, qapp) -> None:
    dock, widget = viewer.window.add_plugin_dock_widget("napari-restore", name)
    assert isinstance(widget, WIDGETS[name])
    viewer.add_image(image, name="cells")
    widget.restore()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=LIMIT_MS)
    before = predictor.tiles
    predictor.hold()
    long = viewer.add_image(np.stack([image] * 20), name="long")
    viewer.layers.selection = {long}
    worker = widget.restore()
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    predictor.free()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=LIMIT_MS)
    qapp.processEvents()
    assert len(viewer.layers) == 3
    assert predictor.tiles <= before + 2


def test_last_word_of_a_run_stays_in_a_real_window(
    make_napari_viewer, predictor, image, qtbot, qapp
):
    # napari's progress bar processes events, so the end of a run may come within a step.
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    viewer.add_image(np.stack([image] * 60), name="cells")
    shares = []
    widget.session.runner.progressed.connect(lambda step: shares.append(step.done))
    for cancel in (False, True):
        if cancel:
            predictor.hold(after=20)
        widget.restore()
        if cancel:
            qtbot.waitUntil(lambda: bool(shares), timeout=LIMIT_MS)
            widget.cancel()
            predictor.free()
        finished(qtbot, widget)
        qapp.processEvents()
        assert ("Canceled" if cancel else "cells [deblurred]") in widget.status.text()
        assert shares == sorted(shares)
        shares.clear()
        assert not widget.progress_bar.isVisible()


def test_preview_follows_the_canvas(make_napari_viewer, predictor, qtbot):
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    data = np.random.default_rng(0).integers(0, 255, (600, 800), dtype=np.uint8)
    layer = viewer.add_image(data, scale=(0.5, 0.5), name="Image")
    # Its place before napari 0.9, and since.
    camera = getattr(viewer, "scene", viewer).camera
    camera.center, camera.zoom = (0, 150, 200), 12
    # When it is drawn.
    qtbot.waitUntil(lambda: 0 < np.ptp(layer.corner_pixels, axis=0).max() < 400, timeout=LIMIT_MS)
    widget.preview()
    finished(qtbot, widget)
    (top, left), (bottom, right) = viewer.layers[-1]._overlays["selection_box"].bounds
    assert 10 < bottom - top < 300
    assert 10 < right - left < 400
    assert top <= 300 <= bottom
    assert left <= 400 <= right


def test_legacy_hook_offers_the_same_docks():
    from napari_plugin_engine import PluginManager

    from napari_restore import _npe1

    manager = PluginManager("napari", discover_entry_point="")
    manager.register(_npe1, "napari-restore")
    offered = _npe1.napari_experimental_provide_dock_widget()
    assert {options["name"]: cls for cls, options in offered} == {
        **WIDGETS,
        "Train a model": TrainWidget,
        "Model library": ModelsWidget,
    }
    assert [face.title for face in DOCKS] == list(WIDGETS)


def test_size_of_structures_is_as_fine_as_a_pixel(viewer, image, qtbot):
    widget = DehazeWidget(viewer)
    qtbot.addWidget(widget)
    size = widget.controls.structure_size.native
    try:
        viewer.add_image(image, name="plain")
        widget.refresh()
        size.setValue(30)
        assert size.text() == "30 px"
        viewer.add_image(image, name="measured", scale=(0.108, 0.108), units=("um", "um"))
        viewer.layers.selection = {viewer.layers["measured"]}
        widget.refresh()
        size.setValue(2.2)
        assert size.text() == "2.2 µm"
        viewer.layers.selection = {viewer.layers["plain"]}
        widget.refresh()
        assert size.value() == 2.2
    finally:
        widget.session.close()


# ---------------------------------------------------------------- what is said


def test_names_are_no_html(widget, viewer, predictor, image, qtbot):
    name = "<b>DAPI</b> & <i>GFP</i>"
    viewer.add_image(image, name=name)
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    widget.restore()
    finished(qtbot, widget)
    assert name in widget.status.text()
    for label in (widget.name, widget.summary, widget.status):
        assert label.textFormat() == Qt.TextFormat.PlainText


def test_a_refusal_stays_in_the_dock(widget, viewer, image, qtbot, monkeypatch):
    monkeypatch.setattr("napari_restore.gui.widget.show_error", lambda text: None)
    viewer.add_image(np.stack([image] * 3), name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    viewer.dims.ndisplay = 3
    assert widget.preview() is None
    assert "needs the 2D view" in widget.status.text()
    assert not widget.status.isHidden()


def test_a_run_shows_its_target_and_cancel_answers_at_once(widget, viewer, predictor, image, qtbot):
    viewer.add_image(np.stack([image] * 3), name="target")
    other = viewer.add_image(image, name="other")
    viewer.layers.selection = {viewer.layers["target"]}
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    said = widget.summary.text()
    predictor.hold()
    widget.restore()
    viewer.layers.selection = {other}
    assert (widget.name.text(), widget.summary.text()) == ("target", said)
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    widget.cancel()
    assert "Canceling" in widget.status.text()
    # Though the network goes on with its tile: nobody lets it.
    finished(qtbot, widget)
    assert "Canceled" in widget.status.text()
    assert widget.name.text() == "other"


def test_the_bar_is_never_a_busy_indicator(widget, viewer, predictor, image, qtbot):
    viewer.add_image(image, name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    predictor.hold()
    widget.restore()
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    assert (widget.progress_bar.minimum(), widget.progress_bar.maximum()) == (0, 1000)
    predictor.free()
    finished(qtbot, widget)


def test_the_range_of_the_source_is_kept_and_said(viewer, predictor, image, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(image.astype(np.int16), name="scan")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    control = widget.controls.keep_range
    for value, largest in (("auto", image.max()), ("free", None), ("of the source", image.max())):
        control.value = value
        widget.restore()
        finished(qtbot, widget)
        assert ("were held between" in widget.status.text()) == (largest is not None)
        found = viewer.layers.selection.active.data.max()
        assert found == largest if largest else found > image.max()
    widget.session.close()


def test_three_docks_fit_a_small_screen(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    for name in WIDGETS:
        _, widget = viewer.window.add_plugin_dock_widget("napari-restore", name)
        widget.show_advanced(True)
    window = viewer.window._qt_window
    window.resize(1280, 720)
    assert window.minimumSizeHint().height() <= 720
    assert window.minimumSizeHint().width() <= 1280


def test_menu_paths_in_the_documentation_are_those_of_napari(make_napari_viewer):
    viewer = make_napari_viewer()

    def paths(menu, before=()):
        for action in menu.actions():
            # As one says it: "Deblur", not "Deblur (Restore)".
            said = re.sub(r"&|\.\.\.| \(Restore\)", "", action.text())
            path = (*before, said)
            yield path
            if action.menu() is not None:
                yield from paths(action.menu(), path)

    there = set(paths(viewer.window._qt_window.menuBar()))
    root = Path(__file__).parents[2]
    named = set()
    for file in (root / "README.md", root / "sample_data/README.md", *root.glob("docs/**/*.md")):
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
        named |= set(re.findall(r"[`*]([\w ]+(?: ▸ [\w, ]+)+)[`*]", text))
    assert named
    assert [path for path in named if tuple(path.split(" ▸ ")) not in there] == []
