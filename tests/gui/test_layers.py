from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points

from napari_restore import RestoreError, restore, restore_layer
from napari_restore.gui.canvas import visible_block
from napari_restore.gui.jobs import plan_layer, side_of_pixel
from napari_restore.gui.layers import METADATA_KEY
from napari_restore.gui.preview import Preview
from napari_restore.models.catalog import TASKS

PLACE = {"scale": (0.5, 0.25), "translate": (3, -7), "rotate": 30, "units": "um"}
LOOKS = {
    "colormap": "magma",
    "blending": "additive",
    "gamma": 0.7,
    "opacity": 0.6,
    "contrast_limits": (600, 1500),
    "interpolation2d": "linear",
}


def test_result_keeps_place_units_and_looks(image):
    affine = np.array([[1.1, 0.2, 4], [0, 0.9, 5], [0, 0, 1]])
    layer = Image(
        image,
        name="cells",
        axis_labels=("y", "x"),
        affine=affine,
        metadata={"stain": "DAPI"},
        **PLACE,
        **LOOKS,
    )
    result = restore_layer(layer, "deblur")
    assert result.name == "cells [deblurred]"
    assert result.data.dtype == image.dtype
    assert result.data.shape == image.shape
    for name in ("scale", "translate", "rotate", "shear", "affine"):
        np.testing.assert_allclose(getattr(result, name), getattr(layer, name), err_msg=name)
    assert result.units == layer.units
    assert result.axis_labels == layer.axis_labels
    assert result.colormap.name == "magma"
    for name in ("blending", "gamma", "opacity", "contrast_limits", "interpolation2d"):
        assert getattr(result, name) == getattr(layer, name), name
    assert result.metadata["stain"] == "DAPI"
    assert METADATA_KEY not in layer.metadata


def test_result_says_how_it_was_made_and_can_be_made_again(image):
    layer = Image(image)
    result = restore_layer(layer, "motion_deblur", strength=0.5, tile=64)
    record = result.metadata[METADATA_KEY]
    assert json.loads(json.dumps(record)) == record
    assert record["seconds"] > 0
    again = restore(
        layer.data,
        record["task"],
        model=record["model"],
        strength=record["strength"],
        tile=record["tile"],
        axes=record["axes"],
    )
    np.testing.assert_array_equal(again, result.data)


@pytest.mark.parametrize(
    ("shape", "rgb"),
    [((40, 50), False), ((3, 40, 50), False), ((2, 3, 40, 50), False), ((40, 50, 3), True),
     ((4, 40, 50, 4), True), ((1, 1), False)],
)  # fmt: skip
@pytest.mark.parametrize("task", TASKS)
def test_layer_equals_array(shape, rgb, task):
    data = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    result = restore_layer(Image(data, rgb=rgb), task)
    np.testing.assert_array_equal(result.data, restore(data, task, rgb=rgb))
    assert result.rgb == rgb


def test_lazy_layer_stays_lazy(image):
    lazy = da.from_array(np.stack([image] * 3), chunks=(1, 64, 64))
    result = restore_layer(Image(lazy, contrast_limits=(0, 2000)), "deblur")
    assert isinstance(result.data, da.Array)
    assert result.data.chunks == lazy.chunks
    np.testing.assert_allclose(result.data.compute(), restore(lazy.compute(), "deblur"), atol=4)


@pytest.mark.parametrize("lazy", [False, True])
def test_multiscale_stays_multiscale(image, lazy):
    levels = [image, image[::2, ::2], image[::4, ::4]]
    data = [da.from_array(level, chunks=48) for level in levels] if lazy else levels
    layer = Image(data, multiscale=True, contrast_limits=(0, 2000), scale=(0.1, 0.1))
    result = restore_layer(layer, "deblur")
    assert result.multiscale
    assert [level.shape for level in result.data] == [level.shape for level in levels]
    np.testing.assert_allclose(np.asarray(result.data[0]), restore(image, "deblur"), atol=4)
    np.testing.assert_allclose(result.scale, layer.scale)
    # Coarser levels show the same image: no shift of intensity.
    assert abs(float(np.mean(result.data[2])) - float(np.mean(result.data[0]))) < 20


