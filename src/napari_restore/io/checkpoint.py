"""A result that takes long: what is finished of it, on disk, until it is whole.

Beside the target lies a folder ``TARGET.part`` with the image, a journal of its finished blocks and
a lock. The journal begins with what the result depends on; a block is noted when it is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from .replacing import Place

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
    """Begin or continue a result; nobody else can until this ends.

    Parameters
    ----------
    place : Place
        Of the folder that it becomes with `Checkpoint.commit`. With ``force`` it begins anew where
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
                    "begin anew with --force."
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
        """Begin anew: remove what there is of the image."""
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
                    f"The unfinished {self._part} cannot be continued, for something has changed: "
                    f"{'; '.join(changed)}. Begin anew with --force, or restore what it was."
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
