"""What the engine and its callers agree on: predictor, progress, report, tile options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from napari_restore.device import memory_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class Predictor(Protocol):
    """A network on a device, as the engine sees it.

    Attributes
    ----------
    multiple_of, halo : int
        Size requirement of the network, and pixels that influence a tile.
    view : int
        Longest side of the low-resolution view of a whole plane that it wants, 0 for none.
    estimates_blur : bool
        Whether it can `estimate` how blurred an image is.
    frames : int
        How many consecutive frames it looks at to restore the first of them, 1 or 2; of two, it
        gets the channels of both.
    device : str
    takes_device_tiles : bool
        Whether it also restores tiles that are on its device, and leaves the result there.
    """

    multiple_of: int
    halo: int
    view: int
    estimates_blur: bool
    frames: int
    device: str
    takes_device_tiles: bool

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """Global context of a plane from its view (1, C, h, w), and what all planes share."""
        ...

    def merge_contexts(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Find what planes of one image share from the contexts of some."""
        ...

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore float32 tiles (N, C, h, w), which come and go on the CPU.

        Tiles and result belong to the engine, which may overwrite them.

        ``boxes`` (N, 4) holds the place of each tile in its plane: top, left, bottom, right as
        shares of height and width.
        """
        ...

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Share of the light that came through haze, (N, 1, h, w); needs a view."""
        ...

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate what degraded (N, C, h, w): (N, 2, E, h', w'), means and log variances."""
        ...

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        """Motion in tiles, (N, 2, h / cell, w / cell), pixels (y, x), each a mean over a cell.

        From two frames it is that from the first to the second; from one, the way of the blur, up
        to its sign. Incomplete cells at the end count.
        """
        ...

    def to_cpu(self) -> Predictor:
        """Return the same predictor on the CPU."""
        ...


@dataclass
class Report:
    """What happened while restoring, filled in as it happens.

    Attributes
    ----------
    clipped : int
        Samples that left the range of an integer dtype and were clipped.
    invalid : int
        Samples without a value, NaN, infinite or marked as missing, kept as they were.
    held : int
        Samples that left the range of the image and were held in it.
    notes : list of str
        Anything the user should be told, such as a fall back to the CPU.
    device : str
        Where the last tile was computed.
    light_before, light_after : float
        Sums of the samples that were restored.
    no_light : bool
        Whether any of them was negative, so that their sum means nothing.
    """

    clipped: int = 0
    invalid: int = 0
    notes: list[str] = field(default_factory=list)
    device: str = ""
    held: int = 0
    light_before: float = 0.0
    light_after: float = 0.0
    no_light: bool = False

    def add(self, part: Report) -> None:
        """Count in what happened to a part; a note that is there already is not repeated."""
        self.clipped += part.clipped
        self.invalid += part.invalid
        self.held += part.held
        self.notes += [note for note in part.notes if note not in self.notes]
        self.light_before += part.light_before
        self.light_after += part.light_after
        self.no_light |= part.no_light

    @property
    def light(self) -> float:
        """Share of the light that the result has; 1 where that means nothing."""
        if self.no_light or not self.light_before > 0:
            return 1.0
        return self.light_after / self.light_before


@dataclass(frozen=True)
class TileOptions:
    """How an image is cut.

    Attributes
    ----------
    side : int
        Of a tile, in pixels.
    batch : int
        Tiles that are restored at once.
    fixed : bool
        Whether the user chose the side.
    small : int
        How many of tiles that are smaller are restored at once, if they have no more pixels
        together; above 1 where a device computes beside the processor.
    """

    side: int
    batch: int = 1
    fixed: bool = False
    small: int = 1


def default_tiles(device: str) -> TileOptions:
    """Tile options that suit a device when the user does not choose."""
    if device == "cpu":
        # The halo costs a fifth of the time.
        return TileOptions(2048)
    free = memory_left(device)
    if free is None:
        return TileOptions(640)
    # About 700 bytes of activations for each pixel of the bundled networks, half for the rest. One
    # tile of 4096 pixels keeps the largest card busy, and its halo costs an eighth; with more at
    # once, reading would wait for writing.
    side = int(min(4096, max(256, (free / 2 / 700) ** 0.5))) // 64 * 64
    return TileOptions(side, small=64)
