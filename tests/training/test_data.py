"""Images from folders, and the crops drawn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage import data
from skimage.io import imsave

from napari_restore.errors import FileError, RestoreError
from napari_restore.training.data import (
    CropSource,
    SharpImage,
    as_scene,
    center_crop,
    load_folder,
    sharpness,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """One image of each kind, some in a folder below, and files that are no images."""
    (tmp_path / "below").mkdir()
    photograph = data.astronaut()[:64, :80]
    images = {
        "city_1.png": photograph,
        "city_2.jpg": photograph[::-1],
        "below/alpha_1.png": np.dstack([photograph, np.full((64, 80), 255, np.uint8)]),
        "deep_1.tif": photograph.astype(np.uint16) * 257,
        "cells_1.png": data.camera()[:64, :80],
        "cells_2.tif": data.camera()[:64, :80].astype(np.uint16) * 200 + 1000,
        "below/float_1.tif": rng.normal(5, 2, (64, 80)).astype(np.float32),
    }
    for name, image in images.items():
        imsave(tmp_path / name, image, check_contrast=False)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_color_leaves_gray_images_out(folder: Path) -> None:
    images = load_folder([folder], 3)
    assert {image.name for image in images} == {
        "city_1.png", "city_2.jpg", "alpha_1.png", "deep_1.tif",
    }  # fmt: skip
    for image in images:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape == (64, 80, 3)
    by_name = {image.name: image.pixels for image in images}
    np.testing.assert_array_equal(by_name["deep_1.tif"], by_name["city_1.png"])
    np.testing.assert_array_equal(by_name["alpha_1.png"], by_name["city_1.png"])


def test_mono_takes_all_and_stretches_them(folder: Path) -> None:
    images = load_folder([folder], 1)
    assert len(images) == 7
    for image in images:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape == (64, 80, 1)
        low, high = np.percentile(image.pixels, (0.5, 99.9))
        assert low <= 1
        assert high == pytest.approx(200, abs=3)
    by_name = {image.name: image.pixels.astype(int) for image in images}
    # Gain and offset of a file mean nothing.
    assert abs(by_name["cells_1.png"] - by_name["cells_2.tif"]).max() <= 1


def test_folders_are_read_in_one_order_and_grouped_by_name(folder: Path) -> None:
    names = [image.name for image in load_folder([folder], 1)]
    assert names == [image.name for image in load_folder([str(folder)], 1)]
    groups = {image.name: image.group for image in load_folder([folder], 1)}
    assert groups["city_1.png"] == groups["city_2.jpg"] == "city"
    assert groups["cells_1.png"] == "cells"
    assert len(load_folder([folder / "below", folder / "below"], 1)) == 4


@pytest.mark.parametrize("case", ["empty", "missing", "no color"])
def test_folders_without_images_are_named(case: str, tmp_path: Path) -> None:
    if case != "missing":
        (tmp_path / "images").mkdir()
    if case == "no color":
        imsave(tmp_path / "images" / "gray.png", data.camera()[:20, :20], check_contrast=False)
    with pytest.raises(RestoreError) as caught:
        load_folder([tmp_path / "images"], 3)
    assert "images" in str(caught.value)
    assert ".png" in str(caught.value)


ODD = {
    "color of floats": (np.random.default_rng(0).random((40, 50, 3)).astype("f4"), "x.tif", 3),
    "gray with alpha": (data.camera()[:40, :50, None].repeat(2, -1), "x.png", 1),
    "stack": (np.zeros((6, 40, 50), np.uint16), "x.tif", 1),
}


@pytest.mark.parametrize(("pixels", "name", "channels"), ODD.values(), ids=ODD)
def test_odd_files_are_used_as_images_or_refused_by_name(
    pixels: np.ndarray, name: str, channels: int, tmp_path: Path
) -> None:
    imsave(tmp_path / name, pixels, check_contrast=False)
    try:
        (image,) = load_folder([tmp_path], channels)
    except FileError as error:
        assert name in str(error)
    else:
        assert image.pixels.shape == (40, 50, channels)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(FileError, match=r"broken\.png"):
        load_folder([tmp_path], 1)


def test_sharpness_falls_with_blur() -> None:
    from scipy import ndimage

    gray = data.camera()[:128, :128]
    values = [
        sharpness(ndimage.gaussian_filter(gray, sigma)[..., None]) for sigma in (0.1, 1.0, 3.0)
    ]
    assert values[0] > values[1] > values[2] >= 0


def image_of(value: int, group: str, size: tuple[int, int] = (200, 210)) -> SharpImage:
    rng = np.random.default_rng(value)
    pixels = rng.integers(value, value + 20, (*size, 3)).astype(np.uint8)
    return SharpImage(pixels, group, f"{group}_{value}.png")


@pytest.mark.parametrize("size", [32, 100, 250])
def test_crops_come_from_every_group_and_repeat_with_their_seed(size: int) -> None:
    source = CropSource([image_of(20, "a"), image_of(120, "b"), image_of(220, "c", (60, 40))])
    batch = source.batch(np.random.default_rng(1), 40, size)
    assert batch.shape == (40, 3, size, size)
    assert batch.dtype == torch.float32
    assert 0 <= float(batch.min()) <= float(batch.max()) <= 1
    groups = (batch.mean((1, 2, 3)) * 255 // 100).int().tolist()
    assert set(groups) == {0, 1, 2}
    again = CropSource([image_of(20, "a"), image_of(120, "b"), image_of(220, "c", (60, 40))])
    assert torch.equal(batch, again.batch(np.random.default_rng(1), 40, size))


def test_a_kind_of_image_can_be_drawn_more_often() -> None:
    images = [image_of(20, "em_x"), image_of(220, "fluo")]

    def share(emphasis: dict[str, float]) -> float:
        batch = CropSource(images, emphasis=emphasis).batch(np.random.default_rng(1), 300, 16)
        return float((batch.mean((1, 2, 3)) < 0.5).float().mean())

    assert share({}) == pytest.approx(0.5, abs=0.1)
    assert share({"em": 3.0}) == pytest.approx(0.75, abs=0.1)


def test_scenes_are_seen_whole_and_upright() -> None:
    sky_above = np.zeros((400, 600, 3), np.uint8)
    sky_above[:200] = 255
    small = SharpImage(sky_above[100:300, :210], "photo", "small")
    large = SharpImage(sky_above, "photo", "large")
    assert as_scene(large, 100).pixels.shape == (100, 150, 3)
    assert as_scene(small, 300).pixels.shape == small.pixels.shape
    crops = CropSource([large], scenes=(100, 130)).batch(np.random.default_rng(0), 30, 90)
    assert bool((crops[:, :, :30].mean((1, 2, 3)) > crops[:, :, -30:].mean((1, 2, 3))).all())
    # Of the whole scene, nearly all is in every crop.
    assert float(crops.mean((1, 2, 3)).sub(0.5).abs().max()) < 0.3


@pytest.mark.parametrize("size", [16, 64, 300])
def test_the_center_is_the_center(size: int) -> None:
    image = image_of(50, "a", (65, 90))
    crop = center_crop(image, size)
    assert crop.shape == (1, 3, size, size)
    if size == 16:
        expected = image.pixels[24:40, 37:53].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(crop[0], expected, atol=1e-6)
