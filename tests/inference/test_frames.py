"""Two frames in the engine, and motion over whole images, with networks that are simple to know."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

from fakes import LocalPredictor, fake_plan
from napari_restore.analysis.motion import CELL, Motion, field_of_motion
from napari_restore.errors import ImageError
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import (
    Layout,
    Planes,
    Region,
    Stacked,
    TileOptions,
    find_layout,
    stacked,
    with_time,
)
from napari_restore.inference.engine import run
from napari_restore.restoration.dask_graph import restore_lazily
from napari_restore.restoration.plan import Facts

SCALES = (Scale(0.0, 1.0),)


class Second(LocalPredictor):
    """Returns the second of two frames: which neighbor a frame got is seen in the result."""

    def __init__(self) -> None:
        super().__init__(radius=0, halo=8)
        self.frames = 2

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        return tiles[:, tiles.shape[1] // 2 :]


class Moving(LocalPredictor):
    """Motion that is the same everywhere, or grows with the brightness of a cell."""

    def __init__(self, frames: int, y: float, x: float, by_brightness: bool = False) -> None:
        super().__init__(radius=0, multiple_of=8, halo=8)
        self.frames, self._way, self._bright = frames, (y, x), by_brightness

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(tiles[:, :1], cell, ceil_mode=True)
        factor = mean if self._bright else torch.ones_like(mean)
        return torch.cat([part * factor for part in self._way], 1)


def restored(image: Any, axes: str, side: int = 32) -> np.ndarray:
    layout = find_layout(image, axes)
    out = np.empty(image.shape, image.dtype)
    planes = Planes(image, layout), Planes(out, layout)
    run(*planes, Second(), SCALES * 4, tiles=TileOptions(side))
    return out


MOVIES = [("TYX", (4, 37, 50)), ("TCYX", (3, 2, 37, 50)), ("CTYX", (1, 4, 20, 21))]


@pytest.mark.parametrize(("axes", "shape"), MOVIES, ids=str)
def test_every_frame_gets_the_next_and_the_last_the_one_before(
    axes: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    image, time = rng.random(shape), axes.index("T")
    order = [*range(1, shape[time]), shape[time] - 2]
    expected = image.take(order, axis=time)
    np.testing.assert_allclose(restored(image, axes), expected, atol=1e-6)


def test_color_movies_too(rng: np.random.Generator) -> None:
    image = rng.random((3, 20, 30, 3))
    np.testing.assert_allclose(restored(image, "TYXS"), image[[1, 2, 1]], atol=1e-6)


class Counter:
    """An array that notes which frames were read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.frames = array, set[int]()
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        part = key[0]
        stop = part.indices(self.shape[0]) if isinstance(part, slice) else (part, part + 1, 1)
        self.frames |= set(range(*stop))
        return self._array[key]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("side", [16, 60])
def test_lazy_movies_equal_those_in_memory(
    frames: int, side: int, rng: np.random.Generator
) -> None:
    image = rng.random((5, 40, 52))
    source = da.from_array(image, chunks=(frames, side, side))
    lazy = lazily(source)
    assert lazy.chunks == source.chunks
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), restored(image, "TYX"))


def lazily(source: da.Array) -> da.Array:
    return restore_lazily(
        source, fake_plan(source, Second, axes="TYX", side=32, frames=2), Facts(SCALES)
    )


@pytest.mark.parametrize(("asked", "read"), [(0, {0, 1}), (2, {2, 3}), (4, {3, 4})])
def test_a_chunk_reads_its_frame_and_the_neighbor(
    asked: int, read: set[int], rng: np.random.Generator
) -> None:
    counter = Counter(rng.random((5, 20, 20)))
    source = da.from_array(counter, chunks=(1, 20, 20), meta=np.empty((0, 0, 0)), name=False)
    lazily(source)[asked].compute(scheduler="synchronous")
    assert read <= counter.frames
    # The frame before is at hand for the last one only; dask trims what is not needed.
    assert len(counter.frames) <= 3


# ---------------------------------------------------------------- which axis is time


