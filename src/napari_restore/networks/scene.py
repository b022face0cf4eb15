"""What a whole scene says about its haze: statistics, and what they tell of air and haze."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Of which the extremes say most: haze lifts what is darkest, and the air bounds what is brightest.
_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
#: Half the sides of neighborhoods in which something is dark, and in which contrast is seen, in
#: pixels. The wider is of two steps, `_NEAR` and, with every second pixel, `_NEAR` again.
_NEAR, _WIDE = 2, 6
#: How much more the haziest places count for the color of the air.
_SELECTIVITY = 30.0
#: Of the pixels in each direction, every so many-th counts.
_STEP = 2
#: Beside the channels: maps of which the quantiles are taken, and lines of one over another.
_MAPS, _LINES = 5, 6


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean of the squares around each pixel, as far as they are inside; (N, C, H, W)."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)


def local_minimum(x: Tensor, radius: int) -> Tensor:
    """Least value in the squares around each pixel; (N, C, H, W)."""
    side = 2 * radius + 1
    x = F.max_pool2d(-x, (1, side), 1, (0, radius))
    return -F.max_pool2d(x, (side, 1), 1, (radius, 0))


def haziest(image: Tensor, darkest: Tensor) -> Tensor:
    """Color (N, C) of the places of an image where even what is darkest is bright."""
    weights = (_SELECTIVITY * darkest.amin(1, keepdim=True)).flatten(2).softmax(-1)
    return (image.flatten(2) * weights).sum(-1)


def count_statistics(channels: int) -> int:
    """How many numbers `scene_statistics` finds."""
    return len(_SHARES) * (channels + _MAPS) + 2 * _LINES + 2 * channels


def scene_statistics(image: Tensor) -> Tensor:
    """Describe whole images by what haze changes, wherever in the image that is.

    Haze adds light, so it lifts what is darkest, and takes contrast and color from what lies behind
    it. Where the haze is thicker both happen together: the brightness at which contrast and color
    would vanish is that of the air.

    Parameters
    ----------
    image : Tensor
        (N, C, H, W) in [0, 1], at low resolution.

    Returns
    -------
    Tensor
        (N, `count_statistics`): quantiles of the channels, of what is darkest nearby and farther
        around, of what is brightest, of local contrast and of saturation; lines of those over
        contrast and saturation (value where that vanishes, and slope); colors of the haziest
        places. About 0 on average, and of size 1.
    """
    shares = torch.tensor(_SHARES, device=image.device)
    brightness = image.mean(1, keepdim=True)
    mean = box_mean(brightness, _WIDE)
    contrast = (box_mean(brightness**2, _WIDE) - mean**2).clamp(min=0).sqrt()
    near, highest = local_minimum(image, _NEAR), -local_minimum(-image, _NEAR)
    image, near, highest, mean, contrast = (
        x[..., ::_STEP, ::_STEP] for x in (image, near, highest, mean, contrast)
    )
    wide = local_minimum(near, _NEAR)
    darkest = wide.amin(1, keepdim=True)
    brightest = -local_minimum(-highest, _NEAR).mean(1, keepdim=True)
    saturation = image.amax(1, keepdim=True) - image.amin(1, keepdim=True)
    maps = [image, near.amin(1, keepdim=True), darkest, brightest, contrast, saturation]
    seen = torch.cat(maps, 1).flatten(2)
    found = [seen.quantile(shares, 2).permute(1, 2, 0).flatten(1)]
    for level in (darkest, mean, brightest):
        for color in (contrast, saturation):
            found += _line(level.flatten(1), color.flatten(1))
    found += [haziest(image, near), haziest(image, wide)]
    # What is 0 to 1 has a mean of about a half, and a deviation of about a third.
    return 3 * (torch.cat(found, 1).clamp(-2, 2) - 0.5)


def _line(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value at 0, and slope, of the line that (N, P) values follow over others; (N, 1) each."""
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = ((x - x_mean) * (y - y_mean)).mean(1, keepdim=True)
    slope = covariance / (x.var(1, correction=0, keepdim=True) + 1e-4)
    return y_mean - slope * x_mean, slope


class SceneReader(nn.Module):
    """Read from a scene's statistics which color the air has, and how much haze there is.

    Parameters
    ----------
    channels : int
        Channels of the image.
    width : int
        Of the hidden layers.
    """

    def __init__(self, channels: int, width: int = 192) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(count_statistics(channels), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.ending = nn.Linear(width, channels + 1)
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read views of whole images.

        Parameters
        ----------
        view : Tensor
            (N, C, h, w) in [0, 1].

        Returns
        -------
        airlight : Tensor
            (N, C), as logits.
        thickness : Tensor
            (N, 1), mean optical thickness before `softplus`.
        features : Tensor
            (N, width), from which they were read.
        """
        with torch.no_grad():
            statistics = scene_statistics(view)
        features = self.hidden(statistics)
        air, thickness = self.ending(features).split([view.shape[1], 1], 1)
        # From what the prior says: the haziest place shows the air, or a little less of it, and
        # what is darkest around each place is haze.
        darkest = local_minimum(view, _NEAR)
        shown = haziest(view, darkest).clamp(0.05, 0.95).logit() + 0.3
        veil = (darkest / shown.sigmoid()[..., None, None]).amin(1).clamp(max=0.95)
        prior = -torch.log1p(-veil).mean((1, 2))[:, None]
        return shown + air, prior.clamp(min=1e-3).expm1().log() + thickness, features
