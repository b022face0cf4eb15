"""Volumes that are blurred with a known point spread function, and measured."""

from __future__ import annotations

import numpy as np
import pytest

from napari_restore import Optics
from napari_restore.errors import ImageError
from napari_restore.evaluation import volumes
from napari_restore.evaluation.volumes import SharpVolume, compare, evaluate_volumes, see_middle
from napari_restore.training import scenes

PSF = Optics(na=1.0, wavelength=0.52, pixel_size=0.1, z_step=0.4, modality="confocal").psf(
    dimensions=3
)


def sharp(number: int, *shape: int, psf: np.ndarray | None = PSF) -> SharpVolume:
    samples = scenes.nuclei(shape, np.random.default_rng(number), 3.0)  # type: ignore[arg-type]
    return SharpVolume(samples, f"{number}.tif", psf)


def test_methods_that_restore_volumes_gain() -> None:
    done: list[int] = []
    told = [sharp(0, 8, 40, 40), sharp(1, 14, 60, 60)]
    result = evaluate_volumes(told, photons=1000, size=40, device="cpu", progress=done.append)
    assert done == [1, 2]
    assert (result.kind, result.count, result.shape) == ("volume", 2, (14, 40, 40))
    rows = {row.method: row for row in result.rows}
    assert list(rows) == ["input", "Richardson–Lucy", "Wiener", "plane by plane", "invert-volume"]
    assert rows["input"].gain == 0
    for name in ("Richardson–Lucy", "invert-volume"):
        assert rows[name].gain > 2 and rows[name].improved == 1
        assert rows[name].psnr == pytest.approx(rows["input"].psnr + rows[name].gain)
        assert rows[name].ssim > rows["input"].ssim
        assert rows[name].light < 0.03


def test_microscopes_are_drawn_alike_for_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def nothing(image: np.ndarray, psf: np.ndarray, device: str) -> dict[str, np.ndarray]:
        told.append((image, psf))
        return {"nothing": image}

    monkeypatch.setattr(volumes, "restored", nothing)
    unknown = [sharp(0, 8, 40, 40, psf=None)] * 2
    for seed in (3, 3, 4):
        result = evaluate_volumes(unknown, seed=seed)
        assert result.rows[1].gain == 0
    images = [image for image, _ in told]
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(images[1], images[3])
    assert all(np.any(images[0] != images[other]) for other in (1, 4))
    assert all(psf.sum() == pytest.approx(1, abs=1e-3) for _, psf in told)


def test_what_lies_around_the_middle_sends_light_into_it() -> None:
    samples = np.zeros((40, 80, 80))
    # The middle has 32 planes: these are the fourth and the third above it.
    samples[0:2] = 1
    wide = np.zeros((9, 3, 3), np.float32)
    wide[0] = wide[4] = wide[8] = 1 / 27
    seen = see_middle(SharpVolume(samples, "a"), wide, 40, 1e9, np.random.default_rng(0))
    assert seen.blurred.shape == seen.sharp.shape == (32, 40, 40)
    assert seen.sharp.max() < 0.03
    assert seen.blurred[:2].mean() == pytest.approx(1 / 3 + 0.02, abs=0.01)
    assert seen.blurred[2:].max() < 0.03


def test_an_affine_change_costs_light_and_nothing_else() -> None:
    truth = sharp(2, 6, 30, 30).samples
    psnr, ssim, light = compare(2 * truth, truth)
    assert psnr > 100 and ssim == pytest.approx(1) and light == pytest.approx(1)
    assert compare(truth[:, ::-1], truth)[0] < 40


@pytest.mark.parametrize("shape", [(2, 40, 40), (8, 9, 40)])
def test_volumes_that_are_too_small_are_named(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ImageError, match=r"tiny\.tif.*too small.*3 planes or more"):
        evaluate_volumes([SharpVolume(np.ones(shape), "tiny.tif", PSF)])


def test_a_psf_is_cut_to_what_it_blurs(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(
        volumes, "restored", lambda image, psf, device: told.append(psf) or {"nothing": image}
    )
    wide = np.full((3, 61, 61), 1 / (3 * 61 * 61), np.float32)
    evaluate_volumes([sharp(0, 8, 70, 40, psf=wide)], size=32)
    assert [psf.shape for psf in told] == [(3, 31, 31)]
    assert told[0].sum() == pytest.approx(1)
