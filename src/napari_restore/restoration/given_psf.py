"""Point spread functions that are given, in any of their forms, as an image needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_restore.analysis.point_spread import PSF, square
from napari_restore.errors import PsfError, RestoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_restore.image.layout import Layout
    from napari_restore.physics.beads import BeadPsf
    from napari_restore.physics.optics import Optics

    #: Height and width of a pixel in µm; of volumes, the distance of planes before them.
    PixelSize = tuple[float, ...]

#: Refractive indices that differ by less aberrate nothing; how many times as far apart as a PSF is
#: deep others are computed, and how many at most.
_SAME_INDEX, _SLAB, _MOST_SLABS = 2e-3, 3.0, 6
#: How many times as large a numerical aperture may be meant, and the largest one, as a share of the
#: refractive index of the immersion.
_MORE, _MOST = 1.1, 0.99
#: Pixels whose sides differ by less than this share are as large.
_ALIKE = 1e-3
_KINDS = (
    "'auto', 'none', an array, a PSF, what psf_from_beads returns, Optics or their arguments as a "
    "dictionary"
)


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured point spread function as it lies in a file or a layer.

    Attributes
    ----------
    array : array
        (Y, X); of any size, with a background.
    pixel_size : (float, float) or None
        Height and width of its pixels in µm; None where they are not known.
    name : str
        Of the file or layer.
    relative : bool
        ``pixel_size`` is in pixels of the image, not in µm.
    """

    array: Any
    pixel_size: PixelSize | None = None
    name: str = ""
    relative: bool = False


def find_pixel_size(given: Any) -> PixelSize | None:
    """Height and width of the pixels of an image in µm, and the distance of planes before them.

    Parameters
    ----------
    given : length, or two or three
        Numbers are µm; texts have a unit ("65 nm"); quantities are those of pint.

    Raises
    ------
    PsfError
        If it is no length above 0.
    """
    if given is None:
        return None
    from napari_restore.physics.lengths import micrometers

    several = isinstance(given, (tuple, list)) or (isinstance(given, np.ndarray) and given.ndim)
    each = list(given) if several else [given, given]
    lengths = [micrometers(length, "pixel size of the image") for length in each]
    if len(lengths) == 3 and lengths[0] <= 0 < min(lengths[1:]):
        raise PsfError(
            f"The z step, the distance of planes, is {each[0]!r}. Give a length above 0, '200 nm' "
            "or 0.2 (µm), say: as z_step of the optics, or first of three in pixel_size; in napari "
            "as z step in the dock, or as the layer's scale along Z."
        )
    if len(lengths) not in (2, 3) or min(lengths) <= 0:
        raise PsfError(
            f"pixel_size is {given!r}. Give one length above 0, '65 nm' or 0.065 (µm), say; or "
            "two, height and width of a pixel; or three, with the distance of planes before them."
        )
    return tuple(lengths)


def has_planes(given: Any, layout: Layout, pixel_size: PixelSize | None) -> bool:
    """Whether what a user gives for a PSF can be one of a volume.

    Parameters
    ----------
    given, layout, pixel_size
        As for `given_psfs`.
    """
    if isinstance(given, Mapping):
        return given.get("z_step") is not None or (pixel_size is not None and len(pixel_size) == 3)
    if hasattr(given, "modality"):
        return getattr(given, "z_step", None) is not None
    if _is_list(given, layout, 3):
        return all(has_planes(each, layout, pixel_size) for each in given)
    array = getattr(given, "array", given)
    if not hasattr(array, "__array__"):
        return False
    if _is_list(array, layout, 2):
        return False
    shape = [side for side in np.shape(array) if side > 1]
    return len(shape) == 3 and shape[-1] > 4


def are_optics(given: Any) -> bool:
    """Whether a user gives optics: one microscope's, or a list of them."""
    if isinstance(given, (list, tuple)):
        return bool(given) and all(are_optics(each) for each in given)
    return isinstance(given, Mapping) or hasattr(given, "modality")


