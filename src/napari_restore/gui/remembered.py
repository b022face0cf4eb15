"""What docks remember between sessions: settings as they were last, and presets under a name."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from napari_restore.runtime import write_text


def read_json(path: Path) -> Any:
    """Read a file; None if it is not there, or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Write all or nothing; it is a convenience, and a read-only home no reason to complain."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, indent=1))


class Settings:
    """Values of controls by task. Each look reads the file: another napari may have written it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self, task: str) -> dict[str, Any]:
        """Values as they were last; empty if there are none."""
        return self._part("last").get(task, {})

    def keep_last(self, task: str, values: dict[str, Any]) -> None:
        """Remember values as the last."""
        self._write("last", task, values)

    def presets(self, task: str) -> dict[str, dict[str, Any]]:
        """Values by the name that they were saved under."""
        return self._part("presets").get(task, {})

    def save_preset(self, task: str, name: str, values: dict[str, Any]) -> None:
        """Save values under a name; an earlier preset of the name is replaced."""
        self._write("presets", task, {**self.presets(task), name: values})

    def delete_preset(self, task: str, name: str) -> None:
        """Forget a preset."""
        kept = {each: values for each, values in self.presets(task).items() if each != name}
        self._write("presets", task, kept)

    def _all(self) -> dict[str, Any]:
        known = read_json(self._path)
        return known if isinstance(known, dict) else {}

    def _part(self, name: str) -> dict[str, dict[str, Any]]:
        part = self._all().get(name)
        part = part if isinstance(part, dict) else {}
        return {task: values for task, values in part.items() if isinstance(values, dict)}

    def _write(self, name: str, task: str, values: dict[str, Any]) -> None:
        write_json(self._path, {**self._all(), name: {**self._part(name), task: values}})


@cache
def known_settings() -> Settings:
    """Return the settings for all docks of this napari."""
    return Settings(Path(platformdirs.user_config_dir("napari-restore")) / "docks.json")
