"""Stacks in the Deblur dock: as volumes or plane by plane, by which method, and previews."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image
from napari.layers._source import Source
from napari.utils.notifications import notification_manager
from scipy import ndimage

from napari_restore import deblur
from napari_restore.errors import ImageError
from napari_restore.gui.describe import describe
from napari_restore.gui.jobs import plan_layer
from napari_restore.gui.options import DockOptions
from napari_restore.gui.psf_controls import OPTICS, picture_of, psf_layer
from napari_restore.gui.psf_source import OpticsOf
from napari_restore.gui.rates import Rates
from napari_restore.gui.session import Session
from napari_restore.gui.widget import DeblurWidget
from napari_restore.samples import load_sample
from waiting import LIMIT_MS

OPTICAL = {"na": 1.0, "wavelength": "520 nm", "modality": "confocal", "refractive_index": 1.33}
VOXEL = {"scale": (0.3, 0.1, 0.1), "units": ("µm",) * 3}
ZYX = {"axis_labels": ("z", "y", "x")}


def stack(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    sharp = np.where(rng.random(shape) > 0.99, 60.0, 0)
    return rng.poisson(20 * ndimage.gaussian_filter(sharp, 1.2) + 5).astype(np.uint16)


def planned(layer: Image, **options: Any) -> Any:
    asked = DockOptions(psf=OpticsOf(OPTICAL), **options).planning()
    return plan_layer(layer, "deblur", **asked)


@pytest.mark.parametrize(
    ("layer", "options", "dimensions", "said"),
    [
        (VOXEL | ZYX, {}, 3, "As a volume: 8 planes along Z"),
        (VOXEL, {}, 2, "Plane by plane: no axis is named Z"),
        (VOXEL, {"dimensions": 3}, 3, "one volume"),
        (VOXEL | ZYX, {"dimensions": 2}, 2, "8 planes"),
        (VOXEL | {"axis_labels": ("t", "y", "x")}, {}, 2, "8 planes"),
        (VOXEL | ZYX, {"method": "richardson-lucy"}, 3, "Richardson–Lucy"),
        (ZYX | {"units": ("pixel", "µm", "µm")}, {}, 2, "Plane by plane: the z step is not known"),
        (ZYX | {"units": ("s", "µm", "µm")}, {}, 2, "Axis z is counted in second: it is taken for"),
    ],
)
def test_what_is_chosen_is_said(layer, options, dimensions, said, tmp_path):
    job = planned(Image(stack(8, 24, 24), **layer), **options)
    assert job.plan.dimensions == dimensions
    text = describe([job], Rates(tmp_path / "none")).replace("\N{NO-BREAK SPACE}", " ")
    assert said in text
    if dimensions == 3:
        assert job.plan.psfs[0].pixel_size == pytest.approx((0.3, 0.1, 0.1))
        added = psf_layer(job.plan.psfs[0], "", job.layer)
        assert added.ndim == 3 and tuple(added.scale) == pytest.approx((0.3, 0.1, 0.1))


def test_axes_and_lengths_are_those_of_the_file(tmp_path):
    path = tmp_path / "stack.ome.tif"
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.1,
        "PhysicalSizeY": 0.1,
        "PhysicalSizeZ": 0.3,
    }
    tifffile.imwrite(path, stack(6, 24, 24), metadata=metadata)
    layer = Image(tifffile.imread(path))
    # As napari's reader leaves them.
    assert str(layer.axis_labels[0]) == "-3" and str(layer.units[0]) == "pixel"
    layer._source = Source(path=str(path))
    job = planned(layer)
    assert job.plan.dimensions == 3
    assert job.plan.psfs[0].pixel_size == pytest.approx((0.3, 0.1, 0.1))


def test_fields_of_volumes_are_shown_for_stacks_and_what_is_typed_counts(viewer, qtbot):
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    controls = dock.controls
    viewer.add_image(stack(24, 24), name="plane")
    qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)
    assert controls.dimensions.native.isHidden() and controls.method.native.isHidden()
    viewer.add_image(stack(8, 24, 24), name="stack", metadata={"optics": OPTICAL}, **VOXEL, **ZYX)
    controls.psf.source.value = OPTICS
    fields = controls.psf.fields
    assert not controls.dimensions.native.isHidden() and not controls.method.native.isHidden()
    assert (fields["z_step"].value, fields["pixel_size"].value) == ("300", "100")
    assert fields["defocus"].native.isHidden() and not fields["z_step"].native.isHidden()
    assert "As a volume" in dock.summary.text()
    assert dock.psf_picture.psf.dimensions == 3
    assert not picture_of(dock.psf_picture.psf).isNull()
    # One short line: what the rows above do not tell is the tooltip.
    line, tip = dock.psf_picture.text.text(), dock.psf_picture.text.toolTip()
    assert line.startswith("PSF: ") and "\n" not in line and len(line) < 36
    assert "planes deep" in tip and "NA 1" in tip and "pinhole" in tip
    dock.psf_picture.show_psf(dock.psf_picture.psf, "All. Check the aperture.", "Check it.")
    assert dock.psf_picture.text.text() == f"{line}\nCheck it."
    dock.refresh()
    fields["z_step"].value = "250"
    assert dock.psf_picture.psf.pixel_size == pytest.approx((0.25, 0.1, 0.1))
    fields["z_step"].value = "0"
    said = dock.summary.text()
    assert "The z step" in said and "pixel_size is" not in said and "scale along Z" in said
    assert not dock.restore_button.isEnabled()
    fields["z_step"].value = "300"
    controls.dimensions.value = 2
    assert not fields["defocus"].native.isHidden() and fields["z_step"].native.isHidden()
    dock.session.close()


def test_depth_in_seconds_is_no_volume():
    layer = Image(stack(8, 24, 24), **ZYX, units=("s", "µm", "µm"), scale=(2, 0.1, 0.1))
    with pytest.raises(ImageError, match=r"'z'.* is counted in second.* Correct its unit"):
        planned(layer, dimensions=3)


def test_a_coarse_sampling_is_always_seen(viewer, qtbot):
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    coarse = VOXEL | {"scale": (0.3, 0.4, 0.4)}
    viewer.add_image(stack(8, 24, 24), metadata={"optics": OPTICAL}, **coarse, **ZYX)
    dock.controls.psf.source.value = OPTICS
    qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)
    assert "pixels of 400 nm (Nyquist: 65 nm)" in dock.psf_picture.text.text()
    dock.session.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_a_preview_is_that_part_of_the_whole_in_any_view(order, viewer, qtbot):
    layer = viewer.add_image(stack(8, 30, 28), name="stack", **VOXEL, **ZYX)
    session = Session(viewer, "deblur")
    options = DockOptions(psf=OpticsOf(OPTICAL), method="richardson-lucy")
    viewer.dims.order = order
    hidden = order[0]
    viewer.dims.set_current_step(hidden, 4)
    layer.corner_pixels = np.array([[0, 0, 0], [7, 29, 27]])
    said: list[str] = []
    session.runner.ended.connect(said.append)
    session.preview(options)
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    preview = viewer.layers[-1]
    assert preview.name == "stack [preview]", said
    seen = np.moveaxis(preview.data, hidden, 0)
    session.restore(options)
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    whole = np.moveaxis(viewer.layers[-1].data, hidden, 0)
    source = np.moveaxis(layer.data, hidden, 0)
    np.testing.assert_allclose(seen[4].astype(int), whole[4], atol=1)
    np.testing.assert_array_equal(seen[3], source[3])
    # What the dock says before is no warning after.
    assert not [x for x in notification_manager.records if "As a volume" in x.message]
    session.close()


def test_the_sample_movie_is_restored_as_a_volume_at_each_time(viewer, qtbot):
    array, options = load_sample("volume_movie")
    layer = viewer.add_image(array[:2], **options)
    dock = DeblurWidget(viewer)
    qtbot.addWidget(dock)
    dock.controls.psf.source.value = OPTICS
    dock.controls.method.value = "richardson-lucy"
    qtbot.waitUntil(dock.restore_button.isEnabled, timeout=LIMIT_MS)
    assert "As a volume: 16 planes along Z" in dock.summary.text().replace(
        "\N{NO-BREAK SPACE}", " "
    )
    dock.restore_button.click()
    qtbot.waitUntil(lambda: not dock.session.running, timeout=LIMIT_MS)
    result = viewer.layers[-1]
    assert result is not layer
    np.testing.assert_array_equal(result.scale, layer.scale)
    assert result.units == layer.units and result.axis_labels == layer.axis_labels
    told = {"psf": options["metadata"]["optics"], "pixel_size": options["scale"][1:]}
    told |= {"method": "richardson-lucy", "axes": "TZYX", "dimensions": 3}
    np.testing.assert_array_equal(result.data, deblur(array[:2], **told))
    dock.session.close()
