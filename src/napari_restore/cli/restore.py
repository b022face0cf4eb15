"""``napari-restore deblur``, ``dehaze`` and ``motion-deblur``: files in, files out, any size."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.cli import complain, in_one_line, progress_bar, say, shown_on
from napari_restore.errors import FileError, ModelError, PsfError, RestoreError
from napari_restore.image.layout import (
    BLOCK_BYTES,
    TileOptions,
    block_shape,
    block_shape_in_space,
    blocks,
    few_chunks_at_a_time,
    let_go,
    pixels_of,
)
from napari_restore.inference.engine import Report
from napari_restore.io import (
    Inputs,
    check_target,
    clip,
    file_format,
    image_files,
    is_image_folder,
    is_zarr,
    losses,
    name_axes,
    place_for,
    read_image,
    reading,
    stays_as_stored,
    write_image,
    zarr_around,
)
from napari_restore.io.files import (
    Checkpoint,
    holds,
    identity_of,
    part_of,
    place_of,
    read_on_workers,
    sample_hash,
    unfinished,
)
from napari_restore.io.image_file import stored_axes, with_alpha
from napari_restore.io.ome_zarr import OmeZarr
from napari_restore.io.tiff.writer import TILE, Tiles, add_provenance, can_be_tiled, write_tiff
from napari_restore.models.catalog import find_model
from napari_restore.physics.lengths import micrometers
from napari_restore.restoration.cluster import check_address, connect
from napari_restore.restoration.given_psf import Measured, find_pixel_size, optics_of_channels
from napari_restore.restoration.plan import Blur, Options, make_plan
from napari_restore.restoration.run import begin, provenance, restore_array
from napari_restore.runtime import resolve_device

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from napari_restore.image.layout import Block, Layout
    from napari_restore.io import ImageFile, Place
    from napari_restore.io.files import WorkerReadableImage
    from napari_restore.restoration.plan import Plan
    from napari_restore.restoration.run import Run

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


@dataclass(frozen=True)
class FileStep:
    """What becomes of a file of a batch.

    Attributes
    ----------
    source : Path or str
    target : Path or None
        None if it cannot be restored at all.
    state : {"found", "begun", "done", "failed"}
    error : Exception, optional
        Why it failed.
    said : str
        How it was restored, in a line.
    """

    source: Path | str
    target: Path | None
    state: str
    error: Exception | None = None
    said: str = ""


def _run(args: argparse.Namespace) -> int:
    failed = 0
    for step in restore_files(args):
        if step.error is not None:
            complain(step.source, step.error, verbose=args.verbose)
            failed += 1
        elif step.said:
            print(in_one_line(step.said))
    return 1 if failed else 0


def restore_files(args: argparse.Namespace) -> Iterator[FileStep]:
    """Restore every input of a command, and tell of each file; the docks' batch is the same.

    Parameters
    ----------
    args : Namespace
        Of a command that restores.

    Yields
    ------
    FileStep
        All that were found, then each as it begins and as it ends. What fails ends no other.

    Raises
    ------
    RestoreError
        If the command asks for what cannot be.
    """
    _check_options(args)
    if "psf" in vars(args):
        args.source = PsfSource(args)
    # One connection for all images.
    with (
        _warnings_are_notes(),
        nullcontext() if args.scheduler is None else connect(args.scheduler) as client,
    ):
        yield from _restore_all(args, client)


def _restore_all(args: argparse.Namespace, client: Client | None) -> Iterator[FileStep]:
    jobs: list[tuple[Path, Path]] = []
    for given, found in inputs_and_targets(args):
        if isinstance(found, Path):
            jobs.append((Path(given), found))
            yield FileStep(given, found, "found")
        else:
            yield FileStep(given, None, "failed", found)
    targets = Targets([source for source, _ in jobs])
    for source, target in jobs:
        yield FileStep(source, target, "begun")
        try:
            targets.check(target)
            said = _restore(source, target, args, client, targets.inputs)
            targets.add(target, source)
        # One bad file does not end the batch, whatever the error is.
        except Exception as error:
            yield FileStep(source, target, "failed", error)
        else:
            yield FileStep(source, target, "done", said=said)


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
) -> str:
    inputs.remember(source)
    picture = read_image(source, args.series)
    _note(source, picture.notes)
    axes, rgb = reading(picture, args.axes, args.rgb)
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
    image = picture.data
    if picture.alpha is not None and not rgb:
        # What is hidden under it is kept from the network, as in RGBA.
        image, axes = with_alpha(image, axes or "", picture)
        rgb = None
    plan = make_plan(image, options, axes=axes, rgb=rgb)
    name_axes(picture, plan.layout, named_by_user=args.axes is not None)
    done = args.resume and not args.force
    if done and _was_finished(target, picture, plan, client is not None):
        return f"{target}: finished already"
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
    return f"{target}: {', '.join(words)}"


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
    if picture.alpha is not None:
        image, _ = with_alpha(image, picture.axes or "", picture)
    with (
        _room(image, target.parent) as room,
        progress_bar(plan.layout.pixels, picture.path.name) as bar,
    ):
        with shown_on(bar):
            result = restore_array(image, plan, out=room, client=client)
        record = result.provenance
        if picture.fit is not None:
            record["clipped_samples"] += picture.fit(result.data)
        data = result.data if picture.alpha is None else result.data[..., 0]
        data, above = clip(picture, data)
        record["clipped_samples"] += above
        options = {"force": args.force, "inputs": inputs}
        write_image(target, data, picture, json.dumps(record), **options)
    return record


def _in_parts(picture: ImageFile, target: Path) -> bool:
    """Whether what is written of an image depends on no other part of it."""
    plain = picture.plain is None and picture.orientation == 1
    return picture.fit is None and (plain or stays_as_stored(picture, target))


def _reserve(file: int, size: int, folder: Path) -> None:
    """Reserve bytes: a disk that others fill would end the process where it is written to first.

    Raises
    ------
    FileError
        If there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        # Not all file systems can.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise FileError(
                f"{size / 1e9:.1f} GB cannot be written in {folder}: {error}. Make room, or name a "
                "folder on a larger disk."
            ) from error


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
        _reserve(file.fileno(), image.nbytes, folder)
        yield np.memmap(file, image.dtype, "w+", shape=image.shape)


