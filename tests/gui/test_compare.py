from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import QPoint, Qt

from napari_restore.errors import RestoreError
from napari_restore.gui.canvas import camera_of, grid_of
from napari_restore.gui.compare import comparison_of, difference_layer
from napari_restore.gui.lineage import remember_source
from napari_restore.gui.options import DockOptions
from napari_restore.gui.profile import length_of, values_along
from napari_restore.gui.widget import DeblurWidget
from waiting import LIMIT_MS


def pair(viewer, image, **options) -> tuple[Image, Image]:
    """A source and a result of it."""
    source = viewer.add_image(image, name="cells", contrast_limits=(500, 1500), **options)
    result = viewer.add_image(image + 100, name="cells [deblurred]", **options)
    remember_source(result, source, "deblur")
    viewer.layers.selection = {result}
    return source, result


@pytest.mark.parametrize(
    ("chosen", "meant"),
    [
        ({"r1"}, ("s", "r1")),
        ({"s"}, ("s", "r2")),
        ({"r1", "r2"}, ("r1", "r2")),
        ({"s", "r1"}, ("s", "r1")),
        ({"other", "r2"}, ("r2", "other")),
        ({"opened"}, ("s", "opened")),
        ({"other"}, None),
        (set(), None),
    ],
)
def test_what_the_selection_compares(viewer, image, chosen, meant):
    source = viewer.add_image(image, name="s")
    for name in ("r1", "r2", "other", "opened"):
        layer = viewer.add_image(image, name=name)
        if name in ("r1", "r2"):
            remember_source(layer, source, "deblur")
    viewer.layers["opened"].metadata = {"napari_restore": {"source": "s"}}
    viewer.layers.selection = {viewer.layers[name] for name in chosen}
    if meant is None:
        with pytest.raises(RestoreError, match="Select a result"):
            comparison_of(viewer).pair()
        return
    assert tuple(layer.name for layer in comparison_of(viewer).pair()) == meant


def test_side_by_side_and_back(viewer, image):
    labels = viewer.add_labels(np.zeros(image.shape, int))
    source, result = pair(viewer, image)
    viewer.add_image(image, name="other")
    source.visible = False
    viewer.layers.move(viewer.layers.index(labels), 2)
    comparison, grid = comparison_of(viewer), grid_of(viewer)
    result.gamma, zoom = 0.5, camera_of(viewer).zoom
    viewer.layers.selection = {result}
    comparison.side_by_side()
    assert [layer.name for layer in viewer.layers if layer.visible] == [source.name, result.name]
    layers = viewer.layers
    places = [grid.position(layers.index(layer), layers) for layer in (source, result)]
    assert places == [(0, 0), (0, 1)]
    assert tuple(result.contrast_limits) == (500, 1500)
    source.contrast_limits, source.colormap, result.gamma = (0, 900), "viridis", 0.7
    assert (tuple(result.contrast_limits), result.colormap.name) == ((0, 900), "viridis")
    assert source.gamma == 0.7
    comparison.stop()
    assert not grid.enabled
    assert camera_of(viewer).zoom == pytest.approx(zoom)
    assert [layer.visible for layer in (source, result, labels)] == [False, True, True]
    source.contrast_limits = (1, 2)
    assert tuple(result.contrast_limits) == (0, 900)


def test_a_layer_that_goes_ends_the_comparison(viewer, image):
    source, result = pair(viewer, image)
    comparison_of(viewer).side_by_side()
    viewer.layers.remove(result)
    assert comparison_of(viewer).mode == ""
    assert source.visible
    assert not grid_of(viewer).enabled


def test_the_source_is_shown_while_a_key_is_held(viewer, image):
    source, result = pair(viewer, image, blending="additive")
    source.visible = False
    comparison = comparison_of(viewer)
    comparison.hold(True)
    comparison.hold(True)
    assert (source.visible, result.visible) == (True, False)
    comparison.hold(False)
    assert (source.visible, result.visible) == (False, True)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rgb"), [(np.uint8, False), (np.uint8, True), (np.int16, False), (np.float32, False)]
)
def test_difference_has_sign_name_place_and_a_symmetric_range(dtype, rgb, lazy):
    shape = (20, 30, 3) if rgb else (20, 30)
    first = np.full(shape, 100, dtype)
    second = first.copy()
    second[:5], second[5:10] = 130, 60
    arrays = [da.from_array(x, chunks=x.shape) if lazy else x for x in (first, second)]
    place = {"scale": (2, 3), "translate": (1, 1), "units": ("um", "um")}
    layers = [Image(x, name=n, rgb=rgb, **place) for x, n in zip(arrays, "ab", strict=True)]
    change = difference_layer(*layers)
    values = np.asarray(change.data)
    assert (values[0, 0], values[7, 0], values[15, 0]) == (30, -40, 0)
    assert change.contrast_limits[0] == -change.contrast_limits[1] < 0
    assert change.name == "b − a"
    assert tuple(change.scale) == (2, 3)
    assert change.metadata["napari_restore"]["values"] == "gray values"


def test_difference_of_unlike_shapes_is_refused():
    with pytest.raises(RestoreError, match=r"\(4, 5\).*\(5, 5\)"):
        difference_layer(Image(np.zeros((4, 5)), name="a"), Image(np.zeros((5, 5)), name="b"))


