from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_restore.models import catalog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's models are: a library of its own for each test."""
    folder = tmp_path / "library"
    monkeypatch.setattr(catalog, "own_folder", lambda: folder)
    return folder
