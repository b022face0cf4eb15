"""Sharp volumes, as microscopes would see them, restored by each method and compared."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.api import deblur
from napari_restore.errors import ImageError
from napari_restore.models.catalog import VOLUME_INVERTER

from .metrics import SSIM_WINDOW, affine_fit, ssim
from .report import Evaluation, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.training.scenes import Seen

#: Most planes of a crop, and fewest.
PLANES, FEWEST = 32, 3
#: Photons of a bright place, where their number is drawn.
PHOTONS = (20.0, 5000.0)


@dataclass(frozen=True, eq=False)
class SharpVolume:
    """A volume whose blur is to be made.

    Attributes
    ----------
    samples : ndarray
        (Z, Y, X).
    name : str
    psf : ndarray or None
        Point spread function (z, y, x) of the microscope that is to see it, of odd sides and sum 1;
        None for a microscope that is drawn.
    """

    samples: NDArray[Any]
    name: str
    psf: NDArray[np.float32] | None = None


def evaluate_volumes(
    volumes: Sequence[SharpVolume],
    *,
    photons: float | None = None,
    device: str = "auto",
    seed: int = 0,
    size: int = 96,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Measure all methods that restore volumes.

    Each volume is blurred by a point spread function with planes, and its photons are counted. All
    methods are told that function.

    Parameters
    ----------
    volumes : sequence of SharpVolume
    photons : float, optional
        Of a bright place. Without it they are drawn between 20 and 5000.
    device : str
        As for `napari_restore.restore`.
    seed : int
        The same seed gives the same microscopes, photons and noise.
    size : int
        Longest side of the crop that is taken from the middle of each plane, in pixels; it has 32
        planes at most.
    progress : callable, optional
        Called with the number of volumes done.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImageError
        If a volume is too small.
    """
    from napari_restore.training.blurs import log_uniform
    from napari_restore.training.volumes import cut, random_optics

    figures: dict[str, list[tuple[float, float, float]]] = {}
    shapes = set()
    for number, volume in enumerate(volumes):
        rng = np.random.default_rng((seed, number))
        psf = cut(random_optics(rng).psf(dimensions=3)) if volume.psf is None else volume.psf
        # A point spread function has to be smaller than what is restored with it.
        psf = cut(psf, (len(psf) // 2, (min(size, *volume.samples.shape[1:]) - 1) // 2))
        counted = log_uniform(rng, *PHOTONS) if photons is None else photons
        seen = see_middle(volume, psf, size, counted, rng)
        shapes.add(seen.blurred.shape)
        for name, result in {"input": seen.blurred, **restored(seen.blurred, psf, device)}.items():
            figures.setdefault(name, []).append(compare(result, seen.sharp))
        if progress is not None:
            progress(number + 1)
    rows = tuple(_row(name, figures) for name in figures)
    largest = max(shapes, key=math.prod)
    notes = (_NOTE, _LIGHT_NOTE, *([_SIZES_NOTE] if len(shapes) > 1 else []))
    return Evaluation(
        "deblur", "volume", largest, len(volumes), rows, math.nan, math.nan, tuple(notes)
    )


def see_middle(
    volume: SharpVolume,
    psf: NDArray[np.float32],
    size: int,
    photons: float,
    rng: np.random.Generator,
) -> Seen:
    """Let a microscope see the middle of a volume; what is missing around it is mirrored."""
    from napari_restore.training.scenes import around, see

    samples = volume.samples
    depth, height, width = (
        min(n, most) for n, most in zip(samples.shape, (PLANES, size, size), strict=True)
    )
    shape = depth, height, width
    if shape[0] < FEWEST or min(shape[1:]) < SSIM_WINDOW:
        raise ImageError(
            f"The volume {volume.name} of shape {samples.shape}, or its crop of {size} pixels, is "
            f"too small to be measured. Give volumes of {FEWEST} planes or more, each of "
            f"{SSIM_WINDOW}×{SSIM_WINDOW} pixels or more."
        )
    wanted = around(shape, psf.shape)
    part, missing = [], []
    for have, want in zip(samples.shape, wanted, strict=True):
        start = max(0, (have - want) // 2)
        part.append(slice(start, start + want))
        missing.append(((rest := max(0, want - have)) // 2, rest - rest // 2))
    sharp = np.pad(samples[tuple(part)].astype(np.float64), missing, "symmetric")
    return see(sharp, psf, shape, photons, rng)


def restored(
    image: NDArray[Any], psf: NDArray[np.float32], device: str = "auto"
) -> dict[str, NDArray[Any]]:
    """Restore a volume by each method: classical ones, the plane alone, last the network."""
    volume: dict[str, Any] = {"axes": "ZYX", "dimensions": 3, "device": device}
    # What blurs a plane that has no neighbors is the plane of the PSF that is in focus.
    middle = psf[len(psf) // 2]
    with warnings.catch_warnings():
        # Light that is not the image's is measured here.
        warnings.filterwarnings("ignore", ".* of the light of the image", UserWarning)
        return {
            "Richardson–Lucy": deblur(image, psf=psf, method="richardson-lucy", **volume),
            "Wiener": deblur(image, psf=psf, method="wiener", **volume),
            "plane by plane": deblur(image, psf=middle / middle.sum(), axes="ZYX", device=device),
            VOLUME_INVERTER.name: deblur(image, psf=psf, **volume),
        }


def compare(result: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float, float]:
    """PSNR and SSIM after an affine fit, and the light beside that of the truth."""
    from napari_restore.training.volumes import psnr

    # Planes are the colors of `ssim`, which is their mean.
    fitted, true = (np.moveaxis(volume, 0, -1) for volume in (affine_fit(result, truth), truth))
    light = float(result.sum(dtype=np.float64) / truth.sum(dtype=np.float64)) - 1
    return psnr(result, truth), ssim(fitted, true, float(truth.max())), light


def _row(name: str, figures: dict[str, list[tuple[float, float, float]]]) -> Row:
    """Means of one method."""
    own = np.array(figures[name])
    gain = own[:, 0] - np.array(figures["input"])[:, 0]
    mean_psnr, mean_ssim, _ = (float(value) for value in own.mean(axis=0))
    light = float(np.abs(own[:, 2]).mean())
    return Row(
        name, mean_psnr, mean_ssim, math.nan, float(gain.mean()), float((gain > 0).mean()), light
    )


_NOTE = (
    "PSNR and SSIM (the mean over the planes): the range is that from 0 to the largest value of "
    "the sharp volume. Every result, the input included, was first brought to the brightness and "
    "background of the sharp volume by an affine fit. Every method was told the point spread "
    "function."
)
_LIGHT_NOTE = (
    "Light: how far the sum of a result is from that of the sharp volume, without a sign. That of "
    "the input differs too, since light crosses the borders."
)
_SIZES_NOTE = "Volumes differ in size; the largest crop is named."
