"""Volumes whose truth is known: what microscopes look at, made up, and seen by one.

Lengths are in pixels; ``step`` is the distance of two planes in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage, signal, spatial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Shape = tuple[int, int, int]

    #: From a shape, a generator and the distance of planes to brightness.
    Scene = Callable[[Shape, np.random.Generator, float], Floats]

#: Light that glows everywhere, as a share of what is bright.
_GLOW = 0.02


class Seen(NamedTuple):
    """A volume and how a microscope sees it.

    Attributes
    ----------
    sharp : ndarray
        (Z, Y, X), float64; 1 is bright.
    blurred : ndarray
        The same shape, float32: photons, over those that a bright place sends.
    """

    sharp: Floats
    blurred: NDArray[np.float32]


def _size(shape: Shape, step: float) -> Floats:
    return np.array([shape[0] * step, shape[1], shape[2]], np.float64)


def _smooth(volume: Floats, sigma: float, step: float) -> Floats:
    soft: Floats = ndimage.gaussian_filter(volume, (sigma / step, sigma, sigma))
    return soft


def filaments(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Curved threads of several brightnesses."""
    fine, size = np.zeros(shape), _size(shape, step)
    count = int(size.prod() / rng.uniform(15_000, 60_000)) + 4
    place, way = rng.uniform(0, 1, (count, 3)) * size, rng.normal(size=(count, 3))
    light = rng.uniform(0.3, 1, count)
    for _ in range(500):
        way += 0.08 * rng.normal(size=way.shape)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        place = place + 0.5 * way
        index = np.rint(place / [step, 1, 1]).astype(int)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        np.maximum.at(fine, tuple(index[inside].T), light[inside])
    return _smooth(fine, rng.uniform(0.5, 1), step)


