"""What a dock would do, as Python for napari's console and as a command for a shell."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_restore.errors import RestoreError
from napari_restore.restoration.plan import Options

from .layers import SUFFIXES
from .psf_source import BeadsIn, OpticsOf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .jobs import LayerJob
    from .options import DockOptions


def python_of(jobs: Sequence[LayerJob], options: DockOptions, task: str) -> str:
    """Lines that do in napari's console what the dock would do.

    Raises
    ------
    RestoreError
        If a script cannot say it.
    """
    if any(job.partner is not None for job in jobs):
        raise RestoreError(
            "Two selected images as neighboring frames cannot be copied. Stack them along a time "
            "axis first: Layers ▸ Merge to Stack."
        )
    # Those of `restore_layer`, which are not the dock's.
    defaults = {field.name: field.default for field in fields(Options) if field.name != "task"}
    defaults |= {"channel_axis": "auto", "time_axis": None, "scheduler": None}
    given = {name: getattr(options, name) for name in defaults}
    if all(job.plan.dimensions == 2 for job in jobs):
        # What "auto" came to.
        given["dimensions"] = 2
    imports = {"from napari_restore import restore_layer"}
    words = [
        f"{name}={_expression(value, imports)}"
        for name, value in given.items()
        if not _same(value, defaults[name])
    ]
    call = ", ".join([f"viewer.layers[name], {task!r}", *words])
    names = ", ".join(repr(job.name) for job in jobs)
    return "\n".join(
        [
            "import napari",
            *sorted(imports),
            "",
            "viewer = napari.current_viewer()",
            f"for name in [{names}]:",
            f"    viewer.add_layer(restore_layer({call}))",
            "",
        ]
    )


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _expression(value: Any, imports: set[str]) -> str:
    if isinstance(value, Image):
        return f"viewer.layers[{value.name!r}]"
    if isinstance(value, BeadsIn):
        imports.add("from napari_restore.gui.psf_source import BeadsIn")
        return f"BeadsIn(viewer.layers[{value.layer.name!r}])"
    if isinstance(value, OpticsOf):
        imports.add("from napari_restore.gui.psf_source import OpticsOf")
        return f"OpticsOf({dict(value.told)!r})"
    return repr(value)


def command_of(jobs: Sequence[LayerJob], options: DockOptions, task: str) -> str:
    """Shell command for each file that the layers were opened from; results lie beside them.

    Raises
    ------
    RestoreError
        If a layer, or its point spread function, comes from no file.
    """
    lines = []
    for job in jobs:
        path = file_of(job.layer)
        words = arguments_of(options, task, job)
        target = path.with_name(_beside(path.name, SUFFIXES[task]))
        words = ["napari-restore", *words, str(path), "-o", str(target)]
        lines.append(subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words))
    return "\n".join(lines) + "\n"


def file_of(layer: Image) -> Path:
    """File that a layer was opened from.

    Raises
    ------
    RestoreError
        If there is none.
    """
    path = layer.source.path
    if path is None:
        raise RestoreError(
            f"'{layer.name}' was not opened from a file, and a command needs one. Save it with "
            "File ▸ Save Selected Layers, and open that."
        )
    return Path(path).absolute()


def _beside(name: str, done: str) -> str:
    """Name of a result, its ending kept: "cells.ome.tif" becomes "cells deblurred.ome.tif"."""
    stem, dot, ending = name.partition(".")
    return f"{stem} {done}{dot}{ending}"


def arguments_of(options: DockOptions, task: str, job: LayerJob | None = None) -> list[str]:
    """Words of the command line that mean what the controls say, without input and output.

    What the parser of the command knows is asked of it: a new option of it is one here too.

    Parameters
    ----------
    options : DockOptions
    task : str
    job : LayerJob, optional
        For what hangs on a layer: the size of its pixels, and its axes.

    Raises
    ------
    RestoreError
        If the command line cannot say it.
    """
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    actions = _actions(task)
    values["psf"], more = _psf_words(options.psf)
    known = {flag for action in actions for flag in action.option_strings}
    for word in more:
        if word.startswith("--") and word not in known:
            raise RestoreError(
                f"The command line has no option {word}. Copy as Python, or leave that field empty."
            )
    if options.structure_size is not None and job is not None:
        values["structure_size"] = job.plan.options.structure_size
    chosen = options.channel_axis != "auto" or options.time_axis is not None
    if job is not None and chosen:
        values["axes"] = job.plan.layout.axes
    words = [task.replace("_", "-")]
    for action in actions:
        value = values.get(action.dest)
        if value is None or value == action.default:
            continue
        if isinstance(action, argparse.BooleanOptionalAction):
            words.append(action.option_strings[0 if value else 1])
        else:
            words += [action.option_strings[0], str(value)]
    return words + more


def _actions(task: str) -> list[argparse.Action]:
    from napari_restore.cli import make_parser

    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[task.replace("_", "-")]
            return [each for each in parser._actions if each.option_strings]
    raise AssertionError("the command line has no commands")


def _psf_words(psf: Any) -> tuple[str | None, list[str]]:
    """Value of --psf, and other words that say what blurred the image."""
    if isinstance(psf, OpticsOf):
        words = []
        flags = {"refractive_index": "--ri"}
        for name, value in psf.told.items():
            values = value if isinstance(value, list) else [value]
            text = ",".join(str(each).replace(" ", "") for each in values)
            if name == "modality":
                text = str(value)
                if text == "widefield" and len(psf.told) > 1:
                    continue
            words += [flags.get(name, "--" + name.replace("_", "-")), text]
        return None, words
    if isinstance(psf, BeadsIn):
        return None, ["--beads", str(file_of(psf.layer))]
    if isinstance(psf, Image):
        return str(file_of(psf)), []
    return psf, []
