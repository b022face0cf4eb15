"""Tone curve, noise, rounding, JPEG; scattering in air and light from out of focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from napari_restore.physics import camera, haze

if TYPE_CHECKING:
    from collections.abc import Callable


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- camera


def test_the_tone_curve_goes_there_and_back() -> None:
    values = torch.linspace(0, 1, 4001)
    torch.testing.assert_close(camera.to_srgb(camera.to_linear(values)), values, atol=2e-6, rtol=0)
    torch.testing.assert_close(camera.to_linear(camera.to_srgb(values)), values, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("srgb", "linear"), [(0.0, 0.0), (0.04045, 0.0031308), (0.5, 0.21404), (1.0, 1.0)]
)
def test_the_tone_curve_is_srgb(srgb: float, linear: float) -> None:
    assert float(camera.to_linear(torch.tensor(srgb))) == pytest.approx(linear, abs=1e-5)
    assert float(camera.to_srgb(torch.tensor(linear))) == pytest.approx(srgb, abs=1e-5)
    assert float(camera.to_srgb(torch.tensor(1.7))) == pytest.approx(1)
    assert float(camera.to_linear(torch.tensor(-0.3))) == 0


@pytest.mark.parametrize("photons", [4.0, 30.0, 99.0, 101.0, 5000.0])
@pytest.mark.parametrize("light", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("read", [0.0, 0.03])
def test_noise_has_the_mean_and_variance_of_photons(
    photons: float, light: float, read: float
) -> None:
    count = 200_000
    noisy = camera.add_noise(torch.full((count,), light), photons, read, generator())
    variance = light / photons + read**2
    assert float(noisy.mean()) == pytest.approx(light, abs=5 * (variance / count) ** 0.5)
    # The variance of a sample variance: a Poisson law of few photons has heavy tails.
    spread = variance * (2 / count + 1 / (count * max(light * photons, 1e-3))) ** 0.5
    assert float(noisy.var()) == pytest.approx(variance, abs=5 * spread)


def test_few_photons_are_counted_one_by_one() -> None:
    noisy = camera.add_noise(torch.full((10_000,), 0.5), 8.0, 0.0, generator()) * 8
    torch.testing.assert_close(noisy, noisy.round(), atol=1e-5, rtol=0)
    assert float((noisy == 0).float().mean()) == pytest.approx(np.exp(-4), abs=0.006)


def test_noise_is_drawn_for_each_image_of_a_batch_and_repeats_with_its_seed() -> None:
    light = torch.full((2, 1, 80, 80), 0.5)
    photons = torch.tensor([50.0, 5000.0]).view(2, 1, 1, 1)
    first = camera.add_noise(light, photons, 0.0, generator(3))
    assert float(first[0].var()) == pytest.approx(0.01, rel=0.1)
    assert float(first[1].var()) == pytest.approx(1e-4, rel=0.1)
    assert torch.equal(first, camera.add_noise(light, photons, 0.0, generator(3)))
    assert not torch.equal(first, camera.add_noise(light, photons, 0.0, generator(4)))


def test_rounding_takes_the_levels_of_a_detector() -> None:
    values = camera.quantize(torch.linspace(-0.2, 1.2, 2000))
    torch.testing.assert_close(values.unique(), torch.arange(256) / 255)
    assert len(camera.quantize(torch.linspace(0, 1, 2000), 15).unique()) == 16


def test_jpeg_is_that_of_a_file_and_worse_at_lower_quality() -> None:
    image = torch.from_numpy(data.astronaut()[:96, :128].copy()).permute(2, 0, 1) / 255
    errors = []
    for quality in (95, 60, 20):
        decoded = camera.jpeg(image, quality)
        assert decoded.shape == image.shape
        assert decoded.dtype == torch.float32
        assert 0 <= decoded.min() <= decoded.max() <= 1
        errors.append(float((decoded - image).square().mean()))
    assert 0 < errors[0] < errors[1] < errors[2] < 0.01


# ---------------------------------------------------------------- haze


def test_haze_is_light_lost_and_light_gained() -> None:
    image, airlight = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 1, 1)
    t = torch.rand(2, 1, 8, 8)
    hazy = haze.add_haze(image, t, airlight)
    torch.testing.assert_close(hazy, image * t + airlight * (1 - t))
    torch.testing.assert_close(haze.add_haze(image, torch.ones(1), airlight), image)
    torch.testing.assert_close(
        haze.add_haze(image, torch.zeros(1), airlight), airlight.expand_as(image)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: haze.smooth_field(rng, 90, 120),
        lambda rng: haze.smooth_field(rng, 90, 120, 2, 1),
        lambda rng: haze.ramp(rng, 90, 120),
    ],
    ids=["field", "coarse field", "ramp"],
)
def test_fields_are_smooth_and_fill_the_unit_range(
    make: Callable[[np.random.Generator], torch.Tensor],
) -> None:
    for seed in range(4):
        field = make(np.random.default_rng(seed))
        assert field.shape == (90, 120)
        assert float(field.min()) == pytest.approx(0, abs=1e-6)
        assert float(field.max()) == pytest.approx(1, abs=1e-6)
        steps = max(float(field.diff(dim=axis).abs().max()) for axis in (0, 1))
        assert steps < 0.15
        assert torch.equal(field, make(np.random.default_rng(seed)))
    assert not torch.equal(make(np.random.default_rng(0)), make(np.random.default_rng(1)))


@pytest.mark.parametrize("sigmas", [[1.0], [6.0], [25.0], [5.0, 40.0]], ids=str)
def test_out_of_focus_light_keeps_the_mean(sigmas: list[float], rng: np.random.Generator) -> None:
    light = torch.from_numpy(rng.random((2, 1, 150, 170)).astype(np.float32))
    light[1] *= 3
    blurred = haze.out_of_focus(light, sigmas)
    assert blurred.shape == light.shape
    torch.testing.assert_close(blurred.mean((1, 2, 3)), light.mean((1, 2, 3)), atol=0, rtol=0.01)
    flat = torch.full((1, 1, 150, 170), 0.4)
    torch.testing.assert_close(haze.out_of_focus(flat, sigmas), flat, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [3.0, 8.0, 20.0])
def test_out_of_focus_light_is_blurred_as_much_as_asked(
    sigma: float, rng: np.random.Generator
) -> None:
    spots = ndimage.gaussian_filter((rng.random((144, 192)) > 0.999).astype(np.float32), 2)
    expected = ndimage.gaussian_filter(spots, sigma, mode="mirror")
    result = haze.out_of_focus(torch.from_numpy(spots)[None, None], [sigma])[0, 0].numpy()
    inner = np.s_[20:-20, 20:-20]
    assert abs(result - expected)[inner].max() < 0.12 * expected.max()
    assert np.corrcoef(result[inner].ravel(), expected[inner].ravel())[0, 1] > 0.99


def test_several_planes_are_averaged(rng: np.random.Generator) -> None:
    light = torch.from_numpy(rng.random((1, 1, 64, 64)).astype(np.float32))
    both = haze.out_of_focus(light, [4.0, 12.0])
    apart = (haze.out_of_focus(light, [4.0]) + haze.out_of_focus(light, [12.0])) / 2
    torch.testing.assert_close(both, apart)


def test_patches_have_their_edges_where_the_image_has_them() -> None:
    image = torch.zeros(3, 60, 80)
    image[:, :, 40:] = 1
    edges = []
    for seed in range(6):
        depth = haze.patches(np.random.default_rng(seed), image, 12, 0.1)
        assert depth.shape == (60, 80)
        assert 0 <= float(depth.min()) <= float(depth.max()) <= 1
        steps = depth.diff(dim=1).abs() > 1e-3
        edges.append(float(steps[:, 39].float().mean()))
        # Elsewhere an edge is an exception.
        assert float(steps.float().mean()) < 0.2
    assert np.mean(edges) > 0.8
