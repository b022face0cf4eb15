"""The public functions: arrays of every kind in, the same kind out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr
from scipy import ndimage

import napari_restore
from napari_restore.image.intensity import Scale
from napari_restore.image.layout import Region
from napari_restore.models.catalog import CATALOG
from napari_restore.restoration.dask_graph import restore_lazily
from napari_restore.restoration.plan import Facts
from napari_restore.restoration.run import restore_array
from planning import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("full_precision")

DTYPES = [
    *("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"),
    *("f2", "f4", "f8", "?", ">u2", ">i4", ">f4", ">f8"),
]


@pytest.fixture
def deblur(mono_model: str, color_model: str) -> Callable[..., Any]:
    """`restore` for deblurring with a network that changes what it sees."""

    def run(image: Any, model: str | None = None, **options: Any) -> Any:
        if model is None:
            color = plan(
                image, "deblur", **{k: options[k] for k in options.keys() & {"axes", "rgb"}}
            )
            model = color_model if color.layout.color else mono_model
        return napari_restore.restore(image, "deblur", model=model, **options)

    return run


# ---------------------------------------------------------------- arrays of every kind


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (33, 40), (2, 3, 20, 21)], ids=str)
def test_shape_and_dtype_come_back_and_the_input_is_left_alone(
    dtype: str, shape: tuple[int, ...], deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
    before = image.copy()
    result = deblur(image)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    assert not np.shares_memory(result, image)
    np.testing.assert_array_equal(image, before)
    # A change of a tenth turns no bit of a mask, and an image of one pixel has no contrast.
    assert dtype == "?" or image.size == 1 or not np.array_equal(result, image)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_color_is_restored_and_alpha_carried(
    samples: int, dtype: str, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    # Nothing is hidden: hidden colors do not count.
    image = rng.integers(1, 255, (2, 30, 35, samples)).astype(dtype)
    result = deblur(image, rgb=True)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    np.testing.assert_array_equal(result[..., 3:], image[..., 3:])
    opaque = deblur(image[..., :3].copy(), rgb=True)
    np.testing.assert_array_equal(result[..., :3], opaque)
    assert not np.array_equal(opaque, image[..., :3])


def views(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same values, laid out in memory in several ways."""
    wide = np.zeros((image.shape[0] * 2, image.shape[1] * 3), image.dtype)
    wide[::2, ::3] = image
    locked = image.copy()
    locked.setflags(write=False)
    return {
        "strided": wide[::2, ::3],
        "reversed": image[::-1].copy()[::-1],
        "fortran": np.asfortranarray(image),
        "transposed": image.T.copy().T,
        "read-only": locked,
        "broadcast": np.broadcast_to(image[:1], image.shape),
    }


@pytest.mark.parametrize(
    "name", ["strided", "reversed", "fortran", "transposed", "read-only", "broadcast"]
)
def test_memory_layout_does_not_matter(
    name: str, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = views(rng.random((33, 40), np.float32))[name]
    result = deblur(image)
    np.testing.assert_array_equal(result, deblur(np.array(image, order="C")))
    assert result.flags.writeable


def test_memory_maps_are_read_and_not_written(
    tmp_path: Path, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 9999, (50, 60)).astype(np.uint16)
    np.save(tmp_path / "image.npy", image)
    for mode in ("r", "c"):
        mapped = np.load(tmp_path / "image.npy", mmap_mode=mode)
        np.testing.assert_array_equal(deblur(mapped), deblur(image))
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), image)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 0, 7), (0, 4, 4, 3)], ids=str)
def test_empty_arrays_come_back_empty(shape: tuple[int, ...]) -> None:
    result = napari_restore.deblur(np.zeros(shape, np.uint8))
    assert (result.shape, result.dtype) == (shape, np.uint8)


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.name)
@pytest.mark.parametrize("value", [0, 90])
def test_images_without_contrast_come_back(spec: Any, value: int) -> None:
    color = spec.channels == 3
    frames = (2,) if spec.frames == 2 else ()
    image = np.full((*frames, 40, 40, 3) if color else (*frames, 40, 40), value, np.uint16)
    if spec.black_is_zero and value:
        # Between black and itself an even gray is an image like any other: haze, perhaps.
        image[:] = 0
    result = napari_restore.restore(
        image, spec.task, model=spec.name, rgb=color, frames=spec.frames
    )
    np.testing.assert_array_equal(result, image)


