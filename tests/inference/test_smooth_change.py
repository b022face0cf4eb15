"""What is taken away is smooth: narrow structures stay, wide light goes, tiles agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fakes import WHOLE, LocalPredictor, restored
from napari_restore.image.intensity import Scale, removed_light
from napari_restore.image.layout import TileOptions
from napari_restore.inference.predictor import SmoothChange, halo_with

UNIT = (Scale(0.0, 1.0),)


class Eraser(LocalPredictor):
    """Takes everything away."""

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        return torch.zeros_like(tiles)


@pytest.mark.parametrize("multiple_of", [1, 4, 16])
@pytest.mark.parametrize("size", [4, 20, 60])
def test_narrow_structures_stay_and_wide_light_goes(size: float, multiple_of: int) -> None:
    # Not quite even: what is, stays as it is.
    image = np.random.default_rng(0).normal(0.5, 1e-3, (256, 256)).astype(np.float32)
    image[127:129, 127:129] += 0.5
    predictor = SmoothChange(Eraser(multiple_of=multiple_of, halo=0), size)
    result = restored(image, predictor, scales=UNIT, tiles=WHOLE)
    assert abs(result[:40].mean()) < 0.01
    assert result[127:129, 127:129].mean() > 0.45


@pytest.mark.parametrize("size", [6, 15, 40])
def test_structures_of_the_size_stay_even_if_the_network_takes_all(size: int) -> None:
    y, x = np.mgrid[:400, :400] - 200
    disk = (np.hypot(y, x) <= size / 2).astype(np.float32)
    line = (np.abs(x) <= size / 2).astype(np.float32)
    predictor = SmoothChange(Eraser(multiple_of=8, halo=0), size)
    left = [
        float(restored(image, predictor, scales=UNIT, tiles=WHOLE)[200, 200])
        for image in (disk, line)
    ]
    assert left[0] > 0.9
    assert left[1] > 0.7


def test_an_outlier_does_not_take_its_surroundings(rng: np.random.Generator) -> None:
    class Overflowing(Eraser):
        def __call__(
            self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
        ) -> torch.Tensor:
            out = torch.zeros_like(tiles)
            out[..., 50, 50] = torch.inf
            return out

    image = np.ones((100, 100), np.float32)
    result = restored(image, SmoothChange(Overflowing(halo=0), 4), scales=UNIT, tiles=WHOLE)
    assert np.isfinite(result).all()
    assert abs(result[40, 50]) < 0.1


@pytest.mark.parametrize("multiple_of", [1, 8, 16])
@pytest.mark.parametrize("size", [3, 10, 33, 80])
def test_tiles_agree_with_the_whole(
    size: float, multiple_of: int, rng: np.random.Generator
) -> None:
    image = rng.random((200, 230), np.float32).cumsum(0).astype(np.float32) / 100
    whole, tiled = (
        restored(
            image,
            SmoothChange(LocalPredictor(radius=9, multiple_of=multiple_of), size),
            scales=UNIT,
            tiles=tiles,
        )
        for tiles in (WHOLE, TileOptions(64))
    )
    np.testing.assert_allclose(tiled, whole, atol=0.01 * np.ptp(image))
    assert np.abs(whole - image).max() > 0.001


def test_the_halo_grows_with_the_size() -> None:
    assert halo_with(48, 0) == 48
    assert halo_with(48, 20) == SmoothChange(LocalPredictor(halo=48), 20).halo == 138


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "?"])
def test_result_and_removed_light_are_the_source(dtype: str, rng: np.random.Generator) -> None:
    span = (-100, 100) if dtype[0] in "if" else (0, 2 if dtype == "?" else 200)
    source, result = (rng.uniform(*span, (20, 30)).astype(dtype) for _ in range(2))
    removed = removed_light(source, result)
    assert removed.dtype.kind in "if"
    # The sum of two float64 is rounded.
    rtol = 4e-16 if dtype == "f8" else 0
    np.testing.assert_allclose((result + removed).astype(dtype), source, rtol=rtol)
