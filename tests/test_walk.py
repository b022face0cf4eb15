"""One way through the package: which modules a restoration enters, and that it goes down."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import napari_restore
from napari_restore import restore
from napari_restore.cli import main
from napari_restore.inference import predictor
from napari_restore.io import read_image, write_image

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(napari_restore.__file__).parent
#: Most modules that a walk may enter.
MOST = 14


def entered_by(call: Callable[[], object]) -> set[str]:
    """Modules whose functions a call runs, in any thread."""
    files: set[str] = set()

    def note(frame, event, _argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    inside = (Path(file).relative_to(ROOT) for file in files if Path(file).is_relative_to(ROOT))
    return {path.as_posix() for path in inside}


@pytest.fixture
def blurred(monkeypatch):
    """A small image; every module is imported and no model is loaded."""
    for module in pkgutil.walk_packages(napari_restore.__path__, "napari_restore."):
        if not {"gui", "_npe1", "__main__"} & set(module.name.split(".")):
            importlib.import_module(module.name)
    # As in a new process: threads that ran before are not followed.
    predictor._load.cache_clear()
    noise = np.random.default_rng(0).random((96, 96))
    return (gaussian_filter(noise, 3) * 60000).astype(np.uint16)


def test_restore_enters_few_modules(blurred):
    """Cold: the model is loaded on the way."""
    entered = entered_by(lambda: restore(blurred, "deblur", psf="none", tile=64, device="cpu"))
    assert "networks/resunet.py" in entered
    assert len(entered) <= MOST, sorted(entered)


def test_command_line_enters_few_modules(blurred, tmp_path):
    """Cold as well, from OME-Zarr to OME-Zarr."""
    np.save(tmp_path / "a.npy", blurred)
    picture = read_image(tmp_path / "a.npy")
    picture.axes = "YX"
    write_image(tmp_path / "a.ome.zarr", picture.data, picture, "{}")
    paths = [str(tmp_path / "a.ome.zarr"), "-o", str(tmp_path / "b.ome.zarr")]
    entered = entered_by(lambda: main(["deblur", *paths, "--psf", "none", "--device", "cpu"]))
    assert {"networks/resunet.py", "io/ome_zarr.py"} <= entered
    assert len(entered) <= MOST, sorted(entered)
