"""What can be shown beside a result: what was removed, and how things moved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Vectors

from napari_restore.analysis.motion import CELL, Motion
from napari_restore.image.intensity import removed_light
from napari_restore.image.layout import as_dask, find_layout, is_lazy
from napari_restore.image.pyramid import pyramid
from napari_restore.restoration.plan import find_motion
from napari_restore.restoration.transmission import transmission

from .layers import METADATA_KEY, PLACE

if TYPE_CHECKING:
    from napari_restore.restoration.run import Restoration

    from .jobs import LayerJob

#: Most arrows along a side of the image: more are a carpet.
_MOST = 48


def removed_from(job: LayerJob, restored: Restoration) -> Any:
    """Find what a restoration removed; touches no layer, so it may run in a thread.

    Of color layers the transmission, float32 in [0, 1]; of others the difference of source and
    result, so that both together are the source exactly.

    Returns
    -------
    array, list of array, or None
        A list for multiscale layers; lazy for lazy ones. None if there is nothing to show.
    """
    layout, multiscale = job.plan.layout, job.state["multiscale"]
    if not layout.color:
        results = restored.data if multiscale else [restored.data]
        pairs = zip(job.levels, results, strict=True)
        levels = [removed_light(_array(source), result) for source, result in pairs]
        return levels if multiscale else levels[0]
    if not restored.scales or not job.plan.spec.view:
        return None
    levels = []
    for level in job.levels if job.lazy else job.levels[:1]:
        plan = replace(job.plan, layout=find_layout(level, layout.axes))
        levels.append(transmission(level, plan, restored.facts))
    if multiscale and not job.lazy:
        levels = pyramid(levels[0], [tuple(level.shape[:-1]) for level in job.levels[1:]])
    return levels if multiscale else levels[0]


def _array(level: Any) -> Any:
    """Array that can be reckoned with: zarr arrays cannot."""
    return as_dask(level) if is_lazy(level) else np.asarray(level)


def removed_layer(job: LayerJob, data: Any, provenance: dict[str, Any]) -> Image:
    """Make the layer of what was removed, in the place of its source."""
    color = job.plan.layout.color
    what = "transmission" if color else "removed light"
    state = {name: job.state[name] for name in PLACE}
    looks: dict[str, Any] = {"colormap": "viridis", "contrast_limits": (0, 1)}
    if not color:
        looks = {name: job.state[name] for name in ("colormap", "blending")}
    return Image(
        data,
        name=f"{job.name} [{what}]",
        multiscale=job.state["multiscale"],
        metadata={METADATA_KEY: {"source": job.name, "shows": what, **provenance}},
        rgb=False,
        **state,
        **looks,
    )


def motion_of(job: LayerJob, restored: Restoration) -> Motion:
    """Find how things moved; touches no layer, so it may run in a thread.

    Returns
    -------
    Motion
        With cells that suit the size of the image.
    """
    cells = -(-max(job.plan.layout.size) // _MOST)
    spacing = max(1, -(-cells // CELL)) * CELL
    motion = find_motion(job.array, job.plan, restored.scales, spacing)
    if job.partner is None:
        return motion
    return Motion(motion.vectors[0], spacing, motion.directed)


def motion_layer(job: LayerJob, motion: Motion, provenance: dict[str, Any]) -> Vectors:
    """Make the layer: arrows from frame to frame, or lines along the blur, true to length."""
    lines = motion.as_vectors()
    state = {name: job.state[name] for name in PLACE}
    what = "motion" if motion.directed else "motion blur"
    return Vectors(
        lines,
        ndim=lines.shape[-1],
        name=f"{job.name} [{what}]",
        vector_style="arrow" if motion.directed else "line",
        # Pixels of the image; thin enough not to hide what moves.
        edge_width=motion.spacing / 10,
        length=1,
        features={"length_px": np.linalg.norm(lines[:, 1], axis=-1)},
        edge_color="length_px" if len(lines) else "yellow",
        edge_colormap="plasma",
        metadata={METADATA_KEY: {"source": job.name, "shows": what, **provenance}},
        **state,
    )
