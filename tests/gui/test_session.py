from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager

from napari_restore import RestoreError, restore
from napari_restore.errors import DeviceError
from napari_restore.gui.describe import blur_text, describe, title
from napari_restore.gui.layers import METADATA_KEY
from napari_restore.gui.options import DockOptions
from napari_restore.gui.session import Session
from napari_restore.models.catalog import TASKS
from napari_restore.restoration.plan import BlurEstimate
from waiting import LIMIT_MS


def wait_for(qtbot, session: Session) -> None:
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)


@pytest.fixture
def messages(session) -> list[str]:
    heard: list[str] = []
    session.runner.ended.connect(heard.append)
    return heard


def test_all_selected_images_are_restored_and_others_left_out(
    session, viewer, predictor, image, qtbot
):
    first, second = viewer.add_image(image, name="a"), viewer.add_image(image, name="b")
    labels = viewer.add_labels(np.zeros(image.shape, int), name="labels")
    viewer.layers.selection = {first, second, labels}
    session.restore(DockOptions(hide_source=True))
    wait_for(qtbot, session)
    names = [layer.name for layer in viewer.layers]
    assert names == ["a", "b", "a [deblurred]", "b [deblurred]", "labels"]
    assert not first.visible
    assert not second.visible
    assert labels.visible


def test_result_equals_the_library(session, viewer, image, qtbot):
    viewer.add_image(image, name="cells")
    session.restore(DockOptions(strength=0.4))
    wait_for(qtbot, session)
    result = viewer.layers["cells [deblurred 0.4]"]
    np.testing.assert_array_equal(result.data, restore(image, "deblur", strength=0.4))
    assert result.metadata[METADATA_KEY]["strength"] == 0.4


@pytest.mark.parametrize("lazy", [False, True])
def test_blur_is_shown_with_the_result_and_kept(
    session, viewer, predictor, image, qtbot, messages, lazy
):
    data = da.from_array(image, chunks=64) if lazy else image
    viewer.add_image(data, name="cells", scale=(0.2, 0.2), units=("um", "um"))
    session.restore(DockOptions())
    wait_for(qtbot, session)
    assert "Blur σ 1.5 px (0.3 µm)." in messages[-1]
    record = viewer.layers["cells [deblurred]"].metadata[METADATA_KEY]["blur"]
    assert record["sigma_px"] == pytest.approx(1.5, abs=0.01)
    session.preview(DockOptions())
    wait_for(qtbot, session)
    assert "Blur σ 1.5 px (0.3 µm)." in messages[-1]


@pytest.mark.parametrize(
    ("sigma", "units", "text"),
    [
        (0.3, ("pixel", "pixel"), "Blur σ 0.3 px: it was sharp already."),
        (1.25, ("nm", "nm"), "Blur σ 1.2 px (5 nm)."),
        (5.0, ("pixel", "pixel"), "Blur σ 5.0 px: as much as the models can undo, or more."),
    ],
)
def test_blur_in_words(viewer, sigma, units, text):
    layer = viewer.add_image(np.eye(20), scale=(-4, 4), units=units)
    state = layer.as_layer_data_tuple()[1]
    assert blur_text(BlurEstimate(sigma, sigma, sigma, 1).record(), state) == text


def test_progress_reaches_the_end(session, viewer, predictor, image, qtbot):
    seen = []
    session.runner.progressed.connect(seen.append)
    viewer.add_image(np.stack([image] * 4))
    session.restore(DockOptions(tile=64))
    wait_for(qtbot, session)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total == 4 * image.size


