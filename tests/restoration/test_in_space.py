"""Volumes, and planes by classical methods, restored with a point spread function."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage, signal

from napari_restore import Optics, RestoreError, deblur, restore
from napari_restore.analysis.point_spread import PSF as PointSpread
from napari_restore.restoration import in_space
from napari_restore.restoration.given_psf import narrower
from napari_restore.restoration.run import BlockTask, find_facts, restore_array, restore_here
from napari_restore.training import scenes
from planning import WATER_CONFOCAL, plan

if TYPE_CHECKING:
    import torch

METHODS = ["network", "richardson-lucy", "wiener"]
CLASSICAL = METHODS[1:]


def gaussian(*sigmas: float) -> np.ndarray:
    psf = np.array(1.0)
    for sigma in sigmas:
        line = np.arange(-round(3 * sigma), round(3 * sigma) + 1)
        psf = psf[..., None] * np.exp(-0.5 * (line / sigma) ** 2)
    return (psf / psf.sum()).astype(np.float32)


PSF = gaussian(1.5, 1.2, 1.2)
FLAT = gaussian(1.3, 1.3)


def seen(*shape: int, seed: int = 0, psf: np.ndarray = PSF) -> tuple[np.ndarray, np.ndarray]:
    """Balls of several brightnesses, and how they are seen: float32."""
    rng = np.random.default_rng(seed)
    sharp = np.zeros(shape)
    for _ in range(max(12, int(np.prod(shape) / 900))):
        sharp[tuple(int(rng.integers(0, side)) for side in shape)] = rng.uniform(5, 15)
    sharp = ndimage.gaussian_filter(sharp, 1.0)
    light = signal.fftconvolve(sharp, psf, "same").clip(0)
    counts = rng.poisson(400 * light + 4) / 400
    return sharp.astype(np.float32), counts.astype(np.float32)


def error(result: np.ndarray, sharp: np.ndarray) -> float:
    """After the affine fit that suits best."""
    slope, offset = np.polyfit(result.ravel().astype(float), sharp.ravel().astype(float), 1)
    return float(np.sqrt(np.mean((slope * result + offset - sharp) ** 2)))


@pytest.fixture(scope="module")
def volume() -> tuple[np.ndarray, np.ndarray]:
    return seen(12, 40, 36)


@pytest.mark.parametrize("method", METHODS)
def test_a_volume_comes_nearer(method: str, volume: tuple[np.ndarray, np.ndarray]) -> None:
    sharp, blurred = volume
    result = deblur(blurred, psf=PSF, dimensions=3, method=method)
    assert result.dtype == blurred.dtype
    assert error(result, sharp) < 0.85 * error(blurred, sharp)


@pytest.mark.parametrize("method", METHODS)
def test_light_is_kept(method: str) -> None:
    sharp = np.zeros((18, 48, 44))
    sharp[6:12, 14:34, 12:32] = seen(6, 20, 20)[0]
    light = signal.fftconvolve(sharp, PSF, "same").clip(0)
    blurred = np.random.default_rng(0).poisson(400 * light) / 400
    result = deblur(blurred, psf=PSF, dimensions=3, method=method)
    assert result.sum() == pytest.approx(blurred.sum(), rel=0.01)


def test_a_volume_gains_what_planes_do_not(volume: tuple[np.ndarray, np.ndarray]) -> None:
    sharp, blurred = volume
    whole = deblur(blurred, psf=PSF, dimensions=3)
    planes = deblur(blurred, psf=PSF[len(PSF) // 2] / PSF[len(PSF) // 2].sum())
    assert error(whole, sharp) < 0.95 * error(planes, sharp)


@pytest.mark.parametrize("method", CLASSICAL)
def test_classical_methods_restore_planes_too(method: str) -> None:
    sharp, blurred = seen(60, 64, psf=FLAT)
    result = deblur(blurred, psf=FLAT, method=method)
    assert error(result, sharp) < 0.9 * error(blurred, sharp)
    movie = deblur(np.stack([blurred, blurred[::-1]]), psf=FLAT, method=method)
    # Up to the scale, which is the movie's.
    np.testing.assert_allclose(movie[1], movie[0][::-1], atol=2e-3 * np.ptp(blurred))


HOW: dict[str, dict[str, Any]] = {
    "tiles": {"tile": 64},
    "lazy": {"chunks": (5, 30, 50)},
    "planes": {"chunks": (1, 30, 120)},
    "region": {},
    "map": {},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", HOW)
def test_it_is_the_same_however_it_is_computed(how: str, method: str) -> None:
    _, blurred = seen(14, 30, 120, seed=2)
    options: dict[str, Any] = {"psf": PSF, "dimensions": 3, "method": method, "axes": "ZYX"}
    expected = deblur(blurred, **options)
    part: Any = np.s_[:]
    if how == "tiles":
        found = deblur(blurred, **options, **HOW[how])
    elif how == "region":
        part = np.s_[9:10, 10:20, 60:80]
        block = tuple(slice(p.start, p.stop) for p in part)
        found = restore_array(blurred, plan(blurred, "deblur", **options), block=block).data
    elif how == "map":
        found = np.zeros_like(blurred)
        restore_array(blurred, plan(blurred, "deblur", **options), out=found)
    else:
        found = deblur(da.from_array(blurred, **HOW[how]), **options).compute()
    scale = np.ptp(expected)
    np.testing.assert_allclose(found, expected[part], atol=2e-3 * scale)


@pytest.mark.parametrize("method", METHODS)
def test_intensities_dtype_and_missing_samples(
    method: str, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    _, blurred = volume
    options: dict[str, Any] = {"psf": PSF, "dimensions": 3, "method": method}
    expected = deblur(blurred, **options)
    moved = deblur(blurred * 500 + 90, **options)
    np.testing.assert_allclose(moved, expected * 500 + 90, rtol=1e-3, atol=1)
    counts = deblur((blurred * 500 + 90).astype(np.uint16), **options)
    assert counts.dtype == np.uint16
    np.testing.assert_allclose(counts, expected * 500 + 90, rtol=0.05, atol=15)
    holed = blurred.copy()
    holed[6, 20:23, 20:23] = np.nan
    result = deblur(holed, **options)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(holed))
    far = np.ones(blurred.shape, bool)
    far[1:11, 8:35, 8:35] = False
    np.testing.assert_allclose(result[far], expected[far], atol=0.02 * np.ptp(expected))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("planes", [3, 4])
def test_few_planes_and_what_is_even(method: str, planes: int) -> None:
    flat = np.full((planes, 30, 34), 7.0, np.float32)
    options: dict[str, Any] = {"psf": PSF, "dimensions": 3, "method": method, "axes": "ZYX"}
    np.testing.assert_array_equal(deblur(flat, **options), flat)
    _, blurred = seen(planes, 30, 34)
    assert np.isfinite(deblur(blurred, **options)).all()


def test_nothing_wraps_around_from_bottom_to_top() -> None:
    sharp = np.zeros((10, 32, 32))
    sharp[9, 14:18, 14:18] = 1
    blurred = signal.fftconvolve(sharp, PSF, "same").clip(0).astype(np.float32)
    for method in METHODS:
        result = deblur(blurred, psf=PSF, dimensions=3, method=method)
        assert result[:3].max() < 0.05 * result.max()


def test_time_and_channels_are_no_space(volume: tuple[np.ndarray, np.ndarray]) -> None:
    _, blurred = volume
    both = np.stack([np.stack([blurred, 90 * blurred]), np.stack([blurred, 90 * blurred])])
    result = deblur(both, psf=PSF, dimensions=3, method="richardson-lucy", axes="TCZYX")
    expected = deblur(blurred, psf=PSF, dimensions=3, method="richardson-lucy", axes="ZYX")
    np.testing.assert_allclose(result[1, 1], 90 * expected, rtol=1e-3, atol=0.01)
    swapped = deblur(
        np.moveaxis(both, 2, 1),
        psf=[PSF, PSF],
        dimensions=3,
        method="richardson-lucy",
        axes="TZCYX",
    )
    np.testing.assert_allclose(np.moveaxis(swapped, 1, 2), result, rtol=1e-5)


BAD: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "no psf": ((8, 32, 32), {"dimensions": 3}, "needs a point spread function"),
    "found psf": ((8, 32, 32), {"dimensions": 3, "psf": "auto"}, "needs a point spread function"),
    "classical": ((32, 32), {"method": "wiener"}, "needs a point spread function"),
    "flat psf": ((8, 32, 32), {"dimensions": 3, "psf": FLAT}, "with planes, or restore plane"),
    "deep psf": ((8, 32, 32), {"psf": PSF}, "as a volume"),
    "two planes": ((2, 32, 32), {"dimensions": 3, "psf": PSF}, "3 planes or more.*has 2"),
    "time": ((8, 32, 32), {"dimensions": 3, "psf": PSF, "axes": "TYX"}, "Name it Z"),
    "plane": ((32, 32), {"dimensions": 3, "psf": PSF}, "axis of depth"),
    "four": ((8, 32, 32), {"dimensions": 4, "psf": PSF}, "2, 3 or 'auto'; got 4"),
    "step": (
        (8, 32, 32),
        {"dimensions": 3, "psf": PSF, "pixel_size": (0, 0.1, 0.1)},
        "The z step, the distance of planes, is 0",
    ),
    "method": ((8, 32, 32), {"method": "magic", "psf": PSF}, "must be one of.*magic"),
}


@pytest.mark.parametrize(("shape", "options", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be(shape: tuple[int, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        deblur(np.zeros(shape, np.float32), **options)


def test_dehaze_has_no_dimensions() -> None:
    with pytest.raises(RestoreError, match="is for deblur; dehaze was asked for"):
        restore(np.zeros((8, 32, 32), np.float32), "dehaze", psf=PSF, dimensions=3)


CONFOCAL = Optics(na=0.8, wavelength=0.52, pixel_size=0.16, z_step=0.6)
FAR_APART = Optics(na=0.8, wavelength=0.52, pixel_size=0.16, z_step=9)
CHOICES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "optics": ("ZYX", {"psf": CONFOCAL}, 3, "As a volume: 8 planes"),
    "array": ("ZYX", {"psf": PSF}, 3, "As a volume"),
    "step of the image": (
        "ZYX",
        {"psf": {"na": 0.8, "wavelength": 0.52}, "pixel_size": (0.6, 0.16, 0.16)},
        3,
        "As a volume",
    ),
    "no step": (
        "ZYX",
        {"psf": {"na": 0.8, "wavelength": 0.52, "pixel_size": 0.16}},
        2,
        "the z step is not known",
    ),
    "steps too large": ("ZYX", {"psf": FAR_APART}, 2, "z step is 9 µm"),
    "time": ("TYX", {"psf": CONFOCAL}, 2, ""),
    "no psf": ("ZYX", {}, 2, ""),
}


@pytest.mark.parametrize(("axes", "options", "dimensions", "said"), CHOICES.values(), ids=CHOICES)
def test_dimensions_choose_themselves_and_say_so(
    axes: str, options: dict[str, Any], dimensions: int, said: str
) -> None:
    image = np.zeros((8, 64, 64), np.float32)
    found = plan(image, "deblur", axes=axes, dimensions="auto", **options)
    assert found.dimensions == dimensions
    assert said in " ".join(found.notes)


@pytest.mark.parametrize("dimensions", ["auto", 3])
def test_what_is_done_with_colors_is_said(dimensions: Any) -> None:
    gray, color = (np.zeros((8, 64, 64, *more), np.uint8) for more in ((), (3,)))
    for image, axes in ((gray, "ZYX"), (color, "ZYXS")):
        found = plan(image, "deblur", axes=axes, dimensions=dimensions, psf=CONFOCAL)
        assert found.dimensions == 3
        assert ("Red, green and blue are restored one by one" in " ".join(found.notes)) == (
            image is color
        )


class _Read:
    """A volume that tells how many parts of it were read."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples, self.times = samples, 0
        self.shape, self.dtype, self.ndim = samples.shape, samples.dtype, samples.ndim

    def __getitem__(self, place: Any) -> np.ndarray:
        self.times += 1
        return self.samples[place]


