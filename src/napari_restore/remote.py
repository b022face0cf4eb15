"""Restore an image that is here on a dask cluster: windows go out, blocks come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .blockwise import BlockRestorer, blocks_on
from .core.blocks import blocks, pixels_of, regions_of
from .core.protocol import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from distributed import Client

    from .core.intensity import Scale
    from .core.protocol import Report
    from .core.tiles import Region
    from .plan import Plan


def remote_steps(
    client: Client,
    image: Any,
    plan: Plan,
    out: Any,
    scales: tuple[Scale, ...],
    report: Report,
    regions: Sequence[tuple[tuple[int, ...], Region]] | None = None,
) -> Generator[Progress, None, None]:
    """Restore an image on a cluster.

    Each tile that would be computed here is a task there, so that the results are the same. What
    has to be known of the whole image is found here.

    Parameters
    ----------
    client : distributed.Client
    image : array
        What the plan was made for.
    plan : Plan
        Complete: with the exposure, where the model wants one.
    out : array
        Where the result goes.
    scales : tuple of Scale
    report : Report
        Filled in along the way.
    regions : sequence of (plane index, Region), optional
        Which planes to restore, each of them whole; without it, all.

    Yields
    ------
    Progress
        Also while nothing comes, so that the caller may stop.
    """
    layout = plan.layout
    todo = list(enumerate(blocks(layout.shape, _block_shape(plan))))
    if regions is not None:
        planes = {index for index, _ in regions}
        todo = [
            (number, block)
            for number, block in todo
            if any(index in planes for index, _ in regions_of(layout, block))
        ]
    total, done = sum(pixels_of(layout, block) for _, block in todo), 0
    devices: set[str] = set()
    for step in blocks_on(client, BlockRestorer(image, plan, scales), todo):
        if not isinstance(step, Progress):
            _, block, samples, said = step
            out[block] = samples
            devices.add(said.device)
            report.add(said.clipped, said.invalid, said.notes)
            done += pixels_of(layout, block)
        yield Progress(done, total)
    report.device = ", ".join(sorted(devices))


def _block_shape(plan: Plan) -> list[int]:
    """Shape of the blocks: a tile of the plane, or as many small planes as have its pixels."""
    layout, side = plan.layout, plan.tiles.side
    height, width = layout.size
    shape = [1] * len(layout.shape)
    for axis, letter in enumerate(layout.axes):
        if letter in "YXS":
            shape[axis] = layout.shape[axis] if letter == "S" else side
    if layout.leading and plan.spec.frames == 1:
        shape[layout.leading[-1]] = max(1, side**2 // (height * width))
    return shape