#: How addresses begin; one letter and a colon is a disk of Windows.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


class UsageError(RestoreError):
    """The command line asks for what cannot be."""

    usage = True


class Targets:
    """Where results go; no input is replaced, and no result written twice.

    Parameters
    ----------
    sources : iterable of Path
        All inputs.

    Attributes
    ----------
    inputs : Inputs
    """

    def __init__(self, sources: list[Path]) -> None:
        self.inputs = Inputs(sources)
        self._written: dict[tuple[int, int] | None, Path] = {}

    def check(self, target: Path) -> None:
        """Raise a `FileError` if a target is an input, or another input's result."""
        self.inputs.check(target)
        source = self._written.get(place_of(target))
        if source is not None:
            raise FileError(
                f"{target} was written for {source} already. Restore files of the same name into "
                "different folders."
            )

    def add(self, target: Path, source: Path) -> None:
        """Note a result that was written."""
        place = place_of(target)
        if place is not None:
            self._written[place] = source


def inputs_and_targets(
    args: argparse.Namespace,
) -> Iterator[tuple[Path | str, Path | Exception]]:
    """Input files and where their results go, or why an input cannot be used."""
    if _ADDRESS.match(args.output):
        raise UsageError(f"{args.output} is an address. Name a file or folder on this computer.")
    if not args.output:
        raise UsageError("The name of the output is empty. Name a file or a folder.")
    output = Path(args.output)
    separators = tuple(filter(None, (os.sep, os.altsep)))
    try:
        single = len(args.inputs) == 1 and _is_one_image(args.inputs[0])
        into_folder = not single or (output.is_dir() and not is_zarr(output))
        into_folder |= args.output.endswith(separators) and not is_zarr(output)
        if into_folder:
            if output.exists() and (not output.is_dir() or is_zarr(output)):
                raise UsageError(f"Several results need a folder, and {output} is a file.")
            around = zarr_around(output)
            if around is not None:
                raise UsageError(f"The folder {output} would lie inside {around}. Name another.")
            output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be used: {error}.") from error
    for given in args.inputs:
        try:
            yield from _of_one(given, output, into_folder)
        except (RestoreError, OSError) as error:
            yield given, error if isinstance(error, RestoreError) else FileError(f"{error}.")


