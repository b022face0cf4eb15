"""Around the restoration: tasks, plan, progress, provenance and errors."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch

import napari_restore
from napari_restore.errors import DeviceError, ImageError, ModelError, RestoreError
from napari_restore.models.catalog import TASKS
from napari_restore.restoration.run import light_note, restore_array
from napari_restore.runtime import Stopped, Watch
from planning import plan

if TYPE_CHECKING:
    from napari_restore.runtime import Progress

pytestmark = pytest.mark.usefixtures("full_precision")


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_a_function(task: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        getattr(napari_restore, task)(image), napari_restore.restore(image, task)
    )


def test_progress_is_reported_up_to_the_end(mono_model: str, rng: np.random.Generator) -> None:
    seen: list[Progress] = []
    image = rng.random((2, 70, 80))
    napari_restore.deblur(image, model=mono_model, tile=32, progress=seen.append)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == seen[-1].total == 2 * 70 * 80
    assert len(done) > 10


def test_the_plan_reads_nothing_and_decides_everything(rng: np.random.Generator) -> None:
    class Unreadable:
        shape, dtype = (5, 900, 1000, 3), np.dtype("u1")

        def __getitem__(self, key: object) -> None:
            raise AssertionError("read")

    decided = plan(Unreadable(), "dehaze", device="cpu", tile=64, strength=0.5)
    assert decided.spec.name == "dehaze-color"
    assert (decided.layout.planes, decided.layout.color) == (5, True)
    assert (decided.device, decided.options.strength) == ("cpu", 0.5)
    assert (decided.tiles.side, decided.tiles.fixed) == (64, True)


def test_provenance_says_all_that_is_needed_to_do_it_again(
    mono_model: str, rng: np.random.Generator
) -> None:
    image = rng.random((40, 50)).astype(np.float32)
    image[3, 4] = np.nan
    decided = plan(image, "deblur", model=mono_model, tile=32, strength=0.75, axes="yx")
    restoration = restore_array(image, decided)
    record = json.loads(json.dumps(restoration.provenance))
    assert record["task"] == "deblur"
    # A file of weights is found again by its path.
    assert record["model"] == mono_model
    assert len(record["weights_sha256"]) == 64
    assert (record["axes"], record["tile"], record["strength"]) == ("YX", 32, 0.75)
    assert record["device"] == decided.device
    assert record["precision"]
    assert record["invalid_samples"] == 1
    assert record["clipped_samples"] == 0
    # The network is random, and keeps no light.
    assert record["notes"] == [light_note(record["light"])]
    assert 0 < record["seconds"] < 60
    assert record["versions"]["napari-restore"] == napari_restore.__version__
    assert "torch" in record["versions"]


def test_provenance_counts_what_was_clipped(color_model: str, rng: np.random.Generator) -> None:
    image = (rng.random((40, 50, 3)) > 0.5).astype(np.uint8) * 255
    decided = plan(image, "deblur", model=color_model)
    restoration = restore_array(image, decided)
    exact = napari_restore.restore(image.astype(np.float64), "deblur", model=color_model, rgb=True)
    # A float scale between percentiles that are 0 and 255 is the same scale.
    outside = (np.rint(exact) < 0) | (np.rint(exact) > 255)
    assert restoration.provenance["clipped_samples"] == np.count_nonzero(outside) > 0


def test_stopping_early_ends_the_work(mono_model: str, rng: np.random.Generator) -> None:
    image = rng.random((100, 100))
    seen: list[int] = []

    def stop(step: Progress) -> None:
        seen.append(step.done)
        if step.done:
            watch.stop()

    watch = Watch(stop)
    with pytest.raises(Stopped):
        watch.run(restore_array, image, plan(image, "deblur", model=mono_model, tile=32))
    assert 0 < seen[-1] < image.size
    assert seen.count(seen[-1]) == 1


# ---------------------------------------------------------------- errors

GRAY = np.zeros((20, 20), np.float32)
COLOR = np.zeros((20, 20, 3), np.uint8)
# image, arguments, the error, what its message must name
ERRORS: dict[str, tuple[Any, dict[str, Any], type[RestoreError], list[str]]] = {
    "list": ([[1, 2], [3, 4]], {}, RestoreError, ["list", "numpy.asarray"]),
    "nothing": (None, {}, RestoreError, ["NoneType", "numpy.asarray"]),
    "tensor": (torch.zeros(4, 4), {}, ImageError, ["Tensor", "torch.float32", "numpy.asarray"]),
    "complex": (GRAY.astype(complex), {}, ImageError, ["complex128", "modulus"]),
    "objects": (GRAY.astype(object), {}, ImageError, ["object"]),
    "0-d": (np.float32(3), {}, ImageError, ["()"]),
    "1-d": (GRAY[0], {}, ImageError, ["(20,)"]),
    "axes": (GRAY, {"axes": "TYX"}, ImageError, ["'TYX'", "(20, 20)"]),
    "unknown chunks": (
        da.from_array(GRAY)[da.from_array(GRAY[:, 0]) == 0], {}, ImageError, ["nan", "chunk"],
    ),
    "task": (GRAY, {"task": "sharpen"}, ModelError, ["'sharpen'", "motion_deblur"]),
    "model": (GRAY, {"model": "magic"}, ModelError, ["'magic'", "deblur-mono"]),
    "model of nothing": (GRAY, {"model": None}, ModelError, ["None", "deblur-mono"]),
    "model file": (GRAY, {"model": "no/such.pth"}, ModelError, ["such.pth"]),
    "model of another task": (
        GRAY, {"model": "dehaze-mono"}, ModelError, ["'dehaze-mono'", "not deblur", "deblur-mono"],
    ),
    "color model": (
        GRAY, {"model": "deblur-color"}, ModelError, ["'deblur-color'", "3 channels", "mono"],
    ),
    "mono model": (
        COLOR, {"model": "deblur-mono"}, ModelError, ["'deblur-mono'", "1 channel;", "color"],
    ),
    "device": (GRAY, {"device": "abacus"}, DeviceError, ["'abacus'", "cpu"]),
    "device number": (GRAY, {"device": "cuda:99"}, DeviceError, ["'cuda:99'", "cpu"]),
    "strength high": (GRAY, {"strength": 1.5}, RestoreError, ["1.5", "0 and 1"]),
    "strength low": (GRAY, {"strength": -0.1}, RestoreError, ["-0.1", "0 and 1"]),
    "strength nan": (GRAY, {"strength": float("nan")}, RestoreError, ["nan", "0 and 1"]),
    "strength text": (GRAY, {"strength": "1"}, RestoreError, ["'1'", "0 and 1"]),
    "tile small": (GRAY, {"tile": 15}, RestoreError, ["15", "16"]),
    "tile float": (GRAY, {"tile": 64.0}, RestoreError, ["64.0", "'auto'"]),
    "tile text": (GRAY, {"tile": "large"}, RestoreError, ["'large'", "'auto'"]),
    "tile truth": (GRAY, {"tile": True}, RestoreError, ["True", "'auto'"]),
    "tile pair": (GRAY, {"tile": np.array([64, 64])}, RestoreError, ["64", "'auto'"]),
}  # fmt: skip


@pytest.mark.parametrize(("image", "options", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named_with_its_remedy(
    image: Any, options: dict[str, Any], error: type[RestoreError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        napari_restore.restore(image, **{"task": "deblur", **options})
    for word in words:
        assert word in str(caught.value)


def test_every_error_is_a_restore_error() -> None:
    for error in (ImageError, ModelError, DeviceError):
        assert issubclass(error, napari_restore.RestoreError)


def test_a_failing_estimate_of_blur_does_not_take_the_result(monkeypatch):  # type: ignore[no-untyped-def]
    from napari_restore.restoration import plan as module

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "estimate_blur", fail)
    image = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    result = restore_array(image, plan(image, "deblur", device="cpu"))
    assert result.data.shape == image.shape
    assert any("could not be estimated: out of memory" in n for n in result.provenance["notes"])
    assert "blur" not in result.provenance


@pytest.mark.parametrize("mean", [0.02, 20.0])
def test_it_is_said_if_few_counts_lose_light(mean: float) -> None:
    counts = np.random.default_rng(0).poisson(mean, (64, 64)).astype("u1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = napari_restore.motion_deblur(counts, device="cpu")
    lost = abs(result.sum() / counts.sum() - 1) > 0.01
    assert lost == (mean < 1)
    assert any("of the light" in str(one.message) for one in caught) == lost
