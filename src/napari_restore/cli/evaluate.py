"""``napari-restore evaluate``: figures of models and classical methods on known degradations."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from napari_restore.cli import format_table, say
from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.image.layout import Layout
from napari_restore.io.files import images_in
from napari_restore.models.catalog import find_model
from napari_restore.restoration.given_psf import given_psfs, optics_of_channels
from napari_restore.runtime import resolve_device

from .restore import OPTICS, UsageError, pixel_size_of, read_squeezed, recorded_in, told_optics

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_restore.evaluation.report import Evaluation
    from napari_restore.evaluation.volumes import SharpVolume

_KINDS = {"color": 3, "mono": 1}
#: Sides of crops, where the command line names none: of images, and of volumes.
_SIDE, _SIDE_OF_VOLUMES = 256, 96


def run(args: argparse.Namespace) -> int:
    """Print one table for each kind of image."""
    if args.kind == "volume":
        return _run_on_volumes(args)
    told = told_optics(args)
    named = [OPTICS[name] for name in told] + ["--pixel-size"] * (args.pixel_size is not None)
    named += ["--photons"] * (args.photons is not None)
    if named:
        raise UsageError(f"{named[0]} is for volumes. Add --kind volume, or leave it out.")
    return _run_on_images(args)


def _run_on_images(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from napari_restore.evaluation.pairs import load_sharp
    from napari_restore.evaluation.report import evaluate

    task = args.task
    kinds = _kinds(task, args.model, args.kind)
    device = resolve_device(args.device)
    shown = 0
    for kind in kinds:
        try:
            images = load_sharp(args.sharp, kind, args.limit)
        except RestoreError as error:
            if len(kinds) == 1:
                raise
            print(f"napari-restore: {kind} left out: {error}", file=sys.stderr)
            continue
        with tqdm(total=len(images), desc=kind, unit="image", disable=None, leave=False) as bar:
            result = evaluate(
                images,
                task,
                kind,
                model=args.model,
                psf=args.psf,
                device=device,
                seed=args.seed,
                size=args.size or _SIDE,
                progress=lambda done: bar.update(done - bar.n),
            )
        print(("\n" if shown else "") + describe(result))
        shown += 1
    return 0 if shown else 1


def _run_on_volumes(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from napari_restore.evaluation.volumes import evaluate_volumes

    if args.task != "deblur":
        raise UsageError(f"Volumes are for deblur; --task is {args.task.replace('_', '-')}.")
    for option, value, normal in (("--model", args.model, "auto"), ("--psf", args.psf, None)):
        if value != normal:
            raise UsageError(
                f"{option} {value} is not for volumes: they have one model, which is told the "
                f"point spread function. Leave {option} out."
            )
    device = resolve_device(args.device)
    volumes = _load_volumes(args)
    with tqdm(total=len(volumes), unit="volume", disable=None, leave=False) as bar:
        result = evaluate_volumes(
            volumes,
            photons=args.photons,
            device=device,
            seed=args.seed,
            size=args.size or _SIDE_OF_VOLUMES,
            progress=lambda done: bar.update(done - bar.n),
        )
    print(describe(result))
    return 0


def _load_volumes(args: argparse.Namespace) -> list[SharpVolume]:
    """Load sharp volumes, and the PSF of the optics that are told for each."""
    paths = [path for folder in args.sharp for path in images_in(folder)]
    if args.limit is not None and args.limit < len(paths):
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, args.limit).round().astype(int)]
    volumes = []
    for path in paths:
        try:
            volumes.append(_load_volume(path, args))
        except RestoreError as error:
            # Some name the file, and some do not.
            said = str(error).removeprefix(f"{path}: ")
            say(f"{path} left out: {said}")
    if not volumes:
        raise FileError(
            f"No volume that can be measured in {', '.join(map(str, args.sharp))}. Give folders "
            "with stacks of planes, OME-TIFF, say."
        )
    return volumes


def _load_volume(path: Path, args: argparse.Namespace) -> SharpVolume:
    from napari_restore.evaluation.volumes import SharpVolume

    picture, samples, axes = read_squeezed(path)
    if samples.ndim != 3 or (axes or "").strip("QRZI") != "YX":
        raise FileError(
            f"its axes are {axes}, its shape {samples.shape}. A volume is one stack of gray "
            "planes; save each time and each channel as a file of its own."
        )
    told = told_optics(args)
    if not told:
        return SharpVolume(samples, path.name)
    channels, notes = optics_of_channels(recorded_in(picture), told)
    for note in notes:
        say(f"{path}: note: {note}")
    size = pixel_size_of(picture, args.pixel_size)
    (psf, *_) = given_psfs(channels[0], Layout(samples.shape, "ZYX"), size, 3)
    return SharpVolume(samples, path.name, psf.array)


def _kinds(task: str, model: str, wish: str | None) -> list[str]:
    """Kinds to evaluate: the wish, or those that the model is for."""
    if wish in _KINDS:
        find_model(task, _KINDS[wish], model)
        return [wish]
    fitting, refusal = [], None
    for kind, channels in _KINDS.items():
        try:
            find_model(task, channels, model)
            fitting.append(kind)
        except ModelError as error:
            refusal = refusal or error
    if refusal is not None and (not fitting or wish == "both"):
        raise refusal
    return fitting


def describe(result: Evaluation) -> str:
    """Table of an evaluation, with what its figures mean."""
    color = result.kind == "color"
    knows = any(not math.isnan(row.told) for row in result.rows)
    header = ["method", "PSNR", "SSIM", *(["ΔE00"] if color else []), "gain", "better"]
    measured = any(not math.isnan(row.light) for row in result.rows)
    header += ["light"] * measured + ["PSF true", "PSF found"] * knows
    rows = []
    for row in result.rows:
        first = row is result.rows[0]
        figures = [
            _figure(row.psnr, "{:.2f} dB"),
            _figure(row.ssim, "{:.4f}"),
            *([_figure(row.delta_e, "{:.2f}")] if color else []),
            "" if first else _figure(row.gain, "{:+.2f} dB"),
            "" if first else _figure(100 * row.improved, "{:.0f} %"),
        ]
        figures += [_figure(100 * row.light, "{:.1f} %")] * measured
        figures += [_figure(value, "{:.2f} dB") for value in (row.told, row.found)] * knows
        rows.append([row.method, *figures])
    what = "volume" if result.kind == "volume" else "image"
    count = f"{result.count} {what}{'s' if result.count > 1 else ''}"
    title = f"{result.task.replace('_', '-')}, {result.kind}"
    returned = (
        f"sharp images returned at {result.identity:.2f} dB (worst {result.identity_worst:.2f} dB)"
    )
    lines = [
        f"{title}: {count} of {'×'.join(map(str, result.shape))} pixels",
        format_table(header, rows),
        *([] if math.isnan(result.identity) else [returned]),
        *result.notes,
    ]
    return "\n".join(lines)


def _figure(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)
