"""What optics can be, and what has to be said about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.errors import PsfError

from .lengths import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .optics import Optics

MODALITIES = ("widefield", "confocal", "spinning disk", "light sheet", "two-photon")
MODELS = ("auto", "scalar", "vectorial")
#: From this wavelength on, in µm, light seen by a two-photon microscope is that which excites.
INFRARED = 0.68


def modality(name: str) -> str:
    """Find a modality by its name, however it is spelt."""
    wanted = str(name).lower().translate({ord(c): None for c in " -_"})
    wanted = {"2photon": "twophoton", "multiphoton": "twophoton"}.get(wanted, wanted)
    for known in MODALITIES:
        if known.replace(" ", "").replace("-", "") == wanted:
            return known
    raise PsfError(f"There is no modality {name!r}. Choose one of {', '.join(MODALITIES)}.")


def check(optics: Optics) -> None:
    """Raise a `PsfError` for what cannot be."""
    if optics.model not in MODELS:
        raise PsfError(f"There is no model {optics.model!r}. Choose one of {', '.join(MODELS)}.")
    if optics.na >= optics.immersion:
        raise PsfError(
            f"The numerical aperture is {optics.na:g}, but cannot reach the refractive index of "
            f"the immersion, {optics.immersion:g}. Check both: air has 1, water 1.33, oil 1.515."
        )
    airy = 0.61 * optics.wavelength / optics.na
    if not airy / 200 <= optics.pixel_size <= 20 * airy:
        raise PsfError(
            f"The pixel size is {named(optics.pixel_size)}, but the Airy disk has a radius of "
            f"{named(airy)}. Check the unit; plain numbers are µm, and '65 nm' is understood."
        )
    if optics.modality == "light sheet" and optics.sheet_thickness is None:
        raise PsfError(
            "The sheet thickness is missing. A light sheet needs its full width at half maximum, "
            "sheet_thickness='2 µm', say."
        )
    if optics.modality == "two-photon" and optics.excitation is None:
        if optics.wavelength < INFRARED:
            raise PsfError(
                "The excitation wavelength is missing. The resolution of a two-photon microscope "
                "follows from it: excitation='920 nm', say."
            )
        object.__setattr__(optics, "excitation", optics.wavelength)


def step(optics: Optics) -> float:
    """Find the z step for a volume, or say why there can be none."""
    if optics.z_step is None:
        raise PsfError(
            "The z step is missing. A point spread function in 3D needs the distance between "
            "planes, z_step='200 nm', say; or restore plane by plane."
        )
    if optics.z_step > optics.axial_fwhm:
        raise PsfError(
            f"The z step is {named(optics.z_step)}, but the point spread function is only "
            f"{named(optics.axial_fwhm)} deep: planes lie too far apart to be a volume (Nyquist: "
            f"{named(optics.nyquist[0])}). Check the unit, or restore plane by plane."
        )
    return optics.z_step


def half(shape: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """Pixels to each side of the center of a PSF of a shape."""
    sides = (shape,) * dimensions if isinstance(shape, int) else tuple(shape)
    if len(sides) != dimensions or any(side < 1 or side % 2 == 0 for side in sides):
        raise PsfError(
            f"The shape {sides} is none for a PSF in {dimensions}D. Give {dimensions} odd numbers."
        )
    return tuple(side // 2 for side in sides)


def notes(optics: Optics) -> tuple[str, ...]:
    """Say what was assumed, and what about the sampling limits a restoration."""
    said = []
    if optics.ri_immersion is None and optics.refractive_index is None:
        said.append(f"Immersion with a refractive index of {optics.immersion:g} is assumed.")
    if optics.ri_sample is None and optics.refractive_index is None:
        said.append(f"A sample with a refractive index of {optics.sample:g} is assumed.")
    scanned = optics.modality in ("confocal", "spinning disk")
    if scanned and optics.pinhole is None:
        said.append("A pinhole of 1 Airy unit is assumed.")
    if scanned and optics.excitation is None:
        said.append(f"Excitation at {named(optics.wavelength)}, as the emission, is assumed.")
    axial, lateral = optics.nyquist
    if optics.pixel_size > lateral:
        said.append(
            f"Pixels of {named(optics.pixel_size)} are coarser than Nyquist's "
            f"{named(lateral)}: details between the two are lost."
        )
    if optics.z_step is not None and optics.z_step > axial:
        said.append(
            f"Steps of {named(optics.z_step)} are coarser than Nyquist's {named(axial)} along Z: "
            "details between the two are lost."
        )
    return tuple(said)
