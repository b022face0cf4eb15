"""How a result was made, in plain types: enough to make it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_restore.device import autocast_dtype, torch
from napari_restore.models.weights import sha256

if TYPE_CHECKING:
    from napari_restore.analysis.blur import BlurEstimate
    from napari_restore.inference.protocol import Report
    from napari_restore.models.spec import ModelSpec

    from .connection import Workers
    from .facts import Facts
    from .plan import Plan

#: Share of the light of an image by which that of its result may differ without a word.
LIGHT = 0.01
#: Said of a movie of which two frames tell less than one.
ALONE = (
    "Each frame was restored alone: the blur between two is too short, or nothing shows how long "
    "it is, and with both the result would be worse"
)


def provenance(
    plan: Plan,
    facts: Facts | None = None,
    report: Report | None = None,
    *,
    blur: BlurEstimate | None = None,
    seconds: float | None = None,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Say how a result is made.

    Parameters
    ----------
    plan : Plan
    facts : Facts, optional
        What was found of the image.
    report : Report, optional
        What happened.
    blur : BlurEstimate, optional
    seconds : float, optional
        Without it the record is the same for a run that was broken off and continued.
    workers : Workers, optional
        Of the cluster that computed.

    Returns
    -------
    dict
    """
    from napari_restore import __version__

    options, spec = plan.options, plan.spec
    blurs = () if facts is None else facts.blurs
    told = any(plan.psfs) if facts is None else facts.psf is not None
    if told and plan.inverter is not None:
        spec = plan.inverter
    classical = options.method != "network"
    dtype = autocast_dtype(plan.device)
    record: dict[str, Any] = {
        "task": options.task,
        "model": _model(spec) if not classical else options.method,
        "weights_sha256": None if classical else spec.sha256 or sha256(spec.path),
        "axes": plan.layout.axes,
        "strength": options.strength,
        "tile": plan.tiles.side if plan.tiles.fixed else "auto",
        "device": plan.device,
        "precision": "float32" if dtype is None else str(dtype).removeprefix("torch."),
        "versions": {"napari-restore": __version__, "torch": str(torch.__version__)},
    }
    if options.structure_size:
        record["structure_size"] = options.structure_size
    if plan.dimensions == 3:
        record["dimensions"] = 3
    if classical:
        record["method"] = options.method
    if plan.inverter is not None or classical:
        # What was asked for, which is known before anything is found.
        record["psf_asked"] = [psf.digest for psf in plan.psfs] or "auto"
    if plan.pixel_size is not None:
        record["pixel_size_um"] = list(plan.pixel_size)
    if blurs:
        records = [blur.record() for blur in blurs]
        record["psf"] = records if len(records) > 1 else records[0]
    if options.keep_range:
        record["keep_range"] = True
    if options.invalid_value is not None:
        record["invalid_value"] = options.invalid_value
    if spec.frames == 2:
        record["frames"] = 2
        found = None if facts is None else facts.exposure
        if found == 0:
            record["frames_used"] = 1
        if exposure := options.exposure or found:
            record["exposure"] = exposure
            record["exposure_found"] = options.exposure is None
    if report is not None:
        record |= {
            "device": report.device or plan.device,
            "clipped_samples": report.clipped,
            "held_samples": report.held,
            "invalid_samples": report.invalid,
            "notes": [*plan.notes, *report.notes],
        }
    if report is not None:
        few = facts is not None and any(scale.few for scale in facts.scales)
        # To take away light is what Dehaze is for, but not where a pixel has few counts.
        if abs(report.light - 1) > LIGHT and (few or options.task != "dehaze"):
            record["light"] = round(report.light, 4)
            record["notes"].append(light_note(report.light))
    if record.get("frames_used") == 1:
        record["notes"] = [*record.get("notes", []), ALONE]
    if facts is not None and facts.scales:
        # What became 0 and 1 for the network, for each channel.
        record["scales"] = [[scale.low, scale.low + scale.span] for scale in facts.scales]
    if workers is not None:
        record |= {"device": workers.device, "precision": workers.precision}
    if blur is not None:
        record["blur"] = blur.record()
    if seconds is not None:
        record["seconds"] = round(seconds, 3)
    return record


def light_note(share: float) -> str:
    """Say that the sum of a result is not that of its image."""
    return (
        f"The result has {share:.1%} of the light of the image: take sums and means from the image"
    )


def _model(spec: ModelSpec) -> str:
    """Name of a model; a user's own file is found again by its path."""
    return spec.weights if Path(spec.weights).is_absolute() else spec.name
