"""Restoration of volumes: estimates of Richardson and Lucy, weighed by a small network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.physics.deconvolution import RichardsonLucy, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What is added before roots are taken: their noise is even then.
_DARK = 0.01
#: Voxels that are merged at a time.
STRIP = 2**23
#: Planes and pixels of the neighborhoods whose light the physics alone decides.
_WIDE = (5, 33, 33)


class VolumeInverter(nn.Module):
    """Invert y = Hx + n for a point spread function in three dimensions.

    Richardson's and Lucy's estimates sharpen step by step, and with them the noise. A network sees
    the image and the estimates of several steps, and tells structure from noise and from rings.

    Parameters
    ----------
    stages : sequence of int
        Steps after which an estimate is seen.
    width, layers : int
        Of the network.

    Notes
    -----
    The idea to learn what iterations of Richardson and Lucy leave to be done is that of Li et al.,
    "Incorporating the image formation process into deep learning improves network performance",
    Nature Methods, 2022.
    """

    def __init__(
        self, stages: Sequence[int] = (3, 7, 14, 28), width: int = 16, layers: int = 2
    ) -> None:
        super().__init__()
        self.stages = tuple(stages)
        seen = 4 * (len(self.stages) + 1) + 1
        self.first = nn.Conv3d(seen, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1) for _ in range(layers))
        # For each of four pixels: weights of image and estimates, and what is added.
        self.last = nn.Conv3d(width, 4 * (len(self.stages) + 2), 3, padding=1)
        nn.init.zeros_(self.last.weight)
        begin = torch.zeros(self.last.out_channels)
        # To begin with, the last estimate but one.
        begin[4 * (len(self.stages) - 1) : 4 * len(self.stages)] = 3.0
        self.last.bias = nn.Parameter(begin)

    def merge(self, image: Tensor, estimates: Tensor, noise: Tensor) -> Tensor:
        """Make one estimate of several.

        Parameters
        ----------
        image : Tensor
            (N, D, H, W), about [0, 1].
        estimates : Tensor
            (N, stages, D, H, W).
        noise : Tensor
            (N,), standard deviation of the noise in the image.

        Returns
        -------
        Tensor
            (N, D, H, W), at least 0.
        """
        height, width = image.shape[-2:]
        roots = (torch.cat([image[:, None], estimates], 1).clamp(min=0) + _DARK).sqrt()
        roots = F.pad(roots, (0, width % 2, 0, height % 2, 0, 0), mode="replicate")
        level = (noise.clamp(min=1e-4).log10() / 2 + 1)[:, None, None, None, None]
        small = _unshuffled(roots)
        x = torch.cat([small, level.expand(-1, 1, *small.shape[2:])], 1)
        x = self.first(x)
        for layer in self.middle:
            x = x + layer(F.relu(x))
        found = _shuffled(self.last(F.relu(x)))
        mixed = (found[:, :-1].softmax(1) * roots).sum(1)
        merged = (mixed + found[:, -1]).clamp(min=0).square() - _DARK
        return merged[..., :height, :width].clamp(min=0)

    def forward(
        self,
        image: Tensor,
        psf: Tensor,
        noise: Tensor,
        scale: Scale,
        momenta: tuple[float, ...] | None = None,
        trusted: Tensor | None = None,
    ) -> Tensor:
        """Restore a volume.

        Parameters
        ----------
        image : Tensor
            (D, H, W), about [0, 1].
        psf : Tensor
            (d, h, w), odd sides, sum 1.
        noise : Tensor
            (), standard deviation of the noise in the image.
        scale, momenta, trusted
            As for `napari_restore.physics.deconvolution.RichardsonLucy`.
        """
        steps = RichardsonLucy(self.stages[-1], momenta=momenta)
        estimates = steps.stages(image, psf, scale, self.stages, trusted)
        merged = self._merge_in_strips(image, estimates, noise.reshape(1))
        # Light is moved, but neither made nor lost: the sum of the product is that of what is kept,
        # since factors are spread as light was gathered.
        kept, made = (_wide_mean(x.clamp(min=0)) for x in (estimates[-2], merged))
        return merged * _wide_mean((kept / made.clamp(min=1e-6)).clamp(max=4))

    def _merge_in_strips(self, image: Tensor, estimates: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Merge as `merge` does, (D, H, W) each, with the features of some rows at a time.

        Those of all would be twice the memory of everything else.
        """
        depth, height, width = image.shape
        # Each layer sees two rows further, of which pairs are one.
        halo = 2 * (len(self.middle) + 2)
        step = max(2 * halo, STRIP // (depth * width) // 2 * 2)
        merged = torch.empty_like(image)
        for start in range(0, height, step):
            stop, first = min(height, start + step), max(0, start - halo)
            rows = slice(first, min(height, stop + halo))
            seen = torch.stack([estimate[:, rows] for estimate in estimates])
            strip = self.merge(image[None, :, rows], seen[None], noise)[0]
            merged[:, start:stop] = strip[:, start - first : stop - first]
        return merged


def _unshuffled(x: Tensor) -> Tensor:
    """Bring 2 × 2 pixels of a plane into channels: (N, C, D, H, W) to (N, 4 C, D, H/2, W/2)."""
    n, c, d, h, w = x.shape
    x = x.reshape(n, c, d, h // 2, 2, w // 2, 2)
    return x.permute(0, 1, 4, 6, 2, 3, 5).reshape(n, 4 * c, d, h // 2, w // 2)


def _shuffled(x: Tensor) -> Tensor:
    """Bring channels back to 2 × 2 pixels: (N, 4 C, D, h, w) to (N, C, D, 2 h, 2 w)."""
    n, c, d, h, w = x.shape
    x = x.reshape(n, c // 4, 2, 2, d, h, w).permute(0, 1, 4, 5, 2, 6, 3)
    return x.reshape(n, c // 4, d, 2 * h, 2 * w)


def _wide_mean(x: Tensor) -> Tensor:
    """Means over neighborhoods of (D, h, w), one axis after another."""
    for axis, side in enumerate(_WIDE):
        half = min(side // 2, x.shape[axis] - 1)
        lines = x.movedim(axis, -1)
        flat = lines.reshape(1, -1, lines.shape[-1])
        mean = F.avg_pool1d(flat, 2 * half + 1, 1, half, count_include_pad=False)
        x = mean.reshape(lines.shape).movedim(-1, axis)
    return x
