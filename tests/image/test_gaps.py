"""What says nothing of the scene: it stays as it is, and changes nothing elsewhere."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from fakes import LocalPredictor, restored
from napari_restore.errors import ImageError
from napari_restore.image.intensity import (
    PERCENTILES,
    Place,
    Scale,
    add_residual,
    beyond,
    find_scales,
    whole_changes,
)
from napari_restore.image.layout import Planes, Region, TileOptions, find_layout
from napari_restore.inference.engine import Report, not_below, restrain, within_colors

if TYPE_CHECKING:
    from collections.abc import Callable

    Harm = Callable[[np.ndarray], None]

REACH = 4
COUNTS = Scale(0.0, 1.0, few=True)


def scene(dtype: str = "f4", *shape: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    field = gaussian_filter(rng.random(shape or (80, 96)), (0,) * (len(shape) - 2) + (2, 2))
    return (100 + 200 * (field - field.min()) / np.ptp(field)).astype(dtype)


def put(value: float, *place: object) -> Harm:
    def harm(image: np.ndarray) -> None:
        image[place] = value

    return harm


def several(*harms: Harm) -> Harm:
    def harm(image: np.ndarray) -> None:
        for one in harms:
            one(image)

    return harm


corner = np.add.outer(np.arange(80), np.arange(96)) < 40
HARMS: dict[str, tuple[str, Harm]] = {
    "hot pixel": ("u2", put(65535, 40, 50)),
    "hot pixel in 32 bits": ("i4", put(2**30, 40, 50)),
    "hot pixel of floats": ("f4", put(1e7, 40, 50)),
    "two hot pixels": ("u2", put(4095, 40, slice(50, 52))),
    "four hot pixels": ("u2", put(4095, slice(40, 42), slice(50, 52))),
    "hit of a cosmic ray": ("f4", put(5000, [40, 40, 41, 42, 42], [50, 51, 51, 51, 52])),
    "nine dead pixels": ("i2", put(-30000, slice(40, 43), slice(50, 53))),
    "hot pixel in the corner": ("u2", put(4095, 0, 0)),
    "hot pixels": ("u2", put(4095, [9, 30, 50, 61, 66], [7, 70, 20, 60, 9])),
    "dead pixel": ("i2", put(-30000, 40, 50)),
    "least float as a fill": ("f4", put(-3.4028235e38, slice(0, 20))),
    "1e20 as a fill": ("f8", put(1e20, slice(None), slice(70, 96))),
    "fills at both ends": ("f4", several(put(-3.4e38, slice(0, 9)), put(1e30, slice(70, 80)))),
    "fill in the middle": ("f4", put(-9999, slice(30, 40), slice(30, 40))),
    "fill of integers": ("i2", put(-32768, slice(0, 12))),
    "overexposed patch": ("u2", put(65535, slice(30, 40), slice(30, 44))),
    "bars above and below": ("u2", several(put(0, slice(0, 9)), put(0, slice(-9, None)))),
    "bar aside": ("f4", put(0, slice(None), slice(0, 11))),
    "corner beside a scene that was turned": ("i2", put(-500, *np.nonzero(corner))),
    "NaN": ("f4", put(np.nan, slice(30, 40), slice(30, 40))),
}


@pytest.mark.parametrize(("dtype", "harm"), HARMS.values(), ids=HARMS)
def test_harm_stays_where_it_is(dtype: str, harm: Harm) -> None:
    clean = scene(dtype)
    image = clean.copy()
    harm(image)
    harmed = torch.from_numpy((image != clean)[None].astype(np.float32))
    near = torch.nn.functional.max_pool2d(harmed, 2 * REACH + 1, 1, REACH)[0].numpy() > 0
    result, expected = (restored(one, LocalPredictor(REACH)) for one in (image, clean))
    there = image != clean
    np.testing.assert_array_equal(result[there], image[there])
    # The scale is found from a few samples less.
    change = np.abs(expected.astype("f8") - clean).max()
    assert change > 10
    assert np.abs(result.astype("f8") - expected)[~near].max() < 0.1 * change
    tiled = restored(image, LocalPredictor(REACH), tiles=TileOptions(32))
    np.testing.assert_array_equal(tiled, result)


@pytest.mark.parametrize(
    ("dtype", "harm"),
    [
        ("u2", put(4095, [9, 30, 50, 61, 66], [7, 70, 20, 60, 9])),
        ("u2", put(900, slice(None), 50)),
        ("u2", put(0, slice(None), 50)),
        ("f4", put(900, slice(40, 42))),
    ],
)
def test_defects_of_a_camera_do_not_count(dtype: str, harm: Harm) -> None:
    """A few bright pixels change a percentile where few pixels are bright."""
    clean = scene("f8", 80, 96)
    clean = (100 + (clean - 100) ** 3 / 200**2).astype(dtype)
    harmed = clean.copy()
    harm(harmed)
    (scale,) = find_scales(Planes(harmed, find_layout(harmed)))
    low, high = np.percentile(clean[harmed == clean], PERCENTILES)
    assert scale.low == pytest.approx(low, abs=1)
    assert scale.span == pytest.approx(high - low, rel=0.05)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.0])
@pytest.mark.parametrize("span", [20.0, 600.0])
@pytest.mark.parametrize("shape", ["spot", "filament"])
def test_what_a_lens_has_drawn_is_no_defect(shape: str, sigma: float, span: float) -> None:
    """However bright it is: beads and filaments are what is to be restored."""
    drawn = np.zeros((41, 41))
    drawn[20, 20 if shape == "spot" else slice(None)] = 1
    drawn = gaussian_filter(drawn, sigma)
    seen = (100 + 1000 * drawn / drawn.max())[..., None]
    assert beyond(seen, Scale(100.0, span), None) is None


def test_a_hot_pixel_of_8_bit_color_is_told_by_the_range_that_is_used() -> None:
    color = np.stack([scene("u1") // 5 + 60] * 3, -1)
    image = color.copy()
    image[40, 50] = 255
    result, expected = (restored(one, LocalPredictor(REACH), axes="YXS") for one in (image, color))
    far = np.ones((80, 96), bool)
    far[36:45, 46:55] = False
    np.testing.assert_array_equal(result[far], expected[far])
    np.testing.assert_array_equal(result[40, 50], 255)


def test_a_declared_value_is_kept_and_counted() -> None:
    image = scene("u2")
    image[20:24, 30:40] = 250  # within the range of the others
    planes, report = Planes(image, find_layout(image)), Report()
    scales = find_scales(planes, invalid_value=250)
    assert scales[0].missing == (250,)
    result = restored(image, LocalPredictor(), scales=scales, report=report)
    np.testing.assert_array_equal(result[image == 250], 250)
    assert report.invalid == np.count_nonzero(image == 250)


@pytest.mark.parametrize(("dtype", "value"), [("u1", 0), ("u1", 255), ("i2", -5), ("f4", 0.5)])
def test_no_measured_sample_gets_the_value_of_a_gap(dtype: str, value: float) -> None:
    image = np.array([[value + 1, value - 1, value, value + 1]])[..., None].clip(
        0 if dtype == "u1" else -9, 255
    )
    image = image.astype(dtype)
    measured = image != value
    change = (value - image.astype("f8")).astype("f4")
    gaps = ~measured
    scale = Scale(0.0, 1.0, missing=(value, 1e9))
    result = add_residual(image, change, scale, 1.0, gaps)[0]
    np.testing.assert_array_equal(result == value, gaps)
    assert np.abs(result.astype("f8") - value).max() <= 1


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_hidden_color_stays_and_does_not_count(dtype: str, channels: int, hidden: int) -> None:
    color = np.stack([scene(dtype)] * channels + [np.full((80, 96), 255, dtype)], -1)
    color[..., 0] //= 2
    color[30:50, 30:60, -1] = 0
    images = [color.copy(), color.copy()]
    images[1][30:50, 30:60, :-1] = hidden
    first, second = (restored(image, LocalPredictor(), axes="YXS") for image in images)
    visible = color[..., -1] > 0
    np.testing.assert_array_equal(first[visible], second[visible])
    np.testing.assert_array_equal(second[~visible], images[1][~visible])


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize("frame", [0, 2])
def test_an_empty_or_saturated_frame_does_not_count(frame: int, value: int) -> None:
    movie = scene("u2", 4, 80, 96)
    dead = movie.copy()
    dead[frame] = value
    others = np.delete(dead, frame, 0)
    scales = find_scales(Planes(dead, find_layout(dead)))
    expected = find_scales(Planes(others, find_layout(others)))
    assert [(s.low, s.span) for s in scales] == [(s.low, s.span) for s in expected]
    # A closed shutter leaves noise.
    dead[frame] = np.random.default_rng(0).integers(0, 3, dead[0].shape)
    assert find_scales(Planes(dead, find_layout(dead)))[0].low == pytest.approx(scales[0].low, 1e-6)


@pytest.mark.parametrize("task", ["with a view", "without"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_the_color_of_bars_changes_nothing(dtype: str, task: str) -> None:
    """Neither what is dark or bright beside them, which they are no surroundings of."""
    picture = np.stack([scene(dtype) // 4 + 150] * 3, -1)
    # Dark spots of a few pixels beside the bar, as far below the picture as an outlier is.
    picture[12, 20:80:9] = picture[12, 21:80:9] = picture[13, 20:80:9] = 40
    view = 32 if task == "with a view" else 0
    results = []
    for color in (0, 90, 255):
        boxed = picture.copy()
        boxed[:12] = boxed[-12:] = color
        results.append(restored(boxed, LocalPredictor(view=view), axes="YXS")[12:-12])
    for result in results[1:]:
        # No sample gets the value of a fill, but the next to it.
        np.testing.assert_allclose(result, results[0], rtol=0, atol=0 if dtype == "u1" else 1)


@pytest.mark.parametrize("value", [0, 128])
def test_a_compressed_bar_ends_where_it_did(value: int) -> None:
    """Not at the block of JPEG that it shares with the picture."""
    picture = np.stack([scene("u1", 120, 96) // 4 + 150] * 3, -1)
    picture[:27] = value
    file = BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=60)
    seen = np.asarray(Image.open(file))
    assert np.ptp(seen[24:27]) > 4
    (scale,) = find_scales(Planes(seen, find_layout(seen)))
    assert scale.bars == (27 / 120, 0, 0, 0)


@pytest.mark.parametrize("task", ["with a view", "without"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize(
    ("width", "mean", "noise"), [(12, 6, 2), (12, 1, 1), (5, 20, 1), (1, 255, 0)]
)
def test_noise_in_bars_and_narrow_frames_change_nothing(
    dtype: str, task: str, width: int, mean: int, noise: int
) -> None:
    """They stay as they are, and what is between them is as between bars of one value."""
    picture = scene(dtype) // 4 + 150
    shape, within = (80 + 2 * width, 96 + 2 * width), np.s_[width:-width, width:-width]
    noisy = np.random.default_rng(0).normal(mean, noise, shape).clip(0, 255).round().astype(dtype)
    even, results = np.zeros(shape, dtype), []
    for boxed in (even, noisy):
        boxed[within] = picture
        view = 32 if task == "with a view" else 0
        results.append(restored(boxed, LocalPredictor(view=view)))
        assert (results[-1] != boxed)[within].any()
    # No sample gets the value of a fill, but the next to it.
    tolerance = 0 if dtype == "u1" else 1
    np.testing.assert_allclose(results[1][within], results[0][within], rtol=0, atol=tolerance)
    results[1][within] = noisy[within]
    np.testing.assert_array_equal(results[1], noisy)


@pytest.mark.parametrize("edge", ["blurred", "sloping", "dark picture"])
def test_a_ground_with_noise_is_no_bar(edge: str) -> None:
    """Neither where what lies on it begins softly, nor where it is all over the image."""
    rng = np.random.default_rng(0)
    image = rng.normal(10, 2, (80, 96))
    if edge == "blurred":
        image += gaussian_filter(200.0 * (np.mgrid[:80, :96][0] >= 30), 2)
    elif edge == "sloping":
        image += 3.0 * np.arange(80)[:, None]
    else:
        image[30:, ::2] += 150 + 20 * rng.random((50, 48))
    assert find_scales(Planes(image, find_layout(image)))[0].bars == (0, 0, 0, 0)


@pytest.mark.parametrize("shape", ["photons", "blurred disk", "disk", "checkers"])
def test_a_dark_ground_is_no_fill(shape: str) -> None:
    """Counts are scattered; what a lens has drawn goes over into its ground."""
    y, x = np.mgrid[:80, :96]
    disk = 1.0 * (np.hypot(y - 40, x - 48) < 25)
    image = {
        "photons": np.random.default_rng(0).poisson(0.1, (80, 96)) * 100.0,
        "blurred disk": gaussian_filter(disk, 1.0) * (3000 + 10 * np.sin(x)),
        "disk": disk * 3000,
        "checkers": (y // 8 + x // 8) % 2 * 200.0 + 20,
    }[shape]
    for dtype in ("u2", "f4"):
        (scale,) = find_scales(Planes(image.astype(dtype), find_layout(image)))
        assert scale.missing == ()


def test_stripes_and_steps_are_no_bars() -> None:
    ramp = np.repeat(np.arange(40.0)[:, None], 50, 1)
    step = np.full((40, 50), 7.0)
    step[:, 20:] = 9
    for image in (ramp, step, ramp.T):
        assert find_scales(Planes(image, find_layout(image)))[0].bars == (0, 0, 0, 0)


def test_a_range_that_no_measurement_has_is_refused_with_its_values() -> None:
    image = np.random.default_rng(0).uniform(-3e38, 3e38, (40, 40)).astype("f4")
    with pytest.raises(ImageError, match=r"-\d\.\d+e\+38 and \d\.\d+e\+38"):
        find_scales(Planes(image, find_layout(image)))


# ---------------------------------------------------------------- few counts, and the range


@pytest.mark.parametrize("in_squares", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "u8"])
@pytest.mark.parametrize("share", [0.1, 0.5, -0.4])
def test_integers_of_few_counts_keep_their_light(
    dtype: str, share: float, in_squares: bool
) -> None:
    counts = np.random.default_rng(0).poisson(2.0, (200, 203)).astype(dtype) + np.array(1, dtype)
    change = np.full((*counts.shape, 1), share, np.float32)
    place = Place(5, Region(0, 0, *counts.shape), in_squares)
    samples = add_residual(counts[..., None], change, COUNTS, 1.0, None, place)
    expected = counts.sum() + counts.size * share
    assert samples[0].astype("f8").sum() == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
@pytest.mark.parametrize("mean", [0.05, 0.5])
def test_every_square_keeps_its_light(dtype: str, mean: float) -> None:
    """Changes that differ from pixel to pixel, some of which leave less than nothing."""
    random = np.random.default_rng(1)
    counts = random.poisson(mean, (64, 72, 1)).astype(dtype)
    change = (mean * (random.random(counts.shape) - 0.45)).astype("f4")
    kept = random.random(counts.shape) < 0.1
    change[kept] = 0
    place = Place(2, Region(8, 16, 72, 88), in_squares=True)
    samples, clipped, _ = add_residual(counts, change, COUNTS, 1.0, None, place)
    assert clipped == 0
    np.testing.assert_array_equal(samples[kept], counts[kept])

    def sums(image: np.ndarray) -> np.ndarray:
        return image.astype("f8").reshape(8, 8, 9, 8).sum((1, 3))

    expected = sums(counts) + sums(change)
    np.testing.assert_array_less(np.abs(sums(samples) - expected.clip(min=0)), 1 + 1e-6)
    assert samples.sum() == pytest.approx(expected.sum(), rel=0.05 if mean < 0.1 else 0.01)


def test_rounding_depends_on_the_place_alone() -> None:
    counts = np.random.default_rng(0).poisson(0.5, (3, 70, 90)).astype("u2")
    (scale,) = find_scales(Planes(counts, find_layout(counts)))
    assert scale.few
    seer = LocalPredictor(REACH, halo=8)
    whole = restored(counts, seer)
    tiled = restored(counts, seer, tiles=TileOptions(20))
    np.testing.assert_array_equal(tiled, whole)
    zero, change = np.zeros((64, 64, 1), "u2"), np.full((64, 64, 1), 0.5, np.float32)

    def pattern(plane: int, region: Region, in_squares: bool = True) -> np.ndarray:
        part = np.s_[: region.height, : region.width]
        place = Place(plane, region, in_squares)
        return whole_changes(zero[part], change[part], 0, place)[..., 0]

    patterns = [pattern(plane, Region(0, 0, 64, 64)) for plane in (0, 1)]
    assert abs(np.corrcoef(patterns[0].ravel(), patterns[1].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(pattern(1, Region(16, 8, 40, 24)), patterns[1][16:40, 8:24])
    every = pattern(1, Region(0, 0, 64, 64), in_squares=False)
    part = pattern(1, Region(13, 7, 40, 24), in_squares=False)
    np.testing.assert_array_equal(part, every[13:40, 7:24])
    assert not find_scales(Planes(counts + 100, find_layout(counts)))[0].few


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_results_are_held_in_the_range_of_the_image(dtype: str) -> None:
    image = scene(dtype) - np.array(1000, dtype)
    scales = find_scales(Planes(image, find_layout(image)), keep_range=True)
    report = Report()
    free = restored(image, LocalPredictor())
    held = restored(image, LocalPredictor(), scales=scales, report=report)
    assert free.max() > image.max()
    np.testing.assert_array_equal(held, free.clip(image.min(), image.max()))
    assert report.held == np.count_nonzero(held != free) > 0


# ---------------------------------------------------------------- what nothing asks for


def test_what_is_far_from_all_structure_is_not_changed() -> None:
    seen = torch.full((1, 1, 200, 260), 0.7)
    seen[..., 90:110, :20] = 0.2
    change = restrain(torch.full_like(seen, 0.01), seen, 64)
    torch.testing.assert_close(change, change.flip(2))
    np.testing.assert_array_equal(change[..., 20 + 64 + 1 :].numpy(), 0)
    np.testing.assert_array_equal(change[..., 80:120, :40].numpy(), np.float32(0.01))
    noisy = seen + 0.01 * torch.rand(seen.shape)
    assert bool((restrain(torch.full_like(seen, 0.01), noisy, 64) == np.float32(0.01)).all())


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_gray_stays_gray(dtype: str) -> None:
    class Tint(LocalPredictor):
        def __call__(self, tiles: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            cast = torch.tensor([0.03, -0.02, 0.1]).view(1, 3, 1, 1)
            return super().__call__(tiles, *rest) + cast

    gray = np.stack([scene(dtype)] * 3, -1)
    result = restored(gray, Tint(), axes="YXS")
    assert not np.array_equal(result, gray)
    np.testing.assert_array_equal(np.ptp(result, axis=-1), 0)


def test_no_color_appears_that_is_not_near() -> None:
    seen = torch.rand(2, 3, 40, 50) * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    restored = seen + 0.5 * torch.randn(seen.shape)
    kept = within_colors(restored, seen)
    near = seen[0, :, 10:19, 20:29]
    colors = near - near.mean(0)
    color = kept[0, :, 14, 24] - restored[0, :, 14, 24].mean()
    assert bool((color >= colors.amin((1, 2)) - 1e-6).all())
    assert bool((color <= colors.amax((1, 2)) + 1e-6).all())
    torch.testing.assert_close(within_colors(seen, seen), seen)
    gray = seen[:, :1].expand(-1, 3, -1, -1)
    kept = within_colors(restored, gray)
    torch.testing.assert_close(kept, restored.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_what_is_clipped_at_black_adds_no_light() -> None:
    seen = torch.rand(1, 80, 90)
    change = 0.3 * torch.randn(seen.shape) - 0.3
    kept = not_below(change, seen, 0.1)
    assert float((seen + kept).min()) >= 0.1 - 1e-6
    expected = float((seen + change - 0.1).sum())
    assert float((seen + kept - 0.1).sum()) == pytest.approx(expected, rel=0.05)
    clipped = float((seen + change - 0.1).clamp(min=0).sum())
    assert clipped > 1.5 * expected
