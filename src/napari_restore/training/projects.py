"""A user's training on disk: what was asked for, how far it is, and what is wished of it.

A folder holds everything, so that a training outlives the window that started it: another napari,
or a shell, goes on from there.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.models.library import check_name
from napari_restore.runtime import whole_file, write_text

#: What a training may be asked for while it runs.
PAUSE, KEEP = "pause", "keep"
#: Names of the files in a project's folder, beside those of the trainer.
_SETTINGS, _STATUS, _WISH, _EXAMPLE = "settings.json", "status.json", "wish", "example.npy"


@dataclass(frozen=True)
class Settings:
    """What a user asks of a training.

    Attributes
    ----------
    name : str
        Of the model that it makes.
    model : str
        The model that it begins with.
    sharp : tuple of str
        Folders of sharp images, which are degraded; empty for pairs.
    low, high : tuple of str
        Folders of recorded pairs.
    minutes : float
        Of training, without what is done between.
    blur : (float, float) or None
        Least and largest blur of sharp images, as the standard deviation in pixels; None as the
        model was trained with.
    noise : (float, float) or None
        Least and largest noise, as a share of the range.
    device : str
    threads : int
        Of a processor; 0 leaves it to PyTorch.
    seed : int
    notes : tuple of str
        What was found out about the images before.
    """

    name: str
    model: str
    sharp: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    minutes: float = 15.0
    blur: tuple[float, float] | None = None
    noise: tuple[float, float] | None = None
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def from_pairs(self) -> bool:
        """Whether it learns from recorded pairs."""
        return bool(self.low or self.high)

    def checked(self) -> Settings:
        """Return them, or say what is wrong.

        Raises
        ------
        RestoreError
            The message names the value and the remedy.
        """
        if bool(self.sharp) == self.from_pairs:
            raise RestoreError("Give sharp images, or pairs of low and high quality.")
        if self.from_pairs and not (self.low and self.high):
            raise RestoreError("Pairs need images of low quality, and of high quality.")
        if not 0 < self.minutes < float("inf"):
            raise RestoreError(f"minutes must be more than 0; got {self.minutes!r}.")
        for name, most, unit in (("blur", 10.0, "pixels"), ("noise", 0.5, "of the range")):
            between = getattr(self, name)
            if between is None:
                continue
            if self.from_pairs:
                raise RestoreError(f"{name} is for sharp images; pairs have their own.")
            low, high = between
            if not 0 <= low <= high <= most or not high > 0:
                raise RestoreError(
                    f"{name} must go from 0 or more up to at most {most:g} {unit}; got {low:g} to "
                    f"{high:g}."
                )
        return replace(self, name=check_name(self.name))


@dataclass(frozen=True)
class Status:
    """How far a training is.

    Attributes
    ----------
    state : str
        "new", "preparing", "training", "validating", "paused", "done" or "failed".
    message : str
        What happened, for people.
    warning : str
        What they should think about.
    step : int
    elapsed : float
        Seconds of training.
    left : float
        Seconds until it ends, as far as can be said.
    loss : float
    start, best, last : float or None
        PSNR in dB of the weights that it began with, of the best, and of the last ones.
    images, held_out : int
    result : str
        Name of the model in the library, once there is one.
    """

    state: str = "new"
    message: str = ""
    warning: str = ""
    step: int = 0
    elapsed: float = 0.0
    left: float = 0.0
    loss: float = 0.0
    start: float | None = None
    best: float | None = None
    last: float | None = None
    images: int = 0
    held_out: int = 0
    result: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state == "done"


def projects_folder() -> Path:
    """Where the trainings are; it may not exist yet."""
    return Path(platformdirs.user_data_dir("napari-restore", appauthor=False)) / "trainings"


@dataclass(frozen=True)
class Project:
    """A training in its folder.

    Attributes
    ----------
    folder : Path
    settings : Settings
    """

    folder: Path
    settings: Settings = field(repr=False)

    @classmethod
    def create(cls, settings: Settings) -> Project:
        """Make the folder of a new training.

        Raises
        ------
        RestoreError
            If the settings are of no use, or there is a training of that name.
        """
        settings = settings.checked()
        folder = projects_folder() / settings.name
        if (folder / _SETTINGS).exists():
            raise ModelError(
                f"There is a training '{settings.name}' already. Continue it, discard it, or "
                "choose another name."
            )
        project = cls(folder, settings)
        project._write(_SETTINGS, asdict(settings))
        return project

    @classmethod
    def load(cls, name: str) -> Project:
        """Find a training.

        Raises
        ------
        ModelError
            If there is none of that name, or its folder is damaged.
        """
        folder = projects_folder() / check_name(name)
        known = _read(folder / _SETTINGS)
        if known is None:
            names = ", ".join(project.settings.name for project in all_projects()) or "none"
            raise ModelError(f"No training '{name}' in {folder.parent}. There are: {names}.")
        lists = {f.name for f in fields(Settings) if "tuple" in str(f.type)}
        values: dict[str, Any] = {
            key: tuple(value) if key in lists and value is not None else value
            for key, value in known.items()
        }
        try:
            settings = Settings(**values)
        except TypeError as error:
            raise ModelError(f"{folder / _SETTINGS} is damaged: {error}.") from error
        return cls(folder, settings)

    # ------------------------------------------------------------ what it says

    @property
    def status(self) -> Status:
        """How far it is, as the training said last; "paused" if whoever trained is gone."""
        known = _read(self.folder / _STATUS)
        names = {each.name for each in fields(Status)}
        status = Status(**{k: v for k, v in (known or {}).items() if k in names})
        if status.state in ("preparing", "training", "validating") and not self.running:
            # Whoever trained is gone.
            message = "It was broken off, and continues from its last checkpoint."
            return replace(status, state="paused", message=message)
        return status

    @property
    def curve(self) -> list[dict[str, float]]:
        """Figures of each validation, with ``minutes`` and ``step``."""
        try:
            text = (self.folder / f"{self.settings.name}.jsonl").read_text(encoding="utf-8")
        except OSError:
            return []
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line that a crash has cut
            if isinstance(row, dict):
                rows.append(row)
        return rows

    @property
    def example(self) -> Any:
        """Part of a held-out image, uint8 (3, H, W, C): degraded, restored now, true; or None."""
        import numpy as np

        try:
            return np.load(self.folder / _EXAMPLE, allow_pickle=False)
        except (OSError, ValueError):
            return None

    @property
    def running(self) -> bool:
        """Whether a process trains now."""
        lock = self.lock()
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            return True
        except OSError:
            return False
        lock.release()
        return False

    def lock(self) -> Any:
        """Lock that whoever trains holds."""
        from filelock import FileLock

        return FileLock(self.folder / "lock", is_singleton=False)

    # ------------------------------------------------------------ what is told

    def tell(self, status: Status) -> None:
        """Say how far it is."""
        self._write(_STATUS, asdict(status))

    def show(self, example: Any) -> None:
        """Keep an example, see `example`."""
        import numpy as np

        with whole_file(self.folder / _EXAMPLE) as temporary, temporary.open("wb") as file:
            np.save(file, example, allow_pickle=False)

    def wish(self, what: str) -> None:
        """Ask whoever trains to `PAUSE`, or to stop and `KEEP` the best."""
        (self.folder / _WISH).write_text(what, encoding="ascii")

    def wished(self) -> str:
        """Return what was asked for, or nothing."""
        try:
            return (self.folder / _WISH).read_text(encoding="ascii")
        except OSError:
            return ""

    def forget_wish(self) -> None:
        """Wish for nothing."""
        (self.folder / _WISH).unlink(missing_ok=True)

    def clean(self) -> None:
        """Drop what is large, once the model is in the library."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix in (".ckpt", ".safetensors"):
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete it; models of the library stay.

        Raises
        ------
        RestoreError
            If it is running.
        """
        if self.running:
            raise RestoreError(f"'{self.settings.name}' is running. Pause it first.")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, value: Any) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(value, indent=1))
        except OSError as error:
            raise FileError(f"{path} cannot be written ({error}).") from error


def all_projects() -> list[Project]:
    """All trainings, the newest first."""
    found = []
    for path in projects_folder().glob(f"*/{_SETTINGS}"):
        try:
            found.append((path.stat().st_mtime, Project.load(path.parent.name)))
        except (ModelError, OSError):
            continue
    return [project for _, project in sorted(found, key=lambda pair: -pair[0])]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None
