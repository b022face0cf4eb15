"""The tiles that are left to do, and how they become smaller when memory runs out: one ladder."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from napari_restore.device import free_memory, is_out_of_memory
from napari_restore.errors import DeviceError
from napari_restore.image.tiling import Region, split
from napari_restore.watch import tell

from .protocol import TileOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .context import Contexts
    from .protocol import Predictor

Result = TypeVar("Result")

#: Smallest tile side that the memory ladder goes down to before it leaves the GPU.
SMALLEST_TILE = 128


@dataclass(frozen=True)
class Job:
    """One tile of one plane."""

    index: tuple[int, ...]
    tile: Region


class TileQueue:
    """Tiles in order, handed out in batches.

    Parameters
    ----------
    regions : iterable of (plane index, Region)
    tiles : TileOptions
    """

    def __init__(
        self, regions: Iterable[tuple[tuple[int, ...], Region]], tiles: TileOptions
    ) -> None:
        self._fixed, self._side = tiles.fixed, tiles.side
        self._batch, self._small = tiles.batch, tiles.small
        self._stream: Iterator[Job] = (
            Job(index, tile) for index, region in regions for tile in split(region, tiles.side)
        )
        self._waiting: deque[Job] = deque()

    def take(self) -> list[Job]:
        """Next jobs in a row whose tiles have one shape; empty at the end."""
        self._wait_for(1)
        most = self._most_like(self._waiting[0].tile) if self._waiting else 0
        self._wait_for(most)
        batch: list[Job] = []
        while self._waiting and len(batch) < most:
            shape = self._waiting[0].tile.height, self._waiting[0].tile.width
            if batch and shape != (batch[0].tile.height, batch[0].tile.width):
                break
            batch.append(self._waiting.popleft())
        return batch

    def _wait_for(self, count: int) -> None:
        self._waiting.extend(islice(self._stream, max(0, count - len(self._waiting))))

    def _most_like(self, tile: Region) -> int:
        """How many tiles of that shape are taken at once."""
        room = self._batch * self._side**2 // tile.pixels
        return max(self._batch, min(self._small, room))

    def put_back(self, jobs: list[Job]) -> None:
        """Take jobs back; they come next."""
        self._waiting.extendleft(reversed(jobs))

    def put_back_smaller(self, batch: list[Job], device: str) -> str | None:
        """Take back a batch that did not fit in memory, and go down one step.

        Returns
        -------
        str or None
            What changed, for the user; None if only another device is left.

        Raises
        ------
        DeviceError
            If the tile would have to be smaller than the user chose it, or there is no step left.
        """
        self.put_back(batch)
        if len(batch) > 1:
            self._small = len(batch) // 2
            self._batch = min(self._batch, self._small)
            return f"Memory ran out; going on with {self._small} tiles at a time."
        if self._fixed:
            raise DeviceError(
                f"Memory of {device} ran out at the chosen tile of {self._side} pixels. Choose a "
                "smaller tile, or 'auto'."
            )
        if self._side <= SMALLEST_TILE:
            if device == "cpu":
                raise DeviceError(
                    f"Memory ran out even with tiles of {SMALLEST_TILE} pixels. Close other "
                    "programs and try again."
                )
            return None
        self._side //= 2
        self._waiting = deque(self._cut(self._waiting))
        self._stream = self._cut(self._stream)
        return f"Memory ran out; going on with tiles of {self._side} pixels."

    def _cut(self, jobs: Iterable[Job]) -> Iterator[Job]:
        side = self._side
        return (Job(job.index, tile) for job in jobs for tile in split(job.tile, side))


def unless_full(step: Callable[..., Result], *arguments: Any) -> Result | None:
    """Do a step; None if memory ran out. Tensors that its traceback would hold are let go."""
    try:
        return step(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def step_down(
    queue: TileQueue, jobs: list[Job], predictor: Predictor, contexts: Contexts | None
) -> tuple[str, Predictor]:
    """Take back tiles that did not fit in memory, and go down one step: at last to the CPU.

    Returns
    -------
    str, Predictor
        What changed, for the user, and the predictor that goes on.
    """
    free_memory(predictor.device)
    note = queue.put_back_smaller(jobs, predictor.device)
    if note is None:
        note = f"Memory of {predictor.device} ran out; going on with the CPU."
        predictor = predictor.to_cpu()
        if contexts is not None:
            contexts.to_cpu()
    return note, predictor


def for_each_tile(
    regions: Iterable[tuple[tuple[int, ...], Region]],
    side: int,
    predictor: Predictor,
    find: Callable[[Job, Predictor], Result],
    *,
    total: int,
    message: str,
    contexts: Contexts | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Find something in one tile after another; when memory runs out, go on in smaller ones.

    Parameters
    ----------
    regions : iterable of (plane index, Region)
    side : int
        Of the tiles, in pixels. What becomes smaller is a half, a quarter and so on.
    predictor : Predictor
        At last, another on the CPU takes its place.
    find : callable
        Gets a tile and the predictor.
    total : int
        Pixels of all regions.
    message : str
        What the watch is told.
    contexts : Contexts, optional
        That ``find`` uses.

    Yields
    ------
    Job, result
    """
    queue, done = TileQueue(regions, TileOptions(side)), 0
    while jobs := queue.take():
        (job,) = jobs
        found = unless_full(find, job, predictor)
        if found is None:
            message, predictor = step_down(queue, jobs, predictor, contexts)
            continue
        yield job, found
        done += job.tile.pixels
        tell(done, total, message)
