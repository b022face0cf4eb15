"""Samples that are scaled and rounded on the device of the network: the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fakes import LocalPredictor, restored
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import Region, TileOptions
from napari_restore.inference.engine import Report, TileQueue, are_sent

RNG = np.random.default_rng(5)
DTYPES = ["uint8", "int8", "uint16", "int16"]


class Sent(LocalPredictor):
    """Gets tiles as the engine makes them on its device."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.takes_device_tiles = True


def pictures(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Noise over the whole range of a dtype: much will be clipped."""
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((45, 70), "YX"), ((45, 70, 3), "YXS"), ((33, 20, 4), "YXS"), ((2, 3, 40, 24), "TCYX")],
    ids=str,
)
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_it_is_what_the_processor_makes_of_them(
    dtype: str, shape: tuple[int, ...], axes: str, strength: float
) -> None:
    image, options = pictures(dtype, shape), TileOptions(32, batch=3, small=8)
    results, reports = [], []
    for predictor in (LocalPredictor(), Sent()):
        reports.append(Report())
        results.append(
            restored(
                image, predictor, tiles=options, axes=axes, strength=strength, report=reports[-1]
            )
        )
    assert results[1].dtype == image.dtype
    np.testing.assert_array_equal(*results)
    assert reports[0].clipped == reports[1].clipped > 0
    if shape[-1] == 4:
        np.testing.assert_array_equal(results[1][..., 3], image[..., 3])


@pytest.mark.parametrize("dtype", ["bool", "uint32", "float32", ">u2"])
def test_other_samples_are_not_sent(dtype: str) -> None:
    assert not are_sent(np.dtype(dtype), Sent())
    assert not are_sent(np.dtype("uint8"), LocalPredictor())
    image = (100 * RNG.random((40, 40))).astype(dtype)
    np.testing.assert_array_equal(restored(image, Sent()), restored(image, LocalPredictor()))


def test_an_even_channel_and_what_is_not_a_number_stay_as_they_are() -> None:
    class Broken(Sent):
        def __call__(self, tiles: torch.Tensor, *rest: Any) -> torch.Tensor:
            result = super().__call__(tiles, *rest)
            result[..., 5, :] = torch.nan
            return result

    image = pictures("uint16", (2, 30, 30))
    scales = Scale(7.0, 0.0), Scale(0.0, 60000.0)
    found = restored(image, Broken(halo=0), axes="CYX", scales=scales)
    np.testing.assert_array_equal(found[0], image[0])
    np.testing.assert_array_equal(found[1, 5], image[1, 5])
    assert (found[1] != image[1]).mean() > 0.9


def test_both_of_two_frames_are_sent() -> None:
    class Mean(Sent):
        def __call__(self, tiles: torch.Tensor, *rest: Any) -> torch.Tensor:
            first, second = tiles.chunk(2, 1)
            return (first + second) / 2

    predictor = Mean(radius=0, halo=8)
    predictor.frames = 2
    movie = pictures("uint8", (3, 20, 20))
    found = restored(movie, predictor, axes="TYX", scales=(Scale(0.0, 255.0),))
    expected = (movie.astype(float) + movie[[1, 2, 1]]) / 2
    assert np.abs(found - expected).max() <= 0.51


def test_small_tiles_are_taken_together() -> None:
    planes = [((number,), Region(0, 0, 16, 16)) for number in range(20)]
    queue = TileQueue(planes, TileOptions(64, small=10))
    assert [len(queue.take()) for _ in range(3)] == [10, 10, 0]
    assert len(TileQueue(planes, TileOptions(64)).take()) == 1
    whole = [((0,), Region(0, 0, 64, 128))]
    queue = TileQueue(whole, TileOptions(64, small=10))
    assert [len(queue.take()) for _ in range(3)] == [1, 1, 0]
    queue = TileQueue(planes, TileOptions(64, small=10))
    assert "5 tiles" in (queue.put_back_smaller(queue.take(), "cuda") or "")
    assert [len(queue.take()) for _ in range(2)] == [5, 5]


@pytest.mark.card
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_graphics_card(rng: np.random.Generator) -> None:
    import napari_restore

    image = (60000 * rng.random((3, 700, 900))).astype(np.uint16)
    kwargs: dict[str, Any] = {"axes": "ZYX", "tile": 256}
    here = napari_restore.deblur(image, device="cpu", **kwargs).astype(float)
    there = napari_restore.deblur(image, device="cuda", **kwargs).astype(float)
    # The network computes in half precision there.
    assert np.abs(here - there).mean() < 0.005 * np.abs(here - image).mean() + 60