def _of_one(given: str, output: Path, into_folder: bool) -> Iterator[tuple[Path, Path]]:
    """Images that one argument names."""
    if not given:
        raise FileError("The name of an input is empty. Name an image or a folder.")
    if _ADDRESS.match(given):
        raise FileError(
            "This is an address, and files must be on this computer. Download it, or mount its "
            "folder, and name its path."
        )
    path = Path(given)
    if _is_one_image(given):
        # A folder may be named "." or "..".
        name = Path(os.path.abspath(path)).name
        yield path, output / name if into_folder else output
        return
    for file in image_files(path):
        yield file, output / file.name


def _is_one_image(given: str) -> bool:
    """Whether it is one image: OME-Zarr and DICOM series are, though their files are folders."""
    if not given:
        return True  # which is said when its turn comes
    try:
        path = Path(given)
        return not path.is_dir() or is_image_folder(path)
    except OSError:
        return True  # which is said when its turn comes


#: Options of the command line that are arguments of `Optics`, by the argument.
OPTICS = {
    "na": "--na",
    "wavelength": "--wavelength",
    "refractive_index": "--ri",
    "modality": "--modality",
    "excitation": "--excitation",
    "sheet_thickness": "--sheet-thickness",
    "defocus": "--defocus",
}
#: What `--psf` takes beside files.
WORDS = ("none", "auto", "optics")


