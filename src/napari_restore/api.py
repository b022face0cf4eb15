"""Restore arrays: joins the catalogue of models and the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .core.axes import Planes
from .core.engine import run
from .core.intensity import Scale, find_scales
from .core.lazy import as_dask, is_lazy, run_lazy
from .core.protocol import Progress, Report
from .plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

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
    regions: Sequence[tuple[tuple[int, ...], Region]] | None = None,
    scales: tuple[Scale, ...] | None = None,
    out: Any = None,
) -> Generator[Progress, None, Restoration]:
    """Restore step by step: the generator behind `restore`, the docks and the command line.

    Parameters
    ----------
    image : array
        What the plan was made for. NumPy; for lazy arrays the result is computed into memory.
    plan : Plan
    regions : sequence of (plane index, Region), optional
        Compute these alone; the rest of the result is the input's.
    scales : tuple of Scale, optional
        Intensity scales, if they are known.
    out : array, optional
        Where a whole result goes, for example a memory map; of the image's shape and dtype.

    Yields
    ------
    Progress
        After every batch of tiles. Close the generator to stop.

    Returns
    -------
    Restoration
    """
    from .models.predictor import load_predictor

    started, report = time.monotonic(), Report()
    dtype = np.dtype(image.dtype)
    source = Planes(image, plan.layout)
    if out is not None:
        result = out
    else:
        whole = regions is None
        result = np.empty(plan.layout.shape, dtype) if whole else np.array(image, copy=True)
    if plan.layout.pixels:
        yield Progress(0, plan.layout.pixels, "Loading the model")
        predictor = load_predictor(plan.spec, plan.device)
        if scales is None:
            yield Progress(0, plan.layout.pixels, "Finding the range of intensities")
            scales = find_scales(source, plan.spec.black_is_zero)
        yield Progress(0, plan.layout.pixels, "Restoring")
        yield from run(
            source,
            Planes(result, plan.layout),
            predictor,
            scales,
            tiles=plan.tiles,
            strength=plan.strength,
            regions=regions,
            report=report,
        )
    return Restoration(result, plan.provenance(report, time.monotonic() - started))


def restore_region(
    image: Any,
    plan: Plan,
    index: tuple[int, ...],
    region: Region,
    scales: tuple[Scale, ...] | None = None,
) -> np.ndarray[Any, np.dtype[Any]]:
    """Restore a region of one plane, as it would be in the whole result.

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

    Returns
    -------
    ndarray
        (region.height, region.width), with the colour axis last if there is one.
    """
    from .models.predictor import load_predictor

    source = Planes(image, plan.layout)
    if scales is None:
        scales = find_scales(source, plan.spec.black_is_zero)
    samples = plan.layout.shape[plan.layout.axes.index("S")] if plan.layout.colour else 1
    out = np.empty((region.height, region.width, samples), np.dtype(image.dtype))

    class Window:
        """Target that keeps one region; the engine writes through it."""

        layout = plan.layout

        @staticmethod
        def write(_: tuple[int, ...], tile: Region, block: Any) -> None:
            top, left = tile.top - region.top, tile.left - region.left
            out[top : top + tile.height, left : left + tile.width] = block

    steps = run(
        source,
        cast("Planes", Window),
        load_predictor(plan.spec, plan.device),
        scales,
        tiles=plan.tiles,
        strength=plan.strength,
        regions=[(index, region)],
    )
    for _ in steps:
        pass
    return out if plan.layout.colour else out[..., 0]


def restore_lazily(image: Any, plan: Plan, scales: Any = None) -> Any:
    """Restore a dask or zarr array chunk by chunk, each when it is asked for.

    Parameters
    ----------
    image : dask.array.Array or zarr.Array
    plan : Plan
    scales : delayed, optional
        Intensity scales shared with another array.

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
    steps = restore_steps(np.asarray(image), decided)
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return cast("Restoration", stop.value).data
        if progress is not None:
            progress(step)


def deblur(image: Any, **options: Any) -> Any:
    """Remove defocus and optical blur; options as for `restore`."""
    return restore(image, "deblur", **options)


def dehaze(image: Any, **options: Any) -> Any:
    """Remove haze, smoke or out-of-focus light; options as for `restore`."""
    return restore(image, "dehaze", **options)


def motion_deblur(image: Any, **options: Any) -> Any:
    """Remove motion blur; options as for `restore`."""
    return restore(image, "motion_deblur", **options)
