"""Measured point spread functions: sizes, pixels, background, center; and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from napari_restore.errors import PsfError
from napari_restore.physics import psf as kernels
from napari_restore.physics.lengths import describe_widths, full_widths
from napari_restore.physics.measured import as_psf


def gaussian(shape, sigma, center=None):
    """Sampled Gaussian; sigma for each axis, in pixels."""
    center = [(side - 1) / 2 for side in shape] if center is None else center
    out = np.ones(())
    for side, s, c in zip(shape, sigma, center, strict=True):
        out = out[..., None] * np.exp(-0.5 * ((np.arange(side) - c) / s) ** 2)
    return out


def deviations(psf):
    """Standard deviations and center along each axis, in pixels from the middle."""
    widths, centers = [], []
    for axis in range(psf.ndim):
        line = psf.sum(axis=tuple(a for a in range(psf.ndim) if a != axis)).astype(float)
        place = np.arange(len(line)) - len(line) // 2
        centers.append(line @ place / line.sum())
        widths.append(np.sqrt(line @ (place - centers[-1]) ** 2 / line.sum()))
    return np.array(widths), np.array(centers)


@pytest.mark.parametrize(
    "kernel",
    [
        kernels.disk(3.3),
        kernels.gaussian(2, 1, 0.4),
        kernels.pupil(0.25, {"coma_x": 0.8}),
        np.full((1, 9), 1.0),
        np.full((7, 7), 3),
        np.eye(9, dtype=bool),
        np.pad(np.eye(5), ((0, 4), (0, 4))),
    ],
    ids=["disk", "gaussian", "coma", "line", "box", "diagonal", "beside the middle"],
)
def test_kernels_stay_as_they_are(kernel):
    made = as_psf(kernel)
    assert made.notes == ()
    np.testing.assert_allclose(made.array, kernel / kernel.sum(dtype=float), atol=1e-7)


@pytest.mark.parametrize("shape", [(15, 15), (16, 16), (17, 20), (9, 16, 18)])
@pytest.mark.parametrize("off", [0, 0.4, -1.3])
def test_background_goes_and_the_center_comes_to_the_middle(shape, off):
    rng = np.random.default_rng(0)
    center = [(side - 1) / 2 + off for side in shape]
    sigma = (1.4,) * len(shape)
    measured = 100 + 1000 * gaussian(shape, sigma, center) + rng.normal(0, 3, shape)
    made = as_psf(measured, dimensions=len(shape))
    assert made.array.dtype == np.float32
    assert made.array.sum() == pytest.approx(1, abs=1e-5)
    assert all(side % 2 for side in made.array.shape)
    widths, centers = deviations(made.array)
    np.testing.assert_allclose(centers, 0, atol=0.1)
    np.testing.assert_allclose(widths, 1.4, rtol=0.1)
    assert "background of" in made.notes[0]
    assert any("centered" in note for note in made.notes) == (off != 0)


@pytest.mark.parametrize(
    ("have", "want", "factors"),
    [
        ("100 nm", "50 nm", (2, 2)),
        (0.05, 0.1, (0.5, 0.5)),
        (1, 3, (1 / 3, 1 / 3)),
        (("0.1 um", "80 nm"), (0.08, 0.08), (1.25, 1)),
    ],
)
def test_planes_come_to_the_pixels_of_the_image(have, want, factors):
    measured = gaussian((41, 41), (4, 4))
    made = as_psf(measured, have, want)
    expected = np.hypot(4 * np.array(factors), 0.0)
    np.testing.assert_allclose(deviations(made.array)[0], expected, rtol=0.06)
    assert "resampled to the pixels of the image (Y ×" in made.notes[-1]


@pytest.mark.parametrize("step", [0.1, 0.2, 0.3, 0.5])
def test_another_z_step_is_seen_to(step):
    measured = gaussian((41, 25, 25), (5, 2, 2))
    made = as_psf(measured, (0.1, 0.1, 0.1), (step, 0.1, 0.1), 3)
    widths, centers = deviations(made.array)
    np.testing.assert_allclose(widths[0] * step, 0.5, rtol=0.08)
    np.testing.assert_allclose(widths[1:], 2, rtol=0.02)
    np.testing.assert_allclose(centers, 0, atol=0.02)
    assert bool(made.notes) == (step != 0.1)


def test_gray_pictures_and_single_planes_count_as_what_they_show():
    plane = gaussian((9, 9), (1, 1))
    for array in (plane[None], plane[..., None], np.stack([plane] * 3, -1)):
        np.testing.assert_allclose(as_psf(array).array, plane / plane.sum(), atol=1e-7)
    assert as_psf(plane[None], dimensions=3).array.shape == (1, 9, 9)


def test_stacks_lower_than_the_psf_cut_it():
    volume = gaussian((31, 9, 9), (6, 1, 1))
    made = as_psf(volume, dimensions=3, image_shape=(4, 64, 64))
    assert made.array.shape == (7, 9, 9)
    assert made.array.sum() == pytest.approx(1, abs=1e-5)
    assert "cut to what fits" in made.notes[-1]
    # A wide dark frame is no part of it.
    framed = np.pad(gaussian((9, 9), (1, 1)), 40)
    assert as_psf(framed, image_shape=(32, 33)).array.shape == (31, 33)


@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (np.full((5, 5), np.nan), {}, "25 samples that are NaN.*Replace"),
        (np.pad([[np.inf]], 2), {}, "1 samples that are NaN or infinite"),
        (np.zeros((5, 5)), {}, "0 everywhere"),
        (-gaussian((9, 9), (1, 1)), {}, "sum -6.2.*inverted"),
        (np.ones(5), {}, r"shape \(5,\), and \(Y, X\) is needed"),
        (np.ones((7, 9, 9)), {}, r"plane in focus, psf\[3\]"),
        (np.ones((9, 9)), {"dimensions": 3}, r"\(Z, Y, X\) is needed. Give a PSF with planes"),
        (np.random.default_rng(0).random((9, 9, 3)), {}, "several channels"),
        (np.random.default_rng(0).random((2, 9, 9)), {}, "several channels"),
        (np.ones((41, 41)), {"image_shape": (32, 64)}, r"\(41, 41\) pixels.*\(32, 64\)"),
        (np.ones((9, 9), complex), {}, "complex128"),
        (np.ones((9, 9)), {"pixel_size": 0, "image_pixel_size": 1}, "pixel size of the PSF is 0"),
        (np.ones((9, 9)), {"pixel_size": "1 kg", "image_pixel_size": 1}, "'1 kg'"),
        (
            np.ones((9, 9)),
            {"pixel_size": (1, 1, 1), "image_pixel_size": 1},
            "2, one for each",
        ),
    ],
)
def test_what_is_no_psf_is_said_with_the_remedy(array, options, said):
    with pytest.raises(PsfError, match=said):
        as_psf(array, **options)


def test_full_widths_are_those_of_theory():
    psf = gaussian((31, 41), (4, 3))
    np.testing.assert_allclose(full_widths(psf), (2.355 * 4, 2.355 * 3), rtol=0.01)
    tent = np.outer([0, 1, 2, 1, 0], [0, 2, 0])
    assert describe_widths(tent, (0.1, 1)) == "2.00 × 1.00 pixels (200 nm × 1 µm)"
