"""Restoration along the motion that blurred an image: found in the image, or between two frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.physics.motion import Telescope, double_angle, half_angle, warp

from .flow_net import FlowNet
from .motion_estimator import MOTION_UNIT, CepstralEstimator
from .resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Steps along the motion on either side, and the images that come of them: see `Telescope`.
STEPS = 3
PARTS = 2 * STEPS
#: Channels of the blur beside them: length and direction, and how unsure they are.
BLUR_CHANNELS = 3
#: Pixels of motion beyond which blur is only reduced.
_LONGEST = 40.0
#: How unsure a motion between two frames is taken to be, as the logarithm of a variance.
_SURE = -3.0


class _Restorer(nn.Module):
    """A network that gets the parts of the inverse blur along a motion."""

    def __init__(self, channels: int, further: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        extra = PARTS * channels + BLUR_CHANNELS + further
        self.network = ResUNet(channels, extra=extra, **options)

    def forward(self, image: Tensor, moves: Tensor, unsure: Tensor, *further: Tensor) -> Tensor:
        """Restore (N, C, H, W) that moved by (N, 2, H, W) pixels during the exposure."""
        image, moves = image.float(), moves.float()
        # No place may look further than the halo of a tile.
        length = torch.hypot(moves[:, :1], moves[:, 1:])
        moves = moves * (_LONGEST / length.clamp(min=_LONGEST))
        parts = Telescope(image, moves, STEPS)

        def rows(top: int, bottom: int) -> Tensor:
            own = moves[:, :, top:bottom]
            beside = (part[:, :, top:bottom] for part in (unsure, *further))
            blur = double_angle(own) / MOTION_UNIT
            return torch.cat([parts.rows(top, bottom), blur, *beside], 1)

        restored: Tensor = self.network(image, rows)
        return restored


class MotionRestorer(nn.Module):
    """Restore one frame along the motion that its spectra show.

    Parameters
    ----------
    channels : int
    restorer : mapping
        Arguments of `ResUNet` but for its channels.
    gauge : mapping
        Arguments of `CepstralEstimator`.
    """

    def __init__(
        self,
        channels: int = 3,
        restorer: Mapping[str, Any] | None = None,
        gauge: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        # The estimator; keys of weights have this name.
        self.gauge = CepstralEstimator(**(gauge or {}))
        self.restorer = _Restorer(channels, 0, restorer or {})
        self.multiple_of = max(CepstralEstimator.cell, self.restorer.network.multiple_of)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, C, H, W), about [0, 1]; H and W multiples of ``multiple_of``."""
        return self.restore_and_estimate(image)[0]

    def estimate(self, image: Tensor) -> Tensor:
        """Estimate the motion; see `CepstralEstimator`."""
        estimates: Tensor = self.gauge(image)
        return estimates

    def restore_and_estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both `forward` and `estimate`."""
        estimates = self.estimate(image)
        # The estimator learns from what moved; restoration must not bend it.
        return self.restore_along(image, estimates.detach()), estimates

    def restore_along(self, image: Tensor, estimates: Tensor) -> Tensor:
        """Restore along a motion, known as an estimator would say it; see `estimate`."""
        vectors, log_variance = estimates.float().unbind(1)
        known = torch.cat([vectors * MOTION_UNIT, log_variance.mean(1, keepdim=True)], 1)
        fine = F.interpolate(known, image.shape[-2:], mode="bilinear", align_corners=False)
        unsure = fine[:, 2:].clamp(-6, 4)
        restored: Tensor = self.restorer(image, half_angle(fine[:, :2]), unsure)
        return restored


class FramePairRestorer(nn.Module):
    """Restore a frame with the help of its neighbor: find the motion, then restore along it.

    The blur of an exposure is the mean over the motion within it; its length and direction come
    from the motion between the frames and the exposure's share of the time between them.

    Parameters
    ----------
    channels : int
        Of one frame.
    flow : mapping
        Arguments of `FlowNet`.
    restorer : mapping
        As for `MotionRestorer`.
    """

    def __init__(
        self,
        channels: int = 3,
        flow: Mapping[str, Any] | None = None,
        restorer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.flow = FlowNet(**(flow or {}))
        # It also gets the neighbor, as if nothing had moved.
        self.restorer = _Restorer(channels, channels, restorer or {})
        self.multiple_of = max(self.flow.multiple_of, self.restorer.network.multiple_of)

    def forward(self, frames: Tensor, exposure: Tensor) -> Tensor:
        """Restore the first of two frames.

        Parameters
        ----------
        frames : Tensor
            (N, 2 C, H, W), about [0, 1]; H and W multiples of ``multiple_of``.
        exposure : Tensor
            (N, 1, 1, 1), share of the time between the frames that the shutter is open.

        Returns
        -------
        Tensor
            (N, C, H, W).
        """
        return self.restore_and_find(frames, exposure)[0]

    def motion(self, frames: Tensor) -> Tensor:
        """Motion from the first frame to the second: (N, 2, H / 4, W / 4), pixels (y, x)."""
        return self.flows(frames)[-1]

    def flows(self, frames: Tensor) -> list[Tensor]:
        """Motion at all levels of `FlowNet`."""
        flows: list[Tensor] = self.flow(*frames.split(self.channels, 1))
        return flows

    def restore_and_find(self, frames: Tensor, exposure: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Both `forward` and `flows`."""
        flows = self.flows(frames)
        first, second = frames.float().split(self.channels, 1)
        # The motion learns from where things are; restoration must not bend it.
        moved = F.interpolate(
            flows[-1].detach().float(), first.shape[-2:], mode="bilinear", align_corners=False
        )
        fetched = warp(second, moved)
        unsure = torch.full_like(first[:, :1], _SURE)
        result: Tensor = self.restorer(first, moved * exposure, unsure, fetched)
        return result, flows
