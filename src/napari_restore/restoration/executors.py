"""Run a task over blocks: in this process, or on a dask cluster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_restore.image.blocks import pixels_of, regions_of
from napari_restore.watch import check, part_of

from .cluster import finished

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from distributed import Client, Future
    from numpy.typing import NDArray

    from napari_restore.image.blocks import Block
    from napari_restore.inference.context import Contexts
    from napari_restore.inference.protocol import Report

    from .block import BlockTask

    #: Number and place of a block, its samples, and what happened.
    Done: TypeAlias = tuple[int, Block, NDArray[Any], Report]


def restore_here(
    task: BlockTask, image: Any, todo: Sequence[tuple[int, Block]], done: int = 0
) -> Iterator[Done]:
    """Restore blocks one after another; the network uses every core for each.

    Parameters
    ----------
    task : BlockTask
    image : array
    todo : sequence of (number, block)
    done : int
        Pixels of the image that an earlier run has restored.
    """
    layout, contexts = task.plan.layout, task.contexts(image)
    total = done + sum(pixels_of(layout, block) for _, block in todo)
    with ThreadPoolExecutor(1, thread_name_prefix="napari-restore-read") as reader:
        # The next block is read while one is computed.
        ahead = [reader.submit(task.read, image, block) for _, block in todo[:1]]
        for place, (number, block) in enumerate(todo, 1):
            check()
            window = ahead.pop().result()
            ahead += [
                reader.submit(task.read, image, after) for _, after in todo[place : place + 1]
            ]
            with part_of(done, total).around():
                samples, report = task(block, window, contexts)
            if report.device != task.plan.device:
                task = task.without(report.device)
                contexts.to_cpu()
            done += pixels_of(layout, block)
            yield number, block, samples, report
            del window, samples  # not needed while the next is computed


def restore_on(
    client: Client,
    task: BlockTask,
    image: Any,
    todo: Iterable[tuple[int, Block]],
    source: Any = None,
    *,
    in_order: bool = False,
) -> Iterator[Done]:
    """Restore blocks on a cluster, a bounded number at a time.

    What has to be known of the whole image is found here.

    Parameters
    ----------
    client : distributed.Client
    task : BlockTask
    image : array
    todo : iterable of (number, block)
    source : array, optional
        The image as the workers read it. Without it, windows are read here and sent.
    in_order : bool
        Give the blocks in the order of ``todo``, not as they are finished.
    """
    contexts = task.contexts(image)
    # Not scattered: what is scattered is lost with its worker, what is computed is made again.
    shared = client.submit(_same, (task.elsewhere(), source), pure=False)

    def submitted() -> Iterator[tuple[tuple[int, Block], Future[Any]]]:
        for number, block in todo:
            sent = _sendable(contexts, task, block)
            window = task.read(image, block) if source is None else None
            future = client.submit(_restore, shared, block, window, sent, pure=False)
            yield (number, block), future

    for (number, block), (samples, report) in finished(client, submitted(), in_order=in_order):
        yield number, block, samples, report


def _sendable(
    contexts: Contexts, task: BlockTask, block: Block
) -> dict[tuple[int, ...], torch.Tensor] | None:
    """Contexts of the planes of a block, for a worker with another device."""
    if not task.plan.spec.view:
        return None
    predictor = task.predictor()
    planes = [index for index, _ in regions_of(task.plan.layout, block)]
    found = {index: contexts.get(index, predictor).cpu() for index in planes}
    contexts.trim()
    return found


def _same(shared: tuple[BlockTask, Any]) -> tuple[BlockTask, Any]:
    return shared


def _restore(
    shared: tuple[BlockTask, Any],
    block: Block,
    window: NDArray[Any] | None,
    contexts: dict[tuple[int, ...], torch.Tensor] | None,
) -> tuple[NDArray[Any], Report]:
    """Restore a block on a worker."""
    task, source = shared
    return task(block, task.read(source, block) if window is None else window, contexts)
