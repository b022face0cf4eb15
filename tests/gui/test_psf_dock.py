"""Point spread functions in the docks: chosen, shown, added as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from napari.layers import Image

from napari_restore import RestoreError, restore_layer
from napari_restore.analysis.find import Finding
from napari_restore.analysis.point_spread import PSF
from napari_restore.gui.psf_controls import BEADS, FOUND, LAYER, NONE, OPTICS
from napari_restore.gui.psf_source import BeadsIn, OpticsOf, micrometers_of
from napari_restore.gui.widget import DeblurWidget, DehazeWidget, MotionDeblurWidget
from napari_restore.physics import psf
from waiting import LIMIT_MS

KERNEL = psf.gaussian(1.2)
UNITS = {"scale": (0.065, 0.065), "units": ("µm", "µm")}
RECORDED = {"na": 0.8, "wavelength": "520 nm", "modality": "widefield"}


def blurred(points=False) -> np.ndarray:
    rng = np.random.default_rng(0)
    scene = rng.random((64, 64))
    if points:
        scene = np.zeros((90, 90))
        scene[[20, 20, 70, 70], [20, 70, 20, 70]] = 1000
    light = psf.convolve(torch.from_numpy(scene)[None, None], torch.tensor(KERNEL)[None])
    return (light[0, 0].numpy() + rng.normal(1, 0.01, scene.shape)).astype(np.float32)


@pytest.fixture(params=[DeblurWidget, MotionDeblurWidget])
def dock(request, viewer, qtbot):
    dock = request.param(viewer)
    qtbot.addWidget(dock)
    yield dock
    dock.session.close()


def ready(qtbot, dock) -> None:
    qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)


def layers(viewer) -> Image:
    viewer.add_image(psf.gaussian(2.4), name="psf", scale=(0.0325,) * 2, units=("µm",) * 2)
    viewer.add_image(blurred(points=True), name="beads", **UNITS)
    return viewer.add_image(blurred(), name="cells", metadata={"optics": RECORDED}, **UNITS)


@pytest.mark.parametrize(
    ("source", "layer", "said"),
    [
        (LAYER, "psf", "As given in 'psf'. The PSF was resampled"),
        (BEADS, "beads", "4 of 4 beads were averaged"),
        (OPTICS, None, "widefield, NA 0.8, λ 520 nm"),
    ],
)
def test_one_that_is_given_is_shown_before_the_run(dock, viewer, qtbot, source, layer, said):
    cells = layers(viewer)
    ready(qtbot, dock)
    dock.controls.psf.source.value = source
    if layer is not None:
        dock.controls.psf.layer.value = viewer.layers[layer]
    assert viewer.layers.selection == {cells}
    assert "invert-mono" in dock.summary.text().replace("\N{NO-BREAK SPACE}", " ")
    text = dock.psf_picture.text.text()
    assert said in text and "FWHM" in text and "µm" in text
    assert not dock.psf_picture.isHidden() and dock.psf_picture.picture.pixmap().width() > 0
    dock.psf_picture.button.click()
    added = viewer.layers[-1]
    assert added.name == "PSF of cells" and added.ndim == 2
    assert micrometers_of(added) == pytest.approx((0.065, 0.065))
    assert viewer.layers.selection == {cells}


def test_found_is_searched_for_once_and_explained(viewer, qtbot, monkeypatch):
    searches = []

    def find(*_: Any, **__: Any) -> Finding:
        searches.append(1)
        return Finding(
            "found",
            PSF(KERNEL, "gaussian", {}, 0.1, "Found: a Gaussian"),
            0.01,
            "Found: a Gaussian; it explains the image.",
        )

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_psf", find)
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    cells = viewer.add_image(blurred(), name="cells", **UNITS)
    ready(qtbot, dock)
    dock.controls.psf.source.value = FOUND
    assert dock.psf_picture.isHidden()
    for start in (dock.preview, dock.restore):
        start()
        qtbot.waitUntil(lambda: not dock.session.running, timeout=LIMIT_MS)
        assert "it explains the image" in dock.psf_picture.text.text()
    assert len(searches) == 1
    record = viewer.layers[-1].metadata["napari_restore"]
    assert record["psf"]["family"] == "gaussian" and record["source"] == cells.name
    np.testing.assert_array_equal(PSF.from_record(record["psf"]).array, KERNEL)
    dock.controls.psf.source.value = NONE
    assert dock.psf_picture.isHidden()
    dock.session.close()


def test_a_microscope_asks_for_what_it_needs(dock, viewer, qtbot):
    layers(viewer)
    ready(qtbot, dock)
    controls = dock.controls.psf
    controls.source.value = OPTICS
    controls.fields["sheet_thickness"].value = "1"
    controls.fields["defocus"].value = "0.5"
    assert controls.fields["sheet_thickness"].native.isHidden()
    assert "500 nm out of focus" in dock.psf_picture.text.text()
    controls.modality.value = "light sheet"
    assert not controls.fields["sheet_thickness"].native.isHidden()
    assert "light sheet" in dock.psf_picture.text.text()
    controls.fields["sheet_thickness"].value = ""
    assert "sheet thickness is missing" in dock.summary.text()


def test_fields_are_filled_from_what_is_recorded(dock, viewer, qtbot):
    layers(viewer)
    ready(qtbot, dock)
    assert dock.controls.psf._optics.isHidden()
    dock.controls.psf.source.value = OPTICS
    fields = {name: field.value for name, field in dock.controls.psf.fields.items()}
    assert (fields["na"], fields["wavelength"], fields["pixel_size"]) == ("0.8", "520", "65")
    dock.controls.psf.fields["na"].value = "much"
    assert "NA is 'much'" in dock.summary.text()
    assert not dock.restore_button.isEnabled()


@pytest.mark.parametrize(
    ("source", "said"),
    [(LAYER, "no other image layer"), (BEADS, "no other image layer"), (OPTICS, "is missing")],
)
def test_what_is_missing_is_said(dock, viewer, qtbot, source, said):
    viewer.add_image(blurred(), name="cells")
    ready(qtbot, dock)
    dock.controls.psf.source.value = source
    assert said in dock.summary.text()
    assert not dock.restore_button.isEnabled()


def test_dehaze_takes_none(viewer, qtbot):
    dock = DehazeWidget(viewer)
    qtbot.addWidget(dock)
    dock.controls.psf.source.value = FOUND
    assert dock.options.psf is None
    dock.session.close()


@pytest.mark.parametrize("kind", ["layer", "beads", "optics", "array"])
def test_scripts_take_layers(kind, viewer):
    cells = layers(viewer)
    given = {
        "layer": viewer.layers["psf"],
        "beads": BeadsIn(viewer.layers["beads"]),
        "optics": OpticsOf({}),
        "array": KERNEL,
    }[kind]
    result = restore_layer(cells, "deblur", psf=given)
    record = result.metadata["napari_restore"]
    assert record["model"] == "invert-mono"
    assert record["psf"]["fwhm"] == pytest.approx(0.065 * record["psf"]["fwhm_px"], rel=0.01)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.full((5, 5), np.nan), "'cells'.*NaN"),
        (Image(np.zeros((5, 5)), name="zero"), "0 everywhere"),
        (BeadsIn(Image(np.zeros((3, 20, 20)), name="stack")), "Layer 'stack'"),
        (BeadsIn(Image(np.random.default_rng(0).normal(9, 1, (60, 60)))), "No bead was found"),
    ],
    ids=["nan", "zero", "stack", "no beads"],
)
def test_what_is_none_is_refused_with_the_layer(bad, said):
    with pytest.raises(RestoreError, match=said):
        restore_layer(Image(blurred(), name="cells"), "deblur", psf=bad)
