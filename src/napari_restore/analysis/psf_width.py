"""Whether a point spread function with planes is wider than an image allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_restore.physics.deconvolution import RichardsonLucy, Scale
from napari_restore.runtime import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

#: Share of the samples that is hidden, most steps, and steps without a gain after which they end.
_HIDDEN, _STEPS, _PATIENCE = 0.1, 45, 10
#: What a narrower PSF has to gain, as a share of what the steps have learned of the noise; and how
#: many times what one that is narrower still gains. Where the first one was right, the share was
#: below 0.15 in 59 of 67 made-up volumes; where it was 10 % too wide and cost more than 1 dB, 0.19
#: and more in nearly all.
_GAIN, _BEND = 0.17, 1.5
#: What is added to samples about [0, 1] before roots are taken: their noise is even then.
_DARK = 0.02


def is_too_wide(
    image: torch.Tensor, psfs: Sequence[NDArray[np.float32]], pedestal: float = 0.0
) -> bool:
    """See whether an image is sharper than a PSF allows.

    A part of the samples is hidden from the steps of Richardson and Lucy, and foretold from the
    others. A PSF that is narrower foretells a little better than the right one, since it asks for
    fewer steps, which bring noise. It foretells much better than one that is too wide, and one that
    is narrower still gains less.

    Parameters
    ----------
    image : Tensor
        (Z, Y, X), light above the background, about [0, 1]: a part of a volume.
    psfs : sequence of three ndarray
        (Z, Y, X) each, odd sides, sum 1: that in question, and two that are narrower, by as much
        each.
    pedestal : float
        See `napari_restore.physics.deconvolution.Scale`.

    Notes
    -----
    The idea to choose a blur by samples that were left out is that of cross-validation: Reeves and
    Mersereau, "Blur identification by the method of generalized cross-validation", IEEE
    Transactions on Image Processing, 1992.
    """
    # The same ones are hidden each time: what is left to chance is nearly the same for all.
    chance = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    hidden = (chance < _HIDDEN).to(image.device)
    if not hidden.any():
        return False
    told, learned = _foretold(image, psfs[0], pedestal, hidden)
    narrow, _ = _foretold(image, psfs[1], pedestal, hidden)
    if not told - narrow > _GAIN * learned > 0:
        return False
    narrowest, _ = _foretold(image, psfs[2], pedestal, hidden)
    return told - narrow > _BEND * (narrow - narrowest)


@dataclass
class _Look:
    """Errors where samples are hidden and where they are not, at the best step so far."""

    seen: torch.Tensor
    hidden: torch.Tensor
    pedestal: float
    steps: int = 0
    best: tuple[float, float] = (math.inf, math.inf)
    at: int = 0

    def __call__(self, model: torch.Tensor) -> bool:
        """Compare what was foretold; whether that is enough."""
        error = ((model.clamp(min=0) + self.pedestal + _DARK).sqrt() - self.seen).square_()
        there = float(error[self.hidden].mean(dtype=torch.float64))
        if there < self.best[0]:
            self.best = there, float(error[~self.hidden].mean(dtype=torch.float64))
            self.at = self.steps
        self.steps += 1
        return self.steps - self.at > _PATIENCE


def _foretold(
    image: torch.Tensor, psf: NDArray[np.float32], pedestal: float, hidden: torch.Tensor
) -> tuple[float, float]:
    """Logarithm of the error where samples are hidden, and by how much it is less elsewhere."""
    look = _Look(((image + pedestal).clamp(min=0) + _DARK).sqrt(), hidden, pedestal)
    steps, scale = RichardsonLucy(_STEPS), Scale(1.0, pedestal)
    steps.follow(image, torch.from_numpy(psf.copy()), scale, look, (~hidden).to(image))
    there, learned = (math.log(max(error, 1e-12)) for error in look.best)
    return there, there - learned
