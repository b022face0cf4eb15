"""Point spread functions of microscopes, in two and three dimensions, from what the optics are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_restore.errors import PsfError

from .diffraction import Lens, over_disk, over_pixels
from .lengths import Needed, Told, named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_INDEX = "Air has 1, water 1.33, glycerol 1.46, oil 1.515."
#: Sine of the half angle from which light has to be a vector: 40 degrees.
STEEP = 0.64
#: Share of the light of the planes that a PSF of automatic size holds.
KEPT = 0.98
#: Planes as faint as this, beside the brightest, are left out of a PSF of automatic size.
FAINT = 0.01
#: Most pixels to each side of the center of a PSF of automatic size: in Z, in Y and X.
MOST = (32, 48)


@dataclass(frozen=True, kw_only=True)
class Optics:
    """A microscope, and the point spread functions that follow from it.

    Lengths are numbers in micrometers, texts with a unit ("520 nm") or quantities of pint; they are
    kept as micrometers. Sizes of pixels and steps are those in the sample.

    Attributes
    ----------
    na : float
        Numerical aperture of the objective.
    wavelength : float
        Emission wavelength in vacuum.
    pixel_size : float
        Side of a pixel in Y and X.
    z_step : float, optional
        Distance of planes, as the stage or the objective moves. Volumes need it.
    refractive_index : float, optional
        Index of all that lies before the objective, except for what the next two name.
    ri_immersion, ri_sample : float, optional
        Indices of the immersion and of the sample. By default, the most common immersion for the
        aperture is taken, and the sample has the index of the immersion; see `notes`.
    depth : float
        Depth below the coverslip of what is seen; for a volume, of its first plane. It matters if
        the two indices differ.
    modality : str
        One of ``"widefield"``, ``"confocal"``, ``"spinning disk"``, ``"light sheet"``,
        ``"two-photon"``.
    excitation : float, optional
        Wavelength of the excitation, for confocal, spinning disk and two-photon.
    pinhole : float, optional
        Diameter in Airy units (1.22 λ / NA), for confocal and spinning disk; else 1.
    sheet_thickness : float, optional
        Full width at half maximum of a light sheet.
    defocus : float
        Distance of the plane that is seen from the best focus, for two dimensions: positive deeper
        in the sample. A volume holds planes at all distances.
    model : str
        ``"scalar"`` (Gibson and Lanni), ``"vectorial"`` (Richards and Wolf), or ``"auto"``:
        vectorial where rays are steeper than 40 degrees.

    Raises
    ------
    PsfError
        Where something is missing or cannot be.

    Notes
    -----
    The planes of a volume are in the order of a stack that goes deeper into the sample. Its middle
    is the best focus, where the point is brightest: aberrations do not move what is restored.
    """

    na: Needed = Needed(
        "numerical aperture", 0.005, 1.7, "It stands on the objective, such as 0.8.", length=False
    )
    wavelength: Needed = Needed(
        "wavelength", 0.2, 2.0, "Give the emission wavelength, such as '520 nm' or 0.52 (µm)."
    )
    pixel_size: Needed = Needed(
        "pixel size", 1e-4, 1e3, "Give its size in the sample, such as '65 nm' or 0.065 (µm)."
    )
    z_step: Told = Told(
        "z step", 1e-3, 1e3, "Give the distance between planes, such as '200 nm' or 0.2 (µm)."
    )
    refractive_index: Told = Told("refractive index", 1.0, 4.0, _INDEX, length=False)
    ri_immersion: Told = Told("refractive index of the immersion", 1.0, 4.0, _INDEX, length=False)
    ri_sample: Told = Told("refractive index of the sample", 1.0, 4.0, _INDEX, length=False)
    depth: Needed = Needed(
        "depth", 0.0, 1e4, "Give the distance below the coverslip, such as '10 µm'.", default=0.0
    )
    modality: str = "widefield"
    excitation: Told = Told(
        "excitation wavelength", 0.2, 2.0, "Give it as '488 nm' or 0.488 (µm), say."
    )
    pinhole: Told = Told(
        "pinhole", 0.01, 100.0, "Give its diameter in Airy units, such as 1.", length=False
    )
    sheet_thickness: Told = Told(
        "sheet thickness", 0.01, 1e3, "Give its full width at half maximum, such as '2 µm'."
    )
    defocus: Needed = Needed(
        "defocus", -1e3, 1e3, "Give the distance from the focus, such as '1 µm'.", default=0.0
    )
    model: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "modality", _known_modality(self.modality))
        _check(self)

    @property
    def immersion(self) -> float:
        """Refractive index of the immersion, as told or assumed."""
        for index in (self.ri_immersion, self.refractive_index):
            if index is not None:
                return index
        return 1.0 if self.na < 1 else 1.33 if self.na < 1.28 else 1.515

    @property
    def sample(self) -> float:
        """Refractive index of the sample, as told or assumed."""
        for index in (self.ri_sample, self.refractive_index):
            if index is not None:
                return index
        return self.immersion

    @property
    def lateral_fwhm(self) -> float:
        """Full width at half maximum of the Airy disk, 0.51 λ / NA, in µm."""
        return 0.51 * self._seen / self.na

    @property
    def axial_fwhm(self) -> float:
        """Full width at half maximum along the axis, 0.88 λ / (n - √(n² - NA²)), in µm.

        The objective sets it, or a light sheet that is thinner.
        """
        n = self.immersion
        width = 0.88 * self._seen / (n - math.sqrt(n**2 - self.na**2))
        sheet = self.sheet_thickness
        return width if sheet is None else 1 / math.hypot(1 / width, 1 / sheet)

    @property
    def nyquist(self) -> tuple[float, float]:
        """Coarsest z step and pixel size, in µm, that keep all that the objective lets pass.

        Confocal and two-photon images can hold twice as much as those of a wide-field microscope.
        """
        n, share = self.immersion, 1 if self.modality in ("widefield", "light sheet") else 2
        lateral = self._seen / (4 * self.na)
        axial = self._seen / (2 * (n - math.sqrt(n**2 - self.na**2)))
        return axial / share, lateral / share

    @property
    def vectorial(self) -> bool:
        """Whether light is computed as a vector."""
        if self.model == "auto":
            return self.na / self.immersion > STEEP
        return self.model == "vectorial"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, and what about the sampling will limit a restoration."""
        return _notes(self)

    @property
    def coarse(self) -> str:
        """Say that fewer than two samples see the width of the PSF, and how many should; or ''.

        Nyquist's criterion, of which `notes` speaks, asks for more.
        """
        axial, lateral = self.nyquist
        said = []
        if 2 * self.pixel_size > self.lateral_fwhm:
            said.append(f"pixels of {named(self.pixel_size)} (Nyquist: {named(lateral)})")
        if self.z_step is not None and 2 * self.z_step > self.axial_fwhm:
            said.append(f"steps of {named(self.z_step)} along Z (Nyquist: {named(axial)})")
        return f"Coarse for these optics: {', '.join(said)}." if said else ""

    @property
    def _seen(self) -> float:
        """Wavelength that sets the resolution."""
        if self.modality == "two-photon" and self.excitation is not None:
            return self.excitation
        return self.wavelength

    @cached_property
    def _lens(self) -> Lens:
        depth = self.depth
        return Lens(self.na, self.immersion, self.sample, depth, self.vectorial)

    def psf(
        self, shape: int | Sequence[int] | None = None, dimensions: int = 2
    ) -> NDArray[np.float32]:
        """Compute the point spread function.

        Parameters
        ----------
        shape : int or sequence of int, optional
            Odd numbers of pixels: of all axes, or of each, (Y, X) or (Z, Y, X). Without it, as many
            as hold 98 % of the light (of planes with a hundredth of the peak or more), within
            bounds.
        dimensions : int
            2, a plane at `defocus`, or 3.

        Returns
        -------
        ndarray
            (Y, X) or (Z, Y, X), float32, of sum 1, averaged over the pixels and, in a volume, the
            steps between planes.

        Raises
        ------
        PsfError
            Where the shape cannot be, or a volume has no z step or one that leaves gaps.
        """
        if dimensions not in (2, 3):
            raise PsfError(f"A PSF has 2 or 3 dimensions, not {dimensions}.")
        step = _depth_step(self) if dimensions == 3 else 0.0
        half = self._half(step) if shape is None else _sides(shape, dimensions)
        depth, lateral = (half[0] if dimensions == 3 else 0), (half[-2], half[-1])
        size = self.pixel_size
        radii = self._radii(math.hypot(lateral[0] + 0.5, lateral[1] + 0.5) * size)
        volume = over_pixels(radii, self._stack(radii, depth, step), lateral, size)
        psf: NDArray[np.float32] = (np.maximum(volume, 0) / volume.sum()).astype(np.float32)
        return psf if dimensions == 3 else psf.reshape(psf.shape[1:])

    def _radii(self, reach: float) -> Floats:
        step = min(self._seen, self.wavelength) / self.na / 24
        radii: Floats = np.arange(int(reach / step) + 3, dtype=np.float64) * step
        return radii

    def _stack(self, radii: Floats, depth: int, step: float) -> Floats:
        """Profiles of planes -depth to depth, averaged over steps: (Z, R)."""
        if not step:
            return self._profiles(radii, np.array([self.defocus]))
        nodes, weights = np.polynomial.legendre.leggauss(3)
        planes = (np.arange(-depth, depth + 1)[:, None] + nodes / 2) * step
        values = self._profiles(radii, planes.ravel())
        means: Floats = np.einsum("zpr,p->zr", values.reshape(2 * depth + 1, 3, -1), weights / 2)
        return means

    def _profiles(self, radii: Floats, planes: Floats) -> Floats:
        """Compute what is seen of a point, (Z, R), at distances from the best focus."""
        wavelength = self.wavelength
        if self.modality == "two-photon":
            used = self._seen
            return self._lens.intensity(used, radii, planes + self._lens.best_focus(used)) ** 2
        focus = self._lens.best_focus(wavelength)
        if self.modality == "widefield":
            return self._lens.intensity(wavelength, radii, planes + focus)
        if self.modality == "light sheet":
            sheet = self.sheet_thickness or math.inf
            light = np.exp(-4 * math.log(2) * (planes / sheet) ** 2)
            return light[:, None] * self._lens.intensity(wavelength, radii, planes + focus)
        # A scanned point lights up what is seen through a pinhole.
        excitation = self.excitation or wavelength
        hole = (self.pinhole or 1.0) * 1.22 * wavelength / self.na / 2
        wide = self._radii(float(radii[-1]) + hole)
        seen = self._lens.intensity(wavelength, wide, planes + focus)
        lit = self._lens.intensity(excitation, wide, planes + focus)
        if self.modality == "spinning disk":
            # Light enters through the same holes.
            return over_disk(wide, seen, hole, radii) * over_disk(wide, lit, hole, radii)
        return over_disk(wide, seen, hole, radii) * lit[:, : len(radii)]

    def _half(self, step: float) -> tuple[int, int, int]:
        """Pixels to each side of the center, (Z, Y, X), that hold nearly all light."""
        size = self.pixel_size
        radii = self._radii((MOST[1] + 0.5) * size)
        profiles = self._stack(radii, MOST[0], step)
        depth = 0
        if step:
            bright = profiles.max(axis=1) >= FAINT * profiles.max()
            depth = max(1, int(np.abs(np.flatnonzero(bright) - MOST[0]).max()))
            profiles = profiles[MOST[0] - depth : MOST[0] + depth + 1]
        inside = np.cumsum((profiles * radii).sum(axis=0))
        reach = radii[int(np.searchsorted(inside, KEPT * inside[-1]))]
        lateral = min(MOST[1], max(1, math.ceil(reach / size - 0.5)))
        return depth, lateral, lateral


