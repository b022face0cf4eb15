"""How far to trust a result: what can be said of it without the truth, and with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_restore.analysis.find import noise_level, rich_windows
from napari_restore.errors import ImageError, RestoreError
from napari_restore.image.intensity import Scale, as_seen, sample_regions
from napari_restore.image.layout import Layout, Planes, Region, find_layout
from napari_restore.models.catalog import CATALOG
from napari_restore.restoration.given_psf import find_pixel_size
from napari_restore.restoration.plan import (
    Blur,
    Facts,
    Options,
    make_plan,
    measure_blur,
    scales_of,
)
from napari_restore.restoration.psf_search import SeenPlane
from napari_restore.restoration.run import find_facts
from napari_restore.runtime import Watch, tell, torch
from napari_restore.runtime import check as look

from .agreement import calibrations, find_agreement, likely_error
from .check_report import Check
from .likeness import SIDE, likeness
from .metrics import SSIM_WINDOW, affine_fit, ms_ssim, psnr, ssim
from .resolution import (
    FINEST_PEAK,
    FINEST_RING,
    LEAST_SIDE,
    decorrelation_resolution,
    ring_resolution,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_restore.restoration.plan import Plan
    from napari_restore.runtime import Progress

    from .agreement import Agreement

    Array = NDArray[np.float32]

#: Most pixels of the plane that are checked: each is restored ten times.
MOST = 2**20
#: Least side of an image in pixels of which anything can be said.
LEAST = 32
#: Share of the contrast that an error has to exceed to count as disagreement.
_MUCH = 0.1
#: Most that re-blurring may leave, in units of the noise, and its correlation; local root mean
#: square above which a place is not explained.
_RATIO, _CORRELATION, _LOCALLY = 1.3, 0.12, 2.0
#: Noise that rounding to 8 bits leaves, in the range that networks see.
_ROUNDING = 1 / 255 / np.sqrt(12)
#: Windows that are compared with what a model learned from, and samples that light is counted in.
_WINDOWS, _COUNTED = 6, 2**22
#: Widths in pixels of the Gaussians whose differences are bands, and the period of each.
_BANDS = ((0.4, 3), (0.8, 6), (1.6, 12), (3.2, 24))


def check(
    image: Any,
    result: Any,
    *,
    reference: Any = None,
    provenance: Mapping[str, Any] | None = None,
    task: str | None = None,
    axes: str | None = None,
    rgb: bool | None = None,
    index: Sequence[int] | None = None,
    region: Sequence[int] | None = None,
    pixel_size: Any = None,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Check:
    """Say how far to trust a result.

    Parameters
    ----------
    image, result : array
        What was restored, and its result, of the same shape. NumPy, dask or zarr.
    reference : array, optional
        The truth, of the same shape: results are compared with it after registration by whole and
        parts of pixels and an affine fit of the intensities.
    provenance : mapping, optional
        How the result was made, as ``layer.metadata["napari_restore"]`` and files say it.
    task : str, optional
        Instead of a provenance, what was done; ``options`` are then those of `restore`. Without
        either, what needs the model is left out.
    axes, rgb
        As for `restore`.
    index : sequence of int, optional
        Plane to look at, over the axes before it; the middle one without it.
    region : (top, left, bottom, right), optional
        What to look at, in pixels. By default the whole plane; if that is large, the part of about
        a million pixels with the most structure. If the region is larger, its center is taken.
    pixel_size : length, optional
        Side of a pixel, "65 nm" or 0.065 (µm): resolution is then also given in µm.
    device : str
    progress : callable, optional
        As for `restore`.
    **options
        As for `restore`, if a task is given.

    Returns
    -------
    Check

    Raises
    ------
    RestoreError
        If the arrays do not fit each other, or hold nothing that can be compared.

    Notes
    -----
    A model restores the region turned and mirrored in eight ways, and twice with more noise. How
    errors follow from that was measured on held-out images, see the documentation's page on trust.
    """
    if provenance is not None and not isinstance(provenance, Mapping):
        raise RestoreError(f"provenance must be a mapping; got {type(provenance).__name__}.")
    layout = _layout(image, result, reference, axes or (provenance or {}).get("axes"), rgb)
    if task is None and options:
        raise RestoreError(
            f"Option '{next(iter(options))}' belongs to a task. Name it: task='deblur', say."
        )
    return Watch(progress).run(
        _checked,
        _Asked(
            image if hasattr(image, "chunks") else np.asarray(image),
            result if hasattr(result, "chunks") else np.asarray(result),
            reference,
            layout,
            dict(provenance or {}),
            task,
            {"device": device, **options},
            find_pixel_size(pixel_size),
        ),
        index,
        region,
    )


@dataclass(frozen=True)
class _Asked:
    image: Any
    result: Any
    reference: Any
    layout: Layout
    provenance: dict[str, Any]
    task: str | None
    options: dict[str, Any]
    pixel_size: tuple[float, ...] | None


def _layout(image: Any, result: Any, reference: Any, axes: str | None, rgb: bool | None) -> Layout:
    named = {"image": image, "result": result}
    if reference is not None:
        named["reference"] = reference
    for name, array in named.items():
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise ImageError(f"The {name} must be an array; got {type(array).__name__}.")
        if tuple(array.shape) != tuple(image.shape):
            color = (
                " One of them is color." if abs(len(array.shape) - len(image.shape)) == 1 else ""
            )
            raise ImageError(
                f"The {name} has the shape {tuple(array.shape)} and the image "
                f"{tuple(image.shape)}: they must be the same.{color} Choose the image that the "
                "result was made from."
            )
    layout = find_layout(image, axes, rgb)
    find_layout(result, layout.axes)
    if not layout.pixels or min(layout.size) < LEAST:
        raise ImageError(
            f"An image of {layout.size[0]} × {layout.size[1]} pixels shows too little to check; "
            f"both sides must have {LEAST} or more."
        )
    return layout


def _checked(asked: _Asked, index: Sequence[int] | None, region: Sequence[int] | None) -> Check:
    layout, notes = asked.layout, list[str]()
    plan = _plan(asked, notes)
    if plan is not None:
        # Two frames need to know which axis is time.
        layout = plan.layout
    planes = Planes(asked.image, layout)
    place = _index(layout, index)
    tell(0, 1, "Looking at the image")
    scales = scales_of(planes, plan)
    scale = scales[layout.group(place)]
    part = _region(planes, place, scale, region)
    if part.pixels < layout.pixels:
        notes.append(
            f"Checked: {part.height} × {part.width} pixels of {layout.planes} "
            f"plane{'s' if layout.planes > 1 else ''} of {layout.size[0]} × {layout.size[1]}."
        )
    rows, columns = range(part.top, part.bottom), range(part.left, part.right)
    blocks = [Planes(array, layout).read(place, part) for array in (asked.image, asked.result)]
    if not all(np.isfinite(block[..., : layout.channels]).any() for block in blocks):
        raise ImageError("No sample of the region is finite in image and result: nothing to check.")
    if scale.span == 0:
        raise ImageError("The image is constant: there is nothing to check.")
    seen, restored = (as_seen(block, scale, layout, rows, columns)[0] for block in blocks)
    contrast = max(float(np.subtract(*np.percentile(restored, (98, 2)))), 1e-6)
    level = max(noise_level(seen), _ROUNDING if blocks[0].dtype.itemsize == 1 else 1e-5)
    figures: dict[str, dict[str, Any]] = {}
    pictures: dict[str, Any] = {"before": seen, "after": restored}
    same = bool(np.array_equal(blocks[0], blocks[1], equal_nan=blocks[0].dtype.kind == "f"))
    if same:
        notes.append("The result equals the image bit for bit in what was checked.")

    facts = None if plan is None else _facts(asked, plan, scales)
    residual = _explain(seen, restored, level, plan, facts, layout.group(place), figures, notes)
    pictures["residual"] = residual
    error: Array | None = None
    meaning = ""
    calibration = _calibration(plan, facts, layout.group(place), notes)
    if plan is not None and facts is not None and not plan.in_space:
        found = find_agreement(asked.image, plan, facts, place, part)
        error = _agree(found, restored, calibration, plan, contrast, figures, notes, pictures)
        meaning = "± at 68 %"
    if error is None:
        error = (residual * level).astype(np.float32)
        meaning = "what the result does not explain"
    if calibration is not None:
        _liken(planes, place, scale, calibration, figures)
    look()
    tell(1, 1, "Measuring resolution and light")
    side = asked.pixel_size or (None if plan is None else plan.pixel_size)
    _resolve(seen, restored, side, figures, notes)
    _count(asked, layout, figures)
    _appearance(seen, restored, figures)
    if plan is not None and facts is not None and not plan.in_space:
        before, after = (
            measure_blur(array, plan, scales, (place, part))
            for array in (asked.image, asked.result)
        )
        if before is not None:
            figures["blur"] = {
                "before_sigma_px": round(before.sigma, 2),
                "after_sigma_px": None if after is None else round(after.sigma, 2),
            }
    if asked.reference is not None:
        truth = Planes(asked.reference, layout).read(place, part)[..., : layout.channels]
        _compare(blocks, truth, layout.channels, figures, notes)
    else:
        notes.append("No reference was given: no figure says how near the result is to the truth.")
    units, made = float(scale.span), asked.provenance
    if not made and plan is not None:
        made = {"task": plan.spec.task, "model": _name(plan, facts)}
    return Check(
        _sentences(figures, contrast, same),
        np.asarray(error * units, np.float32),
        meaning,
        place,
        (part.top, part.left, part.bottom, part.right),
        figures | {"image": {"contrast": contrast * units, "noise": level * units}},
        tuple(notes),
        made,
        pictures | {"error": error},
    )


def _index(layout: Layout, index: Sequence[int] | None) -> tuple[int, ...]:
    lengths = [layout.shape[axis] for axis in layout.leading]
    if index is None:
        letters = [layout.axes[axis] for axis in layout.leading]
        return tuple(
            0 if letter == "C" else (length - 1) // 2
            for letter, length in zip(letters, lengths, strict=True)
        )
    if len(index) != len(lengths) or any(
        not 0 <= i < n for i, n in zip(index, lengths, strict=False)
    ):
        raise ImageError(
            f"index {tuple(index)} is not a plane: the image has {lengths} planes along the axes "
            "before the plane."
        )
    return tuple(int(i) for i in index)


def _region(
    planes: Planes, index: tuple[int, ...], scale: Scale, region: Sequence[int] | None
) -> Region:
    height, width = planes.layout.size
    side = int(MOST**0.5)
    if region is None:
        if height * width <= MOST:
            return Region(0, 0, height, width)
        plane = SeenPlane(planes, index, scale)
        window = rich_windows(plane, side, 1, look)[0]
        top, left = plane.inside.top + window.top, plane.inside.left + window.left
        tall, wide = window.samples.shape[:2]
        return Region(top, left, top + tall, left + wide)
    top, left, bottom, right = (int(value) for value in region)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ImageError(
            f"region {tuple(region)} (top, left, bottom, right) does not lie in the plane of "
            f"{height} × {width} pixels."
        )
    if min(bottom - top, right - left) < LEAST:
        # What is around it is looked at too.
        top, left = max(0, min(top, height - LEAST)), max(0, min(left, width - LEAST))
        bottom, right = max(bottom, top + LEAST), max(right, left + LEAST)
    if (bottom - top) * (right - left) > MOST:
        tall, wide = min(side, bottom - top), min(side, right - left)
        top, left = (top + bottom - tall) // 2, (left + right - wide) // 2
        bottom, right = top + tall, left + wide
    return Region(top, left, bottom, right)


# ---------------------------------------------------------------- how the result was made


def _plan(asked: _Asked, notes: list[str]) -> Plan | None:
    record, layout = asked.provenance, asked.layout
    if asked.task is not None:
        return make_plan(asked.image, Options.of(asked.task, asked.options), axes=layout.axes)
    if "task" not in record:
        notes.append(
            "How the result was made is not known: agreement, likeness and blur were not checked. "
            "Give its provenance, or the task and options."
        )
        return None
    blurs = _blurs(record)
    model = str(record.get("model", "auto"))
    known = {spec.name for spec in CATALOG}
    options: dict[str, Any] = {
        "device": asked.options["device"],
        "model": "auto" if blurs or (model not in known and not Path(model).suffix) else model,
        "strength": record.get("strength", 1.0),
        "frames": record.get("frames", 1),
        "structure_size": record.get("structure_size"),
        "invalid_value": record.get("invalid_value"),
        "keep_range": record.get("keep_range"),
        "psf": next((blur.psf for blur in blurs if blur.psf is not None), "none"),
    }
    if record.get("dimensions") == 3 or record.get("method"):
        how = "as a volume" if record.get("dimensions") == 3 else f"by {record['method']}"
        notes.append(
            f"It was restored {how}: agreement and likeness are checked only for networks that "
            "restore plane by plane."
        )
        return None
    if options["frames"] == 2 and record.get("exposure_found") is False:
        options["exposure"] = record.get("exposure")
    try:
        return make_plan(asked.image, Options.of(record["task"], options), axes=layout.axes)
    except RestoreError as error:
        notes.append(f"The restoration cannot be repeated, so agreement was not checked: {error}")
        return None


def _blurs(record: Mapping[str, Any]) -> tuple[Blur, ...]:
    stored = record.get("psf")
    if not stored:
        return ()
    each = stored if isinstance(stored, list) else [stored]
    return tuple(Blur.from_record(one) for one in each if "noise" in one)


def _facts(asked: _Asked, plan: Plan, scales: tuple[Scale, ...]) -> Facts:
    record = asked.provenance
    if "task" not in record:
        return find_facts(asked.image, plan, scales)
    exposure = None
    if plan.spec.frames == 2:
        exposure = 0.0 if record.get("frames_used") == 1 else record.get("exposure")
        if exposure is None:
            return find_facts(asked.image, plan, scales)
    return Facts(scales, exposure, _blurs(record))


def _blur_of(facts: Facts | None, channel: int) -> Blur | None:
    if facts is None or not facts.blurs:
        return None
    return facts.blurs[channel if len(facts.blurs) > 1 else 0]


def _name(plan: Plan, facts: Facts | None, channel: int = 0) -> str:
    blur = _blur_of(facts, channel)
    told = blur is not None and blur.psf is not None
    return plan.inverter.name if told and plan.inverter is not None else plan.spec.name


def _calibration(
    plan: Plan | None, facts: Facts | None, channel: int, notes: list[str]
) -> Mapping[str, Any] | None:
    if plan is None:
        return None
    name = _name(plan, facts, channel)
    spec = plan.inverter if plan.inverter is not None and name == plan.inverter.name else plan.spec
    found: Mapping[str, Any] | None = calibrations().get(name)
    if found is None:
        notes.append(f"Model '{name}' is not calibrated: the size of its errors is not known.")
    elif found["weights_sha256"] != spec.sha256:
        notes.append(f"'{name}' was calibrated with other weights: take ± as a rough guide.")
    return found


# ---------------------------------------------------------------- what is found


def _explain(
    seen: Array,
    restored: Array,
    level: float,
    plan: Plan | None,
    facts: Facts | None,
    channel: int,
    figures: dict[str, dict[str, Any]],
    notes: list[str],
) -> Array:
    """Find what the degradation of the result leaves of the image, in units of the noise."""
    blur = _blur_of(facts, channel)
    linear = plan is not None and plan.linear and blur is not None and blur.psf is not None
    if linear:
        from napari_restore.physics.camera import to_linear

        seen, restored = (to_linear(torch.from_numpy(part)).numpy() for part in (seen, restored))
        level = max(noise_level(seen), 1e-4)
    if plan is not None and plan.spec.task == "dehaze":
        rest, how = (
            seen - _hazed(seen, restored),
            "hazed again, by a gain and an offset around each place",
        )
    elif plan is not None and plan.spec.task == "denoise":
        rest, how = seen - restored, "as it is: what was taken away should be noise alone"
    elif blur is not None and blur.psf is not None:
        rest, how = (
            seen - _convolved(restored, blur.psf.array),
            f"blurred again by {blur.psf.size_text}",
        )
    else:
        motion = plan is not None and plan.spec.task == "motion_deblur"
        kernel, how = _best_kernel(seen, restored, motion)
        rest = seen - _convolved(restored, kernel)
        notes.append("No point spread function is known: the blur that fits best was taken.")
    edge = min(16, min(rest.shape[:2]) // 4)
    inner = rest[edge:-edge, edge:-edge]
    inner = inner - inner.mean((0, 1))
    power = max(float((inner**2).mean()), 1e-16)
    products = [
        (inner[lag:] * inner[:-lag]).mean() + (inner[:, lag:] * inner[:, :-lag]).mean()
        for lag in (1, 2)
    ]
    local = np.sqrt(ndimage.gaussian_filter((inner**2).mean(-1), 2)) / level
    figures["re-blur"] = {
        "how": how,
        "ratio_to_noise": round(power**0.5 / level, 2),
        "correlation": round(float(np.sum(products)) / 4 / power, 3),
        "unexplained_share": round(float((local > _LOCALLY).mean()), 4),
    }
    scaled: Array = (np.sqrt((rest**2).mean(-1)) / level).astype(np.float32)
    return scaled


def _hazed(seen: Array, restored: Array) -> Array:
    """Gain and offset around each place that bring the result nearest to what was seen."""
    width = 8.0

    def mean(part: Array) -> Array:
        return np.stack(
            [ndimage.gaussian_filter(part[..., c], width) for c in range(part.shape[-1])], -1
        )

    centers = mean(restored), mean(seen)
    spread = mean(restored * restored) - centers[0] ** 2
    both = mean(restored * seen) - centers[0] * centers[1]
    gain = both / np.maximum(spread, 1e-8)
    hazed: Array = centers[1] + mean(gain) * (restored - centers[0])
    return hazed


def _convolved(image: Array, kernel: NDArray[Any]) -> Array:
    from scipy.signal import fftconvolve

    half = [side // 2 for side in kernel.shape]
    padded = np.pad(image, [(half[0],) * 2, (half[1],) * 2, (0, 0)], mode="symmetric")
    blurred: Array = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred.astype(np.float32)


def _best_kernel(seen: Array, restored: Array, motion: bool) -> tuple[NDArray[Any], str]:
    """Gaussian, or line where things moved, that leaves the least of what was seen."""
    from napari_restore.physics.motion import kernel as of_path
    from napari_restore.physics.motion import line
    from napari_restore.physics.psf import gaussian

    top, left = ((length - min(256, length)) // 2 for length in seen.shape[:2])
    part = np.s_[top : top + 256, left : left + 256]
    one, other = seen[part].mean(-1, keepdims=True), restored[part].mean(-1, keepdims=True)
    edge = min(24, min(one.shape[:2]) // 4)

    def unexplained(kernel: NDArray[Any]) -> float:
        look()
        rest = one - _convolved(other, kernel)
        return float((rest[edge:-edge, edge:-edge] ** 2).mean())

    sigma = 0.0
    for step in (0.4, 0.05):
        near = sigma + step * np.arange(-8, 11)
        sigma = min(near[near >= 0], key=lambda width: unexplained(gaussian(width)))
    best = gaussian(sigma), f"blurred again by a Gaussian of σ {sigma:.1f} px"
    if sigma < 0.1:
        best = np.ones((1, 1), np.float32), "as it is"
    if not motion:
        return best
    lines = [
        (
            of_path(line(length, angle)),
            f"blurred again along a line of {length} px at {np.degrees(angle):.0f}°",
        )
        for length in (3, 5, 8, 12, 17, 23)
        for angle in np.arange(8) * np.pi / 8
    ]
    return min([best, *lines], key=lambda tried: unexplained(tried[0]))


def _agree(
    found: Agreement,
    restored: Array,
    calibration: Mapping[str, Any] | None,
    plan: Plan,
    contrast: float,
    figures: dict[str, dict[str, Any]],
    notes: list[str],
    pictures: dict[str, Any],
) -> Array | None:
    expected = found.seen + plan.options.strength * (found.restored - found.seen)
    off = float(np.sqrt(np.mean((expected - restored) ** 2)))
    if off > max(0.02 * contrast, 0.01):
        notes.append(
            "The model now gives another result than this one: agreement is that of the model. The "
            "result was changed, or made with other weights or options."
        )
    if plan.options.strength != 1:
        notes.append("± is for full strength.")
    pictures["turns"] = found.turns
    figures["agreement"] = {
        "turned_and_mirrored_share_of_contrast": round(_rms(found.turns) / contrast, 4),
        "other_noise_share_of_contrast": round(_rms(found.noise) / contrast, 4),
        "repeated_share_of_contrast": round(off / contrast, 4),
    }
    if calibration is None:
        return None
    error = likely_error(found, calibration)
    figures["agreement"] |= {
        "error_share_of_contrast": round(float(np.median(error)) / contrast, 4),
        "error_in_worst_tenth": round(float(np.quantile(error, 0.9)) / contrast, 4),
        "disagreeing_share": round(float((error > _MUCH * contrast).mean()), 4),
        "guessed_below_px": _guessed_below(found, error),
    }
    return error


def _rms(part: Array) -> float:
    return float(np.sqrt(np.mean(np.square(part, dtype=np.float64))))


def _guessed_below(found: Agreement, error: Array) -> int:
    """Period in pixels below which the model's own disagreement is as strong as the detail."""
    factor = max(1.0, _rms(error) / max(_rms(found.turns), 1e-9))
    gray, deviations = found.restored.mean(-1), found.deviations.mean(-1)

    def band(part: Array, sigma: float) -> Array:
        fine: Array = ndimage.gaussian_filter(part, sigma)
        fine -= ndimage.gaussian_filter(part, 2 * sigma)
        return fine

    below = 0
    for sigma, period in _BANDS:
        signal = _rms(band(gray, sigma))
        doubt = _rms(np.stack([band(part, sigma) for part in deviations[::2]]))
        if signal > factor * doubt:
            break
        below = period
    return below


