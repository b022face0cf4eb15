"""What all blocks of an image have in common: found once, in one place, from a bounded sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes
from napari_restore.image.lazy import FromSample
from napari_restore.watch import tell

if TYPE_CHECKING:
    from napari_restore.image.intensity import Scale
    from napari_restore.inference.predictor import TorchPredictor

    from .plan import Plan

    MaybeFacts: TypeAlias = "Facts | FromSample[Facts]"


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
    """

    scales: tuple[Scale, ...]
    exposure: float | None = None


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
    return Facts(scales, exposure)


def find_later(image: Any, plan: Plan) -> FromSample[Facts]:
    """Find the facts of a dask array when they are first needed, once in each process.

    Parameters
    ----------
    image : dask.array.Array
    plan : Plan
        For workers, see `Plan.elsewhere`.
    """
    return FromSample(image, plan.layout, _Finder(plan))


@dataclass(frozen=True)
class _Finder:
    """Finds facts on a worker: it is sent without torch being imported."""

    plan: Plan

    def __call__(self, planes: Planes) -> Facts:
        return _find(planes, self.plan)


def known(facts: MaybeFacts) -> Facts:
    """Facts, found if need be."""
    return facts.get() if isinstance(facts, FromSample) else facts