#: How the distance of planes is told.
GIVE_STEP = (
    "A point spread function in 3D needs the distance between planes: z_step='200 nm', say "
    "(--pixel-size 0.2,65nm,65nm on the command line, z step nm in the dock)"
)
MODALITIES = ("widefield", "confocal", "spinning disk", "light sheet", "two-photon")
MODELS = ("auto", "scalar", "vectorial")
#: From this wavelength on, in µm, light seen by a two-photon microscope is that which excites.
INFRARED = 0.68


def _known_modality(name: str) -> str:
    """Find a modality by its name, however it is spelled."""
    wanted = str(name).lower().translate({ord(c): None for c in " -_"})
    wanted = {"2photon": "twophoton", "multiphoton": "twophoton"}.get(wanted, wanted)
    for known in MODALITIES:
        if known.replace(" ", "").replace("-", "") == wanted:
            return known
    raise PsfError(f"There is no modality {name!r}. Choose one of {', '.join(MODALITIES)}.")


def _check(optics: Optics) -> None:
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


def _depth_step(optics: Optics) -> float:
    """Find the z step for a volume, or say why there can be none."""
    if optics.z_step is None:
        raise PsfError(f"The z step is missing. {GIVE_STEP}, or restore plane by plane.")
    if optics.z_step > optics.axial_fwhm:
        raise PsfError(
            f"The z step is {named(optics.z_step)}, but the point spread function is only "
            f"{named(optics.axial_fwhm)} deep: planes lie too far apart to be a volume (Nyquist: "
            f"{named(optics.nyquist[0])}). Check the unit, or restore plane by plane."
        )
    return optics.z_step


def _sides(shape: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """Pixels to each side of the center of a PSF of a shape."""
    sides = (shape,) * dimensions if isinstance(shape, int) else tuple(shape)
    if len(sides) != dimensions or any(side < 1 or side % 2 == 0 for side in sides):
        raise PsfError(
            f"The shape {sides} does not fit a PSF in {dimensions}D. Give {dimensions} odd numbers."
        )
    return tuple(side // 2 for side in sides)


def _notes(optics: Optics) -> tuple[str, ...]:
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
