"""Point spread functions from images of beads."""

from __future__ import annotations

import numpy as np
import pytest

from napari_restore.errors import PsfError
from napari_restore.physics.beads import psf_from_beads
from napari_restore.physics.lengths import full_widths


def beads(shape, places, sigma, photons=2000, ground=50, seed=0):
    """Gaussian beads between the pixels, Poisson noise."""
    light = np.full(shape, float(ground))
    grids = np.indices(shape)
    for place in places:
        distance = sum(((g - p) / s) ** 2 for g, p, s in zip(grids, place, sigma, strict=True))
        light += photons * np.exp(-0.5 * distance)
    return np.random.default_rng(seed).poisson(light).astype(np.uint16)


def grid(shape, apart, seed=0):
    """Places some way apart, each off the pixels by its own fraction."""
    rng = np.random.default_rng(seed)
    lines = [np.arange(gap, side - gap + 1, gap) for side, gap in zip(shape, apart, strict=True)]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(shape))
    return places + rng.uniform(-0.5, 0.5, places.shape)


CASES = {
    "plane": ((150, 170), (30, 30), (1.5, 2.0)),
    "volume": ((48, 90, 90), (24, 30, 30), (2.2, 1.3, 1.3)),
}


@pytest.mark.parametrize("case", CASES)
def test_beads_are_averaged_to_what_each_of_them_is(case):
    shape, apart, sigma = CASES[case]
    places = grid(shape, apart)
    found = psf_from_beads(beads(shape, places, sigma))
    assert found.array.dtype == np.float32
    assert found.array.sum() == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(found.array.argmax(), found.array.shape) == tuple(
        side // 2 for side in found.array.shape
    )
    np.testing.assert_allclose(full_widths(found.array), 2.355 * np.array(sigma), rtol=0.06)
    assert len(found.places) == len(places)
    assert found.notes[0].startswith(f"{len(places)} of {len(places)} beads were averaged")
    nearest = np.abs(found.places[:, None] - places).max(-1).min(1)
    assert nearest.max() < 0.25


def test_registration_brings_noise_down_and_widens_nothing():
    shape, apart, sigma = CASES["plane"]
    places, dim = grid(shape, apart), 150
    found = psf_from_beads(beads(shape, places, sigma, photons=dim))
    np.testing.assert_allclose(full_widths(found.array), 2.355 * np.array(sigma), rtol=0.1)


def test_what_is_no_single_whole_bead_is_left_out_and_counted():
    shape, apart, sigma = (200, 200), (40, 40), (1.5, 1.5)
    places = grid(shape, apart)
    image = beads(shape, [*places, places[0] + (6, 0), (100.0, 2.0)], sigma).astype(float)
    image[tuple(np.rint(places[5]).astype(int))] += 5e4
    found = psf_from_beads(image, clip=3e4)
    assert found.rejected == {"clipped": 1, "at the border": 1, "too close to another": 2}
    assert len(found.places) == len(places) - 2
    assert "left out: 1 clipped, 1 at the border, 2 too close to another" in found.notes[0]


def test_clumps_are_unlike_the_others():
    shape, apart, sigma = (200, 200), (40, 40), (1.5, 1.5)
    places = grid(shape, apart)
    found = psf_from_beads(beads(shape, [*places, places[0] + (2.0, 1.0)], sigma))
    assert found.rejected == {"unlike the others": 1}


def test_flat_tops_are_clipped_without_being_told():
    shape, apart, sigma = (160, 160), (40, 40), (2.0, 2.0)
    image = beads(shape, grid(shape, apart), sigma)
    with pytest.raises(PsfError, match="9 clipped"):
        psf_from_beads(np.minimum(image, 1000))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.random.default_rng(0).normal(100, 3, (64, 64)), "No bead was found"),
        (np.zeros((64, 64)), "No bead was found"),
        (np.full((64, 64), np.nan), "4096 samples that are NaN"),
        (np.zeros((4, 4, 4, 4)), r"\(4, 4, 4, 4\)"),
        (beads((20, 20), [(1, 1)], (1.5, 1.5)), "None of the 1 beads can be used: 1 at the border"),
    ],
)
def test_images_without_beads(image, said):
    with pytest.raises(PsfError, match=said):
        psf_from_beads(image)
