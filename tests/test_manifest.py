from __future__ import annotations

from pathlib import Path

import numpy as np
from npe2 import PluginManifest

from napari_restore.models.catalog import TASKS
from napari_restore.samples import SAMPLES

PACKAGE = Path(__file__).parents[1] / "src" / "napari_restore"


def manifest() -> PluginManifest:
    return PluginManifest.from_file(PACKAGE / "napari.yaml")


def test_manifest_is_valid_and_every_name_in_it_exists():
    manifest().validate_imports()


def test_docks_stand_in_the_plugins_and_the_filter_menu():
    found = manifest().contributions
    assert [widget.display_name for widget in found.widgets] == [
        "Deblur",
        "Dehaze",
        "Motion deblur",
        "Denoise",
        "Train a model",
        "Model library",
    ]
    commands = {f"napari-restore.{task}" for task in TASKS}
    assert {item.command for item in found.menus["napari/layers/filter"]} == commands


def test_manifest_at_the_top_is_the_package_s():
    top = Path(__file__).parents[1] / "napari.yaml"
    assert top.read_text() == (PACKAGE / "napari.yaml").read_text()


def test_napari_finds_the_installed_plugin():
    from npe2 import PluginManager

    manager = PluginManager()
    manager.discover()
    assert manager.get_manifest("napari-restore").display_name == "Restore"


def test_every_sample_opens_from_the_menu():
    found = {item.key: item for item in manifest().contributions.sample_data}
    assert {key: item.display_name for key, item in found.items()} == {
        sample.key: sample.title for sample in SAMPLES
    }


def test_samples_become_layers_with_their_pixel_size(make_napari_viewer):
    viewer = make_napari_viewer()
    for sample in SAMPLES:
        (layer,) = viewer.open_sample("napari-restore", sample.key)
        assert layer.rgb == sample.rgb
        if sample.scale is not None:
            space = len(sample.scale)
            np.testing.assert_allclose(layer.scale[-space:], sample.scale)
            assert {str(unit) for unit in layer.units[-space:]} == {sample.units}