def _liken(
    planes: Planes,
    index: tuple[int, ...],
    scale: Scale,
    calibration: Mapping[str, Any],
    figures: dict[str, dict[str, Any]],
) -> None:
    if "likeness" not in calibration:
        return
    windows = rich_windows(SeenPlane(planes, index, scale), SIDE, _WINDOWS, look)
    found = likeness([window.samples for window in windows], calibration["likeness"])
    figures["likeness"] = {
        "distance": round(found.distance, 2),
        "unlike": found.unlike,
        "strange": list(found.strange),
        "windows": found.windows,
    }


def _resolve(
    seen: Array,
    restored: Array,
    pixel_size: tuple[float, ...] | None,
    figures: dict[str, dict[str, Any]],
    notes: list[str],
) -> None:
    if min(seen.shape[:2]) < LEAST_SIDE:
        notes.append(f"Below {LEAST_SIDE} pixels a side, resolution is not measured.")
        return
    group: dict[str, Any] = {}
    side = None if pixel_size is None else float(np.mean(pixel_size[-2:]))
    for when, part in (("before", seen), ("after", restored)):
        gray = rich_windows(part, 512, 1, look)[0].samples.mean(-1)
        finest = decorrelation_resolution(gray)
        ring = ring_resolution(gray)
        # Halves of the image cannot show what is finer, and mix it up.
        aliased = finest is not None and finest < FINEST_RING
        ring = FINEST_RING if aliased else ring
        for name, value, least in (
            ("ring_correlation", ring, FINEST_RING),
            ("decorrelation", finest, FINEST_PEAK),
        ):
            text = (
                "not found" if value is None else f"{'≤ ' if value <= least else ''}{value:.1f} px"
            )
            if value is not None and side is not None:
                text += f" ({value * side:.3g} µm)"
            group[f"{name}_{when}"] = text
    figures["resolution"] = group