def test_channel_axis_is_scaled_by_channel(image):
    channels = np.stack([image.astype(np.float32), image.astype(np.float32) / 1000])
    named = Image(channels, axis_labels=("channel", "y", "x"))
    assert plan_layer(named, "deblur").plan.layout.axes == "CYX"
    result = restore_layer(named, "deblur").data
    np.testing.assert_allclose(result[1] * 1000, result[0], rtol=2e-3)


@pytest.mark.parametrize(
    ("labels", "axes"),
    [(("z", "y", "x"), "ZYX"), (("time", "y", "x"), "TYX"), (("c", "a", "b"), "CYX")],
)
def test_axis_labels_reach_the_record(image, labels, axes):
    layer = Image(np.stack([image] * 2), axis_labels=labels)
    assert plan_layer(layer, "deblur").plan.layout.axes == axes


def test_a_plane_that_is_not_last_is_refused(image):
    layer = Image(np.stack([image] * 2, axis=-1), axis_labels=("y", "x", "z"), name="odd")
    with pytest.raises(RestoreError, match=r"'odd' are labeled y, x, z.*Transpose"):
        restore_layer(layer, "deblur")


def test_a_restoration_of_a_restoration_tells_the_whole_story(image):
    first = restore_layer(Image(image, name="cells"), "deblur")
    second = restore_layer(first, "motion_deblur").metadata[METADATA_KEY]
    assert (second["task"], second["source"]) == ("motion_deblur", "cells [deblurred]")
    assert second["previous"]["task"] == "deblur"
    assert second["previous"]["source"] == "cells"


def test_contrast_slider_keeps_its_range(image):
    layer = Image(image, contrast_limits=(900, 1200))
    layer.contrast_limits_range = (0, 4095)
    result = restore_layer(layer, "deblur")
    assert result.contrast_limits == [900, 1200]
    assert result.contrast_limits_range == [0, 4095]


def test_lazy_pyramid_with_a_coarse_level_in_memory(image):
    data = [da.from_array(image, chunks=48), image[::2, ::2]]
    result = restore_layer(Image(data, multiscale=True, contrast_limits=(0, 2000)), "deblur")
    assert [level.shape for level in result.data] == [(96, 120), (48, 60)]
    np.testing.assert_allclose(np.asarray(result.data[0]), restore(image, "deblur"), atol=4)


@pytest.mark.parametrize(
    "layer",
    [Labels(np.zeros((8, 8), int), name="nuclei"), Points(np.zeros((3, 2)), name="spots")],
)
def test_other_layers_are_refused_by_name(layer):
    with pytest.raises(RestoreError, match=rf"{layer.name}.*Image layer"):
        restore_layer(layer, "deblur")


# ---------------------------------------------------------------- the canvas


def shown(layer: Image, *steps: int, ndisplay: int = 2, order=None) -> ViewerModel:
    viewer = ViewerModel(ndisplay=ndisplay)
    viewer.add_layer(layer)
    viewer.dims.current_step = (*steps, 0, 0)
    if order is not None:
        viewer.dims.order = order
    return viewer


def test_visible_block_without_canvas_is_the_whole_plane(image):
    layer = Image(np.stack([image] * 5), scale=(2, 0.5, 0.5), translate=(7, 0, 0))
    block = visible_block(layer, shown(layer, 3).dims, 1000)
    assert block == (slice(3, 4), *(slice(0, side) for side in image.shape))


def test_visible_block_takes_the_middle_of_a_large_view(image):
    layer = Image(image)
    viewer = shown(layer)
    layer.corner_pixels = np.array([[10, 20], [89, 119]])
    assert visible_block(layer, viewer.dims, 50) == (slice(25, 75), slice(45, 95))


