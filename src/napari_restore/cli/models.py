"""``napari-restore models``: what ships and the user's own, to list, import and keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_restore.cli import format_table, progress_bar, say, shown_on
from napari_restore.models import catalog, library

if TYPE_CHECKING:
    import argparse

    from napari_restore.models.library import Entry

_HEADER = (
    *("model", "task", "channels", "license", "origin", "hash", "size"),
    *("PSNR", "better", "sharp images"),
)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; without a word, list the library."""
    return {
        "list": _list,
        "show": _show,
        "import": _import,
        "rename": _rename,
        "remove": _remove,
        "export": _export,
        "default": _default,
    }[args.action](args)


def _list(args: argparse.Namespace) -> int:
    found, problems = library.entries()
    print(format_table(_HEADER, map(_row, found), left=6))
    print(
        "\nValidation on synthetic degradation: PSNR of input → result; share of images that\n"
        "became better; PSNR of sharp images that are returned. A dash: not recorded.\n"
        f"A star: auto takes it for such images. Your own models are in {catalog.own_folder()}."
    )
    for problem in problems:
        say(problem)
    return 1 if problems else 0


def _row(entry: Entry) -> tuple[str, ...]:
    spec, figures = entry.spec, entry.figures
    better = f"{100 * figures['improved']:.0f} %" if "improved" in figures else "–"
    sharp = f"{figures['identity']:.1f} dB" if "identity" in figures else "–"
    return (
        spec.name + (" *" if entry.default else ""),
        spec.task.replace("_", "-"),
        f"{spec.channels} ({spec.kind})",
        spec.license,
        entry.origin,
        (spec.sha256 or "")[:8],
        f"{entry.megabytes:.1f} MB",
        entry.gain,
        better,
        sharp,
    )


def _show(args: argparse.Namespace) -> int:
    print(library.find_entry(args.name).card(), end="")
    return 0


def _import(args: argparse.Namespace) -> int:
    path = Path(args.file)
    with progress_bar(1, path.name) as bar, shown_on(bar):
        entry = library.add(path, args.name, task=args.task, license=args.license, notes=args.notes)
    print(f"Imported '{entry.name}' into {catalog.own_folder()}.")
    print(f"Use it: {_command(entry)}")
    return 0


def _rename(args: argparse.Namespace) -> int:
    print(f"'{args.name}' is now '{library.rename(args.name, args.new).name}'.")
    return 0


def _remove(args: argparse.Namespace) -> int:
    library.remove(args.name)
    print(f"Removed '{args.name}'.")
    return 0


def _export(args: argparse.Namespace) -> int:
    path = library.export(args.name, Path(args.output), force=args.force)
    print(f"Wrote {path}" + (" for bioimage.io." if path.suffix == ".zip" else " and its card."))
    return 0


def _default(args: argparse.Namespace) -> int:
    entry = library.use_by_default(args.name)
    task = entry.spec.task.replace("_", "-")
    print(f"auto takes '{entry.name}' for {task} of {entry.spec.kind} images.")
    return 0


def _command(entry: Entry) -> str:
    task = entry.spec.task.replace("_", "-")
    return f"napari-restore {task} IN -o OUT --model '{entry.name}'"
