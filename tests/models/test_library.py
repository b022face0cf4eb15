"""The user's own models: kept, found by name and hash, and nothing in them is ever run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_restore import restore
from napari_restore.cli import main
from napari_restore.errors import FileError, ModelError
from napari_restore.inference.predictor import load_predictor
from napari_restore.models import catalog, library
from napari_restore.models.catalog import build_network, bundled_model, find_model, own_names
from napari_restore.restoration.plan import Options, make_plan
from napari_restore.restoration.run import restore_array
from small_networks import SMALL

IMAGE = np.random.default_rng(3).integers(0, 4000, (70, 60)).astype(np.uint16)


@pytest.fixture
def kept(mono_model: str) -> library.Entry:
    return library.add(Path(mono_model), "nuclei 40x")


def names() -> list[str]:
    return [entry.name for entry in library.entries()[0] if not entry.bundled]


def test_an_imported_model_restores_by_its_name(kept: library.Entry, mono_model: str) -> None:
    assert (kept.spec.task, kept.spec.kind, kept.bundled) == ("deblur", "mono", False)
    # Copied as it was.
    assert kept.spec.sha256 == catalog.sha256(Path(mono_model))
    by_name = restore(IMAGE, "deblur", model="nuclei 40x")
    np.testing.assert_array_equal(by_name, restore(IMAGE, "deblur", model=mono_model))
    record = restore_array(
        IMAGE, make_plan(IMAGE, Options("deblur", model="nuclei 40x"))
    ).provenance
    assert (record["model"], record["weights_sha256"]) == ("nuclei 40x", kept.spec.sha256)


def test_names_are_listed_by_task_and_named_where_one_is_wrong(kept: library.Entry) -> None:
    assert own_names("deblur") == ["nuclei 40x"]
    assert own_names("dehaze") == []
    with pytest.raises(ModelError, match=r"'nuclei'.*deblur-mono.*nuclei 40x"):
        find_model("deblur", 1, "nuclei")
    with pytest.raises(ModelError, match="is for deblur, not dehaze"):
        find_model("dehaze", 1, "nuclei 40x")


def test_renamed_exported_removed(kept: library.Entry, tmp_path: Path) -> None:
    assert library.rename("nuclei 40x", "Nuclei").spec.sha256 == kept.spec.sha256
    assert names() == ["Nuclei"]
    # A change of capitals alone is one too, also where files are not told apart by them.
    assert library.rename("Nuclei", "nuclei").name == "nuclei"
    path = library.export("nuclei", tmp_path / "out.safetensors")
    assert catalog.sha256(path) == kept.spec.sha256
    assert kept.spec.sha256 in path.with_suffix(".md").read_text(encoding="utf-8")
    with pytest.raises(FileError, match="exists already"):
        library.export("nuclei", path)
    library.export("nuclei", path, force=True)
    library.remove("nuclei")
    assert names() == []
    with pytest.raises(ModelError, match="No model 'nuclei'"):
        library.find_entry("nuclei")


def test_what_ships_can_be_exported_and_not_changed(tmp_path: Path) -> None:
    for change in (library.remove, lambda name: library.rename(name, "mine")):
        with pytest.raises(ModelError, match="ships with the package"):
            change("deblur-mono")
    path = library.export("deblur-mono", tmp_path)
    assert path.name == "deblur-mono.safetensors"


@pytest.mark.parametrize(
    "name",
    ["", "auto", "../up", "a/b", "a\\b", ".hidden", "x.pth", "x" * 90, "a\nb", "deblur-Mono"],
)
def test_names_that_cannot_be(name: str, mono_model: str, own: Path) -> None:
    with pytest.raises(ModelError):
        library.add(Path(mono_model), name)
    assert not list(own.glob("**/*.safetensors"))


def test_a_name_is_given_once(kept: library.Entry, mono_model: str) -> None:
    with pytest.raises(ModelError, match="already"):
        library.add(Path(mono_model), "Nuclei 40X")
    assert library.free_name("nuclei 40x") == "nuclei 40x 2"


def test_default_is_what_auto_takes(kept: library.Entry) -> None:
    library.use_by_default(kept.name)
    plan = make_plan(IMAGE, Options("deblur"))
    assert plan.spec.name == kept.name
    assert kept.name in plan.notes[0]
    # For its kind of image alone, and not for what measures or looks for blur.
    assert find_model("deblur", 3).name == "deblur-color"
    assert bundled_model("deblur", 1).name == "deblur-mono"
    library.rename(kept.name, "renamed")
    assert find_model("deblur", 1).name == "renamed"
    library.remove("renamed")
    assert find_model("deblur", 1).name == "deblur-mono"


def test_a_bundled_model_ends_the_default(kept: library.Entry) -> None:
    library.use_by_default(kept.name)
    library.use_by_default("deblur-mono")
    assert find_model("deblur", 1).name == "deblur-mono"
    with pytest.raises(ModelError, match="other options"):
        library.use_by_default("invert-mono")


def test_a_worker_finds_the_weights_by_their_hash(
    kept: library.Entry, mono_model: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(kept.spec)
    # The worker has another library, where the model has another name.
    elsewhere = tmp_path / "worker"
    monkeypatch.setattr(catalog, "own_folder", lambda: elsewhere)
    (own / "nuclei 40x.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither at .* nor in .*worker.*models import"):
        load_predictor(spec, "cpu")
    library.add(Path(mono_model), "the same")
    assert load_predictor(spec, "cpu").spec == spec


def test_a_published_checkpoint_keeps_its_precision_and_says_where_it_is_from(
    tmp_path: Path,
) -> None:
    network = build_network("nafnet", {"channels": 3, "unshuffle": 1, **SMALL})
    torch.save(network.state_dict(), tmp_path / "NAFNet.pth")
    with pytest.raises(ModelError, match="Name its task"):
        library.add(tmp_path / "NAFNet.pth")
    entry = library.add(tmp_path / "NAFNet.pth", task="motion_deblur", license="MIT")
    assert (entry.name, entry.spec.license, entry.origin) == ("NAFNet", "MIT", "imported")
    assert "NAFNet.pth" in entry.card()
    loaded = load_predictor(entry.spec, "cpu")._network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of a file was run')",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, own: Path) -> None:
    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        library.add(tmp_path / "evil.pth", task="deblur")
    assert not own.exists() or not list(own.iterdir())


def test_a_damaged_file_is_named_and_the_others_are_listed(kept: library.Entry, own: Path) -> None:
    (own / "broken.safetensors").write_bytes(b"nothing")
    found, problems = library.entries()
    assert kept.name in [entry.name for entry in found]
    assert len(problems) == 1 and problems[0].startswith("broken:")
    assert own_names("deblur") == [kept.name]


def test_a_full_disk_leaves_nothing(
    mono_model: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library.shutil, "copyfile", full)
    with pytest.raises(FileError, match="No space left"):
        library.add(Path(mono_model), "x")
    assert list(own.iterdir()) == []


def test_damaged_defaults_count_as_none(kept: library.Entry, own: Path) -> None:
    for text in ("{", "[]", json.dumps({"deblur mono": 3}), json.dumps({"deblur mono": "gone"})):
        (own / "defaults.json").write_text(text)
        assert find_model("deblur", 1).name == "deblur-mono"


def test_the_command_line_keeps_models(
    mono_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, status: int = 0) -> str:
        assert main(["models", *words]) == status
        both = capsys.readouterr()
        return both.err if status else both.out

    assert "Imported 'mine'" in said("import", mono_model, "--name", "mine")
    assert "auto takes 'mine' for deblur of mono images" in said("default", "mine")
    (line,) = (line for line in said().splitlines() if line.startswith("mine *"))
    assert catalog.sha256(Path(mono_model))[:8] in line
    assert "# mine" in said("show", "mine")
    assert "'mine' is now 'ours'" in said("rename", "mine", "ours")
    assert "ours.safetensors" in said("export", "ours", "-o", str(tmp_path))
    assert "Removed" in said("remove", "ours")
    assert "No model 'ours'" in said("remove", "ours", status=1)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("Stained tissue, out of focus", "Stained tissue out of focus adapted"),
        ("a/b: c", "ab c adapted"),
        ("??", "adapted"),
        ("x" * 90, "x" * 60 + " adapted"),
    ],
)
def test_what_is_adapted_is_called_like_its_image(own, image, name):
    assert library.adapted_name(image) == name
