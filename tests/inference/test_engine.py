"""The engine: tiles that add up to the whole, progress, canceling, and the memory ladder."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from fakes import WHOLE, LocalPredictor, restored, told
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import Planes, Region, TileOptions, find_layout
from napari_restore.inference.engine import default_tiles, run
from napari_restore.runtime import Progress, Stopped, Watch, advanced
from waiting import LIMIT

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
    assert image.size == 1 or not np.array_equal(whole, image)
    tiled = restored(image, LocalPredictor(radius, step), scales=UNIT, tiles=tiles)
    np.testing.assert_array_equal(tiled, whole)


def test_a_halo_that_is_too_small_shows(rng: np.random.Generator) -> None:
    # What the test above rests on: it can see a seam.
    image = rng.random((65, 130), np.float32)
    whole = restored(image, LocalPredictor(9, halo=4), scales=UNIT)
    tiled = restored(image, LocalPredictor(9, halo=4), scales=UNIT, tiles=TileOptions(32))
    assert abs(whole - tiled).max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("multiple_of", [1, 8, 16])
def test_beyond_the_image_is_only_what_the_grid_needs(
    shape: tuple[int, int], multiple_of: int, rng: np.random.Generator
) -> None:
    image = rng.random(shape, np.float32)
    predictor = LocalPredictor(9, multiple_of)
    further = [-length % multiple_of for length in shape]
    padded = np.pad(image, [(0, count) for count in further], mode="reflect")
    expected = predictor(torch.from_numpy(padded)[None, None], None, torch.zeros(1, 4))
    np.testing.assert_allclose(
        restored(image, predictor, scales=UNIT, tiles=TileOptions(20)),
        expected[0, 0, : shape[0], : shape[1]].numpy(),
        atol=1e-6,
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
        colors = plane[..., :3] if layout.color else plane[..., None]
        for sample in range(colors.shape[-1]):
            alone = restored(colors[..., sample].copy(), LocalPredictor(), scales=UNIT)
            got = done[..., sample] if layout.color else done
            np.testing.assert_array_equal(got, alone)
        if layout.color:
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
    steps = told(
        run,
        Planes(image, layout),
        Planes(part, layout),
        LocalPredictor(7, step),
        UNIT,
        tiles=TileOptions(32),
        regions=[((1,), place)],
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
    # Five give what all have in common, the same for each.
    assert predictor.looks == 5 + 70
    assert predictor.commons[:5] == [None] * 5
    assert all(common is predictor.commons[5] for common in predictor.commons[5:])
    whole = restored(image, LocalPredictor(view=16), scales=UNIT)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    plain = restored(image, LocalPredictor(), scales=UNIT)
    y, x = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(50) + 0.5) / 50, indexing="ij")
    means = image.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(whole - plain, (means + 0.005) * (y + x), atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 700), (900, 2), (300, 500)], ids=str)
def test_a_view_exists_for_planes_of_any_shape(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    image = rng.random(shape, np.float32)
    predictor = LocalPredictor(view=8)
    restored(image, predictor, scales=UNIT, tiles=TileOptions(256))
    assert predictor.looks == 1


def test_a_view_has_no_gaps(rng: np.random.Generator) -> None:
    image = rng.random((60, 70), np.float32)
    clean = restored(image, LocalPredictor(view=16), scales=UNIT)
    image[10:13, 20:22] = np.nan
    image[40, 50] = np.inf
    result = restored(image, LocalPredictor(view=16), scales=UNIT)
    np.testing.assert_allclose(result[25:35], clean[25:35], atol=0.01)
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(image))


# ---------------------------------------------------------------- progress and canceling


@pytest.mark.parametrize("batch", [1, 3])
def test_progress_grows_to_the_total(batch: int, rng: np.random.Generator) -> None:
    image = rng.random((3, 50, 40), np.float32)
    layout, out = find_layout(image), np.empty_like(image)
    steps = told(
        run,
        Planes(image, layout),
        Planes(out, layout),
        LocalPredictor(),
        UNIT,
        tiles=TileOptions(16, batch),
    )
    assert all(step.total == image.size for step in steps)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == image.size
    assert len(steps) >= 12 * 3 / batch


def test_it_stops_within_one_batch_of_tiles(rng: np.random.Generator) -> None:
    image = rng.random((64, 64), np.float32)
    layout, out, predictor = find_layout(image), np.zeros_like(image), LocalPredictor()

    def stop(step: Progress) -> None:
        if step.done >= 2 * 16**2:
            watch.stop()

    watch = Watch(stop)
    planes = Planes(image, layout), Planes(out, layout)
    others = set(threading.enumerate())
    with pytest.raises(Stopped), watch.around():
        run(*planes, predictor, UNIT, tiles=TileOptions(16))
    # Two are written. A third may have begun, and is let run out; nothing is written any more.
    written = out.copy()
    for computing in set(threading.enumerate()) - others:
        computing.join(LIMIT)
        assert not computing.is_alive()
    assert len(predictor.shapes) <= 3
    assert np.count_nonzero(written.any(1)) <= 16
    np.testing.assert_array_equal(out, written)


class RowsPredictor(LocalPredictor):
    """Goes through a tile in four strips, each when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.strip = threading.Semaphore(0)
        self.strips, self.ended = 0, threading.Event()

    def __call__(self, tiles: torch.Tensor, *rest: Any) -> torch.Tensor:
        try:
            for share in (0.25, 0.5, 0.75, 1.0):
                assert self.strip.acquire(timeout=LIMIT)
                advanced(share)
                self.strips += 1
        finally:
            self.ended.set()
        return super().__call__(tiles, *rest)


