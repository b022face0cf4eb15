"""The blocks of a large image: restored here or on a cluster, counted, and shown on the bar."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_restore.blockwise import BlockRestorer, blocks_here, blocks_on
from napari_restore.cluster import survey
from napari_restore.core.blocks import pixels_of
from napari_restore.core.protocol import Progress, Report
from napari_restore.files.elsewhere import holds, read_elsewhere
from napari_restore.files.identity import sample_hash
from napari_restore.findings import try_blur
from napari_restore.plan import suited

from .console import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from distributed import Client
    from numpy.typing import NDArray

    from napari_restore.cluster import Workers
    from napari_restore.core.blocks import Block
    from napari_restore.core.intensity import Scale
    from napari_restore.files import Picture
    from napari_restore.files.elsewhere import AtPath
    from napari_restore.plan import Plan


@dataclass
class Work:
    """An image and all that its blocks depend on.

    Attributes
    ----------
    picture : Picture
    plan : Plan
        Complete, with the exposure.
    scales : tuple of Scale
    bar : tqdm
    client : distributed.Client, optional
        Cluster to compute on.
    workers : Workers, optional
        What it offers.
    report : Report
        Of all blocks so far.
    """

    picture: Picture
    plan: Plan
    scales: tuple[Scale, ...]
    bar: Any
    client: Client | None = None
    workers: Workers | None = None
    report: Report = field(default_factory=Report)

    def add(self, clipped: int, invalid: int, notes: Iterable[str], device: str) -> None:
        """Count a block in."""
        self.report.add(clipped, invalid, notes)
        # Here only one at a time; workers may have several kinds.
        self.report.device = device if self.workers is None else self.workers.device

    def provenance(self, plan: Plan) -> dict[str, Any]:
        """How the result was made; without the time it took, which is not the same when continued.

        Parameters
        ----------
        plan : Plan
            As it was decided, without what was found.
        """
        # A fall back to the CPU holds here too; the devices of workers do not.
        device = self.plan.device if self.workers else self.report.device or self.plan.device
        here = replace(self.plan, device=device)
        blur = try_blur(self.picture.data, here, self.scales, self.report)
        record = plan.provenance(
            report=self.report, scales=self.scales, blur=blur, exposure=self.plan.exposure
        )
        if self.workers is not None:
            record["precision"] = self.workers.precision
        return record


def for_workers(plan: Plan, client: Client | None) -> tuple[Plan, Workers | None]:
    """Look at the workers of a cluster, if one is named; the plan comes back with tiles for them.

    Raises
    ------
    ClusterError
        If they cannot restore.
    """
    if client is None:
        return plan, None
    workers = survey(client, plan.asked_device)
    if not plan.tiles.fixed:
        plan = replace(plan, tiles=suited(workers.tiles, plan.spec, workers.device))
    return plan, workers


@contextmanager
def restored_blocks(
    work: Work, todo: list[tuple[int, Block]], *, in_order: bool = False
) -> Iterator[Iterator[tuple[int, Block, NDArray[Any], Report]]]:
    """Restore blocks: number, place, samples in the order of the image, and what happened.

    All that is computed of a large image is computed here, or on the cluster. On the way out, what
    is under way is cancelled.

    Parameters
    ----------
    work : Work
    todo : list of (number, block)
    in_order : bool
        Whether they must come as they are listed.
    """
    restorer = BlockRestorer(work.picture.data, work.plan, work.scales)
    if work.client is None:
        steps = blocks_here(restorer, todo)
    else:
        source = _seen_by_all(work, work.client) if todo else None
        steps = blocks_on(work.client, restorer, todo, source, in_order=in_order)
    with closing(steps):
        yield _shown(work, steps)


def _shown(
    work: Work, steps: Iterator[Progress | tuple[int, Block, NDArray[Any], Report]]
) -> Iterator[tuple[int, Block, NDArray[Any], Report]]:
    """Show on the bar how blocks come along."""
    done = work.bar.n
    for step in steps:
        if isinstance(step, Progress):
            work.bar.update(done + step.done - work.bar.n)
            work.bar.set_postfix_str(step.message)
            continue
        number, block, samples, report = step
        del step
        done += pixels_of(work.plan.layout, block)
        work.bar.update(done - work.bar.n)
        samples, above = work.picture.clip(samples)
        report.clipped += above
        yield number, block, samples, report
        del samples  # not needed while the next is computed


def _seen_by_all(work: Work, client: Client) -> AtPath | None:
    """Return the image as workers read it themselves, if all of them can."""
    image, layout = read_elsewhere(work.picture), work.plan.layout
    if image is None:
        return None
    expected = sample_hash(work.picture.data, layout)
    if all(client.run(holds, image, layout, expected).values()):
        return image
    say(
        f"Not all workers find {work.picture.path.resolve()}, or the same image in it. It is read "
        "here and sent to them."
    )
    return None
