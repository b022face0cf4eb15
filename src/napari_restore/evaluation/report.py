"""Restore images that were degraded with known physics, and compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.analysis.point_spread import PSF, square
from napari_restore.api import estimate_psf, restore

from .classical import classical_methods, to_linear, to_srgb
from .metrics import affine_fit, ciede2000, psnr, ssim
from .pairs import Camera, degraded_pair, find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.training.data import SharpImage

    from .classical import ClassicalMethod

    Image = NDArray[np.float64]

#: Figures of equal images are infinite, which no mean survives.
HIGHEST_PSNR = 100.0


@dataclass(frozen=True)
class Row:
    """Means of one method over the images.

    Attributes
    ----------
    method : str
    psnr : float
        In dB; NaN for a method that has to be told the blur, as ``ssim`` to ``improved``.
    ssim : float
    delta_e : float
        ΔE00; NaN for mono.
    gain : float
        PSNR beyond the input's, in dB.
    improved : float
        Share of images with a gain.
    light : float
        How far the light is from the truth's, as a share of it; NaN where that was not measured.
    told, found : float
        PSNR where it is told the point spread function that blurred the image, and the one that was
        found in it, in dB; NaN for a method that is told none.
    """

    method: str
    psnr: float
    ssim: float
    delta_e: float
    gain: float
    improved: float
    light: float = math.nan
    told: float = math.nan
    found: float = math.nan


@dataclass(frozen=True)
class Evaluation:
    """Figures for one task and kind.

    Attributes
    ----------
    task, kind : str
    shape : tuple of int
        Of the crops, in pixels.
    count : int
        Images, or volumes.
    rows : tuple of Row
        The input first, then classical methods, last the model.
    identity, identity_worst : float
        Mean and smallest PSNR of sharp images given to the model as they are, in dB; NaN where
        there is no such thing.
    notes : tuple of str
        What the figures mean.
    """

    task: str
    kind: str
    shape: tuple[int, ...]
    count: int
    rows: tuple[Row, ...]
    identity: float
    identity_worst: float
    notes: tuple[str, ...]


def evaluate(
    images: Sequence[SharpImage],
    task: str,
    kind: str,
    *,
    model: str = "auto",
    psf: str | None = None,
    device: str = "auto",
    seed: int = 0,
    size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Measure a model beside classical methods.

    The model runs through `napari_restore.restore`, as users run it: on 8-bit color or 16-bit
    mono.

    Parameters
    ----------
    images : sequence of SharpImage
        One or more; see `load_sharp`.
    task : str
    kind : {"color", "mono"}
    model, device : str
        As for `napari_restore.restore`.
    psf : {"auto", "none"}, optional
        As for `napari_restore.restore`. With "none" the network is measured alone: no point spread
        function is found or told, which takes a tenth of the time.
    seed : int
        The same seed gives the same degradations.
    size : int
        Side of the crop that is taken from the middle of each image, in pixels.
    progress : callable, optional
        Called with the number of images done.

    Returns
    -------
    Evaluation
    """
    recipe, methods = find_recipe(task, kind), classical_methods(task, kind)
    fitted = task == "dehaze" and kind == "mono"
    figures: dict[str, list[tuple[float, float, float]]] = {}
    told: dict[str, list[tuple[float, float]]] = {}
    identity = []
    name, color, given = _model_name(task, kind, model), kind == "color", psf

    def run(samples: NDArray[Any], psf: Any = None) -> NDArray[Any]:
        options = {"model": model, "psf": given} if psf is None else {"psf": psf}
        result: NDArray[Any] = restore(samples, task, rgb=color, device=device, **options)
        return result

    for number, image in enumerate(images):
        degraded, target, sharp, kernel, linear = degraded_pair(image, recipe, size, (seed, number))
        camera = Camera.for_image(degraded, kind)
        samples = camera.expose(degraded)
        seen = camera.develop(samples)
        psfs: list[PSF] = []
        if kernel is not None and given != "none":
            true = PSF(square(kernel / kernel.sum()), "measured", found="The true one.")
            found = estimate_psf(samples, rgb=color, task=task, device=device)
            psfs = [true, found if isinstance(found, PSF) else found[0]]

        def judge(result: Image, target: Image = target) -> tuple[float, float, float]:
            return _figures(result, target, kind, fitted)

        def deconvolve(
            method: ClassicalMethod,
            known: Image,
            camera: Camera = camera,
            seen: Image = seen,
            linear: bool = linear,
        ) -> Image:
            # Classical methods want [0, 1] and, for mono, no color axis.
            normal = (seen - camera.low) / camera.span
            if method.knows_blur and linear:
                plane = to_srgb(method.run(to_linear(normal), known))
            elif color:
                plane = method.run(normal, known)
            else:
                plane = method.run(normal[..., 0], known)[..., None]
            return plane * camera.span + camera.low

        figures.setdefault("input", []).append(judge(seen))
        for method in methods:
            if method.knows_blur and not psfs:
                continue
            if method.knows_blur:
                # What is not found is one pixel, which changes nothing.
                kernels = [np.asarray(psf.array, np.float64) for psf in psfs]
                pair = [judge(deconvolve(method, known))[0] for known in kernels]
                told.setdefault(method.name, []).append((pair[0], pair[1]))
            else:
                figures.setdefault(method.name, []).append(
                    judge(deconvolve(method, np.ones((1, 1))))
                )
        figures.setdefault(name, []).append(judge(camera.develop(run(samples))))
        if psfs and len(psfs[0].array) <= min(samples.shape[:2]):
            pair = [judge(camera.develop(run(samples, psf)))[0] for psf in psfs]
            told.setdefault(name, []).append((pair[0], pair[1]))
        identity.append(_identity(sharp, kind, run))
        if progress is not None:
            progress(number + 1)
    names = ["input", *(method.name for method in methods), name]
    measured = [each for each in names if each in figures or each in told]
    rows = tuple(_row(each, figures, told) for each in measured)
    notes = ["PSNR and SSIM: 8-bit range."] if color else [_MONO_NOTE]
    if fitted:
        notes.append(_FIT_NOTE)
    if told:
        notes.append(_TOLD_NOTE)
    shape, mean = (size, size), float(np.mean(identity))
    return Evaluation(task, kind, shape, len(images), rows, mean, min(identity), tuple(notes))


