"""Which images a command restores, and where their results go."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_restore.errors import FileError, RestoreError
from napari_restore.io import Inputs, image_files, is_image_folder, is_zarr, zarr_around
from napari_restore.io.target import place_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


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
        raise UsageError(f"{args.output} is an address. Name a file or folder of this computer.")
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
            "This is an address. Files have to lie on this computer: download it, or mount where "
            "it lies, and name its path."
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
