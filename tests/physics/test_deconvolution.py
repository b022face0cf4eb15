"""Classical deconvolution and Wiener filters in two and three dimensions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, signal

from napari_restore import Optics
from napari_restore.errors import PsfError
from napari_restore.physics import deconvolution
from napari_restore.physics.deconvolution import RichardsonLucy, Wiener
from napari_restore.physics.in_blocks import (
    blocks,
    deconvolve,
    deconvolved_blocks,
    with_margin,
)
from napari_restore.physics.inverse import WienerBank
from napari_restore.physics.psf import fast_length
from napari_restore.training import scenes


def kernel(*sigmas):
    """Gaussian of sum 1, three standard deviations to each side."""
    lines = [np.exp(-0.5 * (np.arange(-round(3 * s), round(3 * s) + 1) / s) ** 2) for s in sigmas]
    psf = np.array(1.0)
    for line in lines:
        psf = psf[..., None] * line
    return (psf / psf.sum()).astype(np.float32)


def scene(*shape, seed=0, count=30):
    """Bright boxes and points on a dark ground."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    for _ in range(count):
        place = [int(rng.integers(0, side)) for side in shape]
        image[tuple(slice(p, p + int(rng.integers(1, 6))) for p in place)] += rng.uniform(0.3, 1)
    return image


def error(result, sharp):
    return float(np.sqrt(np.mean((result - sharp) ** 2)))


SIZES = {"plane": ((60, 70), (1.5, 2)), "volume": ((14, 36, 40), (1.5, 1.2, 1.2))}
METHODS = [RichardsonLucy(10), RichardsonLucy(30, accelerated=False), Wiener(0.005)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_what_was_blurred_comes_nearer(method, size):
    shape, sigmas = SIZES[size]
    psf, sharp = kernel(*sigmas), scene(*shape)
    blurred = signal.fftconvolve(sharp, psf, mode="same")
    result = deconvolve(blurred, psf, method)
    assert result.dtype == np.float32
    assert error(result, sharp) < 0.8 * error(blurred, sharp)


@pytest.mark.parametrize("size", SIZES)
def test_acceleration_does_the_work_of_several_steps(size):
    shape, sigmas = SIZES[size]
    psf, sharp = kernel(*sigmas), scene(*shape)
    blurred = signal.fftconvolve(sharp, psf, mode="same")
    fast = deconvolve(blurred, psf, RichardsonLucy(10))
    slow = deconvolve(blurred, psf, RichardsonLucy(25, accelerated=False))
    assert error(fast, sharp) < error(slow, sharp)


def test_total_variation_calms_noise():
    rng, (shape, sigmas) = np.random.default_rng(1), SIZES["volume"]
    psf, sharp = kernel(*sigmas), ndimage.gaussian_filter(scene(*shape), 0.7)
    noisy = rng.poisson(30 * signal.fftconvolve(sharp, psf, "same").clip(0)) / 30
    rough, even = (deconvolve(noisy, psf, RichardsonLucy(20, tv)) for tv in (0, 0.005))
    assert error(even, sharp) < 0.95 * error(rough, sharp)


@pytest.mark.parametrize("photons", [1000, None])
def test_light_is_kept_though_noise_goes_below_the_background(photons):
    rng, sharp, psf = np.random.default_rng(0), np.zeros((20, 40, 40)), kernel(1.5, 1.5, 1.5)
    sharp[7:12, 12:26, 12:26] = scene(5, 14, 14)
    light = signal.fftconvolve(sharp, psf, "same").clip(0) * (photons or 1)
    seen = rng.poisson(light + 5) - 5.0 if photons else light
    result = deconvolve(seen + 105, psf, RichardsonLucy(10), background=105) - 105
    assert result.sum() == pytest.approx(seen.sum(), rel=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(40, 44), (3, 24, 24), (2, 20, 20), (1, 20, 20)])
