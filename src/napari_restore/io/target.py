"""Where a result goes: inputs and other people's files stay, and it appears whole or not at all.

What takes long grows beside its target, in a folder ``TARGET.part`` with the image, a journal of
its finished blocks and a lock. The journal begins with what the result depends on; a block is noted
when it is on disk.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

from .formats import FORMATS, is_earlier_result
from .ome_zarr import is_zarr_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

#: What file managers leave in folders.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
#: Files of zarr's own, beside the chunks.
_ZARR_FILES = {"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"}


def place_of(path: Path) -> tuple[int, int] | None:
    """Identify the file or folder that a path leads to; None if there is none."""
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
        return not FORMATS[self.kind].folder and self._names is None

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
    """Give a file a name, unless another file has got it meanwhile."""
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
        if FORMATS[kind].folder:
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


# ---------------------------------------------------------------- results that grow

#: Bytes of the longest file name that file systems take.
_NAME_BYTES = 255
#: What there is in the folder of an unfinished result.
_OWN_NAMES = {"lock", "journal", "image"}


def part_of(target: Path) -> Path:
    """Folder in which a target grows."""
    name = f"{target.name}.part"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".napari-restore-{sha256(os.fsencode(name)).hexdigest()[:16]}.part"
    return target.with_name(name)


@contextmanager
def unfinished(place: Place, *, resume: bool) -> Iterator[Checkpoint]:
    """Begin or continue a result; no other process can until this ends.

    Parameters
    ----------
    place : Place
        Of the folder that it becomes with `Checkpoint.commit`. With ``force`` it starts over where
        an earlier run has left something.
    resume : bool
        Whether to continue what an earlier run has left.

    Raises
    ------
    FileError
        If another process writes it, or an earlier run has left something and neither is wanted,
        or a file cannot be written.
    """
    from filelock import FileLock, Timeout

    target = place.target
    part = part_of(target)
    left: Checkpoint | None = None
    try:
        _check_part(part, place)
        part.mkdir(exist_ok=True)
        lock = FileLock(part / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FileError(f"Another run is writing {target} just now.") from None
        try:
            left = Checkpoint(place, part)
            if left.header and not (resume or place.force):
                raise FileError(
                    f"An earlier run has left {part} unfinished. Continue it with --resume, or "
                    "start over with --force."
                )
            if not (left.header and resume):
                left.clear()
            yield left
        finally:
            # While the lock is held: what another run makes afterward is its own.
            if left is not None and not left.header:
                shutil.rmtree(part, ignore_errors=True)
            lock.release()
            if os.name == "nt" and left is not None and not left.header:
                shutil.rmtree(part, ignore_errors=True)  # a locked file stays there
    except OSError as error:
        raise FileError(f"{target} cannot be written: {error}.") from error


@contextmanager
def grows_whole(place: Place) -> Iterator[Path]:
    """Name of a folder to write to, as `Place.appears_whole`; it is locked meanwhile."""
    with unfinished(place, resume=False) as part:
        part.begin({"writing": place.target.name}, lambda: None)
        yield part.image
        part.commit()


def _check_part(part: Path, place: Place) -> None:
    """Raise a `FileError` if something else has the name of the folder."""
    if not os.path.lexists(part):
        return
    place.check_input(part)
    names = set(os.listdir(part)) if part.is_dir() and not part.is_symlink() else {""}
    # A run that was killed early has left the lock alone, one that was not no lock.
    if names and (names - _OWN_NAMES or not names & {"lock", "journal"}):
        raise FileError(
            f"{part} is no unfinished result, and stays. Name another result, or move it away."
        )


class Checkpoint:
    """What there is of a result; made by `unfinished`.

    Attributes
    ----------
    image : Path
        Folder of the image.
    header : mapping
        What the result depends on, and how it is made; empty where there is nothing to continue.
    done : mapping
        Records of the finished blocks, by (level, number).
    """

    def __init__(self, place: Place, part: Path) -> None:
        self._place, self._part = place, part
        self._journal = part / "journal"
        self.image = part / "image"
        self.header: dict[str, Any] = {}
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        if not self._journal.exists() or not self.image.is_dir():
            return
        # The last line may be torn.
        lines = self._journal.read_bytes().split(b"\n")[:-1]
        whole = 0
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                break
            whole += len(line) + 1
            if self.header:
                self.done[record.pop("level"), record.pop("block")] = record
            else:
                self.header = record
        os.truncate(self._journal, whole)

    def clear(self) -> None:
        """Start over: remove what there is of the image."""
        self.header, self.done = {}, {}
        self._journal.unlink(missing_ok=True)
        if self.image.exists():
            shutil.rmtree(self.image)

    def begin(self, header: Mapping[str, Any], create: Callable[[], None]) -> None:
        """Make the image's files, or see that those of the earlier run can be continued.

        Parameters
        ----------
        header : mapping
            What the result depends on, in plain types.
        create : callable
            Makes the files.

        Raises
        ------
        FileError
            If something that the result depends on is not as it was; the message says what.
        """
        plain: dict[str, Any] = json.loads(json.dumps(header))
        if self.header:
            changed = _differences(self.header, plain)
            if changed:
                raise FileError(
                    f"The unfinished {self._part} cannot be continued, as something has changed: "
                    f"{'; '.join(changed)}. Start over with --force, or undo the change."
                )
            for torn in self.image.rglob("*.partial"):
                torn.unlink()
            return
        self.clear()
        create()
        self.header = plain
        self._append(plain)

    def finished(self, level: int, number: int, **record: Any) -> None:
        """Note that a block is on disk."""
        self.done[level, number] = record
        self._append({"level": level, "block": number, **record})

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._journal.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Make the image the target, in place of an earlier result."""
        self._place.take(self.image)
        self.header = {}


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """List what differs between two nested records."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        inner = (
            _differences(before.get(key), now.get(key), f"{name} {key}".strip()) for key in keys
        )
        return [change for changes in inner for change in changes]
    return [] if before == now else [f"{name} was {before}, is {now}"]
