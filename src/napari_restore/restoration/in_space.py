"""Blocks of volumes, and of planes by classical methods: restored with a point spread function.

Depth, height and width are space alike here: a part is read with what is around it along all of
them, as far as the point spread function reaches.
"""

from __future__ import annotations

import itertools
import os
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_restore.analysis.find import noise_level, rich_windows
from napari_restore.analysis.psf_width import is_too_wide
from napari_restore.errors import DeviceError
from napari_restore.image.intensity import SQUARE, as_seen
from napari_restore.image.layout import Region
from napari_restore.inference.engine import (
    Batch,
    Job,
    crop_of,
    not_below,
    squares_around,
    write_tile,
)
from napari_restore.models.catalog import VOLUME_INVERTER, VOLUME_STAGES, build_network, load_state
from napari_restore.physics.camera import to_linear, to_srgb
from napari_restore.physics.deconvolution import RichardsonLucy, Scale, Wiener
from napari_restore.physics.in_blocks import VOXELS, blocks, sides_of, with_margin
from napari_restore.runtime import (
    apply_threads,
    check,
    free_memory,
    is_out_of_memory,
    memory_left,
    resolve_device,
    tell,
    torch,
    use_threads_of_worker,
)

from .given_psf import narrower
from .plan import Blur, Facts, Light
from .psf_search import LOOKED_AT, SeenPlane, middle_plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_restore.analysis.point_spread import PSF
    from napari_restore.image.intensity import Scale as IntensityScale
    from napari_restore.image.layout import Block, Layout, Planes
    from napari_restore.inference.engine import Report
    from napari_restore.networks.volume_inverter import VolumeInverter

    from .plan import Plan

    #: Image, point spread function and trusted samples, (D, h, w) each, to the restored image.
    Method = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

#: Bytes at work for each voxel, and voxels below which a part is not cut any smaller.
BYTES, LEAST_VOXELS = 100, 2**18
#: From here on a sample of 8-bit color may be cut off by the range of the sensor.
FULL = 0.985
#: Sides of the part of an image in which the momenta of the steps are found: depth, and the plane.
#: They hardly differ from part to part: of larger ones, results are no better.
SAMPLE = (24, 96)
#: What is said where another PSF is used than that of the optics that were told.
TOO_WIDE = (
    "The image is sharper than these optics allow: a narrower PSF is used, that of NA {na:.3g}. "
    "Check the numerical aperture, the wavelength and the pinhole."
)


#: Chunks of a lazy array are asked for by many threads: one at a time is as quick, and takes the
#: memory of one.
_COMPUTING = [threading.Lock()]


def _after_fork() -> None:
    _COMPUTING[0] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Stack:
    """Planes one above another: all of Z, or one plane where that is no space.

    Attributes
    ----------
    index : tuple of int
        Of one of the planes, over the leading axes.
    axis : int or None
        Which of the numbers in ``index`` counts the planes.
    depth : int
        How many planes the image has there.
    """

    index: tuple[int, ...]
    axis: int | None
    depth: int

    def plane(self, z: int) -> tuple[int, ...]:
        """Index of a plane."""
        if self.axis is None:
            return self.index
        return (*self.index[: self.axis], z, *self.index[self.axis + 1 :])


def stacks(layout: Layout, block: Block, dimensions: int) -> Iterator[tuple[Stack, slice]]:
    """Stacks that a block has part in, and which of their planes."""
    axes = layout.leading
    deep = axes.index(layout.axes.index("Z")) if dimensions == 3 else None
    ranges = [range(block[axis].start, block[axis].stop) for axis in axes]
    part, depth = slice(0, 1), 1
    if deep is not None:
        part, depth = block[axes[deep]], layout.shape[axes[deep]]
        ranges[deep] = range(part.start, part.start + 1)
    for index in itertools.product(*ranges):
        yield Stack(index, deep, depth), part


def block_in_space(plan: Plan) -> list[int]:
    """Shape of blocks that are one part each."""
    layout = plan.layout
    deep = layout.shape[layout.axes.index("Z")] if plan.dimensions == 3 else 1
    sides = dict(zip("ZYX", sides_of((deep, *layout.size), plan.margins, VOXELS), strict=True))
    if plan.tiles.fixed:
        sides |= {letter: min(sides[letter], plan.tiles.side) for letter in "YX"}
    if plan.dimensions == 2:
        sides["Z"] = 1
    return [
        length if letter == "S" else sides.get(letter, 1)
        for letter, length in zip(layout.axes, layout.shape, strict=True)
    ]


