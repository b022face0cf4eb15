from __future__ import annotations

from pathlib import Path

from npe2 import PluginManifest

PACKAGE = Path(__file__).parents[1] / "src" / "napari_restore"


def manifest() -> PluginManifest:
    return PluginManifest.from_file(PACKAGE / "napari.yaml")


def test_manifest_is_valid_and_every_name_in_it_exists():
    manifest().validate_imports()


def test_three_docks_stand_in_the_plugins_and_the_filter_menu():
    found = manifest().contributions
    assert [widget.display_name for widget in found.widgets] == [
        "Deblur",
        "Dehaze",
        "Motion deblur",
    ]
    commands = {widget.command for widget in found.widgets}
    assert {item.command for item in found.menus["napari/layers/filter"]} == commands


def test_manifest_at_the_top_is_the_package_s():
    top = Path(__file__).parents[1] / "napari.yaml"
    assert top.read_text() == (PACKAGE / "napari.yaml").read_text()


def test_napari_finds_the_installed_plugin():
    from npe2 import PluginManager

    manager = PluginManager()
    manager.discover()
    assert manager.get_manifest("napari-restore").display_name == "Restore"
