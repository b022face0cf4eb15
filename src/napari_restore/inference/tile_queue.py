"""The tiles that are left to do, and how they become smaller when memory runs out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from napari_restore.errors import DeviceError
from napari_restore.image.tiling import Region, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .protocol import TileOptions

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