def test_nan_and_infinity_stay_where_they_were(
    deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.random((60, 60)).astype(np.float32)
    image[5, 5], image[40, 41], image[40, 42] = np.nan, np.inf, -np.inf
    result = deblur(image)
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(image))
    np.testing.assert_array_equal(result[~np.isfinite(image)], image[~np.isfinite(image)])


# ---------------------------------------------------------------- contracts


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (1.0, -50.0), (1e-3, 1e3)])
def test_gain_and_offset_carry_over(
    gain: float,
    offset: float,
    deblur: Callable[..., Any],
    rng: np.random.Generator,
    small_rounding: float,
) -> None:
    image = rng.random((50, 60))
    expected = gain * deblur(image) + offset
    np.testing.assert_allclose(deblur(gain * image + offset), expected, atol=gain * small_rounding)
    assert abs(expected - (gain * image + offset)).max() > 0.01 * gain


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_strength_gives_the_input_bit_for_bit(
    dtype: str, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 100, (30, 31)).astype(dtype)
    if image.dtype.kind == "f":
        image[0, :3] = [-0.0, np.nan, np.inf]
    assert deblur(image, strength=0).tobytes() == image.tobytes()


def test_strength_is_linear(deblur: Callable[..., Any], rng: np.random.Generator) -> None:
    image = rng.random((30, 40))
    full = deblur(image)
    for strength in (0.25, 0.5, np.float32(0.75), 1):
        mixed = image + float(strength) * (full - image)
        np.testing.assert_allclose(deblur(image, strength=strength), mixed, atol=1e-12)


@pytest.mark.parametrize("kind", ["mono", "color", "haze"])
def test_tiles_equal_the_whole(
    kind: str,
    mono_model: str,
    color_model: str,
    affine_model: str,
    rng: np.random.Generator,
    small_rounding: float,
) -> None:
    model = {"mono": mono_model, "color": color_model, "haze": affine_model}[kind]
    task = "dehaze" if kind == "haze" else "deblur"
    shape = (150, 131) if kind == "mono" else (150, 131, 3)
    image = rng.random(shape)
    whole, tiled = (
        napari_restore.restore(image, task, model=model, rgb=kind != "mono", tile=tile)
        for tile in (4096, 32)
    )
    np.testing.assert_allclose(tiled, whole, atol=small_rounding)
    assert abs(whole - image).max() > 0.005


def test_a_movie_has_one_scale_and_channels_have_their_own(
    deblur: Callable[..., Any], rng: np.random.Generator, small_rounding: float
) -> None:
    image = rng.random((2, 30, 40)) * np.array([1, 1000])[:, None, None]
    channels = deblur(image, axes="CYX")
    for alone, together in zip(image, channels, strict=True):
        atol = small_rounding * np.ptp(alone)
        np.testing.assert_allclose(deblur(alone), together, rtol=0, atol=atol)
    movie = deblur(image, axes="TYX")
    assert not np.allclose(movie[0], channels[0], rtol=1e-3)


@pytest.mark.parametrize("region", [(0, 0, 20, 30), (40, 50, 90, 101), (149, 130, 150, 131)])
@pytest.mark.parametrize("kind", ["mono", "color", "haze"])
def test_a_region_is_that_part_of_the_full_result(
    kind: str,
    region: tuple[int, int, int, int],
    mono_model: str,
    color_model: str,
    affine_model: str,
    rng: np.random.Generator,
) -> None:
    model = {"mono": mono_model, "color": color_model, "haze": affine_model}[kind]
    shape = (2, 150, 131) if kind == "mono" else (2, 150, 131, 3)
    image = rng.integers(0, 4000, shape).astype(np.uint16)
    decided = plan(image, "dehaze" if kind == "haze" else "deblur", model=model, rgb=kind != "mono")
    full = restore_array(image, decided)
    place = Region(*region)
    block = np.s_[1:2, place.top : place.bottom, place.left : place.right]
    color = () if kind == "mono" else (slice(0, 3),)
    part = restore_array(image, decided, block=(*block, *color)).data
    expected = full.data[block]
    assert (part.shape, part.dtype) == (expected.shape, expected.dtype)
    assert abs(part.astype(int) - expected).max() <= 1


