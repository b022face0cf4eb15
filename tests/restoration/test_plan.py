"""What is decided before a pixel is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_restore.models.catalog import CATALOG
from napari_restore.restoration.plan import suited
from planning import plan


def test_a_network_that_keeps_the_features_of_a_tile_gets_smaller_ones_on_a_processor() -> None:
    image = np.zeros((3000, 3000), np.uint16)
    usual = plan(image, "deblur", device="cpu")
    assert usual.tiles.side >= 2048
    assert usual.tiles_on("cpu") == replace(usual, tiles_for="cuda").tiles_on("cpu") == usual.tiles
    for spec in CATALOG:
        assert suited(usual.tiles, spec, "cpu") == usual.tiles
    whole = replace(usual.spec, architecture="nafnet")
    for devices in ("cpu", "cpu, cuda"):
        assert suited(usual.tiles, whole, devices).side < 1000
    assert suited(usual.tiles, whole, "cuda") == usual.tiles
