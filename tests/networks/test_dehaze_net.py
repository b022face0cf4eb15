"""The dehazing network: what its coefficients are, and how tiles use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_restore.networks.dehaze_net import DehazeNet, guided_lines, place

if TYPE_CHECKING:
    from collections.abc import Callable

    Scramble = Callable[[torch.nn.Module], torch.nn.Module]

SMALL = {
    "widths": (4, 8),
    "encoder_blocks": (1,),
    "middle_blocks": 1,
    "decoder_blocks": (1,),
    "view": 64,
}
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (33, 50)], ids=str)
def test_coefficients_are_a_quarter_as_large_as_the_view(
    size: tuple[int, int], scramble: Scramble
) -> None:
    network = scramble(DehazeNet(3, **SMALL))
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        field = network.coefficients(image)
        assert field.shape == (2, 9, -(-size[0] // 4), -(-size[1] // 4))
        airlight = field[:, 6:]
        assert 0 <= float(airlight.min()) <= float(airlight.max()) <= 1
        result = network(image)
        assert result.shape == image.shape
        assert bool(torch.isfinite(result).all())
        assert size == (1, 1) or not torch.equal(result, image)
        again = network.apply_context(image, field, WHOLE.expand(2, 4))
        torch.testing.assert_close(again, result)


def veiled(thickness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A scene with something black everywhere, and the same in haze with a bright, hazy end."""
    sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    t = torch.full((64,), float(np.exp(-thickness)))
    t[-8:] = 0.02 if thickness else 1
    return sharp, sharp * t + 0.85 * (1 - t)


def test_untrained_it_is_the_dark_channel_prior() -> None:
    network = DehazeNet(3, **SMALL).eval()
    with torch.inference_mode():
        for thickness in (0.5, 1.0, 1.5):
            sharp, hazy = veiled(thickness)
            before, after = ((x - sharp)[..., :48].abs().mean() for x in (hazy, network(hazy)))
            assert after < 0.5 * before


def test_clear_air_and_thin_haze_are_left_alone() -> None:
    network = DehazeNet(3, **SMALL).eval()
    with torch.inference_mode():
        sharp, _ = veiled(0)
        torch.testing.assert_close(network(sharp), sharp, atol=5e-3, rtol=0)
        shares = []
        for much in (0.01, 0.2):
            hazy = (1 - much) * sharp + much
            taken, there = (float((x - hazy).abs().mean()) for x in (network(hazy), sharp))
            shares.append(taken / there)
        # The thinner the haze, the less of it is taken away.
        assert shares[0] < 0.8 * shares[1]


