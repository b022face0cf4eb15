from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_restore.gui.check import CheckRow
from napari_restore.gui.lineage import remember_source
from waiting import LIMIT_MS


@pytest.fixture
def row(qtbot, session):
    row = CheckRow(session)
    qtbot.addWidget(row)
    return row


def scene(shape=(64, 80)):
    sharp = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2) > 0
    result = (40 + 150 * sharp).astype(np.uint8)
    noise = np.random.default_rng(1).normal(0, 2, shape)
    return (ndimage.gaussian_filter(result.astype(float), 1.2) + noise).astype(np.uint8), result


def add(viewer, image, result, **options):
    source = viewer.add_image(image, name="cells", **options)
    layer = viewer.add_image(result, name="cells [deblurred]", **options)
    remember_source(layer, source, "deblur")
    viewer.layers.selection = {layer}
    return source, layer


def checked(qtbot, row):
    with qtbot.waitSignal(row.check().finished, timeout=LIMIT_MS):
        pass
    qtbot.waitUntil(lambda: not row._session.running, timeout=LIMIT_MS)


def test_the_map_lies_over_its_source(qtbot, viewer, row, tmp_path):
    image, result = (np.stack([part] * 3) for part in scene())
    place = {"scale": (2, 0.5, 0.5), "translate": (1, 10, -3), "rotate": 0}
    source, _ = add(viewer, image, result, **place)
    viewer.dims.set_point(0, 1 + 2 * 2)
    ended = []
    row._session.runner.ended.connect(ended.append)
    checked(qtbot, row)
    error = viewer.layers[-1]
    assert "cells [deblurred]" in error.name
    np.testing.assert_allclose(error.translate, (1 + 2 * 2, 10, -3))
    np.testing.assert_allclose(error.scale, source.scale)
    assert error.data.shape == (1, 64, 80)
    assert len(error.metadata["napari_restore"]["sentences"]) == 3
    assert row.report_button.isEnabled() and ended[-1].count("\n") == 2
    row.save(str(tmp_path / "report.html"))
    assert "Not for diagnosis" in (tmp_path / "report.html").read_text("utf-8")


def test_a_third_image_is_the_truth(qtbot, viewer, row):
    image, result = scene()
    source, layer = add(viewer, image, result)
    layer.metadata = {"napari_restore": {"task": "deblur", "model": "gone.pth"}}
    truth = viewer.add_image(result, name="truth")
    viewer.layers.selection = {source, layer, truth}
    checked(qtbot, row)
    assert row.found.figures["against the reference"]["psnr_after_db"] == 100


def test_what_cannot_be_checked_is_said(viewer, row, image, monkeypatch):
    said = []
    monkeypatch.setattr("napari_restore.gui.check.show_error", said.append)
    viewer.add_image(image, name="alone")
    assert row.check() is None
    row.save("nowhere.html")
    assert "Select a result" in said[0] and len(said) == 1
