"""What all blocks of an image have in common: found once, in one place, from a bounded sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes
from napari_restore.image.lazy import LazyStatistic
from napari_restore.image.tiling import Region
from napari_restore.inference.conversion import as_seen
from napari_restore.watch import check, tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_restore.analysis.point_spread import PSF
    from napari_restore.image.intensity import Scale
    from napari_restore.inference.predictor import TorchPredictor

    from .plan import Plan

    MaybeFacts: TypeAlias = "Facts | LazyStatistic[Facts]"


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
    psf : PSF or None
        Point spread function that is inverted.
    noise : float
        Standard deviation of the noise, in the range that the network sees.
    said : str
        What is known of the blur, in plain words.
    """

    scales: tuple[Scale, ...]
    exposure: float | None = None
    psf: PSF | None = None
    noise: float = 0.0
    said: str = ""


def find_facts(image: Any, plan: Plan, scales: tuple[Scale, ...] | None = None) -> Facts:
    """Find what all blocks of an image have in common.

    Parameters
    ----------
    image : array
        What the plan was made for; NumPy, dask or zarr. Of large ones a bounded sample is read.
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    """
    return _find(Planes(image, plan.layout), plan, scales)


def _find(planes: Planes, plan: Plan, scales: tuple[Scale, ...] | None = None) -> Facts:
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
    if plan.inverter is None:
        return Facts(scales, exposure)
    tell(0, total, "Finding the point spread function")
    return find_blur(planes, plan, scales)


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


def find_blur(planes: Planes, plan: Plan, scales: tuple[Scale, ...]) -> Facts:
    """Find the point spread function, or how strong the noise is if it is given.

    Parameters
    ----------
    planes : Planes
        The whole image; a few windows of one plane are read.
    plan : Plan
        With an inverter.
    scales : tuple of Scale
    """
    from napari_restore.analysis.find import find_psf
    from napari_restore.analysis.noise import noise_level
    from napari_restore.analysis.windows import rich_windows

    from .psf_tools import tools_of

    layout = planes.layout
    lengths = [layout.shape[axis] for axis in layout.leading]
    index = tuple(int(i) for i in np.unravel_index(layout.planes // 2, lengths)) if lengths else ()
    plane = _Plane(planes, index, scales[layout.group(index)])
    if plan.psf is not None:
        windows = rich_windows(plane, count=1, check=check)
        noise = noise_level(windows[0].samples) if windows else 0.0
        return Facts(scales, psf=plan.psf, noise=noise, said=plan.psf.found)

    def follow(share: float) -> None:
        tell(0, layout.pixels, f"Finding the point spread function, {share:.0%}")

    moved = plan.options.task == "motion_deblur"
    found = find_psf(plane, tools_of(plan), linear=plan.linear, free_form=moved, progress=follow)
    return Facts(scales, psf=found.psf, noise=found.noise, said=found.statement)
