"""Docks that restore on a dask cluster."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image
from napari.utils.notifications import notification_manager

from napari_restore import restore, restore_layer
from napari_restore.gui import clients
from napari_restore.gui.controls import Controls
from napari_restore.gui.layers import METADATA_KEY
from napari_restore.gui.options import DockOptions
from napari_restore.gui.widget import DeblurWidget
from waiting import LIMIT_MS

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def address(dask_cluster):
    yield dask_cluster.scheduler_address
    while clients._CLIENTS:
        clients._CLIENTS.popitem()[1].close()


@pytest.fixture
def widget(viewer, qtbot, monkeypatch):
    monkeypatch.setattr(Controls, "_last_address", "")
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    widget.show_advanced(True)
    yield widget
    widget.session.close()


def finished(qtbot, session) -> None:
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)


def test_the_address_is_asked_for_where_it_is_needed(widget, viewer, image, qtbot):
    viewer.add_image(image, name="cells")
    qtbot.waitUntil(widget.restore_button.isEnabled, timeout=LIMIT_MS)
    controls = widget.controls
    address = controls.address.native
    assert address.isHidden()
    assert widget.options.scheduler is None
    controls.place.value = "dask cluster"
    assert not address.isHidden()
    assert not widget.restore_button.isEnabled()
    assert "address of the dask scheduler is missing" in widget.summary.text()
    controls.address.value = "somewhere"
    assert "'somewhere' is not the address" in widget.summary.text()
    controls.address.value = "tcp://127.0.0.1:8786"
    assert widget.restore_button.isEnabled()
    summary = widget.summary.text().replace("\N{NO-BREAK SPACE}", " ")
    assert summary.endswith("· dask cluster 127.0.0.1:8786")
    controls.place.value = "this computer"
    assert address.isHidden()
    assert "CPU" in widget.summary.text() or "CUDA" in widget.summary.text()
    other = DeblurWidget(viewer)
    qtbot.addWidget(other)
    assert other.controls.address.value == "tcp://127.0.0.1:8786"
    assert other.options.scheduler is None
    other.session.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_results_are_those_of_this_computer(session, viewer, image, qtbot, address, lazy):
    data = da.from_array(image, chunks=60) if lazy else image
    viewer.add_image(data, name="cells")
    seen, said = [], []
    session.runner.progressed.connect(seen.append)
    session.runner.ended.connect(said.append)
    session.restore(DockOptions(tile=64, scheduler=address))
    finished(qtbot, session)
    result = viewer.layers["cells [deblurred]"]
    assert isinstance(result.data, da.Array if lazy else np.ndarray)
    # Whatever computes other dask arrays here: this one is bound to its cluster.
    expected = restore(data, "deblur", tile=64)
    np.testing.assert_array_equal(np.asarray(result.data), np.asarray(expected))
    record = result.metadata[METADATA_KEY]
    assert (record["workers"], record["tile"]) == (2, 64)
    assert distributed.client._get_global_client() is None
    assert any("Connecting to" in step.message for step in seen)
    if not lazy:
        assert any("on 2 workers" in step.message for step in seen)
        assert seen[-1].done == seen[-1].total == image.size


def test_two_images_as_frames(session, viewer, image, qtbot, address):
    pair = [viewer.add_image(np.roll(image, 2 * k, 1), name=name) for k, name in enumerate("ab")]
    session.task = "motion_deblur"
    viewer.layers.selection = set(pair)
    session.restore(DockOptions(tile=64, frames=2, exposure=0.5, scheduler=address))
    finished(qtbot, session)
    expected = restore(
        np.stack([layer.data for layer in pair]), "motion_deblur", frames=2, exposure=0.5, tile=64
    )
    np.testing.assert_array_equal(viewer.layers["a [motion deblurred]"].data, expected[0])


def test_cancel(session, viewer, image, qtbot, address):
    viewer.add_image(np.stack([np.tile(image, (3, 3))] * 12), name="cells")
    said = []
    session.runner.ended.connect(said.append)
    steps = []
    session.runner.progressed.connect(lambda step: steps.append(step.message))
    session.restore(DockOptions(tile=128, psf="none", scheduler=address))
    qtbot.waitUntil(lambda: any("on 2 workers" in step for step in steps), timeout=LIMIT_MS)
    session.cancel()
    finished(qtbot, session)
    assert said == ["Canceled; nothing was changed."]
    assert len(viewer.layers) == 1


def test_nobody_listens(session, viewer, image, qtbot, monkeypatch):
    monkeypatch.setattr(
        "napari_restore.gui.clients.connect",
        lambda address: clients_connect(address, timeout=0.3),
    )
    viewer.add_image(image, name="cells")
    said, shown = [], []
    session.runner.ended.connect(said.append)
    notification_manager.notification_ready.connect(shown.append)
    session.restore(DockOptions(scheduler="tcp://127.0.0.1:9"))
    finished(qtbot, session)
    notification_manager.notification_ready.disconnect(shown.append)
    assert "No dask scheduler answers at tcp://127.0.0.1:9" in shown[0].message
    assert "'cells' was not restored" in said[0]
    assert len(viewer.layers) == 1


clients_connect = clients.connect


def test_layers_in_scripts(image, address):
    options = {"tile": 64, "psf": "none"}
    result = restore_layer(Image(image), "deblur", **options, scheduler=address)
    np.testing.assert_array_equal(result.data, restore(image, "deblur", **options))
    assert result.metadata[METADATA_KEY]["workers"] == 2