def _count(asked: _Asked, layout: Layout, figures: dict[str, dict[str, Any]]) -> None:
    """Light, range, and samples at or beyond the ends."""
    sums, counts = np.zeros(2), {"clipped": 0, "below": 0, "above": 0, "samples": 0}
    ends = [[np.inf, -np.inf], [np.inf, -np.inf]]
    for only_range in (True, False):
        for index, region in sample_regions(layout, _COUNTED):
            look()
            parts = [
                Planes(array, layout).read(index, region)[..., : layout.channels]
                for array in (asked.image, asked.result)
            ]
            valid = np.isfinite(parts[0]) & np.isfinite(parts[1])
            if not valid.any():
                continue
            before, after = (part[valid] for part in parts)
            if only_range:
                for end, part in zip(ends, (before, after), strict=True):
                    end[:] = min(end[0], float(part.min())), max(end[1], float(part.max()))
                continue
            sums += [before.sum(dtype=np.float64), after.sum(dtype=np.float64)]
            counts["samples"] += before.size
            counts["below"] += int((after < ends[0][0]).sum())
            counts["above"] += int((after > ends[0][1]).sum())
            if after.dtype.kind in "iu":
                limits = np.iinfo(after.dtype)
                at = (after == limits.max) & (before != limits.max)
                at |= (after == limits.min) & (before != limits.min)
                counts["clipped"] += int(at.sum())
    figures["light"] = {
        "sum_before": float(sums[0]),
        "sum_after": float(sums[1]),
        "ratio": round(float(sums[1] / sums[0]), 5) if sums[0] else None,
        "range_before": [float(value) for value in ends[0]],
        "range_after": [float(value) for value in ends[1]],
        "samples_at_an_end_that_were_not": counts["clipped"],
        "samples_below_the_image": counts["below"],
        "samples_above_the_image": counts["above"],
        "samples_counted": counts["samples"],
    }