def restore_in_space(
    source: Planes, target: Planes, plan: Plan, facts: Facts, block: Block, report: Report
) -> None:
    """Restore a block of ``source`` into ``target``.

    Parameters
    ----------
    source, target : Planes
        ``source`` holds the window of the block, ``target`` the block.
    plan : Plan
        With a method and point spread functions.
    facts : Facts
    block : tuple of slice
    report : Report
        Filled in along the way.

    Raises
    ------
    DeviceError
        If memory runs out on the CPU, or at a tile size that the user chose.
    """
    layout, device = plan.layout, resolve_device(plan.device)
    report.device = device
    rows, columns = block[layout.axes.index("Y")], block[layout.axes.index("X")]
    parts = list(stacks(layout, block, plan.dimensions))
    total = sum((part.stop - part.start) for _, part in parts)
    total *= (rows.stop - rows.start) * (columns.stop - columns.start)
    done, voxels = 0, _room(plan, device)
    for stack, deep in parts:
        todo = _cut((deep, rows, columns), plan, voxels)
        while todo:
            place = todo.pop()
            tell(done, total, report.notes[-1] if report.notes else "")
            try:
                _restore_part(source, target, plan, facts, stack, place, device, report)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                free_memory(device)
                voxels, device, note = _smaller(voxels, device, plan)
                report.notes.append(note)
                report.device = device
                again = [place, *reversed(todo)]
                todo = [part for whole in reversed(again) for part in _cut(whole, plan, voxels)]
                continue
            done += int(np.prod([part.stop - part.start for part in place]))


