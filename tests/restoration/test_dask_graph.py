"""Lazy arrays: the same result as NumPy, chunk by chunk, and no more read than needed."""

from __future__ import annotations

import tracemalloc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from fakes import LocalPredictor, fake_plan, restored
from napari_restore.image.intensity import SAMPLE_PIXELS, Scale, find_scales
from napari_restore.image.layout import LazyStatistic, TileOptions, as_dask, find_layout, is_lazy
from napari_restore.restoration.dask_graph import SHARED, restore_lazily
from napari_restore.restoration.plan import Facts

if TYPE_CHECKING:
    from pathlib import Path


def lazily(
    image: da.Array,
    radius: int = 3,
    step: int = 1,
    view: int = 0,
    axes: str | None = None,
    scales: Any = None,
    side: int = 64,
) -> da.Array:
    make = partial(LocalPredictor, radius, step, view=view)
    known = None if scales is None else Facts(scales)
    return restore_lazily(image, fake_plan(image, make, axes=axes, side=side), known)


class Recorder:
    """An array that counts the samples read from it, and makes them up as they are asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype, self.ndim, self.read = shape, np.dtype(dtype), len(shape), 0

    def __getitem__(self, key: tuple[slice | int, ...]) -> np.ndarray:
        parts = [slice(k, k + 1) if isinstance(k, int) else k for k in key]
        places = np.ogrid[
            tuple(slice(*k.indices(n)) for k, n in zip(parts, self.shape, strict=True))
        ]
        block = sum(place * (3 + axis) for axis, place in enumerate(places)) % 251
        self.read += block.size
        picked = tuple(0 if isinstance(k, int) else slice(None) for k in key)
        return block.astype(self.dtype)[picked]


# ---------------------------------------------------------------- equal to NumPy


@pytest.mark.parametrize(
    "chunks",
    [(90, 77), (17, 13), (3, 7), (1, 77), (90, 5), ((1, 88, 1), (76, 1)), ((50, 40), (3, 70, 4))],
    ids=str,
)
@pytest.mark.parametrize(("radius", "step"), [(3, 1), (10, 8)])
def test_any_chunks_give_the_result_of_numpy(
    chunks: tuple, radius: int, step: int, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 60000, (90, 77)).astype(np.uint16)
    lazy = da.from_array(image, chunks=chunks)
    result = lazily(lazy, radius, step)
    assert (result.shape, result.dtype, result.chunks) == (lazy.shape, lazy.dtype, lazy.chunks)
    np.testing.assert_array_equal(
        result.compute(), restored(image, LocalPredictor(radius, step), tiles=TileOptions(64))
    )


# axes, shape, chunks, dtype
STACKS = {
    "movie": ("TYX", (5, 40, 50), (2, 16, 50), "f4"),
    "channels apart": ("CYX", (3, 40, 50), (1, 40, 20), "u2"),
    "channels together": ("CYX", (3, 40, 50), (3, 13, 50), "u2"),
    "five axes": ("TZCYX", (2, 3, 2, 30, 31), (1, 2, 1, 30, 16), "i2"),
    "color": ("YXS", (40, 50, 3), (20, 17, 3), "u1"),
    "color split": ("YXS", (40, 50, 4), (20, 17, 1), "u1"),
    "samples first": ("SYX", (3, 40, 50), (1, 20, 17), "u2"),
    "plane first": ("YXZ", (40, 50, 6), (10, 50, 4), "f8"),
    "byte-swapped": ("YX", (40, 50), (19, 50), ">u2"),
    "booleans": ("YX", (40, 50), (19, 50), "?"),
}


@pytest.mark.parametrize("view", [0, 16])
@pytest.mark.parametrize(("axes", "shape", "chunks", "dtype"), STACKS.values(), ids=STACKS)
def test_any_layout_gives_the_result_of_numpy(
    axes: str, shape: tuple, chunks: tuple, dtype: str, view: int, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 200, shape).astype(dtype)
    lazy = da.from_array(image, chunks=chunks)
    result = lazily(lazy, view=view, axes=axes)
    assert (result.dtype, result.chunks) == (lazy.dtype, lazy.chunks)
    expected = restored(image, LocalPredictor(view=view), axes=axes, tiles=TileOptions(64))
    difference = abs(result.compute().astype("f8") - expected.astype("f8")).max()
    # With a context, coordinates in tiles of different size differ in their last bit.
    assert difference <= (0 if view == 0 else 1e-3 if image.dtype.kind == "f" else 1)
    assert not np.array_equal(expected, image)


@pytest.mark.parametrize("shape", [(1, 1), (3, 30), (30, 3), (6, 6)], ids=str)
def test_images_smaller_than_the_halo(shape: tuple, rng: np.random.Generator) -> None:
    image = rng.random(shape)
    lazy = da.from_array(image, chunks=2)
    result = lazily(lazy, radius=20, step=8)
    assert result.chunks == lazy.chunks
    np.testing.assert_array_equal(result.compute(), restored(image, LocalPredictor(20, 8)))


def test_zarr_comes_in_and_dask_goes_out(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.random((50, 61), np.float32)
    stored = zarr.create_array(
        tmp_path / "image.zarr", shape=image.shape, chunks=(16, 20), dtype="f4"
    )
    stored[:] = image
    assert is_lazy(stored)
    result = lazily(as_dask(stored))
    assert isinstance(result, da.Array)
    assert result.chunksize == (16, 20)
    np.testing.assert_array_equal(result.compute(), restored(image, LocalPredictor()))


@pytest.mark.parametrize("shape", [(0, 5), (0, 40, 40)], ids=str)
def test_empty_arrays_stay_lazy_and_empty(shape: tuple) -> None:
    result = lazily(da.zeros(shape))
    assert isinstance(result, da.Array)
    assert result.compute().shape == shape


def test_what_counts_as_lazy() -> None:
    class Contiguous:
        """As h5py and xarray have it: the attribute is there, the chunks are not."""

        chunks = None

    assert is_lazy(da.zeros((3, 3)))
    assert not is_lazy(np.zeros((3, 3)))
    assert not is_lazy(Contiguous())


# ---------------------------------------------------------------- only what is needed


@pytest.mark.parametrize("side", [256, 1024])
def test_a_huge_array_is_planned_unread_and_in_few_tasks(side: int) -> None:
    source = Recorder((65536, 65536), "u2")
    lazy = da.from_array(source, chunks=side)
    result = lazily(lazy, radius=48, step=8)
    assert source.read == 0
    assert result.chunks == lazy.chunks
    # For each chunk: read, join and restore, and what is cut for its eight neighbors. Counted in
    # arrays of fewer chunks, since to count tasks is to make them all.
    counts = []
    for across in (4, 32):
        source = Recorder((across * side, across * side), "u2")
        lazy = da.from_array(source, chunks=side)
        counts.append(len(lazily(lazy, radius=48, step=8).__dask_graph__()) / lazy.npartitions)
        assert source.read == 0
    # The border has fewer neighbors, and what all share is one task.
    assert max(counts) < 16


def test_tasks_are_not_looked_at_where_no_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask imports what is for clusters; looking at every task takes seconds if there are many."""
    distributed = pytest.importorskip("distributed")

    def futures_of(collection: Any) -> None:
        raise AssertionError("every task was looked at")

    monkeypatch.setattr(distributed, "futures_of", futures_of)
    monkeypatch.setattr(distributed.Client, "_instances", weakref.WeakSet())
    lazily(da.zeros((40, 40), "u2", chunks=20))[:5, :5].compute(scheduler="synchronous")


