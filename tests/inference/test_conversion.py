"""From samples to the network and back: affine, exact, within the dtype, gaps and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakes import LocalPredictor, restored
from napari_restore.image.intensity import Scale, add_change, fill_gaps
from napari_restore.inference.engine import Report

if TYPE_CHECKING:
    import torch

INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]


class Shift(LocalPredictor):
    """Adds a share of the range to every pixel."""

    def __init__(self, share: float) -> None:
        super().__init__(radius=0)
        self.share = share

    def __call__(self, tiles: torch.Tensor, *rest: object) -> torch.Tensor:
        return tiles + self.share


# ---------------------------------------------------------------- affine, and inverted exactly


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", ">f8"])
@pytest.mark.parametrize(("gain", "offset"), [(2.5, 0), (1, -700), (1e-4, 3), (1e4, 1e4)])
def test_gain_and_offset_carry_over(
    dtype: str, gain: float, offset: float, rng: np.random.Generator
) -> None:
    image = rng.random((40, 50)).astype(dtype)
    expected = gain * restored(image, LocalPredictor()).astype("f8") + offset
    result = restored((gain * image.astype("f8") + offset).astype(dtype), LocalPredictor())
    rounding = 8 * np.finfo(np.dtype(dtype).newbyteorder("=")).eps * abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=rounding + 1e-5 * gain)


def test_small_signals_on_a_large_offset_keep_their_precision(rng: np.random.Generator) -> None:
    small = rng.random((40, 50))
    expected = restored(small, LocalPredictor())
    result = restored(small + 1e6, LocalPredictor())
    np.testing.assert_allclose(result - 1e6, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [*INTEGERS, ">u2", ">i2", ">i4", ">u8"])
def test_integers_are_rounded_once(dtype: str, rng: np.random.Generator) -> None:
    image = rng.integers(20, 100, (40, 50)).astype(dtype)
    exact = restored(image.astype("f8"), LocalPredictor())
    result = restored(image, LocalPredictor())
    assert result.dtype == image.dtype
    info = np.iinfo(image.dtype)
    np.testing.assert_allclose(result, exact.clip(info.min, info.max), rtol=0, atol=0.501)


def test_signed_units_stay_signed(rng: np.random.Generator) -> None:
    hounsfield = rng.integers(-1000, 1500, (60, 60)).astype(np.int16)
    exact = restored(hounsfield.astype("f8"), LocalPredictor())
    np.testing.assert_allclose(restored(hounsfield, LocalPredictor()), exact, rtol=0, atol=0.51)
    inside = restored(hounsfield, Shift(-0.1))
    assert -1300 < inside.min() < -1200


def test_float16_is_rounded_once(rng: np.random.Generator) -> None:
    image = rng.random((40, 50)).astype(np.float16)
    exact = restored(image.astype("f8"), LocalPredictor())
    result = restored(image, LocalPredictor())
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, exact, rtol=1e-3, atol=1e-4)


def test_booleans_come_back_as_booleans(rng: np.random.Generator) -> None:
    image = rng.random((40, 50)) > 0.5
    exact = restored(image.astype("f8"), LocalPredictor())
    result = restored(image, LocalPredictor())
    assert result.dtype == bool
    decided = abs(exact - 0.5) > 1e-3
    np.testing.assert_array_equal(result[decided], exact[decided] > 0.5)


@pytest.mark.parametrize("dtype", [*INTEGERS, "f2", "f4", "f8"])
@pytest.mark.parametrize("value", [0, 1, 100])
def test_constant_images_come_back_as_they_were(dtype: str, value: int) -> None:
    image = np.full((30, 40), value, dtype)
    np.testing.assert_array_equal(restored(image, Shift(0.3)), image)


# ---------------------------------------------------------------- the limits of a dtype


@pytest.mark.parametrize("dtype", [*INTEGERS, ">u2", ">i8"])
@pytest.mark.parametrize("share", [0.4, -0.4])
def test_what_leaves_the_range_is_clipped_and_counted(dtype: str, share: float) -> None:
    info = np.iinfo(dtype)
    image = np.full((20, 20), info.min, dtype)
    image[:, 7:] = info.max
    report = Report()
    result = restored(image, Shift(share), report=report)
    at_limit = image == (info.max if share > 0 else info.min)
    assert report.clipped == np.count_nonzero(at_limit)
    np.testing.assert_array_equal(result[at_limit], image[at_limit])
    width = float(info.max) - float(info.min)
    expected = image[~at_limit].astype("f8") + share * width
    np.testing.assert_allclose(result[~at_limit], expected, rtol=0, atol=0.51 + 1e-6 * width)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("step", [3, -3])
def test_integers_never_wrap_around(dtype: str, step: int) -> None:
    info = np.iinfo(dtype)
    limit = info.max if step > 0 else info.min
    block = np.array([[limit]], dtype)
    result, clipped = add_change(block, np.array([[float(step)]]))
    assert int(result[0, 0]) == limit
    assert clipped == 1


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_integers_that_float64_does_not_hold_are_changed_exactly(dtype: str) -> None:
    block = np.array([2**60 + 1, 2**60 + 3], dtype)
    result, clipped = add_change(block, np.array([4.0, -2.0]))
    assert result.tolist() == [2**60 + 5, 2**60 + 1]
    assert clipped == 0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_finite_floats_stay_finite(dtype: str) -> None:
    limit = float(np.finfo(dtype).max)
    block = np.array([limit, -limit, 1, np.inf, np.nan], dtype)
    result, clipped = add_change(block, np.full(5, 0.1 * limit) * [1, -1, 0, 1, 1])
    np.testing.assert_array_equal(result, block)
    assert clipped == 2


@pytest.mark.parametrize("dtype", [*INTEGERS, "f2", "f4", "f8", "?"])
def test_no_change_keeps_every_bit(dtype: str, rng: np.random.Generator) -> None:
    block = rng.integers(0, 2, (5, 64)).astype(dtype)
    if block.dtype.kind == "f":
        block[0, :3] = [-0.0, np.nan, -np.inf]
    result, clipped = add_change(block, np.zeros(block.shape))
    assert result.tobytes() == block.tobytes()
    assert clipped == 0


# ---------------------------------------------------------------- NaN and infinities


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_invalid_pixels_stay_where_they_were_and_harm_nothing_else(
    dtype: str, rng: np.random.Generator
) -> None:
    clean = rng.random((60, 70)).astype(dtype)
    image = clean.copy()
    bad = {(0, 0): np.nan, (30, 31): np.inf, (30, 32): -np.inf, (59, 5): np.nan}
    far = np.ones(image.shape, bool)
    predictor = LocalPredictor(radius=4)
    for (y, x), value in bad.items():
        image[y, x] = value
        far[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = False
    scales, report = (Scale(0.0, 1.0),), Report()
    result = restored(image, predictor, scales=scales, report=report)
    expected = restored(clean, predictor, scales=scales)
    np.testing.assert_array_equal(result[far], expected[far])
    assert not np.array_equal(result[far], image[far])
    for (y, x), value in bad.items():
        np.testing.assert_array_equal(result[y, x], np.dtype(dtype).type(value))
    assert np.isfinite(result).sum() == image.size - 4
    assert report.invalid == 4
    # Near a gap, values of its surroundings stand in: nothing is torn toward zero.
    assert abs(result[~far & np.isfinite(image)] - expected[~far & np.isfinite(image)]).max() < 0.3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_of_nothing_valid_comes_back(value: float) -> None:
    image = np.full((20, 30), value, np.float32)
    np.testing.assert_array_equal(restored(image, LocalPredictor()), image)


def test_a_gap_is_filled_from_its_nearest_pixel_and_the_input_kept() -> None:
    block = np.arange(20.0).reshape(4, 5)[..., None]
    block[1, 0] = block[3, 4] = np.nan
    before = block.copy()
    invalid = np.isnan(block)
    filled = fill_gaps(block, invalid)
    np.testing.assert_array_equal(block, before)
    assert filled[1, 0, 0] in (0, 6, 10)
    assert filled[3, 4, 0] in (14, 18)
    np.testing.assert_array_equal(filled[~invalid], block[~invalid])


def test_a_huge_outlier_does_not_spoil_the_rest(rng: np.random.Generator) -> None:
    image = rng.random((60, 60)).astype(np.float32)
    clean = restored(image, LocalPredictor())
    image[30, 30] = 3e38
    result = restored(image, LocalPredictor())
    assert np.isfinite(result).all()
    far = np.ones(image.shape, bool)
    far[26:35, 26:35] = False
    np.testing.assert_allclose(result[far], clean[far], atol=0.01)
