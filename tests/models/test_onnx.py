"""ONNX out: the graph computes what the network does; what cannot be exported is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_restore.errors import FileError, ModelError
from napari_restore.models import library
from napari_restore.models.catalog import build_network, load_weights
from small_networks import SMALL, SMALL_RESUNET

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("resunet", {"channels": 1, "keep_mean": True, "estimates": 1, **SMALL_RESUNET}),
        ("resunet", {"channels": 3, **SMALL_RESUNET}),
        ("nafnet", {"channels": 1, **SMALL}),
        ("nafnet", {"channels": 3, "unshuffle": 1, "attention_window": 24, **SMALL}),
    ],
    ids=["resunet mono", "resunet color", "nafnet", "nafnet with windows"],
)
def test_the_graph_computes_what_the_network_does(
    architecture: str, options: dict[str, Any], write_model: Callable[..., str], tmp_path: Path
) -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason="needs the extra 'onnx'")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    entry = library.add(Path(write_model("small", "deblur", architecture, **options)), "small")
    path = library.export("small", tmp_path / "small.onnx")
    assert path.with_suffix(".md").read_text(encoding="utf-8") == entry.card()
    session = runtime.InferenceSession(path.read_bytes())
    spec = entry.spec
    said = {
        key.removeprefix("napari_restore."): value
        for key, value in session.get_modelmeta().custom_metadata_map.items()
    }
    assert (said["name"], said["task"], said["license"]) == ("small", "deblur", spec.license)
    assert said["weights_sha256"] == spec.sha256
    numbers = [json.loads(said[key]) for key in ("channels", "multiple_of", "halo")]
    assert numbers == [spec.channels, spec.multiple_of, spec.halo]
    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_weights(spec))
    network.eval()
    step = spec.multiple_of
    for count, height, width in ((1, 64, 64 + step), (3, 17 * step, 9 * step), (1, 32, 32)):
        image = torch.rand(count, spec.channels, height, width)
        with torch.inference_mode():
            expected = network(image).numpy()
        (result,) = session.run(["restored"], {"image": image.numpy()})
        np.testing.assert_allclose(result, expected, atol=2e-5)


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # How many values there are is known only when they are.
        return x * len(x[x > x.mean()].unique().tolist())

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        pass


class Counting(Spectrum):
    """Gives another result each time, as one does that keeps the size of the first image."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x * self.seen


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("dehaze-mono", "looks at the whole image too"),
        ("dehaze-color", "looks at the whole image too"),
        ("motion-color", "moves pixels along a motion"),
        ("motion-frames-mono", "looks at two frames"),
        ("invert-mono", "is told a point spread function"),
        ("invert-volume", "is told a point spread function"),
    ],
)
def test_models_that_need_more_than_a_part_are_refused(
    name: str, needs: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"'{name}' {needs}.*ONNX.*no place"):
        library.export(name, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r'pip install "napari-restore\[onnx\]"'):
        library.export("deblur-mono", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", [Spectrum(), Counting()], ids=["data", "changing"])
def test_what_the_exporter_does_not_know_is_said_and_leaves_nothing(
    network: nn.Module, mono_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_restore.models import onnx_file

    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason="needs the extra 'onnx'")

    library.add(Path(mono_model), "small")
    monkeypatch.setattr(onnx_file, "build_network", lambda *_: network)
    with pytest.raises(ModelError, match=r"'small' cannot be written as ONNX: .* the exporter"):
        library.export("small", tmp_path / "x.onnx")
    assert list(tmp_path.glob("*x.*")) == []


def test_a_graph_that_is_there_is_kept(mono_model: str, tmp_path: Path) -> None:
    library.add(Path(mono_model), "small")
    (tmp_path / "x.onnx").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        library.export("small", tmp_path / "x.onnx")
