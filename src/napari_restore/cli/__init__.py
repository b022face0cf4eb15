"""The command line: its parser, and what commands say. Help and usage errors load no NumPy."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_restore.errors import RestoreError
from napari_restore.models.catalog import CATALOG, TASKS
from napari_restore.runtime import installed_version, relaying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from napari_restore.runtime import Progress

_TASK_HELP = {
    "deblur": "remove defocus and optical blur",
    "dehaze": "remove haze, smoke or out-of-focus light",
    "motion_deblur": "remove motion blur",
    "denoise": "remove noise",
}

_RESTORE_NOTES = """\
Formats: OME-Zarr (0.4 and 0.5), TIFF (OME, ImageJ and plain), PNG, JPEG and NPY; with the extra
"medical" also NIfTI and DICOM. Axes, pixel sizes, channel names, headers and orientation are kept.
A folder of DICOM files is one image: its series is restored into a folder of files with the same
names. OME-Zarr and large TIFF are read and written in parts, whatever their size.
Nothing is overwritten without --force, which replaces only earlier results: never an input, nor any
other file or folder. Every result appears whole or not at all.
A result named .ome.zarr grows in OUT.ome.zarr.part. If the run is broken off, by Ctrl-C, a crash or
a full disk, the same command with --resume continues it and gives the same bytes.
Exit status: 0 if every file was restored, 1 if one failed (the others are restored all the same),
2 for a wrong command line, 130 after Ctrl-C, 143 after SIGTERM."""

_GUI_NOTES = """\
On some Windows machines PyTorch's libraries cannot be loaded once Qt is running (WinError 1114 or
126). This command loads PyTorch first and then starts napari, as 'napari FILES' would."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process without it.

    Returns
    -------
    int
        Exit status: 0 if all went well, 1 if something failed, 2 for a wrong command line, 130
        after Ctrl-C, 143 after SIGTERM. Wrong arguments and ``--help`` raise SystemExit, as
        argparse does.
    """
    with steady_output():
        return _run(make_parser().parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    try:
        command = import_module(f"napari_restore.cli.{args.module}")
        run = cast("Callable[[argparse.Namespace], int]", command.run)
        return run(args)
    except KeyboardInterrupt as stop:
        say("interrupted")
        return getattr(stop, "status", 130)
    except RestoreError as error:
        say(str(error))
        # Commands mark what argparse itself could not see.
        return 2 if getattr(error, "usage", False) else 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        "napari-restore", description="Remove blur, haze, motion blur and noise from images."
    )
    version = f"napari-restore {installed_version()}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for task in TASKS:
        _add_restore(commands, task)
    _add_models(commands)
    _add_psf(commands)
    _add_train(commands)
    _add_adapt(commands)
    _add_evaluate(commands)
    _add_check(commands)
    gui = commands.add_parser(
        "gui",
        help="start napari (PyTorch first: needed on some Windows machines)",
        epilog=_GUI_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gui.add_argument("files", nargs="*", type=Path, metavar="FILE", help="images to open")
    gui.set_defaults(module="gui")
    return parser


def _add_restore(commands: argparse._SubParsersAction[argparse.ArgumentParser], task: str) -> None:
    names = ", ".join(spec.name for spec in CATALOG if spec.task == task)
    parser = commands.add_parser(
        task.replace("_", "-"),
        # The library's name of the task works as well.
        aliases=[task] if "_" in task else [],
        help=_TASK_HELP[task],
        description=_TASK_HELP[task].capitalize() + ".",
        epilog=_RESTORE_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module="restore", task=task)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="images, or folders of images")
    add(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file or a folder for one image; a folder for several, which is made if needed",
    )
    add(
        "--model",
        default="auto",
        metavar="NAME",
        help=f"auto, {names}, one of your library, or a .safetensors/.pth file",
    )
    _add_device(parser)
    add(
        "--scheduler",
        metavar="tcp://HOST:8786",
        help="restore on the dask cluster with this scheduler; its workers choose their devices",
    )
    add(
        "--tile",
        default="auto",
        type=_tile,
        metavar="N",
        help="side of the tiles in pixels, or auto",
    )
    add(
        "--strength",
        default=1.0,
        type=_share,
        metavar="S",
        help="0 keeps the input, 1 (default) is the full result, linear between",
    )
    if task == "dehaze":
        add(
            "--structure-size",
            type=float,
            metavar="PX",
            help="single-channel images: structures up to this many pixels stay",
        )
    if task in ("deblur", "motion_deblur"):
        _add_which_psf(
            parser,
            "none|auto|optics|FILE",
            "point spread function: none, auto (found in each image), optics (from what the "
            "image's metadata record), or an image of one; default: auto, where the image is one "
            "plane, else none",
        )
    if task == "deblur":
        add(
            "--dimensions",
            type=_dimensions,
            choices=(2, 3, "auto"),
            default="auto",
            help="2: plane by plane; 3: as a volume, with a PSF that has planes; auto (default): "
            "as a volume where the file names an axis Z and the PSF has planes",
        )
        add(
            "--method",
            choices=("network", "richardson-lucy", "wiener"),
            default="network",
            help="how the PSF is inverted; default: network",
        )
    if task in ("deblur", "motion_deblur"):
        _add_optics(parser)
    if task == "motion_deblur":
        add(
            "--frames",
            type=int,
            choices=(1, 2),
            default=1,
            help="1 (default): each frame alone; 2: each with the next, along the motion between",
        )
        add(
            "--exposure",
            type=_share,
            metavar="S",
            help="with two frames: share of the time between them that the shutter is open, above "
            "0 and up to 1; found from the movie without it",
        )
    add(
        "--keep-range",
        action=argparse.BooleanOptionalAction,
        help="keep the result between the smallest and the largest value of the image; default: "
        "for NIfTI, DICOM and signed integers",
    )
    add(
        "--invalid-value",
        type=float,
        metavar="V",
        help="value of samples that were not measured, if the file does not give it",
    )
    add("--axes", metavar="TZCYX", help="the axes, if the file does not name them or is wrong")
    add(
        "--rgb",
        action=argparse.BooleanOptionalAction,
        help="take the image as RGB, or as separate channels; default: what the file says",
    )
    add(
        "--series",
        metavar="N",
        help="number or UID of the series, in a folder with several (DICOM)",
    )
    add("--force", action="store_true", help="replace earlier results, start unfinished ones over")
    add("--resume", action="store_true", help="continue unfinished results (OME-Zarr)")
    add("--verbose", action="store_true", help="show where in the program an error arose")


def _dimensions(text: str) -> int | str:
    return int(text) if text in ("2", "3") else text


def _add_device(parser: argparse.ArgumentParser) -> None:
    text = "auto, cpu, cuda, cuda:1, xpu, mps"
    parser.add_argument("--device", default="auto", metavar="NAME", help=text)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--axes", metavar="TZCYX", help="the axes, if the file does not name them")
    add("--rgb", action=argparse.BooleanOptionalAction, help="take the image as RGB, or not")
    add("--series", metavar="N", help="number or UID of the series, in a folder (DICOM)")
    add("--verbose", action="store_true", help="show where in the program an error arose")


def _add_which_psf(parser: argparse.ArgumentParser, values: str, text: str) -> None:
    parser.add_argument("--psf", metavar=values, help=text)
    parser.add_argument("--beads", metavar="FILE", help="take the PSF from an image of beads")


def _add_optics(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "optics",
        "Any of the first seven computes the PSF. What is left out is taken from the image's "
        "metadata. Lengths are in µm, or have a unit: 520nm.",
    )
    add = group.add_argument
    add("--na", metavar="NA", help="numerical aperture of the objective")
    add("--wavelength", metavar="L", help="of the emission; of several channels 450nm,520nm")
    add("--ri", dest="refractive_index", metavar="N", help="refractive index; default: by --na")
    add(
        "--modality",
        metavar="NAME",
        help="widefield (default), confocal, spinning disk, light sheet, two-photon",
    )
    add("--excitation", metavar="L", help="wavelength of the excitation")
    add("--sheet-thickness", metavar="L", help="full width at half maximum of a light sheet")
    add("--defocus", metavar="L", help="distance of the plane from the focus")
    add(
        "--pixel-size",
        metavar="L",
        help="side of a pixel, or Z,Y,X of a volume: 0.2,65nm,65nm; default: what the file says",
    )


def _add_psf(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "psf",
        help="find the point spread function of an image, or make one of beads or optics",
        description="Find the point spread function that blurred an image, average that of beads, "
        "or compute that of a microscope. If none can be found, nothing is written and "
        "the reason is given.",
    )
    parser.set_defaults(module="psf")
    add = parser.add_argument
    add("input", nargs="?", metavar="IMAGE", help="the image; optional where optics are named")
    add("-o", "--output", required=True, metavar="OUT", help="such as psf.tif")
    add(
        "--task",
        default="deblur",
        choices=("deblur", "motion-deblur"),
        help="what blurred the image: optics (default), or also motion",
    )
    add("--beads", action="store_true", help="IMAGE shows point sources: average them")
    add("--optics", action="store_true", help="compute it from what the metadata of IMAGE record")
    _add_optics(parser)
    _add_device(parser)
    _add_reading(parser)
    add("--force", action="store_true", help="replace an earlier result")


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="list the models, and keep your own",
        description="List what ships and your own models, or change your library. Files are read "
        "without running anything in them.",
    )
    parser.set_defaults(module="models", action="list")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")

    def action(name: str, text: str, model: bool = True) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        made.set_defaults(module="models", action=name)
        if model:
            made.add_argument("name", metavar="NAME", help="name of the model")
        return made

    action("list", "list all models", model=False)
    action("show", "print the card of a model")
    add = action("import", "take a file of weights into the library", model=False).add_argument
    add(
        "file",
        metavar="FILE",
        help="weights: .safetensors, .pth, or a package of bioimage.io (.zip)",
    )
    add("--name", metavar="NAME", help="name to keep it under; default: that of the file")
    add("--task", type=_task, choices=TASKS, help="what it does, if the file does not say so")
    add("--license", metavar="TEXT", help="its license, for the card")
    add("--notes", metavar="TEXT", help="anything else for the card")
    action("rename", "give a model another name").add_argument("new", metavar="NEW")
    action("remove", "delete a model")
    add = action("export", "copy a model and its card into a file").add_argument
    add(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a folder, a .safetensors file, a .zip for bioimage.io, or an .onnx graph",
    )
    add("--force", action="store_true", help="replace files that are there")
    action("default", "let auto take a model for its kind of image; a bundled one ends that")


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model on your images",
        description="Train a model further on your own images (--model), from sharp ones that are "
        "degraded, or from pairs of low and high quality; the result goes to your library. Or make "
        "the weights of a recipe from nothing (--recipe). The same command continues what was "
        "broken off.",
    )
    parser.set_defaults(module="train")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="NAME", help="train this model of the library further")
    what.add_argument("--continue", dest="going", metavar="NAME", help="go on with a training")
    names = ", ".join(spec.name for spec in CATALOG)
    what.add_argument("--recipe", metavar="NAME", help=f"one of {names}")
    add("--name", metavar="NAME", help="what the new model is called (with --model)")
    add("--images", nargs="+", type=_folder, metavar="DIR", default=[], help="sharp images")
    add("--low", nargs="+", type=_folder, metavar="DIR", default=[], help="pairs: low quality")
    add("--high", nargs="+", type=_folder, metavar="DIR", default=[], help="pairs: high quality")
    add(
        "--blur",
        type=_between,
        metavar="LOW:HIGH",
        help="blur that sharp images get, standard deviation in pixels; default: the model's",
    )
    add(
        "--noise",
        type=_between,
        metavar="LOW:HIGH",
        help="noise that sharp images get, in percent of the range; default: the model's",
    )
    add(
        "--validation",
        nargs="+",
        type=_folder,
        default=[],
        metavar="DIR",
        help="sharp images to validate a recipe on; default: every twentieth of --images",
    )
    add(
        "--out",
        type=Path,
        default=Path("napari-restore-training"),
        metavar="DIR",
        help="where weights, checkpoint and log of a recipe go (default: %(default)s)",
    )
    add(
        "--minutes", type=_positive, metavar="M", help="time to train; default: 15, or the recipe's"
    )
    _add_device(parser)
    add(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights that a recipe starts from. Some recipes are meant to start from another's: "
        "they do so only if you name its weights here",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    add("--threads", type=_count, metavar="N", help="processor threads; default: PyTorch's choice")
    add("--quiet", action="store_true", help="no progress bar")


def _add_adapt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "adapt",
        help="adapt a model to one image",
        description="Train the last blocks of the network that inverts a blur on one image "
        "itself, for a minute or a few. If it is surely better for this image, it goes to your "
        "library, for this image alone; else nothing changes.",
    )
    parser.set_defaults(module="adapt")
    add = parser.add_argument
    add("input", metavar="IMAGE", help="of one channel or color; of a stack, the middle plane")
    add("--name", metavar="NAME", help="what the model is called; default: as the file, adapted")
    add(
        "--task",
        default="deblur",
        choices=("deblur", "motion-deblur"),
        help="what blurred the image: optics (default), or also motion",
    )
    _add_which_psf(
        parser,
        "auto|optics|FILE",
        "point spread function: auto (default, found in the image), optics (from what the image's "
        "metadata record), or an image of one",
    )
    _add_optics(parser)
    _add_device(parser)
    add("--threads", type=_count, metavar="N", help="processor threads; default: PyTorch's choice")
    _add_reading(parser)
    add("--quiet", action="store_true", help="no progress bar")


def _between(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"give two numbers, such as 1:3; got {text}")
    return float(low), float(high)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model beside classical methods",
        description="Degrade sharp images with known physics, restore them, and compare with the "
        "sharp images: PSNR, SSIM and the share of images that became better.",
    )
    parser.set_defaults(module="evaluate")
    add = parser.add_argument
    add("--sharp", required=True, nargs="+", type=_folder, metavar="DIR", help="sharp images")
    add("--task", required=True, type=_task, choices=TASKS, help="what is to be removed")
    add(
        "--kind",
        choices=["color", "mono", "both", "volume"],
        help="volume: stacks, which a microscope blurs; default: color and mono, or what the model "
        "is for",
    )
    add(
        "--model", default="auto", metavar="NAME", help="auto, a model's name, or a file of weights"
    )
    _add_device(parser)
    add("--limit", type=_count, metavar="N", help="take N images, spread over the folder")
    add(
        "--photons",
        type=_positive,
        metavar="N",
        help="of a bright place in a volume; default: drawn for each between 20 and 5000",
    )
    add(
        "--psf",
        choices=("none", "auto"),
        help="none: measure the network alone, ten times as fast, without the columns PSF true and "
        "PSF found; default: as when restoring",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the degradations (default: 0)")
    add("--size", type=_size, metavar="N", help="side of the crops (default: 256; of volumes 96)")
    _add_optics(parser)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="say how far to trust a result",
        description="Compare an image with its result: whether the result explains the image, how "
        "far the model agrees with itself, whether the image is like those it learned from, "
        "resolution, light, and the truth if there is one. Nothing is uploaded.",
    )
    parser.set_defaults(module="check")
    add = parser.add_argument
    add("image", metavar="IMAGE", help="what was restored")
    add("result", metavar="RESULT", help="the result; its file says how it was made")
    add("--reference", metavar="FILE", help="the truth, for PSNR, SSIM and MS-SSIM")
    add("-o", "--output", metavar="report.html", help="write a report")
    add("--map", metavar="error.tif", help="write how large errors are likely to be")
    add(
        "--task",
        choices=[name.replace("_", "-") for name in TASKS],
        help="the task, if the file of the result does not name it",
    )
    add("--pixel-size", metavar="L", help="side of a pixel; default: what the file says")
    _add_device(parser)
    _add_reading(parser)
    add("--force", action="store_true", help="replace an earlier report and map")


def _task(text: str) -> str:
    return text.replace("-", "_")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0; got {text}")
    return value


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}; got {text}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1)


def _size(text: str) -> int:
    return _whole(text, 32)


def _tile(text: str) -> int | str:
    return text if text == "auto" else _whole(text, 16)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


class Steady:
    """A stream that takes everything: what cannot be encoded, and what nobody reads any more.

    Parameters
    ----------
    stream : text stream or None
        None where there is no console, as under ``pythonw``.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream

    def write(self, text: str) -> int:
        """Write; characters that the encoding lacks become escapes."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                plain = text.encode(encoding, "backslashreplace").decode(encoding)
                self._stream.write(plain)
        except (OSError, ValueError):
            self._gone()
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody listens."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._gone()

    def _gone(self) -> None:
        """Nobody listens, or the disk is full: what is buffered must not fail again at the end."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_output() -> Iterator[None]:
    """Let nothing that is said fail, neither here nor in libraries."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Steady(stream) for stream in before)
    try:
        yield
    finally:
        for stream, given in zip((sys.stdout, sys.stderr), before, strict=True):
            stream.flush()
            if given is None:
                stream.close()
        sys.stdout, sys.stderr = before


def say(text: str) -> None:
    """Tell the user something beside the results."""
    print(in_one_line(f"napari-restore: {text}"), file=sys.stderr)


def in_one_line(text: str) -> str:
    """Escape line breaks and other control characters: names of files may hold them."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text
    )


