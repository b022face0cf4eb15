from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_restore import restore
from napari_restore.errors import ImageError
from napari_restore.gui.layers import METADATA_KEY
from napari_restore.gui.options import DockOptions
from napari_restore.gui.region import channels_of
from napari_restore.gui.widget import DeblurWidget
from waiting import LIMIT_MS


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9000, (5, 70, 90), dtype=np.uint16)


def run(session, qtbot, **options):
    session.restore(DockOptions(**options))
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    return session.viewer.layers.selection.active


def rectangle(top, left, bottom, right) -> list[tuple[float, float]]:
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


@pytest.mark.parametrize("kind", ["numpy", "dask", "multiscale"])
@pytest.mark.parametrize(
    ("region", "part"),
    [
        ("what is seen", np.s_[3:4, 10:50, 20:80]),
        ("this slice", np.s_[3:4, :, :]),
        ("slices", np.s_[1:4, :, :]),
        ("inside a shape", np.s_[:, 12:31, 25:61]),
    ],
)
def test_a_part_is_that_of_the_whole_and_in_its_place(
    region, part, kind, session, viewer, stack, predictor, qtbot
):
    data = {"numpy": stack, "dask": da.from_array(stack, chunks=40)}.get(kind)
    data = [stack, stack[:, ::2, ::2]] if data is None else data
    place = {"scale": (2, 0.5, 0.5), "translate": (1, 7, 9), "units": ("um",) * 3}
    place["rotate"] = (0, 0, 30)
    layer = viewer.add_image(data, name="cells", multiscale=kind == "multiscale", **place)
    viewer.dims.set_current_step(0, 3)
    layer.corner_pixels = np.array([[0, 10, 20], [0, 49, 79]]) // (layer.data_level + 1)
    corners = [layer.data_to_world((0, y, x))[-2:] for y, x in rectangle(11.6, 25, 30.2, 60)]
    viewer.add_shapes([corners], shape_type="polygon", name="part")
    viewer.layers.selection = {layer}
    result = run(session, qtbot, region=region, slices="1-3")
    expected = restore(stack, "deblur")[part]
    if kind == "multiscale" and region == "what is seen":
        assert np.all(np.abs(np.subtract(result.data.shape, expected.shape)) <= 2)
    else:
        assert np.abs(result.data.astype(int) - expected).max() <= 1
    start = [span[0] for span in result.metadata[METADATA_KEY]["region"]]
    np.testing.assert_allclose(
        result.data_to_world((0, 0, 0)), layer.data_to_world(start), atol=1e-6
    )
    assert result.name == "cells [deblurred, part]"
    assert result.units == layer.units


def test_parts_of_color_follow_the_strength(session, viewer, predictor, qtbot):
    photo = np.random.default_rng(0).integers(0, 200, (60, 80, 3), dtype=np.uint8)
    layer = viewer.add_image(photo, name="photo", rgb=True)
    layer.corner_pixels = np.array([[5, 6], [44, 65]])
    result = run(session, qtbot, region="what is seen")
    session.set_strength(0.0)
    np.testing.assert_array_equal(result.data, photo[5:45, 6:66])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "slices", "slices": "3-9"}, "from 0 to 4"),
        ({"region": "slices", "slices": "z"}, "'z'"),
        ({"region": "inside a shape"}, "Draw a rectangle"),
    ],
)
def test_no_such_part_is_said(options, message, session, viewer, stack):
    viewer.add_image(stack, name="cells")
    with pytest.raises(ImageError, match=message):
        session.restore(DockOptions(**options))


def test_a_shape_beside_the_image_is_said(session, viewer, stack):
    layer = viewer.add_image(stack, name="cells")
    viewer.add_shapes([rectangle(200, 200, 220, 220)], shape_type="rectangle", name="far")
    viewer.layers.selection = {layer}
    with pytest.raises(ImageError, match="'far' lies outside of 'cells'"):
        session.restore(DockOptions(region="inside a shape"))


# ---------------------------------------------------------------- channels


def test_channels_that_napari_split_belong_together(viewer, stack):
    first, second, third = viewer.add_image(stack[:3], channel_axis=0, name="cells")
    other = viewer.add_image(stack[4].copy(), name="other")
    small = viewer.add_image(stack[4, :50].copy(), name="cells [7]", blending="additive")
    plain = [viewer.add_image(stack[4].copy()) for _ in range(2)]
    result = viewer.add_image(stack[0], name="r", metadata={METADATA_KEY: {"task": "deblur"}})
    assert channels_of(second, viewer.layers) == [first, second, third]
    for layer in (other, small, *plain, result):
        assert channels_of(layer, viewer.layers) == [layer]


def test_the_dock_selects_all_channels_and_restores_each(viewer, stack, predictor, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    channels = viewer.add_image(stack[:2], channel_axis=0, name=["DAPI", "GFP"])
    viewer.layers.selection = {channels[0]}
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    button = widget.controls.all_channels
    assert (button.text(), button.isHidden()) == ("All 2 channels", False)
    button.click()
    assert viewer.layers.selection == set(channels)
    assert button.isHidden()
    assert "2 channels in layers of their own" in widget.summary.text()
    widget.restore()
    qtbot.waitUntil(lambda: not widget.session.running, timeout=LIMIT_MS)
    assert [layer.name for layer in viewer.layers][2:] == ["DAPI [deblurred]", "GFP [deblurred]"]
    widget.session.close()


def test_the_dock_says_what_the_axes_are(viewer, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    data = np.zeros((4, 3, 2, 30, 40), np.uint8)
    viewer.add_image(data, axis_labels=("t", "z", "c", "y", "x"))
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    assert "Axes: 4 frames, 3 slices, 2 channels." in widget.summary.text()
    widget.session.close()
