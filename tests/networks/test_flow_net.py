"""Networks for two frames: what finds motion, and what restores along it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_restore.models.catalog import build_network
from napari_restore.networks.flow_net import FlowNet
from napari_restore.networks.motion_estimator import CepstralEstimator
from napari_restore.networks.motion_net import FramePairRestorer, MotionRestorer
from napari_restore.physics import motion, psf
from napari_restore.physics.motion import warp
from napari_restore.training.losses import flow_error

SMALL = {"widths": (8, 12, 16), "decoder": (16, 12), "radius": 3}


def test_untrained_the_frame_comes_back() -> None:
    network = FramePairRestorer(1, SMALL, {"widths": (8, 12, 16)})
    frames = torch.rand(2, 2, 32, 48)
    with torch.inference_mode():
        result, flows = network.restore_and_find(frames, torch.full((2, 1, 1, 1), 0.5))
    torch.testing.assert_close(result, frames[:, :1])
    assert [tuple(flow.shape) for flow in flows] == [(2, 2, 4, 6), (2, 2, 8, 12)]


def test_untrained_one_frame_comes_back() -> None:
    network = MotionRestorer(3, {"widths": (8, 12, 16)})
    image = torch.rand(2, 3, 64, 48)
    with torch.inference_mode():
        result, estimates = network.restore_and_estimate(image)
    torch.testing.assert_close(result, image)
    assert tuple(estimates.shape) == (2, 2, 2, 4, 3)


def test_cepstra_show_the_motion() -> None:
    """A short training on white noise that moved: length and direction can be read off."""
    torch.manual_seed(0)
    network = CepstralEstimator(16)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        kernels = [
            motion.kernel(motion.line(rng.uniform(4, 20), rng.uniform(0, np.pi))) for _ in range(8)
        ]
        noise = torch.from_numpy(rng.normal(size=(8, 1, 64, 64)).astype(np.float32))
        truth = np.stack([motion.blur_vector(kernel) for kernel in kernels]) / 10
        return psf.convolve(noise, psf.stack(kernels)), torch.from_numpy(truth)[..., None, None]

    for step in range(25):
        image, truth = batch(step)
        loss = network.error(image, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, truth = batch(10_000)
    with torch.inference_mode():
        found = network(image)[:, 0, :, 1:-1, 1:-1].mean((2, 3), keepdim=True)
    distance = (found - truth).norm(dim=1).mean()
    assert float(distance) < 0.5 * float(truth.norm(dim=1).mean())


def test_brightness_and_contrast_do_not_change_the_motion() -> None:
    network = FlowNet(**SMALL)
    first, second = torch.rand(2, 1, 1, 64, 64)
    with torch.inference_mode():
        found, brighter = network(first, second), network(0.5 * first + 7, 0.5 * second + 7)
    # Faint structure counts a little less: noise has to end somewhere.
    apart = (found[-1] - brighter[-1]).abs().median()
    assert float(apart) < 0.05 * float(found[-1].abs().median())


def test_it_learns_to_follow_motion() -> None:
    """A few steps on moving noise: the network can express motion, and its loss teaches it."""
    torch.manual_seed(0)
    network = FlowNet(**SMALL)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(8, 1, 12, 12, generator=generator)
        scene = torch.nn.functional.interpolate(coarse, (48, 48), mode="bicubic")
        moves = (6 * torch.rand(8, 2, 1, 1, generator=generator) - 3).expand(8, 2, 48, 48)
        return scene, warp(scene, -moves), moves

    for step in range(25):
        first, second, truth = batch(step)
        loss = flow_error(network(first, second), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first, second, truth = batch(10_000)
    with torch.inference_mode():
        found = network(first, second)[-1]
    inner = found[..., 3:-3, 3:-3]
    distance = (inner - truth[..., : inner.shape[-2], : inner.shape[-1]]).norm(dim=1).mean()
    assert float(distance) < 0.5 * float(truth.norm(dim=1).mean())


def test_motion_is_in_pixels_of_the_frames_at_every_level() -> None:
    truth = torch.tensor([3.0, -5.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    exact = [truth[..., :4, :4], truth[..., :8, :8]]
    assert float(flow_error(exact, truth)) < float(flow_error([0.9 * x for x in exact], truth))


def test_a_pair_network_refuses_levels_that_do_not_fit() -> None:
    with pytest.raises(Exception, match="encoder_blocks"):
        build_network("framepair", {"channels": 1, "restorer": {"encoder_blocks": (1,)}})
