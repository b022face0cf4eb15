from __future__ import annotations

import threading
from unittest.mock import MagicMock

import dask.array as da
import numpy as np
import pytest

from napari_restore import PSF, RestoreError, restore
from napari_restore.gui.canvas import camera_of
from napari_restore.gui.options import DockOptions
from napari_restore.gui.patches import BLOCK, Patched, Patches, first_of, rectangles, seen
from napari_restore.gui.widget import DeblurWidget
from napari_restore.image.layout import Region
from napari_restore.physics.psf import gaussian
from napari_restore.restoration import run
from napari_restore.restoration.plan import Blur
from waiting import LIMIT, LIMIT_MS

SIZE = (300, 400)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 20000, SIZE, dtype=np.uint16)


def see(layer, top, left, bottom, right) -> None:
    """Say what a canvas would show."""
    corners = np.zeros((2, layer.ndim), int)
    corners[:, -2:] = (top, left), (bottom - 1, right - 1)
    layer.corner_pixels = corners


def at_rest(qtbot, live) -> None:
    qtbot.waitUntil(lambda: not live.busy, timeout=LIMIT_MS)


def test_what_is_seen_is_restored_as_one_moves(session, viewer, noise, predictor, qtbot):
    layer = viewer.add_image(noise, name="cells")
    see(layer, 70, 70, 120, 190)
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    shown = session.live.shown.layer
    whole = restore(noise, "deblur")

    def restored() -> np.ndarray:
        return np.abs(np.asarray(shown.data).astype(int) - noise) > 0

    assert not layer.visible
    np.testing.assert_allclose(np.asarray(shown.data)[64:128, 64:192], whole[64:128, 64:192], 1, 2)
    assert not restored()[:, 192:].any()
    before = predictor.tiles
    see(shown, 70, 134, 120, 254)
    session.live.soon()
    at_rest(qtbot, session.live)
    assert restored()[64:128, 192:254].any()
    # Back again: all of it is known.
    more = predictor.tiles
    assert more > before
    see(shown, 70, 70, 120, 190)
    session.live.soon()
    at_rest(qtbot, session.live)
    assert predictor.tiles == more
    session.live.stop()
    assert list(viewer.layers) == [layer]
    assert layer.visible


def test_options_restore_anew_and_those_before_are_kept(session, viewer, noise, predictor, qtbot):
    viewer.add_image(noise.astype(np.int16), name="ct")
    options = [DockOptions()]
    session.go_live(lambda: options[-1])
    at_rest(qtbot, session.live)
    kept = np.asarray(session.live.shown.layer.data)
    options.append(DockOptions(keep_range=False))
    session.live.soon()
    at_rest(qtbot, session.live)
    free, tiles = np.asarray(session.live.shown.layer.data), predictor.tiles
    assert free.max() > kept.max()
    options.append(DockOptions())
    session.live.soon()
    at_rest(qtbot, session.live)
    assert predictor.tiles == tiles
    np.testing.assert_array_equal(session.live.shown.layer.data, kept)


def test_strength_needs_no_network(session, viewer, noise, predictor, qtbot):
    viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    for strength in (0.0, 0.5):
        tiles = predictor.tiles
        session.set_strength(strength)
        assert predictor.tiles == tiles
        expected = restore(noise, "deblur", strength=strength).astype(int)
        found = np.asarray(session.live.shown.layer.data).astype(int)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("found", [True, False])
def test_something_is_seen_while_the_blur_is_found(
    found, session, viewer, noise, predictor, qtbot, monkeypatch
):
    asked, told = threading.Event(), threading.Event()
    psf = PSF(gaussian(1.5), "gaussian") if found else None

    def find(*_):
        asked.set()
        assert told.wait(LIMIT)
        return (Blur(psf, 0.01, "defocus" if found else "none", "It says so."),)

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_blurs", find)
    ranges = MagicMock(wraps=run.scales_of)
    monkeypatch.setattr(run, "scales_of", ranges)
    # It is told no blur.
    monkeypatch.setattr(
        "napari_restore.inference.predictor.find_predictor", lambda *_, **__: predictor
    )
    said = []
    session.live.said.connect(said.append)
    viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    qtbot.waitUntil(asked.is_set, timeout=LIMIT_MS)
    qtbot.waitUntil(lambda: not session.live.runner.running, timeout=LIMIT_MS)
    shown, tiles = session.live.shown.layer, predictor.tiles
    before = np.asarray(shown.data)
    assert (before != noise).mean() > 0.9
    assert "as yet without a point spread function" in said[-1]
    predictor.hold()
    told.set()
    if found:
        qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
        # What is seen stays until it is restored anew.
        np.testing.assert_array_equal(shown.data, before)
    predictor.free()
    at_rest(qtbot, session.live)
    assert (predictor.tiles > tiles) == found
    assert said[-1] == "Live preview. It says so."
    assert ranges.call_count == 1
    session.live.stop()
    assert not session.live.busy


