"""Point spread functions of an image: found, or seen whether they fit; networks are the tools."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_restore.analysis.find import Tools, find_psf, noise_level, rich_windows
from napari_restore.analysis.judge import re_blur
from napari_restore.image.intensity import as_seen, between_bars
from napari_restore.image.layout import Region
from napari_restore.inference.predictor import KnownBlur, find_predictor
from napari_restore.models.catalog import bundled_model
from napari_restore.networks.motion_estimator import MOTION_UNIT
from napari_restore.physics.camera import to_linear
from napari_restore.runtime import check, tell, torch

from .plan import Blur, window_estimates

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_restore.analysis.judge import ReBlur
    from napari_restore.analysis.point_spread import PSF
    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes
    from napari_restore.models.catalog import ModelSpec

    from .plan import Plan

    Samples = NDArray[np.float32]

#: Side of the window in which it is seen whether a PSF that is given fits, in pixels.
LOOKED_AT = 256


class SeenPlane:
    """One plane of an image as a network sees it, between its bars, read in parts.

    Attributes
    ----------
    inside : Region
        Where it lies in the plane.
    """

    def __init__(self, planes: Planes, index: tuple[int, ...], scale: Scale) -> None:
        self._planes, self._index, self._scale = planes, index, scale
        self.inside = between_bars((scale,), planes.layout.size)
        self.shape = (self.inside.height, self.inside.width, planes.layout.channels)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.float32]:
        rows, columns = (
            range(first, first + length)[part]
            for part, first, length in zip(key, self.inside, self.shape, strict=False)
        )
        region = Region(rows.start, columns.start, rows.stop, columns.stop)
        block = self._planes.read(self._index, region)
        return as_seen(block, self._scale, self._planes.layout, rows, columns)[0]


def find_blurs(planes: Planes, plan: Plan, scales: tuple[Scale, ...]) -> tuple[Blur, ...]:
    """Find the point spread function of each channel, or see whether those that are given fit.

    Parameters
    ----------
    planes : Planes
        The whole image; a few windows of one plane of each channel are read.
    plan : Plan
        With an inverter.
    scales : tuple of Scale
    """
    layout, tools, blurs = planes.layout, tools_of(plan), []
    what = "Looking at the blur" if plan.psfs else "Finding the point spread function"
    for channel in range(layout.groups):
        index = middle_plane(layout, channel)
        plane = SeenPlane(planes, index, scales[layout.group(index)])
        name = what if layout.groups == 1 else f"{what} of channel {channel}"

        def follow(share: float, channel: int = channel, name: str = name) -> None:
            tell(0, layout.pixels, f"{name}, {(channel + share) / layout.groups:.0%}")

        follow(0.0)
        if plan.psfs:
            psf = plan.psfs[channel if len(plan.psfs) > 1 else 0]
            blurs.append(_look(plane, psf, tools, plan.linear))
        else:
            blurs.append(_find_blur(plane, plan, tools, follow))
    return tuple(blurs)


def middle_plane(layout: Layout, channel: int) -> tuple[int, ...]:
    """Index of the plane in the middle of a stack, of one channel."""
    letters = [layout.axes[axis] for axis in layout.leading]
    lengths = [layout.shape[axis] for axis in layout.leading]
    return tuple(
        channel if letter == "C" else (length - 1) // 2
        for letter, length in zip(letters, lengths, strict=True)
    )


def _find_blur(plane: SeenPlane, plan: Plan, tools: Tools, follow: Callable[[float], None]) -> Blur:
    moved = plan.options.task == "motion_deblur"
    found = find_psf(plane, tools, linear=plan.linear, free_form=moved, progress=follow)
    # One that does not hold everywhere would harm where it does not.
    psf, statement = (None if found.verdict == "varies" else found.psf), found.statement
    if found.verdict == "varies":
        statement += " So the image is restored without one."
    if psf is not None and plan.pixel_size is not None:
        psf = replace(psf, pixel_size=plan.pixel_size, unit="µm")
    # Networks that remove defocus leave sharp images as they are by themselves.
    untouched = moved and found.verdict == "sharp"
    return Blur(psf, found.noise, found.verdict, statement, untouched)


def _look(plane: SeenPlane, psf: PSF, tools: Tools, linear: bool) -> Blur:
    """See how strong the noise is, and whether a PSF explains the image."""
    windows = rich_windows(plane, LOOKED_AT, 1, check)
    noise = noise_level(windows[0].samples) if windows else 0.0
    if not psf:
        return Blur(None, noise, "unknown", psf.found)
    found = psf.found.rstrip(".")
    fits = check_fit(windows[0].samples, psf, noise, tools, linear) if windows else None
    if fits is None:
        return Blur(psf, noise, "given", f"{found}. Whether it fits cannot be told.")
    return Blur(psf, noise, "given", f"{found}. It {fits.statement}.")


def check_fit(
    samples: NDArray[np.float32], psf: PSF, noise: float, tools: Tools, linear: bool
) -> ReBlur | None:
    """Restore a window, blur it again and compare; None if it is too small for that.

    Parameters
    ----------
    samples : ndarray
        (h, w, C), about [0, 1].
    psf : PSF
    noise : float
        Standard deviation, in the range of the samples.
    tools : Tools
    linear : bool
        The blur acted on light, before the sRGB tone curve of the image.
    """
    height, width = (length // 16 * 16 for length in samples.shape[:2])
    if min(height, width) < max(32, len(psf.array)):
        return None
    image = torch.from_numpy(np.ascontiguousarray(samples[:height, :width]))
    image = image.permute(2, 0, 1)[None]
    kernel = torch.from_numpy(psf.array.copy())
    restored = tools.invert(image, kernel[None], noise, linear)
    if linear:
        image, restored = to_linear(image), to_linear(restored)
        noise = noise_level(image[0].permute(1, 2, 0).numpy())
    return re_blur(image, restored, kernel, noise)


# ---------------------------------------------------------------- tools


def tools_of(plan: Plan) -> Tools:
    """Networks for the image of a plan with an inverter."""
    assert plan.inverter is not None
    return make_tools(plan.inverter, plan.spec, plan.device)


def make_tools(inverter: ModelSpec, restorer: ModelSpec, device: str) -> Tools:
    """Networks for images of a kind.

    Parameters
    ----------
    inverter : ModelSpec
        That is told a point spread function.
    restorer : ModelSpec
        That is told none, for the same task and as many channels.
    device : str
    """
    channels = restorer.channels
    deblur = find_predictor(bundled_model("deblur", channels), device)
    moved = find_predictor(bundled_model("motion_deblur", channels), device)
    alone = find_predictor(restorer, device)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])

    def tensor(samples: Samples) -> torch.Tensor:
        batch: torch.Tensor = torch.from_numpy(np.ascontiguousarray(samples))
        return batch.permute(2, 0, 1)[None]

    def invert(image: torch.Tensor, psf: torch.Tensor, noise: float, linear: bool) -> torch.Tensor:
        told = find_predictor(inverter, device, blur=KnownBlur(psf.numpy(), noise, linear))
        restored: torch.Tensor = told(
            image.repeat(len(psf), 1, 1, 1), None, whole.expand(len(psf), -1)
        )
        return restored

    def estimator(samples: Samples) -> tuple[float, float]:
        mean, log_variance = window_estimates(samples, deblur)
        precision = np.exp(-log_variance)
        log = float((precision * mean).sum() / precision.sum())
        return float(np.exp(log)), float(precision.mean() ** -0.5)

    def direction(samples: Samples) -> tuple[float, float, float]:
        height, width = (length // 16 * 16 for length in samples.shape[:2])
        vectors, log_variance = moved.estimate(tensor(samples[:height, :width]))[0]
        weight = (-log_variance.clamp(-6, 4)).exp()
        y, x = (float(v) for v in ((weight * vectors).sum((1, 2)) / weight.sum((1, 2))))
        length = MOTION_UNIT * float(np.hypot(x, y))
        return length, float(np.arctan2(x, y)) / 2, float(weight.mean()) ** -0.5

    def plain(samples: Samples) -> Samples:
        restored = alone(tensor(samples).clone(), None, whole)
        result: Samples = restored[0].permute(1, 2, 0).numpy()
        return result

    return Tools(invert, estimator, direction, plain)
