"""Which axis of a layer holds channels: labeled, guessed or chosen."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

from napari_restore import restore, restore_layer
from napari_restore.errors import ImageError
from napari_restore.gui.axes import read_axes
from napari_restore.gui.describe import describe
from napari_restore.gui.options import DockOptions
from napari_restore.gui.widget import DeblurWidget
from waiting import LIMIT_MS


def planes(image: np.ndarray, *gains: float, offset: float = 0) -> np.ndarray:
    """Planes of an image of different brightness."""
    wide = [image * gain + number * offset for number, gain in enumerate(gains)]
    return np.stack(wide).astype(np.uint16)


@pytest.mark.parametrize(
    ("gains", "offset", "axes"),
    [
        ((1, 0.05), 0, "CYX"),
        ((0.1, 1, 0.3), 0, "CYX"),
        ((1, 1), 9000, "CYX"),
        ((1, 0.9, 0.8), 0, "QYX"),
        # A stack between empty slices, and one of many planes.
        ((0, 1, 0.9, 0), 0, "QYX"),
        (tuple(np.linspace(0.1, 1, 12)), 0, "QYX"),
    ],
    ids=str,
)
def test_few_planes_of_different_brightness_are_channels(image, gains, offset, axes):
    assert read_axes(Image(planes(image, *gains, offset=offset))) == axes


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_is_found_among_others(image, axis):
    data = np.stack([planes(image, 1, 0.05)] * 3, 1 - axis)
    assert read_axes(Image(data)).index("C") == axis


@pytest.mark.parametrize("label", ["z", "t", "time"])
def test_labels_are_believed(image, label):
    layer = Image(planes(image, 1, 0.05), axis_labels=(label, "y", "x"))
    assert "C" not in read_axes(layer)


def test_nothing_is_computed_to_guess(image):
    computed = []

    def look(block):
        computed.append(block.shape)
        return block

    lazy = da.from_array(planes(image, 1, 0.05), chunks=50).map_blocks(look, dtype=np.uint16)
    layer = Image(lazy, contrast_limits=(0, 1))
    computed.clear()
    assert read_axes(layer) == "QYX"
    assert not computed


@pytest.mark.parametrize(
    ("label", "chosen", "axes"),
    [
        ("c", None, "QYX"), ("z", 0, "CYX"), ("-3", 0, "CYX"), ("-3", None, "QYX"), ("c", 0, "CYX"),
    ],
)  # fmt: skip
def test_the_choice_of_the_user_counts_most(image, label, chosen, axes):
    layer = Image(planes(image, 1, 0.05), axis_labels=(label, "y", "x"))
    assert read_axes(layer, channel_axis=chosen) == axes


def test_an_axis_that_is_not_there_is_refused(image):
    with pytest.raises(ImageError, match=r"'cells' has 0 axes before the plane, and axis 1"):
        read_axes(Image(image, name="cells"), channel_axis=1)


def test_new_data_are_looked_at_anew(image):
    layer = Image(planes(image, 1, 0.05))
    assert read_axes(layer) == "CYX"
    layer.data = planes(image, 1, 0.9)
    assert read_axes(layer) == "QYX"


def test_a_dim_channel_is_restored_as_if_it_were_alone(image):
    data = planes(image, 1, 0.05)
    result = restore_layer(Image(data), "deblur").data
    np.testing.assert_array_equal(result, restore(data, "deblur", axes="CYX"))
    np.testing.assert_array_equal(result[1], restore(data[1], "deblur"))


def test_the_dock_says_what_it_takes_for_channels_and_can_be_told(viewer, image, qtbot):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    control = widget.controls.channels
    viewer.add_image(planes(image, 0.1, 1, 0.3), name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)

    def said() -> str:
        return widget.summary.text().replace("\N{NO-BREAK SPACE}", " ")

    assert not control.native.isHidden()
    assert "3 channels · each its own scale" in said()
    control.value = "none"
    assert "3 planes · one scale" in said()
    control.value = 1
    assert "axis 1 was chosen for channels" in said()
    assert not widget.restore_button.isEnabled()
    control.value = "auto"
    viewer.layers.selection = {viewer.add_image(image, name="flat")}
    assert control.native.isHidden()
    widget.session.close()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_what_looks_like_color_is_said_in_the_dock_and_by_the_library(session, viewer, dtype):
    layer = viewer.add_image(np.zeros((40, 50, 3), dtype), rgb=False, name="photo")
    text = describe(session.jobs(DockOptions()), session.rates)
    assert "read as planes that are 3 pixels wide" in text
    assert "rgb=True" in text
    with pytest.warns(UserWarning, match="read as planes that are 3 pixels wide"):
        restore_layer(layer, "deblur")
    viewer.layers.selection = {viewer.add_image(np.zeros((40, 50, 3), dtype), rgb=True)}
    assert "read as planes" not in describe(session.jobs(DockOptions()), session.rates)
