"""``napari-restore deblur``, ``dehaze`` and ``motion-deblur``: files in, files out."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.device import resolve_device
from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.io import (
    check_target,
    file_format,
    losses,
    place_for,
    read_image,
    stays_as_stored,
    write_image,
)
from napari_restore.io.tiff.writer import can_be_tiled
from napari_restore.models.catalog import find_model
from napari_restore.restoration.cluster import check_address, connect
from napari_restore.restoration.options import Options
from napari_restore.restoration.plan import make_plan
from napari_restore.restoration.provenance import provenance
from napari_restore.restoration.run import restore_array

from .console import complain, in_one_line, progress_bar, say, shown_on
from .inputs import Targets, UsageError, inputs_and_targets
from .large import restore_into_tiff, restore_into_zarr
from .point_spread import PsfSource

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from distributed import Client

    from napari_restore.io import ImageFile, Inputs, Place
    from napari_restore.restoration.plan import Plan

#: Options that depend on files, see `PsfSource`.
_FROM_FILES = ("psf", "pixel_size")
#: Bytes of a result above which it grows in a scratch file beside its target, not in memory.
SCRATCH_BYTES = 2**30

#: Of <malloc.h>.
_M_MMAP_THRESHOLD = -3
#: Bytes.
_LARGE = 2**20


class Terminated(KeyboardInterrupt):
    """Another program asked this one to end: it goes the way of Ctrl-C."""

    status = 128 + signal.SIGTERM


def run(args: argparse.Namespace) -> int:
    """Restore every input; report what fails and go on."""
    give_back_what_is_freed()
    with _termination_is_an_interrupt():
        return _run(args)


def give_back_what_is_freed() -> None:
    """Let large arrays go back to the system when they are freed, with the GNU C library.

    It would keep them, for each thread apart, and in pieces that the next large array does not fit
    in: the larger an image, the more. Elsewhere this does nothing.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (AttributeError, OSError, TypeError):
        return


