"""What may import what, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "napari_restore"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "torch",
    "napari",
    "qtpy",
    "PyQt6",
    "magicgui",
    "superqt",
    "dask",
    "distributed",
    "skimage",
    "zarr",
    "nibabel",
    "pydicom",
)
LONGEST = 300

#: Parts of the package that a part must never import, not even in a function.
ABOVE_MODELS = {
    *("api", "blockwise", "cli", "cluster", "commands", "connection", "evaluation", "files"),
    *("findings", "gui", "plan", "remote", "restoration", "training"),
}
FORBIDDEN = {
    "errors": ABOVE_MODELS | {"core", "models", "physics", "samples"},
    "core": ABOVE_MODELS | {"models", "physics", "samples"},
    "models": ABOVE_MODELS | {"samples"},
    "physics": ABOVE_MODELS | {"core", "errors", "models", "samples"},
    "files": ABOVE_MODELS - {"files"} | {"models"},
    "training": {"api", "cli", "commands", "findings", "gui", "plan", "restoration"},
    "evaluation": {"cli", "commands", "gui"},
    "connection": ABOVE_MODELS - {"connection"} | {"models"},
    "cluster": ABOVE_MODELS - {"cluster", "connection"} | {"models"},
    "plan": {"api", "cli", "commands", "gui", "remote", "restoration", "training"},
    "remote": {"api", "cli", "commands", "gui", "restoration", "training"},
    "findings": {"api", "cli", "commands", "gui", "remote", "restoration", "training"},
    "blockwise": {"api", "cli", "commands", "gui", "training"},
    "restoration": {"api", "cli", "commands", "gui", "training"},
    "api": {"cli", "commands", "gui", "training"},
    "commands": {"cli", "gui"},
    "gui": {"cli", "commands", "training", "evaluation"},
}


@pytest.mark.parametrize(
    "statement",
    [
        "import napari_restore",
        "import napari_restore.models.catalog",
        "import napari_restore.samples",
        "import napari_restore.cli",
        "from napari_restore.models.catalog import find_model; find_model('deblur', 1)",
        "from napari_restore import deblur, restore, RestoreError",
    ],
)
def test_import_stays_light(statement):
    code = f"{statement}; import sys; print(*set(sys.modules) & {set(HEAVY)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def name_of(path: Path) -> str:
    """Relative POSIX path, for the names of tests."""
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> set[str]:
    """Parts of the package that a module imports, anywhere in it: "core", "gui", …"""
    home = ["napari_restore", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            names |= {".".join([*base, alias.name]) for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "napari_restore" and len(part) > 1}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_down_only(part):
    files = [path for path in MODULES if name_of(path).split("/")[0].removesuffix(".py") == part]
    assert files, f"there is no {part} any more; mend the table"
    found = {name_of(path): sorted(imports(path) & FORBIDDEN[part]) for path in files}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_table_covers_the_package():
    parts = {name_of(path).split("/")[0].removesuffix(".py") for path in MODULES}
    entries = {"__init__", "_npe1", "cli", "samples"}  # nobody imports the first three
    assert parts - entries == set(FORBIDDEN)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_qt_is_reached_through_qtpy(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    assert not names & {"PyQt5", "PyQt6", "PySide2", "PySide6"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_file_is_one_idea(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST
