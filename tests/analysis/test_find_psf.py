"""The point spread function of an image, found or said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import blurred, scene, tools_saying

from napari_restore.analysis.find import find_psf, rich_windows
from napari_restore.physics import motion, psf


@pytest.mark.parametrize(
    ("family", "kernel"), [("disk", psf.disk(3)), ("gaussian", psf.gaussian(1.5))]
)
@pytest.mark.parametrize("told", [1.35, 1.55, 1.75])
def test_defocus(family, kernel, told):
    image = blurred(scene(160, 160), kernel, 0.002)
    finding = find_psf(image, tools_saying(told), free_form=False)
    assert finding.verdict == "found" and finding.psf.family == family
    assert psf.equivalent_sigma(finding.psf.array) == pytest.approx(1.5, rel=0.12)
    assert finding.noise == pytest.approx(0.002, rel=0.3)
    assert 0 < finding.psf.uncertainty < 0.15
    assert "Found: " in finding.statement and finding.check is not None


def test_motion():
    kernel = psf.combine(motion.kernel(motion.arc(13, 0.4, 1.5)), psf.gaussian(0.4))
    image = blurred(scene(160, 160), kernel, 0.002)
    finding = find_psf(image, tools_saying(1.0, unsure=0.8))
    assert finding.psf.family == "free"
    assert finding.psf.array.shape[0] in (15, 23, 31)


@pytest.mark.parametrize(
    ("sigma", "seen", "verdict"),
    [
        (0.3, (0.05, 0.0, 0.1), "sharp"),
        # Soft without being moved: something for the network, but no path is looked for.
        (1.1, (0.05, 0.0, 0.1), "plain"),
        # The estimator of defocus alone does not see motion along fine lines.
        (0.3, (9.0, 0.3, 0.1), "found"),
    ],
)
def test_no_path_is_looked_for_where_nothing_moved(sigma, seen, verdict):
    image = blurred(scene(160, 160), motion.kernel(motion.line(9, 0.3)), 0.002)
    tools = tools_saying(sigma, unsure=0.05, direction=lambda samples: seen)
    finding = find_psf(image, tools)
    assert finding.verdict == verdict
    assert (finding.psf is not None) is (verdict == "found")


def test_a_straight_line_that_is_surely_seen_is_found_as_one():
    image = blurred(scene(160, 160), motion.kernel(motion.line(11, 0.7)), 0.01)
    tools = tools_saying(1.0, unsure=0.8, direction=lambda samples: (11.0, 0.7, 0.12))
    finding = find_psf(image, tools)
    assert finding.psf.family == "line"
    assert finding.psf.parameters["length"] == pytest.approx(11, rel=0.1)
    assert "straight motion" in finding.statement


def test_sharp_images_are_left_alone():
    finding = find_psf(scene(160, 160), tools_saying(0.28, unsure=0.05))
    assert finding.verdict == "sharp" and finding.psf is None
    assert "no blur to undo" in finding.statement


def no_structure():
    rng = np.random.default_rng(0)
    yield "noise", rng.normal(0.5, 0.1, (128, 160)).astype(np.float32)
    yield "even", np.full((128, 128), 0.3, np.float32)
    yield "faint", 0.01 * scene(128, 128) + rng.normal(0, 0.1, (128, 128)).astype(np.float32)
    yield "tiny", scene(20, 300)
    yield "missing", np.full((64, 64), np.nan, np.float32)


@pytest.mark.parametrize(
    "image", [i for _, i in no_structure()], ids=[n for n, _ in no_structure()]
)
def test_without_structure_nothing_is_estimated(image):
    finding = find_psf(image, tools_saying(1.5))
    assert finding.verdict == "unknown" and finding.psf is None
    assert "too little structure" in finding.statement


def test_blur_that_differs_from_place_to_place():
    left, right = (blurred(scene(512, 512, 1), psf.disk(radius), 0.002) for radius in (2.0, 4.0))
    image = np.concatenate([left, right + 10], axis=1)

    def estimator(samples):
        return (2.0 if samples.mean() > 5 else 1.0), 0.05

    tools = tools_saying(1.0)._replace(estimator=estimator)
    finding = find_psf(image, tools, free_form=False)
    assert finding.verdict == "varies" and "not the same everywhere" in finding.statement
    sizes = {p.x: psf.equivalent_sigma(p.psf.array) for p in finding.parts}
    assert sizes[256.0] == pytest.approx(1, rel=0.2) and sizes[768.0] == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(
    ("told", "noise"), [(0.7, 0.002), (3.5, 0.002), (1.5, 0.15)], ids=["small", "large", "noise"]
)
def test_the_plain_network_restores_what_is_not_sure(told, noise):
    image = blurred(scene(160, 160), psf.gaussian(1.5), noise)
    finding = find_psf(image, tools_saying(told), free_form=False)
    assert finding.verdict == "plain" and finding.psf is None


def test_progress_and_cancel():
    shares = []
    image = blurred(scene(160, 160), psf.disk(3), 0.002)
    find_psf(image, tools_saying(1.5), free_form=False, progress=shares.append)
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1

    def cancel(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_psf(image, tools_saying(1.5), progress=cancel)


def test_large_images_are_read_in_a_bounded_number_of_windows():
    read = []

    class Lazy:
        shape = (100_000, 80_000)

        def __getitem__(self, key):
            read.append(key)
            return np.zeros((512, 512), np.float32)

    windows = rich_windows(Lazy())
    assert len(read) <= 16 and 1 <= len(windows) <= 3


def test_color():
    image = np.stack([blurred(scene(160, 160), psf.disk(3), 0.002)] * 3, -1).clip(0, 1)
    finding = find_psf(image, tools_saying(1.5), linear=True, free_form=False)
    assert finding.psf is None or finding.psf.array.ndim == 2
