"""The benchmark of a graphics card, with the processor standing in."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from napari_restore.models import catalog

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    told = importlib.util.spec_from_file_location("gpu_benchmark", path)
    assert told is not None
    assert told.loader is not None
    module = importlib.util.module_from_spec(told)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    told.loader.exec_module(module)
    return module


def test_the_processor_stands_in(
    gpu: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("deblur-mono", "dehaze-color", "motion-mono")
    quick = tuple(spec for spec in catalog.CATALOG if spec.name in names)
    monkeypatch.setattr(catalog, "CATALOG", quick)
    told = (*catalog.INVERTERS.values(), catalog.VOLUME_INVERTER)
    monkeypatch.setattr(catalog, "SHIPPED", (quick[1], told[0], told[-1]))
    monkeypatch.setattr(catalog, "INVERTERS", {1: told[0]})
    output = tmp_path / "gpu.md"
    command = ["--device", "cpu", "--side", "32", "--sizes", "0.002", "--output", str(output)]
    assert gpu.main(command) == 0
    table = output.read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert "No card: the processor stood in" in table
    for what in (
        "helpers, cpu and cpu",
        "invert-mono: tiles",
        "invert-volume: cpu and cpu",
        "tiles and the whole",
        "8-bit samples",
        "first result",
        "Mpixel/s",
    ):
        assert what in table
    assert "Memory ran out; going on with tiles of 256 pixels." in table
    assert "FAILED" not in table


def test_a_check_that_breaks_off_is_a_line(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: object) -> None:
        raise RuntimeError("CUDA error:\nno kernel | image")

    monkeypatch.setattr(gpu, "CHECKS", (broken,))
    assert gpu.main(["--device", "cpu"]) == 1
    assert gpu.line(gpu.run(None)[0]) == (
        "| broken | RuntimeError: CUDA error: no kernel / image | FAILED |"
    )


def test_weights_are_read_without_safetensors(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = catalog.CATALOG[0].path
    expected = load_file(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    gpu.offer_safetensors()
    assert sys.modules["safetensors.torch"].load_file is not load_file
    found = sys.modules["safetensors.torch"].load_file(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_every_test_that_needs_a_card_is_run(gpu: ModuleType) -> None:
    root = Path(__file__).parents[1]
    marked = [
        path.relative_to(root).parent.as_posix()
        for path in root.glob("tests/*/**/test_*.py")
        if "mark.card" in path.read_text(encoding="utf-8")
    ]
    assert marked
    assert all(folder.startswith(gpu.FOLDERS) for folder in marked)
