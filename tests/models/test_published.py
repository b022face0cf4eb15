"""Published networks through spandrel: imported, measured, used; without it, said.

Most tests have a stand-in for spandrel, so that they run without it. Those at the end need it.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_restore import restore
from napari_restore.errors import ModelError
from napari_restore.inference.predictor import load_predictor
from napari_restore.models import catalog, library
from napari_restore.models.catalog import read_metadata
from napari_restore.networks.spandrel_net import SpandrelNet, described
from spandrel_stand_in import Blur, Descriptor, Registry, stand_in_for_spandrel

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.random.default_rng(4).integers(0, 255, (150, 170), np.uint8)


# ---------------------------------------------------------------- with a stand-in


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A spandrel that knows one network; what it says of it can be changed."""
    return stand_in_for_spandrel(monkeypatch)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "blur.pth"
    torch.save({"net": Blur().state_dict(), "epoch": 3}, path)
    return path


def test_a_published_network_is_measured_and_restores(
    known: dict[str, Any], checkpoint: Path
) -> None:
    entry = library.add(checkpoint, task="denoise", license="Apache-2.0")
    spec = entry.spec
    assert (spec.name, spec.channels, spec.multiple_of) == ("blur", 1, 8)
    # Further than its convolution: the mean is one over a window of 256 pixels now.
    assert spec.halo > 16
    assert not spec.goes_by_rows
    said = entry.card()
    for line in (
        "license**: Apache-2.0",
        "network Blur",
        f"{spec.halo} pixels",
        "blur.pth",
        "SHA-256",
    ):
        assert line in said
    whole = restore(IMAGE, "denoise", model="blur")
    tiled = restore(IMAGE, "denoise", model="blur", tile=48)
    assert whole.std() > 0
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    # What is brighter than its range is not cut off: the whole image is scaled, and back.
    seen = IMAGE.astype(np.float32)
    twice = restore(2 * seen + 9, "denoise", model="blur")
    once = restore(seen, "denoise", model="blur")
    np.testing.assert_allclose(twice, 2 * once + 9, atol=0.05)


def test_the_tensors_and_the_result_are_those_of_the_checkpoint(
    known: dict[str, Any], checkpoint: Path
) -> None:
    state = torch.load(checkpoint, weights_only=True)["net"]
    entry = library.add(checkpoint, task="denoise")
    kept = library.load_state(entry.spec.path)
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    predictor = load_predictor(entry.spec, "cpu")
    x = 2 * torch.rand(1, 1, 64, 64) - 0.5
    model = Blur()
    model.load_state_dict(state)
    with torch.inference_mode():
        expected = model(torch.cat([x, x - 0.2], 1))
    # A window that is larger than the image holds its mean. Several at once are the same.
    twice = predictor(x.repeat(2, 1, 1, 1), None, torch.zeros(2, 4))
    torch.testing.assert_close(twice, expected.repeat(2, 1, 1, 1))


def test_safetensors_without_a_description_are_taken(
    known: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bare.safetensors"
    library.save_weights(path, library.load_state(checkpoint), {}, half=False)
    assert library.add(path, task="deblur").spec.options == {"network": "Blur", "channels": 1}


def test_images_smaller_than_its_least_are_restored(
    known: dict[str, Any], checkpoint: Path
) -> None:
    library.add(checkpoint, task="denoise")
    assert restore(IMAGE[:5, :9], "denoise", model="blur").shape == (5, 9)


def test_an_exported_model_comes_back_as_it_was(
    known: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    first = library.add(checkpoint, task="denoise", license="MIT")
    path = library.export("blur", tmp_path / "out.safetensors")
    again = library.add(path, "again")
    assert again.spec.sha256 == first.spec.sha256
    assert (again.spec.halo, again.spec.license) == (first.spec.halo, "MIT")
    with pytest.raises(ModelError, match=r"'blur' is a network of others"):
        library.export("blur", tmp_path / "out.zip")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"scale": 4}, "enlarges images 4 times"),
        ({"purpose": "FaceSR"}, "makes up parts"),
        ({"output_channels": 3}, "turns 1 channels into 3"),
        (
            {"size_requirements": SimpleNamespace(minimum=0, multiple_of=128, square=True)},
            "square images alone",
        ),
        (
            {"size_requirements": SimpleNamespace(minimum=0, multiple_of=96, square=False)},
            "multiples of 96",
        ),
        ({"_call_fn": lambda model, x: x + x.mean()}, "more than 192 pixels away"),
        ({"_call_fn": lambda model, x: x[..., ::2, ::2]}, "turns images of"),
    ],
    ids=["larger", "face", "channels", "square", "coarse", "global", "smaller"],
)
def test_networks_of_no_use_are_refused_and_leave_nothing(
    said: dict[str, Any], message: str, known: dict[str, Any], checkpoint: Path
) -> None:
    known.update(said)
    with pytest.raises(ModelError, match=message) as caught:
        library.add(checkpoint, task="denoise")
    assert "blur.pth" in str(caught.value)
    assert catalog.own_files() == {}