def complain(about: object, error: Exception, *, verbose: bool) -> None:
    """Say in one line what went wrong with a file.

    Parameters
    ----------
    about : object
        The file, as the user named it.
    error : Exception
    verbose : bool
        Whether the traceback follows.
    """
    text = " ".join(str(error).split("\n")).strip()
    if isinstance(error, MemoryError):
        text = f"There is not enough memory. {text}"
    elif not isinstance(error, RestoreError):
        where = "" if verbose else " This should not happen; --verbose shows where."
        text = f"{type(error).__name__}: {text or 'without a message'}.{where}"
    say(f"{about}: {text}")
    if verbose:
        sys.stderr.write("".join(traceback.format_exception(error)))


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Align rows under a header.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequence of str
        Each as long as the header.
    left : int
        How many columns are aligned to the left; the others are figures.
    """
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def progress_bar(pixels: int, name: str, done: int = 0) -> Any:
    """Bar with time left and pixels a second; on a terminal alone.

    Parameters
    ----------
    pixels : int
        In all.
    name : str
        Of the image.
    done : int
        Pixels that an earlier run has restored.
    """
    from tqdm import tqdm

    # disable=None: only on a terminal.
    return tqdm(
        total=pixels,
        initial=done,
        desc=name,
        unit="pixel",
        unit_scale=True,
        disable=None,
        leave=False,
    )


@contextmanager
def shown_on(bar: Any) -> Iterator[None]:
    """Show the progress of what runs in a with block on a bar."""
    last = -1

    def show(step: Progress) -> Progress:
        nonlocal last
        bar.update(step.done - bar.n)
        # A cluster gives many signs of life that say nothing new.
        if step.message or step.done > last:
            bar.set_postfix_str(step.message)
        last = step.done
        return step

    # A dock that runs a batch follows too.
    with relaying(show).around():
        yield
