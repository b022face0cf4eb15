"""How long the shutter was open between two frames: found from the movie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.image.intensity import candidates, normalized, structure
from napari_restore.image.layout import Grid, Region, reflect
from napari_restore.physics.motion import warp

from .find import noise_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Planes
    from napari_restore.inference.engine import Predictor
    from napari_restore.inference.predictor import TorchPredictor

#: Of a movie of which two frames tell less than one.
ALONE = 0.0
#: Shares that are tried, and windows that are measured.
_TRIED = np.arange(2, 21) / 20
_MEASURED = 8
#: Pixels: lags that are long enough to tell from the fineness of the image, how far beyond the
#: length of the blur the dip lies (the scene's own likeness still falls there), and what is left
#: out at the border of a window.
_SHORTEST, _BEYOND, _EDGE = 3.0, 0.5, 24
#: Likeness above which there is no dip.
_DIP = -0.02
#: Blur in pixels below which two frames tell less than one, and the share of the windows that are
#: blurred more at least.
_SHORT, _SOME = 2.5, 0.25
#: Share of what a frame differs from itself, blurred once more, that may be left of the difference
#: to what was restored, blurred again: with the right exposure a quarter to a half is left.
_EXPLAINED = 0.6
#: Places along a blur that are added up.
_STEPS = 17

Window: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"


def usable_exposure(
    source: Planes, predictor: TorchPredictor, scales: Sequence[Scale], given: float | None
) -> float:
    """Find the exposure, or look whether two frames are of use with the one that is given.

    They are not where the blur is short, and where the restored frames, blurred again along the
    motion, are hardly more like the frames than those, blurred once more, are like themselves: so
    it is where the shutter was open for half of the time that is given, or for twice of it.

    Parameters
    ----------
    source : Planes
        The whole movie; a bounded sample of windows is read.
    predictor : TorchPredictor
        For two frames.
    scales : sequence of Scale
        One for each channel of the layout.
    given : float or None
        What the user says.

    Returns
    -------
    float
        Share of the time from frame to frame; `ALONE` if each is to be restored alone.
    """
    windows = _windows(source, scales)
    exposure = _found(windows, predictor) if given is None else given
    if exposure == ALONE or not windows:
        return exposure
    long, explained, itself, noise = [], 0.0, 0.0, 0.0
    for seen in windows:
        tensor, flow = _motion(seen, predictor)
        length = exposure * flow.norm(dim=1)
        moving = _fine(tensor, flow).abs()
        # Motion means something where there is something to see.
        there = length[moving[:, 0] >= moving.median()]
        long.append(float(there.median()) >= _SHORT)
        if long[-1]:
            frame = tensor[:, : tensor.shape[1] // 2]
            restored = predictor.restore_pair(tensor, exposure)
            explained += float((_blurred(restored, exposure * flow) - frame).square().mean())
            itself += float((_blurred(frame, exposure * flow) - frame).square().mean())
            noise += noise_level(frame[0].permute(1, 2, 0).numpy()) ** 2
    # Noise cannot be explained; how strong it is is known to a tenth.
    beyond = max(0.0, itself - 1.1 * noise)
    enough = explained <= itself - (1 - _EXPLAINED) * beyond
    return exposure if np.mean(long) >= _SOME and enough else ALONE


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
        Share of the time from frame to frame, 0.1 to 1; `ALONE` if there is no dip, or the blur
        is at most as short as the shortest that could be told.
    """
    return _found(_windows(source, scales), predictor)


def _windows(source: Planes, scales: Sequence[Scale]) -> list[Window]:
    """Windows of two frames with the most structure, of an even sample."""
    layout, windows = source.layout, []
    for index, region in candidates(layout, None):
        seen, _ = normalized(source, index, region, scales[layout.group(index)], 2)
        windows.append((structure(seen[..., : layout.channels]), seen))
    windows.sort(key=lambda item: -item[0])
    return [seen for contrast, seen in windows[:_MEASURED] if contrast > 0]


def _found(windows: Sequence[Window], predictor: Predictor) -> float:
    likeness, weight = np.zeros(len(_TRIED)), np.zeros(len(_TRIED))
    for seen in windows:
        found = _likeness(seen, predictor)
        likeness, weight = likeness + found[0], weight + found[1]
    # Shares at which too little moves far enough say nothing.
    known = weight > 0.3 * weight.max()
    if not known.any():
        return ALONE
    mean = np.where(known, likeness / np.maximum(weight, 1e-12), np.inf)
    best = int(mean.argmin())
    # At the shortest lag the dip itself may lie at a shorter one, unless it is level there.
    slopes = np.diff(mean[best : best + 3])
    level = len(slopes) == 2 and slopes[0] < slopes[1] / 2
    if mean[best] > _DIP or (best == int(known.argmax()) and not level):
        return ALONE
    return float(_TRIED[best])


def _motion(seen: Window, predictor: Predictor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both frames of a window, (1, 2 C, h, w), and the motion between them, (1, 2, h, w)."""
    size = (seen.shape[0], seen.shape[1])
    whole = Region(0, 0, *size)
    window = Grid(size, predictor.multiple_of, 0).window(whole)
    tensor = torch.from_numpy(reflect(seen, whole, window, size)).permute(2, 0, 1)[None]
    flow = F.interpolate(
        predictor.motion(tensor, 4), tensor.shape[-2:], mode="bilinear", align_corners=False
    )
    return tensor, flow


def _fine(tensor: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Take the derivative of the first frame along the motion, its fine structure alone."""
    way = flow / flow.norm(dim=1, keepdim=True).clamp(min=0.1)
    gray = tensor[:, : tensor.shape[1] // 2].mean(1, keepdim=True)
    padded = F.pad(gray, (1,) * 4, mode="replicate")
    along = way[:, :1] * (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])
    along = along + way[:, 1:] * (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])
    # Fine structure has a short likeness of its own; a few bright edges must not decide alone.
    fine: torch.Tensor = along - F.avg_pool2d(along, 5, 1, 2, count_include_pad=False)
    return fine


def _blurred(image: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """Mean of an image along a path, in pixels, around each place."""
    places = np.linspace(-0.5, 0.5, _STEPS)
    return torch.stack([warp(image, float(place) * path) for place in places]).mean(0)


def _likeness(
    seen: Window, predictor: Predictor
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ...]:
    """Products of the derivative with itself for each share, and what they weigh."""
    size = (seen.shape[0], seen.shape[1])
    tensor, flow = _motion(seen, predictor)
    length = flow.norm(dim=1, keepdim=True)
    way = flow / length.clamp(min=0.1)
    fine = _fine(tensor, flow)
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