def test_cancel_leaves_the_viewer_as_it_was(session, viewer, predictor, image, qtbot, messages):
    viewer.add_image(np.stack([image] * 200))
    predictor.hold()
    session.restore(DockOptions(tile=128))
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.cancel()
    predictor.free()
    wait_for(qtbot, session)
    assert len(viewer.layers) == 1
    # Nothing after the tile that was being computed, but the one that was ready.
    assert predictor.tiles <= 2
    assert "Canceled" in messages[-1]
    # and the session is ready for the next run
    session.restore(DockOptions())
    wait_for(qtbot, session)
    assert len(viewer.layers) == 2


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("Memory ran out. Choose a smaller tile."),
        RuntimeError("CUDA error: choose a smaller tile"),
        OSError("stale handle, smaller tile"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_layer_that_fails_does_not_take_the_others(
    error, session, viewer, predictor, image, qtbot, monkeypatch, messages
):
    from napari_restore.gui import work as module

    real = module.restore_job

    def fail(job, facts):
        if job.name == "bad":
            raise error
        return real(job, facts)

    monkeypatch.setattr(module, "restore_job", fail)
    shown = []
    monkeypatch.setattr(
        notification_manager, "dispatch", lambda notification: shown.append(notification.message)
    )
    layers = {viewer.add_image(image, name="bad"), viewer.add_image(image, name="good")}
    viewer.layers.selection = layers
    session.restore(DockOptions())
    wait_for(qtbot, session)
    assert [layer.name for layer in viewer.layers] == ["bad", "good", "good [deblurred]"]
    assert "smaller tile" in shown[0]
    assert "'bad' was not restored" in messages[-1]


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError])
@pytest.mark.parametrize("what", ["restore", "preview"])
def test_a_bug_is_shown_and_frees_the_session(
    kind, what, session, viewer, predictor, image, qtbot, messages, monkeypatch
):
    shown = []
    monkeypatch.setattr(notification_manager, "dispatch", shown.append)
    predictor.error = kind("a bug")
    viewer.add_image(image)
    getattr(session, what)(DockOptions())
    wait_for(qtbot, session)
    assert "a bug" in messages[-1]
    assert type(shown[0].exception) is kind
    assert len(viewer.layers) == 1


def test_canceled_preview_frees_the_session(session, viewer, predictor, image, qtbot, messages):
    predictor.hold()
    viewer.add_image(image)
    session.preview(DockOptions(tile=16))
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.cancel()
    predictor.free()
    wait_for(qtbot, session)
    assert "Canceled" in messages[-1]
    assert len(viewer.layers) == 1


def test_data_replaced_in_the_middle_is_not_restored(session, viewer, predictor, image, qtbot):
    predictor.hold()
    layer = viewer.add_image(np.stack([image] * 5), name="x", scale=(3, 1, 1))
    session.restore(DockOptions())
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    layer.data = np.zeros((2, 7, 9))
    predictor.free()
    wait_for(qtbot, session)
    result = viewer.layers["x [deblurred]"]
    assert result.data.shape == (5, *image.shape)
    assert result.scale[0] == 3


def test_an_abandoned_run_does_not_end_the_next(session, viewer, predictor, image, qtbot, messages):
    predictor.hold()
    viewer.add_image(np.stack([image] * 6), name="x")
    first = session.restore(DockOptions())
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.abandon()
    second = session.restore(DockOptions())
    assert first is not session.runner.worker is second
    predictor.free()
    qtbot.waitUntil(lambda: not first.is_running, timeout=LIMIT_MS)
    wait_for(qtbot, session)
    assert [layer.name for layer in viewer.layers] == ["x", "x [deblurred]"]
    assert len(messages) == 1


def test_source_deleted_in_the_middle(session, viewer, predictor, image, qtbot):
    predictor.hold()
    layer = viewer.add_image(np.stack([image] * 5), name="gone")
    session.restore(DockOptions())
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    viewer.layers.remove(layer)
    predictor.free()
    wait_for(qtbot, session)
    assert [layer.name for layer in viewer.layers] == ["gone [deblurred]"]


def test_closing_in_the_middle_adds_nothing(viewer, predictor, image, qtbot, qapp):
    session = Session(viewer, "deblur")
    predictor.hold()
    viewer.add_image(np.stack([image] * 5))
    worker = session.restore(DockOptions())
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.close()
    predictor.free()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=LIMIT_MS)
    qapp.processEvents()
    assert len(viewer.layers) == 1


def test_second_run_is_refused_while_one_is_going(session, viewer, predictor, image, qtbot):
    predictor.hold()
    viewer.add_image(image)
    session.restore(DockOptions())
    with pytest.raises(RestoreError, match="Cancel"):
        session.preview(DockOptions())
    predictor.free()
    wait_for(qtbot, session)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(None, "Select one"), (Labels(np.zeros((4, 4), int), name="nuclei"), "nuclei.*Image layer")],
)
def test_nothing_to_restore_is_said(session, viewer, layer, message):
    if layer is not None:
        viewer.add_layer(layer)
    with pytest.raises(RestoreError, match=message):
        session.restore(DockOptions())


