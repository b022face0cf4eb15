"""The intensity scale: where it comes from, that it is affine, and what happens at the limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from napari_restore.image.intensity import (
    PERCENTILES,
    Scale,
    _percentiles,
    find_scales,
    sample_regions,
)
from napari_restore.image.layout import Layout, Planes, find_layout

INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]


def scales_of(image: np.ndarray, from_zero: bool = False, **options: object) -> tuple[Scale, ...]:
    return find_scales(Planes(image, find_layout(image, **options)), from_zero)


# ---------------------------------------------------------------- the scale


def test_uint8_color_is_divided_by_255_whatever_it_holds() -> None:
    image = np.full((9, 9, 3), 40, np.uint8)
    assert scales_of(image) == (Scale(0.0, 255.0),)


def test_booleans_are_zero_and_one() -> None:
    assert scales_of(np.zeros((9, 9), bool)) == (Scale(0.0, 1.0),)


@pytest.mark.parametrize("dtype", [*INTEGERS[2:4], *INTEGERS[6:], "u2", "i2", "f4", "f8", ">f4"])
def test_the_scale_lies_between_robust_percentiles(dtype: str, rng: np.random.Generator) -> None:
    image = rng.integers(100, 1100, (200, 200)).astype(dtype)
    image[0, :3] = 30000  # hot pixels
    (scale,) = scales_of(image)
    assert scale.low == pytest.approx(105, abs=2)
    assert scale.low + scale.span == pytest.approx(1099, abs=2)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_percentiles_of_the_widest_signed_range(dtype: str) -> None:
    info = np.iinfo(dtype)
    image = np.full((10, 10), info.min, dtype)
    image[0, 0] = info.max  # the percentile lies between the two
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (scale,) = scales_of(image)
    width = float(info.max) - float(info.min)
    assert scale.low == float(info.min)
    assert 0.85 * width < scale.span < width


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", ">u2"])
@pytest.mark.parametrize("more", [0, 3, 4711])
def test_percentiles_are_those_of_numpy_to_the_last_bit(
    dtype: str, more: int, rng: np.random.Generator
) -> None:
    """Of so many values that they are counted."""
    info = np.iinfo(dtype)
    size = int(info.max) - int(info.min) + 1 + more
    for _ in range(10):
        values = rng.integers(info.min, info.max, size, endpoint=True).astype(dtype)
        expected = np.percentile(values.astype(float), PERCENTILES)
        assert _percentiles(values) == tuple(expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4"])
@pytest.mark.parametrize(("high", "few"), [(10, True), (11, False)])
def test_half_of_few_counts_is_told_from_more(
    dtype: str, high: int, few: bool, rng: np.random.Generator
) -> None:
    """The median of as many 9 as 10 is 9.5."""
    counts = rng.permutation(np.repeat([9, high], 200)).reshape(20, 20).astype(dtype)
    assert find_scales(Planes(counts, find_layout(counts)))[0].few == few


def test_few_bright_spots_on_an_even_background_set_the_scale() -> None:
    image = np.zeros((100, 100), np.float32)
    image[3, 5] = 5.0
    image[4, 6] = image[96, 90:93] = 8.0
    assert scales_of(image) == (Scale(0.0, 8.0),)


def test_from_zero_keeps_black_at_zero_and_signed_minima_below(rng: np.random.Generator) -> None:
    image = rng.uniform(50, 60, (60, 60))
    (scale,) = scales_of(image, from_zero=True)
    assert scale.low == 0
    assert scale.span == pytest.approx(60, abs=0.1)
    (scale,) = scales_of(image - 55, from_zero=True)
    assert scale.low == pytest.approx(-5, abs=0.1)


def test_invalid_samples_and_alpha_do_not_count(rng: np.random.Generator) -> None:
    image = rng.random((50, 50, 4))
    clean = scales_of(image, rgb=True)
    image[..., 3] = 1e9
    assert scales_of(image, rgb=True) == clean
    gray = rng.random((50, 50))
    expected = scales_of(gray[1:])
    gray[0] = [np.nan, np.inf] * 25
    assert scales_of(gray) == expected


@pytest.mark.parametrize("value", [0, 7, -3.5, np.nan, np.inf])
def test_an_image_without_contrast_has_no_span(value: float) -> None:
    (scale,) = scales_of(np.full((8, 8), value))
    assert scale.span == 0


def test_each_channel_has_its_own_scale(rng: np.random.Generator) -> None:
    image = rng.random((2, 3, 40, 40)) * np.array([1, 100, 1e4])[:, None, None]
    together = scales_of(image, axes="TCYX")
    for channel, scale in enumerate(together):
        assert scale == scales_of(image[:, channel])[0]
    assert len(scales_of(image, axes="TZYX")) == 1


# ---------------------------------------------------------------- the sample

SAMPLED = {
    "large plane": Layout((20000, 20000), "YX"),
    "huge plane": Layout((2**20, 2**20), "YX"),
    "ribbon": Layout((40, 10**6), "YX"),
    "movie": Layout((1000, 1024, 1024), "TYX"),
    "many small planes": Layout((100000, 64, 64), "TYX"),
    "color": Layout((9000, 7000, 3), "YXS"),
    "channels": Layout((50, 6, 20, 512, 512), "TCZYX"),
    "channel in front": Layout((4, 30, 3000, 3000), "CTYX"),
    "spectral": Layout((100, 4096, 4096), "CYX"),
}


@pytest.mark.parametrize("layout", SAMPLED.values(), ids=SAMPLED)
def test_the_sample_is_bounded_even_and_repeatable(layout: Layout) -> None:
    sample = list(sample_regions(layout))
    assert sample == list(sample_regions(layout))
    pixels = sum(region.pixels for _, region in sample)
    assert 2**16 <= pixels <= 2**23
    height, width = layout.size
    for index, region in sample:
        assert len(index) == len(layout.leading)
        assert all(0 <= i < layout.shape[a] for i, a in zip(index, layout.leading, strict=True))
        assert 0 <= region.top < region.bottom <= height
        assert 0 <= region.left < region.right <= width
    shares = np.bincount([layout.group(index) for index, _ in sample], minlength=layout.groups)
    assert shares.min() == shares.max() > 0
    # Both ends of every long axis are represented, of space as of the stack.
    for low, high, length in (
        (min(r.top for _, r in sample), max(r.bottom for _, r in sample), height),
        (min(r.left for _, r in sample), max(r.right for _, r in sample), width),
    ):
        if layout.groups < 50:
            assert low <= length / 4
            assert high >= 3 * length / 4
    if layout.axes.startswith("T"):
        frames = {index[0] for index, _ in sample}
        assert min(frames) <= layout.shape[0] / 4
        assert max(frames) >= 3 * layout.shape[0] / 4 - 1


def test_a_small_image_is_taken_whole() -> None:
    layout = Layout((3, 50, 60), "ZYX")
    assert sum(region.pixels for _, region in sample_regions(layout)) == layout.pixels
