"""Dehazing by a smooth affine map that a small network finds on a low-resolution view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resunet import ChannelNorm, ResUNet
from .scene import SceneReader, box_mean, local_minimum

if TYPE_CHECKING:
    from collections.abc import Sequence


def guided_lines(field: Tensor, guide: Tensor, radius: int, eps: float) -> tuple[Tensor, Tensor]:
    """Lines over the guide that a field follows around each place.

    Parameters
    ----------
    field : Tensor
        (N, C, H, W).
    guide : Tensor
        (N, 1, H, W) in [0, 1].
    radius : int
        Half the side of the window, in pixels.
    eps : float
        Variance of the guide above which a step is kept.

    Returns
    -------
    slope, intercept : Tensor
        (N, C, H, W). ``slope * guide + intercept`` is the field, smooth where the guide is, with
        steps where it has them; with a guide of higher resolution, so is the result.

    Notes
    -----
    He, Sun and Tang, "Guided Image Filtering", IEEE TPAMI 2013.
    """
    mean_guide, mean_field = box_mean(guide, radius), box_mean(field, radius)
    covariance = box_mean(guide * field, radius) - mean_guide * mean_field
    variance = box_mean(guide * guide, radius) - mean_guide**2
    slope = covariance / (variance.clamp(min=0) + eps)
    return box_mean(slope, radius), box_mean(mean_field - slope * mean_guide, radius)


class DehazeNet(nn.Module):
    """Find transmission and airlight at low resolution, take the haze away at full.

    Haze is smooth and its inversion is affine, J = A + (I - A) / t, so a view of 256 pixels of the
    whole image holds all that is needed, the cost hardly depends on the size of the image, and
    tiles agree by construction since they share the coefficients. The logarithm of 1 / t is itself
    an affine function of the image's brightness within a neighborhood, which carries the edges of
    what stands before the haze over to full resolution (fast guided filter, He and Sun, 2015).

    Light of the air lies on everything, so that what is darkest around a place bounds how much of
    it there can be, and most clear scenes have something black everywhere (dark channel prior, He,
    Sun and Tang, 2011). The network starts from that: it finds which share of the bound is haze,
    and how that is spread. How much haze there is in all and which color the air has is a matter of
    the whole scene: both are read from its statistics (`SceneReader`), with what the network sees.

    Parameters
    ----------
    channels : int
        Channels of the image.
    widths, encoder_blocks, middle_blocks, decoder_blocks, unshuffle
        As for `ResUNet`.
    view : int
        Longest side of the view in pixels.
    """

    #: Largest logarithm of the gain: haze that leaves less than 1/20 of the contrast stays.
    max_log_gain = 3.0
    #: Optical thickness of which half is left alone; of thinner haze more, of thicker less.
    thin_haze = 0.05
    #: By how much the optical thickness of a scene is found wrong, as a standard deviation.
    thickness_error = 0.2
    #: Contrast of the view below which there is no evidence of haze; from twice that on, there is.
    least_contrast = 0.02
    #: Radius in coarse pixels, and variance, of the guided filter.
    _radius, _eps = 3, 2e-3
    #: Half the side of the neighborhood in which something is dark, in pixels of the view.
    _dark_radius = 3
    #: Most by which the haze of all places is made thicker, where the scene as a whole says so.
    _most_scale = 3.0

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (48, 96, 192),
        encoder_blocks: Sequence[int] = (1, 2),
        middle_blocks: int = 3,
        decoder_blocks: Sequence[int] = (1, 1),
        view: int = 256,
        unshuffle: int = 4,
    ) -> None:
        super().__init__()
        self.channels, self.view = channels, view
        self.trunk = ResUNet(
            2 * channels,
            widths,
            encoder_blocks,
            middle_blocks,
            decoder_blocks,
            unshuffle,
            normalize=True,
        )
        self.reader = SceneReader(channels)
        # The whole scene tells the color of the air, and how much haze there is.
        deep = widths[-1]
        self.scene = nn.Sequential(nn.Linear(2 * deep, deep), nn.ReLU(), nn.Linear(deep, deep))
        self.reading = nn.Linear(self.reader.ending.in_features, deep)
        self.verdict = nn.Linear(deep, channels + 1)
        self.norm = ChannelNorm(widths[0])
        self._initialize()
        self.multiple_of = 1

    def _initialize(self) -> None:
        # What the whole scene says has to reach the top: keep the features' scale on the way.
        for name, part in self.trunk.named_modules():
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
                if name.endswith("conv2"):
                    part.weight.data *= 0.2
        self.trunk.ending = nn.Conv2d(
            self.trunk.ending.in_channels, 2 * self.channels, 3, padding=1
        )
        for ending in (self.trunk.ending, self.reading, self.verdict):
            nn.init.zeros_(ending.weight)
            nn.init.zeros_(ending.bias)  # type: ignore[arg-type]

    def context(self, view: Tensor, common: Tensor | None = None) -> Tensor:
        """Find what takes the haze from an image: see `coefficients` and `restrained`.

        Parameters
        ----------
        view : Tensor
            (N, C, h, w), whole images at low resolution.
        common : Tensor, optional
            What all planes of an image share, of `common`.
        """
        found = self.restrained(self.coefficients(view).float(), view)
        return found if common is None else self.with_common(found, common)

    def coefficients(self, view: Tensor) -> Tensor:
        """Find what inverts the haze of whole images.

        Parameters
        ----------
        view : Tensor
            (N, C, h, w) in [0, 1], the whole image at low resolution.

        Returns
        -------
        Tensor
            (N, 3 C, h', w'), about a quarter of the view's size. For each channel the slope and the
            intercept of log 1 / t over brightness, then the airlight.
        """
        height, width = view.shape[-2:]
        multiple, coarse = self.trunk.multiple_of, self.trunk.unshuffle
        padded = F.pad(view, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        darkest = local_minimum(padded, self._dark_radius)
        air, thickness, features = self.reader(view.float())
        deep, skips = self.trunk.encode(torch.cat([padded, darkest], 1))
        scene = self.scene(torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1))
        scene = scene + self.reading(features)
        verdict = self.verdict(F.relu(scene)).float()
        features = self.trunk.decode(deep + scene[..., None, None], skips)
        out = self.trunk.ending(self.norm(features)).float()
        # The scene tells the color of the air; from place to place it differs by a little.
        local = out[:, self.channels :]
        local = local - local.mean((2, 3), keepdim=True)
        air = air.float() + verdict[:, : self.channels]
        airlight = torch.sigmoid(local + air[..., None, None])
        bound = F.avg_pool2d(darkest.float(), coarse) / airlight.detach()
        share = 2 * torch.sigmoid(out[:, : self.channels])
        veil = 0.95 * torch.tanh(share * bound.amin(1, keepdim=True) / 0.95)
        log_gain = -torch.log1p(-veil)
        whole = F.softplus(thickness.float() + verdict[:, self.channels :])[..., None, None]
        spread = log_gain.mean((1, 2, 3), keepdim=True) + 1e-3
        log_gain = log_gain * (whole / spread).clamp(max=self._most_scale)
        guide = F.avg_pool2d(_brightness(padded.float()), coarse)
        inside = (..., slice(-(-height // coarse)), slice(-(-width // coarse)))
        log_gain, airlight, guide = log_gain[inside], airlight[inside], guide[inside]
        # A clear image wants exactly nothing, which a regression of many coefficients never gives.
        thickness = box_mean(log_gain.mean(1, keepdim=True), 2 * self._radius)
        log_gain = log_gain * thickness**2 / (thickness**2 + self.thin_haze**2)
        slope, intercept = guided_lines(log_gain, guide, self._radius, self._eps)
        smooth = box_mean(airlight, 2 * self._radius)
        return torch.cat([slope, intercept, smooth], 1)

    def common(self, coefficients: Sequence[Tensor]) -> Tensor:
        """Find what images of one scene share: (1, C + 2, h', w') of several `coefficients`.

        The color of the air, to which each counts by its optical thickness: where there is no haze
        it means nothing. Then the mean thickness of those that have haze, and how far another image
        is held to it: wholly if they differ by no more than the network errs, since that would be
        seen as flicker; the less the more they differ.
        """
        weights, airlights = [], []
        for slope, intercept, airlight in (c.split(self.channels, 1) for c in coefficients):
            thickness = (slope / 2 + intercept).abs().mean(1, keepdim=True)
            # An even plane, which `restrained` leaves alone, says nothing at all.
            weights.append(thickness + 1e-3 * (thickness.amax() > 0))
            airlights.append(airlight)
        weight = torch.stack(weights)
        if weight.max() == 0:
            weight = torch.ones_like(weight)
        airlight = (torch.stack(airlights) * weight).sum(0) / weight.sum(0)
        found = torch.cat([self._thickness(c) for c in coefficients])
        found = found[found > 0]
        mean = found.mean() if len(found) else airlight.new_zeros(())
        differ = found.var() if len(found) > 1 else airlight.new_zeros(())
        hold = (self.thickness_error**2 / differ.clamp(min=1e-6)).clamp(max=1)
        shared = torch.stack([mean, hold]).view(1, 2, 1, 1)
        return torch.cat([airlight, shared.expand(-1, -1, *airlight.shape[-2:])], 1)

    def restrained(self, coefficients: Tensor, view: Tensor) -> Tensor:
        """Take back what there is no evidence of.

        What has no contrast shows no haze either. And haze is smooth: what is hardly seen of it at
        half the resolution is a trace of noise or of compression, in which nothing is black.

        Parameters
        ----------
        coefficients : Tensor
            Of `coefficients`.
        view : Tensor
            (N, C, h, w), from which they were found.
        """
        brightness = _brightness(view.float()).flatten(1)
        low, high = (brightness.quantile(share, 1) for share in (0.02, 0.98))
        evidence = ((high - low) / self.least_contrast - 1).clamp(0, 1)
        if min(view.shape[-2:]) >= 2 * self.trunk.multiple_of:
            coarse = self._thickness(self.coefficients(F.avg_pool2d(view, 2)))
            fine = self._thickness(coefficients)
            evidence = evidence * (2 * coarse / fine.clamp(min=1e-6)).clamp(0, 1)
        lines, airlight = coefficients.split([2 * self.channels, self.channels], 1)
        return torch.cat([lines * evidence.view(-1, 1, 1, 1), airlight], 1)

    def _thickness(self, coefficients: Tensor) -> Tensor:
        """Mean optical thickness (N,) at middle brightness."""
        slope, intercept, _ = coefficients.float().split(self.channels, 1)
        thickness: Tensor = (slope / 2 + intercept).mean((1, 2, 3))
        return thickness

    def with_common(self, coefficients: Tensor, common: Tensor) -> Tensor:
        """Hold coefficients to what images of one scene share: see `common`."""
        lines, _ = coefficients.split([2 * self.channels, self.channels], 1)
        airlight, mean, hold = common.split([self.channels, 1, 1], 1)
        own = self._thickness(coefficients)[:, None, None, None]
        wanted = own + hold[..., :1, :1] * (mean[..., :1, :1] - own)
        scale = (wanted / own.clamp(min=1e-6)).clamp(0, self._most_scale)
        return torch.cat([torch.where(own > 0, scale, 1) * lines, airlight], 1)

    def apply_context(self, image: Tensor, coefficients: Tensor, box: Tensor) -> Tensor:
        """Take the haze from tiles.

        Parameters
        ----------
        image : Tensor
            (N, C, H, W), tiles.
        coefficients : Tensor
            (N, 3 C, h, w) or (1, 3 C, h, w), of the whole image.
        box : Tensor
            (N, 4): top, left, bottom, right of each tile as shares of the whole image.
        """
        log_gain, airlight = self._fields(image, coefficients, box)
        # Exactly the image where there is no gain.
        return image + (image - airlight) * log_gain.expm1_()

    def transmission(self, image: Tensor, coefficients: Tensor, box: Tensor) -> Tensor:
        """Share of the light that came through, (N, 1, H, W); arguments as above."""
        log_gain, _ = self._fields(image, coefficients, box)
        return log_gain.mean(1, keepdim=True).neg_().exp_().clamp_(max=1)

    def _fields(self, image: Tensor, coefficients: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        field = place(coefficients, image.shape, box)
        slope, intercept, airlight = field.split(image.shape[1], 1)
        log_gain = torch.addcmul(intercept, slope, _brightness(image).clamp(0, 1))
        return log_gain.clamp_(-1, self.max_log_gain), airlight

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Airlight (N, C) and mean optical thickness (N, 1) by the statistics alone."""
        air, thickness, _ = self.reader(image)
        return torch.sigmoid(air), F.softplus(thickness)

    def forward(self, image: Tensor) -> Tensor:
        """Restore whole images (N, C, H, W) in [0, 1] that are no larger than the view."""
        return self.restore_and_explain(image)[0]

    def restore_and_explain(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and what it was done with: log 1 / t and airlight, (N, C, H, W)."""
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=image.device).expand(len(image), 4)
        log_gain, airlight = self._fields(image, self.coefficients(image), whole)
        return airlight + (image - airlight) * log_gain.exp(), log_gain, airlight


def place(coefficients: Tensor, shape: Sequence[int], box: Tensor) -> Tensor:
    """Interpolate coefficients of whole images at the pixels of tiles.

    Parameters
    ----------
    coefficients : Tensor
        (N, K, h, w), or (1, K, h, w) for all.
    shape : sequence of int
        Of the tiles, (N, C, H, W).
    box : Tensor
        (N, 4): top, left, bottom, right of each tile as shares of the whole image.

    Returns
    -------
    Tensor
        (N, K, H, W), bilinear between the centers of the cells.
    """
    count, (height, width) = shape[0], shape[-2:]
    grid = []
    for start, end, length in ((0, 2, height), (1, 3, width)):
        centers = (torch.arange(length, device=box.device) + 0.5) / length
        span = (box[:, end] - box[:, start])[:, None]
        grid.append(2 * (box[:, start][:, None] + span * centers) - 1)
    y = grid[0][:, :, None].expand(-1, height, width)
    x = grid[1][:, None, :].expand(-1, height, width)
    return F.grid_sample(
        coefficients.expand(count, -1, -1, -1),
        torch.stack([x, y], -1).to(coefficients.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def _brightness(image: Tensor) -> Tensor:
    return image.mean(1, keepdim=True)