def test_no_speed_is_learned_while_the_blur_is_found(
    session, viewer, noise, predictor, qtbot, monkeypatch
):
    asked, told, learned = threading.Event(), threading.Event(), []

    def find(*_):
        asked.set()
        assert told.wait(LIMIT)
        return ()

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_blurs", find)
    monkeypatch.setattr(session.rates, "learn", lambda *_: learned.append(1))
    layer = viewer.add_image(noise, name="cells")
    see(layer, 0, 0, 64, 64)
    session.go_live(DockOptions)
    qtbot.waitUntil(asked.is_set, timeout=LIMIT_MS)
    assert len(learned) == 1
    tiles = predictor.tiles
    see(session.live.shown.layer, 100, 200, 164, 264)
    session.live.soon()
    qtbot.waitUntil(lambda: predictor.tiles > tiles, timeout=LIMIT_MS)
    qtbot.waitUntil(lambda: not session.live.runner.running, timeout=LIMIT_MS)
    told.set()
    at_rest(qtbot, session.live)
    assert len(learned) == 1


def test_a_search_that_fails_is_told(session, viewer, noise, predictor, qtbot, monkeypatch):
    def find(*_):
        raise RestoreError("There is no blur.")

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_blurs", find)
    said = []
    session.live.said.connect(said.append)
    viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    qtbot.waitUntil(lambda: not session.live.on, timeout=LIMIT_MS)
    assert said[-1] == "No live preview: There is no blur."


def test_another_layer_takes_its_place(session, viewer, noise, predictor, qtbot, monkeypatch):
    searched = []

    def find(planes, *_):
        searched.append(planes.array)
        return (Blur(PSF(gaussian(1.5), "gaussian"), 0.01, "defocus", "It says so."),)

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_blurs", find)
    monkeypatch.setattr(
        "napari_restore.inference.predictor.find_predictor", lambda *_, **__: predictor
    )
    first = viewer.add_image(noise, name="first")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    second = viewer.add_image(noise[::-1], name="second")
    session.live.soon()
    at_rest(qtbot, session.live)
    assert session.live.on
    shown = session.live.shown
    assert shown.source is second
    assert list(viewer.layers) == [first, second, shown.layer]
    assert [layer.visible for layer in viewer.layers] == [True, False, True]
    # What was found of the first is known still.
    tiles = predictor.tiles
    viewer.layers.selection = {first}
    session.live.soon()
    at_rest(qtbot, session.live)
    assert session.live.shown.source is first
    assert [array is noise for array in searched] == [True, False]
    assert predictor.tiles == tiles
    session.live.stop()
    assert list(viewer.layers) == [first, second]
    assert first.visible
    assert second.visible


def test_another_image_is_restored_anew(session, viewer, noise, predictor, qtbot):
    """Also where it has the place in memory of one before."""
    layer = viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    noise[...] = noise[::-1].copy()
    layer.data = noise
    tiles = predictor.tiles
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    assert predictor.tiles > tiles


def test_what_is_said_is_true_when_the_view_is_back(session, viewer, noise, predictor, qtbot):
    said = []
    session.live.said.connect(said.append)
    viewer.add_image(np.stack([noise] * 2), name="stack")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    for ndisplay in (3, 2):
        viewer.dims.ndisplay = ndisplay
        at_rest(qtbot, session.live)
    assert "needs the 2D view" in said[-2]
    assert said[-1] == "Live preview."


def test_a_view_that_is_gone_is_given_up(session, viewer, predictor, noise, qtbot):
    stack = viewer.add_image(np.stack([noise] * 3), name="stack")
    viewer.dims.set_current_step(0, 0)
    predictor.hold()
    session.go_live(DockOptions)
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    first = session.live.runner.worker
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(lambda: session.live.runner.worker is not first, timeout=LIMIT_MS)
    predictor.free()
    at_rest(qtbot, session.live)
    changed = np.asarray(session.live.shown.layer.data) != stack.data
    assert [plane.any() for plane in changed] == [False, False, True]


def test_labels_are_painted_meanwhile(session, viewer, noise, predictor, qtbot):
    viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    shown = session.live.shown
    labels = viewer.add_labels(np.zeros(SIZE, int))
    viewer.layers.selection = {labels}
    labels.paint((5, 5), 1)
    session.live.soon()
    at_rest(qtbot, session.live)
    assert session.live.shown is shown
    assert viewer.layers.selection == {labels}


@pytest.mark.parametrize("what", ["restore", "preview", "layer", "source", "data"])
def test_it_ends_with_what_replaces_it(what, session, viewer, noise, predictor, qtbot):
    layer = viewer.add_image(noise, name="cells")
    session.go_live(DockOptions)
    at_rest(qtbot, session.live)
    if what in ("restore", "preview"):
        getattr(session, what)(DockOptions())
        qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    elif what == "data":
        layer.data = noise + 1
    else:
        viewer.layers.remove(layer if what == "source" else session.live.shown.layer)
    assert not session.live.on
    assert session.live.shown is None


