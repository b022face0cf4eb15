"""Random motion seen in two frames of a movie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_restore.physics import motion, psf

from .blurs import IDENTITY_SHARE, Blurred, blob, log_uniform, moving_field

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class FramePairBlur:
    """Two exposures of a scene that moves on between them: one way, in turns, or in parts.

    Attributes
    ----------
    longest : float
        Largest motion from frame to frame, in pixels.
    varying_share, object_share, cut_share : float
        Of the scenes that turn, near or wave; of those with an object that moves by itself; of
        those that are over after the first frame.
    """

    longest: float = 30.0
    varying_share: float = 0.3
    object_share: float = 0.35
    cut_share: float = 0.03

    def __call__(self, light: torch.Tensor, rng: np.random.Generator) -> Blurred:
        """Expose a batch twice."""
        scenes = [
            self._scene(light[i], light[(i + 1) % len(light)], rng) for i in range(len(light))
        ]
        first, second, sharp, flow = (
            torch.stack(parts) for parts in zip(*(scene[:4] for scene in scenes), strict=True)
        )
        still, exposure = zip(*(scene[4:] for scene in scenes), strict=True)
        shutter = torch.tensor(exposure, device=light.device).view(-1, 1, 1, 1)
        both = torch.cat([first, second], 1)
        return Blurred(both, sharp, still, (None,) * len(light), flow, shutter)

    def _speed(self, rng: np.random.Generator) -> float:
        """Pixels from frame to frame: of every order, and often many."""
        if rng.random() < 0.5:
            return log_uniform(rng, 0.5, self.longest)
        return float(rng.uniform(3, self.longest))

    def _scene(
        self, light: torch.Tensor, other: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool, float]:
        """One scene (C, H, W): both frames, sharp, flow, whether it is still, exposure."""
        _, height, width = light.shape
        still, exposure = rng.random() < IDENTITY_SHARE, float(rng.uniform(0.15, 1))
        flow = torch.zeros(2, height, width, device=light.device)
        if still:
            return light, light.clone(), light, flow, True, exposure
        speed, kind, sharp = self._speed(rng), rng.random(), light
        if kind < self.varying_share:
            moves = moving_field(rng, height, width, speed).to(light.device)
            first, second = (
                motion.sweep(light[None], moves, at - exposure / 2, at + exposure / 2)[0]
                for at in (0.0, 1.0)
            )
            # The scene at time s is what was at x + s moves(x); what is at x now will be where
            # that leads to x.
            found = -moves
            for _ in range(3):
                found = -motion.warp(moves, found)
            flow = found[0]
        else:
            velocity = _velocity(rng, speed)
            first, second = _expose(light, velocity, exposure, rng)
            flow = flow + _column(velocity, light)
            if kind < self.varying_share + self.object_share:
                mask = blob(rng, height, width).to(light.device)
                own = _velocity(rng, self._speed(rng))
                if rng.random() < 0.4:
                    # The camera rests.
                    first, second, flow = light, light, torch.zeros_like(flow)
                seen = _expose(torch.cat([other * mask, mask]), own, exposure, rng)
                first, second = (
                    behind * (1 - thing[-1:]) + thing[:-1]
                    for behind, thing in zip((first, second), seen, strict=True)
                )
                sharp = light * (1 - mask) + other * mask
                flow = torch.where(mask > 0.5, _column(own, light), flow)
        if rng.random() < self.cut_share:
            second, flow = other, torch.zeros_like(flow)
        elif rng.random() < 0.2:
            # Lamps flicker, dyes bleach.
            second = second * rng.uniform(0.9, 1.05)
        return first, second, sharp, flow, False, exposure


def _velocity(rng: np.random.Generator, speed: float) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return speed * np.array([np.sin(angle), np.cos(angle)])


def _column(velocity: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(velocity).to(like)[:, None, None]


def _expose(
    light: torch.Tensor,
    velocity: NDArray[np.float64],
    exposure: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames (C, H, W) of something that moves as a whole, nearly evenly."""
    frames = []
    for at in (0.0, 1.0):
        # Nothing moves quite evenly, nor quite as fast within an exposure as between two.
        time = np.linspace(-0.5, 0.5, 64)[:, None] * exposure * float(np.exp(rng.normal(0, 0.1)))
        path = time * velocity
        if rng.random() < 0.4:
            extent = rng.uniform(0, 0.25) * exposure * float(np.hypot(*velocity))
            path = path + motion.shake(rng, extent, samples=64)
        kernel = motion.kernel(path + at * velocity)
        frames.append(psf.convolve(light[None], psf.stack([kernel]))[0])
    return frames[0], frames[1]
