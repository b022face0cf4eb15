"""What is known of a point spread function."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import PsfError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_restore.physics.optics import Optics


def square(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """Pad a kernel of odd sides with zeros until both sides are equal."""
    side = max(array.shape)
    margins = [((side - length) // 2,) * 2 for length in array.shape]
    padded: NDArray[np.float32] = np.pad(array, margins).astype(np.float32)
    return padded


#: Family of a PSF that stands for "none is known".
NONE = "none"


@dataclass(frozen=True, eq=False)
class PSF:
    """A point spread function and where it comes from.

    It counts as false where none was found: ``if psf: …``.

    Attributes
    ----------
    array : ndarray
        (k, k), or (d, h, w) for volumes; odd sides, float32, sum 1, its center of mass in the
        middle.
    family : str
        ``gaussian``, ``disk``, ``pupil``, ``line`` or ``free`` (any form), found in an image;
        ``measured``, ``beads`` or ``optics``, given; ``none`` where none was found: the array is
        then the one pixel that changes nothing.
    parameters : mapping
        Those of the family, in pixels and radians.
    uncertainty : float or None
        Standard deviation of the size, as a share of it; None where it is not known.
    found : str
        Where it comes from, in plain words; or why none was found.
    pixel_size : tuple of float or None
        Height and width of a pixel in ``unit``; for volumes, the distance of planes before them.
    unit : str or None
    by_depth : tuple of (int, ndarray)
        For a PSF that changes with depth: planes of the image, and the arrays that hold there. In
        between they are mixed. ``array`` is that of the middle.
    optics : Optics or None
        Those that it was computed from.

    Raises
    ------
    PsfError
        If the array is not a PSF.
    """

    array: NDArray[np.float32]
    family: str = "free"
    parameters: Mapping[str, float] = field(default_factory=dict)
    uncertainty: float | None = None
    found: str = ""
    pixel_size: tuple[float, ...] | None = None
    unit: str | None = None
    by_depth: tuple[tuple[int, NDArray[np.float32]], ...] = ()
    optics: Optics | None = None

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array, np.float32)
        odd = all(side % 2 for side in array.shape)
        if not odd or array.ndim not in (2, 3) or (array.ndim == 2 and len(set(array.shape)) > 1):
            raise PsfError(
                "A PSF must be square with odd sides, or have planes; this one has the shape "
                f"{array.shape}. Pass the array itself as psf: it is then brought into shape."
            )
        if not np.isfinite(array).all() or not abs(float(array.sum()) - 1) < 1e-3:
            raise PsfError(
                f"A PSF must be finite and sum to 1; this one sums to {array.sum():g}. Pass the "
                "array itself as psf: it is then normalized."
            )
        array.setflags(write=False)
        object.__setattr__(self, "array", array)

    @classmethod
    def none(cls, why: str) -> PSF:
        """Stand for a PSF that was not found."""
        return cls(np.ones((1, 1), np.float32), NONE, found=why)

    def __bool__(self) -> bool:
        return self.family != NONE

    def __str__(self) -> str:
        return f"{self.family}, {self.size_text}. {self.found}" if self else f"none. {self.found}"

    @property
    def dimensions(self) -> int:
        """2, or 3 with planes."""
        return self.array.ndim

    @property
    def fwhm(self) -> float:
        """Full width at half maximum in pixels: diameter of a circle of the same area.

        A PSF with planes has that of its middle plane.
        """
        from scipy import ndimage

        plane, fine = self.array, 4
        if plane.ndim == 3:
            plane = plane[len(plane) // 2]
        lines = [(np.arange(side * fine) + 0.5) / fine - 0.5 for side in plane.shape]
        y, x = np.meshgrid(*lines, indexing="ij")
        values = ndimage.map_coordinates(plane, [y, x], order=1, mode="constant")
        area = float((values >= plane.max() / 2).sum()) / fine**2
        return 2 * float(np.sqrt(area / np.pi))

    @property
    def depth(self) -> float:
        """Full width at half maximum along Z, in planes; 0 without planes."""
        from napari_restore.physics.lengths import full_widths

        return full_widths(self.array)[0] if self.array.ndim == 3 else 0.0

    @property
    def fwhm_in_units(self) -> float | None:
        """The same in ``unit``; None where the size of a pixel is not known."""
        if self.pixel_size is None:
            return None
        return self.fwhm * float(np.sqrt(self.pixel_size[-2] * self.pixel_size[-1]))

    @property
    def size_text(self) -> str:
        """Full width at half maximum in pixels and, where it is known, in units."""
        text, length = f"FWHM {self.fwhm:.1f} px", self.fwhm_in_units
        text = text if length is None else f"{text} ({length:.3g} {self.unit})"
        if self.array.ndim == 2:
            return text
        text += f", {self.depth:.1f} planes deep"
        if self.pixel_size is None or len(self.pixel_size) < 3:
            return text
        return f"{text} ({self.depth * self.pixel_size[0]:.3g} {self.unit})"

    @property
    def short_size(self) -> str:
        """Full widths at half maximum in units, where they are known: across, and along Z."""
        across = self.fwhm_in_units
        if across is None or self.pixel_size is None or len(self.pixel_size) < 3:
            return f"{self.fwhm:.1f} px wide, {self.depth:.1f} planes deep"
        deep = self.depth * self.pixel_size[0]
        return f"{across:.2g} {self.unit} wide, {deep:.2g} {self.unit} deep"

    @property
    def digest(self) -> str:
        """What tells it from others: the beginning of the hash of its samples."""
        arrays = [self.array, *(array for _, array in self.by_depth)]
        return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """In plain types, for the provenance; `from_record` makes the same PSF of it.

        Those of volumes are too large for their samples to be written.
        """
        if self.array.ndim == 3:
            return {
                "family": self.family,
                "shape_px": list(self.array.shape),
                "fwhm_px": round(self.fwhm, 2),
                "depth_planes": round(self.depth, 2),
                "slabs": [plane for plane, _ in self.by_depth],
                "found": self.found,
                "pixel_size": None if self.pixel_size is None else list(self.pixel_size),
                "unit": self.unit,
            }
        return {
            "family": self.family,
            "parameters": {name: round(float(v), 4) for name, v in self.parameters.items()},
            "side_px": int(self.array.shape[0]),
            "fwhm_px": round(self.fwhm, 2),
            "fwhm": None if self.pixel_size is None else round(self.fwhm_in_units or 0, 4),
            "uncertainty": None if self.uncertainty is None else round(self.uncertainty, 3),
            "found": self.found,
            "pixel_size": None if self.pixel_size is None else list(self.pixel_size),
            "unit": self.unit,
            # The shortest numbers that are the same in single precision.
            "samples": [[float(str(value)) for value in row] for row in self.array],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PSF:
        """Make the PSF of a record, sample by sample the same."""
        size = record["pixel_size"]
        return cls(
            np.asarray(record["samples"], np.float32),
            record["family"],
            dict(record["parameters"]),
            record["uncertainty"],
            record["found"],
            None if size is None else (size[0], size[1]),
            record["unit"],
        )
