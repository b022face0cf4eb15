"""``napari-restore models``: what ships, and how good it was in validation."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from napari_restore.cli import format_table
from napari_restore.errors import ModelError
from napari_restore.models.catalog import SHIPPED, read_metadata

if TYPE_CHECKING:
    import argparse

    from napari_restore.models.catalog import ModelSpec

_HEADER = ("model", "task", "channels", "license", "size", "PSNR", "better", "sharp images")


def run(args: argparse.Namespace) -> int:
    """Print what ships."""
    failed = 0
    rows = []
    for spec in SHIPPED:
        try:
            rows.append(_row(spec))
        except ModelError as error:
            print(f"napari-restore: {spec.name}: {error}", file=sys.stderr)
            failed += 1
    print(format_table(_HEADER, rows, left=4))
    print(
        "\nValidation on synthetic degradation: PSNR of input → result; share of images that\n"
        "became better; PSNR of sharp images that are returned. A dash: not recorded."
    )
    return 1 if failed else 0


def _row(spec: ModelSpec) -> tuple[str, ...]:
    figures = json.loads(read_metadata(spec.path).get("validation", "{}"))
    gain = better = sharp = "–"
    if "input" in figures and "output" in figures:
        gain = f"{figures['input']:.1f} → {figures['output']:.1f} dB"
    if "improved" in figures:
        better = f"{100 * figures['improved']:.0f} %"
    if "identity" in figures:
        sharp = f"{figures['identity']:.1f} dB"
    kind = f"{spec.channels} ({spec.kind})"
    size = f"{spec.path.stat().st_size / 1e6:.1f} MB"
    return spec.name, spec.task.replace("_", "-"), kind, spec.license, size, gain, better, sharp
