"""Point spread functions of known form: candidates around a size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_restore.physics import motion, psf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Size that is tried first, as a share of the gauge's, and its neighbors, as shares of it. Too
#: large is worse than too small.
SIZE, NEIGHBORS = 0.97, ((0.88, 1.1), (0.95, 1.04))
#: Defocus of the pupils in radians, and how much longer one axis of an ellipse is than the other.
_DEFOCUS, _RATIO = 1.0, 1.5


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel that may have blurred an image.

    Attributes
    ----------
    family : str
    array : ndarray
        (k, k), odd k, sum 1.
    parameters : mapping
        In pixels and radians.
    """

    family: str
    array: NDArray[np.float32]
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian that blurs as much."""
        return psf.equivalent_sigma(self.array)


#: Families whose size a gauge sees.
KNOWN = ("gaussian", "disk", "pupil")

NOTHING = Candidate("none", np.ones((1, 1), np.float32))


def of_size(family: str, sigma: float) -> Candidate:
    """Kernel of a family that blurs as much as a Gaussian of a standard deviation in pixels."""
    if family == "gaussian":
        return Candidate(family, psf.gaussian(sigma), {"sigma": sigma})
    if family == "disk":
        return Candidate(family, psf.disk(2 * sigma), {"radius": 2 * sigma})
    if family == "pupil":
        cutoff = _cutoff(round(sigma, 2))
        array = _pupil(cutoff)
        return Candidate(family, array, {"cutoff": cutoff, "defocus": _DEFOCUS})
    raise ValueError(f"There is no family '{family}'.")


def ellipses(sigma: float) -> list[Candidate]:
    """Elliptical Gaussians in four directions that blur as much as a round one."""
    long, short = sigma * math.sqrt(_RATIO), sigma / math.sqrt(_RATIO)
    return [
        Candidate(
            "gaussian",
            psf.gaussian(short, long, angle),
            {"sigma_y": short, "sigma_x": long, "angle": angle},
        )
        for angle in np.arange(4) * math.pi / 4
    ]


def line(length: float, angle: float) -> Candidate:
    """Even motion along a line; the angle in radians from the x axis toward y."""
    array = psf.combine(motion.kernel(motion.line(length, angle)), psf.gaussian(0.35))
    return Candidate("line", psf.centered(array), {"length": length, "angle": angle})


@lru_cache(maxsize=64)
def _cutoff(sigma: float) -> float:
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = math.sqrt(low * high)
        larger = psf.equivalent_sigma(_pupil(middle)) > sigma
        low, high = (middle, high) if larger else (low, middle)
    return math.sqrt(low * high)


def _pupil(cutoff: float) -> NDArray[np.float32]:
    return psf.pupil(cutoff, {"defocus": _DEFOCUS}, half=12)
