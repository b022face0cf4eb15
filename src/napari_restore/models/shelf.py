"""The user's own models on disk: one file for each, found by its name or by its hash."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from napari_restore.errors import FileError, ModelError
from napari_restore.runtime import whole_file

#: Ending of the files; what comes before it is the name.
SUFFIX = ".safetensors"
#: What a name may be on every system.
_NAME = re.compile(r"[^\W_][\w .()+-]{0,78}[\w)+]|[^\W_]")
#: Which model of the user's "auto" takes, by task and kind of image.
_DEFAULTS = "defaults.json"


def folder() -> Path:
    """Where the models are; it may not exist yet."""
    return Path(platformdirs.user_data_dir("napari-restore", appauthor=False)) / "models"


def check_name(name: str) -> str:
    """Return a name without spaces around it.

    Raises
    ------
    ModelError
        If no model can have it.
    """
    name = name.strip()
    ending = name.rpartition(".")[2].lower()
    if not _NAME.fullmatch(name) or ending in ("safetensors", "pth", "pt") or name == "auto":
        raise ModelError(
            f"A model cannot be called '{name}'. Use up to 80 letters, digits, spaces, hyphens and "
            "points, such as 'nuclei 40x'."
        )
    return name


def names() -> dict[str, Path]:
    """Files of the user's models by their names, in alphabetical order."""
    files = folder().glob(f"*{SUFFIX}")
    found = {path.name.removesuffix(SUFFIX): path for path in files if path.name[0] != "."}
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def find_by_hash(digest: str) -> Path | None:
    """Find the file with a SHA-256, whatever it is called here."""
    return next((path for path in names().values() if file_hash(path) == digest), None)


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; once for each state of it."""
    state = path.stat()
    return _hash(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=256)
def _hash(path: Path, *state: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- defaults


def default_for(task: str, kind: str) -> str | None:
    """Name of the user's model that "auto" takes for a kind of image; None for the bundled one."""
    name = _defaults().get(f"{task} {kind}")
    return name if isinstance(name, str) and name in names() else None


def set_default(task: str, kind: str, name: str | None) -> None:
    """Let "auto" take a model for a kind of image; None gives it back to the bundled one.

    Raises
    ------
    FileError
        If that cannot be written.
    """
    kept = {key: value for key, value in _defaults().items() if key != f"{task} {kind}"}
    _write_defaults(kept if name is None else {**kept, f"{task} {kind}": name})


def rename_default(old: str, new: str | None) -> None:
    """Follow a model that was renamed, or removed."""
    known = _defaults()
    changed = {key: new if value == old else value for key, value in known.items()}
    if changed != known:
        _write_defaults({key: value for key, value in changed.items() if value is not None})


def _defaults() -> dict[str, Any]:
    try:
        known = json.loads((folder() / _DEFAULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_defaults(known: dict[str, Any]) -> None:
    path = folder() / _DEFAULTS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error}). The default stays.") from error
