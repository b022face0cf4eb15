"""What is found of an image: what all its blocks have in common, and what else it says.

What blocks have in common is found once, from a bounded sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from napari_restore.analysis.blur import estimate_blur
from napari_restore.analysis.motion import CELL, field_of_motion
from napari_restore.analysis.point_spread import PSF
from napari_restore.errors import RestoreError
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes
from napari_restore.image.lazy import LazyStatistic
from napari_restore.image.tiling import Region
from napari_restore.inference.conversion import as_seen
from napari_restore.watch import check, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from napari_restore.analysis.blur import BlurEstimate
    from napari_restore.analysis.judge import ReBlur
    from napari_restore.analysis.motion import Motion
    from napari_restore.analysis.trial import Tools
    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout
    from napari_restore.inference.predictor import TorchPredictor
    from napari_restore.inference.protocol import Report

    from .in_space import Light
    from .plan import Plan

    MaybeFacts: TypeAlias = "Facts | LazyStatistic[Facts]"

#: Side of the window in which it is seen whether a PSF that is given fits, in pixels.
LOOKED_AT = 256


@dataclass(frozen=True)
class Blur:
    """What is known of the blur of one channel.

    Attributes
    ----------
    psf : PSF or None
        The one that is inverted; None where the network that is not told one restores.
    noise : float
        Standard deviation of the noise, in the range that the network sees.
    verdict : str
        ``given``, or as in `napari_restore.analysis.find.Finding`.
    statement : str
        All that in plain words.
    untouched : bool
        The channel is sharp, and comes back as it is.
    """

    psf: PSF | None
    noise: float
    verdict: str
    statement: str
    untouched: bool = False

    def record(self) -> dict[str, Any]:
        """In plain types, for the provenance; `from_record` makes the same of it."""
        said = {"verdict": self.verdict, "said": self.statement, "noise": self.noise}
        if self.untouched:
            said["untouched"] = True
        return said if self.psf is None else self.psf.record() | said

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Blur:
        """Make what was known of a record."""
        psf = PSF.from_record(record) if "samples" in record else None
        untouched = bool(record.get("untouched"))
        return cls(psf, record["noise"], record["verdict"], record["said"], untouched)


@dataclass(frozen=True)
class Facts:
    """What was found of an image before a block of it is restored.

    Attributes
    ----------
    scales : tuple of Scale
        Intensity scales, one for each channel.
    exposure : float or None
        With two frames, share of the time between them that the shutter is open; 0 where two tell
        less than one, so that each is restored alone.
    blurs : tuple of Blur
        What blurred each channel; empty if nobody asked.
    lights : tuple of Light
        What blocks of each channel have in common in space, see `in_space`; else empty.
    """

    scales: tuple[Scale, ...]
    exposure: float | None = None
    blurs: tuple[Blur, ...] = ()
    lights: tuple[Light, ...] = ()

    @property
    def psf(self) -> PSF | None:
        """Point spread function that is inverted, of the first channel with one."""
        return next((blur.psf for blur in self.blurs if blur.psf is not None), None)

    def is_untouched(self, channel: int) -> bool:
        """Whether a channel comes back as it is."""
        return bool(self.blurs) and self.blurs[channel].untouched


def find_facts(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...] | None = None,
    blurs: tuple[Blur, ...] | None = None,
) -> Facts:
    """Find what all blocks of an image have in common.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. Of large ones a bounded sample is read.
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    blurs : tuple of Blur, optional
        What blurred each channel, if that is known.
    """
    return _find(Planes(image, plan.layout), plan, scales, blurs)


def _find(
    planes: Planes,
    plan: Plan,
    scales: tuple[Scale, ...] | None = None,
    blurs: tuple[Blur, ...] | None = None,
) -> Facts:
    total = plan.layout.pixels
    if not total:
        return Facts(())
    if scales is None:
        tell(0, total, "Finding the range of intensities")
        scales = find_scales(planes, **plan.scaling)
    exposure = None
    if plan.spec.frames == 2:
        from napari_restore.analysis.exposure import usable_exposure

        tell(0, total, "Finding the exposure")
        pair = cast("TorchPredictor", plan.predictor())
        exposure = usable_exposure(planes, pair, scales, plan.options.exposure)
    if plan.in_space:
        return find_in_space(planes, plan, scales)
    if plan.inverter is None:
        return Facts(scales, exposure)
    return Facts(scales, exposure, blurs or find_blurs(planes, plan, scales))


def find_later(image: Any, plan: Plan) -> LazyStatistic[Facts]:
    """Find the facts of a dask array when they are first needed, once in each process.

    Parameters
    ----------
    image : dask.array.Array
    plan : Plan
        For workers, see `Plan.elsewhere`.
    """
    return LazyStatistic(image, plan.layout, _Finder(plan))


@dataclass(frozen=True)
class _Finder:
    """Finds facts on a worker: it is sent without torch being imported."""

    plan: Plan

    def __call__(self, planes: Planes) -> Facts:
        return _find(planes, self.plan)


def known(facts: MaybeFacts) -> Facts:
    """Facts, found if need be."""
    return facts.get() if isinstance(facts, LazyStatistic) else facts


# ---------------------------------------------------------------- the blur


class _Plane:
    """One plane of an image as a network sees it, read in parts."""

    def __init__(self, planes: Planes, index: tuple[int, ...], scale: Scale) -> None:
        self._planes, self._index, self._scale = planes, index, scale
        self._channels = planes.layout.channels
        height, width = planes.layout.size
        self.shape = (height, width, self._channels)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.float32]:
        rows, columns = (
            range(length)[part] for part, length in zip(key, self.shape[:2], strict=False)
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
    from .psf_tools import tools_of

    layout, tools, blurs = planes.layout, tools_of(plan), []
    what = "Looking at the blur" if plan.psfs else "Finding the point spread function"
    for channel in range(layout.groups):
        index = _middle_plane(layout, channel)
        plane = _Plane(planes, index, scales[layout.group(index)])
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


def find_in_space(planes: Planes, plan: Plan, scales: tuple[Scale, ...]) -> Facts:
    """Find noise and light of each channel, for volumes and classical methods."""
    from napari_restore.analysis.noise import noise_level
    from napari_restore.analysis.windows import rich_windows

    from .in_space import find_light

    layout, blurs, lights = planes.layout, [], []
    for channel in range(layout.groups):
        tell(0, layout.pixels, "Looking at the noise")
        plane = _Plane(planes, _middle_plane(layout, channel), scales[channel])
        window = next(iter(rich_windows(plane, LOOKED_AT, 1, check)))
        noise = noise_level(window.samples)
        psf = plan.psf(channel)
        # One that was looked for and not found changes nothing.
        blurs.append(Blur(psf, noise, "given" if psf else "unknown", psf.found))
        lights.append(find_light(planes, plan, scales, channel, (window.top, window.left)))
    return Facts(scales, blurs=tuple(blurs), lights=tuple(lights))


def _middle_plane(layout: Layout, channel: int) -> tuple[int, ...]:
    """Index of the plane in the middle of a stack, of one channel."""
    letters = [layout.axes[axis] for axis in layout.leading]
    lengths = [layout.shape[axis] for axis in layout.leading]
    return tuple(
        channel if letter == "C" else (length - 1) // 2
        for letter, length in zip(letters, lengths, strict=True)
    )


def _find_blur(plane: _Plane, plan: Plan, tools: Tools, follow: Callable[[float], None]) -> Blur:
    from napari_restore.analysis.find import find_psf

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


def _look(plane: _Plane, psf: PSF, tools: Tools, linear: bool) -> Blur:
    """See how strong the noise is, and whether a PSF explains the image."""
    from napari_restore.analysis.noise import noise_level
    from napari_restore.analysis.windows import rich_windows

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
    import torch

    from napari_restore.analysis.judge import re_blur
    from napari_restore.analysis.noise import noise_level
    from napari_restore.physics.camera import to_linear

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


# ---------------------------------------------------------------- what else can be found


def try_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    report: Report,
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Measure blur after a restoration: if that fails, a note says so and the result stays."""
    try:
        return measure_blur(image, plan, scales, within)
    except (RuntimeError, MemoryError) as error:
        report.notes.append(f"How blurred the image was could not be estimated: {error}")
        return None