def test_even_light_stays_even_to_the_border(method, shape):
    flat, psf = np.full(shape, 7.0), kernel(*(2.0,) * len(shape))
    np.testing.assert_allclose(deconvolve(flat, psf, method), flat, rtol=2e-3)


def test_nothing_wraps_around_from_bottom_to_top():
    sharp, psf = np.zeros((8, 24, 24)), kernel(2, 1, 1)
    sharp[7, 12, 12] = 1
    result = deconvolve(signal.fftconvolve(sharp, psf, "same").clip(0), psf)
    assert result[:3].max() < 1e-3 * result.max()


def test_light_from_outside_the_stack_is_not_piled_up_at_its_border():
    full, psf = scene(40, 30, 30, count=60), kernel(2.5, 1, 1)
    blurred = signal.fftconvolve(full, psf, "same").clip(0)
    result = deconvolve(blurred[12:28], psf)
    assert error(result[0], full[12]) < error(blurred[12], full[12])


def test_noise_draws_less_light_across_the_border(monkeypatch):
    """Few photons of dim threads in a thin wide-field stack: where most was drawn in."""
    psf = Optics(na=1.2, wavelength=0.52, pixel_size=0.13, z_step=0.3, refractive_index=1.33).psf(
        dimensions=3
    )
    shape, gained = (12, 48, 48), []
    for seed in range(2):
        whole = scenes.filaments(scenes.around(shape, psf.shape), np.random.default_rng(seed), 2.3)
        seen = scenes.see(whole, psf, shape, 100, np.random.default_rng(5))
        row = []
        for unseen in (deconvolution.UNSEEN, 1e-6):
            with monkeypatch.context() as patch:
                patch.setattr(deconvolution, "UNSEEN", unseen)
                row.append(deconvolve(seen.blurred, psf).sum() / seen.sharp.sum() - 1)
        gained.append(row)
    light, drawn = np.mean(gained, axis=0)
    assert 0 < light < 0.8 * drawn


@pytest.mark.parametrize("method", METHODS)
def test_intensities_are_carried(method):
    psf, image = kernel(1.5, 1.5), scene(40, 40) + 0.1
    plain, moved = (
        deconvolve(image, psf, method),
        deconvolve(900 * image + 50, psf, method, background=50),
    )
    np.testing.assert_allclose(moved, 900 * plain + 50, rtol=2e-3, atol=0.5)


@pytest.mark.parametrize("method", [RichardsonLucy(8), RichardsonLucy(8, 0.002), Wiener()])
def test_blocks_are_parts_of_the_whole(method):
    psf, image = kernel(1.2, 1.2, 1.2), scene(24, 70, 64, count=120)
    blurred = signal.fftconvolve(image, psf, "same").clip(0)
    done = list(deconvolved_blocks(blurred, psf, method, voxels=30_000))
    assert len(done) > 3
    joined = np.full(image.shape, np.nan)
    for place, block in done:
        assert np.isnan(joined[place]).all()
        joined[place] = block
    finer = deconvolve(blurred, psf, method, voxels=60_000)
    assert error(joined, finer) < 0.03 * np.ptp(finer)
    assert error(joined, image) < error(blurred, image)


@pytest.mark.parametrize("shape", [(5, 300, 300), (900, 7), (64, 64, 64)])
def test_blocks_cover_the_image_within_their_bound(shape):
    margins = (4,) * len(shape)
    counts = np.zeros(shape, int)
    for place in blocks(shape, margins, 20_000):
        read = [min(n, p.stop + 4) - max(0, p.start - 4) for p, n in zip(place, shape, strict=True)]
        assert np.prod(read) <= 20_000
        counts[place] += 1
    assert (counts == 1).all()


@pytest.mark.parametrize("margins", [(4, 6, 6), (8, 20, 20)])
def test_blocks_of_a_place_are_bounded_wherever_it_lies(margins):
    shape, voxels = (90, 320, 320), 200_000
    for place in product(*([slice(0, s), slice(s, 2 * s)] for s in (30, 100, 100))):
        counts = np.zeros(shape, int)
        for part in blocks(shape, margins, voxels, place):
            window, _ = with_margin(part, margins, shape)
            assert np.prod([p.stop - p.start for p in window]) <= voxels
            counts[part] += 1
        assert (counts[place] == 1).all()
        assert counts.sum() == 30 * 100 * 100


