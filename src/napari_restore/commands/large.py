"""Restore into OME-Zarr, or into a large TIFF: block by block, in bounded memory."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.core.blocks import BLOCK_BYTES, block_shape, blocks, pixels_of
from napari_restore.core.protocol import TileOptions
from napari_restore.core.steps import drain
from napari_restore.errors import FileError
from napari_restore.files.identity import identity_of
from napari_restore.files.picture import stored_axes
from napari_restore.files.stored import few_chunks_at_a_time
from napari_restore.files.tiff_writer import TILE, Tiles, add_provenance, write_tiff
from napari_restore.files.unfinished import Unfinished, part_of, unfinished
from napari_restore.files.zarr_writer import OmeZarr, reduce_all
from napari_restore.restoration import prepare

from .console import say
from .progress import progress_bar
from .work import Work, for_workers, restored_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray

    from napari_restore.core.axes import Layout
    from napari_restore.core.blocks import Block
    from napari_restore.files import Picture, Place
    from napari_restore.plan import Plan


def restore_into_zarr(
    picture: Picture,
    decided: Plan,
    place: Place,
    *,
    resume: bool,
    client: Client | None = None,
) -> dict[str, Any]:
    """Restore into an OME-Zarr that appears whole; what is finished is kept if this is broken off.

    Returns
    -------
    dict
        Provenance, as it stands in the result too; of a cluster, also the number of workers.

    Raises
    ------
    RestoreError
    """
    with few_chunks_at_a_time(), unfinished(place, resume=resume) as part:
        decided, workers = for_workers(decided, client)
        if part.header and not decided.tiles.fixed:
            # Chosen by the memory that was free; another choice gives other roundings.
            decided = replace(decided, tiles=TileOptions(**part.header["tiles"]))
        scales, complete = drain(prepare(picture.data, decided, None))
        layout, image = decided.layout, OmeZarr(part.image, picture)
        itemsize = np.dtype(picture.data.dtype).itemsize
        shape = block_shape(
            layout,
            image.chunks,
            itemsize,
            decided.tiles,
            full_width=_in_strips(picture.data, layout, image.chunks),
        )
        made = decided.provenance(scales=scales, exposure=complete.exposure)
        if workers is not None:
            made |= {"device": workers.device, "precision": workers.precision}
        header = {
            "plan": made,
            "tiles": asdict(decided.tiles),
            "block": list(shape),
            "input": identity_of(picture, layout),
        }
        part.begin(header, image.create)
        image.open()
        todo = list(enumerate(blocks(layout.shape, shape)))
        done = [block for number, block in todo if (0, number) in part.done]
        bar = progress_bar(
            layout.pixels, picture.path.name, sum(pixels_of(layout, b) for b in done)
        )
        with bar, _hint(place.target, part, len(todo)), ThreadPoolExecutor(1) as writer:
            work = Work(picture, complete, scales, bar, client, workers)
            for (level, _), record in part.done.items():
                if level == 0:
                    work.add(**record)
            rest = [(number, block) for number, block in todo if (0, number) not in part.done]
            # One block is written while the next is computed.
            written: Future[None] | None = None
            with restored_blocks(work, rest) as restored:
                for number, block, samples, report in restored:
                    record = {"clipped": report.clipped, "invalid": report.invalid}
                    record |= {"notes": report.notes, "device": report.device}
                    if written is not None:
                        written.result()
                    written = writer.submit(_keep, image, part, number, block, samples, record)
                    del samples
                    work.add(**record)
            if written is not None:
                written.result()
            for level, _ in reduce_all(image, part):
                bar.set_postfix_str(f"Pyramid, level {level}")
            provenance = work.provenance(decided)
            image.finish(provenance)
            part.commit()
    return provenance if workers is None else provenance | {"workers": workers.count}


def restore_into_tiff(
    picture: Picture, decided: Plan, place: Place, *, client: Client | None = None
) -> dict[str, Any]:
    """Restore into a tiled TIFF, written as its tiles are made; it appears whole or not at all."""
    decided, workers = for_workers(decided, client)
    layout, given = decided.layout, picture.axes or ""
    order = stored_axes(given)
    if "S" in given and given[order[-1]] != "S":
        order = (*order[:-3], *order[-2:], order[-3])  # samples that lie apart are joined
    axes = "".join(given[axis] for axis in order)
    scales, complete = drain(prepare(picture.data, decided, None))
    dtype = np.dtype(picture.data.dtype)
    chunks = [TILE if letter in "YX" else 1 for letter in layout.axes]
    shape = block_shape(layout, chunks, dtype.itemsize, decided.tiles, full_width=True)
    # As the pages follow each other: planes, then rows.
    steps = blocks([layout.shape[axis] for axis in order], [shape[axis] for axis in order])
    places = [tuple(block[order.index(axis)] for axis in range(len(order))) for block in steps]
    try:
        with (
            few_chunks_at_a_time(),
            progress_bar(layout.pixels, picture.path.name) as bar,
            place.appears_whole() as temporary,
        ):
            work = Work(picture, complete, scales, bar, client, workers)
            stored = tuple(layout.shape[axis] for axis in order)
            tiles = Tiles(stored, dtype.newbyteorder("="), _tiles(work, places, order, axes))
            write_tiff(temporary, place.target.name, tiles, axes, picture)
            provenance = work.provenance(decided)
            add_provenance(temporary, json.dumps(provenance))
    except (FileError, KeyboardInterrupt):
        say("A TIFF begins anew each time. Name the result .ome.zarr to be able to continue.")
        raise
    return provenance if workers is None else provenance | {"workers": workers.count}


def _in_strips(image: Any, layout: Layout, chunks: tuple[int, ...]) -> bool:
    """Whether an image is stored in whole rows, and a block of whole rows is not too large."""
    stored, width = getattr(image, "chunks", None), layout.size[1]
    rows = chunks[layout.axes.index("Y")] * width * np.dtype(image.dtype).itemsize
    # Blocks that are narrower would decode each row several times.
    return stored is not None and stored[layout.axes.index("X")] >= width and rows <= BLOCK_BYTES


def _tiles(
    work: Work, places: list[Block], order: tuple[int, ...], axes: str
) -> Iterator[NDArray[Any]]:
    """Tiles of the pages in turn."""
    with restored_blocks(work, list(enumerate(places)), in_order=True) as restored:
        for _, _, samples, report in restored:
            work.add(report.clipped, report.invalid, report.notes, report.device)
            block = samples.transpose(order)
            plane = 3 if axes.endswith("S") else 2
            for page in block.reshape(-1, *block.shape[block.ndim - plane :]):
                for top in range(0, page.shape[0], TILE):
                    for left in range(0, page.shape[1], TILE):
                        tile = page[top : top + TILE, left : left + TILE]
                        yield np.ascontiguousarray(tile, block.dtype.newbyteorder("="))


def _keep(
    image: OmeZarr,
    part: Unfinished,
    number: int,
    block: Block,
    samples: NDArray[Any],
    record: dict[str, Any],
) -> None:
    """Write a block and, when it is on disk, note it."""
    image.write(block, samples)
    part.finished(0, number, **record)


@contextmanager
def _hint(target: Path, part: Unfinished, total: int) -> Iterator[None]:
    """Say on the way out of a broken run what is kept, and how to go on."""
    try:
        yield
    except BaseException:
        done = sum(level == 0 for level, _ in part.done)
        say(
            f"{done} of {total} blocks are kept in {part_of(target)}. The same command with "
            "--resume goes on."
        )
        raise