# ---------------------------------------------------------------- lazy arrays


@pytest.mark.parametrize("chunks", [(150, 131), (40, 50), (7, 131)], ids=str)
def test_dask_gives_the_result_of_numpy(
    chunks: tuple[int, int],
    deblur: Callable[..., Any],
    rng: np.random.Generator,
    small_rounding: float,
) -> None:
    image = rng.random((150, 131)).astype(np.float32)
    lazy = da.from_array(image, chunks=chunks)
    result = deblur(lazy)
    assert isinstance(result, da.Array)
    assert (result.dtype, result.chunks) == (lazy.dtype, lazy.chunks)
    np.testing.assert_allclose(result.compute(), deblur(image), atol=small_rounding)


@pytest.mark.parametrize("chunks", [(90, 80, 3), (33, 41, 1)], ids=str)
def test_a_model_with_a_view_of_the_whole_is_lazy_too(
    chunks: tuple[int, int, int], affine_model: str, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 80, 3)).astype(np.uint8)
    lazy = napari_restore.dehaze(da.from_array(image, chunks=chunks), model=affine_model)
    expected = napari_restore.dehaze(image, model=affine_model)
    assert abs(lazy.compute().astype(int) - expected).max() <= 1
    assert abs(expected.astype(int) - image).max() > 1


def test_zarr_gives_dask(
    tmp_path: Path, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 999, (3, 60, 50)).astype(np.int16)
    stored = zarr.create_array(tmp_path / "z", shape=image.shape, chunks=(1, 25, 25), dtype="i2")
    stored[:] = image
    result = deblur(stored, strength=0.5)
    assert isinstance(result, da.Array)
    assert abs(result.compute().astype(int) - deblur(image, strength=0.5)).max() <= 1


def test_lazy_arrays_may_share_a_scale(
    mono_model: str,
    rng: np.random.Generator,
    small_rounding: float,
) -> None:
    image = rng.random((40, 40))
    scales = (Scale(0.0, 2.0),)
    decided = plan(image, "deblur", model=mono_model)
    lazy = restore_lazily(da.from_array(image, chunks=20), decided, Facts(scales))
    known = restore_array(image, decided, facts=Facts(scales))
    np.testing.assert_allclose(lazy.compute(), known.data, atol=2 * small_rounding)


@pytest.mark.parametrize("color", [0, 128, 255])
@pytest.mark.parametrize("sides", [(40, 0, 40, 0), (0, 30, 0, 0), (24, 24, 24, 24)], ids=str)
def test_fog_between_bars_goes_as_it_goes_without(sides: tuple[int, ...], color: int) -> None:
    """What a network sees of the whole plane, and of its places there, is the picture alone."""
    rng = np.random.default_rng(2)
    field = ndimage.gaussian_filter(rng.random((96, 120, 3)), (2, 2, 0))
    clear = (field - field.min()) / np.ptp(field)
    through = np.linspace(0.2, 0.7, 96)[:, None, None]
    fog = (255 * (clear * through + 0.9 * (1 - through))).astype(np.uint8)
    top, left, bottom, right = sides
    boxed = np.pad(fog, ((top, bottom), (left, right), (0, 0)), constant_values=color)
    alone, result = napari_restore.dehaze(fog), napari_restore.dehaze(boxed)
    assert np.abs(alone.astype(int) - fog).mean() > 10
    inside = result[top : top + 96, left : left + 120]
    assert np.abs(inside.astype(int) - alone).max() <= 1
    result[top : top + 96, left : left + 120] = fog
    np.testing.assert_array_equal(result, boxed)