def test_blocks_of_the_least_work_are_chosen():
    shape, margins, voxels = (128, 707, 707), (20, 60, 60), 2**24
    windows = [with_margin(place, margins, shape)[0] for place in blocks(shape, margins, voxels)]
    work = sum(math.prod(p.stop - p.start for p in window) for window in windows)
    # Cut along Z as well, it would be twice as much.
    assert work < 1.9 * math.prod(shape)


def test_psfs_that_do_not_fit_the_axes_are_refused():
    for psf in (kernel(1, 1), np.full((3, 4, 3), 1 / 36)):
        with pytest.raises(PsfError, match="as many axes"):
            deconvolve(np.ones((8, 8, 8)), psf)


def planar_bank(y, psf, noise, strengths, x):
    """Write the filters out for planes alone, with transforms of two dimensions."""
    height, width = y.shape[-2:]
    half = psf.shape[-1] // 2
    my = mx = half
    size = [fast_length(n + 2 * half) for n in (height, width)]
    frame = psf.new_zeros(len(psf), *size)
    frame[:, : psf.shape[-2], : psf.shape[-1]] = psf
    transfer = torch.fft.rfft2(frame.roll((-half, -half), (-2, -1)))[:, None]
    fy, fx = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    gradient = 4 * (torch.sin(torch.pi * fy) ** 2 + torch.sin(torch.pi * fx) ** 2)
    inside = (..., slice(my, my + height), slice(mx, mx + width))

    def padded(image):
        return F.pad(image, (mx, mx, my, my), mode="reflect")

    seen = torch.fft.irfft2(torch.fft.rfft2(padded(x), s=size) * transfer, s=size)
    rest = padded(y - seen[inside])
    fades = []
    for length, margin in zip(rest.shape[-2:], (my, mx), strict=True):
        place = torch.arange(length, dtype=rest.dtype)
        fades.append(((torch.minimum(place, length - 1 - place) + 1) / (margin + 1)).clamp(max=1))
    rest = rest * (fades[0][:, None] * fades[1][None])
    spectrum = torch.fft.rfft2(rest, s=size) * transfer.conj()
    power = transfer.real**2 + transfer.imag**2
    gains = [1 / (power + s * noise.clamp(min=1e-3) ** 2 * gradient + 1e-8) for s in strengths]
    return [x + torch.fft.irfft2(spectrum * gain, s=size)[inside] for gain in gains]


@pytest.mark.parametrize(("shape", "side"), [((2, 1, 40, 50), 9), ((1, 3, 33, 64), 31)])
def test_bank_is_bit_for_bit_that_of_planes(shape, side):
    random = torch.Generator().manual_seed(0)
    y, x = (torch.rand(shape, generator=random) for _ in range(2))
    psf = torch.rand(shape[0], side, side, generator=random)
    psf /= psf.sum((1, 2), keepdim=True)
    noise = torch.rand(shape[0], 1, 1, 1, generator=random) * 0.05
    expected = planar_bank(y, psf, noise, (6, 100), x)
    for mine, other in zip(WienerBank(y, psf, noise)(x, (6, 100)), expected, strict=True):
        assert torch.equal(mine, other)


def test_bank_of_a_flat_volume_is_that_of_its_plane():
    y = torch.rand(1, 1, 30, 32, generator=torch.Generator().manual_seed(0))
    psf, noise = torch.from_numpy(kernel(1.5, 1.5))[None], torch.tensor([0.01])
    (plane,) = WienerBank(y, psf, noise)(y, (25,))
    (volume,) = WienerBank(y[:, :, None], psf[:, None], noise)(y[:, :, None], (25,))
    torch.testing.assert_close(volume[:, :, 0], plane, atol=1e-5, rtol=1e-4)