def test_a_tile_tells_how_far_it_is_and_ends_between_its_rows(rng: np.random.Generator) -> None:
    image = rng.random((40, 50), np.float32)
    layout, out, predictor = find_layout(image), np.zeros_like(image), RowsPredictor()
    quarters: list[int] = []

    def follow(step: Progress) -> None:
        # The network waits: each quarter is told before the next is allowed.
        if step.done == len(quarters) * image.size // 4:
            quarters.append(step.done)
            if len(quarters) == 3:
                watch.stop()
            predictor.strip.release()

    watch = Watch(follow)
    with pytest.raises(Stopped), watch.around():
        run(Planes(image, layout), Planes(out, layout), predictor, UNIT, tiles=WHOLE)
    assert predictor.ended.wait(LIMIT)
    assert quarters == [0, image.size // 4, image.size // 2]
    assert predictor.strips == 2
    assert not out.any()


def test_progress_within_tiles_changes_no_sample(rng: np.random.Generator) -> None:
    image, predictor = rng.random((40, 50), np.float32), RowsPredictor()
    predictor.strip.release(4)
    found = restored(image, predictor, scales=UNIT)
    np.testing.assert_array_equal(found, restored(image, LocalPredictor(), scales=UNIT))


def test_default_tiles_of_the_cpu_are_not_fixed() -> None:
    options = default_tiles("cpu")
    assert not options.fixed
    assert options.side >= 256


def test_the_next_tiles_are_read_and_the_last_written_while_the_network_computes(
    rng: np.random.Generator,
) -> None:
    image = rng.random((64, 256), np.float32)
    layout, changed = find_layout(image), threading.Condition()
    count = {"read": 0, "written": 0}

    def note(what: str) -> None:
        with changed:
            count[what] += 1
            changed.notify_all()

    class Spy(Planes):
        def read(self, index: tuple[int, ...], region: Region) -> np.ndarray:
            note("read")
            return super().read(index, region)

        def write(self, index: tuple[int, ...], region: Region, block: np.ndarray) -> None:
            super().write(index, region, block)
            note("written")

    class Waiting(LocalPredictor):
        def __call__(
            self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
        ) -> torch.Tensor:
            before = len(self.shapes)
            with changed:
                assert changed.wait_for(lambda: count["read"] >= min(before + 2, 4), LIMIT)
                assert changed.wait_for(lambda: count["written"] == before, LIMIT)
            return super().__call__(tiles, context, boxes)

    out = np.empty_like(image)
    run(Spy(image, layout), Spy(out, layout), Waiting(), UNIT, tiles=TileOptions(64))
    np.testing.assert_array_equal(out, restored(image, LocalPredictor(), scales=UNIT))
