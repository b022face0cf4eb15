"""Tests of `napari_restore.networks.inverter`."""

import pytest
import torch

from napari_restore.networks.inverter import Inverter
from napari_restore.physics import motion, psf

SMALL = {"widths": (8, 8), "encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
KERNEL = psf.stack([motion.kernel(motion.line(13, 0.4))])
INSIDE = (..., slice(16, -16), slice(16, -16))


def scene(channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, channels, 6, 6, generator=generator)
    return small.repeat_interleave(16, 2).repeat_interleave(16, 3)


def inverter(channels: int = 1, weight: int | None = None, **options) -> Inverter:
    """An untrained network, whose estimate is the blurred image, that believes in one step."""
    torch.manual_seed(0)
    network = Inverter(channels, **SMALL, **options)
    if weight is not None:
        # Each of the channels that come out has four places in the bias.
        first = 4 * (channels + weight)
        with torch.no_grad():
            network.network.ending.bias[first : first + 4] = 40
    return network.eval()


def error(image: torch.Tensor, sharp: torch.Tensor) -> float:
    return float((image - sharp)[INSIDE].square().mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_steps_undo_a_blur_whatever_the_network(channels):
    sharp = scene(channels)
    blurred = psf.convolve(sharp, KERNEL)
    noise = torch.zeros(1, 1, 1, 1)
    with torch.inference_mode():
        for weight in (1, 2, 3):
            restored = inverter(channels, weight)(blurred, KERNEL, noise)
            assert error(restored, sharp) < 0.5 * error(blurred, sharp)
            rest = (psf.convolve(restored, KERNEL) - blurred)[INSIDE]
            assert float(rest.abs().mean()) < 0.01


def test_the_network_can_leave_the_steps_out():
    blurred = psf.convolve(scene(), KERNEL)
    with torch.inference_mode():
        same = inverter(1, 0)(blurred, KERNEL, torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(same, blurred)


def test_a_kernel_of_one_pixel_leaves_an_image_as_it_is():
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    nothing, noise = torch.ones(1, 1, 1), torch.full((1, 1, 1, 1), 0.001)
    linear = torch.full((1, 1, 1, 1), True)
    with torch.inference_mode():
        restored = inverter(3)(image, nothing, noise, linear)
    torch.testing.assert_close(restored, image, atol=1e-5, rtol=0)


def test_light_is_kept():
    sharp = scene()
    blurred = psf.convolve(sharp, KERNEL)
    network = inverter(keep_light=True)
    with torch.no_grad():
        # An estimate that is brighter by a half.
        network.network.ending.bias[:4] = 0.5
    with torch.inference_mode():
        restored = network(blurred, KERNEL, torch.zeros(1, 1, 1, 1))
    assert float(restored.mean()) == pytest.approx(float(blurred.mean()), rel=0.01)


def test_row_by_row_the_result_is_that_of_the_whole():
    torch.manual_seed(0)
    network = Inverter(2, **SMALL).eval()
    torch.nn.init.normal_(network.network.ending.weight, std=0.2)
    image, noise = torch.rand(1, 2, 64, 48), torch.full((1, 1, 1, 1), 0.01)
    with torch.no_grad():
        whole = network(image, KERNEL, noise)
    with torch.inference_mode():
        by_rows = network(image, KERNEL, noise)
    # A sum of some 300 products in float32.
    torch.testing.assert_close(by_rows, whole, atol=1e-4, rtol=0)
