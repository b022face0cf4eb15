"""Restore a large image block by block: bounded memory, and blocks that do not depend on others.

Here, or on a dask cluster; the blocks are the same, and so are their samples.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .cluster import finished
from .core.axes import Planes
from .core.blocks import reading_of, regions_of
from .core.chunked import let_go
from .core.engine import run
from .core.protocol import Progress, Report
from .core.steps import drain
from .core.view import Contexts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    import torch
    from distributed import Client, Future
    from numpy.typing import NDArray

    from .core.blocks import Block
    from .core.intensity import Scale
    from .core.protocol import Predictor
    from .plan import Plan


class BlockRestorer:
    """Restores blocks of one image, in any order.

    The samples of a block depend on image, plan, scales and the block's place alone, not on what
    was restored before it.

    Parameters
    ----------
    image : array
        NumPy, memory map, zarr or dask. Read block by block, each with its halo. None where the
        windows of the blocks come from elsewhere.
    plan : Plan
        Complete: with the exposure, if it is for two frames.
    scales : tuple of Scale
        Intensity scales.
    """

    def __init__(self, image: Any, plan: Plan, scales: tuple[Scale, ...]) -> None:
        self._image, self._plan, self._scales = image, plan, scales
        self._looks = Contexts(Planes(image, plan.layout), scales)

    def read(self, block: Block) -> NDArray[Any]:
        """Read what has to be known to restore a block: its samples and its halo.

        Parameters
        ----------
        block : tuple of slice
            One for each axis of the image; all of the colour axis.
        """
        window = np.array(self._image[reading_of(self._plan.layout, block, self._predictor())])
        let_go(self._image)
        return window

    def contexts(self, block: Block) -> dict[tuple[int, ...], torch.Tensor] | None:
        """Global contexts of the planes of a block, if the model wants them."""
        predictor = self._predictor()
        if not predictor.view:
            return None
        planes = [index for index, _ in regions_of(self._plan.layout, block)]
        found = {index: self._looks.get(index, predictor) for index in planes}
        self._looks.trim()
        return found

    def elsewhere(self, image: Any) -> BlockRestorer:
        """Make the same for a worker of a cluster, which has its own device.

        Parameters
        ----------
        image : array or None
            The image as the worker finds it.
        """
        plan = replace(self._plan, device=self._plan.asked_device)
        return BlockRestorer(image, plan, self._scales)

    def steps(
        self,
        block: Block,
        window: NDArray[Any],
        contexts: dict[tuple[int, ...], torch.Tensor] | None,
    ) -> Generator[Progress, None, tuple[NDArray[Any], Report]]:
        """Restore a block step by step.

        Parameters
        ----------
        block : tuple of slice
        window : ndarray
            What `read` gives for it.
        contexts : dict or None
            What `contexts` gives for it.

        Yields
        ------
        Progress
            In pixels of the block.

        Returns
        -------
        ndarray, Report
            The block's samples in the dtype and order of the image, and what happened.
        """
        plan, predictor = self._plan, self._predictor()
        layout, report = plan.layout, Report()
        place = reading_of(layout, block, predictor)
        regions = regions_of(layout, block)
        out = np.empty([part.stop - part.start for part in block], window.dtype)
        yield from run(
            Planes(window, layout, tuple(part.start for part in place)),
            Planes(out, layout, tuple(part.start for part in block)),
            predictor,
            self._scales,
            tiles=plan.tiles,
            strength=plan.strength,
            regions=regions,
            contexts=contexts,
            report=report,
        )
        if report.device != plan.device:
            # The device's memory ran out at the smallest tile: no use to try it on every block.
            self._plan = replace(plan, device=report.device)
            self._looks.to_cpu()
        return out, report

    def _predictor(self) -> Predictor:
        from .models.predictor import find_predictor

        plan = self._plan
        return find_predictor(plan.spec, plan.device, plan.structure_size, plan.exposure)


def blocks_here(
    restorer: BlockRestorer, todo: Iterable[tuple[int, Block]]
) -> Generator[Progress | tuple[int, Block, NDArray[Any], Report], None, None]:
    """Restore blocks one after another on this computer.

    Parameters
    ----------
    restorer : BlockRestorer
    todo : iterable of (number, block)

    Yields
    ------
    Progress
        In pixels of the block at work.
    number, block, samples, report
        In turn.
    """
    waiting = list(todo)
    with ThreadPoolExecutor(1) as reader:
        # The next block is read while one is computed.
        ahead = [reader.submit(restorer.read, block) for _, block in waiting[:1]]
        for place, (number, block) in enumerate(waiting, 1):
            window = ahead.pop().result()
            ahead += [
                reader.submit(restorer.read, after) for _, after in waiting[place : place + 1]
            ]
            samples, report = yield from restorer.steps(block, window, restorer.contexts(block))
            yield number, block, samples, report
            del window, samples  # not needed while the next is computed


def blocks_on(
    client: Client,
    restorer: BlockRestorer,
    todo: Iterable[tuple[int, Block]],
    source: Any = None,
    *,
    in_order: bool = False,
) -> Generator[Progress | tuple[int, Block, NDArray[Any], Report], None, None]:
    """Restore blocks on a cluster, a bounded number at a time.

    What has to be known of the whole image is found here.

    Parameters
    ----------
    client : distributed.Client
    restorer : BlockRestorer
    todo : iterable of (number, block)
    source : array, optional
        The image as the workers read it. Without it, windows are read here and sent.
    in_order : bool
        Give the blocks in the order of ``todo``, not as they are finished.

    Yields
    ------
    Progress
        While nothing comes, so that the caller may stop.
    number, block, samples, report
    """
    # Not scattered: what is scattered is lost with its worker, what is computed is made again.
    shared = client.submit(_same, restorer.elsewhere(source), pure=False)

    def submitted() -> Iterator[tuple[tuple[int, Block], Future[Any]]]:
        for number, block in todo:
            contexts = restorer.contexts(block)
            if contexts is not None:
                contexts = {index: context.cpu() for index, context in contexts.items()}
            window = restorer.read(block) if source is None else None
            task = client.submit(_restore, shared, block, window, contexts, pure=False)
            yield (number, block), task

    for item in finished(client, submitted(), in_order=in_order):
        if item is None:
            yield Progress(0, 0)
        else:
            (number, block), (samples, report) = item
            yield number, block, samples, report


def _same(restorer: BlockRestorer) -> BlockRestorer:
    return restorer


def _restore(
    restorer: BlockRestorer,
    block: Block,
    window: NDArray[Any] | None,
    contexts: dict[tuple[int, ...], torch.Tensor] | None,
) -> tuple[NDArray[Any], Report]:
    """Restore a block on a worker."""
    given = restorer.read(block) if window is None else window
    return drain(restorer.steps(block, given, contexts))
