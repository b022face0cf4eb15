"""Geometry of tiles: one grid for every window, nothing left out, nothing computed twice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_restore.image.layout import Grid, Region, reflect, split

SIZES = [(1, 1), (1, 40), (2, 3), (5, 200), (17, 16), (64, 64), (131, 77), (300, 260)]


def random_regions(size: tuple[int, int], count: int = 25) -> list[Region]:
    rng = np.random.default_rng(size)
    regions = [Region(0, 0, *size)]
    for _ in range(count):
        top, bottom = np.sort(rng.choice(size[0] + 1, 2, replace=False))
        left, right = np.sort(rng.choice(size[1] + 1, 2, replace=False))
        regions.append(Region(int(top), int(left), int(bottom), int(right)))
    return regions


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("step", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("halo", [0, 5, 16, 48])
def test_windows_lie_on_one_grid_and_hold_the_halo(
    size: tuple[int, int], step: int, halo: int
) -> None:
    grid = Grid(size, step, halo)
    for tile in random_regions(size):
        window = grid.window(tile)
        assert all(edge % step == 0 for edge in window)
        for axis in (0, 1):
            start, stop = tile[axis], tile[axis + 2]
            first, last = window[axis], window[axis + 2]
            # The halo is there, as far as there is an image.
            assert 0 <= first <= max(start - halo, 0)
            assert min(stop + halo, size[axis]) <= last < size[axis] + step
            # And not much more than the halo is computed.
            assert start - first < halo + step
            assert last - stop < halo + step


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("step", "halo"), [(1, 0), (8, 48), (16, 5), (4, 100)])
def test_reflection_is_that_of_numpy(size: tuple[int, int], step: int, halo: int) -> None:
    grid = Grid(size, step, halo)
    image = np.random.default_rng(size).random((*size, 2), np.float32)
    padded = np.pad(image, ((0, step), (0, step), (0, 0)), mode="reflect")
    for tile in random_regions(size):
        window = grid.window(tile)
        inside = grid.inside(window)
        assert 0 <= inside.top < inside.bottom <= size[0]
        assert 0 <= inside.left < inside.right <= size[1]
        block = image[inside.top : inside.bottom, inside.left : inside.right]
        expected = padded[window.top : window.bottom, window.left : window.right]
        np.testing.assert_array_equal(reflect(block, inside, window, size), expected)


def test_inside_the_image_a_window_reads_itself_alone() -> None:
    grid = Grid((500, 500), 8, 24)
    window = grid.window(Region(100, 120, 200, 220))
    assert window == grid.inside(window)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("side", [1, 16, 64, 100, 1000])
def test_tiles_cover_a_region_exactly_once(size: tuple[int, int], side: int) -> None:
    for region in random_regions(size, 5):
        seen = np.zeros(size, int)
        tiles = list(split(region, side))
        for tile in tiles:
            seen[tile.top : tile.bottom, tile.left : tile.right] += 1
        expected = np.zeros(size, int)
        expected[region.top : region.bottom, region.left : region.right] = 1
        np.testing.assert_array_equal(seen, expected)
        assert sum(tile.pixels for tile in tiles) == region.pixels
        for tile in tiles:
            # Full tiles, but for the last row and column.
            assert tile.height == side or tile.bottom == region.bottom
            assert tile.width == side or tile.right == region.right