def test_one_chunk_reads_its_neighbors_and_the_sample() -> None:
    source = Recorder((10000, 10000), "u2")
    result = lazily(da.from_array(source, chunks=250), radius=20, step=8, side=128)
    part = np.s_[5000:5250, 7500:7750]
    result[part].compute(scheduler="synchronous")
    assert 9 * 250**2 < source.read <= 9 * 250**2 + 1.1 * SAMPLE_PIXELS
    # Once more with the scale known: the neighbors alone.
    source.read = 0
    scales = (Scale(0.0, 250.0),)
    known = lazily(da.from_array(source, chunks=250), 20, 8, scales=scales, side=128)
    chunk = known[part].compute(scheduler="synchronous")
    assert source.read <= 9 * 250**2
    # The surroundings, cut on the grid of the whole.
    around = source[4496:5752, 7000:8248]
    expected = restored(around, LocalPredictor(20, 8), scales=scales)
    np.testing.assert_array_equal(chunk, expected[504:754, 500:750])


@pytest.mark.parametrize("view", [0, 16])
def test_one_frame_reads_few_other_frames(view: int) -> None:
    source = Recorder((100, 40, 50, 3), "u1")
    movie = da.from_array(source, chunks=(1, 40, 50, 3))
    scales = (Scale(0.0, 255.0),)
    result = lazily(movie, view=view, scales=scales)[90].compute(scheduler="synchronous")
    frame = source[90:91, :, :, :]
    # With a view, five frames tell what all have in common.
    assert source.read <= (8 if view else 3) * frame.size
    everything = source[:, :, :, :]
    expected = restored(everything, LocalPredictor(view=view), scales=scales)[90]
    assert abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("chunks", [(30, 20, 20, 3), (100, 9, 20, 3)], ids=str)