def given_psfs(
    given: Any, layout: Layout, pixel_size: PixelSize | None, dimensions: int = 2
) -> tuple[PSF, ...]:
    """Make what a user gives fit an image.

    Parameters
    ----------
    given : Any
        An array (Y, X), or (C, Y, X) for an image with channels; a `PSF`, a `Measured`, what
        `psf_from_beads` returns, `Optics`, a dictionary of their arguments; or a list of these, one
        for each channel. In a dictionary, ``"channels"`` holds what differs between channels, and
        the pixel size is that of the image unless it is named.
    layout : Layout
    pixel_size : tuple of float or None
        Of the image, in µm.
    dimensions : int
        3 for a volume, whose PSFs have planes.

    Returns
    -------
    tuple of PSF
        One for all channels, or one for each; in pixels of the image.

    Raises
    ------
    PsfError
    """
    if isinstance(given, Mapping) and "channels" in given:
        shared = {name: value for name, value in given.items() if name != "channels"}
        given = [shared | dict(channel) for channel in given["channels"]]
    target = _Target(layout, pixel_size, dimensions)
    if _is_list(given, layout, dimensions):
        return tuple(_one(each, target) for each in _each_channel(given, layout))
    return (_one(given, target),)


class _Target(NamedTuple):
    """What a PSF has to fit."""

    layout: Layout
    voxel: PixelSize | None
    dimensions: int

    @property
    def pixel_size(self) -> PixelSize | None:
        """As many lengths as the PSF has axes; None where they are not known."""
        if self.voxel is None or len(self.voxel) < self.dimensions:
            return None
        return tuple(list(self.voxel)[-self.dimensions :])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image, (Y, X) or (Z, Y, X)."""
        depth = [self.layout.shape[self.layout.axes.index("Z")]] if self.dimensions == 3 else []
        return (*depth, *self.layout.size)


def _is_list(given: Any, layout: Layout, dimensions: int) -> bool:
    """Whether there is one PSF for each channel: a list that is not one of numbers, or a stack."""
    if isinstance(given, (list, tuple)):
        return any(not isinstance(each, (int, float, list, tuple)) for each in given)
    shape: tuple[int, ...] = getattr(given, "shape", ())
    several = layout.groups > 1 and len(shape) == dimensions + 1
    return several and shape[0] > 1 and shape[-1] > 4


def _each_channel(given: Sequence[Any], layout: Layout) -> Sequence[Any]:
    count = layout.groups
    if len(given) == count or len(given) == 1:
        return given
    if count > 1:
        raise PsfError(
            f"{len(given)} PSFs were given for an image with {count} channels. Give one for all, "
            "or one for each."
        )
    also = "" if layout.color else ", or say which axis holds channels: axes='CYX', say"
    raise PsfError(
        f"{len(given)} PSFs were given, one for each channel, and the image of shape "
        f"{layout.shape} has no axis of channels. Choose one of them{also}."
    )


def _one(given: Any, target: _Target) -> PSF:
    if isinstance(given, PSF):
        return _known(given, target)
    if isinstance(given, Measured):
        return _measured(given, target)
    if isinstance(given, Mapping):
        given = _optics(given, target.voxel)
    if hasattr(given, "modality"):
        return _from_optics(given, target)
    if hasattr(given, "rejected"):
        return _from_beads(given, target)
    if isinstance(given, (str, bytes)) or not (
        hasattr(given, "__array__") or isinstance(given, (list, tuple))
    ):
        raise RestoreError(f"psf must be {_KINDS}; got {given!r}.")
    return _measured(Measured(given), target)


def _known(psf: PSF, target: _Target) -> PSF:
    """Fit a PSF that was found or made before, for pixels of other size too."""
    if not psf or not target.layout.pixels:
        return psf
    array, notes = _fit(psf.array, _in_micrometers(psf), target, computed=True)
    pixel_size = target.pixel_size
    if not notes:
        size, unit = (pixel_size, "µm") if pixel_size else (psf.pixel_size, psf.unit)
        return replace(psf, pixel_size=size, unit=unit)
    return PSF(
        array,
        psf.family,
        # Those of the family are in pixels, which are others now.
        {},
        psf.uncertainty,
        " ".join((psf.found, *notes)),
        pixel_size,
        None if pixel_size is None else "µm",
    )


def _in_micrometers(psf: PSF) -> PixelSize | None:
    if psf.pixel_size is None or psf.unit is None:
        return None
    from napari_restore.physics.lengths import micrometers

    return tuple(micrometers(f"{size} {psf.unit}", "pixel size") for size in psf.pixel_size)


def _measured(given: Measured, target: _Target) -> PSF:
    size = target.pixel_size
    if given.relative:
        target = target._replace(voxel=(1.0,) * target.dimensions)
    array, notes = _fit(given.array, given.pixel_size, target)
    if given.pixel_size is not None and target.pixel_size is None:
        notes += (_ASSUMED,)
    said = f"As given in {given.name}." if given.name else "As given."
    return _made(array, "measured", size, said, *notes)


_AS_DEEP = "The distance of its planes is not known: it is taken to be the image's."
_ASSUMED = "The size of the image's pixels is not known: those of the PSF are taken to be as large."


def _from_beads(beads: BeadPsf, target: _Target) -> PSF:
    have = None if beads.pixel_size is None else find_pixel_size(beads.pixel_size)
    array, notes = _fit(beads.array, have, target, computed=True)
    if have is not None and target.pixel_size is None:
        notes += (_ASSUMED,)
    return _made(array, "beads", target.pixel_size, "From beads:", *beads.notes, *notes)


def _optics(told: Mapping[str, Any], pixel_size: PixelSize | None) -> Optics:
    """Optics by their arguments; the size of the pixels is the image's."""
    from napari_restore.physics.optics import Optics

    names = list(Optics.__dataclass_fields__)
    unknown = [str(name) for name in told if name not in names]
    if unknown:
        raise PsfError(
            f"Optics have no '{unknown[0]}'. Choose from: {', '.join(names)}; and channels."
        )
    arguments = {name: value for name, value in told.items() if value is not None}
    if "pixel_size" not in arguments and pixel_size is not None:
        arguments["pixel_size"] = min(pixel_size[-2:])
    if "z_step" not in arguments and pixel_size is not None and len(pixel_size) == 3:
        arguments["z_step"] = pixel_size[0]
    return Optics(**arguments)


