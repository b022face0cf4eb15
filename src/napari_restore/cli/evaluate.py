"""``napari-restore evaluate``: figures of models and classical methods on known degradations."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from napari_restore.cli import format_table
from napari_restore.errors import ModelError, RestoreError
from napari_restore.models.catalog import find_model
from napari_restore.runtime import resolve_device

if TYPE_CHECKING:
    import argparse

    from napari_restore.evaluation.report import Evaluation

_KINDS = {"color": 3, "mono": 1}


def run(args: argparse.Namespace) -> int:
    """Print one table for each kind of image."""
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
                size=args.size,
                progress=lambda done: bar.update(done - bar.n),
            )
        print(("\n" if shown else "") + describe(result))
        shown += 1
    return 0 if shown else 1


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
    header += ["PSF true", "PSF found"] if knows else []
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
        figures += [_figure(value, "{:.2f} dB") for value in (row.told, row.found)] * knows
        rows.append([row.method, *figures])
    count = f"{result.count} image{'s' if result.count > 1 else ''}"
    title = f"{result.task.replace('_', '-')}, {result.kind}"
    lines = [
        f"{title}: {count} of {result.size}×{result.size} pixels",
        format_table(header, rows),
        f"sharp images returned at {result.identity:.2f} dB (worst {result.identity_worst:.2f} dB)",
        *result.notes,
    ]
    return "\n".join(lines)


def _figure(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)
