"""What will be done to one image: decided, checked and explained before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.axes import Layout, find_layout, with_time
from .core.device import autocast_dtype, import_torch, resolve_device
from .core.protocol import TileOptions, default_tiles
from .core.smooth import halo_with
from .core.tiles import Grid, Region, split
from .errors import RestoreError
from .models.catalog import find_model
from .models.weights import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.gauge import BlurEstimate
    from .core.intensity import Scale
    from .core.protocol import Report
    from .models.spec import ModelSpec


#: Largest structure that can be kept on purpose, in pixels: its halo is several times as wide.
LARGEST_STRUCTURE = 200
#: Side of the tiles, on a processor, of networks whose features of a whole tile are in memory.
_WHOLE_TILE = 768


@dataclass(frozen=True)
class Plan:
    """What will be done to one image, decided before anything is computed.

    Attributes
    ----------
    layout : Layout
        How its axes are read.
    spec : ModelSpec
        The model.
    device : str
        On this machine.
    tiles : TileOptions
    strength : float
    structure_size : float
        Structures up to this many pixels stay when light is removed; 0 leaves it to the network.
    exposure : float or None
        Of models for two frames, the share of the time between them that the shutter is open; None
        if it has to be found.
    asked_device : str
        What the user chose: with "auto", each worker of a cluster takes what it has.
    """

    layout: Layout
    spec: ModelSpec
    device: str
    tiles: TileOptions
    strength: float
    structure_size: float = 0.0
    exposure: float | None = None
    asked_device: str = "auto"

    @property
    def halo(self) -> int:
        """Pixels around a tile that influence it noticeably."""
        return halo_with(self.spec.halo, self.structure_size)

    @property
    def tiles_elsewhere(self) -> Callable[[str], TileOptions]:
        """Tile options by the name of the device that a worker turns out to have."""
        return partial(_tiles_on, planned=self.device, tiles=self.tiles, spec=self.spec)

    @property
    def work(self) -> int:
        """Pixels that the network will see: those of the image, and the halos of its tiles."""
        return self.layout.planes * self.seen(Region(0, 0, *self.layout.size))

    def seen(self, region: Region) -> int:
        """Pixels that the network will see for a region of one plane."""
        grid = Grid(self.layout.size, self.spec.multiple_of, self.halo)
        return sum(grid.window(tile).pixels for tile in split(region, self.tiles.side))

    def provenance(
        self,
        *,
        report: Report | None = None,
        seconds: float | None = None,
        scales: tuple[Scale, ...] | None = None,
        blur: BlurEstimate | None = None,
        exposure: float | None = None,
    ) -> dict[str, Any]:
        """How the result is made, in plain types: enough to make it again."""
        from . import __version__

        dtype = autocast_dtype(self.device)
        record: dict[str, Any] = {
            "task": self.spec.task,
            # A user's own file is found again by its path.
            "model": self.spec.weights if Path(self.spec.weights).is_absolute() else self.spec.name,
            "weights_sha256": self.spec.sha256 or sha256(self.spec.path),
            "axes": self.layout.axes,
            "strength": self.strength,
            "tile": self.tiles.side if self.tiles.fixed else "auto",
            "device": self.device,
            "precision": "float32" if dtype is None else str(dtype).removeprefix("torch."),
            "versions": {"napari-restore": __version__, "torch": str(import_torch().__version__)},
        }
        if self.structure_size:
            record["structure_size"] = self.structure_size
        if self.spec.frames == 2:
            record["frames"] = 2
            if self.exposure is not None or exposure is not None:
                record["exposure"] = exposure if self.exposure is None else self.exposure
                record["exposure_found"] = self.exposure is None
        if report is not None:
            record |= {
                "device": report.device or self.device,
                "clipped_samples": report.clipped,
                "invalid_samples": report.invalid,
                "notes": list(report.notes),
            }
        if scales is not None:
            # What became 0 and 1 for the network, for each channel.
            record["scales"] = [[scale.low, scale.low + scale.span] for scale in scales]
        if blur is not None:
            record["blur"] = blur.record()
        if seconds is not None:
            record["seconds"] = round(seconds, 3)
        return record


@lru_cache(maxsize=16)
def _tiles_on(device: str, planned: str, tiles: TileOptions, spec: ModelSpec) -> TileOptions:
    if tiles.fixed or device == planned:
        return tiles
    return suited(default_tiles(device), spec, device)


def suited(tiles: TileOptions, spec: ModelSpec, device: str) -> TileOptions:
    """Make default tiles of devices suit a model: on a processor, not all go by rows."""
    return tiles if "cpu" not in device or spec.goes_by_rows else TileOptions(_WHOLE_TILE)


def plan(
    image: Any,
    task: str,
    *,
    axes: str | None = None,
    rgb: bool | None = None,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
    structure_size: float | None = None,
    frames: int = 1,
    exposure: float | None = None,
) -> Plan:
    """Decide what will be done, or say why it cannot be. Reads no pixel.

    Parameters are those of `restore`.

    Raises
    ------
    RestoreError
        If image or options are of no use; the message names the value and the remedy.
    """
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        raise RestoreError(
            f"An image must be an array with shape and dtype; got {type(image).__name__}. "
            "Convert it with numpy.asarray."
        )
    layout = find_layout(image, axes, rgb)
    if frames not in (1, 2) or isinstance(frames, bool):
        raise RestoreError(f"frames must be 1 or 2; got {frames!r}.")
    spec = find_model(task, layout.channels, model, int(frames))
    if frames == 2:
        layout = with_time(layout)
    shutter = _exposure(exposure, spec)
    if not (isinstance(strength, (int, float, np.integer, np.floating)) and 0 <= strength <= 1):
        raise RestoreError(f"strength must lie between 0 and 1; got {strength!r}.")
    here = resolve_device(device)
    if isinstance(tile, str) and tile == "auto":
        tiles = suited(default_tiles(here), spec, here)
    elif isinstance(tile, (int, np.integer)) and not isinstance(tile, bool) and tile >= 16:
        tiles = TileOptions(int(tile), fixed=True)
    else:
        raise RestoreError(
            f"tile must be 'auto' or a whole number of at least 16 pixels; got {tile!r}."
        )
    structures = _structure_size(structure_size, spec)
    return Plan(layout, spec, here, tiles, float(strength), structures, shutter, device)


def _exposure(exposure: float | None, spec: ModelSpec) -> float | None:
    if exposure is None:
        return None
    if spec.frames == 1:
        raise RestoreError(
            f"exposure is for restoration from two frames; '{spec.name}' looks at one. Pass "
            "frames=2, or leave exposure out."
        )
    number = isinstance(exposure, (int, float, np.integer, np.floating))
    if not (number and 0 < exposure <= 1):
        raise RestoreError(
            "exposure must be above 0 and up to 1, the share of the time between two frames that "
            f"the shutter is open; got {exposure!r}."
        )
    return float(exposure)


def _structure_size(size: float | None, spec: ModelSpec) -> float:
    if size is None:
        return 0.0
    if spec.task != "dehaze" or spec.channels != 1:
        raise RestoreError(
            f"structure_size is for out-of-focus light in single-channel images; '{spec.name}' "
            f"does {spec.task} of {spec.kind} images. Leave it out."
        )
    number = isinstance(size, (int, float, np.integer, np.floating))
    if not (number and 0 < size <= LARGEST_STRUCTURE):
        raise RestoreError(
            f"structure_size must be above 0 and up to {LARGEST_STRUCTURE} pixels; got {size!r} "
            "pixels. Shrink the image first to keep larger structures."
        )
    return float(size)
