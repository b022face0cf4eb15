"""The public functions: arrays of every kind in, the same kind out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

import napari_restore
from napari_restore.api import restore_lazily, restore_region, restore_steps
from napari_restore.core.tiles import Region
from napari_restore.errors import DeviceError, ImageError, ModelError, RestoreError
from napari_restore.models.catalog import CATALOG
from napari_restore.plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_restore.core.protocol import Progress

pytestmark = pytest.mark.usefixtures("full_precision")

DTYPES = [
    *("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"),
    *("f2", "f4", "f8", "?", ">u2", ">i4", ">f4", ">f8"),
]


def finish(steps: Any) -> tuple[list[Progress], Any]:
    """Run a generator to its end: (what it yielded, what it returned)."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


@pytest.fixture
def deblur(mono_model: str, colour_model: str) -> Callable[..., Any]:
    """`restore` for deblurring with a network that changes what it sees."""

    def run(image: Any, model: str | None = None, **options: Any) -> Any:
        if model is None:
            colour = plan(
                image, "deblur", **{k: options[k] for k in options.keys() & {"axes", "rgb"}}
            )
            model = colour_model if colour.layout.colour else mono_model
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
def test_colour_is_restored_and_alpha_carried(
    samples: int, dtype: str, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (2, 30, 35, samples)).astype(dtype)
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
    colour = spec.channels == 3
    image = np.full((40, 40, 3) if colour else (40, 40), value, np.uint16)
    if spec.black_is_zero and value:
        # Between black and itself an even grey is an image like any other: haze, perhaps.
        image[:] = 0
    result = napari_restore.restore(image, spec.task, model=spec.name, rgb=colour)
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
    gain: float, offset: float, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.random((50, 60))
    expected = gain * deblur(image) + offset
    np.testing.assert_allclose(deblur(gain * image + offset), expected, atol=1e-5 * gain)
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


@pytest.mark.parametrize("kind", ["mono", "colour", "haze"])
def test_tiles_equal_the_whole(
    kind: str,
    mono_model: str,
    colour_model: str,
    affine_model: str,
    rng: np.random.Generator,
) -> None:
    model = {"mono": mono_model, "colour": colour_model, "haze": affine_model}[kind]
    task = "dehaze" if kind == "haze" else "deblur"
    shape = (150, 131) if kind == "mono" else (150, 131, 3)
    image = rng.random(shape)
    whole, tiled = (
        napari_restore.restore(image, task, model=model, rgb=kind != "mono", tile=tile)
        for tile in (4096, 32)
    )
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert abs(whole - image).max() > 0.02