@contextmanager
def _termination_is_an_interrupt() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # where Python lets nobody set handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _warnings_are_notes() -> Iterator[None]:
    """Show what libraries warn of as a sentence, without the place in their code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        say(f"note: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _run(args: argparse.Namespace) -> int:
    _check_options(args)
    if "psf" in vars(args):
        args.source = PsfSource(args)
    # One connection for all images.
    with (
        _warnings_are_notes(),
        nullcontext() if args.scheduler is None else connect(args.scheduler) as client,
    ):
        return _restore_all(args, client)


def _restore_all(args: argparse.Namespace, client: Client | None) -> int:
    failed = 0
    jobs: list[tuple[Path, Path]] = []
    for source, target in inputs_and_targets(args):
        if isinstance(target, Path):
            jobs.append((Path(source), target))
        else:
            complain(source, target, verbose=args.verbose)
            failed += 1
    targets = Targets([source for source, _ in jobs])
    for source, target in jobs:
        try:
            targets.check(target)
            _restore(source, target, args, client, targets.inputs)
            targets.add(target, source)
        # One bad file does not end the batch, whatever the error is.
        except Exception as error:
            complain(source, error, verbose=args.verbose)
            failed += 1
    return 1 if failed else 0


def _note(source: Path, notes: list[str]) -> None:
    for note in notes:
        say(f"{source}: note: {note}")


def _check_options(args: argparse.Namespace) -> None:
    """Find wrong names of device, model and scheduler before the first file, not once for each."""
    try:
        if args.scheduler is not None:
            check_address(args.scheduler)
        resolve_device(args.device)
        frames = _options(args).frames
        try:
            find_model(args.task, 3, args.model, frames)
        except ModelError as error:
            try:
                find_model(args.task, 1, args.model, frames)
            except ModelError:
                raise error from None
    except RestoreError as error:
        raise UsageError(str(error)) from error


def _options(args: argparse.Namespace) -> Options:
    """Options that the command of a task has, but for what has to be read from files."""
    given = {name: value for name, value in vars(args).items() if name not in _FROM_FILES}
    return Options.of(args.task, {name: given[name] for name in Options.names() if name in given})


def _restore(
    source: Path,
    target: Path,
    args: argparse.Namespace,
    client: Client | None,
    inputs: Inputs,
) -> None:
    inputs.remember(source)
    picture = read_image(source, args.series)
    _note(source, picture.notes)
    axes, rgb = picture.reading(args.axes, args.rgb)
    options = _options(args)
    if rgb or "S" in (axes or ""):
        # Of a folder with photographs too, the option means the others.
        options = replace(options, structure_size=None)
    if options.keep_range is None and picture.format in ("nifti", "dicom"):
        # Medical, whatever its samples are.
        options = replace(options, keep_range=True)
    if options.invalid_value is None:
        options = replace(options, invalid_value=picture.invalid_value)
    if "source" in vars(args) and args.source.asked:
        found, notes = args.source.options(picture)
        _note(source, notes)
        options = replace(options, **found)
    plan = make_plan(picture.data, options, axes=axes, rgb=rgb)
    picture.name_axes(plan.layout, named_by_user=args.axes is not None)
    done = args.resume and not args.force
    if done and _was_finished(target, picture, plan, client is not None):
        print(in_one_line(f"{target}: finished already"))
        return
    check_target(target, picture, force=args.force, inputs=inputs)
    _note(source, losses(target, picture))
    started = time.monotonic()
    place = place_for(target, picture, force=args.force, inputs=inputs)
    record = _carry_out(picture, plan, place, args, client, inputs)
    record.setdefault("seconds", time.monotonic() - started)
    words = [
        str(record["model"]),
        str(record["device"]),
        *([f"{record['workers']} workers"] if "workers" in record else []),
        f"{record['seconds']:.1f} s",
        f"{plan.layout.pixels / 1e6 / max(record['seconds'], 1e-3):.2g} Mpixel/s",
        *record["notes"],
    ]
    if "blur" in record:
        blur = record["blur"]
        words.append(f"blur σ {blur['sigma_px']:.1f} px ({blur['verdict']})")
    words += _blurs(record)
    if record.get("exposure_found"):
        words.append(f"exposure {record['exposure']:.2g} of the time between frames")
    if record["clipped_samples"]:
        depth = picture.extras.get("depth", picture.data.dtype)
        if picture.top is not None:
            depth = f"{picture.top.bit_length()} bits"
        words.append(f"{record['clipped_samples']} samples clipped to {depth}")
    if record["held_samples"]:
        words.append(f"{record['held_samples']} samples held within the range of the source")
    if record["invalid_samples"]:
        words.append(f"{record['invalid_samples']} samples without a value, left as they were")
    print(in_one_line(f"{target}: {', '.join(words)}"))


def _blurs(record: dict[str, Any]) -> list[str]:
    """Say what blurred the image, in the words of the provenance."""
    found = record.get("psf", [])
    records = found if isinstance(found, list) else [found]
    words = []
    for number, each in enumerate(records):
        channel = f" of channel {number}" if len(records) > 1 else ""
        width = f" (FWHM {each['fwhm_px']:.1f} px)" if "fwhm_px" in each else ""
        words.append(f"PSF{channel}{width}: {each['said'].rstrip('.')}")
    return words


def _was_finished(target: Path, picture: ImageFile, plan: Plan, on_cluster: bool) -> bool:
    """Whether a result is there that says that it was made as planned."""
    if file_format(target, picture) != "zarr" or not target.exists():
        return False
    there = read_image(target)
    record = there.extras.get("ngff", {}).get("provenance", {})
    wanted = provenance(plan)
    if plan.inverter is not None and not plan.psfs:
        # Which model restores hangs on what is found.
        wanted = {k: v for k, v in wanted.items() if k not in ("model", "weights_sha256")}
    if on_cluster:
        wanted = {k: v for k, v in wanted.items() if k not in ("device", "precision")}
    return bool(record) and all(record.get(key) == value for key, value in wanted.items())


def _carry_out(
    picture: ImageFile,
    plan: Plan,
    place: Place,
    args: argparse.Namespace,
    client: Client | None,
    inputs: Inputs,
) -> dict[str, Any]:
    """Restore and write in the way that suits size and format; returns the provenance."""
    kind, target, image = place.kind, place.target, picture.data
    in_parts = _in_parts(picture, target)
    if kind == "zarr" and in_parts:
        return restore_into_zarr(picture, plan, place, resume=args.resume, client=client)
    if args.resume:
        raise FileError(
            "Only results in OME-Zarr can be continued. Name the result .ome.zarr, or leave "
            "--resume out."
            if in_parts
            else "DICOM, and images with a slope, a calibration or an orientation, are restored in "
            "one piece. Leave --resume out."
        )
    if (
        kind == "tiff"
        and image.nbytes > SCRATCH_BYTES
        and in_parts
        and can_be_tiled(target.name, picture)
    ):
        return restore_into_tiff(picture, plan, place, client=client)
    with (
        _room(image, target.parent) as room,
        progress_bar(plan.layout.pixels, picture.path.name) as bar,
    ):
        with shown_on(bar):
            result = restore_array(image, plan, out=room, client=client)
        record = result.provenance
        if picture.fit is not None:
            record["clipped_samples"] += picture.fit(result.data)
        data, above = picture.clip(result.data)
        record["clipped_samples"] += above
        options = {"force": args.force, "inputs": inputs}
        write_image(target, data, picture, json.dumps(record), **options)
    return record


def _in_parts(picture: ImageFile, target: Path) -> bool:
    """Whether what is written of an image depends on no other part of it."""
    plain = picture.plain is None and picture.orientation == 1
    return picture.fit is None and (plain or stays_as_stored(picture, target))


@contextmanager
def _room(image: Any, folder: Path) -> Iterator[Any]:
    """Array for a large result: a memory map of a file that vanishes; None for small ones."""
    if image.nbytes <= SCRATCH_BYTES:
        yield None
        return
    free = shutil.disk_usage(folder).free
    # The scratch file and the result stand beside each other for a moment.
    if free < 2 * image.nbytes:
        raise FileError(
            f"The result needs {2 * image.nbytes / 1e9:.1f} GB in {folder} while it is made; "
            f"{free / 1e9:.1f} GB are free. Name a folder on a larger disk."
        )
    try:
        file = tempfile.TemporaryFile(dir=folder, prefix=".napari-restore-")
    except OSError as error:
        raise FileError(f"Nothing can be written in {folder}: {error}.") from error
    with file:
        yield np.memmap(file, image.dtype, "w+", shape=image.shape)
