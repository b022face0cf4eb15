"""How things moved, as a layer of vectors over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Vectors

from napari_restore.analysis.motion import CELL, Motion
from napari_restore.restoration.plan import find_motion

from .layers import METADATA_KEY, PLACE

if TYPE_CHECKING:
    from napari_restore.restoration.run import Restoration

    from .jobs import LayerJob

#: Most arrows along a side of the image: more are a carpet.
_MOST = 48


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
