"""The temporary layer that shows a restored region over its place, and what it needs to know."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_restore.core.axes import Planes
from napari_restore.core.intensity import find_scales
from napari_restore.core.protocol import Progress
from napari_restore.findings import exposure_of

from .layers import METADATA_KEY, make_layer

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image

    from napari_restore.core.intensity import Scale
    from napari_restore.core.tiles import Region
    from napari_restore.plan import Plan

    from .jobs import LayerJob


class KnownScales:
    """Intensity scales, and the exposure, of the array that was previewed last.

    Finding them on a large image takes longer than restoring what the canvas shows.
    """

    def __init__(self) -> None:
        self._known: tuple[Any, object, tuple[Scale, ...], float | None] | None = None

    def find(
        self, job: LayerJob, region: Region
    ) -> Generator[Progress, None, tuple[tuple[Scale, ...], Plan]]:
        """Find the scales of a layer, or return those found before; and its complete plan."""
        plan = job.plan
        key = (plan.layout, plan.spec.name, plan.exposure)
        if self._known is not None and self._known[0]() is job.array and self._known[1] == key:
            return self._known[2], replace(plan, exposure=self._known[3])
        yield Progress(0, region.pixels, "Finding the range of intensities")
        scales, exposure = (
            find_scales(Planes(job.array, plan.layout), plan.spec.black_is_zero),
            None,
        )
        if plan.spec.frames == 2:
            yield Progress(0, region.pixels, "Finding the exposure")
            exposure = plan.exposure or exposure_of(job.array, plan, scales)
        try:
            self._known = weakref.ref(job.array), key, scales, exposure
        except TypeError:
            self._known = None
        return scales, replace(plan, exposure=exposure)


def preview_layer(job: LayerJob, index: tuple[int, ...], region: Region, data: Any) -> Image:
    """Layer that shows a restored region exactly over its place in the source.

    Parameters
    ----------
    job : LayerJob
    index : tuple of int
        The plane, over the leading axes.
    region : Region
        Rows and columns of it.
    data : ndarray
        (region.height, region.width[, 3 or 4]).
    """
    state = job.state
    physical = Affine(
        scale=state["scale"],
        rotate=state["rotate"],
        shear=state["shear"],
        translate=state["translate"],
    )
    state = state | {
        "name": f"{job.name} [preview]",
        "metadata": {METADATA_KEY: {"preview": True}},
        "multiscale": False,
        "translate": physical((*index, region.top, region.left)),
        "visible": True,
        "opacity": 1.0,
    }
    return make_layer(data[(np.newaxis,) * len(index)], state)


def is_preview(layer: Any) -> bool:
    """Whether a layer is a temporary one, of any dock."""
    return bool(layer.metadata.get(METADATA_KEY, {}).get("preview"))