def _room(plan: Plan, device: str) -> int:
    """Voxels, margins among them, that are restored at once."""
    free = None if device == "cpu" else memory_left(device)
    return VOXELS if free is None else max(LEAST_VOXELS, min(2**28, free // 2 // BYTES))


def _cut(place: Block, plan: Plan, voxels: int) -> list[Block]:
    """Parts of a place, the first one last."""
    layout = plan.layout
    deep = layout.shape[layout.axes.index("Z")] if plan.dimensions == 3 else 1
    inner = list(blocks((deep, *layout.size), plan.margins, voxels, place))
    if plan.tiles.fixed:
        side = plan.tiles.side
        inner = [
            (z, slice(y, min(y + side, part_y.stop)), slice(x, min(x + side, part_x.stop)))
            for z, part_y, part_x in inner
            for y in range(part_y.start, part_y.stop, side)
            for x in range(part_x.start, part_x.stop, side)
        ]
    return inner[::-1]


def _smaller(voxels: int, device: str, plan: Plan) -> tuple[int, str, str]:
    if voxels // 2 >= LEAST_VOXELS and not plan.tiles.fixed:
        voxels //= 2
        said = f"Memory ran out; going on with parts of {voxels / 1e6:.2g} Mvoxel."
        return voxels, device, said
    if plan.tiles.fixed:
        raise DeviceError(
            f"Memory of {device} ran out at the chosen tile of {plan.tiles.side} pixels. Choose a "
            "smaller tile, or 'auto'."
        )
    if device == "cpu":
        raise DeviceError(
            "Memory ran out even with small parts of the volume. Close other programs and try "
            "again, or give a smaller point spread function."
        )
    return VOXELS, "cpu", f"Memory of {device} ran out; going on with the CPU."


def _restore_part(
    source: Planes,
    target: Planes,
    plan: Plan,
    facts: Facts,
    stack: Stack,
    place: Block,
    device: str,
    report: Report,
) -> None:
    layout = plan.layout
    scale = facts.scales[layout.group(stack.index)]
    window, _ = with_margin(place, plan.margins, (stack.depth, *layout.size))
    seen, gaps = _read(source, stack, window, scale)
    with _COMPUTING[0]:
        change = _change(torch.from_numpy(seen), gaps, plan, facts, stack, window[0].start, device)
    if scale.few and scale.span and np.dtype(plan.dtype).kind == "u":
        black = -scale.low / scale.span
        for z, plane in enumerate(seen):
            light = torch.from_numpy(plane).movedim(-1, 0)
            change[z] = not_below(change[z].movedim(-1, 0), light, black).movedim(0, -1)
    region = Region(place[1].start, place[2].start, place[1].stop, place[2].stop)
    around = Region(window[1].start, window[2].start, window[1].stop, window[2].stop)
    kept = region
    if scale.few and min(plan.margins[1:]) >= SQUARE:
        kept = squares_around(region, layout.size)
    rows, columns = crop_of(kept, around)
    for z in range(place[0].start, place[0].stop):
        number = z - window[0].start
        job = Job(stack.plane(z), region)
        hidden = None if gaps is None else gaps[number, rows, columns]
        original = source.read(job.index, kept)
        one = Batch([job], [kept], [original], scales=[scale], gaps=[hidden])
        changed = change[number, rows, columns].numpy()
        write_tile(one, 0, changed, target, plan.options.strength, report)


def _read(
    source: Planes, stack: Stack, window: Block, scale: IntensityScale
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Read what a network sees of a window: (D, h, w, C), and where its gaps are."""
    deep, rows, columns = window
    region = Region(rows.start, columns.start, rows.stop, columns.stop)
    places = range(rows.start, rows.stop), range(columns.start, columns.stop)
    depth = deep.stop - deep.start
    planes: NDArray[np.float32] | None = None
    masks: NDArray[np.bool_] | None = None
    for number, z in enumerate(range(deep.start, deep.stop)):
        check()
        block = source.read(stack.plane(z), region)
        seen, gaps = as_seen(block, scale, source.layout, *places)
        # Filled one by one: a list of planes would be there beside them.
        if planes is None:
            planes = np.empty((depth, *seen.shape), np.float32)
        planes[number] = seen
        if gaps is not None:
            if masks is None:
                masks = np.zeros(planes.shape, bool)
            masks[number] = gaps
    assert planes is not None
    return planes, masks


def _kernels(psf: PSF, plan: Plan, planes: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Point spread functions that some planes have, and the weight of each in every plane."""
    slabs = psf.by_depth
    if not slabs:
        return [(_kernel(psf, plan), torch.ones(len(planes)))]
    places, z = [plane for plane, _ in slabs], np.array(planes)
    found = []
    for number, (_, array) in enumerate(slabs):
        weight = np.interp(z, places, np.eye(len(slabs))[number]).astype(np.float32)
        if weight.any():
            found.append((torch.from_numpy(array.copy()), torch.from_numpy(weight)))
    return found


def _kernel(psf: PSF, plan: Plan) -> torch.Tensor:
    array = psf.array
    # One that was not found changes nothing, in any dimensions.
    return torch.from_numpy(array[None].copy() if array.ndim < plan.dimensions else array.copy())


def _change(
    seen: torch.Tensor,
    gaps: NDArray[np.bool_] | None,
    plan: Plan,
    facts: Facts,
    stack: Stack,
    first: int,
    device: str,
) -> torch.Tensor:
    """Find what is to be changed in (D, h, w, C): the same shape, on the CPU."""
    use_threads_of_worker()
    apply_threads()
    group = plan.layout.group(stack.index)
    method = method_of(plan, facts, group, device)
    # The one that was found to fit, which is not always the one that was told.
    psf = facts.blurs[group].psf or plan.psf(group)
    image = seen.movedim(-1, 0).to(device)
    light = to_linear(image) if plan.linear else image
    trusted = torch.ones_like(image) if gaps is not None or plan.linear else None
    if trusted is not None and gaps is not None:
        trusted[torch.from_numpy(gaps).movedim(-1, 0).to(device)] = 0
    if trusted is not None and plan.linear:
        trusted[image >= FULL] = 0
    out = torch.zeros_like(image)
    with torch.inference_mode():
        for kernel, weights in _kernels(psf, plan, range(first, first + len(seen))):
            there = weights.nonzero()[:, 0]
            # As far as planes reach that have this one.
            start = max(0, int(there[0]) - plan.margins[0])
            part = slice(start, int(there[-1]) + 1 + plan.margins[0])
            share, told = weights[part, None, None].to(device), kernel.to(device)
            for channel, samples in enumerate(light):
                believed = None if trusted is None else trusted[channel, part]
                out[channel, part].addcmul_(share, method(samples[part], told, believed))
        if plan.linear:
            out.copy_(to_srgb(out))
        # In place: blocks are large, and what was made in inference mode may not be changed later.
        out.sub_(image).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return out.cpu().movedim(0, -1)


# ---------------------------------------------------------------- methods


@lru_cache(maxsize=4)
def _network(device: str) -> VolumeInverter:
    spec = VOLUME_INVERTER
    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_state(spec.path, spec.sha256))
    return cast("VolumeInverter", network.eval().to(device))


def method_of(plan: Plan, facts: Facts, group: int, device: str) -> Method:
    """Choose the method of a plan for a channel, with what was found of its light."""
    light, noise = facts.lights[group], facts.blurs[group].noise
    scale, momenta = Scale(1.0, light.pedestal), light.momenta or None
    if plan.options.method == "network":
        network, level = _network(device), torch.tensor(noise, device=device)

        def learned(
            image: torch.Tensor, kernel: torch.Tensor, trusted: torch.Tensor | None
        ) -> torch.Tensor:
            restored: torch.Tensor = network(image, kernel, level, scale, momenta, trusted)
            return restored

        return learned
    classical = Wiener(noise) if plan.options.method == "wiener" else _steps(plan, momenta)

    def run(
        image: torch.Tensor, kernel: torch.Tensor, trusted: torch.Tensor | None
    ) -> torch.Tensor:
        if kernel.ndim == 3:
            return classical(image, kernel, scale, trusted)
        return classical(image[0], kernel, scale, None if trusted is None else trusted[0])[None]

    return run


def _steps(plan: Plan, momenta: tuple[float, ...] | None = None) -> RichardsonLucy:
    if plan.options.method == "network":
        return RichardsonLucy(VOLUME_STAGES[-1], momenta=momenta)
    return RichardsonLucy(momenta=momenta)


def find_in_space(planes: Planes, plan: Plan, scales: tuple[IntensityScale, ...]) -> Facts:
    """Find noise and light of each channel, for volumes and classical methods."""
    layout, blurs, lights = planes.layout, [], []
    for channel in range(layout.groups):
        tell(0, layout.pixels, "Looking at the noise")
        plane = SeenPlane(planes, middle_plane(layout, channel), scales[channel])
        window = next(iter(rich_windows(plane, LOOKED_AT, 1, check)))
        noise = noise_level(window.samples)
        near = plane.inside.top + window.top, plane.inside.left + window.left
        light = _sample(planes, plan, scales, channel, near)
        values = light.numpy()[:, :: 1 + light.shape[1] // 64, :: 1 + light.shape[2] // 64]
        pedestal = max(0.0, -2 * float(np.percentile(values, 0.5)))
        blur = _look(light, plan, channel, noise, pedestal)
        blurs.append(blur)
        lights.append(_find_light(light, blur.psf or plan.psf(channel), plan, pedestal))
    return Facts(scales, blurs=tuple(blurs), lights=tuple(lights))


def _look(light: torch.Tensor, plan: Plan, group: int, noise: float, pedestal: float) -> Blur:
    """See whether the image is sharper than optics that were told allow."""
    psf = plan.psf(group)
    told = Blur(psf, noise, "given" if psf else "unknown", psf.found)
    # What was measured is believed.
    others = narrower(psf, plan.layout, plan.options.pixel_size) if plan.dimensions == 3 else ()
    if not others:
        return told
    apply_threads()
    with torch.inference_mode():
        if not is_too_wide(light, [each.array for each in (psf, *others)], pedestal):
            return told
    fit = others[0]
    assert fit.optics is not None
    doubt = TOO_WIDE.format(na=fit.optics.na)
    said = f"{psf.found} {doubt}"
    return Blur(replace(fit, found=said), noise, "narrowed", said, doubt=doubt)


def _sample(
    planes: Planes,
    plan: Plan,
    scales: Sequence[IntensityScale],
    group: int,
    near: tuple[int, int],
) -> torch.Tensor:
    """Read the part of a channel in which is found what all of its blocks have in common.

    Parameters
    ----------
    planes : Planes
        The whole image.
    plan : Plan
    scales : sequence of Scale
    group : int
        Number of the channel.
    near : (int, int)
        Row and column of a place with structure.
    """
    layout, scale = planes.layout, scales[group]
    middle = tuple(
        slice(group, group + 1)
        if letter == "C"
        else slice((length - 1) // 2, (length - 1) // 2 + 1)
        for letter, length in zip(layout.axes, layout.shape, strict=True)
    )
    stack, _ = next(stacks(layout, middle, plan.dimensions))
    starts = (max(0, (stack.depth - SAMPLE[0]) // 2), *near)
    window = tuple(
        slice(min(start, max(0, n - want)), min(start, max(0, n - want)) + min(n, want))
        for start, n, want in zip(
            starts, (stack.depth, *layout.size), (SAMPLE[0], SAMPLE[1], SAMPLE[1]), strict=True
        )
    )
    seen, _ = _read(planes, stack, window, scale)
    image = torch.from_numpy(seen).movedim(-1, 0).mean(0)
    return to_linear(image) if plan.linear else image


def _find_light(light: torch.Tensor, psf: PSF, plan: Plan, pedestal: float) -> Light:
    if plan.options.method == "wiener":
        return Light(pedestal)
    kernel = _kernel(psf, plan)
    apply_threads()
    with torch.inference_mode():
        sample = light if kernel.ndim == 3 else light[0]
        return Light(pedestal, _steps(plan).found_momenta(sample, kernel, Scale(1.0, pedestal)))
