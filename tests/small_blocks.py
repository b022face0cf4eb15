"""What tests of large images share: images that are many blocks though they are small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.cli import restore
from napari_restore.image import layout
from napari_restore.io import ome_zarr

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

#: Blocks of 64 pixels, each a chunk, tiled as the whole image is.
BLOCK = 64


def make_blocks_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BLOCK_PIXELS", BLOCK**2)
    monkeypatch.setattr(layout, "BLOCK_TILES", 1)
    monkeypatch.setattr(ome_zarr, "CHUNK", BLOCK)
    monkeypatch.setattr(restore, "TILE", BLOCK)
    monkeypatch.setattr("napari_restore.io.tiff.writer.TILE", BLOCK)
    monkeypatch.setattr(ome_zarr, "_REDUCED", BLOCK**2)
    monkeypatch.setattr(ome_zarr, "COARSEST", BLOCK)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