def test_every_plane_of_a_long_movie_has_its_own_context(
    chunks: tuple, rng: np.random.Generator
) -> None:
    # More planes than the engine keeps contexts for.
    movie = rng.integers(0, 255, (100, 20, 20, 3)).astype(np.uint8)
    result = lazily(da.from_array(movie, chunks=chunks), view=16).compute()
    expected = restored(movie, LocalPredictor(view=16))
    assert abs(result.astype(int) - expected).max() <= 1


def test_building_the_graph_copies_no_image() -> None:
    image = da.from_array(np.zeros((4096, 4096), np.uint16), chunks=1024)
    tracemalloc.start()
    lazily(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < image.nbytes / 4


def test_finding_in_many_threads_leaves_the_settings_of_dask_alone() -> None:
    movie = da.from_array(np.random.default_rng(0).random((6, 40, 50)), chunks=(1, 40, 50))
    before = dask.config.get("scheduler", None)
    for _ in range(3):
        dask.compute(lazily(movie, view=16)[3], lazily(movie + 1, view=16)[2])
        assert dask.config.get("scheduler", None) == before


# ---------------------------------------------------------------- for clusters


def sizes_of(graph: dict[Any, Any]) -> tuple[int, int]:
    """Bytes of the largest task, and of all that is shared, as they are sent."""
    shared = {key for key in graph if str(key).startswith(SHARED)}
    tasks = [graph[key] for key in list(graph)[:: max(1, len(graph) // 500)] if key not in shared]
    largest = max(len(cloudpickle.dumps(task)) for task in tasks)
    return largest, sum(len(cloudpickle.dumps(graph[key])) for key in shared)


@pytest.mark.parametrize("view", [0, 16])
def test_tasks_stay_small_however_many_there_are(view: int) -> None:
    few, many = (
        dict(dask.optimize(lazily(da.zeros((side, side), "u2", chunks=64), view=view))[0].dask)
        for side in (8 * 64, 48 * 64)
    )
    assert len(many) > 20 * len(few)
    (task_few, shared_few), (task_many, shared_many) = sizes_of(few), sizes_of(many)
    # Keys have a few more digits.
    assert task_few < 4000
    assert task_many < task_few + 100
    # Where the chunks begin, and the source: once, or twice with a view.
    assert shared_few < 40_000
    assert shared_many < 400_000


def test_one_object_serves_all_tasks_of_a_process(rng: np.random.Generator) -> None:
    source = da.from_array(rng.random((60, 60)), chunks=20)
    finds = LazyStatistic(source, find_layout(source), find_scales)
    one, other = (cloudpickle.loads(cloudpickle.dumps(finds)) for _ in range(2))
    assert one is other
    assert one.get() == finds.get()
    known = cloudpickle.dumps(finds)
    # What was found needs the source no more.
    assert len(known) < 2000
    different = LazyStatistic(source + 1, find_layout(source), find_scales)
    assert cloudpickle.loads(cloudpickle.dumps(different)) is not one
