"""Point spread functions that are given, in any of their forms, as an image needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.analysis.point_spread import PSF, square
from napari_restore.errors import PsfError, RestoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_restore.image.layout import Layout
    from napari_restore.physics.beads import BeadPsf
    from napari_restore.physics.optics import Optics

    #: Height and width of a pixel in µm.
    PixelSize = tuple[float, float]

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
    """Height and width of the pixels of an image in µm.

    Parameters
    ----------
    given : length, (length, length) or None
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
    if len(lengths) != 2 or min(lengths) <= 0:
        raise PsfError(
            f"pixel_size is {given!r}. Give one length above 0, such as '65 nm' or 0.065 (µm), or "
            "two: height and width of a pixel."
        )
    return lengths[0], lengths[1]


def given_psfs(given: Any, layout: Layout, pixel_size: PixelSize | None) -> tuple[PSF, ...]:
    """Make what a user gives fit an image.

    Parameters
    ----------
    given : Any
        An array (Y, X), or (C, Y, X) for an image with channels; a `PSF`, a `Measured`, what
        `psf_from_beads` returns, `Optics`, a dictionary of their arguments; or a list of these, one
        for each channel. In a dictionary, ``"channels"`` holds what differs between channels, and
        the pixel size is that of the image unless it is named.
    layout : Layout
    pixel_size : (float, float) or None
        Of the image, in µm.

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
    if _is_list(given, layout):
        return tuple(_one(each, layout, pixel_size) for each in _each_channel(given, layout))
    return (_one(given, layout, pixel_size),)


def _is_list(given: Any, layout: Layout) -> bool:
    """Whether there is one PSF for each channel: a list that is not one of numbers, or a stack."""
    if isinstance(given, (list, tuple)):
        return any(not isinstance(each, (int, float, list, tuple)) for each in given)
    shape: tuple[int, ...] = getattr(given, "shape", ())
    return layout.groups > 1 and len(shape) == 3 and shape[0] > 1 and shape[-1] > 4


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


def _one(given: Any, layout: Layout, pixel_size: PixelSize | None) -> PSF:
    if isinstance(given, PSF):
        return _known(given, layout, pixel_size)
    if isinstance(given, Measured):
        return _measured(given, layout, pixel_size)
    if isinstance(given, Mapping):
        given = _optics(given, pixel_size)
    if hasattr(given, "modality"):
        return _from_optics(given, layout, pixel_size)
    if hasattr(given, "rejected"):
        return _from_beads(given, layout, pixel_size)
    if isinstance(given, (str, bytes)) or not (
        hasattr(given, "__array__") or isinstance(given, (list, tuple))
    ):
        raise RestoreError(f"psf must be {_KINDS}; got {given!r}.")
    return _measured(Measured(given), layout, pixel_size)


def _known(psf: PSF, layout: Layout, pixel_size: PixelSize | None) -> PSF:
    """Fit a PSF that was found or made before, for pixels of other size too."""
    if not psf or not layout.pixels:
        return psf
    have = _in_micrometers(psf)
    array, notes = _fit(psf.array, have, layout, pixel_size, computed=True)
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

    height, width = (micrometers(f"{size} {psf.unit}", "pixel size") for size in psf.pixel_size)
    return height, width


def _measured(given: Measured, layout: Layout, pixel_size: PixelSize | None) -> PSF:
    wanted = (1.0, 1.0) if given.relative else pixel_size
    array, notes = _fit(given.array, given.pixel_size, layout, wanted)
    if given.pixel_size is not None and wanted is None:
        notes += (_ASSUMED,)
    said = f"As given in {given.name}." if given.name else "As given."
    return _made(array, "measured", pixel_size, said, *notes)


_ASSUMED = "The size of the image's pixels is not known: those of the PSF are taken to be as large."


def _from_beads(beads: BeadPsf, layout: Layout, pixel_size: PixelSize | None) -> PSF:
    have = None if beads.pixel_size is None else find_pixel_size(beads.pixel_size)
    array, notes = _fit(beads.array, have, layout, pixel_size, computed=True)
    if have is not None and pixel_size is None:
        notes += (_ASSUMED,)
    return _made(array, "beads", pixel_size, "From beads:", *beads.notes, *notes)


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
        arguments["pixel_size"] = min(pixel_size)
    return Optics(**arguments)


def _from_optics(optics: Optics, layout: Layout, pixel_size: PixelSize | None) -> PSF:
    have = (optics.pixel_size, optics.pixel_size)
    array, notes = _fit(optics.psf(dimensions=2), have, layout, pixel_size, computed=True)
    return _made(array, "optics", pixel_size or have, describe_optics(optics), *notes)


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
    array: Any,
    have: PixelSize | None,
    layout: Layout,
    want: PixelSize | None,
    *,
    computed: bool = False,
) -> tuple[Any, tuple[str, ...]]:
    """Clean, resample and cut a kernel for an image; say what was done."""
    from napari_restore.physics.measured import as_psf

    fit = as_psf(
        array,
        have if want is not None else None,
        want,
        image_shape=layout.size,
        center=False if computed else None,
        computed=computed,
    )
    return square(fit.array), fit.notes


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
