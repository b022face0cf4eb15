from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_restore.gui.layers import METADATA_KEY, restore_layer
from napari_restore.gui.options import DockOptions
from napari_restore.gui.session import Session
from waiting import LIMIT_MS


@pytest.fixture
def dehaze(viewer):
    session = Session(viewer, "dehaze")
    yield session
    session.close()


def run(session, qtbot, **options):
    session.restore(DockOptions(show_removed=True, **options))
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)


def finest(layer):
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


@pytest.mark.parametrize("form", ["memory", "lazy", "zarr", "multiscale"])
def test_removed_light_and_result_are_the_source(dehaze, viewer, image, qtbot, form):
    place = {"scale": (0.5, 0.5), "units": ("um", "um"), "translate": (3, 4)}
    data = {
        "memory": image,
        "lazy": da.from_array(image, chunks=64),
        "zarr": zarr.array(image, chunks=(64, 64)),
        "multiscale": [image, image[::2, ::2]],
    }[form]
    source = viewer.add_image(data, name="cells", **place)
    run(dehaze, qtbot)
    names = [layer.name for layer in viewer.layers]
    assert names == ["cells", "cells [removed light]", "cells [dehazed]"]
    removed, result = viewer.layers[1], viewer.layers[2]
    assert removed.multiscale == (form == "multiscale")
    assert isinstance(removed.data, da.Array) == (form in ("lazy", "zarr"))
    np.testing.assert_array_equal(finest(removed) + finest(result), image)
    np.testing.assert_array_equal(removed.scale, source.scale)
    np.testing.assert_array_equal(removed.translate, source.translate)
    assert removed.units == source.units
    assert removed.metadata[METADATA_KEY]["shows"] == "removed light"


@pytest.mark.parametrize("form", ["memory", "lazy", "multiscale"])
def test_transmission_lies_over_its_source(dehaze, viewer, qtbot, form):
    rng = np.random.default_rng(0)
    movie = rng.integers(80, 200, (2, 48, 64, 3)).astype(np.uint8)
    data = {
        "memory": movie,
        "lazy": da.from_array(movie, chunks=(1, 48, 64, 3)),
        "multiscale": [movie, movie[:, ::2, ::2]],
    }[form]
    viewer.add_image(data, name="fog", scale=(1, 0.5, 0.5))
    run(dehaze, qtbot)
    names = [layer.name for layer in viewer.layers]
    assert names == ["fog", "fog [transmission]", "fog [dehazed]"]
    shown = viewer.layers["fog [transmission]"]
    levels = [np.asarray(x) for x in shown.data] if shown.multiscale else [finest(shown)]
    assert [level.shape for level in levels] == [(2, 48, 64), (2, 24, 32)][: len(levels)]
    assert levels[0].dtype == np.float32
    assert 0 <= levels[0].min() <= levels[0].max() <= 1
    assert not shown.rgb
    assert tuple(shown.contrast_limits) == (0, 1)
    np.testing.assert_array_equal(shown.scale, (1, 0.5, 0.5))


def test_size_of_structures_is_in_the_units_of_the_layer(dehaze, viewer, image, qtbot):
    viewer.add_image(image, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    viewer.add_image(np.stack([image.astype(np.uint8)] * 3, -1), name="fog")
    viewer.layers.selection = set(viewer.layers)
    cells, fog = dehaze.jobs(DockOptions(structure_size=20.0))
    assert cells.plan.structure_size == 40
    assert cells.plan.halo == cells.plan.spec.halo + 180
    assert fog.plan.structure_size == 0
    result = restore_layer(viewer.layers["cells"], "dehaze", structure_size=20.0)
    assert result.metadata[METADATA_KEY]["structure_size"] == 40


def test_a_restoration_outlives_what_cannot_be_shown(dehaze, viewer, image, qtbot, monkeypatch):
    def fail(*args):
        raise RuntimeError("no room")

    monkeypatch.setattr("napari_restore.gui.work.removed_from", fail)
    viewer.add_image(image, name="cells")
    run(dehaze, qtbot)
    assert [layer.name for layer in viewer.layers] == ["cells", "cells [dehazed]"]
    (note,) = viewer.layers[1].metadata[METADATA_KEY]["notes"]
    assert "cannot be shown: no room" in note


def test_a_new_unit_is_noticed(dehaze, viewer, image):
    heard = []
    dehaze.changed.connect(lambda: heard.append(1))
    layer = viewer.add_image(image, name="cells")
    heard.clear()
    layer.units = ("um", "um")
    layer.scale = (0.5, 0.5)
    assert len(heard) >= 2