def membranes(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Walls between cells, and what fills the cells a little."""
    size = _size(shape, step)
    count = int(size.prod() / rng.uniform(8_000, 60_000)) + 4
    seeds = rng.uniform(0, 1, (count, 3)) * size
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * [step, 1, 1]
    near, which = spatial.cKDTree(seeds).query(grid.reshape(-1, 3), k=2)
    wall = np.exp(-(((near[:, 1] - near[:, 0]) / rng.uniform(1, 2.5)) ** 2))
    inner = rng.uniform(0, 0.3, count)[which[:, 0]]
    filled: Floats = (wall + inner).reshape(shape)
    return filled


def beads(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Small balls of several brightnesses."""
    out, size = np.zeros(shape), _size(shape, step)
    for _ in range(int(size.prod() / rng.uniform(5_000, 40_000)) + 5):
        radius = rng.uniform(0.7, 4)
        _add_ball(out, rng.uniform(0, 1, 3) * size, np.full(3, radius), rng.uniform(0.2, 1), step)
    return out


def nuclei(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Ellipsoids with a texture inside."""
    out, size = np.zeros(shape), _size(shape, step)
    for _ in range(int(size.prod() / rng.uniform(15_000, 50_000)) + 3):
        radii = rng.uniform(5, 14, 3)
        _add_ball(out, rng.uniform(0, 1, 3) * size, radii, rng.uniform(0.4, 1), step, most=True)
    grain = _smooth(rng.normal(size=shape), rng.uniform(0.8, 2.5), step)
    share = rng.uniform(0.1, 0.4)
    textured: Floats = out * (1 - share + share * grain / grain.std()).clip(0.05)
    return textured


def _add_ball(
    out: Floats, place: Floats, radii: Floats, light: float, step: float, most: bool = False
) -> None:
    box = []
    for center, radius, unit, length in zip(place, radii, (step, 1, 1), out.shape, strict=True):
        first = max(0, int((center - radius) / unit) - 1)
        box.append(range(first, min(length, int((center + radius) / unit) + 3)))
    if not all(box):
        return
    part = tuple(slice(r.start, r.stop) for r in box)
    axes = np.meshgrid(*(np.arange(r.start, r.stop) for r in box), indexing="ij", sparse=True)
    units = (step, 1, 1)
    away = sum(((a * u - c) / r) ** 2 for a, u, c, r in zip(axes, units, place, radii, strict=True))
    ball = light * ((1 - np.sqrt(away)) * radii.min() + 0.5).clip(0, 1)
    out[part] = np.maximum(out[part], ball) if most else out[part] + ball


def grains(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Shells with holes and spines, as of pollen, and the textures of tissue."""
    rough = _smooth(rng.normal(size=shape), rng.uniform(0.7, 1.5), step)
    wide = _smooth(rng.normal(size=shape), rng.uniform(3, 8), step)
    height = wide / wide.std() + rng.uniform(0.1, 0.5) * rough / rough.std()
    if rng.random() < 0.5:
        thick = rng.uniform(0.1, 0.4)
        shell: Floats = np.exp(-((height / thick) ** 2))
        return shell
    solid: Floats = (height - rng.uniform(-0.3, 0.8)).clip(0)
    return solid


def tubes(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Hollow tubes that bend, as vessels and mitochondria are, where a soft field has its ridge."""
    wide = rng.uniform(4, 9)
    first, second = (_smooth(rng.normal(size=shape), wide, step) for _ in range(2))
    # Two fields are both 0 along lines: the distance from them is about this.
    away = np.hypot(first / first.std(), second / second.std()) * wide
    radius, thick = rng.uniform(2, 5), rng.uniform(0.7, 1.5)
    tube: Floats = np.exp(-(((away - radius) / thick) ** 2))
    inside = rng.uniform(0, 0.6) * (away < radius)
    filled: Floats = tube + inside * (1 - tube)
    return filled


def tissue(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Textures without an end, of all sizes at once, whose bright places are few."""
    along = [np.fft.fftfreq(n, unit) for n, unit in zip(shape, (step, 1, 1), strict=True)]
    z, y, x = np.meshgrid(*along, indexing="ij", sparse=True)
    size = np.sqrt(z**2 + y**2 + x**2)
    size[0, 0, 0] = np.inf
    spectrum = np.fft.fftn(rng.normal(size=shape)) / size ** rng.uniform(0.8, 1.8)
    spectrum *= np.exp(-((size.clip(max=1) / rng.uniform(0.2, 0.6)) ** 2))
    field = np.fft.ifftn(spectrum).real
    texture: Floats = np.exp(rng.uniform(0.4, 1.2) * field / field.std())
    return texture


def bars(shape: Shape, rng: np.random.Generator, step: float) -> Floats:
    """Straight rods along each axis. Nothing is trained on them."""
    out = np.zeros(shape)
    for axis in range(3):
        for _ in range(7):
            part: list[slice] = []
            for other, length in enumerate(shape):
                if other == axis:
                    start = int(rng.integers(0, max(1, length // 3)))
                    part.append(slice(start, start + length // 2))
                else:
                    width = max(1, round(float(rng.uniform(2, 6)) / (step if other == 0 else 1)))
                    start = int(rng.integers(0, max(1, length - width)))
                    part.append(slice(start, start + width))
            out[tuple(part)] = rng.uniform(0.5, 1)
    return out


#: What networks are trained on, and what is kept to test them.
TRAINED: dict[str, Scene] = {
    "filaments": filaments,
    "membranes": membranes,
    "beads": beads,
    "nuclei": nuclei,
    "grains": grains,
    "tubes": tubes,
    "tissue": tissue,
}
KEPT: dict[str, Scene] = {"bars": bars}


def part_of(volume: NDArray[np.generic], shape: Shape, rng: np.random.Generator) -> Floats:
    """Any part of a recorded volume, turned and mirrored; what is missing is mirrored too."""
    part = volume.astype(np.float64)
    part = np.rot90(part, int(rng.integers(4)), (1, 2))[:: int(rng.choice([-1, 1]))]
    part = np.pad(
        part, [(0, max(0, w - n)) for w, n in zip(shape, part.shape, strict=True)], "symmetric"
    )
    start = [int(rng.integers(0, n - w + 1)) for n, w in zip(part.shape, shape, strict=True)]
    return part[tuple(slice(s, s + w) for s, w in zip(start, shape, strict=True))]


def around(shape: Shape, psf: Sequence[int]) -> Shape:
    """Shape of a scene of which ``shape`` is the middle, with all that sends light into it."""
    z, y, x = (n + 2 * (side // 2) for n, side in zip(shape, psf, strict=True))
    return z, y, x


def see(
    sharp: Floats, psf: NDArray[np.float32], shape: Shape, photons: float, rng: np.random.Generator
) -> Seen:
    """Let a microscope see the middle of a scene.

    Parameters
    ----------
    sharp : ndarray
        (Z, Y, X), larger than ``shape``: what lies around sends light into it, as in a real stack.
    psf : ndarray
        (z, y, x), sum 1.
    shape : tuple of int
    photons : float
        Of a bright place, each second of which is counted.
    rng : numpy.random.Generator
    """
    low, high = np.percentile(sharp, [0.1, 99.9])
    scaled: Floats = ((sharp - low) / max(high - low, 1e-9)).clip(0, 1.5)
    light = signal.fftconvolve(scaled, psf, "same").clip(0) + _GLOW
    middle = tuple(
        slice((n - want) // 2, (n - want) // 2 + want)
        for n, want in zip(sharp.shape, shape, strict=True)
    )
    counts = rng.poisson(photons * light[middle]) / photons
    return Seen(scaled[middle] + _GLOW, counts.astype(np.float32))
