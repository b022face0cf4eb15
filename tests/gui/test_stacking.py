"""What the canvas shows after a run: the newest on top, nothing mixed with what lies beneath."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_restore.gui.options import DockOptions
from napari_restore.gui.session import Session
from waiting import LIMIT_MS


@pytest.fixture
def run(session, predictor, qtbot):
    """Restore or preview, and say what the dock says."""
    said: list[str] = []
    session.runner.ended.connect(said.append)

    def run(what="restore", of=session, **options) -> str:
        getattr(of, what)(DockOptions(**options))
        qtbot.waitUntil(lambda: not of.running, timeout=LIMIT_MS)
        return said[-1]

    return run


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def preview_of(viewer):
    return next(layer for layer in viewer.layers if layer.name.endswith("[preview]"))


def test_the_newest_result_is_on_top_and_selected(viewer, image, run):
    below = viewer.add_image(image, name="below")
    viewer.add_image(image, name="above")
    viewer.add_labels(np.zeros(image.shape, int), name="labels")
    viewer.layers.selection = {below}
    said = run()
    expected = ["below", "above", "below [deblurred]"]
    assert names(viewer) == [*expected, "labels"]
    assert "'below [deblurred]' in" in said
    for strength, name in ((0.5, "below [deblurred 0.5]"), (1.0, None), (1.0, None)):
        said = run(strength=strength)
        newest = viewer.layers[-2]
        assert viewer.layers.selection == {newest}
        assert viewer.layers.selection.active is newest
        assert newest.visible
        assert f"'{newest.name}' in" in said
        assert name in (None, newest.name)
        assert newest.name not in expected
        assert newest.metadata["napari_restore"]["source"] == "below"
        expected.append(newest.name)
    assert names(viewer) == [*expected, "labels"]
    assert below.visible


def test_the_newest_preview_is_on_top(viewer, image, run):
    source = viewer.add_image(image, name="cells")
    run()
    viewer.layers.selection = {source}
    for _ in range(2):
        said = run("preview")
        assert names(viewer) == ["cells", "cells [deblurred]", "cells [preview]"]
        assert "'cells'" in said


def test_results_of_one_dock_are_the_sources_of_another(viewer, image, run):
    source = viewer.add_image(image, name="cells")
    run()
    result = viewer.layers["cells [deblurred]"]
    for task, meant in (("deblur", source), ("dehaze", result)):
        other = Session(viewer, task)
        assert other.sources() == [meant]
        other.close()
    viewer.layers.remove(source)
    other = Session(viewer, "deblur")
    assert other.sources() == [result]
    other.close()


@pytest.mark.parametrize("what", ["additive", "minimum", "translucent"])
def test_nothing_is_added_to_what_lies_beneath(viewer, image, run, what):
    looks = {"opacity": 0.6} if what == "translucent" else {}
    source = viewer.add_image(image, name="DAPI", blending=what, **looks)
    other = viewer.add_image(image, name="GFP", blending="additive")
    viewer.layers.selection = {source}
    said = run()
    result = viewer.layers["DAPI [deblurred]"]
    assert (result.blending, result.visible, source.visible) == (what, True, False)
    assert other.visible
    assert "'DAPI' was hidden" in said
    said = run(strength=0.5)
    assert not result.visible
    assert viewer.layers["DAPI [deblurred 0.5]"].visible
    assert "'DAPI [deblurred]' was hidden" in said


def test_what_covers_its_source_hides_nothing(viewer, image, run):
    source = viewer.add_image(image, name="cells")
    assert "hidden" not in run()
    assert source.visible


@pytest.mark.parametrize("form", ["memory", "large", "lazy", "multiscale", "rgb"])
def test_a_preview_is_the_image_with_the_region_exchanged(
    viewer, image, run, form, qtbot, monkeypatch
):
    if form == "large":
        monkeypatch.setattr("napari_restore.gui.preview._COPIED", 0)
    stack = np.stack([image, image, image])
    data = {
        "lazy": da.from_array(stack, chunks=(1, 50, 50)),
        "multiscale": [stack, stack[:, ::2, ::2], stack[:, ::4, ::4]],
        "rgb": np.stack([stack.astype(np.uint8)] * 3, -1),
    }.get(form, stack)
    place = {"scale": (3, 0.5, 0.5), "translate": (1, 2, 3), "units": ("um",) * 3}
    source = viewer.add_image(data, name="cells", blending="additive", **place)
    viewer.dims.set_current_step(0, 1)
    factors = source.downsample_factors[source.data_level] if source.multiscale else np.ones(3)
    corners = np.array([[0, 16, 32], [0, 64, 80]]) // factors.astype(int)
    source.corner_pixels = corners - [[0, 0, 0], [0, 1, 1]]
    run("preview")
    assert names(viewer) == ["cells", "cells [preview]"]
    preview = preview_of(viewer)
    box = preview._overlays["selection_box"]
    assert not source.visible
    assert (preview.blending, preview.multiscale) == ("additive", form == "multiscale")
    for name in ("scale", "translate"):
        np.testing.assert_array_equal(getattr(preview, name), getattr(source, name))
    factor = 1
    for there, here in zip(
        source.data if preview.multiscale else [source.data],
        preview.data if preview.multiscale else [preview.data],
        strict=True,
    ):
        changed = np.asarray(here) != np.asarray(there)
        bounds = (slice(16 // factor, 64 // factor), slice(32 // factor, 80 // factor))
        assert changed[(1, *bounds)].any()
        changed[(1, *bounds)] = False
        assert not changed.any()
        factor *= 2
    assert box.visible
    # It is in pixels of the level that is drawn.
    drawn = 2**preview.data_level if preview.multiscale else 1
    expected = [[side / drawn - 0.5 for side in sides] for sides in ((16, 32), (64, 80))]
    np.testing.assert_allclose(box.bounds, expected)
    if preview.multiscale:
        preview.data_level = 1
        preview.corner_pixels = np.array([[0, 4, 10], [0, 40, 50]])
        preview.refresh()
        np.testing.assert_allclose(box.bounds, [[3.5, 5.5], [27.5, 29.5]])
    viewer.dims.set_current_step(0, 2)
    assert not box.visible
    viewer.dims.set_current_step(0, 1)
    assert box.visible
    # Off and on is before and after.
    preview.visible = False
    assert source.visible
    preview.visible = True
    assert not source.visible
    viewer.layers.remove(preview)
    assert names(viewer) == ["cells"]
    assert source.visible
    assert viewer.layers.selection == {source}


def test_a_canceled_run_leaves_the_source_selected_after_a_preview(
    session, viewer, image, run, predictor, qtbot
):
    source = viewer.add_image(np.stack([image] * 50), name="cells")
    run("preview")
    predictor.hold()
    session.restore(DockOptions())
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.cancel()
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    assert names(viewer) == ["cells"]
    assert viewer.layers.selection == {source}
    assert source.visible