def test_a_movie_has_one_scale_and_channels_have_their_own(
    deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.random((2, 30, 40)) * np.array([1, 1000])[:, None, None]
    channels = deblur(image, axes="CYX")
    for alone, together in zip(image, channels, strict=True):
        np.testing.assert_allclose(deblur(alone), together, rtol=1e-5)
    movie = deblur(image, axes="TYX")
    assert not np.allclose(movie[0], channels[0], rtol=1e-3)


@pytest.mark.parametrize("region", [(0, 0, 20, 30), (40, 50, 90, 101), (149, 130, 150, 131)])
@pytest.mark.parametrize("kind", ["mono", "colour", "haze"])
def test_a_region_is_that_part_of_the_full_result(
    kind: str,
    region: tuple[int, int, int, int],
    mono_model: str,
    colour_model: str,
    affine_model: str,
    rng: np.random.Generator,
) -> None:
    model = {"mono": mono_model, "colour": colour_model, "haze": affine_model}[kind]
    shape = (2, 150, 131) if kind == "mono" else (2, 150, 131, 3)
    image = rng.integers(0, 4000, shape).astype(np.uint16)
    decided = plan(image, "dehaze" if kind == "haze" else "deblur", model=model, rgb=kind != "mono")
    _, full = finish(restore_steps(image, decided))
    place = Region(*region)
    part = restore_region(image, decided, (1,), place)
    expected = full.data[1, place.top : place.bottom, place.left : place.right]
    assert (part.shape, part.dtype) == (expected.shape, expected.dtype)
    assert abs(part.astype(int) - expected).max() <= 1
    _, some = finish(restore_steps(image, decided, regions=[((1,), place)]))
    inside = some.data[1, place.top : place.bottom, place.left : place.right]
    assert abs(inside.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(some.data[0], image[0])


# ---------------------------------------------------------------- lazy arrays


@pytest.mark.parametrize("chunks", [(150, 131), (40, 50), (7, 131)], ids=str)
def test_dask_gives_the_result_of_numpy(
    chunks: tuple[int, int], deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.random((150, 131)).astype(np.float32)
    lazy = da.from_array(image, chunks=chunks)
    result = deblur(lazy)
    assert isinstance(result, da.Array)
    assert (result.dtype, result.chunks) == (lazy.dtype, lazy.chunks)
    np.testing.assert_allclose(result.compute(), deblur(image), atol=1e-5)


@pytest.mark.parametrize("chunks", [(90, 80, 3), (33, 41, 1)], ids=str)
def test_a_model_with_a_view_of_the_whole_is_lazy_too(
    chunks: tuple[int, int, int], affine_model: str, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 80, 3)).astype(np.uint8)
    lazy = napari_restore.dehaze(da.from_array(image, chunks=chunks), model=affine_model)
    expected = napari_restore.dehaze(image, model=affine_model)
    assert abs(lazy.compute().astype(int) - expected).max() <= 1
    assert abs(expected.astype(int) - image).max() > 5


def test_zarr_gives_dask(
    tmp_path: Path, deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 999, (3, 60, 50)).astype(np.int16)
    stored = zarr.create_array(tmp_path / "z", shape=image.shape, chunks=(1, 25, 25), dtype="i2")
    stored[:] = image
    result = deblur(stored, strength=0.5)
    assert isinstance(result, da.Array)
    assert abs(result.compute().astype(int) - deblur(image, strength=0.5)).max() <= 1


def test_lazy_arrays_may_share_a_scale(mono_model: str, rng: np.random.Generator) -> None:
    from napari_restore.core.intensity import Scale

    image = rng.random((40, 40))
    scales = (Scale(0.0, 2.0),)
    decided = plan(image, "deblur", model=mono_model)
    lazy = restore_lazily(da.from_array(image, chunks=20), decided, scales)
    _, known = finish(restore_steps(image, decided, scales=scales))
    np.testing.assert_allclose(lazy.compute(), known.data, atol=1e-5)


# ---------------------------------------------------------------- tasks, progress, provenance


@pytest.mark.parametrize("task", ["deblur", "dehaze", "motion_deblur"])
def test_each_task_has_a_function(task: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        getattr(napari_restore, task)(image), napari_restore.restore(image, task)
    )


def test_progress_is_reported_up_to_the_end(
    deblur: Callable[..., Any], rng: np.random.Generator
) -> None:
    seen: list[Progress] = []
    deblur(rng.random((2, 70, 80)), tile=32, progress=seen.append)
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == seen[-1].total == 2 * 70 * 80
    assert len(done) > 10


def test_the_plan_reads_nothing_and_decides_everything(rng: np.random.Generator) -> None:
    class Unreadable:
        shape, dtype = (5, 900, 1000, 3), np.dtype("u1")

        def __getitem__(self, key: object) -> None:
            raise AssertionError("read")

    decided = plan(Unreadable(), "dehaze", device="cpu", tile=64, strength=0.5)
    assert decided.spec.name == "dehaze-color"
    assert (decided.layout.planes, decided.layout.colour) == (5, True)
    assert (decided.device, decided.strength) == ("cpu", 0.5)
    assert (decided.tiles.side, decided.tiles.fixed) == (64, True)


def test_provenance_says_all_that_is_needed_to_do_it_again(
    mono_model: str, rng: np.random.Generator
) -> None:
    image = rng.random((40, 50)).astype(np.float32)
    image[3, 4] = np.nan
    decided = plan(image, "deblur", model=mono_model, tile=32, strength=0.75, axes="yx")
    _, restoration = finish(restore_steps(image, decided))
    record = json.loads(json.dumps(restoration.provenance))
    assert record["task"] == "deblur"
    assert record["model"] == "small-mono"
    assert len(record["weights_sha256"]) == 64
    assert (record["axes"], record["tile"], record["strength"]) == ("YX", 32, 0.75)
    assert record["device"] == decided.device
    assert record["precision"]
    assert record["invalid_samples"] == 1
    assert record["clipped_samples"] == 0
    assert record["notes"] == []
    assert 0 < record["seconds"] < 60
    assert record["versions"]["napari-restore"] == napari_restore.__version__
    assert "torch" in record["versions"]


def test_provenance_counts_what_was_clipped(colour_model: str, rng: np.random.Generator) -> None:
    image = (rng.random((40, 50, 3)) > 0.5).astype(np.uint8) * 255
    decided = plan(image, "deblur", model=colour_model)
    _, restoration = finish(restore_steps(image, decided))
    exact = napari_restore.restore(image.astype(np.float64), "deblur", model=colour_model, rgb=True)
    # A float scale between percentiles that are 0 and 255 is the same scale.
    outside = (np.rint(exact) < 0) | (np.rint(exact) > 255)
    assert restoration.provenance["clipped_samples"] == np.count_nonzero(outside) > 0


def test_closing_early_stops_the_work(mono_model: str, rng: np.random.Generator) -> None:
    image = rng.random((100, 100))
    steps = restore_steps(image, plan(image, "deblur", model=mono_model, tile=32))
    assert next(steps).done == 0
    assert 0 < next(steps).done < image.size
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


# ---------------------------------------------------------------- errors

GREY = np.zeros((20, 20), np.float32)
COLOUR = np.zeros((20, 20, 3), np.uint8)
# image, arguments, the error, what its message must name
ERRORS: dict[str, tuple[Any, dict[str, Any], type[RestoreError], list[str]]] = {
    "list": ([[1, 2], [3, 4]], {}, RestoreError, ["list", "numpy.asarray"]),
    "nothing": (None, {}, RestoreError, ["NoneType", "numpy.asarray"]),
    "tensor": (torch.zeros(4, 4), {}, ImageError, ["Tensor", "torch.float32", "numpy.asarray"]),
    "complex": (GREY.astype(complex), {}, ImageError, ["complex128", "modulus"]),
    "objects": (GREY.astype(object), {}, ImageError, ["object"]),
    "0-d": (np.float32(3), {}, ImageError, ["()"]),
    "1-d": (GREY[0], {}, ImageError, ["(20,)"]),
    "axes": (GREY, {"axes": "TYX"}, ImageError, ["'TYX'", "(20, 20)"]),
    "unknown chunks": (
        da.from_array(GREY)[da.from_array(GREY[:, 0]) == 0], {}, ImageError, ["nan", "chunk"],
    ),
    "task": (GREY, {"task": "sharpen"}, ModelError, ["'sharpen'", "motion_deblur"]),
    "model": (GREY, {"model": "magic"}, ModelError, ["'magic'", "deblur-mono"]),
    "model of nothing": (GREY, {"model": None}, ModelError, ["None", "deblur-mono"]),
    "model file": (GREY, {"model": "no/such.pth"}, ModelError, ["such.pth"]),
    "model of another task": (
        GREY, {"model": "dehaze-mono"}, ModelError, ["'dehaze-mono'", "not deblur", "deblur-mono"],
    ),
    "colour model": (
        GREY, {"model": "deblur-color"}, ModelError, ["'deblur-color'", "3 channels", "mono"],
    ),
    "mono model": (
        COLOUR, {"model": "deblur-mono"}, ModelError, ["'deblur-mono'", "1 channel;", "color"],
    ),
    "device": (GREY, {"device": "abacus"}, DeviceError, ["'abacus'", "cpu"]),
    "device number": (GREY, {"device": "cuda:99"}, DeviceError, ["'cuda:99'", "cpu"]),
    "strength high": (GREY, {"strength": 1.5}, RestoreError, ["1.5", "0 and 1"]),
    "strength low": (GREY, {"strength": -0.1}, RestoreError, ["-0.1", "0 and 1"]),
    "strength nan": (GREY, {"strength": float("nan")}, RestoreError, ["nan", "0 and 1"]),
    "strength text": (GREY, {"strength": "1"}, RestoreError, ["'1'", "0 and 1"]),
    "tile small": (GREY, {"tile": 15}, RestoreError, ["15", "16"]),
    "tile float": (GREY, {"tile": 64.0}, RestoreError, ["64.0", "'auto'"]),
    "tile text": (GREY, {"tile": "large"}, RestoreError, ["'large'", "'auto'"]),
    "tile truth": (GREY, {"tile": True}, RestoreError, ["True", "'auto'"]),
    "tile pair": (GREY, {"tile": np.array([64, 64])}, RestoreError, ["64", "'auto'"]),
}  # fmt: skip


@pytest.mark.parametrize(("image", "options", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named_with_its_remedy(
    image: Any, options: dict[str, Any], error: type[RestoreError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        napari_restore.restore(image, **{"task": "deblur", **options})
    for word in words:
        assert word in str(caught.value)


def test_every_error_is_a_restore_error() -> None:
    for error in (ImageError, ModelError, DeviceError):
        assert issubclass(error, napari_restore.RestoreError)
