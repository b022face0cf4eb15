"""Restoration with a point spread function that is told: in memory, in tiles, lazily."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

from napari_restore import RestoreError, deblur
from napari_restore.analysis.point_spread import PSF
from napari_restore.models.catalog import INVERTERS, bundled_model
from napari_restore.physics import psf
from napari_restore.physics.beads import psf_from_beads
from napari_restore.physics.optics import Optics
from napari_restore.restoration.given_psf import Measured
from napari_restore.restoration.psf_search import make_tools
from napari_restore.restoration.run import restore_array
from napari_restore.samples import load_sample
from planning import plan

KERNEL = psf.disk(2.5)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Sharp cells and the same out of focus, with a little noise."""
    sharp = load_sample("mitochondria")[0].astype(np.float32)[:160, :200]
    sharp = (sharp - sharp.min()) / np.ptp(sharp)
    light = torch.from_numpy(sharp)[None, None]
    blurred = psf.convolve(light, torch.from_numpy(KERNEL)[None])[0, 0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.005, sharp.shape)
    return sharp, (blurred + noise).astype(np.float32)


def error(result: np.ndarray, sharp: np.ndarray) -> float:
    return float(np.mean((result - sharp)[10:-10, 10:-10] ** 2))


def test_a_told_blur_is_undone_better_than_a_guessed_one(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    sharp, blurred = scene
    told = restore_array(blurred, plan(blurred, "deblur", psf=KERNEL), blur=False)
    assert error(told.data, sharp) < 0.8 * error(blurred, sharp)
    assert error(told.data, sharp) < error(deblur(blurred), sharp)
    assert abs(told.data.sum() / blurred.sum() - 1) < 0.01
    assert told.facts.psf is not None
    assert told.provenance["model"] == "invert-mono"
    record = told.provenance["psf"]
    assert (record["family"], record["verdict"]) == ("measured", "given")
    assert "explains the image" in record["said"]
    np.testing.assert_array_equal(PSF.from_record(record).array, told.facts.psf.array)


@pytest.mark.parametrize("how", ["tiles", "lazy", "motion"])
def test_it_is_the_same_however_it_is_computed(
    how: str, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    _, blurred = scene
    expected = deblur(blurred, psf=KERNEL)
    if how == "tiles":
        found = deblur(blurred, psf=KERNEL, tile=96)
    elif how == "lazy":
        found = deblur(da.from_array(blurred, chunks=90), psf=KERNEL).compute()
    else:
        from napari_restore import motion_deblur

        found = motion_deblur(blurred, psf=KERNEL)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_wrong_psf_is_said_not_to_fit(scene: tuple[np.ndarray, np.ndarray]) -> None:
    wrong = restore_array(scene[1], plan(scene[1], "deblur", psf=psf.disk(5)), blur=False)
    assert "leaves structure unexplained" in wrong.provenance["psf"]["said"]


def test_several_kernels_undo_an_image_as_each_alone(
    scene: tuple[np.ndarray, np.ndarray], full_precision: None
) -> None:
    """Of one size: padding changes the transforms, and so the rounding.

    In bfloat16 such rounding may turn the last of its eight bits.
    """
    invert = make_tools(INVERTERS[1], bundled_model("deblur", 1), "cpu").invert
    image = torch.from_numpy(scene[1][:96, :112])[None, None]
    kernels = psf.stack([KERNEL, psf.gaussian(1.0), psf.disk(1.5)])
    together = invert(image, kernels, 0.01, False)
    for found, kernel in zip(together.split(1), kernels.split(1), strict=True):
        torch.testing.assert_close(found, invert(image, kernel, 0.01, False), rtol=0, atol=1e-5)
        assert not torch.equal(found, image)


def wide(size: float) -> np.ndarray:
    return psf.gaussian(1.2 * size)


BEADS = np.zeros((90, 90))
for _place in ((20, 20), (20, 70), (70, 20), (70, 70), (45, 45)):
    BEADS[_place] = 1000
BEADS = psf.convolve(
    torch.from_numpy(BEADS).float()[None, None], torch.from_numpy(wide(1))[None]
).numpy()[0, 0] + np.random.default_rng(0).normal(10, 0.2, BEADS.shape)
OPTICS = {"na": 0.8, "wavelength": "520 nm"}

#: What is given, the pixel size of the image, the full width that follows in pixels, what is said.
GIVEN: dict[str, tuple[Any, Any, float, str]] = {
    "as large": (wide(1), None, 2.83, "As given"),
    "of even sides": (np.pad(wide(1), (0, 1)), None, 2.83, "centered"),
    "on a background": (wide(1) * 500 + 20, None, 2.83, "background of 20"),
    "of fine pixels": (Measured(wide(2), (0.05, 0.05)), "100 nm", 2.83, "resampled"),
    "of a layer": (Measured(wide(2), (0.5, 0.5), "psf", True), None, 2.83, "in psf. The PSF was"),
    "size of the image unknown": (Measured(wide(1), (1, 1)), None, 2.83, "taken to be as large"),
    "found before": (PSF(wide(2), pixel_size=(50, 50), unit="nm"), 0.1, 2.83, "resampled"),
    "beads": (psf_from_beads(BEADS), None, 2.83, "5 of 5 beads were averaged"),
    "beads, fine": (psf_from_beads(BEADS, pixel_size="1 µm"), "2 µm", 1.4, "resampled"),
    "optics": (Optics(pixel_size="65 nm", **OPTICS), None, 5.4, "From the optics: widefield, NA"),
    "optics of the image": (OPTICS | {"pixel_size": None}, "65 nm", 5.4, "From the optics"),
    "tall pixels": (OPTICS, ("130 nm", "65 nm"), 3.8, "resampled"),
}


@pytest.mark.parametrize(("given", "size", "width", "said"), GIVEN.values(), ids=GIVEN)
def test_every_form_fits_the_pixels_of_the_image(
    given: Any, size: Any, width: float, said: str
) -> None:
    image = np.zeros((64, 72), np.float32)
    (made,) = plan(image, "deblur", psf=given, pixel_size=size).psfs
    assert made.fwhm == pytest.approx(width, rel=0.06)
    assert said in made.found
    assert (made.unit == "µm") == (size is not None or "optics" in said)


def test_channels_have_psfs_of_their_own(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, blurred = scene
    image = np.stack([blurred, 5 * blurred])
    kernels = [KERNEL, psf.disk(1)]
    told = restore_array(image, plan(image, "deblur", axes="CYX", psf=kernels), blur=False)
    for channel, kernel in enumerate(kernels):
        alone = deblur(image[channel], psf=kernel)
        np.testing.assert_allclose(told.data[channel], alone, atol=1e-4 * image[channel].max())
    assert [r["side_px"] for r in told.provenance["psf"]] == [7, 3]
    stack = np.zeros((2, 7, 7))
    stack[0], stack[1, 2:5, 2:5] = KERNEL, kernels[1]
    inside = np.s_[:, 9:-9, 9:-9]
    padded = deblur(image, axes="CYX", psf=stack)
    np.testing.assert_allclose(padded[inside], told.data[inside], atol=5e-3)
    lazy = deblur(da.from_array(image, chunks=(2, 90, 90)), axes="CYX", psf=kernels).compute()
    np.testing.assert_allclose(lazy, told.data, atol=2e-3 * image.max())


def test_channels_have_wavelengths_of_their_own() -> None:
    told = {"na": 0.8, "channels": [{"wavelength": "450 nm"}, {"wavelength": "650 nm"}]}
    image = np.zeros((2, 64, 72), np.float32)
    first, second = plan(image, "deblur", axes="CYX", psf=told, pixel_size="65 nm").psfs
    assert second.fwhm / first.fwhm == pytest.approx(650 / 450, rel=0.05)


def test_a_psf_that_was_not_found_leaves_it_to_the_plain_network(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    nothing = PSF.none("Too noisy.")
    assert not nothing
    np.testing.assert_array_equal(deblur(scene[1], psf=nothing), deblur(scene[1], psf="none"))


def test_a_psf_wider_than_the_halo_has_its_own() -> None:
    image = np.zeros((300, 300), np.float32)
    assert plan(image, "deblur", psf=psf.disk(80)).halo >= 320


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "not a number": ({"psf": np.full((5, 5), np.nan)}, "NaN"),
    "empty": ({"psf": np.zeros((5, 5))}, "0 everywhere"),
    "negative": ({"psf": -np.ones((5, 5))}, "light is positive"),
    "a word": ({"psf": "guess"}, "psf must be"),
    "with a model": ({"psf": KERNEL, "model": "deblur-mono"}, "chooses the model"),
    "larger than the image": ({"psf": np.ones((81, 81))}, "smaller than its image"),
    "of planes": ({"psf": np.ones((5, 7, 7))}, r"in focus, psf\[2\]"),
    "of colors": ({"psf": np.random.default_rng(0).random((9, 9, 3))}, "several channels"),
    "of one axis": ({"psf": np.ones(7)}, r"\(Y, X\) is needed"),
    "of channels": ({"psf": [KERNEL, KERNEL]}, "no axis of channels"),
    "NA above n": (
        {"psf": OPTICS | {"na": 1.2, "refractive_index": 1.0}, "pixel_size": 0.1},
        "cannot reach",
    ),
    "no wavelength": ({"psf": {"na": 0.8}}, "wavelength is missing"),
    "no pixel size": ({"psf": OPTICS}, "pixel size is missing"),
    "0.52 nm": ({"psf": OPTICS | {"wavelength": "0.52 nm"}}, "0.52 nm, outside"),
    "no such thing": ({"psf": OPTICS | {"lambda": 520}}, "Optics have no 'lambda'"),
    "no size": ({"psf": KERNEL, "pixel_size": "65 s"}, "not a length"),
    "size of 0": ({"psf": KERNEL, "pixel_size": 0}, "pixel_size is 0"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_what_is_no_point_spread_function(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        deblur(np.zeros((40, 40), np.float32), **options)


def test_dehaze_takes_none() -> None:
    from napari_restore import dehaze

    with pytest.raises(RestoreError, match="psf is for deblurring"):
        dehaze(np.zeros((40, 40), np.float32), psf=KERNEL)
