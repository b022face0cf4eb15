"""What stands where a result goes: inputs and other people's files stay, earlier results may go."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_restore.errors import FileError

from .marks import is_earlier_result
from .zarr_reader import is_zarr_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: What file managers leave in folders.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
#: Files of zarr's own, beside the chunks.
_ZARR_FILES = {"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"}


def place_of(path: Path) -> tuple[int, int] | None:
    """Identify what a path leads to, whatever it is called; None if that is nothing."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def folders_around(path: Path) -> list[Path]:
    """All folders in which a path lies, by its name and by where links lead."""
    named, real = Path(os.path.abspath(path)), Path(os.path.realpath(path))
    return list(dict.fromkeys([*named.parents, *real.parents]))


class Inputs:
    """Files and folders that are read: no result takes their place, and they do not change.

    They are known by what their paths lead to, so that links, relative paths and names in another
    case hide nothing.

    Parameters
    ----------
    paths : iterable of Path
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._inputs: dict[tuple[int, int], Path] = {}
        self._around: dict[tuple[int, int], Path] = {}
        self._states: dict[Path, dict[str, tuple[int, int]]] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Count another input in."""
        place = place_of(path)
        if place is None:
            return
        self._inputs[place] = path
        for folder in folders_around(path):
            around = place_of(folder)
            if around is not None:
                self._around.setdefault(around, path)

    def check(self, target: Path) -> None:
        """Raise a `FileError` if a target is an input, holds one, or is a part of one."""
        place = place_of(target)
        if place is None:
            return
        if place in self._inputs:
            raise FileError(f"{target} is an input and stays. Name another file or folder.")
        if place in self._around:
            raise FileError(
                f"{target} holds the input {self._around[place]} and stays. Name another file or "
                "folder."
            )
        for folder in folders_around(target):
            source = self._inputs.get(place_of(folder) or (-1, -1))
            if source is not None:
                raise FileError(
                    f"{target} is a part of the input {source} and stays. Name another file or "
                    "folder."
                )

    def remember(self, path: Path) -> None:
        """Note the state of an input that is read from now on."""
        self.add(path)
        self._states = {path: _state(path)}

    def check_unchanged(self) -> None:
        """Raise a `FileError` if the input of the last `remember` is not as it was."""
        for path, before in self._states.items():
            now = _state(path)
            changed = [name for name, state in before.items() if now.get(name) != state]
            if changed:
                raise FileError(
                    f"The input was changed while it was restored ({', '.join(changed[:3])}), so "
                    "that the result may be a mixture. It is not kept: restore the image again."
                )


def _state(path: Path) -> dict[str, tuple[int, int]]:
    """Size and latest change of a file, or of the files of a folder."""
    if not path.is_dir():
        files = [path]
    elif is_zarr_folder(path):
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    else:
        files = [file for file in path.iterdir() if file.is_file()]
    states = {}
    for file in files:
        with suppress(OSError):
            state = file.stat()
            states[file.name if file == path else str(file.relative_to(path))] = (
                state.st_size,
                state.st_mtime_ns,
            )
    return states