def _row(
    name: str,
    figures: dict[str, list[tuple[float, float, float]]],
    told: dict[str, list[tuple[float, float]]],
) -> Row:
    """Means of one method."""
    with_psf = np.mean(told[name], axis=0) if name in told else (math.nan, math.nan)
    if name not in figures:
        return Row(name, *(math.nan,) * 6, *map(float, with_psf))
    own, gain = np.array(figures[name]), np.array(figures[name])[:, 0]
    gain = gain - np.array(figures["input"])[:, 0]
    means = (*own.mean(axis=0), gain.mean(), (gain > 0).mean(), math.nan, *with_psf)
    return Row(name, *map(float, means))


_MONO_NOTE = (
    "PSNR and SSIM: the range is that between the 0.5 and 99.9 percentiles of the sharp image, the "
    "same for every method."
)
_FIT_NOTE = (
    "Every result, the input included, was first brought to the brightness and background of the "
    "sharp image by an affine fit."
)


_TOLD_NOTE = (
    "PSF true: PSNR of methods that are told the kernel that blurred each image, which nobody "
    "knows of a real image. PSF found: told the one that was found in it; where none was, the "
    "network restores without, and the classical methods return the image."
)


def _model_name(task: str, kind: str, model: str) -> str:
    from napari_restore.models.catalog import find_model

    return find_model(task, 3 if kind == "color" else 1, model).name


def _range(target: Image, kind: str) -> float:
    if kind == "color":
        return 1.0
    low, high = np.percentile(target, (0.5, 99.9))
    return max(float(high - low), 1e-6)


def _figures(result: Image, target: Image, kind: str, fitted: bool) -> tuple[float, float, float]:
    span = _range(target, kind)
    if fitted:
        result = affine_fit(result, target)
    difference = ciede2000(result, target) if kind == "color" else float("nan")
    return min(psnr(result, target, span), HIGHEST_PSNR), ssim(result, target, span), difference


def _identity(sharp: Image, kind: str, run: Callable[[NDArray[Any]], NDArray[Any]]) -> float:
    camera = Camera.for_image(sharp, kind)
    samples = camera.expose(sharp)
    seen, result = camera.develop(samples), camera.develop(run(samples))
    return min(psnr(result, seen, _range(sharp, kind)), HIGHEST_PSNR)
