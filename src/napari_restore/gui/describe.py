"""What a run will do and how long it will take, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.settings import get_settings

from napari_restore.restoration.run import ALONE

from .jobs import side_of_pixel
from .layers import METADATA_KEY
from .region import channels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Image

    from .jobs import LayerJob
    from .rates import Rates


#: Classical methods by their names.
_CLASSICAL = {"richardson-lucy": "Richardson–Lucy", "wiener": "Wiener filter"}


def title(jobs: Sequence[LayerJob]) -> str:
    """Name of the layer, or how many there are."""
    return jobs[0].name if len(jobs) == 1 else f"{len(jobs)} layers"


def describe(jobs: Sequence[LayerJob], rates: Rates) -> str:
    """One line on what a run will do: model, size, device, time."""
    methods = " and ".join(sorted({method_of(job) for job in jobs}))
    if all(job.plan.options.method == "network" for job in jobs):
        methods = f"model {methods}"
    if len(jobs) == 1:
        size = " × ".join(str(length) for length in _shape(jobs[0]))
    else:
        size = f"{sum(job.pixels for job in jobs) / 1e6:.3g} Mpixel"
    if all(job.lazy for job in jobs):
        time = "lazily, where you look"
    else:
        time = (
            ""
            if jobs[0].scheduler
            else duration(rates.all_seconds(job for job in jobs if not job.lazy), "about ")
        )
    if any(job.partner for job in jobs):
        size += " each with the other"
    scaling = sorted({text for job in jobs if (text := _scaling(job))})
    place = jobs[0].plan.device.upper()
    if jobs[0].scheduler is not None:
        place = f"dask cluster {jobs[0].scheduler.rpartition('/')[2]}"
    parts = [methods, size, *scaling, place, *([time] if time else [])]
    # Lines break after a dot, not before or within a part.
    line = " · ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
    remarks = [text for job in jobs for text in (*job.plan.notes, job.remark) if text]
    # What holds for all is said once.
    remarks = list(dict.fromkeys([*remarks, *axes_text(jobs)]))
    return "\n".join([line.replace(" ·", "\N{NO-BREAK SPACE}·"), *remarks])


_NAMED_AXES = {"T": "frames", "Z": "slices", "C": "channels"}


def axes_text(jobs: Sequence[LayerJob]) -> list[str]:
    """Say what the axes before the plane are taken for, and that split channels are apart."""
    said = []
    for job in jobs:
        layout = job.plan.layout
        before = layout.axes[: -3 if layout.color else -2]
        said += [
            f"Axis {label} is counted in {job.layer.units[axis]}: it is taken for time. If it is "
            "depth, correct its unit."
            for axis, (letter, label) in enumerate(zip(before, job.layer.axis_labels, strict=False))
            if letter == "T" and str(label).lower() == "z"
        ]
        if len(before) < 2 or job.partner is not None:
            continue
        labels = [str(label) for label in job.layer.axis_labels]
        parts = [
            f"{n} {_NAMED_AXES.get(letter, f'along {label}')}"
            for letter, n, label in zip(before, layout.shape, labels, strict=False)
        ]
        said.append(f"Axes: {', '.join(parts)}.")
    if len(jobs) > 1 and len(channels_of(jobs[0].layer, [job.layer for job in jobs])) == len(jobs):
        said.append(f"{len(jobs)} channels in layers of their own, each its own scale.")
    return said


def method_of(job: LayerJob) -> str:
    """Name of the model or the method that restores."""
    plan = job.plan
    if plan.options.method != "network":
        return _CLASSICAL[plan.options.method]
    return plan.model.name


def _scaling(job: LayerJob) -> str:
    """Say what of a stack shares an intensity scale."""
    layout = job.plan.layout
    if job.block is not None:
        return "a part" + (" · scale of the whole" if job.plan.dimensions == 2 else "")
    planes = layout.planes // (1 if job.partner is None else 2)
    if job.plan.dimensions == 3:
        deep = layout.shape[layout.axes.index("Z")]
        volumes = layout.planes // max(1, deep)
        return f"{volumes} volumes" if volumes > 1 else "one volume"
    if layout.groups > 1:
        return f"{layout.groups} channels · each its own scale"
    return f"{planes} planes · one scale" if planes > 1 else ""


def _shape(job: LayerJob) -> tuple[int, ...]:
    if job.block is not None:
        return tuple(part.stop - part.start for part in job.block)
    shape = job.plan.layout.shape
    return shape if job.partner is None else shape[1:]


def summary(job: LayerJob, result: Image) -> str:
    """Say what became of a layer."""
    record = result.metadata[METADATA_KEY]
    # The size of a blur that is known is said with its point spread function.
    guessed = "blur" in record and (job.plan.inverter is None or "psf" not in record)
    blur = f" {blur_text(record['blur'], job.state)}" if guessed else ""
    if record.get("exposure_found"):
        blur += f" Exposure found: {record['exposure']:.2g} of the time between frames."
    if record.get("frames_used") == 1:
        blur += f" {ALONE}."
    if record.get("lazy"):
        text = f"'{result.name}' is restored where you look at it.{blur}"
        if not get_settings().experimental.async_:
            text += (
                " To keep the window live meanwhile, turn on asynchronous rendering under "
                "File ▸ Preferences, Experimental."
            )
        return text
    text = f"'{result.name}' in {duration(record['seconds'])}.{blur}"
    for key, what in (
        ("clipped_samples", f"clipped to the range of {result.dtype}"),
        ("held_samples", "held between the smallest and the largest value of the source"),
    ):
        if record.get(key):
            share = record[key] / (job.pixels * job.plan.layout.channels)
            part = f"{share:.2%}" if share >= 1e-4 else "Less than 0.01%"
            text += f" {part} of the samples were {what}."
    return text


def blur_text(blur: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Say how blurred an image was.

    Parameters
    ----------
    blur : mapping
        As in the provenance; see `napari_restore.restoration.plan.BlurEstimate`.
    state : mapping
        ``scale`` and ``units`` of the layer, for the size in its units where it has any.
    """
    sigma = blur["sigma_px"]
    text = f"Blur σ {sigma:.1f} px"
    size, unit = side_of_pixel(state)
    if unit != "px":
        text += f" ({sigma * size:.3g} {unit})"
    remark = {
        "sharp": "it was sharp already",
        "strong": "as much as the models can undo, or more",
    }.get(blur["verdict"])
    return f"{text}: {remark}." if remark else f"{text}."


def duration(seconds: float, about: str = "") -> str:
    """Say a length of time as a person would."""
    if seconds < 0.95:
        return "less than a second"
    if seconds < 90:
        return f"{about}{seconds:.0f} s"
    if seconds < 5400:
        return f"{about}{seconds / 60:.0f} min"
    return f"{about}{seconds / 3600:.1f} h".replace(".0 h", " h")
