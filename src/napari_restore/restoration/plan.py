"""Before the first block: options, the plan that follows, and how blurred an image is."""

from __future__ import annotations

import inspect
import math
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from napari_restore.analysis.motion import CELL, field_of_motion
from napari_restore.analysis.point_spread import PSF
from napari_restore.errors import ModelError, PsfError, RestoreError
from napari_restore.image.intensity import LOOK_SIDE, as_seen, candidates, find_scales, structure
from napari_restore.image.layout import (
    LEAST_PLANES,
    Grid,
    Layout,
    LazyStatistic,
    Planes,
    Region,
    TileOptions,
    find_layout,
    read_together,
    reflect,
    split,
    with_depth,
    with_time,
)
from napari_restore.inference.engine import default_tiles, halo_with
from napari_restore.models.catalog import (
    INVERTERS,
    VOLUME_INVERTER,
    adapted_to,
    bundled_model,
    find_model,
    is_own,
)
from napari_restore.runtime import resolve_device, torch

from .given_psf import are_optics, find_pixel_size, given_psfs, has_planes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_restore.analysis.motion import Motion
    from napari_restore.image.intensity import Scale
    from napari_restore.inference.engine import Predictor, Report
    from napari_restore.models.catalog import ModelSpec

    MaybeFacts: TypeAlias = "Facts | LazyStatistic[Facts]"


Function = TypeVar("Function", bound="Callable[..., Any]")


@dataclass(frozen=True)
class Options:
    """How an image is to be restored.

    Attributes
    ----------
    task : {"deblur", "dehaze", "motion_deblur", "denoise"}
    model : str
        "auto", a name of the catalog or of the library, or a file of weights.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "xpu", "mps". With "auto", each worker of a cluster takes
        the best it has.
    tile : int or "auto"
        Side of the tiles in pixels.
    strength : float
        0 keeps the input, 1 is the full result, linear between.
    structure_size : float, optional
        For out-of-focus light in single-channel images: structures up to this many pixels across
        stay, whatever the network takes for haze.
    frames : {1, 2}
        For motion: restore each frame alone, or with its neighbor along T (the next one; of the
        last frame, the one before) and the motion between them. Without ``axes``, the one axis
        before the plane is time.
    exposure : float, optional
        With two frames: share of the time between them that the shutter is open, above 0 and up to
        1. Found from the movie without it. Where two frames tell less than one, because the blur
        is short, not as long as this says, or nothing shows how long it is, each is restored alone.
    psf : None, "none", "auto", array, PSF or Optics
        Point spread function of the blur, for ``deblur`` and ``motion_deblur`` of one frame; the
        network that inverts it restores then. An array, (Y, X) of any size, is centered, freed from
        its background and normalized. "auto" finds it from the image, and does without where none
        explains the image. None is "auto" for images of one plane, else "none". Also what
        `psf_from_beads` returns, the arguments of `Optics` as a dictionary, or a list: one for each
        channel. For a model that was adapted to an image, None and "auto" are the one that it was
        adapted to.
    pixel_size : length, optional
        Side of a pixel of the image, or height and width: "65 nm", or a number in µm; of a volume,
        the distance of planes, height and width. A PSF that has a pixel size too is resampled to
        it, and optics need it.
    dimensions : {2, 3, "auto"}
        Restore plane by plane, or as a volume along Z, Y and X with a PSF that has planes. Without
        ``axes``, the one axis before the plane is Z. "auto" restores as a volume where an axis is
        named Z and the PSF has planes, and says so.
    method : {"network", "richardson-lucy", "wiener"}
        How a PSF is inverted, for ``deblur``. The last two are classical methods; they need a PSF.
    keep_range : bool, optional
        Hold the result between the least and the largest value of the image. Without it, signed
        integers are, as those of CT and MR.
    invalid_value : float, optional
        Value of samples that were not measured. They stay as they are and harm nothing else, as NaN
        does; so do values that nothing but a fill can have, such as -3.4e38.
    """

    task: str
    model: str = "auto"
    device: str = "auto"
    tile: int | str = "auto"
    strength: float = 1.0
    structure_size: float | None = None
    frames: int = 1
    exposure: float | None = None
    psf: Any = None
    pixel_size: Any = None
    dimensions: int | str = 2
    method: str = "network"
    keep_range: bool | None = None
    invalid_value: float | None = None

    @classmethod
    def of(cls, task: str, given: dict[str, Any]) -> Options:
        """Make options from named values.

        Raises
        ------
        RestoreError
            If there is no option of a name.
        """
        known = cls.names()
        for name in given:
            if name not in known:
                raise RestoreError(f"No option '{name}'. Choose from: {', '.join(known)}.")
        return cls(task, **given)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the options, but for the task."""
        return tuple(field.name for field in fields(cls) if field.name != "task")


def takes_options(function: Function) -> Function:
    """Show the options in the signature of a function that takes them by name."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    for field in fields(Options):
        if field.name not in signature.parameters and field.default is not MISSING:
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
            )
    parameters.sort(key=lambda p: p.kind)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