def test_unfit_model_names_the_layer(session, viewer, image):
    viewer.add_image(image, name="cells")
    with pytest.raises(RestoreError, match=r"'cells'.*deblur-color.*3 channels.*mono"):
        session.jobs(DockOptions(model="deblur-color"))


def test_description_says_what_will_be_done(session, viewer):
    viewer.add_image(np.zeros((12, 2048, 2048), np.uint8), name="stack")
    text = words(session, DockOptions(device="cpu"))
    for part in ("deblur-mono", "12 × 2048 × 2048", "CPU", "about"):
        assert part in text
    viewer.add_image(np.zeros((30, 40, 3), np.uint8), name="photo", rgb=True)
    viewer.layers.select_all()
    assert title(session.jobs(DockOptions())) == "2 layers"
    assert "deblur-color and deblur-mono" in words(session, DockOptions(device="cpu"))


def words(session, options) -> str:
    return describe(session.jobs(options), session.rates).replace("\N{NO-BREAK SPACE}", " ")


def test_estimate_knows_that_small_tiles_are_slower(session, viewer):
    viewer.add_image(np.zeros((4096, 4096), np.uint8))
    few, many = (session.jobs(DockOptions(device="cpu", tile=tile))[0] for tile in (2048, 128))
    assert session.rates.seconds(many) > 2 * session.rates.seconds(few)


def test_rename_and_new_data_are_noticed(session, viewer, image):
    layer = viewer.add_image(image, name="x")
    heard = []
    session.changed.connect(lambda: heard.append(1))
    layer.name = "y"
    layer.data = image[:50]
    assert len(heard) >= 2


# ---------------------------------------------------------------- preview


def preview_of(viewer) -> Image:
    return next(layer for layer in viewer.layers if "[preview]" in layer.name)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rgb", [False, True])
def test_preview_equals_that_region_of_the_full_run(viewer, qtbot, task, rgb):
    shape = (3, 150, 170, 3) if rgb else (3, 150, 170)
    data = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    session = Session(viewer, task)
    layer = viewer.add_image(data, rgb=rgb, name="x")
    viewer.dims.set_current_step(0, 2)
    layer.corner_pixels = np.array([[0, 21, 33], [0, 99, 120]])
    session.preview(DockOptions())
    wait_for(qtbot, session)
    preview = preview_of(viewer)
    expected = data.copy()
    expected[2, 21:100, 33:121] = restore(data, task, rgb=rgb)[2, 21:100, 33:121]
    assert np.abs(preview.data.astype(int) - expected).max() <= 2
    assert session.sources() == [layer]
    session.close()
    assert len(viewer.layers) == 1


def test_preview_gives_way_to_the_next_and_to_the_result(session, viewer, predictor, image, qtbot):
    viewer.add_image(image, name="cells")
    for _ in range(2):
        session.preview(DockOptions())
        wait_for(qtbot, session)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [preview]"]
    session.restore(DockOptions())
    wait_for(qtbot, session)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [deblurred]"]


def test_preview_goes_when_its_source_moves(session, viewer, predictor, image, qtbot):
    layer = viewer.add_image(image, name="cells")
    session.preview(DockOptions())
    wait_for(qtbot, session)
    layer.translate = (5, 5)
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_a_preview_stands_for_its_source_in_every_dock(session, viewer, predictor, image, qtbot):
    source = viewer.add_image(image, name="cells")
    session.preview(DockOptions())
    wait_for(qtbot, session)
    assert viewer.layers.selection == {preview_of(viewer)}
    other = Session(viewer, "dehaze")
    assert [job.layer for job in other.jobs(DockOptions())] == [source]
    other.preview(DockOptions())
    wait_for(qtbot, other)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [preview]"]
    other.close()
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert source.visible


def test_preview_goes_with_its_source(session, viewer, predictor, image, qtbot):
    viewer.add_image(image, name="cells")
    session.preview(DockOptions())
    wait_for(qtbot, session)
    viewer.layers.remove("cells")
    assert len(viewer.layers) == 0


def test_preview_of_one_layer_in_a_deeper_viewer(session, viewer, predictor, image, qtbot):
    viewer.add_image(np.zeros((4, 6, 96, 120)), name="deep")
    flat = viewer.add_image(image, name="flat")
    viewer.layers.selection = {flat}
    session.preview(DockOptions())
    wait_for(qtbot, session)
    assert preview_of(viewer).data.shape == image.shape
