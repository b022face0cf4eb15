"""``napari-restore gui``: PyTorch first, then napari."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.errors import FileError, RestoreError
from napari_restore.runtime import import_torch

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    """Open napari with the files and stay until it is closed."""
    for path in args.files:
        if not path.exists():
            raise FileError(f"{path}: There is no such file.")
    import_torch()
    try:
        import napari

        viewer = napari.Viewer()
    except ImportError as error:
        raise RestoreError(
            f"napari's window cannot be opened: {error}. Install napari with Qt: "
            'pip install "napari-restore[all]"'
        ) from error
    if args.files:
        viewer.open([str(path) for path in args.files])
    napari.run()
    return 0