def _appearance(seen: Array, restored: Array, figures: dict[str, dict[str, Any]]) -> None:
    """No-reference figures: they say how an image looks, not whether it is true."""
    group = {}
    for when, part in (("before", seen), ("after", restored)):
        gray = part.mean(-1)
        slopes = np.hypot(*np.gradient(gray))
        mean = max(float(slopes.mean()), 1e-9)
        group[f"noise_{when}"] = round(noise_level(part), 5)
        group[f"mean_gradient_{when}"] = round(mean, 5)
        group[f"gradient_sparsity_{when}"] = round(_rms(slopes) / mean, 3)
    figures["no-reference figures"] = group


def _compare(
    blocks: list[NDArray[Any]],
    truth: NDArray[Any],
    channels: int,
    figures: dict[str, dict[str, Any]],
    notes: list[str],
) -> None:
    from skimage.registration import phase_cross_correlation

    target = np.nan_to_num(truth.astype(np.float64))
    low, high = np.percentile(target, (0.5, 99.9))
    if high <= low:
        notes.append("The reference is constant, so it was not used.")
        return
    group: dict[str, Any] = {}
    for when, block in zip(("before", "after"), blocks, strict=True):
        look()
        part = np.nan_to_num(block[..., :channels].astype(np.float64))
        shift = phase_cross_correlation(
            target.mean(-1), part.mean(-1), upsample_factor=20, normalization=None
        )[0]
        margin = int(np.ceil(np.abs(shift).max())) + 1
        if margin > min(part.shape[:2]) // 4:
            shift, margin = np.zeros(2), 0
        moved = part
        if np.abs(shift).max() >= 0.05:
            moved = ndimage.shift(part, (*shift, 0), order=3, mode="nearest")
        keep = np.s_[margin : part.shape[0] - margin, margin : part.shape[1] - margin]
        fitted = affine_fit(moved[keep], target[keep])
        span = float(high - low)
        group[f"shift_{when}_px"] = [round(float(value), 2) for value in shift]
        group[f"psnr_{when}_as_it_is_db"] = _db(psnr(part, target, span))
        group[f"psnr_{when}_db"] = _db(psnr(fitted, target[keep], span))
        if min(fitted.shape[:2]) >= SSIM_WINDOW:
            group[f"ssim_{when}"] = round(ssim(fitted, target[keep], span), 4)
            group[f"ms_ssim_{when}"] = round(ms_ssim(fitted, target[keep], span), 4)
    figures["against the reference"] = group
    notes.append(
        "Figures against the reference hold after registration and an affine fit of the "
        "intensities, except those marked “as it is”."
    )


