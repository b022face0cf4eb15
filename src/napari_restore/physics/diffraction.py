"""Light of a point behind an objective: scalar and vectorial diffraction, as profiles along r.

Lengths are in micrometers. Objective, coverslip and sample are round about the axis, so that a
profile along the distance from it says all. Nothing is computed by a discrete Fourier transform in
the plane, so nothing wraps around and nothing is aliased.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import interpolate, sparse, special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Phasors = NDArray[np.complex128]

#: Refractive index of coverslips.
COVERSLIP = 1.515


@dataclass(frozen=True)
class Lens:
    """An objective and what lies before it.

    Attributes
    ----------
    na : float
        Numerical aperture, below ``ri_immersion``.
    ri_immersion, ri_sample : float
        Refractive indices.
    depth : float
        Of the point below the coverslip, in µm.
    vectorial : bool
        Whether light is a vector (Richards and Wolf) or a number (Gibson and Lanni).
    """

    na: float
    ri_immersion: float
    ri_sample: float
    depth: float = 0.0
    vectorial: bool = False

    def intensity(self, wavelength: float, radii: Floats, planes: Floats) -> Floats:
        """Intensity of a point.

        Parameters
        ----------
        wavelength : float
            In vacuum.
        radii : ndarray
            (R,), distances from the axis.
        planes : ndarray
            (Z,), how far the focus of the rays near the axis lies beyond the point, seen from the
            objective: the planes of a stack, with those deeper in the sample last.

        Returns
        -------
        ndarray
            (Z, R). Each plane integrates to 1 over the whole plane.

        Notes
        -----
        Gibson and Lanni, "Experimental test of an analytical model of aberration in an
        oil-immersion objective lens", JOSA A, 1992; Richards and Wolf, Proc. R. Soc. A, 1959, in
        the form for emission of Aguet et al., Opt. Express, 2009. As in Li, Xue and Blu, "Fast and
        accurate three-dimensional point spread function computation", JOSA A, 2017, Bessel
        functions are evaluated once for all planes, which are then a product of two matrices. In
        place of their fitted series there is Gauss's quadrature over the angle: it converges as
        fast, and vectors, steep angles and evanescent light need nothing of their own.
        """
        sine, weight = self._angles(wavelength, radii, planes)
        wave = 2 * np.pi / wavelength
        cosine = np.sqrt(1 - sine**2)
        below = _cosine(sine * self.ri_immersion / self.ri_sample)
        # The immersion is thinner by so much when rays near the axis meet at the point.
        thinner = self.depth * self.ri_immersion / self.ri_sample
        path = self.ri_sample * self.depth * below - self.ri_immersion * thinner * cosine
        # Without what all rays have in common, phases stay small and exact.
        focus = self.ri_immersion * (1 - cosine)
        field = np.exp(1j * wave * (path - path[0] + planes[:, None] * focus))
        argument = wave * self.ri_immersion * radii[:, None] * sine
        total = np.zeros((len(planes), len(radii)))
        energy = 0.0
        for order, times, amplitude in self._components(sine, cosine, below):
            pupil = amplitude * field
            part = (pupil * (weight * sine * cosine)) @ special.jv(order, argument).T
            total += times * (part.real**2 + part.imag**2)
            energy += times * float(weight * sine * cosine @ np.abs(pupil[0]) ** 2)
        # Parseval: what passes the pupil arrives in every plane.
        total *= (wave * self.ri_immersion) ** 2 / (2 * np.pi * energy)
        return total

    def _angles(self, wavelength: float, radii: Floats, planes: Floats) -> tuple[Floats, Floats]:
        """Sines of the angles in the immersion and weights of a quadrature over these angles."""
        widest = np.arcsin(self.na / self.ri_immersion)
        critical = np.arcsin(min(1.0, self.ri_sample / self.ri_immersion))
        ends = [0.0, widest] if critical >= widest else [0.0, critical, widest]
        # Two nodes a period suffice: count the periods of the fastest phase.
        reach = np.abs(planes).max() + self.depth * abs(1 - self.ri_immersion / self.ri_sample)
        steepest = self.ri_immersion * reach * 2 * np.sin(widest / 2) ** 2
        periods = (self.na * radii.max() + 3 * steepest) / wavelength
        nodes, weights = np.polynomial.legendre.leggauss(40 + int(2.5 * periods))
        angles = [(a + b) / 2 + (b - a) / 2 * nodes for a, b in pairwise(ends)]
        parts = [(b - a) / 2 * weights for a, b in pairwise(ends)]
        return np.sin(np.concatenate(angles)), np.concatenate(parts)

    def _components(
        self, sine: Floats, cosine: Floats, below: Phasors
    ) -> list[tuple[int, float, Phasors]]:
        """Order of the Bessel function, weight and pupil of each part of the field.

        A pupil is what there is on an area of the back focal plane.
        """
        if not self.vectorial:
            return [(0, 1.0, np.ones_like(below))]
        glass = _cosine(sine * self.ri_immersion / COVERSLIP)
        outside = cosine.astype(complex)
        media = [(self.ri_immersion, outside), (COVERSLIP, glass), (self.ri_sample, below)]
        # By reciprocity the point sends out the field that plane waves would make at it.
        across = along = np.ones_like(below)
        for (n1, c1), (n2, c2) in pairwise(media):
            across = across * 2 * n1 * c1 / (n1 * c1 + n2 * c2)
            along = along * 2 * n1 * c1 / (n2 * c1 + n1 * c2)
        area = 1 / np.sqrt(cosine)
        deep = sine * self.ri_immersion / self.ri_sample
        return [
            (0, 1.0, area * (across + along * below)),
            (1, 2.0, area * along * deep),
            (2, 1.0, area * (across - along * below)),
        ]

    def best_focus(self, wavelength: float) -> float:
        """Plane in which the point is brightest on the axis; 0 without aberration."""
        if not self.depth or self.ri_immersion == self.ri_sample:
            return 0.0
        # Between the focus of rays near the axis and that of the steepest that leave the sample.
        sine = min(self.na, 0.98 * self.ri_sample) / self.ri_immersion
        outside = sine / np.sqrt(1 - sine**2)
        deep = sine * self.ri_immersion / self.ri_sample
        inside = deep / np.sqrt(1 - deep**2)
        other = -self.depth * (self.ri_immersion / self.ri_sample - inside / outside)
        cone = self.ri_immersion * (1 - np.sqrt(1 - (self.na / self.ri_immersion) ** 2))
        margin, step = 2 * wavelength / cone, wavelength / cone / 12
        planes = np.arange(min(0.0, other) - margin, max(0.0, other) + margin + step, step)
        brightness = self.intensity(wavelength, np.zeros(1), planes)[:, 0]
        top = int(np.clip(brightness.argmax(), 1, len(planes) - 2))
        before, at, after = brightness[top - 1 : top + 2]
        curve = before - 2 * at + after
        shift = 0.0 if curve == 0 else (before - after) / (2 * curve)
        return float(planes[top] + shift * step)


def _cosine(sine: Floats) -> Phasors:
    """Cosine of an angle; beyond 90 degrees, waves that fade with depth."""
    cosine: Phasors = np.sqrt((1 - sine**2).astype(complex))
    return cosine


class Profile:
    """Interpolation of profiles along r by cubic splines.

    Parameters
    ----------
    radii : ndarray
        (R,), ascending from 0 in equal steps well below the resolution.
    values : ndarray
        (Z, R).
    """

    def __init__(self, radii: Floats, values: Floats) -> None:
        spline = interpolate.make_interp_spline(radii, values.T, k=3)
        self._knots, self._coefficients, self._last = spline.t, spline.c, radii[-1]

    def mean(self, points: Floats, weights: Floats) -> Floats:
        """Weighted means over groups of points: (Z, G) from distances (G, P), weights (P,)."""
        count, parts = points.shape[1], []
        for group in np.array_split(points, max(1, points.size // 400_000)):
            places = np.minimum(group.ravel(), self._last)
            design = interpolate.BSpline.design_matrix(places, self._knots, 3)
            starts = np.arange(len(group) + 1) * count
            # Means before planes: the points are many, and the same in all of them.
            means = sparse.csr_array(
                (np.tile(weights, len(group)), np.arange(len(places)), starts),
                shape=(len(group), len(places)),
            )
            parts.append((means @ design) @ self._coefficients)
        return np.concatenate(parts).T


def over_disk(radii: Floats, values: Floats, radius: float, wanted: Floats) -> Floats:
    """Average profiles (Z, R) over a disk around each distance wanted: (Z, W)."""
    # Gauss's quadrature in the square of the radius, even steps around the circle.
    count = 8 + int(radius / (8 * (radii[1] - radii[0])))
    nodes, weights = np.polynomial.legendre.leggauss(count)
    ring = radius * np.sqrt((nodes + 1) / 2)
    angle = np.pi * (np.arange(2 * count) + 0.5) / (2 * count)
    x = (ring[:, None] * np.cos(angle)).ravel()
    y = (ring[:, None] * np.sin(angle)).ravel()
    points = np.hypot(wanted[:, None] + x, y)
    return Profile(radii, values).mean(points, np.repeat(weights / 2, 2 * count) / (2 * count))


def over_pixels(radii: Floats, values: Floats, half: tuple[int, int], size: float) -> Floats:
    """Average profiles (Z, R) over pixels: (Z, 2 hy + 1, 2 hx + 1)."""
    step = radii[1] - radii[0]
    # Three nodes are exact up to the fifth power; wide pixels hold more than a part of a ring.
    nodes, weights = np.polynomial.legendre.leggauss(3 + int(size / (10 * step)))
    quarter = [np.arange(h + 1)[:, None] * size + nodes * size / 2 for h in half]
    y, x = quarter[0][:, None, :, None], quarter[1][None, :, None, :]
    points = np.hypot(y, x).reshape((half[0] + 1) * (half[1] + 1), -1)
    area = (weights[:, None] * weights / 4).ravel()
    means = Profile(radii, values).mean(points, area)
    means = means.reshape(len(values), half[0] + 1, half[1] + 1)
    whole = np.concatenate([means[:, :0:-1], means], axis=1)
    return np.concatenate([whole[..., :0:-1], whole], axis=2)
