"""Packages of bioimage.io: what goes out can be checked and comes back; nothing in them is run."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from napari_restore import restore
from napari_restore.errors import FileError, ModelError
from napari_restore.models import catalog, library
from napari_restore.models.catalog import build_network
from small_networks import SMALL_RESUNET

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[1, 3], ids=["mono", "color"])
def package(
    request: pytest.FixtureRequest, write_model: Callable[..., str], tmp_path: Path
) -> Path:
    path = write_model(
        "small", "deblur", "resunet", channels=request.param, keep_mean=True, **SMALL_RESUNET
    )
    library.add(Path(path), "small")
    return library.export("small", tmp_path / "small.zip")


def described(package: Path) -> tuple[dict[str, Any], zipfile.ZipFile]:
    opened = zipfile.ZipFile(package)
    return yaml.safe_load(opened.read("rdf.yaml")), opened


def test_the_package_reproduces_its_test_output(package: Path) -> None:
    said, opened = described(package)
    test, expected = (np.load(io.BytesIO(opened.read(f"{n}.npy"))) for n in ("input", "output"))
    steps = said["inputs"][0]["preprocessing"]
    assert steps[0]["id"] == "ensure_dtype"
    if test.shape[1] == 3:
        seen = test * steps[1]["kwargs"]["gain"]
    else:
        ends = [steps[1]["kwargs"][f"{end}_percentile"] for end in ("min", "max")]
        low, high = np.percentile(test, ends)
        seen = (test - low) / (high - low + 1e-6)
    script = torch.jit.load(io.BytesIO(opened.read("weights.pt")))
    result = script(torch.from_numpy(seen.astype(np.float32))).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-5)
    # Other sizes and batches too.
    twice = script(torch.from_numpy(seen[..., :64, :80].astype(np.float32)).repeat(2, 1, 1, 1))
    assert twice.shape == (2, test.shape[1], 64, 80)
    size = said["inputs"][0]["axes"][2]["size"]
    assert size["min"] > 2 * said["outputs"][0]["axes"][2]["halo"]
    assert test.shape[2] >= size["min"]
    assert (test.shape[2] - size["min"]) % size["step"] == 0


def test_a_package_comes_back_with_its_hash(package: Path) -> None:
    before = library.find_entry("small")
    back = library.add(package, "again")
    assert back.spec.sha256 == before.spec.sha256
    image = np.random.default_rng(0).integers(0, 255, (50, 60, back.spec.channels)).astype("u1")
    image = image if back.spec.channels == 3 else image[..., 0]
    np.testing.assert_array_equal(
        restore(image, "deblur", model="again"), restore(image, "deblur", model="small")
    )


def test_a_package_is_named_as_the_origin(package: Path) -> None:
    card = library.add(package, "again", notes="From the web.").card()
    assert f"imported from {package.name}, SHA-256 {catalog.sha256(package)}" in card


def write(path: Path, description: Any, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("rdf.yaml", json.dumps(description))
        for name, content in files.items():
            package.writestr(name.replace("_pt", ".pt"), content)
    return path


def state_bytes(network: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def package_of(architecture: dict[str, Any], **more: Any) -> dict[str, Any]:
    entry = {"source": "weights.pt", "architecture": architecture}
    return {
        "type": "model",
        "license": "MIT",
        "weights": {"pytorch_state_dict": entry},
        "config": {"napari_restore": {"task": "deblur"}},
        **more,
    }


def test_a_state_dict_of_a_known_network_is_taken(tmp_path: Path) -> None:
    options = {"channels": 1, **SMALL_RESUNET}
    network = build_network("resunet", options)
    known = {
        "callable": "ResUNet",
        "import_from": "napari_restore.networks.resunet",
        "kwargs": options,
    }
    path = write(tmp_path / "known.zip", package_of(known), weights_pt=state_bytes(network))
    entry = library.add(path)
    assert (entry.name, entry.spec.license, entry.spec.architecture) == ("known", "MIT", "resunet")
    assert "known.zip" in entry.card()
    state = library.load_state(entry.spec.path)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of a file was run')",))


KNOWN = {"callable": "ResUNet", "import_from": "napari_restore.networks.resunet", "kwargs": {}}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (package_of({"callable": "Net", "source": "net.py"}), "a program of its own .net.py"),
        (
            package_of({"callable": "system", "import_from": "os"}),
            "'os:system', which is not known",
        ),
        ({"type": "model", "weights": {"torchscript": {"source": "weights.pt"}}}, "as torchscript"),
        ({"type": "model"}, "as none"),
        ({"type": "dataset"}, "no model"),
        ("text", "no model"),
        (package_of({**KNOWN, "kwargs": {"width": [9]}}), "No 'resunet' with"),
    ],
)
def test_programs_and_unknown_networks_are_refused(
    description: Any, said: str, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "other.zip", description, weights_pt=state_bytes(torch.nn.Conv2d(1, 1, 1))
    )
    with pytest.raises(ModelError, match=said):
        library.add(path)
    assert catalog.own_files() == {}


def test_code_in_the_weights_is_not_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    path = write(tmp_path / "evil.zip", package_of(KNOWN), weights_pt=buffer.getvalue())
    with pytest.raises(ModelError, match="more than tensors"):
        library.add(path)


def test_damaged_packages_are_named(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(FileError, match=r"no\.zip cannot be read"):
        library.add(tmp_path / "no.zip")
    entry = package_of(KNOWN)
    entry["weights"]["pytorch_state_dict"]["sha256"] = "0" * 64
    path = write(
        tmp_path / "other.zip", entry, weights_pt=state_bytes(build_network("resunet", {}))
    )
    with pytest.raises(ModelError, match="damaged: the hash"):
        library.add(path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as package:
        package.writestr("readme", "x")
    with pytest.raises(ModelError, match=r"no rdf\.yaml"):
        library.add(tmp_path / "empty.zip")


@pytest.mark.parametrize("name", ["dehaze-mono", "motion-color", "invert-mono"])
def test_models_that_need_more_than_a_part_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no place for that"):
        library.export(name, tmp_path / "x.zip")
    assert list(tmp_path.glob("*.zip")) == []