class Place:
    """Where a result goes.

    Parameters
    ----------
    target : Path
    kind : str
        Its format, a value of `FORMATS`.
    force : bool
        Whether an earlier result may be replaced. Nothing else ever is.
    inputs : Inputs
        What no result takes the place of.
    names : collection of str, optional
        Of the files that a result has, where it is a folder of DICOM files.

    Attributes
    ----------
    target, kind, force
        As given.
    """

    def __init__(
        self,
        target: Path,
        kind: str,
        *,
        force: bool,
        inputs: Inputs,
        names: Collection[str] | None = None,
    ) -> None:
        self.target, self.kind, self.force = target, kind, force
        self._inputs, self._names = inputs, names

    @property
    def is_file(self) -> bool:
        """Whether the result is one file, not a folder."""
        return self.kind != "zarr" and self._names is None

    def check(self) -> None:
        """Raise a `FileError` if something stands there that must stay."""
        target = self.target
        if not os.path.lexists(target):
            return
        self._inputs.check(target)
        why = _why_foreign(target, self.kind, self._names)
        if why:
            raise FileError(
                f"{target} {why} and stays: --force replaces earlier results alone. Name another, "
                "or remove it first."
            )
        if not self.force:
            raise FileError(f"{target} exists already. Use --force to replace it.")

    def check_input(self, path: Path) -> None:
        """Raise a `FileError` if something beside the target has to do with an input."""
        self._inputs.check(path)

    @contextmanager
    def appears_whole(self) -> Iterator[Path]:
        """Name to write a file or a folder to; it becomes the target at the end.

        It vanishes on any error, and what stood at the target is there as before.
        """
        temporary = self.target.with_name(f".napari-restore-{secrets.token_hex(6)}.part")
        try:
            yield temporary
            self.take(temporary)
        except OSError as error:
            raise FileError(f"{self.target} cannot be written: {error}.") from error
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    def take(self, made: Path) -> None:
        """Put a file or folder at the target, in place of an earlier result."""
        # Since the last look another run may have been here.
        self.check()
        self._inputs.check_unchanged()
        if made.is_dir():
            _take_folder(made, self.target)
        elif self.force:
            os.replace(made, self.target)
        else:
            _take_file(made, self.target)


def _take_file(made: Path, target: Path) -> None:
    """Rename a file to a name that nobody has, or has got meanwhile."""
    try:
        os.link(made, target)
    except FileExistsError as error:
        raise FileError(f"{target} exists already. Use --force to replace it.") from error
    except OSError:  # a file system without links
        os.replace(made, target)


def _take_folder(made: Path, target: Path) -> None:
    if not os.path.lexists(target):
        os.replace(made, target)
        return
    old = target.with_name(f".napari-restore-{secrets.token_hex(6)}.old")
    os.replace(target, old)
    try:
        os.replace(made, target)
    except OSError:
        os.replace(old, target)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def _why_foreign(target: Path, kind: str, names: Collection[str] | None) -> str:
    """Why a file or folder is no earlier result, as the predicate of a sentence; "" if it is."""
    if target.is_dir():
        there = sorted(path.name for path in target.iterdir() if path.name not in _LITTER)
        if not there:
            return ""
        if kind == "zarr":
            return _why_foreign_zarr(target, there)
        if names is None:
            return "is a folder"
        others = [name for name in there if name not in names]
        others = others or [name for name in there if not is_earlier_result(target / name, "dicom")]
        return _also_holds(others) if others else ""
    if kind == "zarr" or names is not None:
        return f"is no {'zarr ' if kind == 'zarr' else ''}folder, but a file,"
    # An empty file holds nothing that could be lost.
    ours = target.is_file() and (target.stat().st_size == 0 or is_earlier_result(target, kind))
    return "" if ours else "is no result of napari-restore"


def _also_holds(others: list[str]) -> str:
    more = ", …" if len(others) > 3 else ""
    return f"holds other files, which would be lost ({', '.join(others[:3])}{more}),"


def _why_foreign_zarr(folder: Path, there: list[str]) -> str:
    if not is_zarr_folder(folder):
        return "is no zarr folder"
    levels = [name for name in there if name.isdecimal()]
    others = [name for name in there if name not in levels and name not in _ZARR_FILES]
    if others or not is_earlier_result(folder, "zarr"):
        return _also_holds(others) if others else "is no result of napari-restore"
    for level in levels:
        for inside, folders, files in os.walk(folder / level):
            others += [
                str(Path(inside, name).relative_to(folder))
                for name in (*folders, *files)
                if not (name.isdecimal() or name == "c" or name in _ZARR_FILES | _LITTER)
            ]
    return _also_holds(sorted(others)) if others else ""
