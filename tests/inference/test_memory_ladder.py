"""When memory runs out: smaller batches, smaller tiles, the CPU; nothing lost, nothing silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from fakes import FaultyPredictor, LocalPredictor, restored, told
from napari_restore.analysis.motion import CELL, field_of_motion
from napari_restore.analysis.transmission import transmission_of
from napari_restore.errors import DeviceError
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import Planes, TileOptions, find_layout
from napari_restore.inference.engine import Report, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_restore.runtime import Progress

UNIT = (Scale(0.0, 1.0),)

OUT_OF_MEMORY = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't "
                                "allocate memory: you tried to allocate 10 bytes"),
    "numpy": lambda: MemoryError("Unable to allocate 3 GiB for an array"),
}  # fmt: skip


class OncePlanes(Planes):
    """A target that counts how often each sample is written."""

    def write(self, index, region, block):  # type: ignore[no-untyped-def]
        if not hasattr(self, "count"):
            self.count = np.zeros(self.array.shape, int)
        self.count[self.key(index, region)] += 1
        super().write(index, region, block)


def climb(
    image: np.ndarray, predictor: LocalPredictor, tiles: TileOptions
) -> tuple[np.ndarray, Report, list[Progress]]:
    layout, report = find_layout(image), Report()
    target = OncePlanes(np.empty_like(image), layout)
    planes = Planes(image, layout), target
    progress = told(run, *planes, predictor, UNIT, tiles=tiles, report=report)
    # Nothing is lost and nothing is done twice, whatever failed in between.
    assert (target.count == 1).all()
    assert progress[-1].done == image.size
    return target.array, report, progress


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_first_the_batch_is_halved(
    error: Callable[[], Exception], rng: np.random.Generator
) -> None:
    image = rng.random((128, 256), np.float32)
    predictor = FaultyPredictor(lambda shape, call: shape[0] > 2, error)
    result, report, progress = climb(image, predictor, TileOptions(32, batch=8))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(), scales=UNIT))
    assert {shape[-1] for shape in predictor.shapes} <= set(range(32, 40))
    assert any("2 tiles" in note for note in report.notes)
    assert any("2 tiles" in step.message for step in progress)
    assert report.device == "cpu"


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_then_the_tile_is_halved(error: Callable[[], Exception], rng: np.random.Generator) -> None:
    image = rng.random((600, 560), np.float32)
    predictor = FaultyPredictor(lambda shape, call: shape[-2] * shape[-1] > 250**2, error)
    result, report, _ = climb(image, predictor, TileOptions(512, batch=2))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(), scales=UNIT))
    assert any("tiles of 256 pixels" in note for note in report.notes)


def test_finished_tiles_are_kept_when_memory_runs_out_late(rng: np.random.Generator) -> None:
    image = rng.random((600, 560), np.float32)
    # The third tile finds the memory taken by someone else.
    predictor = FaultyPredictor(
        lambda shape, call: call >= 3 and shape[-1] > 200, OUT_OF_MEMORY["cuda"]
    )
    result, report, progress = climb(image, predictor, TileOptions(300))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(), scales=UNIT))
    assert [step.message for step in progress[:2]] == ["", ""]
    assert report.notes


def test_at_last_the_cpu_takes_over_and_says_so(rng: np.random.Generator) -> None:
    image = rng.random((2, 200, 200), np.float32)
    predictor = FaultyPredictor(
        lambda shape, call: call > 1, OUT_OF_MEMORY["cuda"], device="cuda", view=16
    )
    result, report, _ = climb(image, predictor, TileOptions(100))
    np.testing.assert_allclose(
        result, restored(image, LocalPredictor(view=16), scales=UNIT), atol=1e-6
    )
    assert report.device == "cpu"
    assert any("cuda" in note and "CPU" in note for note in report.notes)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_chosen_tile_is_never_overridden(device: str, rng: np.random.Generator) -> None:
    image = rng.random((128, 128), np.float32)
    predictor = FaultyPredictor(lambda shape, call: call > 3, OUT_OF_MEMORY["cuda"], device=device)
    with pytest.raises(DeviceError, match=r"64 pixels.*smaller tile") as caught:
        climb(image, predictor, TileOptions(64, fixed=True))
    assert device in str(caught.value)


def test_a_chosen_tile_may_be_run_in_smaller_batches(rng: np.random.Generator) -> None:
    image = rng.random((128, 128), np.float32)
    predictor = FaultyPredictor(lambda shape, call: shape[0] > 1, OUT_OF_MEMORY["cuda"])
    climb(image, predictor, TileOptions(64, batch=4, fixed=True))


def test_memory_that_runs_out_on_the_cpu_is_an_error_with_a_remedy(
    rng: np.random.Generator,
) -> None:
    image = rng.random((300, 300), np.float32)
    predictor = FaultyPredictor(lambda shape, call: True, OUT_OF_MEMORY["cpu"])
    with pytest.raises(DeviceError, match=r"tiles of \d+ pixels.*try again"):
        climb(image, predictor, TileOptions(512))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("size mismatch"), ValueError("out of memory"), KeyError("memory")],
    ids=repr,
)
def test_other_errors_are_not_taken_for_memory(error: Exception, rng: np.random.Generator) -> None:
    predictor = FaultyPredictor(lambda shape, call: call > 1, lambda: error, device="cuda")
    with pytest.raises(type(error)) as caught:
        climb(rng.random((64, 64), np.float32), predictor, TileOptions(32, batch=2))
    assert caught.value is error
    assert predictor.calls == 2


@pytest.mark.parametrize("seed", range(6))
def test_failures_at_random_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((3, 310, 290), np.float32)
    fails = rng.random(10_000) < 0.3
    predictor = FaultyPredictor(
        lambda shape, call: bool(fails[call]) and shape[-1] > 150,
        OUT_OF_MEMORY["cuda"],
        radius=5,
        multiple_of=4,
    )
    result, _, _ = climb(image, predictor, TileOptions(256, batch=5))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(5, 4), scales=UNIT))


# ---------------------------------------------------------------- what is found tile by tile


class FaultyFinder(FaultyPredictor):
    """Finds motion and transmission, and runs out of memory as it is told."""

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        self._try(tiles)
        mean = torch.nn.functional.avg_pool2d(tiles[:, :1], cell, ceil_mode=True)
        return torch.cat([mean, -mean], 1)

    def transmission(self, tiles: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        self._try(tiles)
        return super().transmission(tiles, *rest)

    def _try(self, tiles: torch.Tensor) -> None:
        self.calls += 1
        if self.fails(tuple(tiles.shape), self.calls):
            raise self.error()

    def to_cpu(self) -> FaultyFinder:
        return FaultyFinder(lambda shape, call: False, self.error, view=self.view)


FAULTS = {
    "never": lambda shape, call: False,
    "large tiles": lambda shape, call: shape[-1] > 300,
    "always, until on the CPU": lambda shape, call: True,
    "late": lambda shape, call: call >= 3 and shape[-1] > 150,
}


def finder(fault: str, **options: int) -> FaultyFinder:
    return FaultyFinder(FAULTS[fault], OUT_OF_MEMORY["cuda"], device="cuda", **options)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("spacing", [CELL, 3 * CELL])
def test_motion_is_found_all_the_same(fault: str, spacing: int, rng: np.random.Generator) -> None:
    image = rng.random((2, 700, 650), np.float32)
    planes = Planes(image, find_layout(image, "QYX"))
    found = field_of_motion(planes, finder(fault, radius=0), UNIT, spacing)
    expected = field_of_motion(planes, finder("never", radius=0), UNIT, spacing)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-5)


@pytest.mark.parametrize("fault", FAULTS)
def test_transmission_is_found_all_the_same(fault: str, rng: np.random.Generator) -> None:
    image = rng.random((2, 1100, 400, 3), np.float32)
    planes = Planes(image, find_layout(image, "TYXS"))
    found = transmission_of(planes, finder(fault, view=16), UNIT)
    expected = transmission_of(planes, finder("never", view=16), UNIT)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_finding_in_too_little_memory_is_an_error_with_a_remedy(rng: np.random.Generator) -> None:
    image = rng.random((300, 300), np.float32)
    predictor = FaultyFinder(FAULTS["always, until on the CPU"], OUT_OF_MEMORY["cpu"])
    with pytest.raises(DeviceError, match=r"tiles of \d+ pixels.*try again"):
        field_of_motion(Planes(image, find_layout(image)), predictor, UNIT)
