"""How long the shutter was open between two frames: found from the movie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.core.conversion import normalised
from napari_restore.core.gauge import candidates, structure
from napari_restore.core.tiles import Grid, Region, reflect
from napari_restore.physics.motion import warp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_restore.core.axes import Planes
    from napari_restore.core.intensity import Scale
    from napari_restore.core.protocol import Predictor

#: Of a movie that does not move, and in which it makes no difference.
USUAL = 0.5
#: Shares that are tried, and windows that are measured.
_TRIED = np.arange(2, 21) / 20
_MEASURED = 8
#: Pixels: lags that are long enough to tell from the fineness of the image, how far beyond the
#: length of the blur the dip lies (the scene's own likeness still falls there), and what is left
#: out at the border of a window.
_SHORTEST, _BEYOND, _EDGE = 3.0, 0.5, 24


def find_exposure(source: Planes, predictor: Predictor, scales: Sequence[Scale]) -> float:
    """Find the exposure from how long the blur is beside the motion.

    The derivative of a moving scene along its motion is the difference between the scenes at both
    ends of the blur: it is least like itself at that distance (Yitzhaky and Kopeika,
    "Identification of Blur Parameters from Motion Blurred Images", 1997). The motion to the next
    frame says in which direction to look; the share of it where all windows together have their
    dip is taken.

    Parameters
    ----------
    source : Planes
        The whole movie; a bounded sample of windows is read.
    predictor : Predictor
        That finds motion between two frames.
    scales : sequence of Scale
        One for each channel of the layout.

    Returns
    -------
    float
        Share of the time from frame to frame, 0.1 to 1; `USUAL` if nothing moves.
    """
    layout, windows = source.layout, []
    for index, region in candidates(layout, None):
        seen = normalised(source, index, region, scales[layout.group(index)], 2)
        windows.append((structure(seen[..., : layout.channels]), seen))
    windows.sort(key=lambda item: -item[0])
    likeness, weight = np.zeros(len(_TRIED)), np.zeros(len(_TRIED))
    for contrast, seen in windows[:_MEASURED]:
        if contrast > 0:
            found = _likeness(seen, predictor)
            likeness, weight = likeness + found[0], weight + found[1]
    # Shares at which too little moves far enough say nothing.
    known = weight > 0.3 * weight.max()
    if not known.any():
        return USUAL
    mean = np.where(known, likeness / np.maximum(weight, 1e-12), np.inf)
    return float(_TRIED[int(mean.argmin())])


def _likeness(
    seen: np.ndarray[tuple[int, ...], np.dtype[np.float32]], predictor: Predictor
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], ...]:
    """Products of the derivative with itself for each share, and what they weigh."""
    size = (seen.shape[0], seen.shape[1])
    whole = Region(0, 0, *size)
    window = Grid(size, predictor.multiple_of, 0).window(whole)
    tensor = torch.from_numpy(reflect(seen, whole, window, size)).permute(2, 0, 1)[None]
    flow = F.interpolate(
        predictor.motion(tensor, 4), tensor.shape[-2:], mode="bilinear", align_corners=False
    )
    length = flow.norm(dim=1, keepdim=True)
    way = flow / length.clamp(min=0.1)
    grey = tensor[:, : tensor.shape[1] // 2].mean(1, keepdim=True)
    padded = F.pad(grey, (1,) * 4, mode="replicate")
    along = way[:, :1] * (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])
    along = along + way[:, 1:] * (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])
    # Fine structure has a short likeness of its own; a few bright edges must not decide alone.
    fine = along - F.avg_pool2d(along, 5, 1, 2, count_include_pad=False)
    spread = float(fine.std())
    if spread == 0:
        return np.zeros(len(_TRIED)), np.zeros(len(_TRIED))
    fine = (fine / spread).clamp(-3, 3)
    inner = np.s_[..., _EDGE:-_EDGE, _EDGE:-_EDGE] if min(size) > 3 * _EDGE else np.s_[...]
    products, weights = [], []
    for share in _TRIED:
        lag = share * length
        ends = [warp(fine, sign * (lag + _BEYOND) / 2 * way) for sign in (-1, 1)]
        counts = (lag > _SHORTEST)[inner]
        products.append(float((ends[0] * ends[1])[inner][counts].sum()))
        weights.append(float(fine.square()[inner][counts].sum()))
    return np.array(products), np.array(weights)
