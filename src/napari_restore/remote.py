"""Restore an image that is here on a dask cluster: windows go out, blocks come back."""

from __future__ import annotations

from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from .cluster import finished
from .core.axes import Planes
from .core.block_job import BlockJob, block_planes, make_job, restore_block
from .core.protocol import Progress
from .core.tiles import Region, split
from .core.view import Contexts
from .findings import predictor_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from distributed import Client, Future

    from .core.intensity import Scale
    from .core.protocol import Report
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
    layout, spec = plan.layout, plan.spec
    job = make_job(
        image,
        layout,
        _blocks(plan),
        reach=plan.halo + spec.multiple_of,
        frames=spec.frames,
        get_predictor=partial(
            predictor_of, spec, plan.asked_device, plan.structure_size, plan.exposure
        ),
        scales=scales,
        tiles=plan.tiles_elsewhere,
        strength=plan.strength,
    )
    planes = None if regions is None else {index for index, _ in regions}
    total = layout.pixels if planes is None else len(planes) * layout.size[0] * layout.size[1]
    looks = Contexts(Planes(image, layout), scales) if spec.view else None
    samples = layout.shape[layout.axes.index("S")] if layout.colour else 1
    devices: set[str] = set()
    done = 0
    for item in finished(client, _submitted(client, image, plan, job, planes, looks)):
        if item is not None:
            place, (block, said) = item
            out[job.region(place)] = block
            devices.add(said.device)
            report.clipped += said.clipped
            report.invalid += said.invalid
            report.notes += [note for note in said.notes if note not in report.notes]
            done += block.size // samples
        yield Progress(done, total)
    report.device = ", ".join(sorted(devices))


def _blocks(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Lengths of the blocks along each axis: tiles of the plane, and as many small planes."""
    layout = plan.layout
    height, width = layout.size
    tiles = list(split(Region(0, 0, height, width), plan.tiles.side))
    edges = {
        "Y": sorted({tile.top for tile in tiles} | {height}),
        "X": sorted({tile.left for tile in tiles} | {width}),
    }
    together = 1 if plan.spec.frames == 2 else max(1, plan.tiles.side**2 // (height * width))
    if layout.leading:
        last = layout.leading[-1]
        edges[layout.axes[last]] = [
            *range(0, layout.shape[last], together),
            layout.shape[last],
        ]
    lengths: list[tuple[int, ...]] = []
    for letter, length in zip(layout.axes, layout.shape, strict=True):
        if letter == "S":
            lengths.append((length,))
        elif letter in edges:
            lengths.append(tuple(b - a for a, b in pairwise(edges[letter])))
        else:
            lengths.append((1,) * length)
    return tuple(lengths)


def _submitted(
    client: Client,
    image: Any,
    plan: Plan,
    job: BlockJob,
    planes: set[tuple[int, ...]] | None,
    looks: Contexts | None,
) -> Iterator[tuple[tuple[int, ...], Future[Any]]]:
    """Submit block after block, each when the next one is asked for."""
    # Not scattered: what is scattered is lost with its worker, what is computed is made again.
    shared = client.submit(_same, job, pure=False)
    for place in product(*(range(len(starts) - 1) for starts in job.starts)):
        indices = block_planes(job, place)
        if planes is not None and planes.isdisjoint(indices):
            continue
        contexts = None
        if looks is not None:
            here = predictor_of(plan.spec, plan.device)
            contexts = [looks.get(index, here).cpu() for index in indices]
            looks.trim()
        window = np.ascontiguousarray(image[job.window(place)])
        yield (
            place,
            client.submit(_restore, shared, place, window, contexts, pure=False),
        )


def _same(job: BlockJob) -> BlockJob:
    return job


def _restore(
    job: BlockJob, place: tuple[int, ...], window: Any, contexts: list[Any] | None
) -> tuple[Any, Report]:
    return restore_block(job, place, window, contexts)