def _db(value: float) -> float:
    return round(min(value, 100.0), 2)


# ---------------------------------------------------------------- in words


def _sentences(
    figures: Mapping[str, Mapping[str, Any]], contrast: float, same: bool
) -> tuple[str, str, str]:
    agreement, rest = figures.get("agreement", {}), figures["re-blur"]
    if same:
        first = "Nothing was changed in what was checked: the result is as true as the image."
    elif "error_share_of_contrast" in agreement:
        size, worst = agreement["error_share_of_contrast"], agreement["error_in_worst_tenth"]
        below = agreement["guessed_below_px"]
        what = (
            f"Trust the outlines; texture below {below} px is a guess"
            if below
            else "The model agrees with itself down to the finest detail"
        )
        first = (
            f"{what}; errors are likely to be within ±{size:.1%} of the contrast, and more than "
            f"±{worst:.1%} in a tenth of the area."
        )
    elif agreement:
        size = agreement["turned_and_mirrored_share_of_contrast"]
        first = (
            f"Turned and mirrored, the model differs from itself by {size:.1%} of the contrast; "
            "how large its errors are is not known."
        )
    else:
        first = "How far the result can be trusted is not known: no model could be asked again."
    fits = rest["ratio_to_noise"] <= _RATIO or (
        rest["ratio_to_noise"] <= 1.5 * _RATIO and rest["correlation"] <= _CORRELATION
    )
    second = (
        f"The result, {rest['how']}, "
        + ("explains the image: it leaves" if fits else "does not explain the image: it leaves")
        + f" {rest['ratio_to_noise']:.1f} times the noise"
        + (f", most of it in {rest['unexplained_share']:.0%} of the area." if not fits else ".")
    )
    parts = []
    if "likeness" in figures:
        if figures["likeness"]["unlike"]:
            strange = " and ".join(figures["likeness"]["strange"])
            parts.append(
                "The image is unlike those that the model learned from"
                + (f" ({strange})" if strange else "")
                + ": do not rely on the result, nor on ±"
            )
        else:
            parts.append("The image is like those that the model learned from")
    unlike = figures.get("likeness", {}).get("unlike", False)
    if "disagreeing_share" in agreement and not unlike:
        share = agreement["disagreeing_share"]
        where = f"in {share:.0%} of the area" if share >= 0.005 else "hardly anywhere"
        parts.append(f"errors above a tenth of the contrast are likely {where}")
    third = "; ".join(parts) or "Whether the image suits the model was not checked"
    return first, second, third[0].upper() + third[1:] + "."
