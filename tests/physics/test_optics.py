"""Point spread functions from optics: published widths, light, symmetry; and what cannot be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pint
import pytest
from scipy import special

from napari_restore.errors import PsfError
from napari_restore.physics.diffraction import Lens
from napari_restore.physics.optics import Optics

DRY = {"na": 0.5, "wavelength": "520 nm", "pixel_size": "130 nm", "refractive_index": 1.0}
OIL = {"na": 1.4, "wavelength": 0.52, "pixel_size": 0.065, "refractive_index": 1.515}
MODALITIES = {
    "widefield": {},
    "confocal": {"excitation": "488 nm"},
    "spinning disk": {"pinhole": 1.5},
    "light sheet": {"sheet_thickness": "2 µm"},
    "two-photon": {"excitation": "920 nm"},
}


def width(line: np.ndarray, step: float) -> float:
    """Full width at half maximum of a line through a peak."""
    fine = np.linspace(0, len(line) - 1, 100 * len(line))
    return float((np.interp(fine, np.arange(len(line)), line) >= line.max() / 2).mean()) * (
        len(line) * step
    )


@pytest.mark.parametrize("told", [DRY, OIL], ids=["dry", "oil"])
def test_scalar_width_across_is_that_of_the_airy_disk(told):
    optics = Optics(**told | {"pixel_size": 0.01, "model": "scalar"})
    line = optics.psf(101)[50]
    assert optics.lateral_fwhm == pytest.approx(0.51 * 0.52 / told["na"])
    assert width(line, 0.01) == pytest.approx(optics.lateral_fwhm, rel=0.02)


@pytest.mark.parametrize("told", [DRY, OIL], ids=["dry", "oil"])
def test_scalar_depth_is_that_of_theory(told):
    optics = Optics(**told | {"model": "scalar"})
    step = optics.axial_fwhm / 20
    line = replace(optics, z_step=step).psf((101, 1, 1), 3)[:, 0, 0]
    # The published factor is 0.88; theory with all angles lies within a twelfth of it.
    assert width(line, step) == pytest.approx(optics.axial_fwhm, rel=0.08)


def test_encircled_energy_is_rayleighs():
    lens, radii = Lens(0.5, 1.0, 1.0), np.linspace(0, 4, 2001)
    profile = lens.intensity(0.52, radii, np.zeros(1))[0]
    inside = np.cumsum(profile * radii) * 2 * np.pi * (radii[1] - radii[0])
    v = 2 * np.pi * 0.5 / 0.52 * radii[200::300]
    expected = 1 - special.j0(v) ** 2 - special.j1(v) ** 2
    np.testing.assert_allclose(inside[200::300], expected, atol=4e-3)


@pytest.mark.parametrize("vectorial", [False, True])
@pytest.mark.parametrize("indices", [(1.515, 1.515, 0), (1.515, 1.33, 4), (1.33, 1.45, 4)])
def test_every_plane_holds_the_same_light(vectorial, indices):
    immersion, sample, depth = indices
    lens = Lens(1.2, immersion, sample, depth, vectorial)
    radii = np.arange(1500) * 0.02
    profiles = lens.intensity(0.6, radii, np.array([-1.0, 0, 2]))
    np.testing.assert_allclose((profiles @ radii) * 2 * np.pi * 0.02, 1, atol=0.03)


def test_vectors_widen_the_disk_of_a_steep_lens_and_not_that_of_a_flat_one():
    for told, least, most in ((DRY | {"na": 0.2}, 0.999, 1.02), (OIL, 1.05, 1.25)):
        vector, number = (
            width(Optics(**told | {"pixel_size": 0.02, "model": model}).psf(81)[40], 0.02)
            for model in ("vectorial", "scalar")
        )
        assert least <= vector / number <= most
    assert Optics(**OIL).vectorial
    assert not Optics(**DRY).vectorial


@pytest.mark.parametrize("modality", MODALITIES)
def test_psfs_are_even_distributions_about_their_middle(modality):
    optics = Optics(**OIL, z_step=0.2, modality=modality, **MODALITIES[modality])
    for psf in (optics.psf(), optics.psf(dimensions=3), optics.psf((7, 9, 13), 3)):
        assert psf.dtype == np.float32
        assert all(side % 2 for side in psf.shape)
        assert psf.min() >= 0
        assert psf.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert np.unravel_index(psf.argmax(), psf.shape) == tuple(s // 2 for s in psf.shape)
        for axis in range(psf.ndim):
            np.testing.assert_allclose(psf, np.flip(psf, axis), atol=1e-4 * psf.max())
    square = optics.psf(31)
    np.testing.assert_allclose(square, square.T, atol=1e-6)


def test_what_scans_sees_less_depth():
    def depth(modality):
        optics = Optics(**OIL, z_step=0.1, modality=modality, **MODALITIES[modality])
        return optics.psf((31, 97, 97), 3).sum((1, 2))[15]

    seen = {modality: depth(modality) for modality in MODALITIES}
    # All light of a plane reaches a camera, whatever its focus.
    assert seen["widefield"] == pytest.approx(1 / 31, rel=0.15)
    assert seen["widefield"] < seen["light sheet"] < seen["spinning disk"] < seen["confocal"]


def test_a_closed_pinhole_sees_the_product_and_an_open_one_the_excitation():
    told = OIL | {"modality": "confocal", "pixel_size": 0.03}
    wide = Optics(**OIL | {"pixel_size": 0.03}).psf(31).astype(float)
    closed, opened = (Optics(**told, pinhole=size).psf(31) for size in (0.02, 8))
    # Averages over pixels do not multiply; these pixels are small.
    np.testing.assert_allclose(closed / closed.max(), (wide / wide.max()) ** 2, atol=0.02)
    np.testing.assert_allclose(opened / opened.max(), wide / wide.max(), atol=0.02)


def test_nothing_is_aliased():
    # A large PSF cut to the middle is the small one, and coarse pixels are sums of fine ones.
    optics = Optics(**OIL, defocus=1.5)
    large, small = optics.psf(121), optics.psf(41)
    cut = large[40:-40, 40:-40]
    np.testing.assert_allclose(cut / cut.sum(), small, atol=1e-6)
    fine = replace(optics, pixel_size=0.065 / 3).psf(123)
    sums = fine.reshape(41, 3, 41, 3).sum((1, 3))
    np.testing.assert_allclose(sums, small, atol=2e-3 * small.max())


def test_pass_band_ends_where_the_lens_does():
    optics = Optics(**DRY)
    power = np.abs(np.fft.fft2(optics.psf(201)))
    f = np.fft.fftfreq(201, 0.13)
    beyond = np.hypot(f[:, None], f) > 1.05 * 2 * 0.5 / 0.52
    assert power[beyond].max() < 5e-3


def test_depth_in_another_medium_aberrates_and_moves_nothing():
    told = OIL | {"refractive_index": None, "ri_immersion": 1.515, "ri_sample": 1.33}
    shallow, deep = (Optics(**told, z_step=0.2, depth=d).psf((41, 61, 61), 3) for d in (0, 8))
    assert deep.max() < 0.5 * shallow.max()
    for psf in (shallow, deep):
        assert abs(int(psf[:, 30, 30].argmax()) - 20) <= 0
    # Rings on one side of the focus, and no longer on the other.
    peaks = deep.max(axis=(1, 2))
    assert abs(peaks[15] / peaks[25] - 1) > 0.3


def test_two_and_three_dimensions_agree():
    optics = Optics(**DRY, z_step="20 nm")
    volume = optics.psf((3, 31, 31), 3)
    np.testing.assert_allclose(volume[1] / volume[1].sum(), optics.psf(31), atol=1e-4)


@pytest.mark.parametrize(
    "length", [0.52, "520 nm", "0.52 µm", "0.52", "5200 angstrom", pint.Quantity(520, "nm")]
)
def test_lengths_have_units(length):
    assert Optics(**DRY | {"wavelength": length}).wavelength == pytest.approx(0.52)


def test_indices_are_told_together_or_apart():
    assert (Optics(**DRY).immersion, Optics(**DRY).sample) == (1, 1)
    apart = Optics(**OIL | {"ri_sample": 1.38})
    assert (apart.immersion, apart.sample) == (1.515, 1.38)
    guessed = Optics(**OIL | {"refractive_index": None})
    assert guessed.immersion == 1.515
    assert any("1.515 is assumed" in note for note in guessed.notes)
    assert Optics(**OIL).notes == ()


def test_sampling_coarser_than_nyquist_is_said():
    optics = Optics(**OIL | {"pixel_size": 0.2, "z_step": 0.4})
    assert sum("Nyquist" in note for note in optics.notes) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"na": None}, "numerical aperture is missing"),
        ({"na": 1.6}, "1.6, but cannot reach.*1.515"),
        ({"na": -0.5}, "aperture is -0.5"),
        ({"na": "wide"}, "aperture is 'wide'"),
        ({"wavelength": None}, "wavelength is missing.*'520 nm'"),
        ({"wavelength": "0.52 nm"}, "wavelength is 0.52 nm, outside 200 nm to 2 µm"),
        ({"wavelength": 520}, "wavelength is 520 µm .*plain numbers are µm"),
        ({"wavelength": "520 mn"}, "'520 mn'"),
        ({"wavelength": "green"}, "'green', which is not a length"),
        ({"wavelength": "3 s"}, "not a length"),
        ({"wavelength": math.nan}, "nan"),
        ({"pixel_size": None}, "pixel size is missing"),
        ({"pixel_size": 0}, "pixel size is 0 µm"),
        ({"pixel_size": 65}, "pixel size is 65 µm, but the Airy disk"),
        ({"pixel_size": "0.65 nm"}, "Check the unit"),
        ({"z_step": 0}, "z step is 0 µm"),
        ({"refractive_index": 0.9}, "refractive index is 0.9"),
        ({"depth": -1}, "depth is -1 µm"),
        ({"modality": "magic"}, "modality 'magic'.*widefield"),
        ({"modality": "light sheet"}, "sheet thickness is missing"),
        ({"modality": "two-photon"}, "excitation wavelength is missing"),
        ({"model": "exact"}, "model 'exact'"),
    ],
)
def test_what_cannot_be_is_said_with_the_remedy(change, said):
    with pytest.raises(PsfError, match=said):
        Optics(**OIL | change)


@pytest.mark.parametrize(
    ("change", "shape", "dimensions", "said"),
    [
        ({}, None, 3, "z step is missing"),
        ({"z_step": 3}, None, 3, "z step is 3 µm.*plane by plane"),
        ({}, 8, 2, "odd"),
        ({}, (3, 9, 9), 2, "2 odd numbers"),
        ({}, None, 4, "2 or 3 dimensions, not 4"),
    ],
)
def test_psfs_that_cannot_be(change, shape, dimensions, said):
    with pytest.raises(PsfError, match=said):
        Optics(**OIL | change).psf(shape, dimensions)


@pytest.mark.parametrize("modality", ["widefield", "confocal"])
@pytest.mark.parametrize("model", ["scalar", "vectorial"])
@pytest.mark.parametrize("na, immersion, sample, depth", [(0.8, 1, 1, 0), (1.3, 1.515, 1.45, 8)])
def test_agrees_with_psfmodels(na, immersion, sample, depth, model, modality):
    reference = pytest.importorskip("psfmodels")
    indices = {"ri_immersion": immersion, "ri_sample": sample}
    lens = Lens(na, immersion, sample, depth, model == "vectorial")
    planes = depth + lens.best_focus(0.52) + np.arange(-2, 3) * 0.5
    # The reference has a pinhole of whole pixels, and averages over it as far as its frame goes.
    size, side = (0.06, 61) if modality == "widefield" else (0.025, 161)
    told = {"NA": na, "ni": immersion, "ni0": immersion, "ns": sample, "pz": depth, "dxy": size}
    shared = {"nx": side, "model": model, "normalize": False, "oversample_factor": 5}
    if modality == "confocal":
        expected = reference.confocal_psf(planes, ex_wvl=0.49, em_wvl=0.52, **told, **shared)
    else:
        expected = reference.make_psf(planes, wvl=0.52, **told, **shared)
    stack = [
        Optics(
            **indices,
            na=na,
            wavelength=0.52,
            pixel_size=size,
            depth=depth,
            model=model,
            modality=modality,
            excitation=0.49,
            defocus=plane,
        ).psf(61)
        for plane in np.arange(-2, 3) * 0.5
    ]
    # Pixels of the reference's pinhole show most where aberrations leave fine rings.
    most = 0.02 if modality == "confocal" and depth else 0.01
    # Planes are compared one by one, as each has sum 1.
    middle = slice((side - 61) // 2, (side + 61) // 2)
    for mine, other in zip(stack, expected[:, middle, middle], strict=True):
        np.testing.assert_allclose(mine, other / other.sum(), atol=most * mine.max())
