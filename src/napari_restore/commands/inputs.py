"""Which images a command restores, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_restore.errors import FileError, RestoreError
from napari_restore.files import image_files, is_image_folder, is_zarr

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


class UsageError(RestoreError):
    """The command line asks for what cannot be."""

    usage = True


class Targets:
    """Where results go; no input is replaced, and no result written twice.

    Parameters
    ----------
    sources : iterable of Path
        All inputs.
    """

    def __init__(self, sources: list[Path]) -> None:
        self._sources = {source.resolve() for source in sources}
        self._written: dict[Path, Path] = {}

    def check(self, target: Path) -> None:
        """Raise a `FileError` if a target is an input, or another input's result."""
        place = target.resolve()
        if place in self._sources:
            raise FileError(f"{target} is an input and stays. Name another file or folder.")
        if place in self._written:
            raise FileError(
                f"{target} was written for {self._written[place]} already. Restore files of the "
                "same name into different folders."
            )

    def add(self, target: Path, source: Path) -> None:
        """Note a result that was written."""
        self._written[target.resolve()] = source


def inputs_and_targets(
    args: argparse.Namespace,
) -> Iterator[tuple[Path, Path | RestoreError]]:
    """Input files and where their results go, or why an input is of no use."""
    output = Path(args.output)
    separators = tuple(filter(None, (os.sep, os.altsep)))
    single = len(args.inputs) == 1 and _is_one_image(args.inputs[0])
    into_folder = not single or (output.is_dir() and not is_zarr(output))
    into_folder |= args.output.endswith(separators) and not is_zarr(output)
    if into_folder:
        if output.exists() and (not output.is_dir() or is_zarr(output)):
            raise UsageError(f"Several results need a folder, and {output} is a file.")
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The folder {output} cannot be made: {error}.") from error
    for path in args.inputs:
        if _is_one_image(path):
            # A folder may be named "." or "..".
            name = Path(os.path.abspath(path)).name
            yield path, output / name if into_folder else output
            continue
        try:
            for file in image_files(path):
                yield file, output / file.name
        except RestoreError as error:
            yield path, error


def _is_one_image(path: Path) -> bool:
    """Whether it is one image: OME-Zarr and DICOM series are, though their files are folders."""
    return not path.is_dir() or is_image_folder(path)
