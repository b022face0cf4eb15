"""Restore images that were degraded with known physics, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.api import restore

from .classical import classical_methods, to_linear, to_srgb
from .metrics import affine_fit, ciede2000, psnr, ssim
from .pairs import Camera, degraded_pair, find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.training.data import SharpImage

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
        In dB.
    ssim : float
    delta_e : float
        ΔE00; NaN for mono.
    gain : float
        PSNR beyond the input's, in dB.
    improved : float
        Share of images with a gain.
    """

    method: str
    psnr: float
    ssim: float
    delta_e: float
    gain: float
    improved: float


@dataclass(frozen=True)
class Evaluation:
    """Figures for one task and kind.

    Attributes
    ----------
    task, kind : str
    size : int
        Side of the crops, in pixels.
    count : int
        Images.
    rows : tuple of Row
        The input first, then classical methods, last the model.
    identity, identity_worst : float
        Mean and smallest PSNR of sharp images given to the model as they are, in dB.
    notes : tuple of str
        What the figures mean.
    """

    task: str
    kind: str
    size: int
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
    names = ["input", *(method.name for method in methods), _model_name(task, kind, model)]
    figures, identity = [], []

    def run(samples: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = restore(
            samples, task, rgb=kind == "color", model=model, device=device
        )
        return result

    for number, image in enumerate(images):
        degraded, target, sharp, kernel, linear = degraded_pair(image, recipe, size, (seed, number))
        camera = Camera.for_image(degraded, kind)
        samples = camera.expose(degraded)
        seen = camera.develop(samples)
        results = [seen]
        known = np.ones((1, 1)) if kernel is None else kernel
        for method in methods:
            # Classical methods want [0, 1] and, for mono, no color axis.
            normal = (seen - camera.low) / camera.span
            if method.knows_blur and linear:
                plane = to_srgb(method.run(to_linear(normal), known))
            elif kind == "color":
                plane = method.run(normal, known)
            else:
                plane = method.run(normal[..., 0], known)[..., None]
            results.append(plane * camera.span + camera.low)
        results.append(camera.develop(run(samples)))
        figures.append([_figures(result, target, kind, fitted) for result in results])
        identity.append(_identity(sharp, kind, run))
        if progress is not None:
            progress(number + 1)
    table = np.array(figures)
    gains = table[..., 0] - table[:, :1, 0]
    means, better = table.mean(axis=0), (gains > 0).mean(axis=0)
    rows = tuple(
        Row(name, *map(float, (*means[i], gains[:, i].mean(), better[i])))
        for i, name in enumerate(names)
    )
    notes = ["PSNR and SSIM: 8-bit range."] if kind == "color" else [_MONO_NOTE]
    if fitted:
        notes.append(_FIT_NOTE)
    if any(method.knows_blur for method in methods):
        notes.append(_TOLD_NOTE)
    return Evaluation(
        task, kind, size, len(images), rows, float(np.mean(identity)), min(identity), tuple(notes)
    )


_MONO_NOTE = (
    "PSNR and SSIM: the range is that between the 0.5 and 99.9 percentiles of the sharp image, the "
    "same for every method."
)
_FIT_NOTE = (
    "Every result, the input included, was first brought to the brightness and background of the "
    "sharp image by an affine fit."
)


_TOLD_NOTE = (
    "Methods with the true PSF are told the kernel that blurred each image, and whether it blurred "
    "light or values after a tone curve, which nobody knows of a real image. The model, the "
    "unsharp mask and the guesses see the image alone."
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