def test_visible_block_of_multiscale_is_in_full_resolution(image):
    layer = Image([image, image[::2, ::2]], multiscale=True)
    viewer = shown(layer)
    layer.corner_pixels = np.array([[0, 0], [20, 30]])
    layer._data_level = 1
    assert visible_block(layer, viewer.dims, 1000) == (slice(0, 42), slice(0, 62))


@pytest.mark.parametrize("unit", ["um", "nm", "mm"])
def test_slice_is_that_of_napari_whatever_the_units(image, unit):
    viewer = ViewerModel()
    size = {"um": 1, "nm": 1000, "mm": 0.001}[unit]
    first = viewer.add_image(np.stack([image] * 12), scale=(1,) * 3, units=("um",) * 3)
    second = viewer.add_image(np.stack([image] * 12), scale=(size,) * 3, units=(unit,) * 3)
    viewer.dims.set_current_step(0, 3)
    for layer in (first, second):
        assert visible_block(layer, viewer.dims, 1000)[0] == slice(3, 4)


def test_slice_is_that_of_napari_under_a_sheared_affine():
    stack = np.stack([np.full((20, 20), plane, np.uint8) for plane in range(9)])
    affine = np.eye(4)
    affine[0, 1] = 0.1
    layer = Image(stack, affine=affine)
    viewer = shown(layer, 4)
    assert visible_block(layer, viewer.dims, 100)[0] == slice(4, 5)


def test_a_layer_that_is_not_on_the_canvas_is_said(image):
    viewer = ViewerModel()
    viewer.add_image(np.stack([image] * 30))
    short = viewer.add_image(np.stack([image] * 5), name="short")
    viewer.dims.set_current_step(0, 20)
    with pytest.raises(RestoreError, match="'short' is not on the canvas"):
        visible_block(short, viewer.dims, 100)
    viewer.dims.set_current_step(0, 2)
    short.corner_pixels = np.array([[0, 0, 119], [0, 95, 119]])
    with pytest.raises(RestoreError, match="not on the canvas"):
        visible_block(short, viewer.dims, 100)


def test_preview_lies_over_its_place(image):
    affine = np.eye(4)
    affine[1, 3] = 11
    layer = Image(
        np.stack([image] * 3),
        scale=(2, 0.5, 0.25),
        translate=(1, 2, 3),
        rotate=20,
        affine=affine,
    )
    viewer = shown(layer, 1)
    block = visible_block(layer, viewer.dims, 40)
    assert block[0] == slice(1, 2)
    crop = layer.data[block]
    preview = Preview(plan_layer(layer, "deblur"), block, crop, crop)
    for point in ((0, 0, 0), (1, 20, 7)):
        np.testing.assert_allclose(preview.layer.data_to_world(point), layer.data_to_world(point))


@pytest.mark.parametrize(("ndisplay", "order"), [(3, None), (2, (1, 0, 2))])
def test_preview_of_other_views_is_refused_with_a_remedy(image, ndisplay, order):
    layer = Image(np.stack([image] * 3))
    viewer = shown(layer, 0, ndisplay=ndisplay, order=order)
    with pytest.raises(RestoreError, match="last two axes"):
        visible_block(layer, viewer.dims, 100)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (("um", "nm"), (100.0, "nm")),
        (("nm", "nm"), (50.05, "nm")),
        (("um", "s"), (1.0, "px")),
        (("um", "pixel"), (1.0, "px")),
    ],
)
def test_each_axis_may_have_a_unit_of_its_own(units, expected):
    layer = Image(np.zeros((20, 30)), scale=(0.1, 100), units=units)
    size, unit = side_of_pixel({"scale": layer.scale, "units": layer.units})
    assert (size, unit) == (pytest.approx(expected[0]), expected[1])
