from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels, Points

from napari_restore import RestoreError, restore, restore_layer
from napari_restore.gui.layers import (
    METADATA_KEY,
    plan_layer,
    pyramid,
    region_layer,
    visible_region,
)

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
@pytest.mark.parametrize("task", ["deblur", "dehaze", "motion_deblur"])
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
    np.testing.assert_array_equal(result.data.compute(), restore(lazy.compute(), "deblur"))


@pytest.mark.parametrize("lazy", [False, True])
def test_multiscale_stays_multiscale(image, lazy):
    levels = [image, image[::2, ::2], image[::4, ::4]]
    data = [da.from_array(level, chunks=48) for level in levels] if lazy else levels
    layer = Image(data, multiscale=True, contrast_limits=(0, 2000), scale=(0.1, 0.1))
    result = restore_layer(layer, "deblur")
    assert result.multiscale
    assert [level.shape for level in result.data] == [level.shape for level in levels]
    np.testing.assert_array_equal(np.asarray(result.data[0]), restore(image, "deblur"))
    np.testing.assert_allclose(result.scale, layer.scale)
    # Coarser levels show the same image: no shift of intensity.
    assert abs(float(np.mean(result.data[2])) - float(np.mean(result.data[0]))) < 20


def test_pyramid_fits_shapes_that_are_no_exact_division():
    finest = np.arange(13 * 10, dtype=np.uint8).reshape(13, 10)
    levels = pyramid(finest, [(7, 5), (3, 2)])
    assert [level.shape for level in levels] == [(13, 10), (7, 5), (3, 2)]
    assert levels[1].dtype == np.uint8
    assert levels[1][0, 0] == round(finest[:2, :2].mean())


def test_channel_axis_is_scaled_by_channel(image):
    channels = np.stack([image.astype(np.float32), image.astype(np.float32) / 1000])
    named = Image(channels, axis_labels=("channel", "y", "x"))
    assert plan_layer(named, "deblur").layout.axes == "CYX"
    result = restore_layer(named, "deblur").data
    np.testing.assert_allclose(result[1] * 1000, result[0], rtol=2e-3)


@pytest.mark.parametrize(
    "layer",
    [Labels(np.zeros((8, 8), int), name="nuclei"), Points(np.zeros((3, 2)), name="spots")],
)
def test_other_layers_are_refused_by_name(layer):
    with pytest.raises(RestoreError, match=rf"{layer.name}.*Image layer"):
        restore_layer(layer, "deblur")


def test_visible_region_without_canvas_is_the_whole_plane(image):
    layer = Image(np.stack([image] * 5), scale=(2, 0.5, 0.5))
    index, region = visible_region(layer, (6.0, 0, 0), 1000)
    assert index == (3,)
    assert region == (0, 0, *image.shape)


def test_visible_region_takes_the_middle_of_a_large_view(image):
    layer = Image(image)
    layer.corner_pixels = np.array([[10, 20], [89, 119]])
    _, region = visible_region(layer, (0, 0), 50)
    assert (region.height, region.width) == (50, 50)
    assert region.top == 25
    assert region.left == 45


def test_visible_region_of_multiscale_is_in_full_resolution(image):
    layer = Image([image, image[::2, ::2]], multiscale=True)
    layer.corner_pixels = np.array([[0, 0], [20, 30]])
    layer._data_level = 1
    _, region = visible_region(layer, (0, 0), 1000)
    assert region == (0, 0, 42, 62)


def test_region_layer_lies_over_its_place(image):
    layer = Image(np.stack([image] * 3), scale=(2, 0.5, 0.25), translate=(1, 2, 3), rotate=20)
    index, region = visible_region(layer, layer.data_to_world((1, 0, 0)), 40)
    assert index == (1,)
    crop = image[region.top : region.bottom, region.left : region.right]
    preview = region_layer(layer, index, region, crop, "preview")
    for y, x in ((0, 0), (7, 11)):
        np.testing.assert_allclose(
            preview.data_to_world((0, y, x)),
            layer.data_to_world((1, region.top + y, region.left + x)),
        )


def test_preview_of_other_axes_is_refused_with_a_remedy(image):
    layer = Image(np.stack([image] * 3))
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_layer(layer)
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(RestoreError, match="last two axes"):
        visible_region(layer, (0, 0, 0), 100)
