"""``napari-restore adapt``: adapt a model to one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_restore.cli import complain, say
from napari_restore.errors import RestoreError
from napari_restore.io import read_image, reading
from napari_restore.models.library import adapted_name
from napari_restore.runtime import use_threads

from .restore import PsfSource

if TYPE_CHECKING:
    import argparse

    from napari_restore.runtime import Progress
    from napari_restore.training.adapting import Adaptation


def run(args: argparse.Namespace) -> int:
    """Adapt, and say what came of it; that nothing did is no error."""
    source = PsfSource(args)
    if args.threads:
        use_threads(args.threads)
    try:
        found = _adapted(args, source)
    except RestoreError as error:
        complain(args.input, error, verbose=args.verbose)
        return 1
    print(f"{args.input}: {found.statement}")
    if found:
        print(f"Use it: napari-restore {args.task} {args.input} -o OUT --model '{found.name}'")
        print(f"Undo it: napari-restore models remove '{found.name}'")
    return 0


def _adapted(args: argparse.Namespace, source: PsfSource) -> Adaptation:
    from tqdm import tqdm

    from napari_restore.training.adapting import adapt

    picture = read_image(Path(args.input), args.series)
    axes, rgb = reading(picture, args.axes, args.rgb)
    options: dict[str, Any] = {
        "task": args.task.replace("-", "_"),
        "device": args.device,
        "invalid_value": picture.invalid_value,
    }
    found, notes = source.options(picture)
    for note in [*picture.notes, *notes]:
        say(f"{args.input}: note: {note}")
    options |= found
    name = args.name or adapted_name(picture.path.name.partition(".")[0])
    # disable=None: only on a terminal.
    with tqdm(desc=picture.path.name, disable=args.quiet or None, leave=False) as bar:

        def show(step: Progress) -> None:
            bar.total = step.total
            bar.update(step.done - bar.n)
            bar.set_postfix_str(step.message)

        return adapt(picture.data, name=name, axes=axes, rgb=rgb, progress=show, **options)