#: Largest structure that can be kept on purpose, in pixels: its halo is several times as wide.
LARGEST_STRUCTURE = 200
#: Planes, rows and columns that the network sees around a place, beside what its estimates see.
SEEN = (7, 16, 16)
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
    def overlaps(self) -> bool:
        """Whether one block is computed here while others are read and written.

        Those of volumes are large, and on processors they take far longer to compute than to read
        and to write: the memory of three more would gain nothing.
        """
        return self.dimensions != 3 or resolve_device(self.device) != "cpu"

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
        from napari_restore.physics.in_blocks import reach

        seen = SEEN if self.options.method == "network" else (0, 0, 0)
        deep = self.dimensions == 3
        reaches = []
        for psf in self.psfs:
            for array in (psf.array, *(array for _, array in psf.by_depth)):
                volume = array if array.ndim == 3 else array[None]
                reaches.append([reach(volume, axis) for axis in range(3)])
        z, y, x = (
            max(along) + more for along, more in zip(zip(*reaches, strict=True), seen, strict=True)
        )
        return z if deep else 0, y, x

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
        from napari_restore.inference.predictor import KnownBlur, find_predictor

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
    named = spec if spec.psf else None
    if named is not None:
        # What is not told a PSF finds out about the image beside it.
        spec = bundled_model(options.task, layout.channels)
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
        pixel_size=None if options.pixel_size is None else find_pixel_size(options.pixel_size),
    )
    dimensions, layout, notes = _dimensions(checked, layout)
    psf = _psf(checked, layout, dimensions, named)
    if options.model == "auto" and is_own(spec):
        notes = (*notes, f"'{spec.name}' of your library is the default for such images.")
    if named is not None and (to := adapted_to(named)):
        image_name = f", {to['image']}," if to.get("image") else ""
        notes = (*notes, f"'{named.name}' was adapted to one image{image_name} and suits no other.")
    inverter = None if psf == "none" else named or INVERTERS[layout.channels]
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