def test_the_box_switches_it_and_says_what_is_seen(viewer, predictor, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(np.random.default_rng(0).random((40, 1400), np.float32), name="wide")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    widget.controls.device.value = "cpu"
    widget.live_box.click()
    at_rest(qtbot, widget.session.live)
    assert widget.status.text() == "Live preview of the middle of the view."
    camera_of(viewer).zoom *= 2
    at_rest(qtbot, widget.session.live)
    widget.restore()
    assert not widget.live_box.isChecked()
    qtbot.waitUntil(lambda: not widget.session.running, timeout=LIMIT_MS)
    widget.session.close()


def test_the_box_follows_a_script(viewer, predictor, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(np.random.default_rng(0).random((40, 40), np.float32))
    live = widget.session.live
    switched = []
    live.switched.connect(switched.append)
    widget.session.go_live(lambda: widget.options)
    at_rest(qtbot, live)
    assert widget.live_box.isChecked()
    live.stop()
    assert not widget.live_box.isChecked()
    assert switched == [True, False]
    widget.session.close()


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("color", [(), (3,)])
def test_an_image_with_patches_is_read_in_any_part(lazy, color):
    data = np.random.default_rng(0).integers(0, 99, (3, 150, 170, *color), dtype=np.uint8)
    patches, region = Patches(), Region(64, 64, 150, 170)
    patches.add((1,), region, data[1, 64:, 64:], data[1, 64:, 64:] + 100)
    expected = data.copy()
    expected[1, 64:, 64:] += 100
    image = Patched(da.from_array(data, chunks=64) if lazy else data, patches, 1, 1)
    np.testing.assert_array_equal(image, expected)
    for key in (
        (1,),
        (2,),
        (1, slice(70, 90), slice(60, 160)),
        (slice(0, 2), slice(100, 101)),
        (..., slice(5, 99), slice(None), *(slice(None) for _ in color)),
        (1, 70, 80),
        (slice(None, None, 2), slice(None, None, 3)),
        (-2,),
    ):
        np.testing.assert_array_equal(image[key], expected[key], err_msg=str(key))


def test_coarser_levels_show_the_mean():
    fine = np.zeros((256, 256), np.float32)
    patches = Patches()
    block = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    patches.add((), Region(64, 128, 128, 192), fine[:64, :64], block)
    coarse = np.asarray(Patched(fine[::4, ::4], patches, 0, 4))
    np.testing.assert_allclose(
        coarse[16:32, 32:48], block.reshape(16, 4, 16, 4).mean(axis=(1, 3)), rtol=1e-6
    )
    assert np.count_nonzero(coarse) == 256


@pytest.mark.parametrize("shape", ["all", "strip", "corner", "hole"])
def test_missing_blocks_are_covered(shape):
    missing = np.zeros((6, 7), bool)
    missing[
        {"all": np.s_[:], "strip": np.s_[:, 5:], "corner": np.s_[4:, :]}.get(shape, np.s_[2:4])
    ] = True
    if shape == "corner":
        missing[:, 6] = True
    size = (6 * BLOCK + 2 * BLOCK - 7, 9 * BLOCK - 5)
    parts = rectangles(missing, (2, 2), size, 16)
    covered = np.zeros(size, bool)
    for top, left, bottom, right in parts:
        covered[top:bottom, left:right] = True
    wanted = np.zeros(size, bool)
    for row, column in np.argwhere(missing):
        top, left = (row + 2) * BLOCK, (column + 2) * BLOCK
        wanted[top : top + BLOCK, left : left + BLOCK] = True
    assert covered[wanted].all()
    first = first_of(parts[0], size, 16, 160**2)
    assert seen(first, size, 16) <= 1.5 * 160**2
    assert first.top % BLOCK == first.left % BLOCK == 0
    assert first.pixels > 0


def test_a_strip_is_halved_and_of_a_whole_view_the_middle_comes_first():
    size, strip = (2048, 2048), Region(512, 1024, 1280, 1280)
    half = first_of(strip, size, 128, 640 * 512)
    assert half == Region(512, 1024, 896, 1280)
    turned = first_of(Region(1024, 512, 1280, 1280), size, 128, 640 * 512)
    assert turned == Region(1024, 512, 1280, 896)
    view = Region(512, 512, 1280, 1536)
    middle = first_of(view, size, 128, 512**2)
    assert seen(middle, size, 128) <= 512**2
    top, bottom = middle.top - view.top, view.bottom - middle.bottom
    left, right = middle.left - view.left, view.right - middle.right
    assert min(top, bottom, left, right) > 0
    assert abs(top - bottom) <= BLOCK
    assert abs(left - right) <= BLOCK