@pytest.mark.parametrize(
    ("shape", "axes", "read"),
    [
        ((4, 9, 9), None, "TYX"),
        ((4, 9, 9), "TYX", "TYX"),
        ((4, 9, 9), "IYX", "TYX"),
        ((4, 2, 9, 9), "QZYX", "TZYX"),
        ((2, 4, 9, 9), "CTYX", "CTYX"),
        ((4, 9, 9, 3), "QYXS", "TYXS"),
    ],
    ids=str,
)
def test_the_only_axis_that_may_be_time_is(
    shape: tuple[int, ...], axes: str | None, read: str
) -> None:
    assert with_time(find_layout(np.empty(shape), axes)).axes == read


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((9, 9), None, "has none"),
        ((4, 9, 9), "ZYX", "has none"),
        ((4, 2, 9, 9), None, "several"),
        ((1, 9, 9), "TYX", "has one"),
    ],
    ids=str,
)
def test_else_it_has_to_be_named(shape: tuple[int, ...], axes: str | None, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        with_time(find_layout(np.empty(shape), axes))


# ---------------------------------------------------------------- motion over the image


def motion_of(image: Any, axes: str, predictor: Moving, spacing: int = CELL) -> Motion:
    planes = Planes(image, find_layout(image, axes))
    return field_of_motion(planes, predictor, SCALES, spacing)


@pytest.mark.parametrize("spacing", [16, 48])
@pytest.mark.parametrize("shape", [(2, 64, 96), (3, 37, 50), (2, 600, 530), (2, 5, 7)], ids=str)
def test_every_cell_gets_its_motion(shape: tuple[int, ...], spacing: int) -> None:
    motion = motion_of(np.zeros(shape), "TYX", Moving(2, 2.0, -3.0), spacing)
    rows, columns = (-(-length // spacing) for length in shape[1:])
    assert motion.vectors.shape == (shape[0], rows, columns, 2)
    assert motion.directed
    assert np.allclose(motion.vectors[:-1], [2, -3])
    # The last frame's neighbor is the one before: the way from there.
    assert np.allclose(motion.vectors[-1], [-2, 3])
    assert motion.speed == pytest.approx(13**0.5)


def test_cells_lie_where_they_were_seen(rng: np.random.Generator) -> None:
    cells = rng.random((3, 40, 37))
    image = cells.repeat(CELL, 1).repeat(CELL, 2)
    for array in (image, da.from_array(image, chunks=(1, 200, 200)), zarr.array(image)):
        motion = motion_of(array, "TYX", Moving(2, 1.0, 0.0, by_brightness=True))
        np.testing.assert_allclose(motion.vectors[:2, ..., 0], cells[:2], atol=1e-5)


def test_lines_have_no_sign_and_do_not_cancel() -> None:
    motion = motion_of(np.zeros((96, 96)), "YX", Moving(1, -4.0, 3.0), 48)
    assert not motion.directed
    lengths = np.linalg.norm(motion.vectors, axis=-1)
    np.testing.assert_allclose(lengths, 5, rtol=1e-5)
    np.testing.assert_allclose(
        np.abs(motion.vectors), np.broadcast_to([4, 3], (2, 2, 2)), rtol=1e-4
    )


def test_vectors_start_in_the_middle_of_their_cells() -> None:
    vectors = np.zeros((2, 3, 4, 2), np.float32)
    vectors[1, 2, 3] = 6, -8
    (arrow,) = Motion(vectors, 16, directed=True).as_vectors()
    # The middle of 16 pixels is between the eighth and the ninth.
    np.testing.assert_array_equal(arrow, [[1, 39.5, 55.5], [0, 6, -8]])
    (line,) = Motion(vectors, 16, directed=False).as_vectors()
    np.testing.assert_array_equal(line, [[1, 36.5, 59.5], [0, 6, -8]])
    assert len(Motion(vectors, 16, directed=True).as_vectors(shortest=11)) == 0


# ---------------------------------------------------------------- arrays as frames


def test_arrays_seen_as_frames_are_not_copied(rng: np.random.Generator) -> None:
    first, second = rng.random((2, 20, 30))
    both = stacked([first, second])
    assert isinstance(both, Stacked)
    assert both.shape == (2, 20, 30)
    layout = Layout(both.shape, "TYX")
    out = np.empty((1, 20, 30))
    whole = next(iter(layout.indices()))
    region = [(whole, Region(0, 0, 20, 30))]
    planes = Planes(both, layout), Planes(out, layout)
    run(*planes, Second(), SCALES, tiles=TileOptions(32), regions=region)
    np.testing.assert_allclose(out[0], second, atol=1e-6)


def test_a_lazy_one_makes_all_lazy(rng: np.random.Generator) -> None:
    first, second = rng.random((2, 20, 30))
    both = stacked([first, da.from_array(second, chunks=10)])
    assert isinstance(both, da.Array)
    np.testing.assert_array_equal(both.compute(), np.stack([first, second]))


@pytest.mark.parametrize("other", [np.zeros((4, 6)), np.zeros((4, 5), np.uint8)])
def test_frames_that_differ_are_refused(other: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"one shape and one dtype.*\(4, 5\) float64"):
        stacked([np.zeros((4, 5)), other])
