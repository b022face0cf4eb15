"""Which image a file holds: enough to see whether it is still the same."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.layout import Planes
from napari_restore.image.sampling import sample_regions

if TYPE_CHECKING:
    from pathlib import Path

    from napari_restore.image.layout import Layout

    from .image_file import ImageFile

#: Pixels whose hash is taken.
_SAMPLE_PIXELS = 2**20


def identity_of(picture: ImageFile, layout: Layout) -> dict[str, Any]:
    """Path, size and time of an input, shape and dtype, and a hash of an even sample of it.

    Parameters
    ----------
    picture : ImageFile
    layout : Layout
        How its axes are read.

    Returns
    -------
    dict
        Plain types. Of a folder, the bytes and the latest change of all files in it.
    """
    size, changed = _size_and_change(picture.path)
    return {
        "path": str(picture.path.resolve()),
        "bytes": size,
        "modified_ns": changed,
        "shape": list(layout.shape),
        "dtype": str(picture.data.dtype),
        "sample_sha256": sample_hash(picture.data, layout),
    }


def sample_hash(image: Any, layout: Layout) -> str:
    """SHA-256 of an even, bounded sample of an image."""
    source, digest = Planes(image, layout), hashlib.sha256()
    for index, region in sample_regions(layout, _SAMPLE_PIXELS):
        block = np.ascontiguousarray(source.read(index, region))
        digest.update(block.astype(block.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _size_and_change(path: Path) -> tuple[int, int]:
    if not path.is_dir():
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    size = changed = 0
    for folder, _, names in os.walk(path):
        for name in names:
            state = os.stat(os.path.join(folder, name))
            size, changed = size + state.st_size, max(changed, state.st_mtime_ns)
    return size, changed
