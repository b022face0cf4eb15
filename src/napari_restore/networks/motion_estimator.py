"""Find the motion that blurred an image in the cepstra of its parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Motion of this many pixels is 1 for the networks.
MOTION_UNIT = 10.0
#: Cells around a place whose evidence is put together.
_AROUND = 9
#: Rows of cells that are measured at once.
_CELL_ROWS = 16
#: Lengths that are told apart, in pixels, evenly on a logarithmic scale; and directions.
_SHORTEST, _LONGEST, _LENGTHS = 1.5, 36.0, 24
_ANGLES = 40
#: How far the truth may be from the nearest of them: in pixels, and as a share of the length.
_SPREAD, _RELATIVE_SPREAD = 0.4, 0.08


class CepstralEstimator(nn.Module):
    """Find the length and the direction of motion blur in the cepstra of overlapping windows.

    The spectrum of a blurred image is that of the sharp one times that of the kernel. Their
    logarithms add up, and those of sharp images are much alike; so do the transforms of these, the
    cepstra, in which motion leaves a dip at its length and direction (Rom, "On the Cepstrum of
    Two-Dimensional Functions", IEEE Transactions on Information Theory 1975). Spectra are means
    over neighboring windows (Welch, 1967), of their powers and of their logarithms (Cannon, "Blind
    Deconvolution of Spatially Invariant Image Blurs with Phase", IEEE Transactions on Acoustics,
    Speech and Signal Processing 1976).

    The cepstra are read in polar coordinates, by the same weights in every direction. What comes
    out is how likely each of a grid of motions is. Logarithms of likelihoods add up over the places
    around; that needs no place to be sure.

    Parameters
    ----------
    hidden : int
        Channels of the layers.
    """

    #: Side of the windows, and of the cells that each is about.
    side = 64
    cell = 16

    window: Tensor
    into_lags: Tensor
    motions: Tensor
    spreads: Tensor

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        line = torch.hann_window(self.side, periodic=False)
        self.register_buffer("window", line[:, None] * line, persistent=False)
        self.register_buffer("into_lags", _to_polar_cepstra(self.side), persistent=False)
        motions, spreads = _grid()
        self.register_buffer("motions", motions, persistent=False)
        self.register_buffer("spreads", spreads, persistent=False)
        options = {"padding_mode": "circular"}
        self.layers = nn.Sequential(
            nn.Conv1d(3 * self.side // 2, hidden, 5, padding=2, **options),  # type: ignore[arg-type]
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1, **options),  # type: ignore[arg-type]
            nn.ReLU(),
        )
        self.moving = nn.Conv1d(hidden, _LENGTHS, 1)
        self.still = nn.Linear(hidden, 1)

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
        # In training everything is kept in any case.
        portion = _CELL_ROWS if torch.is_inference_mode_enabled() else 0
        return torch.cat([self._moments(rows) for rows in self._likelihoods(image, portion)], 3)

    def likelihoods(self, image: Tensor) -> Tensor:
        """Logarithms of how likely each motion is: (N, motions, H / cell, W / cell)."""
        return torch.cat(list(self._likelihoods(image, 0)), 2)

    def _moments(self, likelihoods: Tensor) -> Tensor:
        """Means and logarithms of variances, (N, 2, 2, h, w)."""
        share = likelihoods.exp()
        mean = torch.einsum("nkhw,kd->ndhw", share, self.motions)
        square = self.motions.square().sum(1) + 2 * self.spreads.square()
        variance = (torch.einsum("nkhw,k->nhw", share, square) - mean.square().sum(1)) / 2
        log_variance = variance.clamp(min=1e-6).log()[:, None].expand_as(mean)
        return torch.stack([mean, log_variance], 1)

    def _likelihoods(self, image: Tensor, portion: int) -> Iterator[Tensor]:
        """Find `likelihoods` some rows at a time, from portions of rows of cells; 0 for all."""
        means = _RowMean(3, 3), _RowMean(7, 3), _RowMean(7, 3)
        around = _RowMean(_AROUND)
        for power, last in self._power(image.float().mean(1, keepdim=True), portion):
            narrow, wide = (mean.push(power, last) for mean in means[:2])
            log = means[2].push(_log(power), last)
            if log.shape[2]:
                polar = [self._cepstra(part) for part in (_log(narrow), _log(wide), log)]
                evidence = around.push(self._evidence(torch.cat(polar, 1)), last)
                if evidence.shape[2]:
                    yield evidence.log_softmax(1)

    def _evidence(self, polar: Tensor) -> Tensor:
        """From cepstra (N, radii, angles, h, w) to what each place says: (N, motions, h, w)."""
        batch, _, _, height, width = polar.shape
        # (N, radii, angles, h, w) to (N h w, radii, angles)
        features = self.layers(polar.permute(0, 3, 4, 1, 2).flatten(0, 2))
        scores = [self.still(features.mean(2)), self.moving(features).flatten(1)]
        return torch.cat(scores, 1).view(batch, height, width, -1).permute(0, 3, 1, 2)

    def error(self, image: Tensor, truth: Tensor) -> Tensor:
        """Negative log-likelihood of the true vectors (N, 2, H, W), for each number of them."""
        likelihoods = self.likelihoods(image)
        height, width = likelihoods.shape[-2:]
        truth = F.adaptive_avg_pool2d(truth, (height, width))
        apart = (truth[:, None] - self.motions.view(1, -1, 2, 1, 1)).square().sum(2)
        variance = self.spreads.square().view(1, -1, 1, 1)
        density = -apart / (2 * variance) - (2 * math.pi * variance).log()
        return -(likelihoods + density).logsumexp(1).mean() / 2

    def _cepstra(self, log: Tensor) -> Tensor:
        """From logarithms of spectra to lags in polar coordinates: (N, radii, angles, h, w)."""
        height, width = log.shape[-2:]
        lags = torch.matmul(self.into_lags, log.flatten(2))
        # A few hold most of it: the inverse hyperbolic sine, which torch computes slowly.
        size = lags.abs()
        even = (size + (size.square() + 1).sqrt()).log().copysign(lags)
        polar: Tensor = even.unflatten(1, (self.side // 2, _ANGLES))
        there: Tensor = polar.unflatten(3, (height, width))
        return there

    def _power(self, gray: Tensor, portion: int) -> Iterator[tuple[Tensor, bool]]:
        """Power spectra of the windows around all cells, some rows at a time.

        Yields
        ------
        power, last
            (N, frequencies, h, w), and whether no more come.
        """
        height, width = (length // self.cell for length in gray.shape[-2:])
        margin = (self.side - self.cell) // 2
        padded = F.pad(gray, (margin,) * 4, mode="replicate")
        portion = portion or height
        for top in range(0, height, portion):
            rows = min(portion, height - top)
            seen = padded[:, :, self.cell * top : self.cell * (top + rows) + 2 * margin]
            windows = F.unfold(seen, self.side, stride=self.cell).transpose(1, 2)
            windows = windows.unflatten(2, (self.side, self.side))
            windows = (windows - windows.mean((2, 3), keepdim=True)) * self.window
            power: Tensor = torch.fft.rfft2(windows).abs().square()
            spectra = power.flatten(2).transpose(1, 2).unflatten(2, (rows, width))
            yield spectra, top + rows == height


class _RowMean:
    """Mean over squares of cells whose rows come in portions; fewer cells at the border.

    Parameters
    ----------
    width : int
        Side of the squares.
    delay : int, optional
        How many rows are waited for; half the side at least, which it is by default.
    """

    def __init__(self, width: int, delay: int | None = None) -> None:
        self._width = width
        self._delay = width // 2 if delay is None else delay
        self._kept: Tensor | None = None
        #: How many of the rows that are kept have been given.
        self._given = 0

    def push(self, x: Tensor, last: bool) -> Tensor:
        """Take rows of (N, C, H, W), give the means of those whose surroundings are known."""
        radius = self._width // 2
        across = F.avg_pool2d(x, (1, self._width), 1, (0, radius), count_include_pad=False)
        seen = across if self._kept is None else torch.cat([self._kept, across], 2)
        mean = F.avg_pool2d(seen, (self._width, 1), 1, (radius, 0), count_include_pad=False)
        start, stop = self._given, seen.shape[2] - (0 if last else self._delay)
        stop = max(start, stop)
        first = max(0, stop - radius)
        self._kept, self._given = seen[:, :, first:], stop - first
        return mean[:, :, start:stop]


def _log(power: Tensor) -> Tensor:
    """Logarithms of spectra about their mean; what is far below the whole is as good as nothing."""
    log = (power / (power.mean(1, keepdim=True) + 1e-12) + 1e-5).log()
    return log - log.mean(1, keepdim=True)


def _to_polar_cepstra(side: int) -> Tensor:
    """Matrix (radii * angles, frequencies): from half a spectrum to its cepstrum around lag 0.

    Fourier transform and bilinear interpolation are linear; one product takes the time of neither.
    """
    count = side * (side // 2 + 1)
    each = torch.eye(count).unflatten(1, (side, side // 2 + 1))
    cepstra = torch.fft.irfft2(each, norm="ortho").flatten(1)
    radius = torch.arange(1, side // 2 + 1).view(-1, 1)
    angle = torch.arange(_ANGLES) * (math.pi / _ANGLES)
    y, x = (radius * angle.sin()).flatten(), (radius * angle.cos()).flatten()
    matrix = torch.zeros(len(y), count)
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = y.floor() + dy, x.floor() + dx
            share = (1 - (y - row).abs()) * (1 - (x - column).abs())
            matrix += share[:, None] * cepstra[:, (row % side * side + column % side).long()].T
    return matrix


def _grid() -> tuple[Tensor, Tensor]:
    """Motions (K, 2) that are told apart and their spreads (K,), in units of `MOTION_UNIT`.

    No motion comes first, then all directions of the shortest.
    """
    steps = torch.linspace(math.log(_SHORTEST), math.log(_LONGEST), _LENGTHS)
    length = torch.cat([torch.zeros(1), steps.exp().repeat_interleave(_ANGLES)])
    twice = torch.cat([torch.zeros(1), torch.arange(_ANGLES).repeat(_LENGTHS)])
    twice = twice * (2 * math.pi / _ANGLES)
    motions = length[:, None] * torch.stack([twice.cos(), twice.sin()], 1)
    return motions / MOTION_UNIT, (_SPREAD + _RELATIVE_SPREAD * length) / MOTION_UNIT
