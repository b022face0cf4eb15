"""Restoration along the motion that blurred an image: found in the image, or between two frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.physics.motion import double_angle, half_angle, telescope, warp

from .flow import FlowNet
from .nafnet import NAFNet
from .resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Motion of this many pixels is 1 for the networks.
MOTION_UNIT = 10.0
#: Steps along the motion on either side, and the images that come of them: see `telescope`.
STEPS = 3
PARTS = 2 * STEPS
#: Channels of the blur beside them: length and direction, and how unsure they are.
BLUR_CHANNELS = 3
#: Pixels of motion beyond which blur is only reduced.
_LONGEST = 40.0
#: Cells around a place whose estimates are joined, what they are worth together at first
#: (logarithm), and the least sure that one may be: a little better than not looking.
_AROUND = 9
_WORTH = 0.7
_UNSURE = -0.02
#: How unsure a motion between two frames is taken to be, as the logarithm of a variance.
_SURE = -3.0


_NETWORKS: dict[str, Any] = {"resunet": ResUNet, "nafnet": NAFNet}


class SpectralGauge(nn.Module):
    """Find the length and the direction of motion blur in the cepstra of overlapping windows.

    The spectrum of a blurred image is that of the sharp one times that of the kernel. Their
    logarithms add up, and those of sharp images are much alike; so do the transforms of these, the
    cepstra, in which motion leaves a dip at its length and direction (Rom, "On the Cepstrum of
    Two-Dimensional Functions", IEEE Transactions on Information Theory 1975). Spectra are means
    over neighbouring windows (Welch, 1967), of two widths; a few layers read them. What many places
    say is put together as independent measurements are, each as sure as it says, as many as that
    training shows them to be worth.

    Parameters
    ----------
    hidden : sequence of int
        Channels of the layers.
    """

    #: Side of the windows, and of the cells that each is about.
    side = 64
    cell = 16

    window: Tensor

    def __init__(self, hidden: tuple[int, int] = (256, 128)) -> None:
        super().__init__()
        line = torch.hann_window(self.side, periodic=False)
        self.register_buffer("window", line[:, None] * line, persistent=False)
        features = 2 * self.side * (self.side // 2 + 1)
        self.layers = nn.Sequential(
            nn.Conv2d(features, hidden[0], 1),
            nn.ReLU(),
            nn.Conv2d(hidden[0], hidden[1], 1),
            nn.ReLU(),
            nn.Conv2d(hidden[1], 4, 1),
        )
        # Neighbouring windows overlap: together they are worth a few.
        self.log_worth = nn.Parameter(torch.tensor(_WORTH))

    def forward(self, image: Tensor) -> Tensor:
        """Estimate the motion.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W); H and W multiples of ``cell``.

        Returns
        -------
        Tensor
            (N, 2, 2, H / cell, W / cell): vectors of `napari_restore.physics.motion.blur_vector` in
            units of `MOTION_UNIT`, and the logarithms of their variances.
        """
        power = self._power(image.float().mean(1, keepdim=True))
        spectra = []
        for reach in (1, 3):
            mean = F.avg_pool2d(power, 2 * reach + 1, 1, reach, count_include_pad=False)
            level = mean.mean(1, keepdim=True)
            log = (mean / (level + 1e-12) + 1e-5).log()
            spectra.append(self._cepstra(log - log.mean(1, keepdim=True)))
        both: Tensor = self.layers(torch.cat(spectra, 1))
        return self._together(*both.unflatten(1, (2, 2)).unbind(1))

    def _together(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Join the estimates of neighbouring places: products of normal densities.

        Each was made by one who expected motion of about `MOTION_UNIT` either way before looking;
        that expectation must count once, not once for each place.
        """
        precision = (-log_variance.clamp(-6, _UNSURE)).exp()

        def around(field: Tensor) -> Tensor:
            return F.avg_pool2d(field, _AROUND, 1, _AROUND // 2, count_include_pad=False)

        worth = self.log_worth.exp()
        joint = 1 + worth * around(precision - 1)
        return torch.stack([worth * around(precision * mean) / joint, -joint.log()], 1)

    def _cepstra(self, log: Tensor) -> Tensor:
        """From logarithms of spectra to as many lags: (N, lags, h, w)."""
        folded = log.permute(0, 2, 3, 1).unflatten(3, (self.side, self.side // 2 + 1))
        cepstra = torch.fft.irfft2(folded, norm="ortho")
        # The other half of the lags mirrors this one.
        half: Tensor = cepstra[..., : self.side // 2 + 1].flatten(3).permute(0, 3, 1, 2)
        return half

    def _power(self, grey: Tensor) -> Tensor:
        """Power spectra of the windows around all cells: (N, frequencies, h, w)."""
        height, width = (length // self.cell for length in grey.shape[-2:])
        margin = (self.side - self.cell) // 2
        padded = F.pad(grey, (margin,) * 4, mode="replicate")
        windows = F.unfold(padded, self.side, stride=self.cell).transpose(1, 2)
        windows = windows.unflatten(2, (self.side, self.side))
        windows = (windows - windows.mean((2, 3), keepdim=True)) * self.window
        power: Tensor = torch.fft.rfft2(windows).abs().square()
        spectra: Tensor = power.flatten(2).transpose(1, 2).unflatten(2, (height, width))
        return spectra


class _Restorer(nn.Module):
    """A network that gets the parts of the inverse blur along a motion.

    A `ResUNet`, unless the options name another as ``network``.
    """

    def __init__(self, channels: int, further: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        arguments = dict(options)
        make = _NETWORKS[arguments.pop("network", "resunet")]
        extra = PARTS * channels + BLUR_CHANNELS + further
        self.network = make(channels, extra=extra, **arguments)

    def forward(self, image: Tensor, moves: Tensor, unsure: Tensor, *further: Tensor) -> Tensor:
        """Restore (N, C, H, W) that moved by (N, 2, H, W) pixels during the exposure."""
        image, moves = image.float(), moves.float()
        # No place may look further than the halo of a tile.
        length = torch.hypot(moves[:, :1], moves[:, 1:])
        moves = moves * (_LONGEST / length.clamp(min=_LONGEST))
        parts = telescope(image, moves, STEPS)
        blur = double_angle(moves) / MOTION_UNIT
        restored: Tensor = self.network(torch.cat([image, parts, blur, unsure, *further], 1))
        return restored


class MotionRestorer(nn.Module):
    """Restore one frame along the motion that its spectra show.

    Parameters
    ----------
    channels : int
    restorer : mapping
        Arguments of `ResUNet` but for its channels, or with ``network="nafnet"`` of `NAFNet`.
    gauge : mapping
        Arguments of `SpectralGauge`.
    """

    def __init__(
        self,
        channels: int = 3,
        restorer: Mapping[str, Any] | None = None,
        gauge: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.gauge = SpectralGauge(**(gauge or {}))
        self.restorer = _Restorer(channels, 0, restorer or {})
        self.multiple_of = max(SpectralGauge.cell, self.restorer.network.multiple_of)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, C, H, W), about [0, 1]; H and W multiples of ``multiple_of``."""
        return self.restore_and_estimate(image)[0]

    def estimate(self, image: Tensor) -> Tensor:
        """Estimate the motion; see `SpectralGauge`."""
        estimates: Tensor = self.gauge(image)
        return estimates

    def restore_and_estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both `forward` and `estimate`."""
        estimates = self.estimate(image)
        # The gauge learns from what moved; restoration must not bend it.
        vectors, log_variance = estimates.detach().float().unbind(1)
        known = torch.cat([vectors * MOTION_UNIT, log_variance.mean(1, keepdim=True)], 1)
        fine = F.interpolate(known, image.shape[-2:], mode="bilinear", align_corners=False)
        unsure = fine[:, 2:].clamp(-6, 4)
        return self.restorer(image, half_angle(fine[:, :2]), unsure), estimates


class FramePairRestorer(nn.Module):
    """Restore a frame with the help of its neighbour: find the motion, then restore along it.

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
        # It also gets the neighbour, as if nothing had moved.
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