#: Said of volumes in color.
_COLORS = (
    "Red, green and blue are restored one by one, with the same PSF. If they are channels of a "
    "fluorescence microscope, give them as channels (C), each with its own PSF."
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
        return 3, with_depth(layout), _of_colors(layout)
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
    if are_optics(given):
        from napari_restore.physics.optics import GIVE_STEP

        why = f"the z step is not known. {GIVE_STEP}."
    if has_planes(given, layout, options.pixel_size):
        try:
            given_psfs(given, layout, options.pixel_size, 3)
        except PsfError as error:
            why = str(error)
        else:
            said = f"As a volume: {count} planes along Z, and a PSF with planes."
            return 3, layout, (said, *_of_colors(layout))
    return 2, layout, (f"Plane by plane: {why}",)


def _of_colors(layout: Layout) -> tuple[str, ...]:
    return (_COLORS,) if layout.color else ()


def _psf(
    options: Options, layout: Layout, dimensions: int, named: ModelSpec | None
) -> tuple[PSF, ...] | str:
    """PSFs that were given, "auto" or "none"; ``named`` is a model that is told one."""
    given = options.psf
    if named is not None:
        return _psf_of(named, options, layout, dimensions)
    applies = options.task in ("deblur", "motion_deblur") and options.frames == 1
    if given is None:
        # Each frame of a movie moved in a way of its own, and each plane of a stack is out of focus
        # by its own depth.
        given = "auto" if layout.planes == layout.groups else "none"
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


def _psf_of(
    model: ModelSpec, options: Options, layout: Layout, dimensions: int
) -> tuple[PSF, ...] | str:
    """PSFs for a model of the user's: given, or the one that it was adapted to, or "auto"."""
    given = options.psf
    if isinstance(given, str) and given == "none":
        raise RestoreError(
            f"Model '{model.name}' is told a point spread function, and psf is 'none'. Leave psf "
            "out, or choose another model."
        )
    if dimensions == 3 or options.method != "network":
        raise RestoreError(
            f"Model '{model.name}' restores planes, and is no classical method. Leave dimensions "
            "and method out, or choose model='auto'."
        )
    if given is None or isinstance(given, str):
        record = adapted_to(model).get("psf")
        if record is None:
            return "auto"
        try:
            given = PSF.from_record(record)
        except (KeyError, TypeError, ValueError, PsfError) as error:
            raise ModelError(
                f"Model '{model.name}' does not say which point spread function it was adapted to "
                f"({error!r}). Remove it, or give the psf."
            ) from error
    psfs = given_psfs(given, layout, options.pixel_size, dimensions)
    return psfs if any(psfs) else "auto"


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


@dataclass(frozen=True)
class Blur:
    """What is known of the blur of one channel.

    Attributes
    ----------
    psf : PSF or None
        The one that is inverted; None where the network that is not told one restores.
    noise : float
        Standard deviation of the noise, in the range that the network sees.
    verdict : str
        ``given``; ``narrowed``, for a PSF of optics that was wider than the image allows; or as in
        `napari_restore.analysis.find.Finding`.
    statement : str
        All that in plain words.
    untouched : bool
        The channel is sharp, and comes back as it is.
    doubt : str
        Why another PSF is inverted than that which was told; else empty.
    """

    psf: PSF | None
    noise: float
    verdict: str
    statement: str
    untouched: bool = False
    doubt: str = ""

    def record(self) -> dict[str, Any]:
        """In plain types, for the provenance; `from_record` makes the same of it."""
        said = {"verdict": self.verdict, "said": self.statement, "noise": self.noise}
        if self.untouched:
            said["untouched"] = True
        return said if self.psf is None else self.psf.record() | said

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Blur:
        """Make what was known of a record."""
        psf = PSF.from_record(record) if "samples" in record else None
        untouched = bool(record.get("untouched"))
        return cls(psf, record["noise"], record["verdict"], record["said"], untouched)


@dataclass(frozen=True)
class Light:
    """What all blocks of a channel have in common, beside the scale of its intensities.

    Attributes
    ----------
    pedestal : float
        How far noise goes below 0, in the range that a network sees.
    momenta : tuple of float
        Of the steps of Richardson and Lucy.
    """

    pedestal: float = 0.0
    momenta: tuple[float, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What was found of an image before a block of it is restored.

    Attributes
    ----------
    scales : tuple of Scale
        Intensity scales, one for each channel.
    exposure : float or None
        With two frames, share of the time between them that the shutter is open; 0 where two tell
        less than one, so that each is restored alone.
    blurs : tuple of Blur
        What blurred each channel; empty if nobody asked.
    lights : tuple of Light
        What blocks of each channel have in common in space, see `in_space`; else empty.
    """

    scales: tuple[Scale, ...]
    exposure: float | None = None
    blurs: tuple[Blur, ...] = ()
    lights: tuple[Light, ...] = ()

    @property
    def psf(self) -> PSF | None:
        """Point spread function that is inverted, of the first channel with one."""
        return next((blur.psf for blur in self.blurs if blur.psf is not None), None)

    def is_untouched(self, channel: int) -> bool:
        """Whether a channel comes back as it is."""
        return bool(self.blurs) and self.blurs[channel].untouched


def scales_of(planes: Planes, plan: Plan | None) -> tuple[Scale, ...]:
    """Intensity scales of an image, one for each channel; without a plan, for no model."""
    return find_scales(planes, **({} if plan is None else plan.scaling))


def known(facts: MaybeFacts) -> Facts:
    """Facts, found if need be."""
    return facts.get() if isinstance(facts, LazyStatistic) else facts


# ---------------------------------------------------------------- what else can be found


def try_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    report: Report,
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Measure blur after a restoration: if that fails, a note says so and the result stays."""
    try:
        return measure_blur(image, plan, scales, within)
    except (RuntimeError, MemoryError) as error:
        report.notes.append(f"How blurred the image was could not be estimated: {error}")
        return None


def measure_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Estimate how blurred an image is, from a bounded sample of it.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
    scales : tuple of Scale
        Intensity scales, as the restoration uses them.
    within : (plane index, Region), optional
        Where to look; without it, everywhere.

    Returns
    -------
    BlurEstimate or None
        None if the plan's model cannot tell, or the image has too little structure.
    """
    return estimate_blur(Planes(image, plan.layout), plan.predictor(), scales, within)


def find_motion(
    image: Any, plan: Plan, scales: tuple[Scale, ...] | None = None, spacing: int = CELL
) -> Motion:
    """Find the motion in an image: see `napari_restore.analysis.motion`.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. Read tile by tile.
    plan : Plan
        Of a model that finds motion.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    spacing : int
        Side of the cells of the field in pixels, a multiple of 16.

    Returns
    -------
    Motion

    Raises
    ------
    RestoreError
        If the model does not find motion.
    """
    if plan.spec.estimator != "motion":
        raise RestoreError(
            f"Model '{plan.spec.name}' does not say how things moved. Choose 'auto', or one that "
            "was trained for motion_deblur with estimates."
        )
    source = Planes(image, plan.layout)
    if scales is None:
        scales = scales_of(source, plan)
    return field_of_motion(source, plan.predictor(), scales, spacing)


#: How many windows are measured: of small images fewer, about an eighth of their pixels.
_FEWEST, _MEASURED = 2, 6
#: Below, there is nothing to restore. From the second on, an image may be blurred more than any
#: that the networks were trained on: their estimates hardly grow further.
SHARP, STRONG = 0.45, 2.6
#: Roughness of averaged blocks, that of white noise being 1, up to which there is no structure.
_NOISE = 1.5
#: Standard deviation of log σ above which the network does not know.
_UNSURE = 0.7


@dataclass(frozen=True)
class BlurEstimate:
    """Blur of an image, as the standard deviation of an equivalent Gaussian.

    Attributes
    ----------
    sigma : float
        In pixels; see `napari_restore.physics.psf.equivalent_sigma`. A sharp image has about 0.3.
    low, high : float
        Smallest and largest of the windows that were measured.
    windows : int
        How many there were, those with the most structure of an even sample.
    """

    sigma: float
    low: float
    high: float
    windows: int

    @property
    def verdict(self) -> str:
        """What to expect: ``sharp``, ``blurred`` or ``strong``, which may be beyond repair."""
        if self.sigma < SHARP:
            return "sharp"
        return "blurred" if self.sigma < STRONG else "strong"

    def record(self) -> dict[str, Any]:
        """In plain types, for the provenance."""
        return {
            "sigma_px": round(self.sigma, 2),
            "range_px": [round(self.low, 2), round(self.high, 2)],
            "windows": self.windows,
            "verdict": self.verdict,
        }


def estimate_blur(
    source: Planes,
    predictor: Predictor,
    scales: Sequence[Scale],
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Estimate how blurred an image is.

    Parameters
    ----------
    source : Planes
        The whole image; at most some two million samples of it are read.
    predictor : Predictor
    scales : sequence of Scale
        One for each channel of the layout.
    within : (plane index, Region), optional
        Where to look; without it, everywhere.

    Returns
    -------
    BlurEstimate or None
        None if the model has no estimator, or there is too little structure to tell.
    """
    if not predictor.estimates_blur or source.layout.pixels == 0:
        return None
    windows, places = [], list(candidates(source.layout, within))
    layout = source.layout
    for (index, region), block in zip(places, read_together(source, places), strict=True):
        rows, columns = range(region.top, region.bottom), range(region.left, region.right)
        normal, _ = as_seen(block, scales[layout.group(index)], layout, rows, columns)
        windows.append((structure(normal), normal))
    windows.sort(key=lambda item: -item[0])
    logs, weights = [], []
    share = source.layout.pixels // (8 * LOOK_SIDE**2)
    for contrast, normal in windows[: min(max(share, _FEWEST), _MEASURED)]:
        if contrast == 0 or _is_noise(normal):
            continue
        mean, log_variance = window_estimates(normal, predictor)
        precision = np.exp(-log_variance)
        if 1 / math.sqrt(precision.mean()) <= _UNSURE:
            logs.append(float((precision * mean).sum() / precision.sum()))
            weights.append(float(precision.mean()))
    if not logs:
        return None
    sigma = math.exp(float(np.average(logs, weights=weights)))
    return BlurEstimate(sigma, math.exp(min(logs)), math.exp(max(logs)), len(logs))


def _is_noise(normal: NDArray[np.float32]) -> bool:
    """Whether a window shows no more than noise: nothing lasts when pixels are averaged.

    The second differences of white noise, whatever its distribution, fall as the side of the
    averaged blocks grows; those of scenes, blurred or sharp, fall less or not at all.
    """
    side = next((side for side in (8, 4) if min(normal.shape[:2]) >= 8 * side), 0)
    if not side:
        return False
    height, width = (length // side * side for length in normal.shape[:2])
    blocks = normal[:height, :width].reshape(height // side, side, width // side, side, -1)
    fine = _roughness(normal)
    return fine > 0 and _roughness(blocks.mean((1, 3))) * side < _NOISE * fine


def _roughness(image: NDArray[np.float32]) -> float:
    second = np.diff(np.diff(image.astype(np.float64), 2, 0), 2, 1)
    return float(np.sqrt(np.mean(second**2)))


def window_estimates(
    normal: NDArray[np.float32], predictor: Predictor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and log variances over a window, the border of it left out where there is enough."""
    height, width = normal.shape[:2]
    size = (height, width)
    whole = Region(0, 0, height, width)
    window = Grid(size, predictor.multiple_of, 0).window(whole)
    tensor = torch.from_numpy(reflect(normal, whole, window, size))
    estimates = predictor.estimate(tensor.permute(2, 0, 1)[None])[0, :, 0].double().numpy()
    edge = 2 if min(estimates.shape[1:]) > 8 else 0
    inner = estimates[:, edge or None : -edge or None, edge or None : -edge or None]
    return inner[0], inner[1].clip(-6, 4)