@pytest.mark.parametrize(("dimensions", "ahead"), [(3, 0), (2, 1)])
def test_blocks_of_volumes_are_not_read_ahead(
    dimensions: int, ahead: int, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    """They are large: one that waits would take more memory than time is won."""
    image = volume[1]
    psf = PSF if dimensions == 3 else FLAT
    found = plan(
        image, "deblur", axes="ZYX", dimensions=dimensions, psf=psf, method="wiener", device="cpu"
    )
    task, source = BlockTask(found, find_facts(image, found)), _Read(image)
    depth = image.shape[0]
    blocks = [(slice(z, z + 4), slice(None), slice(None)) for z in range(0, depth - 3, 4)]
    blocks = [
        tuple(slice(*p.indices(n)) for p, n in zip(b, image.shape, strict=True)) for b in blocks
    ]
    for count, _ in enumerate(restore_here(task, source, list(enumerate(blocks))), 1):
        if count < len(blocks) and not ahead:
            assert source.times == count
    assert source.times == len(blocks) > 2


def test_parts_are_bounded_with_their_margins_wherever_a_block_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks within a large image have margins on all sides, and a small image is one block."""
    image = seen(30, 90, 90, seed=4)[1]
    found = plan(image, "deblur", axes="ZYX", dimensions=3, psf=PSF, method="wiener", device="cpu")
    sizes, voxels = [], 30_000
    monkeypatch.setattr(in_space, "VOXELS", voxels)

    def recorded(*_: Any) -> Any:
        def method(samples: torch.Tensor, *_: Any) -> torch.Tensor:
            sizes.append(samples.numel())
            return samples

        return method

    monkeypatch.setattr(in_space, "method_of", recorded)
    task = BlockTask(found, find_facts(image, found))
    assert min(found.margins) > 5
    for start in (0, 1):
        sizes.clear()
        block = tuple(slice(start * n // 3, (start + 1) * n // 3) for n in image.shape)
        list(restore_here(task, image, [(0, block)]))
        assert 0 < max(sizes) <= voxels


def test_a_psf_is_resampled_to_the_planes_of_the_image() -> None:
    found = plan(
        np.zeros((20, 64, 64), np.float32),
        "deblur",
        axes="ZYX",
        dimensions=3,
        psf=CONFOCAL,
        pixel_size=(0.3, 0.16, 0.16),
    )
    assert found.psfs[0].depth == pytest.approx(CONFOCAL.axial_fwhm / 0.3, rel=0.15)
    assert "resampled" in found.psfs[0].found


def test_aberrations_change_with_depth() -> None:
    oil = Optics(
        na=1.3, wavelength=0.52, pixel_size=0.1, z_step=0.5, ri_immersion=1.515, ri_sample=1.38
    )
    image = np.zeros((16, 48, 48), np.float32)
    told = plan(image, "deblur", axes="ZYX", dimensions=3, psf=oil, method="richardson-lucy")
    slabs = told.psfs[0].by_depth
    assert [slabs[0][0], slabs[-1][0]] == [0, 15]
    assert "changes with depth" in told.psfs[0].found
    _, blurred = seen(16, 48, 48)
    options: dict[str, Any] = {"axes": "ZYX", "dimensions": 3, "method": "wiener"}
    changing = deblur(blurred, psf=oil, **options)
    for plane, array in (slabs[0], slabs[-1]):
        same = deblur(blurred, psf=PointSpread(array, "optics"), **options)
        np.testing.assert_allclose(changing[plane], same[plane], atol=5e-3 * np.ptp(same))
        assert np.abs(changing[15 - plane] - same[15 - plane]).max() > 0.02 * np.ptp(same)


TOO_SMALL = replace(WATER_CONFOCAL, na=0.81)


@pytest.fixture(scope="module")
def nuclei() -> tuple[np.ndarray, np.ndarray]:
    psf = WATER_CONFOCAL.psf(dimensions=3)
    shape = (12, 48, 48)
    sharp = scenes.nuclei(scenes.around(shape, psf.shape), np.random.default_rng(3), 3.1)
    return scenes.see(sharp, psf, shape, 1000, np.random.default_rng(5))


@pytest.mark.parametrize("method", METHODS)
def test_optics_that_are_wrong_cost_little_and_it_is_said(
    method: str, nuclei: tuple[np.ndarray, np.ndarray]
) -> None:
    sharp, blurred = nuclei
    options: dict[str, Any] = {"axes": "ZYX", "dimensions": 3, "method": method}
    found = restore_array(blurred, plan(blurred, "deblur", psf=TOO_SMALL, **options))
    believed = deblur(blurred, psf=TOO_SMALL.psf(dimensions=3), **options)
    right = deblur(blurred, psf=WATER_CONFOCAL, **options)
    assert error(found.data, sharp) < 1.12 * error(right, sharp)
    if method != "wiener":
        assert error(found.data, sharp) < 0.9 * error(believed, sharp)
        assert error(found.data, sharp) < error(blurred, sharp)
    record = found.provenance["psf"]
    assert record["verdict"] == "narrowed"
    assert "NA 0.81" in record["said"]
    assert any("a narrower PSF is used, that of NA 0.891" in x for x in found.provenance["notes"])


def test_optics_that_are_right_or_measured_are_believed(
    nuclei: tuple[np.ndarray, np.ndarray],
) -> None:
    _, blurred = nuclei
    for psf in (WATER_CONFOCAL, replace(WATER_CONFOCAL, na=0.99), TOO_SMALL.psf(dimensions=3)):
        told = plan(blurred, "deblur", axes="ZYX", dimensions=3, psf=psf, method="richardson-lucy")
        found = restore_array(blurred, told).provenance
        assert found["psf"]["verdict"] == "given"
        assert not any("sharper than" in note for note in found["notes"])


def test_optics_that_are_wrong_are_so_for_all_blocks(
    nuclei: tuple[np.ndarray, np.ndarray],
) -> None:
    _, blurred = nuclei
    options: dict[str, Any] = {"axes": "ZYX", "dimensions": 3, "psf": TOO_SMALL}
    expected = deblur(blurred, **options)
    lazy = deblur(da.from_array(blurred, chunks=(5, 24, 30)), **options).compute()
    np.testing.assert_allclose(lazy, expected, atol=2e-3 * np.ptp(expected))
    block = (slice(4, 8), slice(10, 30), slice(20, 40))
    part = restore_array(blurred, plan(blurred, "deblur", **options), block=block).data
    np.testing.assert_allclose(part, expected[block], atol=2e-3 * np.ptp(expected))


@pytest.mark.parametrize(("na", "index"), [(0.95, None), (1.2, 1.33), (1.4, 1.515)])
def test_no_aperture_is_tried_that_cannot_be(na: float, index: float | None) -> None:
    optics = replace(WATER_CONFOCAL, na=na, refractive_index=index, z_step=0.2, pixel_size=0.08)
    told = plan(np.zeros((8, 40, 40), np.float32), "deblur", axes="ZYX", dimensions=3, psf=optics)
    assert narrower(told.psfs[0], told.layout, None) == ()


def test_light_that_optics_took_out_of_a_volume_is_estimated_and_it_is_said() -> None:
    """Few counts, seen with a wide PSF: the sum of the image is far below that of the scene."""
    rng = np.random.default_rng(0)
    scene = np.zeros((12, 48, 48))
    scene[1:11, 8:40, 8:40] = ndimage.gaussian_filter(1.0 * (rng.random((10, 32, 32)) > 0.97), 1)
    wide = gaussian(5.0, 1.5, 1.5)
    light = signal.fftconvolve(scene, wide, "same").clip(0)
    counts = rng.poisson(light * 0.2 / light.mean()).astype(np.uint16)
    true = scene.sum() / light.sum()
    assert true > 1.2
    with pytest.warns(UserWarning, match="out of it") as said:
        result = deblur(counts, psf=wide, dimensions=3, method="richardson-lucy")
    found = result.sum() / counts.sum()
    # Nearer to that of the scene than the image is, not all of it.
    assert abs(found - true) < abs(1 - true)
    # Samples that stay as they are, outliers, are not counted.
    share = float(re.search(r"has ([0-9.]+)%", str(said[0].message))[1])
    assert share == pytest.approx(100 * found, abs=1)
