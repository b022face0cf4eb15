"""``napari-restore deblur``, ``dehaze`` and ``motion-deblur``: files in, files out."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.core.device import resolve_device
from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.files import check_target, image_files, read_image, write_image
from napari_restore.models.catalog import find_model
from napari_restore.plan import plan
from napari_restore.restoration import restore_steps

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from napari_restore.plan import Plan
    from napari_restore.restoration import Restoration

#: Bytes of a result above which it grows in a scratch file beside its target, not in memory.
SCRATCH_BYTES = 2**30


class UsageError(RestoreError):
    """The command line asks for what cannot be."""

    usage = True


def run(args: argparse.Namespace) -> int:
    """Restore every input; report what fails and go on."""
    _check_options(args)
    failed = 0
    jobs: list[tuple[Path, Path]] = []
    for source, target in _jobs(args):
        if isinstance(target, RestoreError):
            _complain(source, target)
            failed += 1
        else:
            jobs.append((source, target))
    sources = {source.resolve() for source, _ in jobs}
    written: dict[Path, Path] = {}
    for source, target in jobs:
        try:
            place = target.resolve()
            if place in sources:
                raise FileError(f"{target} is an input and stays. Name another file or folder.")
            if place in written:
                raise FileError(
                    f"{target} was written for {written[place]} already. Restore files of the "
                    "same name into different folders."
                )
            _restore(source, target, args)
            written[place] = source
        except RestoreError as error:
            _complain(source, error)
            failed += 1
    return 1 if failed else 0


def _complain(source: Path, error: RestoreError) -> None:
    print(f"napari-restore: {source}: {error}", file=sys.stderr)


def _check_options(args: argparse.Namespace) -> None:
    """Find wrong names of device and model before the first file, not once for each."""
    try:
        resolve_device(args.device)
        frames = getattr(args, "frames", 1)
        try:
            find_model(args.task, 3, args.model, frames)
        except ModelError as error:
            try:
                find_model(args.task, 1, args.model, frames)
            except ModelError:
                raise error from None
    except RestoreError as error:
        raise UsageError(str(error)) from error


def _jobs(args: argparse.Namespace) -> Iterator[tuple[Path, Path | RestoreError]]:
    """Input files and where their results go, or why an input is of no use."""
    output = Path(args.output)
    separators = tuple(filter(None, (os.sep, os.altsep)))
    single = len(args.inputs) == 1 and not args.inputs[0].is_dir()
    into_folder = not single or output.is_dir() or args.output.endswith(separators)
    if into_folder:
        if output.exists() and not output.is_dir():
            raise UsageError(f"Several results need a folder, and {output} is a file.")
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The folder {output} cannot be made: {error}.") from error
    for path in args.inputs:
        if not path.is_dir():
            yield path, output / path.name if into_folder else output
            continue
        try:
            for file in image_files(path):
                yield file, output / file.name
        except RestoreError as error:
            yield path, error


def _restore(source: Path, target: Path, args: argparse.Namespace) -> None:
    picture = read_image(source)
    for note in picture.notes:
        print(f"napari-restore: {source}: note: {note}", file=sys.stderr)
    axes, rgb = picture.reading(args.axes, args.rgb)
    frames = getattr(args, "frames", 1)
    decided = plan(
        picture.data,
        args.task,
        axes=axes,
        rgb=rgb,
        model=args.model,
        device=args.device,
        tile=args.tile,
        strength=args.strength,
        # Of a folder with photographs too, the option means the others.
        structure_size=None
        if rgb or "S" in (axes or "")
        else getattr(args, "structure_size", None),
        frames=frames,
        exposure=getattr(args, "exposure", None),
    )
    picture.name_axes(decided.layout, named_by_user=args.axes is not None)
    check_target(target, picture, force=args.force)
    with _room(picture.data, target.parent) as room:
        result = _follow(picture.data, decided, source.name, room)
        record = result.provenance
        write_image(target, result.data, picture, json.dumps(record), force=args.force)
    words = [
        str(record["model"]),
        str(record["device"]),
        f"{record['seconds']:.1f} s",
        *record["notes"],
    ]
    if "blur" in record:
        blur = record["blur"]
        words.append(f"blur σ {blur['sigma_px']:.1f} px ({blur['verdict']})")
    if record.get("exposure_found"):
        words.append(f"exposure {record['exposure']:.2g} of the time between frames")
    if record["clipped_samples"]:
        words.append(f"{record['clipped_samples']} samples clipped to {picture.data.dtype}")
    if record["invalid_samples"]:
        words.append(f"{record['invalid_samples']} samples NaN or infinite, left as they were")
    print(f"{target}: {', '.join(words)}")


def _follow(image: Any, decided: Plan, name: str, room: Any) -> Restoration:
    """Restore with a progress bar, where someone is there to see it."""
    from tqdm import tqdm

    steps = restore_steps(image, decided, out=room)
    # disable=None: only on a terminal.
    with tqdm(
        total=decided.layout.pixels,
        desc=name,
        unit="pixel",
        unit_scale=True,
        disable=None,
        leave=False,
    ) as bar:
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                restoration: Restoration = stop.value
                return restoration
            bar.update(step.done - bar.n)
            bar.set_postfix_str(step.message)


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
