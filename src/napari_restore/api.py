"""Restore arrays: joins the catalogue of models and the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.axes import Planes
from .core.engine import run
from .core.gauge import estimate_blur
from .core.intensity import Scale, find_scales
from .core.lazy import as_dask, is_lazy, run_lazy
from .core.protocol import Progress, Report
from .core.steps import drain
from .plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .core.gauge import BlurEstimate
    from .core.tiles import Region


@dataclass(frozen=True)
class Restoration:
    """A restored array and how it was made."""

    data: Any
    provenance: dict[str, Any] = field(default_factory=dict)


def restore_steps(
    image: Any,
    plan: Plan,
    *,
    scales: tuple[Scale, ...] | None = None,
    out: Any = None,
    gauge: bool = True,
) -> Generator[Progress, None, Restoration]:
    """Restore step by step: the generator behind `restore`, the docks and the command line.

    Parameters
    ----------
    image : array
        What the plan was made for. NumPy; for lazy arrays the result is computed into memory.
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    out : array, optional
        Where the result goes, for example a memory map; of the image's shape and dtype.
    gauge : bool
        Also estimate how blurred the image is, where the model can; for the provenance.

    Yields
    ------
    Progress
        After every batch of tiles. Close the generator to stop.

    Returns
    -------
    Restoration
    """
    started, report = time.monotonic(), Report()
    result = np.empty(plan.layout.shape, np.dtype(image.dtype)) if out is None else out
    if plan.layout.pixels:
        target = Planes(result, plan.layout)
        scales = yield from _steps(image, plan, target, scales, report=report)
    blur = measure_blur(image, plan, scales) if gauge and scales else None
    seconds = time.monotonic() - started
    record = plan.provenance(report=report, seconds=seconds, scales=scales, blur=blur)
    return Restoration(result, record)


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
    from .models.predictor import load_predictor

    predictor = load_predictor(plan.spec, plan.device)
    return estimate_blur(Planes(image, plan.layout), predictor, scales, within)


def _steps(
    image: Any,
    plan: Plan,
    target: Planes,
    scales: tuple[Scale, ...] | None,
    **options: Any,
) -> Generator[Progress, None, tuple[Scale, ...]]:
    """Load, find the scales if need be, run; returns the scales."""
    from .models.predictor import load_predictor

    source = Planes(image, plan.layout)
    yield Progress(0, plan.layout.pixels, "Loading the model")
    predictor = load_predictor(plan.spec, plan.device)
    if scales is None:
        yield Progress(0, plan.layout.pixels, "Finding the range of intensities")
        scales = find_scales(source, plan.spec.black_is_zero)
    yield Progress(0, plan.layout.pixels, "Restoring")
    yield from run(
        source, target, predictor, scales, tiles=plan.tiles, strength=plan.strength, **options
    )
    return scales


def region_steps(
    image: Any,
    plan: Plan,
    index: tuple[int, ...],
    region: Region,
    scales: tuple[Scale, ...] | None = None,
) -> Generator[Progress, None, np.ndarray[Any, np.dtype[Any]]]:
    """Restore a region of one plane step by step, as it would be in the whole result.

    Parameters
    ----------
    image : array
        The whole image; only the region, its halo and the sample for the scale are read.
    plan : Plan
    index : tuple of int
        Which plane, over the leading axes.
    region : Region
        Rows and columns of it.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.

    Yields
    ------
    Progress

    Returns
    -------
    ndarray
        (region.height, region.width), with the colour axis last if there is one.
    """
    layout, place = plan.layout, iter(index)
    shape, origin = [], []
    for letter, length in zip(layout.axes, layout.shape, strict=True):
        start, count = {
            "Y": (region.top, region.height),
            "X": (region.left, region.width),
            "S": (0, length),
        }.get(letter) or (next(place), 1)
        origin.append(start)
        shape.append(count)
    window = Planes(np.empty(shape, np.dtype(image.dtype)), layout, tuple(origin))
    yield from _steps(image, plan, window, scales, regions=[(index, region)])
    out = window.read(index, region)
    return out if layout.colour else out[..., 0]


def restore_region(
    image: Any,
    plan: Plan,
    index: tuple[int, ...],
    region: Region,
    scales: tuple[Scale, ...] | None = None,
) -> np.ndarray[Any, np.dtype[Any]]:
    """Restore a region of one plane; see `region_steps`."""
    return drain(region_steps(image, plan, index, region, scales))


def restore_lazily(image: Any, plan: Plan, scales: Any = None) -> Any:
    """Restore a dask or zarr array chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array or zarr.Array
    plan : Plan
    scales : tuple of Scale, optional
        Intensity scales, if they are known; else they are found when the first chunk is asked for.

    Returns
    -------
    dask.array.Array
        Same shape, dtype and chunks.
    """
    from .models.predictor import load_predictor

    spec = plan.spec
    return run_lazy(
        as_dask(image),
        plan.layout,
        partial(load_predictor, spec, plan.device),
        halo=spec.halo,
        multiple_of=spec.multiple_of,
        view=spec.view,
        from_zero=spec.black_is_zero,
        tiles=plan.tiles,
        strength=plan.strength,
        scales=scales,
    )


def restore(
    image: Any,
    task: str,
    *,
    axes: str | None = None,
    rgb: bool | None = None,
    model: str = "auto",
    device: str = "auto",
    tile: int | str = "auto",
    strength: float = 1.0,
    progress: Callable[[Progress], object] | None = None,
) -> Any:
    """Restore an image.

    Parameters
    ----------
    image : array
        Two or more dimensions; integers, floats or booleans. NumPy, dask or zarr.
    task : {"deblur", "dehaze", "motion_deblur"}
    axes : str, optional
        One letter for each axis, for example "TZCYX" or "YXS" (S: RGB samples, C: channels, each
        with its own intensity scale). Without it the plane is the last two axes, before the colour
        axis.
    rgb : bool, optional
        Whether the last axis is RGB or RGBA. Without it, a last axis of 3 or 4 on uint8 is.
    model : str
        "auto", a name of the catalogue, or a file of weights.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    tile : int or "auto"
        Side of the tiles in pixels.
    strength : float
        0 keeps the input, 1 is the full result, linear between.
    progress : callable, optional
        Called with a `Progress` after every batch of tiles.

    Returns
    -------
    array
        Same shape and dtype. For NumPy a new array; for dask and zarr a dask array of the same
        chunks that restores each chunk when it is asked for.

    Raises
    ------
    RestoreError
        If image or options are of no use; the message names the value and the remedy.

    Notes
    -----
    Intensities are scaled once for the whole array (each channel), and what the network changes is
    added to the original samples: units and offsets stay, alpha, NaN and infinities are untouched.
    """
    decided = plan(
        image, task, axes=axes, rgb=rgb, model=model, device=device, tile=tile, strength=strength
    )
    if is_lazy(image):
        return restore_lazily(image, decided)
    return drain(restore_steps(np.asarray(image), decided, gauge=False), progress).data


def deblur(image: Any, **options: Any) -> Any:
    """Remove defocus and optical blur; options as for `restore`."""
    return restore(image, "deblur", **options)


def dehaze(image: Any, **options: Any) -> Any:
    """Remove haze, smoke or out-of-focus light; options as for `restore`."""
    return restore(image, "dehaze", **options)


def motion_deblur(image: Any, **options: Any) -> Any:
    """Remove motion blur; options as for `restore`."""
    return restore(image, "motion_deblur", **options)
