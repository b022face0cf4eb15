"""``napari-restore psf``: find, average or compute a point spread function, and write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.cli import complain, progress_bar, say, shown_on
from napari_restore.errors import RestoreError
from napari_restore.image.layout import Layout
from napari_restore.io import ImageFile, read_image, reading, write_image
from napari_restore.restoration.given_psf import given_psfs, optics_of_channels
from napari_restore.restoration.plan import Options, make_plan
from napari_restore.restoration.run import find_psfs
from napari_restore.runtime import resolve_device

from .restore import OPTICS, UsageError, beads_in, pixel_size_of, recorded_in, told_optics

if TYPE_CHECKING:
    import argparse

    from napari_restore.analysis.point_spread import PSF

#: Side of a plane that has room for every PSF.
_ROOM = 4095


def run(args: argparse.Namespace) -> int:
    """Write a point spread function, or say why there is none."""
    told = told_optics(args)
    optics = bool(told) or args.optics
    if args.input is None and not optics:
        raise UsageError(
            "Name an image to find the PSF in, or the optics: --na, --wavelength and --pixel-size."
        )
    if args.beads and optics:
        name = OPTICS[next(iter(told))] if told else "--optics"
        raise UsageError(f"--beads measures, and {name} computes. Give one of them.")
    source = "optics" if args.input is None else args.input
    try:
        psfs = _made(args, told) if optics or args.beads else _found(args)
        if not any(psfs):
            print(f"{source}: {psfs[0].found} Nothing was written.")
            return 0
        _write(Path(args.output), psfs, args)
    except RestoreError as error:
        complain(source, error, verbose=args.verbose)
        return 1
    for number, psf in enumerate(psfs):
        channel = f", channel {number}" if len(psfs) > 1 else ""
        print(f"{args.output}{channel}: {psf}")
    return 0


def _made(args: argparse.Namespace, told: dict[str, Any]) -> tuple[PSF, ...]:
    """Average beads, or compute from optics."""
    picture = None if args.input is None else _picture(args)
    size = pixel_size_of(picture, args.pixel_size)
    if args.beads:
        beads = beads_in(Path(args.input), args.pixel_size)
        return given_psfs(beads, Layout((_ROOM, _ROOM), "YX"), size)
    recorded = None if picture is None else recorded_in(picture)
    channels, notes = optics_of_channels(recorded, told)
    for note in notes:
        say(f"{args.input}: note: {note}")
    return given_psfs(channels, Layout((len(channels), _ROOM, _ROOM), "CYX"), size)


def _found(args: argparse.Namespace) -> tuple[PSF, ...]:
    picture = _picture(args)
    axes, rgb = reading(picture, args.axes, args.rgb)
    options = Options(
        args.task.replace("-", "_"),
        device=resolve_device(args.device),
        psf="auto",
        pixel_size=pixel_size_of(picture, args.pixel_size),
        invalid_value=picture.invalid_value,
    )
    plan = make_plan(picture.data, options, axes=axes, rgb=rgb)
    with progress_bar(plan.layout.pixels, picture.path.name) as bar, shown_on(bar):
        return find_psfs(picture.data, plan)


def _picture(args: argparse.Namespace) -> ImageFile:
    picture = read_image(Path(args.input), args.series)
    for note in picture.notes:
        say(f"{args.input}: note: {note}")
    return picture


def _write(target: Path, psfs: tuple[PSF, ...], args: argparse.Namespace) -> None:
    """Write one plane, or one for each channel, each in the middle of the same square."""
    side = max(len(psf.array) for psf in psfs)
    planes = [np.pad(psf.array, (side - len(psf.array)) // 2) for psf in psfs]
    data, axes = (np.stack(planes), "CYX") if len(planes) > 1 else (planes[0], "YX")
    size = psfs[0].pixel_size
    sizes = {} if size is None else {"Y": (size[0], "µm"), "X": (size[1], "µm")}
    made = ImageFile(Path(args.input or ""), data, axes, "npy", pixel_size=sizes)
    records = [psf.record() for psf in psfs]
    for record in records:
        del record["samples"]  # they are what the file holds
    text = json.dumps({"task": "psf", "psf": records if len(records) > 1 else records[0]})
    write_image(target, data, made, text, force=args.force)
