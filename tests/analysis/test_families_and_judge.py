"""Kernels of known form, PSF objects, and the judge of restorations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import blurred, inverse, scene

from napari_restore.analysis.find import (
    KNOWN,
    NOTHING,
    line,
    of_size,
)
from napari_restore.analysis.judge import MERIT, evidence, merit, re_blur, score, sparsity
from napari_restore.analysis.point_spread import PSF
from napari_restore.errors import RestoreError
from napari_restore.physics import motion, psf


def tensor(image):
    return torch.from_numpy(image)[None, None]


@pytest.mark.parametrize("family", KNOWN)
@pytest.mark.parametrize("sigma", [1.3, 1.8, 2.6])
def test_families_have_the_size_that_was_asked_for(family, sigma):
    candidate = of_size(family, sigma)
    assert candidate.array.sum() == pytest.approx(1, abs=1e-4)
    assert candidate.sigma == pytest.approx(sigma, rel=0.15)


def test_lines():
    along_x = line(9, 0).array
    assert along_x.max(0).nonzero()[0].size > along_x.max(1).nonzero()[0].size


def test_unknown_family():
    with pytest.raises(ValueError, match="no family 'box'"):
        of_size("box", 1)


def test_blur_and_ringing_are_less_sparse():
    sharp = scene(128, 128)
    kernel = psf.disk(3)
    image = tensor(blurred(sharp, kernel, 0.001))
    right, wrong = (inverse(image, psf.stack([k]), 0.001, False) for k in (kernel, psf.disk(4.2)))
    assert sparsity(tensor(sharp)) < sparsity(image)
    assert score(right, image) < score(image, image) == pytest.approx(1)
    assert score(right, image) < score(wrong, image)


def test_the_right_kernel_has_the_most_merit():
    sharp, path = scene(160, 160), motion.kernel(motion.arc(14, 0.4, 2.0))
    image = tensor(blurred(sharp, path, 0.002))
    kernels = {
        "right": path,
        "turned": np.ascontiguousarray(np.rot90(path)),
        "mirrored": np.ascontiguousarray(path[:, ::-1]),
        "too large": psf.resized(path, 1.3),
        "a line": motion.kernel(motion.line(9, 0.8)),
        "none": NOTHING.array,
    }
    found = {}
    for name, kernel in kernels.items():
        found[name] = merit(inverse(image, psf.stack([kernel]), 0.002, False), image, kernel)
    assert max(found, key=found.get) == "right"


def test_evidence_is_what_it_says():
    image = tensor(scene(128, 128))
    same = evidence(image, image, NOTHING.array)
    assert same.sparsity == pytest.approx(0, abs=1e-6)
    assert same.contrast == pytest.approx(0, abs=1e-6)
    assert (same.ringing, same.entropy) == (0, 0)
    assert same.size == pytest.approx(np.log(0.3), abs=1e-3)
    # As bright as before, with half of the contrast and beyond the range.
    changed = evidence(image * 0.5 + 0.9, image, np.full((3, 3), 1 / 9, np.float32))
    assert changed.contrast == pytest.approx(np.log(0.25), abs=1e-4)
    assert changed.entropy == pytest.approx(np.log(9), abs=1e-4)
    assert changed.ringing > 0.1
    # What does not depend on the gain of the image says the same of a brighter one.
    np.testing.assert_allclose(evidence(30 * image, 30 * image, NOTHING.array), same, atol=1e-4)


@pytest.mark.parametrize("shift", [5, 9])
def test_second_edges_are_ghosts(shift):
    image = tensor(scene(160, 160))
    doubled = image - 0.6 * image.roll(shift, -1)
    ghosts = [evidence(part, image, NOTHING.array).ghosts for part in (image, doubled)]
    assert ghosts[1] < ghosts[0] - 0.1
    assert MERIT.ghosts > 0


@pytest.mark.parametrize(("told", "fits"), [(3.0, True), (5.5, False)])
def test_blurring_again_tells_whether_a_psf_fits(told, fits):
    sharp, true = scene(128, 128), psf.disk(3)
    image = tensor(blurred(sharp, true, 0.004))
    kernel = psf.disk(told)
    restored = inverse(image, psf.stack([kernel]), 0.004, False)
    check = re_blur(image, restored, torch.from_numpy(kernel), 0.004)
    assert check.fits is fits
    assert ("explains the image" in check.statement) is fits
    assert ("does not fit" in check.statement) is not fits


def test_psf_says_how_wide_it_is():
    found = PSF(psf.gaussian(2.0), "gaussian", pixel_size=(0.1, 0.1), unit="µm")
    assert found.fwhm == pytest.approx(2.355 * 2, rel=0.04)
    assert found.fwhm_in_units == pytest.approx(0.471, rel=0.04)
    assert PSF(psf.disk(4)).fwhm == pytest.approx(8, rel=0.06)
    assert PSF(psf.disk(4)).fwhm_in_units is None
    assert found.record()["family"] == "gaussian"
    assert not found.array.flags.writeable


@pytest.mark.parametrize(
    "array", [np.ones((3, 5)) / 15, np.ones((4, 4)) / 16, np.ones((3, 3)), np.full((3, 3), np.nan)]
)
def test_what_is_no_psf(array):
    with pytest.raises(RestoreError, match="A PSF must be"):
        PSF(array)


def test_nothing_blurs_nothing():
    image = tensor(scene(64, 64))
    torch.testing.assert_close(psf.convolve(image, psf.stack([NOTHING.array])), image)
