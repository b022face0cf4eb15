"""Restore into OME-Zarr, or into a large TIFF: block by block, in bounded memory."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.blocks import (
    BLOCK_BYTES,
    block_shape,
    block_shape_in_space,
    blocks,
    pixels_of,
)
from napari_restore.inference.protocol import Report, TileOptions
from napari_restore.io.identity import holds, identity_of, read_on_workers, sample_hash
from napari_restore.io.image_file import stored_axes
from napari_restore.io.ome_zarr import OmeZarr
from napari_restore.io.stored import few_chunks_at_a_time
from napari_restore.io.target import Checkpoint, part_of, unfinished
from napari_restore.io.tiff.writer import TILE, Tiles, add_provenance, write_tiff
from napari_restore.restoration.facts import Blur
from napari_restore.restoration.provenance import provenance
from napari_restore.restoration.run import begin

from .console import progress_bar, say, shown_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray

    from napari_restore.image.blocks import Block
    from napari_restore.image.layout import Layout
    from napari_restore.io import ImageFile, Place
    from napari_restore.io.identity import WorkerReadableImage
    from napari_restore.restoration.executors import Done
    from napari_restore.restoration.plan import Plan
    from napari_restore.restoration.run import Run


def restore_into_zarr(
    picture: ImageFile,
    plan: Plan,
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
        # Chosen by the memory that was free; another choice gives other roundings.
        tiles = TileOptions(**part.header["tiles"]) if part.header else None
        # Those in space were given, and are given again.
        found = [] if plan.in_space else part.header.get("plan", {}).get("psf", [])
        found = found if isinstance(found, list) else [found]
        blurs = tuple(Blur.from_record(record) for record in found)
        run = begin(picture.data, plan, client=client, tiles=tiles, blurs=blurs)
        run.finish, layout = picture.clip, plan.layout
        image = OmeZarr(part.image, picture)
        strips = _in_strips(picture.data, layout, image.chunks)
        shape = _block_shape(run.plan, image.chunks, full_width=strips)
        header = {
            "plan": provenance(run.plan, run.facts, workers=run.workers),
            "tiles": asdict(run.plan.tiles),
            "block": list(shape),
            "input": identity_of(picture, layout),
        }
        part.begin(header, image.create)
        image.open()
        todo = list(enumerate(blocks(layout.shape, shape)))
        finished = [block for number, block in todo if (0, number) in part.done]
        done = sum(pixels_of(layout, block) for block in finished)
        bar = progress_bar(layout.pixels, picture.path.name, done)
        with (
            bar,
            shown_on(bar),
            _hint(place.target, part, len(todo)),
            ThreadPoolExecutor(1) as writer,
        ):
            for (level, _), record in part.done.items():
                if level == 0:
                    run.add(Report(**record))
            rest = [(number, block) for number, block in todo if (0, number) not in part.done]
            # One block is written while the next is computed.
            written: Future[None] | None = None
            with run.blocks(rest, source=_seen_by_all(picture, run, rest), done=done) as restored:
                for number, block, samples, report in restored:
                    if written is not None:
                        written.result()
                    written = writer.submit(_keep, image, part, number, block, samples, report)
                    del samples
            if written is not None:
                written.result()
            for level, _ in _reduce_all(image, part):
                bar.set_postfix_str(f"Pyramid, level {level}")
            record = run.provenance()
            image.finish(record)
            part.commit()
    return _with_workers(record, run)


def _reduce_all(image: OmeZarr, part: Checkpoint) -> Iterator[tuple[int, Block]]:
    """Compute every coarser block that is not finished; gives each when it is on disk."""
    for level, todo in image.coarser():
        for number, block in enumerate(todo):
            if (level, number) not in part.done:
                image.reduce(level, block)
                part.finished(level, number)
            yield level, block


def _block_shape(plan: Plan, chunks: Sequence[int], *, full_width: bool) -> tuple[int, ...]:
    itemsize = np.dtype(plan.dtype).itemsize
    if plan.dimensions == 3:
        return block_shape_in_space(plan.layout, chunks, itemsize, full_width=full_width)
    return block_shape(plan.layout, chunks, itemsize, plan.tiles, full_width=full_width)


def _with_workers(record: dict[str, Any], run: Run) -> dict[str, Any]:
    """Add what a run on a cluster says, but not its result: another number may continue it."""
    return record if run.workers is None else record | {"workers": run.workers.count}


def _seen_by_all(
    picture: ImageFile, run: Run, todo: list[tuple[int, Block]]
) -> WorkerReadableImage | None:
    """Return the image as workers read it themselves, if all of them can."""
    if run.client is None or not todo:
        return None
    image, layout = read_on_workers(picture), run.plan.layout
    if image is None:
        return None
    expected = sample_hash(picture.data, layout)
    if all(run.client.run(holds, image, layout, expected).values()):
        return image
    say(
        f"Not all workers find {picture.path.resolve()}, or the same image in it. It is read "
        "here and sent to them."
    )
    return None


def restore_into_tiff(
    picture: ImageFile, plan: Plan, place: Place, *, client: Client | None = None
) -> dict[str, Any]:
    """Restore into a tiled TIFF, written as its tiles are made; it appears whole or not at all."""
    layout, given = plan.layout, picture.axes or ""
    order = stored_axes(given)
    if "S" in given and given[order[-1]] != "S":
        order = (*order[:-3], *order[-2:], order[-3])  # samples that lie apart are joined
    axes = "".join(given[axis] for axis in order)
    run = begin(picture.data, plan, client=client)
    run.finish = picture.clip
    dtype = np.dtype(picture.data.dtype)
    chunks = [TILE if letter in "YX" else 1 for letter in layout.axes]
    shape = _block_shape(run.plan, chunks, full_width=True)
    # As the pages follow each other: planes, then rows.
    steps = blocks([layout.shape[axis] for axis in order], [shape[axis] for axis in order])
    places = [tuple(block[order.index(axis)] for axis in range(len(order))) for block in steps]
    todo = list(enumerate(places))
    try:
        with (
            few_chunks_at_a_time(),
            progress_bar(layout.pixels, picture.path.name) as bar,
            shown_on(bar),
            place.appears_whole() as temporary,
            run.blocks(todo, source=_seen_by_all(picture, run, todo), in_order=True) as restored,
        ):
            stored = tuple(layout.shape[axis] for axis in order)
            tiles = Tiles(stored, axes, dtype.newbyteorder("="), _tiles(restored, order, axes))
            write_tiff(temporary, place.target.name, tiles, picture)
            record = run.provenance()
            add_provenance(temporary, json.dumps(record))
    except (FileError, KeyboardInterrupt):
        say("An unfinished TIFF cannot be continued. Name the result .ome.zarr if you want that.")
        raise
    return _with_workers(record, run)


def _in_strips(image: Any, layout: Layout, chunks: tuple[int, ...]) -> bool:
    """Whether an image is stored in whole rows, and a block of whole rows is not too large."""
    stored, width = getattr(image, "chunks", None), layout.size[1]
    rows = chunks[layout.axes.index("Y")] * width * np.dtype(image.dtype).itemsize
    # Blocks that are narrower would decode each row several times.
    return stored is not None and stored[layout.axes.index("X")] >= width and rows <= BLOCK_BYTES


def _tiles(restored: Iterator[Done], order: tuple[int, ...], axes: str) -> Iterator[NDArray[Any]]:
    """Tiles of the pages in turn."""
    for _, _, samples, _ in restored:
        block = samples.transpose(order)
        plane = 3 if axes.endswith("S") else 2
        for page in block.reshape(-1, *block.shape[block.ndim - plane :]):
            for top in range(0, page.shape[0], TILE):
                for left in range(0, page.shape[1], TILE):
                    tile = page[top : top + TILE, left : left + TILE]
                    yield np.ascontiguousarray(tile, block.dtype.newbyteorder("="))


def _keep(
    image: OmeZarr,
    part: Checkpoint,
    number: int,
    block: Block,
    samples: NDArray[Any],
    report: Report,
) -> None:
    """Write a block and, when it is on disk, note it."""
    image.write(block, samples)
    part.finished(0, number, **asdict(report))


@contextmanager
def _hint(target: Path, part: Checkpoint, total: int) -> Iterator[None]:
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
