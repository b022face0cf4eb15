"""The search for kernels of any form."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred, scene

from napari_restore.analysis.find import COSTS
from napari_restore.analysis.free_form import refined, search
from napari_restore.physics import motion, psf
from napari_restore.runtime import Stopped, Watch


def likeness(first, second):
    size = [2 * max(len(first), len(second))] * 2
    product = np.fft.rfft2(first, size) * np.fft.rfft2(second, size).conj()
    norm = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return np.fft.irfft2(product, size).max() / norm


PATHS = {
    "arc": motion.arc(14, 0.4, 2.0),
    "line": motion.line(11, 0.8),
    "shake": motion.shake(np.random.default_rng(3), 9),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_finds_the_path_of_a_camera(path):
    kernel = psf.combine(motion.kernel(path), psf.gaussian(0.4))
    image = blurred(scene(176, 176), kernel, 0.004)
    found = max((search(image, 19, cost) for cost in COSTS), key=lambda one: likeness(one, kernel))
    assert found.shape == (19, 19) and found.dtype == np.float32
    assert found.sum() == pytest.approx(1, abs=1e-4) and found.min() >= 0
    middle = (found * np.arange(19)).sum(), (found * np.arange(19)[:, None]).sum()
    assert middle == pytest.approx((9, 9), abs=0.6)
    straight = motion.kernel(motion.line(11, 0.8 + np.pi / 2))
    assert likeness(found, kernel) > 0.75 > likeness(straight, kernel)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_sharp_image_tells_the_kernel(path):
    kernel = psf.combine(motion.kernel(path), psf.gaussian(0.4))
    sharp = scene(176, 176)
    first = psf.gaussian(1.2)
    found = refined(blurred(sharp, kernel, 0.004), sharp, np.pad(first, 9 - len(first) // 2))
    assert found.sum() == pytest.approx(1, abs=1e-4) and found.min() >= 0
    # It may grow by a third.
    assert found.shape == (25, 25)
    assert likeness(found, kernel) > 0.95


def test_gain_and_offset_change_nothing():
    image = blurred(scene(96, 96), motion.kernel(motion.line(7, 0.3)), 0.004)
    one, other = search(image, 11, 4e-3), search(300 * image + 40, 11, 4e-3)
    np.testing.assert_allclose(one[0], other[0], atol=0.01)


def test_can_be_ended():
    watch = Watch()

    def search_then_stop():
        watch.stop()
        return search(scene(64, 64), 9, 4e-3)

    with pytest.raises(Stopped):
        watch.run(search_then_stop)


def test_noise_hides_no_part_of_a_path():
    kernel = psf.combine(motion.kernel(PATHS["shake"]), psf.gaussian(0.4))
    sharp = scene(176, 176)
    start = np.pad(np.ones((1, 1), np.float32), 9)
    found = refined(blurred(sharp, kernel, 0.01), sharp, start)
    assert likeness(found, kernel) > 0.994
