"""What importing the package loads, and how Qt is reached. Who may import whom: `lint-imports`."""

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


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_threads_that_wait_leave_the_cores_to_others(chosen, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    code = "import napari_restore, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == (chosen or "PASSIVE"), done.stderr


def name_of(path: Path) -> str:
    """Relative POSIX path, for the names of tests."""
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_qt_is_reached_through_qtpy(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    assert not names & {"PyQt5", "PyQt6", "PySide2", "PySide6"}
