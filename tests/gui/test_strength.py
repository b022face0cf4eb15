"""Another strength without another run."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_restore.gui.options import DockOptions
from napari_restore.gui.strength import blended
from waiting import LIMIT_MS


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float16", "bool"])
def test_a_blend_is_linear_between_source_and_result(dtype, rng):
    scale = 1.99 if dtype == "bool" else 100
    source, result = np.floor(rng.random((2, 40, 30)) * scale).astype(dtype)
    # Half a step where samples are rounded; float16 has eleven bits.
    near = 0.5 if np.dtype(dtype).kind in "iub" else 0.05
    for strength in (0.0, 0.25, 0.5, 1.0):
        found = blended(source, result, strength, 1.0)
        assert found.dtype == source.dtype
        wide = [array.astype(float) for array in (source, result, found)]
        expected = wide[0] + strength * (wide[1] - wide[0])
        np.testing.assert_allclose(wide[2], expected, atol=near)
    same = blended(source, result, 0.0, 1.0)
    np.testing.assert_array_equal(same, source)
    assert same is not source


def test_what_is_no_number_stays():
    source = np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32)
    result = np.array([[np.nan, np.inf, -np.inf, 3.0]], np.float32)
    expected = np.array([[np.nan, np.inf, -np.inf, 2.0]], np.float32)
    np.testing.assert_array_equal(blended(source, result, 0.5, 1.0), expected)


def test_large_images_are_blended_in_parts(monkeypatch, rng):
    source, result = rng.integers(0, 255, (2, 50, 20, 3)).astype(np.uint8)
    whole = blended(source, result, 0.3, 1.0)
    monkeypatch.setattr("napari_restore.gui.strength._SLAB", 7)
    np.testing.assert_array_equal(blended(source, result, 0.3, 1.0), whole)
    lazy = blended(da.from_array(source, chunks=30), da.from_array(result, chunks=20), 0.3, 1.0)
    np.testing.assert_array_equal(lazy.compute(), whole)


@pytest.fixture
def done(session, qtbot):
    def done(what, **options):
        getattr(session, what)(DockOptions(**options))
        qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)

    return done


@pytest.mark.parametrize("form", ["memory", "lazy", "multiscale"])
def test_a_fresh_result_follows_the_strength(session, viewer, predictor, image, done, form):
    data = {
        "lazy": da.from_array(image, chunks=64),
        "multiscale": [image, image[::2, ::2]],
    }.get(form, image)
    source = viewer.add_image(data, name="cells")
    done("restore")
    (result,) = viewer.layers.selection
    tiles = predictor.tiles
    first = result.data

    def finest() -> np.ndarray:
        return np.asarray(result.data[0] if result.multiscale else result.data).astype(int)

    full = finest()
    session.set_strength(0.5)
    assert np.abs(finest() - (image.astype(int) + full) / 2).max() <= 0.5
    record = result.metadata["napari_restore"]
    assert (record["strength"], record["blended_from"]) == (0.5, 1.0)
    assert result.name == "cells [deblurred 0.5]"
    assert form == "lazy" or predictor.tiles == tiles
    session.set_strength(1.0)
    np.testing.assert_array_equal(finest(), full)
    assert result.name == "cells [deblurred]"
    assert "blended_from" not in result.metadata["napari_restore"]
    if form == "memory":
        assert result.data is first
    # What is selected is meant.
    viewer.layers.selection = {viewer.add_image(image, name="other")}
    session.set_strength(0.2)
    np.testing.assert_array_equal(finest(), full)
    viewer.layers.selection = {source}
    session.set_strength(0.2)
    assert np.abs(finest() - full).max() > 0


def test_the_next_run_keeps_what_was_compared(session, viewer, predictor, image, done):
    viewer.add_image(image, name="cells")
    done("restore")
    full = viewer.layers[-1].data
    session.set_strength(0.5)
    done("restore", strength=0.5)
    assert [layer.name for layer in viewer.layers][1:] == [
        "cells [deblurred]", "cells [deblurred 0.5]",
    ]  # fmt: skip
    np.testing.assert_array_equal(viewer.layers[1].data, full)
    session.set_strength(0.9)
    assert viewer.layers[-1].name == "cells [deblurred 0.9]"
    assert viewer.layers[1].name == "cells [deblurred]"


def test_a_canceled_run_leaves_the_result_as_it_was_tried(
    session, viewer, predictor, image, done, qtbot
):
    viewer.add_image(image, name="cells")
    done("restore")
    session.set_strength(0.5)
    predictor.hold()
    session.restore(DockOptions(strength=0.5))
    qtbot.waitUntil(predictor.begun.is_set, timeout=LIMIT_MS)
    session.cancel()
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    assert viewer.layers[-1].name == "cells [deblurred 0.5]"
    session.set_strength(0.7)
    assert viewer.layers[-1].name == "cells [deblurred 0.7]"


def test_a_result_that_was_edited_or_named_is_left(session, viewer, predictor, image, done):
    viewer.add_image(image, name="cells")
    done("restore")
    (result,) = viewer.layers.selection
    result.name = "mine"
    session.set_strength(0.5)
    assert result.name == "mine"
    result.data = np.zeros_like(image)
    session.set_strength(0.7)
    assert not result.data.any()


def test_much_more_than_was_computed_needs_a_run(session, viewer, predictor, image, done):
    viewer.add_image(image, name="cells")
    done("restore", strength=0.1)
    (result,) = viewer.layers.selection
    before = result.data
    session.set_strength(1.0)
    assert result.data is before
    session.set_strength(0.3)
    assert result.data is not before


@pytest.mark.parametrize("lazy", [False, True])
def test_a_preview_follows_the_strength(session, viewer, predictor, image, done, lazy):
    viewer.add_image(da.from_array(image, chunks=50) if lazy else image, name="cells")
    done("preview", strength=0.5)
    preview = viewer.layers[-1]
    tiles, half = predictor.tiles, np.asarray(preview.data).astype(int)
    session.set_strength(1.0)
    full = np.asarray(preview.data).astype(int)
    assert np.abs(half - (image.astype(int) + full) / 2).max() <= 0.5
    session.set_strength(0.0)
    np.testing.assert_array_equal(np.asarray(preview.data), image)
    assert predictor.tiles == tiles
