"""The engine: tiles that add up to the whole, progress, cancelling, and the memory ladder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import WHOLE, FaultyPredictor, LocalPredictor, restored

from napari_restore.core.axes import Planes, find_layout
from napari_restore.core.engine import run
from napari_restore.core.intensity import Scale
from napari_restore.core.protocol import Progress, Report, TileOptions, default_tiles
from napari_restore.core.tiles import Region
from napari_restore.errors import DeviceError

UNIT = (Scale(0.0, 1.0),)
SHAPES = [(1, 1), (1, 50), (3, 2), (17, 33), (64, 64), (65, 130), (131, 7)]


# ---------------------------------------------------------------- tiles and the whole


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tiles", [TileOptions(16), TileOptions(32, batch=4), TileOptions(61)])
@pytest.mark.parametrize(("radius", "step"), [(3, 1), (0, 4), (9, 8), (20, 16)])
def test_tiles_equal_the_whole_to_the_last_bit(
    shape: tuple[int, int], tiles: TileOptions, radius: int, step: int, rng: np.random.Generator
) -> None:
    image = rng.random(shape, np.float32)
    whole = restored(image, LocalPredictor(radius, step), scales=UNIT)
    assert not np.array_equal(whole, image)
    tiled = restored(image, LocalPredictor(radius, step), scales=UNIT, tiles=tiles)
    np.testing.assert_array_equal(tiled, whole)


def test_a_halo_that_is_too_small_shows(rng: np.random.Generator) -> None:
    # What the test above rests on: it can see a seam.
    image = rng.random((65, 130), np.float32)
    whole = restored(image, LocalPredictor(9, halo=4), scales=UNIT)
    tiled = restored(image, LocalPredictor(9, halo=4), scales=UNIT, tiles=TileOptions(32))
    assert abs(whole - tiled).max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("radius", [1, 9, 16])
def test_the_border_is_reflected(
    shape: tuple[int, int], radius: int, rng: np.random.Generator
) -> None:
    image = rng.random(shape, np.float32)
    predictor = LocalPredictor(radius)
    padded = np.pad(image, radius, mode="reflect")
    expected = predictor(torch.from_numpy(padded)[None, None], None, torch.zeros(1, 4))
    expected = expected[0, 0, radius : radius + shape[0], radius : radius + shape[1]].numpy()
    np.testing.assert_allclose(
        restored(image, predictor, scales=UNIT, tiles=TileOptions(20)), expected, atol=1e-6
    )


@pytest.mark.parametrize("axes", ["TZCYX", "YXT", "SYX", "TYXS", "XY"])
def test_every_layout_is_restored_plane_by_plane(axes: str, rng: np.random.Generator) -> None:
    lengths = {"T": 2, "Z": 3, "C": 2, "S": 4, "Y": 21, "X": 34}
    image = rng.random([lengths[letter] for letter in axes], np.float32)
    layout = find_layout(image, axes)
    scales = UNIT * layout.groups
    result = restored(
        image, LocalPredictor(), axes=axes, scales=scales, tiles=TileOptions(16, batch=3)
    )
    for index in layout.indices():
        key = layout.key(index, slice(None), slice(None))
        plane, done = (array[key].transpose(layout.plane_order) for array in (image, result))
        colours = plane[..., :3] if layout.colour else plane[..., None]
        for sample in range(colours.shape[-1]):
            alone = restored(colours[..., sample].copy(), LocalPredictor(), scales=UNIT)
            got = done[..., sample] if layout.colour else done
            np.testing.assert_array_equal(got, alone)
        if layout.colour:
            np.testing.assert_array_equal(done[..., 3], plane[..., 3])


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 5, 5), (0, 0)], ids=str)
def test_empty_arrays_yield_nothing(shape: tuple[int, ...]) -> None:
    image = np.empty(shape, np.float32)
    predictor = LocalPredictor()
    assert restored(image, predictor).shape == shape
    assert predictor.shapes == []


@pytest.mark.parametrize("region", [(0, 0, 10, 10), (33, 5, 34, 6), (50, 90, 100, 130)], ids=str)
@pytest.mark.parametrize("step", [1, 8])
def test_a_region_is_that_part_of_the_whole(
    region: tuple[int, int, int, int], step: int, rng: np.random.Generator
) -> None:
    image = rng.random((2, 100, 130), np.float32)
    whole = restored(image, LocalPredictor(7, step), scales=UNIT)
    layout, part = find_layout(image), np.full_like(image, -1)
    place = Region(*region)
    steps = list(
        run(
            Planes(image, layout),
            Planes(part, layout),
            LocalPredictor(7, step),
            UNIT,
            tiles=TileOptions(32),
            regions=[((1,), place)],
        )
    )
    cut = np.s_[1, place.top : place.bottom, place.left : place.right]
    np.testing.assert_array_equal(part[cut], whole[cut])
    assert steps[-1].done == steps[-1].total == place.pixels
    part[cut] = -1
    assert (part == -1).all()


def test_strength_is_linear(rng: np.random.Generator) -> None:
    image = rng.random((30, 30))
    full = restored(image, LocalPredictor(), scales=UNIT)
    for strength in (0.0, 0.25, 0.8):
        result = restored(image, LocalPredictor(), scales=UNIT, strength=strength)
        np.testing.assert_allclose(result, image + strength * (full - image), atol=1e-12)


def test_gaps_make_no_seams(rng: np.random.Generator) -> None:
    image = rng.random((150, 160), np.float32)
    image[:, 70:88] = np.nan
    image[100:, :40] = np.inf
    image[rng.random(image.shape) < 0.05] = np.nan
    whole = restored(image, LocalPredictor(9), scales=UNIT)
    tiled = restored(image, LocalPredictor(9), scales=UNIT, tiles=TileOptions(32))
    # Of two valid pixels equally near to a gap, each tile may take another.
    np.testing.assert_allclose(tiled, whole, atol=0.02)


# ---------------------------------------------------------------- context of the whole plane


def test_each_plane_is_looked_at_once_and_tiles_know_their_place(
    rng: np.random.Generator,
) -> None:
    # More planes than contexts are kept.
    image = rng.random((70, 40, 50), np.float32)
    predictor = LocalPredictor(view=16)
    tiled = restored(image, predictor, scales=UNIT, tiles=TileOptions(20, batch=3))
    assert predictor.looks == 70
    whole = restored(image, LocalPredictor(view=16), scales=UNIT)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    plain = restored(image, LocalPredictor(), scales=UNIT)
    y, x = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(50) + 0.5) / 50, indexing="ij")
    means = image.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(whole - plain, means * (y + x), atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 700), (900, 2), (300, 500)], ids=str)
def test_a_view_exists_for_planes_of_any_shape(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    image = rng.random(shape, np.float32)
    predictor = LocalPredictor(view=8)
    restored(image, predictor, scales=UNIT, tiles=TileOptions(256))
    assert predictor.looks == 1


# ---------------------------------------------------------------- progress and cancelling


@pytest.mark.parametrize("batch", [1, 3])
def test_progress_grows_to_the_total(batch: int, rng: np.random.Generator) -> None:
    image = rng.random((3, 50, 40), np.float32)
    layout, out = find_layout(image), np.empty_like(image)
    steps = list(
        run(
            Planes(image, layout),
            Planes(out, layout),
            LocalPredictor(),
            UNIT,
            tiles=TileOptions(16, batch),
        )
    )
    assert all(isinstance(step, Progress) and step.total == image.size for step in steps)
    done = [step.done for step in steps]
    assert all(before < after for before, after in zip([0, *done], done, strict=False))
    assert done[-1] == image.size
    assert len(steps) >= 12 * 3 / batch


def test_closing_stops_within_one_batch_of_tiles(rng: np.random.Generator) -> None:
    image = rng.random((64, 64), np.float32)
    layout, out, predictor = find_layout(image), np.zeros_like(image), LocalPredictor()
    steps = run(Planes(image, layout), Planes(out, layout), predictor, UNIT, tiles=TileOptions(16))
    next(steps), next(steps)
    steps.close()
    assert len(predictor.shapes) == 2
    assert np.count_nonzero(out.any(1)) <= 16


# ---------------------------------------------------------------- the memory ladder

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
        self.count[self._key(index, region)] += 1
        super().write(index, region, block)


def climb(
    image: np.ndarray, predictor: LocalPredictor, tiles: TileOptions
) -> tuple[np.ndarray, Report, list[Progress]]:
    layout, report = find_layout(image), Report()
    target = OncePlanes(np.empty_like(image), layout)
    steps = run(Planes(image, layout), target, predictor, UNIT, tiles=tiles, report=report)
    progress = list(steps)
    # Nothing is lost and nothing is done twice, whatever failed in between.
    assert (target.count == 1).all()
    assert progress[-1].done == image.size
    return target.array, report, progress


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_first_the_batch_is_halved(error, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    image = rng.random((128, 128), np.float32)
    predictor = FaultyPredictor(lambda shape, call: shape[0] > 2, error)
    result, report, progress = climb(image, predictor, TileOptions(32, batch=8))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(), scales=UNIT))
    assert {shape[-1] for shape in predictor.shapes} <= set(range(32, 40))
    assert any("2 tiles" in note for note in report.notes)
    assert any("2 tiles" in step.message for step in progress)
    assert report.device == "cpu"


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_then_the_tile_is_halved(error, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
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
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


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
        lambda shape, call: bool(fails[call]) and shape[-1] > 100,
        OUT_OF_MEMORY["cuda"],
        radius=5,
        multiple_of=4,
    )
    result, _, _ = climb(image, predictor, TileOptions(256, batch=5))
    np.testing.assert_array_equal(result, restored(image, LocalPredictor(5, 4), scales=UNIT))


def test_default_tiles_of_the_cpu_are_not_fixed() -> None:
    options = default_tiles("cpu")
    assert not options.fixed
    assert options.side >= 256
    assert WHOLE.side > options.side