def test_every_parameter_takes_part(scramble: Scramble) -> None:
    network = scramble(DehazeNet(3, **SMALL))
    network(torch.rand(1, 3, 32, 32)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_coefficients_invert_the_haze_they_stand_for() -> None:
    sharp, t = torch.rand(1, 3, 24, 36), 0.4
    air = torch.tensor([0.8, 0.85, 0.9]).view(1, 3, 1, 1)
    hazy = sharp * t + air * (1 - t)
    network = DehazeNet(3, **SMALL)
    log_gain = torch.full((1, 3, 5, 7), -np.log(t))
    field = torch.cat([torch.zeros(1, 3, 5, 7), log_gain, air.expand(1, 3, 5, 7)], 1)
    torch.testing.assert_close(network.apply_context(hazy, field, WHOLE), sharp, atol=1e-5, rtol=0)
    transmission = network.transmission(hazy, field, WHOLE)
    torch.testing.assert_close(transmission, torch.full((1, 1, 24, 36), t), atol=1e-5, rtol=0)


def test_tiles_agree_with_the_whole(scramble: Scramble) -> None:
    network = scramble(DehazeNet(3, **SMALL))
    image = torch.rand(1, 3, 40, 60)
    with torch.inference_mode():
        field = network.coefficients(image)
        whole = network.apply_context(image, field, WHOLE)
        box = torch.tensor([[10 / 40, 20 / 60, 30 / 40, 50 / 60]])
        tile = network.apply_context(image[..., 10:30, 20:50], field, box)
    torch.testing.assert_close(tile, whole[..., 10:30, 20:50], atol=1e-5, rtol=0)


def test_images_of_one_scene_share_the_airlight(scramble: Scramble) -> None:
    network = scramble(DehazeNet(3, **SMALL))
    with torch.inference_mode():
        fields = [network.coefficients(torch.rand(1, 3, 32, 40)) for _ in range(3)]
        common = network.common(fields)
        airlight = common[:, :3]
        for field in fields:
            torch.testing.assert_close(network.with_common(field, common)[:, 6:], airlight)
        stack = torch.stack([field[:, 6:] for field in fields])
        assert bool((stack.amin(0) - 1e-6 <= airlight).all())
        assert bool((airlight <= stack.amax(0) + 1e-6).all())
        # A clear image does not know the air.
        clear, hazy = fields[0].clone(), fields[1].clone()
        clear[:, :6], clear[:, 6:] = 0, 0.1
        hazy[:, :6] = 0.5
        mean = network.common([clear, hazy])[:, :3]
        torch.testing.assert_close(mean, hazy[:, 6:], atol=0.01, rtol=0)


def test_images_of_one_scene_do_not_flicker() -> None:
    network = DehazeNet(3, **SMALL)

    def field(thickness: float) -> torch.Tensor:
        lines = torch.full((1, 6, 4, 4), 0.0)
        lines[:, 3:] = thickness * torch.linspace(0.5, 1.5, 4)
        return torch.cat([lines, torch.full((1, 3, 4, 4), 0.8)], 1)

    def thickness(found: torch.Tensor) -> float:
        return float(network._thickness(found))

    # What differs as little as the network errs is the same haze.
    near = network.common([field(x) for x in (0.5, 0.6, 0.4)])
    assert thickness(network.with_common(field(0.6), near)) == pytest.approx(0.5, abs=1e-4)
    # Smoke that comes and goes is no error.
    far = network.common([field(x) for x in (0.1, 1.0, 2.0)])
    assert thickness(network.with_common(field(2.0), far)) == pytest.approx(2.0, abs=0.1)
    # Where there is no haze, none is made; one image alone is as it is.
    assert thickness(network.with_common(field(0.0), near)) == 0
    alone = network.common([field(0.7)])
    torch.testing.assert_close(network.with_common(field(0.7), alone), field(0.7))


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 1.5)], ids=str)
def test_coefficients_are_interpolated_between_the_centers_of_their_cells(
    box: tuple[float, float, float, float],
) -> None:
    rows, columns = torch.rand(3), torch.rand(5)
    field = (rows[:, None] * columns)[None, None]
    out = place(field, (1, 3, 24, 35), torch.tensor([box]))[0, 0]

    def along(values: torch.Tensor, start: float, stop: float, count: int) -> torch.Tensor:
        places = start + (stop - start) * (np.arange(count) + 0.5) / count
        centers = (np.arange(len(values)) + 0.5) / len(values)
        return torch.from_numpy(np.interp(places, centers, values.numpy())).float()

    expected = along(rows, box[0], box[2], 24)[:, None] * along(columns, box[1], box[3], 35)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_guided_lines_smooth_noise_and_keep_steps_of_the_guide() -> None:
    guide = torch.zeros(1, 1, 60, 60)
    guide[..., 30:] = 0.6
    noise = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(0))
    slope, intercept = guided_lines(guide + 1 + 0.1 * noise, guide, 12, 1e-3)
    result = slope * guide + intercept
    assert float((result - guide - 1).abs().max()) < 0.08
    step = (result[..., 30] - result[..., 29]).mean()
    assert 0.55 < float(step) < 0.65
    slope, intercept = guided_lines(torch.full((1, 3, 9, 7), 2.5), guide[..., :9, 26:33], 12, 1e-3)
    assert torch.allclose(slope, torch.zeros(()), atol=1e-4)
    assert torch.allclose(intercept, torch.full((), 2.5), atol=1e-4)


def test_even_planes_show_no_haze_and_no_air() -> None:
    network = DehazeNet(3, **SMALL).eval()
    _, hazy = veiled(1.0)
    even = torch.full((1, 3, 64, 64), 0.8)
    with torch.inference_mode():
        found = {}
        for name, view in (("hazy", hazy), ("even", even), ("noisy", even + 1e-3 * hazy)):
            found[name] = network.restrained(network.coefficients(view), view)
        for name in ("even", "noisy"):
            assert torch.equal(network.apply_context(hazy, found[name], WHOLE), hazy)
        assert not torch.equal(network.apply_context(hazy, found["hazy"], WHOLE), hazy)
        agreed = network.common([found["even"], found["hazy"]])
        torch.testing.assert_close(agreed[:, :3], found["hazy"][:, 6:])
        assert bool(torch.isfinite(network.common([found["even"]])).all())