def told_optics(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Optics` that the command line names."""
    all_of_them = {name: getattr(args, name, None) for name in OPTICS}
    told: dict[str, Any] = {k: value for k, value in all_of_them.items() if value is not None}
    for name, value in told.items():
        if name not in ("modality", "wavelength"):
            told[name] = _number(value)
    if "wavelength" in told:
        each = [_number(part.strip()) for part in told["wavelength"].split(",")]
        told["wavelength"] = each if len(each) > 1 else each[0]
    return told


def _number(text: str) -> float | str:
    """Read a plain number; texts with a unit stay."""
    try:
        return float(text)
    except ValueError:
        return text


def _lengths(told: str) -> Any:
    """Read one length, or several between commas."""
    each = [_number(part.strip()) for part in told.split(",")]
    return each if len(each) > 1 else each[0]


def pixel_size_of(picture: ImageFile | None, told: str | None) -> tuple[float, ...] | None:
    """Height and width of the pixels in µm: what the command line says, or the file.

    The distance of planes comes before them, where it is known.
    """
    size = None if told is None else find_pixel_size(_lengths(told))
    if picture is None or (size is not None and len(size) == 3):
        return size
    size = _in_plane(picture) if size is None else size
    step = picture.pixel_size.get("Z")
    if size is None or step is None:
        return size
    return _micrometers(*step), *size


def _micrometers(size: float, unit: str) -> float:
    spelled = "angstrom" if unit == "Å" else unit
    return micrometers(f"{size} {spelled}", "pixel size of the image")


def _in_plane(picture: ImageFile) -> tuple[float, float] | None:
    sizes = [picture.pixel_size.get(axis) for axis in "YX"]
    known = next((size for size in sizes if size is not None), None)
    if known is None:
        return None
    height, width = (_micrometers(*(size or known)) for size in sizes)
    return height, width


class PsfSource:
    """The point spread function that a command line asks for.

    Parameters
    ----------
    args : Namespace
        Of a command with these options.

    Raises
    ------
    UsageError
        If several are asked for, or a file is none.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._told = told_optics(args)
        self._pixel_size: str | None = args.pixel_size
        given = [
            name
            for name, there in (
                ("--psf", args.psf not in (None, "optics")),
                ("--beads", args.beads is not None),
                (
                    OPTICS[next(iter(self._told))] if self._told else "--psf optics",
                    bool(self._told) or args.psf == "optics",
                ),
            )
            if there
        ]
        if len(given) > 1:
            raise UsageError(
                f"Both {given[0]} and {given[1]} name a point spread function. Give one of them."
            )
        self._optics = args.psf == "optics" or bool(self._told)
        self._known: Any = None if args.psf == "optics" else args.psf
        try:
            # Before the first image: a file that is none is no fault of each.
            if self._pixel_size is not None:
                find_pixel_size(_lengths(self._pixel_size))
            if args.beads is not None:
                self._known = beads_in(Path(args.beads))
            elif args.psf not in (None, *WORDS):
                self._known = measured_in(Path(args.psf))
        except RestoreError as error:
            raise UsageError(str(error)) from error

    @property
    def asked(self) -> bool:
        """Whether anything is said of it; "none" too, since images of one plane have "auto"."""
        return self._optics or self._known is not None

    def options(self, picture: ImageFile) -> tuple[dict[str, Any], list[str]]:
        """Options ``psf`` and ``pixel_size`` for an image, and what has to be said of them."""
        size = pixel_size_of(picture, self._pixel_size)
        if not self._optics:
            return {"psf": self._known, "pixel_size": size}, []
        channels, notes = optics_of_channels(recorded_in(picture), self._told)
        return {"psf": channels, "pixel_size": size}, notes


def recorded_in(picture: ImageFile) -> str | Mapping[str, Any] | None:
    """Return what a file records of its microscope."""
    xml: str | None = picture.extras.get("xml")
    return xml


def read_squeezed(path: Path) -> tuple[ImageFile, Any, str | None]:
    """Read an image, and its samples without axes of length 1."""
    try:
        picture = read_image(path)
    except RestoreError as error:
        raise type(error)(f"{path}: {error}") from error
    axes = picture.axes or "Q" * max(0, np.ndim(picture.data) - 2) + "YX"
    data = np.asarray(picture.data)
    if picture.plain is not None:
        data = picture.plain.convert(data)
    spare = [place for place, letter in enumerate(axes) if data.shape[place] == 1]
    spare = [place for place in spare if axes[place] not in "YX"]
    kept = "".join(letter for place, letter in enumerate(axes) if place not in spare)
    return picture, data.squeeze(tuple(spare)), kept


def measured_in(path: Path) -> Any:
    """Read a measured point spread function, or one for each channel.

    Returns
    -------
    Measured, or list of Measured
    """
    picture, data, axes = read_squeezed(path)
    size = pixel_size_of(picture, None)
    if axes is not None and axes[0] == "C":
        names = [f"{path.name}, channel {channel}" for channel in range(len(data))]
        return [Measured(*each) for each in zip(data, [size] * len(data), names, strict=True)]
    return Measured(data, size, path.name)


def beads_in(path: Path, pixel_size: str | None = None) -> Any:
    """Average the beads in an image."""
    from napari_restore.physics.beads import psf_from_beads

    picture, data, axes = read_squeezed(path)
    try:
        if axes is None or axes.strip("QRZ") != "YX" or data.ndim > 3:
            raise PsfError(
                f"The image of beads has the axes {axes} and the shape {data.shape}. Choose one "
                "channel: a plane in which the beads are in focus, or a stack of planes."
            )
        beads = psf_from_beads(data, pixel_size=pixel_size_of(picture, pixel_size))
    except PsfError as error:
        raise PsfError(f"{path}: {error}") from error
    return replace(beads, notes=(f"{path.name}:", *beads.notes))


def restore_into_zarr(
    picture: ImageFile,
    plan: Plan,
    place: Place,
    *,
    resume: bool,
    client: Client | None = None,
) -> dict[str, Any]:
    """Restore into an OME-Zarr that appears whole; what is finished is kept if this is broken off.

    Returns
    -------
    dict
        Provenance, as it stands in the result too; of a cluster, also the number of workers.

    Raises
    ------
    RestoreError
    """
    with few_chunks_at_a_time(), unfinished(place, resume=resume) as part:
        # Chosen by the memory that was free; another choice gives other roundings.
        tiles = TileOptions(**part.header["tiles"]) if part.header else None
        # Those in space were given, and are given again.
        found = [] if plan.in_space else part.header.get("plan", {}).get("psf", [])
        found = found if isinstance(found, list) else [found]
        blurs = tuple(Blur.from_record(record) for record in found)
        run = begin(picture.data, plan, client=client, tiles=tiles, blurs=blurs)
        run.finish, layout = partial(clip, picture), plan.layout
        image = OmeZarr(part.image, picture)
        strips = _in_strips(picture.data, layout, image.chunks)
        shape = _block_shape(run.plan, image.chunks, full_width=strips)
        header = {
            "plan": provenance(run.plan, run.facts, workers=run.workers),
            "tiles": asdict(run.plan.tiles),
            "block": list(shape),
            "input": identity_of(picture, layout),
        }
        part.begin(header, image.create)
        image.open()
        todo = list(enumerate(blocks(layout.shape, shape)))
        finished = [block for number, block in todo if (0, number) in part.done]
        done = sum(pixels_of(layout, block) for block in finished)
        bar = progress_bar(layout.pixels, picture.path.name, done)
        with (
            bar,
            shown_on(bar),
            _hint(place.target, part, len(todo)),
            ThreadPoolExecutor(1) as writer,
        ):
            for (level, _), record in part.done.items():
                if level == 0:
                    run.add(Report(**record))
            rest = [(number, block) for number, block in todo if (0, number) not in part.done]
            # One block is written while the next is computed.
            written: Future[None] | None = None
            with run.blocks(rest, source=_seen_by_all(picture, run, rest), done=done) as restored:
                for number, block, samples, report in restored:
                    if written is not None:
                        written.result()
                    written = writer.submit(_keep, image, part, number, block, samples, report)
                    del samples
                    if client is None and not run.plan.overlaps:
                        written.result()
                        written = None
            if written is not None:
                written.result()
            for level, _ in _reduce_all(image, part):
                bar.set_postfix_str(f"Pyramid, level {level}")
            record = run.provenance()
            image.finish(record)
            part.commit()
    return _with_workers(record, run)


def _reduce_all(image: OmeZarr, part: Checkpoint) -> Iterator[tuple[int, Block]]:
    """Compute every coarser block that is not finished; gives each when it is on disk."""
    for level, todo in image.coarser():
        for number, block in enumerate(todo):
            if (level, number) not in part.done:
                image.reduce(level, block)
                part.finished(level, number)
            yield level, block


def _block_shape(plan: Plan, chunks: Sequence[int], *, full_width: bool = False) -> tuple[int, ...]:
    itemsize = np.dtype(plan.dtype).itemsize
    if plan.dimensions == 3:
        return block_shape_in_space(plan.layout, chunks, itemsize)
    return block_shape(plan.layout, chunks, itemsize, plan.tiles, full_width=full_width)


def _with_workers(record: dict[str, Any], run: Run) -> dict[str, Any]:
    """Add what a run on a cluster says, but not its result: another number may continue it."""
    return record if run.workers is None else record | {"workers": run.workers.count}


def _seen_by_all(
    picture: ImageFile, run: Run, todo: list[tuple[int, Block]]
) -> WorkerReadableImage | None:
    """Return the image as workers read it themselves, if all of them can."""
    if run.client is None or not todo:
        return None
    image, layout = read_on_workers(picture), run.plan.layout
    if image is None:
        return None
    expected = sample_hash(picture.data, layout)
    if all(run.client.run(holds, image, layout, expected).values()):
        return image
    say(
        f"Not all workers find {picture.path.resolve()} with the same image in it. It is read here "
        "and sent to them."
    )
    return None


def restore_into_tiff(
    picture: ImageFile, plan: Plan, place: Place, *, client: Client | None = None
) -> dict[str, Any]:
    """Restore into a tiled TIFF, written as its tiles are made; it appears whole or not at all."""
    layout, given = plan.layout, picture.axes or ""
    order = stored_axes(given)
    if "S" in given and given[order[-1]] != "S":
        order = (*order[:-3], *order[-2:], order[-3])  # samples that lie apart are joined
    axes = "".join(given[axis] for axis in order)
    run = begin(picture.data, plan, client=client)
    run.finish = partial(clip, picture)
    dtype = np.dtype(picture.data.dtype)
    chunks = [TILE if letter in "YX" else 1 for letter in layout.axes]
    # As the pages follow each other: planes, then rows.
    pages = block_shape(layout, chunks, dtype.itemsize, run.plan.tiles, full_width=True)
    steps = blocks([layout.shape[axis] for axis in order], [pages[axis] for axis in order])
    todo = list(
        enumerate(tuple(step[order.index(axis)] for axis in range(len(order))) for step in steps)
    )
    try:
        with (
            few_chunks_at_a_time(),
            progress_bar(layout.pixels, picture.path.name) as bar,
            shown_on(bar),
            place.appears_whole() as temporary,
            _in_order_of_pages(picture, run, place, todo, chunks) as samples,
        ):
            stored = tuple(layout.shape[axis] for axis in order)
            tiles = Tiles(stored, axes, dtype.newbyteorder("="), _tiles(samples, order, axes))
            write_tiff(temporary, place.target.name, tiles, picture)
            record = run.provenance()
            add_provenance(temporary, json.dumps(record))
    except (FileError, KeyboardInterrupt) as error:
        # Where there is no room, nothing was begun.
        if run.report.device or isinstance(error, KeyboardInterrupt):
            advice = "Name the result .ome.zarr if you want that."
            say(f"An unfinished TIFF cannot be continued. {advice}")
        raise
    return _with_workers(record, run)


@contextmanager
def _in_order_of_pages(
    picture: ImageFile, run: Run, place: Place, pages: list[tuple[int, Block]], chunks: list[int]
) -> Iterator[Iterator[NDArray[Any]]]:
    """Restore the blocks of the pages of a TIFF; gives their samples in turn."""
    if run.plan.dimensions == 2:
        source = _seen_by_all(picture, run, pages)
        with run.blocks(pages, source=source, in_order=True) as restored:
            yield (samples for _, _, samples, _ in restored)
        return
    # Blocks of volumes are deep, and reach into many pages.
    todo = list(enumerate(blocks(run.plan.layout.shape, _block_shape(run.plan, chunks))))
    with (
        _room(picture.data, place.target.parent) as room,
        run.blocks(todo, source=_seen_by_all(picture, run, todo)) as restored,
    ):
        for _, block, samples, _ in restored:
            room[block] = samples
            let_go(room)
            del samples
        yield (_copied(room, page) for _, page in pages)


def _copied(room: Any, page: Block) -> NDArray[Any]:
    samples = np.array(room[page])
    let_go(room)
    return samples


def _in_strips(image: Any, layout: Layout, chunks: tuple[int, ...]) -> bool:
    """Whether an image is stored in whole rows, and a block of whole rows is not too large."""
    stored, width = getattr(image, "chunks", None), layout.size[1]
    rows = chunks[layout.axes.index("Y")] * width * np.dtype(image.dtype).itemsize
    # Blocks that are narrower would decode each row several times.
    return stored is not None and stored[layout.axes.index("X")] >= width and rows <= BLOCK_BYTES


def _tiles(
    restored: Iterator[NDArray[Any]], order: tuple[int, ...], axes: str
) -> Iterator[NDArray[Any]]:
    """Tiles of the pages in turn."""
    for samples in restored:
        block = samples.transpose(order)
        plane = 3 if axes.endswith("S") else 2
        for page in block.reshape(-1, *block.shape[block.ndim - plane :]):
            for top in range(0, page.shape[0], TILE):
                for left in range(0, page.shape[1], TILE):
                    tile = page[top : top + TILE, left : left + TILE]
                    yield np.ascontiguousarray(tile, block.dtype.newbyteorder("="))


def _keep(
    image: OmeZarr,
    part: Checkpoint,
    number: int,
    block: Block,
    samples: NDArray[Any],
    report: Report,
) -> None:
    """Write a block and, when it is on disk, note it."""
    image.write(block, samples)
    part.finished(0, number, **asdict(report))


@contextmanager
def _hint(target: Path, part: Checkpoint, total: int) -> Iterator[None]:
    """Say on the way out of a broken run what is kept, and how to go on."""
    try:
        yield
    except BaseException:
        done = sum(level == 0 for level, _ in part.done)
        say(
            f"{done} of {total} blocks are kept in {part_of(target)}. The same command with "
            "--resume goes on."
        )
        raise