def _from_optics(optics: Optics, target: _Target) -> PSF:
    have: PixelSize = (optics.pixel_size, optics.pixel_size)
    if target.dimensions == 3:
        if optics.z_step is None and target.pixel_size is not None:
            optics = replace(optics, z_step=target.pixel_size[0])
        have = (optics.z_step or 0.0, *have)
    depths = _depths(optics, target)
    middle = replace(optics, depth=depths[len(depths) // 2][1]) if depths else optics
    array, notes = _fit(middle.psf(dimensions=target.dimensions), have, target, computed=True)
    made = _made(array, "optics", target.pixel_size or have, describe_optics(optics), *notes)
    made = replace(made, optics=optics)
    if not depths:
        return made
    arrays = [
        (
            plane,
            _fit(replace(optics, depth=depth).psf(dimensions=3), have, target, computed=True)[0],
        )
        for plane, depth in depths
    ]
    said = (
        f" The sample's refractive index is {optics.sample:g}, not {optics.immersion:g}: the PSF "
        f"changes with depth, and {len(depths)} of them are used."
    )
    return replace(made, by_depth=tuple(arrays), found=made.found + said)


def narrower(psf: PSF, layout: Layout, pixel_size: PixelSize | None) -> tuple[PSF, ...]:
    """Make the PSFs of numerical apertures that are 10 % larger, twice.

    Parameters
    ----------
    psf : PSF
        Of a volume, from optics or not.
    layout, pixel_size
        As for `given_psfs`.

    Returns
    -------
    tuple of PSF
        Two, or none where no optics were told or no such aperture is possible.
    """
    optics = psf.optics
    if optics is None or psf.dimensions == 2 or _MORE**2 * optics.na > _MOST * optics.immersion:
        return ()
    same = replace(optics, ri_immersion=optics.immersion)
    larger = (replace(same, na=factor * same.na) for factor in (_MORE, _MORE**2))
    return tuple(given_psfs(each, layout, pixel_size, 3)[0] for each in larger)


def _depths(optics: Optics, target: _Target) -> list[tuple[int, float]]:
    """Planes of a volume, and their depths in µm, at which an aberrated PSF is computed."""
    same = abs(optics.sample - optics.immersion) < _SAME_INDEX
    if target.dimensions == 2 or same or not target.layout.pixels:
        return []
    planes, step = target.shape[0], (target.pixel_size or (optics.z_step or 0.0,))[0]
    count = min(_MOST_SLABS, 2 + int((planes - 1) * step / (_SLAB * optics.axial_fwhm)))
    places = np.unique(np.linspace(0, planes - 1, count).round().astype(int))
    # Stacks go deeper into the sample; the depth that is told is that of the first plane.
    return [(int(place), optics.depth + float(place) * step) for place in places]


def describe_optics(optics: Optics) -> str:
    """Say what optics are, and what was assumed."""
    from napari_restore.physics.lengths import named

    parts = [
        optics.modality,
        f"NA {optics.na:g}",
        f"λ {named(optics.wavelength)}",
        f"n {optics.immersion:g}",
    ]
    if optics.defocus:
        parts.append(f"{named(optics.defocus)} out of focus")
    return " ".join((f"From the optics: {', '.join(parts)}.", *optics.notes))


def _made(array: Any, family: str, pixel_size: PixelSize | None, *said: str) -> PSF:
    unit = None if pixel_size is None else "µm"
    return PSF(array, family, found=" ".join(said), pixel_size=pixel_size, unit=unit)


def _fit(
    array: Any, have: PixelSize | None, target: _Target, *, computed: bool = False
) -> tuple[Any, tuple[str, ...]]:
    """Clean, resample and cut a kernel for an image; say what was done."""
    from napari_restore.physics.measured import as_psf

    want = target.pixel_size
    notes: tuple[str, ...] = ()
    if have is not None and want is not None and len(have) != len(want):
        if len(have) > len(want):
            have = have[-len(want) :]
        else:
            # One length or two say nothing of the planes.
            have, notes = (want[0], *have), (_AS_DEEP,)
    fit = as_psf(
        array,
        have if want is not None else None,
        want,
        target.dimensions,
        image_shape=target.shape,
        center=False if computed else None,
        computed=computed,
    )
    fitted = square(fit.array) if target.dimensions == 2 else fit.array
    return fitted, (*fit.notes, *notes)


def optics_of_channels(
    metadata: str | Mapping[str, Any] | None, told: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Join what the metadata record of the optics with what is told beside; the latter counts.

    Parameters
    ----------
    metadata : str, mapping or None
        See `napari_restore.physics.recorded.recorded_optics`.
    told : mapping
        Arguments of `Optics`; None for what is not told. A list of wavelengths is one for each
        channel.

    Returns
    -------
    list of dict
        Arguments of `Optics` for each channel, or of one for all; without a pixel size, unless it
        is told, for that is the image's.
    list of str
        What was recorded and could not be used.
    """
    from napari_restore.physics.recorded import RecordedOptics, recorded_optics

    records = [RecordedOptics()] if metadata is None else recorded_optics(metadata)
    said = {name: value for name, value in told.items() if value is not None}
    wavelengths = said.get("wavelength")
    if isinstance(wavelengths, (list, tuple)):
        if len(records) not in (1, len(wavelengths)):
            raise PsfError(
                f"{len(wavelengths)} wavelengths were given for {len(records)} channels. Give one "
                "for all, or one for each."
            )
        records = records * (len(wavelengths) // len(records))
        each = [{"wavelength": wavelength} for wavelength in wavelengths]
    else:
        each = [{}] * len(records)
    channels = [
        {name: value for name, value in record.found.items() if name != "pixel_size"} | said | own
        for record, own in zip(records, each, strict=True)
    ]
    # Channels that share all are no reason to ask for an axis of channels.
    if all(channel == channels[0] for channel in channels):
        channels = channels[:1]
    return channels, list(dict.fromkeys(note for record in records for note in record.notes))
