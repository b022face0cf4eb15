"""The estimate of blur: where it looks, what it makes of what the network says."""

from __future__ import annotations

import math
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

from fakes import LocalPredictor
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes, Region, find_layout
from napari_restore.restoration.plan import BlurEstimate, estimate_blur


class Gauge(LocalPredictor):
    """Says that the mean of a window is its log σ, and how sure it is."""

    def __init__(self, log_variance: float = -4.0, multiple_of: int = 8) -> None:
        super().__init__(multiple_of=multiple_of)
        self.estimates_blur, self.log_variance = True, log_variance
        self.sizes: list[tuple[int, ...]] = []

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.float32
        assert image.shape[2] % self.multiple_of == image.shape[3] % self.multiple_of == 0
        self.sizes.append(tuple(image.shape))
        small = torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True), self.multiple_of)
        return torch.stack([small, torch.full_like(small, self.log_variance)], 1)


def estimate(image: Any, gauge: Gauge, **options: Any) -> BlurEstimate | None:
    planes = Planes(image, find_layout(image, options.pop("axes", None)))
    return estimate_blur(planes, gauge, find_scales(planes), **options)


def textured(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.random([*shape[:-2], shape[-2] // 8 + 1, shape[-1] // 8 + 1])
    return coarse.repeat(8, -2).repeat(8, -1)[..., : shape[-2], : shape[-1]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (64, 64), (257, 700), (5, 40, 1000)], ids=str)
def test_any_shape_is_measured(shape: tuple[int, ...]) -> None:
    gauge = Gauge()
    found = estimate(textured(*shape), gauge)
    if shape == (1, 1):
        assert found is None
        return
    assert found is not None
    # The image is about 0.5 after scaling: half of e.
    assert found.sigma == pytest.approx(math.exp(0.5), rel=0.15)
    assert found.low <= found.sigma <= found.high
    assert found.windows == len(gauge.sizes) <= 6


def test_a_model_without_a_gauge_and_an_even_image_say_nothing() -> None:
    assert estimate(textured(64, 64), LocalPredictor()) is None
    assert estimate(np.full((64, 64), 7.0), Gauge()) is None
    assert estimate(np.zeros((0, 64)), Gauge()) is None


def test_a_network_that_is_not_sure_says_nothing() -> None:
    assert estimate(textured(64, 64), Gauge(log_variance=1.0)) is None


def test_invalid_pixels_do_no_harm() -> None:
    image = textured(64, 64)
    image[10:20, 10:20] = np.nan
    found = estimate(image, Gauge())
    assert found is not None
    assert math.isfinite(found.sigma)


def test_windows_with_structure_are_preferred() -> None:
    image = np.zeros((2048, 2048))
    image[1800:2040, 1800:2040] = textured(240, 240)
    found = estimate(image, Gauge())
    assert found is not None
    assert found.windows == 1


def test_a_region_is_measured_alone() -> None:
    image = np.concatenate([textured(300, 300), 0.1 * textured(300, 300)], axis=1)
    left, right = (
        estimate(image, Gauge(), within=((), Region(0, start, 300, start + 300)))
        for start in (0, 300)
    )
    assert left is not None
    assert right is not None
    assert left.sigma > 1.3 * right.sigma


def test_little_of_a_large_lazy_image_is_read() -> None:
    read = []

    def block(block_info: Any = None) -> np.ndarray:
        shape = block_info[None]["chunk-shape"]
        read.append(shape)
        return textured(*shape)

    image = da.map_blocks(
        block, chunks=((1,) * 50, (512,) * 12, (512,) * 12), dtype=float, meta=np.empty((0, 0, 0))
    )
    planes = Planes(image, find_layout(image))
    scales = find_scales(Planes(textured(8, 64, 64), find_layout(textured(8, 64, 64))))
    assert estimate_blur(planes, Gauge(), scales) is not None
    assert len(read) <= 27 * 4


def test_a_chunk_is_computed_once_for_all_windows() -> None:
    computed = []

    def block(block_info: Any = None) -> np.ndarray:
        computed.append(block_info[None]["chunk-location"])
        return textured(*block_info[None]["chunk-shape"])

    image = da.map_blocks(block, chunks=((2048,), (2048,)), dtype=float, meta=np.empty((0, 0)))
    scales = find_scales(Planes(textured(64, 64), find_layout(textured(64, 64))))
    assert estimate_blur(Planes(image, find_layout(image)), Gauge(), scales) is not None
    assert len(computed) == 1


def test_windows_that_tell_nothing_do_not_count() -> None:
    class Partly(Gauge):
        def estimate(self, image: torch.Tensor) -> torch.Tensor:
            estimates = super().estimate(image)
            # The second window is very blurred, and the network knows nothing of it.
            if len(self.sizes) > 1:
                estimates[:, 0], estimates[:, 1] = 3.0, 2.0
            return estimates

    found = estimate(textured(256, 900), Partly())
    assert found is not None
    assert found.windows == 1
    assert found.low == found.high == pytest.approx(found.sigma)


@pytest.mark.parametrize(
    ("sigma", "verdict"), [(0.3, "sharp"), (1.0, "blurred"), (2.0, "blurred"), (2.7, "strong")]
)
def test_the_record_is_plain_and_has_a_verdict(sigma: float, verdict: str) -> None:
    record = BlurEstimate(sigma, sigma / 2, sigma * 2, 4).record()
    assert record["sigma_px"] == pytest.approx(sigma, abs=0.01)
    assert record["verdict"] == verdict
    assert record["range_px"] == [pytest.approx(sigma / 2, abs=0.01), pytest.approx(2 * sigma)]


NOISE = {
    "normal": lambda rng, shape: rng.normal(1000, 50, shape),
    "photons": lambda rng, shape: rng.poisson(0.3, shape).astype("u2"),
    "salt": lambda rng, shape: (rng.random(shape) > 0.9).astype("u1"),
    "on a slope": lambda rng, shape: rng.normal(0, 1, shape) + np.linspace(0, 30, shape[1]),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("shape", [(128, 128), (300, 400)], ids=str)
def test_noise_is_no_structure(noise: Any, shape: tuple[int, int]) -> None:
    image = noise(np.random.default_rng(0), shape)
    assert estimate(image, Gauge()) is None
    assert estimate(image + 60 * textured(*shape), Gauge()) is not None
