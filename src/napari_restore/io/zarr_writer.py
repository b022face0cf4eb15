"""Write OME-Zarr, block by block: the full size, then each coarser level from the one above."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.blocks import Block, blocks
from napari_restore.image.pyramid import pyramid

from . import ngff
from .checkpoint import unfinished

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .checkpoint import Checkpoint
    from .image_file import ImageFile
    from .replacing import Place

#: Side of the chunks in the plane, unless those of the original are kept.
CHUNK = 1024
#: Sides of an original's chunks in the plane that are kept, in pixels, and most samples of one.
_KEPT_SIDES, _KEPT_SAMPLES = (256, 2048), 2**24
#: Samples that one coarser block is the mean of, about.
_REDUCED = 2**21


def check_zarr(picture: ImageFile) -> None:
    """Raise a `FileError` if OME-Zarr cannot hold the image."""
    data = picture.data
    if data.size == 0:
        raise FileError(
            f"OME-Zarr of an empty image (shape {data.shape}) would have no levels. Name the "
            "result .npy."
        )
    if np.dtype(data.dtype).kind == "f" and data.dtype.itemsize > 8:
        raise FileError(f"OME-Zarr cannot hold {data.dtype} samples. Name the result .npy.")
    if picture.alpha is not None:
        raise FileError(
            "OME-Zarr has no place for the alpha of a gray image. Name the result .tif."
        )
    ngff.stored_order(picture.axes or "")


class OmeZarr:
    """An OME-Zarr image that is being written. It has no attributes before it is finished.

    Parameters
    ----------
    folder : Path
        Of the group.
    picture : ImageFile
        The original; its axes are named.

    Attributes
    ----------
    chunks : tuple of int
        Of the full size, for each axis of the original. Blocks that are written end at chunks.
    """

    def __init__(self, folder: Path, picture: ImageFile) -> None:
        self._folder, self._picture = folder, picture
        axes = picture.axes or ""
        self._order = ngff.stored_order(axes)
        self._axes = "".join(axes[axis] for axis in self._order)
        shape = tuple(int(picture.data.shape[axis]) for axis in self._order)
        original = picture.extras.get("ngff", {}).get("shapes", ())
        self._shapes = [shape, *ngff.level_shapes(shape, self._axes, original)]
        self.chunks = _chunks(picture, axes)
        self._levels: list[Any] = []

    def create(self) -> None:
        """Make the arrays of all levels, empty."""
        import zarr

        kind: Literal[2, 3] = 2 if ngff.version_of(self._picture) == "0.4" else 3
        group = zarr.create_group(self._folder, zarr_format=kind)
        dtype = np.dtype(self._picture.data.dtype).newbyteorder("=")
        names = [name["name"] for name in self._described()]
        options: dict[str, Any] = (
            {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            if kind == 2
            else {"dimension_names": names}
        )
        chunks = [self.chunks[axis] for axis in self._order]
        for level, shape in enumerate(self._shapes):
            size = tuple(min(a, b) for a, b in zip(chunks, shape, strict=True))
            group.create_array(str(level), shape=shape, chunks=size, dtype=dtype, **options)

    def open(self) -> None:
        """Open the arrays to write to them."""
        import zarr

        group = zarr.open_group(self._folder, mode="r+")
        self._levels = [group[str(level)] for level in range(len(self._shapes))]

    def write(self, block: Block, data: NDArray[Any]) -> None:
        """Write a block of the full size; afterward it is on disk.

        Parameters
        ----------
        block : tuple of slice
            In the order of the original's axes.
        data : ndarray
        """
        place = tuple(block[axis] for axis in self._order)
        self._put(0, place, data.transpose(self._order))

    def coarser(self) -> Iterable[tuple[int, list[Block]]]:
        """Levels below the full size, finest first, and the blocks to `reduce` in each."""
        for level, shape in enumerate(self._shapes[1:], 1):
            finer = self._shapes[level - 1]
            factor = np.prod([round(a / b) for a, b in zip(finer, shape, strict=True)])
            step = list(self._levels[level].chunks)
            # Whole chunks, of as many columns as fit, then of as many rows.
            for axis in reversed(range(len(shape))):
                room = _REDUCED // int(factor * np.prod(step))
                step[axis] = min(shape[axis], step[axis] * max(1, room))
            yield level, blocks(shape, step)

    def reduce(self, level: int, block: Block) -> None:
        """Compute a block of a coarser level, the mean of the level above, and write it."""
        finer, coarser = self._levels[level - 1], self._levels[level]
        factors = [round(a / b) for a, b in zip(finer.shape, coarser.shape, strict=True)]
        above = tuple(
            slice(part.start * f, min(part.stop * f, length))
            for part, f, length in zip(block, factors, finer.shape, strict=True)
        )
        shape = tuple(part.stop - part.start for part in block)
        self._put(level, block, pyramid(finer[above], [shape])[-1])

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the attributes, with which the folder becomes an image."""
        import zarr

        # Through JSON, so that what NumPy made of a number is plain; JSON knows no infinity.
        attributes = json.loads(
            json.dumps(
                ngff.restored_attributes(self._picture, self._axes, self._shapes, provenance)
            ),
            parse_constant=lambda _: None,
        )
        group = zarr.open_group(self._folder, mode="r+")
        group.attrs.update(attributes)
        _to_disk([path for path in self._folder.iterdir() if path.is_file()])

    def _described(self) -> list[dict[str, Any]]:
        attributes = ngff.restored_attributes(self._picture, self._axes, self._shapes, {})
        entry = attributes.get("ome", attributes)["multiscales"][0]
        axes: list[dict[str, Any]] = entry["axes"]
        return axes

    def _put(self, level: int, block: Block, data: NDArray[Any]) -> None:
        array = self._levels[level]
        array[block] = data
        numbers = (
            range(part.start // chunk, -(-part.stop // chunk))
            for part, chunk in zip(block, array.chunks, strict=True)
        )
        root = self._folder / str(level)
        files = [root / array.metadata.encode_chunk_key(at) for at in itertools.product(*numbers)]
        # Chunks of zeros alone are not stored.
        _to_disk([path for path in files if path.exists()])


def _chunks(picture: ImageFile, axes: str) -> tuple[int, ...]:
    own = getattr(picture.data, "chunks", None) if picture.format == "zarr" else None
    low, high = _KEPT_SIDES
    if own and int(np.prod(own)) <= _KEPT_SAMPLES:
        sides = [own[axes.index(letter)] for letter in "YX"]
        if all(low <= side <= high for side in sides):
            return tuple(int(n) for n in own)
    shape = picture.data.shape
    return tuple(min(CHUNK, shape[i]) if a in "YX" else 1 for i, a in enumerate(axes))


def _to_disk(paths: Iterable[Path]) -> None:
    """Wait until files and the folders that name them are on disk."""
    paths = list(paths)
    for path in [*paths, *{path.parent for path in paths}]:
        try:
            handle = os.open(path, os.O_RDONLY)
        except PermissionError:
            continue  # Windows does not open folders
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reduce_all(image: OmeZarr, part: Checkpoint) -> Iterator[tuple[int, Block]]:
    """Compute every coarser block that is not finished; gives each when it is on disk."""
    for level, todo in image.coarser():
        for number, block in enumerate(todo):
            if (level, number) not in part.done:
                image.reduce(level, block)
                part.finished(level, number)
            yield level, block


def write_zarr(
    place: Place, data: NDArray[Any], picture: ImageFile, provenance: Mapping[str, Any]
) -> None:
    """Write a whole array as OME-Zarr.

    Parameters
    ----------
    place : Place
        Of its folder. It appears whole, or not at all.
    data : ndarray
        In the shape of ``picture.data``.
    picture : ImageFile
        The original; its axes are named.
    provenance : mapping
        How the result was made.
    """
    with unfinished(place, resume=False) as part:
        image = OmeZarr(part.image, picture)
        part.begin({"writing": place.target.name}, image.create)
        image.open()
        for block in blocks(data.shape, image.chunks):
            image.write(block, data[block])
        for _ in reduce_all(image, part):
            pass
        image.finish(provenance)
        part.commit()