def measure_blur(
    image: Any,
    plan: Plan,
    scales: tuple[Scale, ...],
    within: tuple[tuple[int, ...], Region] | None = None,
) -> BlurEstimate | None:
    """Estimate how blurred an image is, from a bounded sample of it.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
    scales : tuple of Scale
        Intensity scales, as the restoration uses them.
    within : (plane index, Region), optional
        Where to look; without it, everywhere.

    Returns
    -------
    BlurEstimate or None
        None if the plan's model cannot tell, or the image has too little structure.
    """
    return estimate_blur(Planes(image, plan.layout), plan.predictor(), scales, within)


def find_motion(
    image: Any, plan: Plan, scales: tuple[Scale, ...] | None = None, spacing: int = CELL
) -> Motion:
    """Find the motion in an image: see `napari_restore.analysis.motion`.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. Read tile by tile.
    plan : Plan
        Of a model that finds motion.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    spacing : int
        Side of the cells of the field in pixels, a multiple of 16.

    Returns
    -------
    Motion

    Raises
    ------
    RestoreError
        If the model does not find motion.
    """
    if plan.spec.gauge != "motion":
        raise RestoreError(
            f"Model '{plan.spec.name}' does not say how things moved. Choose 'auto', or one that "
            "was trained for motion_deblur with estimates."
        )
    source = Planes(image, plan.layout)
    if scales is None:
        scales = find_scales(source, **plan.scaling)
    return field_of_motion(source, plan.predictor(), scales, spacing)


def find_psfs(image: Any, plan: Plan) -> tuple[PSF, ...]:
    """Point spread functions of the channels of an image, as the plan says: found, or given.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr.
    plan : Plan
        With an inverter.

    Returns
    -------
    tuple of PSF
        What is known of each stands in ``found``; where none was found it is false.
    """
    facts = find_facts(image, plan)
    if not facts.blurs:
        return (PSF.none("The image is empty."),) * plan.layout.groups
    return tuple(
        PSF.none(blur.statement) if blur.psf is None else replace(blur.psf, found=blur.statement)
        for blur in facts.blurs
    )