def test_preview_of_all_docks(session, viewer, predictor, image, qtbot):
    source = viewer.add_image(image, name="cells")
    session.preview_docks(DockOptions())
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    names = [layer.name for layer in viewer.layers if layer.visible]
    done = ("deblurred", "dehazed", "motion deblurred", "denoised")
    assert names == ["cells", *(f"{each}: cells [preview]" for each in done)]
    grid = grid_of(viewer)
    places = {grid.position(place, viewer.layers) for place in range(5)}
    assert places == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    assert np.abs(viewer.layers[-1].data.astype(int) - image).max() > 0
    comparison_of(viewer).stop()
    assert list(viewer.layers) == [source]


# ---------------------------------------------------------------- profile


def ramp(*scale: float, **options) -> Image:
    y, x = np.mgrid[:40, :50]
    return Image((10 * y + x).astype(np.uint16), scale=scale, **options)


@pytest.mark.parametrize(
    ("scale", "units", "length"),
    [
        ((1, 1), None, (20, "px")),
        ((0.5, 0.5), ("um", "um"), (10, "µm")),
        ((2, 2), None, (20, "px")),
    ],
)
def test_profile_has_values_and_units(viewer, scale, units, length):
    layer = ramp(*scale, units=units)
    viewer.add_layer(layer)
    ends = np.array([(5.0, 10.0), (5.0, 30.0)]) * scale
    values = values_along(layer, viewer.dims, ends)
    np.testing.assert_allclose(values, 50 + np.arange(10, 31))
    assert length_of(layer, ends) == pytest.approx(length[0]) or length_of(layer, ends) == length


def test_profile_of_a_stack_follows_the_slice_and_ends_at_the_border(viewer):
    stack = np.stack([np.full((10, 10), value) for value in (1, 2, 3)])
    layer = viewer.add_image(stack)
    for plane in (0, 2):
        viewer.dims.set_current_step(0, plane)
        values = values_along(layer, viewer.dims, np.array([(5.0, -4.0), (5.0, 5.0)]), 10)
        assert np.isnan(values[:3]).all()
        np.testing.assert_array_equal(values[4:], plane + 1)


# ---------------------------------------------------------------- in a real napari


def test_swipe_draws_one_left_and_the_other_right(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    # Few pixels to draw, since there is no graphics card.
    viewer.window.resize(800, 600)
    dark, bright = np.full((64, 64), 10, np.uint8), np.full((64, 64), 250, np.uint8)
    source = viewer.add_image(dark, name="dark", contrast_limits=(0, 255))
    result = viewer.add_image(bright, name="bright", contrast_limits=(0, 255))
    remember_source(result, source, "deblur")
    _, widget = viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    viewer.layers.selection = {result}
    viewer.reset_view()
    widget.looks["Swipe line"].trigger()
    line = comparison_of(viewer)._line
    assert widget.looks["Swipe line"].isChecked()

    def shown() -> np.ndarray:
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., 0]
        middle = picture[picture.shape[0] // 2 + 40]
        return middle[[int(share * len(middle)) for share in (0.4, 0.6)]]

    qtbot.waitUntil(lambda: shown().tolist() == [10, 250], timeout=LIMIT_MS)
    native = line.parent()
    start = QPoint(line.width() // 2, 20)
    qtbot.mousePress(line, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(line, start - QPoint(native.width() // 4, 0))
    line.move_to(0.25)
    qtbot.mouseRelease(line, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: shown().tolist() == [250, 250], timeout=LIMIT_MS)
    line.move_to(0.75)
    qtbot.waitUntil(lambda: shown().tolist() == [10, 10], timeout=LIMIT_MS)
    widget.looks["End comparison"].trigger()
    qtbot.waitUntil(lambda: shown().tolist() == [250, 250], timeout=LIMIT_MS)
    assert not widget.looks["Swipe line"].isChecked()


def test_line_profile_follows_line_and_result(make_napari_viewer, image, qtbot):
    viewer = make_napari_viewer()
    _, result = pair(viewer, image)
    _, widget = viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    viewer.layers.selection = {result}
    widget.looks["Line profile"].trigger()
    profile = viewer.window.dock_widgets["Line profile"]
    _, (first, second), unit = profile.shown
    np.testing.assert_allclose(second - first, 100)
    assert unit == "px"
    result.data = image + 7
    qtbot.waitUntil(lambda: np.allclose(np.subtract(*profile.shown[1]), -7), timeout=LIMIT_MS)
    profile.lines.data = [np.array([(3.0, 5.0), (3.0, 25.0)])]
    qtbot.waitUntil(lambda: profile.shown[0][-1] == pytest.approx(20), timeout=LIMIT_MS)
    np.testing.assert_allclose(profile.shown[1][0], image[3, 5:26])


def test_commands_are_in_the_palette(make_napari_viewer, image):
    from napari._app_model import get_app_model

    viewer = make_napari_viewer()
    viewer.window.add_plugin_dock_widget("napari-restore", "Deblur")
    pair(viewer, image)
    commands = get_app_model().commands
    commands.execute_command("napari-restore.compare_side_by_side").result()
    assert comparison_of(viewer).mode == "side by side"
    commands.execute_command("napari-restore.compare_stop").result()
    assert comparison_of(viewer).mode == ""


def test_the_button_shows_the_source_while_it_is_down(viewer, image, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    source, result = pair(viewer, image)
    qtbot.mousePress(widget.source_button, Qt.MouseButton.LeftButton)
    assert (source.visible, result.visible) == (True, False)
    qtbot.mouseRelease(widget.source_button, Qt.MouseButton.LeftButton)
    assert (source.visible, result.visible) == (True, True)
    widget.session.close()