def test_weights_that_nobody_knows_are_refused(known: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        ModelError, match=r"other\.pth cannot be imported.*no network that is known"
    ):
        library.add(tmp_path / "other.pth", task="deblur")
    torch.save({"mix.weight": torch.zeros(1, 2, 3, 3)}, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=r"odd\.pth.*fewer than|do not make the network"):
        library.add(tmp_path / "odd.pth", task="deblur")


def test_a_file_that_is_too_small_for_its_network_takes_no_memory(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for _ in range(1000):
                self.register_module(str(len(made)), nn.Conv2d(64, 64, 3))
                made.append(1)

    monkeypatch.setattr(Registry, "load", lambda self, state: Descriptor(Large(), state))
    with pytest.raises(ModelError, match="fewer than those of the network"):
        described({"mix.weight": torch.zeros(9)})
    assert made == []


def test_other_weights_than_the_file_names_are_refused(
    known: dict[str, Any], checkpoint: Path
) -> None:
    with pytest.raises(ModelError, match="of 'Blur' with 1 channels, not of 'Other' with 3"):
        SpandrelNet("Other", 3).load_state_dict(library.load_state(checkpoint))


@pytest.mark.parametrize(
    "wrong",
    [{"halo": 10**6}, {"halo": "far"}, {"multiple_of": 0}, {"multiple_of": 1024}, {"halo": None}],
    ids=str,
)
def test_a_file_with_a_halo_that_makes_no_sense_is_refused(
    wrong: dict[str, Any], known: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    entry = library.add(checkpoint, task="denoise")
    said = {**read_metadata(entry.spec.path), **wrong}
    state = library.load_state(entry.spec.path)
    library.save_weights(tmp_path / "odd.safetensors", state, said, half=False)
    with pytest.raises(ModelError, match=r"odd\.safetensors"):
        catalog.find_model("denoise", 1, str(tmp_path / "odd.safetensors"))


def test_code_in_a_checkpoint_is_not_run(known: dict[str, Any], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('code of a file was run')",))

    torch.save({"mix.weight": torch.zeros(1, 2, 5, 5), "more": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        library.add(tmp_path / "evil.pth", task="deblur")


# ---------------------------------------------------------------- without it


@pytest.mark.parametrize("error", [ImportError("not there"), RuntimeError("torchvision::nms")])
def test_without_spandrel_it_is_said_how_to_install_it(
    error: Exception, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "spandrel":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModelError, match=r'pip install "napari-restore\[spandrel\]"'):
        library.add(checkpoint, task="deblur")
    # NAFNets need none.
    options = {"channels": 3, "width": 4, "unshuffle": 1}
    network = catalog.build_network("nafnet", options)
    torch.save(network.state_dict(), tmp_path / "NAFNet.pth")
    assert library.add(tmp_path / "NAFNet.pth", task="deblur").spec.architecture == "nafnet"


def test_a_checkpoint_that_is_not_imported_says_so(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="napari-restore models import FILE --task"):
        restore(IMAGE, "denoise", model=str(checkpoint))


# ---------------------------------------------------------------- with spandrel itself


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> Any:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        # Two of its functions are imported, for networks that are not restored with here. Where
        # torch is of another build than it, the rest can be tested all the same.
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            stand_in: Any = ModuleType(name)
            stand_in.rotate = stand_in.normalize = stand_in.InterpolationMode = None
            monkeypatch.setitem(sys.modules, name, stand_in)
    return pytest.importorskip("spandrel", reason="needs the extra 'spandrel'")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_published_network_agrees_tiled_and_whole(
    channels: int, spandrel: Any, tmp_path: Path
) -> None:
    from spandrel.architectures.DRUNet import DRUNet

    torch.manual_seed(2)
    network = DRUNet(in_nc=channels + 1, out_nc=channels, nc=[4, 6, 8, 10], nb=2)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "published.pth")
    entry = library.add(tmp_path / "published.pth", task="denoise")
    assert (entry.spec.multiple_of, entry.spec.channels) == (8, channels)
    assert entry.spec.options["network"] == "DRUNet"
    color = channels == 3
    image = np.stack([IMAGE, IMAGE[::-1], IMAGE], -1) if color else IMAGE
    whole = restore(image, "denoise", model="published", rgb=color)
    tiled = restore(image, "denoise", model="published", rgb=color, tile=64)
    assert (whole != image).any()
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_a_nafnet_stays_with_our_own_reader(spandrel: Any, tmp_path: Path) -> None:
    from spandrel.architectures.NAFNet import NAFNet

    network = NAFNet(img_channel=3, width=8, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    torch.save({"params": network.state_dict()}, tmp_path / "NAFNet.pth")
    assert library.add(tmp_path / "NAFNet.pth", task="deblur").spec.architecture == "nafnet"
