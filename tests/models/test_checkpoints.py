"""Models from a user's own files: ours, published ones, and what must be refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_restore.api import restore
from napari_restore.errors import ModelError
from napari_restore.inference.predictor import load_predictor
from napari_restore.models import catalog
from napari_restore.models.catalog import (
    PUBLISHED_WINDOW,
    build_network,
    find_model,
    load_state,
    published_options,
    read_metadata,
    save_weights,
)
from napari_restore.networks.nafnet import NAFNet
from small_networks import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISHED = {
    "channels": 3,
    "width": 8,
    "encoder_blocks": [1, 1, 2],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1, 1],
    "unshuffle": 1,
    "attention_window": PUBLISHED_WINDOW,
}
OURS = {"channels": 1, "width": 8, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}


@pytest.fixture
def published(scramble: Callable[[torch.nn.Module], torch.nn.Module]) -> dict[str, torch.Tensor]:
    return scramble(NAFNet(**PUBLISHED)).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": state},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"params_ema": state},
        lambda state: {"params": state, "params_ema": state, "iter": 7},
        lambda state: state,
    ],
    ids=["params", "state_dict", "params_ema", "both", "bare"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_published_checkpoint_restores(
    wrap: Callable[[Any], Any],
    suffix: str,
    published: dict[str, torch.Tensor],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    path = tmp_path / f"NAFNet-GoPro{suffix}"
    torch.save(wrap(published), path)
    spec = find_model("motion_deblur", 3, str(path))
    assert dict(spec.options) == PUBLISHED
    assert (spec.name, spec.channels, spec.multiple_of) == ("NAFNet-GoPro", 3, 8)
    assert spec.halo >= PUBLISHED_WINDOW // 2
    image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    result = restore(image, "motion_deblur", model=str(path))
    assert result.shape == image.shape
    assert not np.array_equal(result, image)


def test_it_restores_as_the_network_does(
    published: dict[str, torch.Tensor], tmp_path: Path, full_precision: None
) -> None:
    torch.save({"params": published}, tmp_path / "net.pth")
    image = np.random.default_rng(3).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    network = NAFNet(**PUBLISHED).eval()
    network.load_state_dict(published)
    with torch.inference_mode():
        out = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    expected = (out.permute(1, 2, 0).numpy() * 255).round().clip(0, 255)
    result = restore(image, "deblur", model=str(tmp_path / "net.pth"))
    assert abs(result - expected).max() <= 1


def test_options_are_read_off_the_keys(
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    plain = {**PUBLISHED, "attention_window": None, "channels": 1, "encoder_blocks": [1, 1, 12]}
    assert published_options(NAFNet(**plain).state_dict()) == plain


@pytest.mark.parametrize("as_path", [str, Path])
def test_our_own_files_carry_their_description(
    as_path: type, scramble: Callable[[torch.nn.Module], torch.nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(
        path,
        scramble(build_network("nafnet", OURS)).state_dict(),
        {"name": "mine", "task": "deblur", "architecture": "nafnet", "options": OURS},
    )
    spec = find_model("deblur", 1, as_path(path))
    assert (spec.name, spec.task, spec.channels, spec.multiple_of) == ("mine", "deblur", 1, 4)
    assert load_predictor(spec, "cpu").halo == spec.halo
    with pytest.raises(ModelError, match=r"'mine' is for deblur, not dehaze"):
        find_model("dehaze", 1, str(path))


def test_weights_are_written_whole_readable_and_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = {"a": torch.rand(3, 4), "b": torch.rand(2, 2).t()}
    save_weights(path, state, {"name": "w", "steps": 3, "options": {"x": [1, 2]}, "none": None})
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o444 == 0o444
    back = load_state(path)
    for key, value in state.items():
        assert back[key].dtype == torch.float32
        torch.testing.assert_close(back[key], value, rtol=1e-3, atol=1e-3)
    assert read_metadata(path) == {
        "name": "w", "steps": "3", "options": '{"x": [1, 2]}', "none": "null",
    }  # fmt: skip


# ---------------------------------------------------------------- what must be refused


class Payload:
    """What an attacker would put into a checkpoint."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_checkpoint_with_code_is_not_run(
    wrapped: bool, published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    target = tmp_path / "owned"
    torch.save(
        {"params": published, "extra": Payload(target)} if wrapped else Payload(target),
        tmp_path / "evil.pth",
    )
    with pytest.raises(ModelError, match=r"evil\.pth holds more than tensors"):
        find_model("deblur", 3, str(tmp_path / "evil.pth"))
    assert not target.exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"<html>not found</html>",
    "half": lambda data: data[: len(data) // 2],
    "short": lambda data: data[:-3],
    "header": lambda data: data[:20],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_are_refused(
    damage: Callable[[bytes], bytes],
    suffix: str,
    published: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    if suffix == ".pth":
        torch.save(published, good)
    else:
        save_weights(good, published, {})
    bad.write_bytes(damage(good.read_bytes()))
    find_model("deblur", 3, str(good))
    with pytest.raises(ModelError, match=r"bad\."):
        find_model("deblur", 3, str(bad))


ABSURD: dict[str, Any] = {
    "too wide": {"width": 10**9},
    "wide for so few bytes": {"width": 512},
    "too many blocks": {"encoder_blocks": [10**8]},
    "fewer than none": {"middle_blocks": -1},
    "text": {"width": "x"},
    "none": {"encoder_blocks": None},
    "unknown": {"depth": 3},
    "no number": {"width": float("nan")},
}


@pytest.mark.parametrize("options", ABSURD.values(), ids=ABSURD)
def test_absurd_options_are_refused_by_the_name_of_their_file(
    options: dict[str, Any], mono_model: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    told = {"name": "x", "task": "deblur", "architecture": "nafnet"}
    told |= {"options": {"channels": 1, **SMALL, **options}}
    save_weights(path, load_state(Path(mono_model)), told)
    with pytest.raises(ModelError, match=r"bad\.safetensors") as caught:
        find_model("deblur", 1, str(path))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(mono_model: str, tmp_path: Path) -> None:
    state = load_state(Path(mono_model))
    state["intro.weight"][0, 0] = torch.nan
    save_weights(tmp_path / "bad.safetensors", state, {})
    with pytest.raises(ModelError, match=r"bad\.safetensors is damaged: 'intro\.weight' holds"):
        load_state(tmp_path / "bad.safetensors")


def test_a_changed_weights_file_of_the_catalog_is_noticed(tmp_path: Path) -> None:
    spec = find_model("deblur", 1)
    data = bytearray(spec.path.read_bytes())
    data[-1] ^= 1
    path = tmp_path / "changed.safetensors"
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"damaged.*Reinstall"):
        load_state(path, spec.sha256)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {}, {"intro.weight": "a", "ending.weight": "b"}, {"params": 3}],
    ids=["list", "tensor", "nothing", "text", "number"],
)
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ModelError):
        find_model("deblur", 3, str(tmp_path / "odd.pth"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"options": "{not json"},
        {"options": [1, 2]},
        {"options": {**OURS, "depth": 3}},
        {"options": {**OURS, "width": 16}},
        {"options": {**OURS, "encoder_blocks": [1, 1]}},
        {"options": {**OURS, "encoder_blocks": [1] * 5, "decoder_blocks": [1] * 5}},
        {"options": {**OURS, "unshuffle": 3}},
        {"architecture": "transformer"},
        {"task": "paint"},
    ],
    ids=lambda metadata: str(metadata)[:50],
)
def test_metadata_that_makes_no_sense_is_refused(
    metadata: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "odd.safetensors"
    usual = {"name": "odd", "task": "deblur", "architecture": "nafnet", "options": OURS}
    save_weights(path, build_network("nafnet", OURS).state_dict(), {**usual, **metadata})
    with pytest.raises(ModelError):
        restore(rng.random((8, 8)), "deblur", model=str(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("folder", [True, False])
def test_missing_files_are_named(suffix: str, folder: bool, tmp_path: Path) -> None:
    path = tmp_path / f"away{suffix}"
    if folder:
        path.mkdir()
    with pytest.raises(ModelError, match="away"):
        find_model("deblur", 3, str(path))


def test_a_file_may_be_the_first_model_of_a_process(rng: np.random.Generator) -> None:
    bundled = Path(catalog.__file__).parent / "weights" / "dehaze-color.safetensors"
    image = rng.integers(0, 255, (96, 96, 3), np.uint8)
    script = (
        "import sys, numpy as np, napari_restore\n"
        "image = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(96, 96, 3)\n"
        "result = napari_restore.dehaze(image, rgb=True, model=sys.argv[1], device='cpu')\n"
        "sys.stdout.buffer.write(result.tobytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, bundled], input=image.tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    result = np.frombuffer(done.stdout, np.uint8).reshape(image.shape).astype(int)
    assert np.abs(result - restore(image, "dehaze", rgb=True, device="cpu")).max() <= 1
