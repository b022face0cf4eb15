"""What will be done to one image: decided, checked and explained before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.analysis.point_spread import KnownBlur
from napari_restore.device import resolve_device
from napari_restore.errors import PsfError, RestoreError
from napari_restore.image.layout import (
    LEAST_PLANES,
    Layout,
    find_layout,
    with_depth,
    with_time,
)
from napari_restore.image.tiling import Grid, Region, split
from napari_restore.inference.protocol import TileOptions, default_tiles
from napari_restore.inference.smooth_change import halo_with
from napari_restore.models.catalog import INVERTERS, VOLUME_INVERTER, find_model

from .given_psf import find_pixel_size, given_psfs, has_planes

if TYPE_CHECKING:
    from napari_restore.analysis.point_spread import PSF
    from napari_restore.inference.protocol import Predictor
    from napari_restore.models.spec import ModelSpec

    from .facts import Facts
    from .options import Options

#: Largest structure that can be kept on purpose, in pixels: its halo is several times as wide.
LARGEST_STRUCTURE = 200
#: How a PSF is inverted.
METHODS = ("network", "richardson-lucy", "wiener")
#: Side of the tiles, on a processor, of networks whose features of a whole tile are in memory.
_WHOLE_TILE = 768


@dataclass(frozen=True)
class Plan:
    """What will be done to one image, decided before anything is computed.

    Attributes
    ----------
    layout : Layout
        How its axes are read.
    dtype : str
    spec : ModelSpec
        The model.
    options : Options
        What was asked for, checked.
    device : str
        On this machine; "auto" where a worker of a cluster has to find it.
    tiles : TileOptions
    inverter : ModelSpec or None
        The model in its place, if a point spread function is given or found.
    psfs : tuple of PSF
        Those that were given: one for all channels, one for each, or none.
    pixel_size : (float, float) or None
        Height and width of a pixel of the image in µm, where that is known.
    dimensions : int
        3 where a volume is restored as one, 2 plane by plane.
    notes : tuple of str
        What was decided and should be known.
    tiles_for : str
        Device that these tiles suit; others get their own. Empty if they hold for all.
    """

    layout: Layout
    dtype: str
    spec: ModelSpec
    options: Options
    device: str
    tiles: TileOptions
    inverter: ModelSpec | None = None
    psfs: tuple[PSF, ...] = ()
    pixel_size: tuple[float, ...] | None = None
    dimensions: int = 2
    notes: tuple[str, ...] = ()
    tiles_for: str = ""

    @property
    def in_space(self) -> bool:
        """Whether blocks go by `in_space`: volumes, and planes by classical methods."""
        return self.dimensions == 3 or self.options.method != "network"

    @property
    def model(self) -> ModelSpec:
        """The model that restores, as far as that is known before a PSF is looked for."""
        return self.inverter if self.inverter is not None and self.psfs else self.spec

    def psf(self, channel: int) -> PSF:
        """Return the PSF of a channel that was given."""
        return self.psfs[channel if len(self.psfs) > 1 else 0]

    @cached_property
    def margins(self) -> tuple[int, int, int]:
        """Planes, rows and columns around a part of space that influence it noticeably."""
        from .in_space import margins_of

        return margins_of(self)

    @property
    def structure_size(self) -> float:
        """Structures up to this many pixels stay when light is removed; 0 for all the network's."""
        return self.options.structure_size or 0.0

    @property
    def halo(self) -> int:
        """Pixels around a tile that influence it noticeably."""
        inverse = 0 if self.inverter is None else self.inverter.halo
        if self.in_space:
            return max(self.margins[1:])
        # What a PSF scatters takes several of its radii to be undone.
        wide = max((4 * (len(psf.array) // 2) for psf in self.psfs), default=0)
        return max(halo_with(self.spec.halo, self.structure_size), inverse, wide)

    @property
    def scaling(self) -> dict[str, Any]:
        """Options of `napari_restore.image.intensity.find_scales`, for this image and model."""
        return {
            "from_zero": self.spec.black_is_zero,
            "invalid_value": self.options.invalid_value,
            "keep_range": self.options.keep_range,
        }

    @property
    def work(self) -> int:
        """Pixels that the network will see: those of the image, and the halos of its tiles."""
        return self.layout.planes * self.seen(Region(0, 0, *self.layout.size))

    def seen(self, region: Region) -> int:
        """Pixels that the network will see for a region of one plane."""
        if self.in_space:
            return region.pixels
        grid = Grid(self.layout.size, self.spec.multiple_of, self.halo)
        return sum(grid.window(tile).pixels for tile in split(region, self.tiles.side))

    def at_strength(self, strength: float) -> Plan:
        """Make the same plan for another strength."""
        return replace(self, options=replace(self.options, strength=strength))

    def elsewhere(self) -> Plan:
        """Make the plan for a worker of a cluster, which has its own device."""
        return replace(self, device=self.options.device)

    def predictor(self, facts: Facts | None = None, channel: int = 0) -> Predictor:
        """Load the model for an image of which so much was found; once in each process."""
        from napari_restore.inference.predictor import find_predictor

        if facts is not None and facts.blurs:
            found = facts.blurs[channel]
            if found.psf is not None:
                assert self.inverter is not None
                blur = KnownBlur(found.psf.array, found.noise, self.linear)
                return find_predictor(self.inverter, self.device, blur=blur)
        exposure = None if facts is None else facts.exposure
        return find_predictor(self.spec, self.device, self.structure_size, exposure)

    @property
    def linear(self) -> bool:
        """Whether the samples are taken to have a camera's tone curve: those of 8-bit color."""
        return self.layout.color and self.dtype == "uint8"

    def tiles_on(self, device: str) -> TileOptions:
        """Tile options for the device that a worker turns out to have."""
        if self.tiles.fixed or self.tiles_for in ("", device):
            return self.tiles
        return _tiles_on(device, self.spec)


@lru_cache(maxsize=16)
def _tiles_on(device: str, spec: ModelSpec) -> TileOptions:
    return suited(default_tiles(device), spec, device)


def suited(tiles: TileOptions, spec: ModelSpec, device: str) -> TileOptions:
    """Make default tiles of devices suit a model: on a processor, not all go by rows."""
    return tiles if "cpu" not in device or spec.goes_by_rows else TileOptions(_WHOLE_TILE)


def make_plan(
    image: Any, options: Options, *, axes: str | None = None, rgb: bool | None = None
) -> Plan:
    """Decide what will be done, or say why it cannot be. Reads no pixel.

    Parameters
    ----------
    image : array
    options : Options
    axes, rgb
        As for `napari_restore.restore`.

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
    frames, strength, tile = options.frames, options.strength, options.tile
    if frames not in (1, 2) or isinstance(frames, bool):
        raise RestoreError(f"frames must be 1 or 2; got {frames!r}.")
    spec = find_model(options.task, layout.channels, options.model, int(frames))
    if frames == 2:
        layout = with_time(layout)
    exposure = _exposure(options.exposure, spec)
    if not (isinstance(strength, (int, float, np.integer, np.floating)) and 0 <= strength <= 1):
        raise RestoreError(f"strength must lie between 0 and 1; got {strength!r}.")
    device = resolve_device(options.device)
    if isinstance(tile, str) and tile == "auto":
        tiles = suited(default_tiles(device), spec, device)
    elif isinstance(tile, (int, np.integer)) and not isinstance(tile, bool) and tile >= 16:
        tiles = TileOptions(int(tile), fixed=True)
    else:
        raise RestoreError(
            f"tile must be 'auto' or a whole number of at least 16 pixels; got {tile!r}."
        )
    checked = replace(
        options,
        frames=int(frames),
        strength=float(strength),
        structure_size=_structure_size(options.structure_size, spec),
        exposure=exposure,
        # Numbers with a sign are measurements on a scale with a meaning, such as Hounsfield units.
        keep_range=bool(
            np.dtype(image.dtype).kind == "i" if options.keep_range is None else options.keep_range
        ),
        invalid_value=_invalid(options.invalid_value),
        pixel_size=find_pixel_size(options.pixel_size),
    )
    dimensions, layout, notes = _dimensions(checked, layout)
    psf = _psf(checked, layout, dimensions)
    inverter = None if psf == "none" else INVERTERS[layout.channels]
    if checked.method != "network":
        inverter = None
    elif dimensions == 3:
        inverter = VOLUME_INVERTER
    return Plan(
        layout,
        np.dtype(image.dtype).name,
        spec,
        replace(checked, psf=psf),
        device,
        tiles,
        inverter,
        () if isinstance(psf, str) else psf,
        None if checked.pixel_size is None else checked.pixel_size[-2:],
        dimensions,
        notes,
    )


#: What gives a PSF with planes.
_WITH_PLANES = (
    "an array (Z, Y, X), what psf_from_beads finds in a volume, or Optics(na=…, wavelength=…, "
    "pixel_size=…, z_step=…)"
)


_NO_DEPTH = "Plane by plane: no axis is named Z."


def _dimensions(options: Options, layout: Layout) -> tuple[int, Layout, tuple[str, ...]]:
    """Whether an image is restored as a volume, how it is read then, and what to say of that."""
    asked, given = options.dimensions, options.psf
    named = isinstance(given, str) or given is None
    if asked not in (2, 3, "auto") or isinstance(asked, bool):
        raise RestoreError(f"dimensions must be 2, 3 or 'auto'; got {asked!r}.")
    if options.method not in METHODS:
        raise RestoreError(f"method must be one of: {', '.join(METHODS)}; got {options.method!r}.")
    if asked == 3 or options.method != "network":
        what = "A volume" if asked == 3 else f"method '{options.method}'"
        if options.task != "deblur":
            raise RestoreError(
                f"{what} is for deblur; {options.task} was asked for. Leave dimensions and method "
                "out, or choose deblur."
            )
        if named:
            kinds = _WITH_PLANES if asked == 3 else "an array, beads or Optics"
            raise RestoreError(
                f"{what} needs a point spread function, and psf is {given!r}. Give {kinds}"
                + (
                    "; or restore plane by plane (dimensions=2)."
                    if asked == 3
                    else ", what estimate_psf finds, or choose method='network'."
                )
            )
    if asked == 3:
        return 3, with_depth(layout), ()
    if asked == 2 or options.task != "deblur" or options.frames == 2 or named:
        return 2, layout, ()
    if "Z" not in layout.axes:
        # Axes with names of their own leave no question.
        unsure = any(letter not in "TCYXS" for letter in layout.axes)
        # Arguments of optics get the distance of planes from the image, were one axis theirs.
        planes = unsure and has_planes(given, layout, (1.0, 1.0, 1.0))
        return 2, layout, (_NO_DEPTH,) if planes else ()
    count = layout.shape[layout.axes.index("Z")]
    if count < LEAST_PLANES:
        return 2, layout, (f"Plane by plane: a volume needs {LEAST_PLANES} planes along Z.",)
    why = f"the PSF has no planes. As a volume it needs {_WITH_PLANES}."
    if has_planes(given, layout, options.pixel_size):
        try:
            given_psfs(given, layout, options.pixel_size, 3)
        except PsfError as error:
            why = str(error)
        else:
            return 3, layout, (f"As a volume: {count} planes along Z, and a PSF with planes.",)
    return 2, layout, (f"Plane by plane: {why}",)


def _psf(options: Options, layout: Layout, dimensions: int) -> tuple[PSF, ...] | str:
    """PSFs that were given, "auto" or "none"."""
    given = options.psf
    applies = options.task in ("deblur", "motion_deblur") and options.frames == 1
    if given is None:
        # Each frame of a movie moved in a way of its own.
        one = layout.planes == layout.groups
        given = "auto" if options.task == "motion_deblur" and one else "none"
    if isinstance(given, str) and given == "none":
        return "none"
    if isinstance(given, str) and given == "auto":
        # A model that the user names is the one that restores.
        return given if applies and options.model == "auto" else "none"
    if not applies:
        raise RestoreError(
            "psf is for deblurring from one frame; "
            + (f"{options.task} was asked for." if options.frames == 1 else "frames is 2.")
            + " Leave it out."
        )
    if options.model != "auto":
        raise RestoreError(
            f"psf chooses the model that is told it, and model is '{options.model}'. Leave one of "
            "them out."
        )
    psfs = given_psfs(given, layout, options.pixel_size, dimensions)
    # One that was looked for and not found.
    return psfs if any(psfs) else "none"


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


def _structure_size(size: float | None, spec: ModelSpec) -> float | None:
    if size is None:
        return None
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


def _invalid(value: float | None) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise RestoreError(
            f"invalid_value must be a number, that of samples without a value; got {value!r}."
        )
    return float(value)
