"""How far a model agrees with itself, and what that says of its errors.

An image that is turned, mirrored, or seen with other noise of the same strength shows the same
scene. Where the restorations differ, the model guesses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import ndimage

from napari_restore.analysis.find import noise_level
from napari_restore.image.intensity import normalized
from napari_restore.image.layout import Grid, Planes, Region, reflect
from napari_restore.inference.engine import common_context, place_in_view, plane_view, restrain
from napari_restore.runtime import tell, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_restore.restoration.plan import Facts, Plan

    Array = NDArray[np.float32]

#: Quarter turns, and whether the image is mirrored before.
SYMMETRIES = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
#: Times that the image is seen with other noise.
REALIZATIONS = 2
#: What errors are told from, see `Agreement.features`.
FEATURES = ("turns", "change", "gradient", "mean change")
#: Around a pixel, a feature is the root mean square under a Gaussian of this width in pixels.
_AROUND = 1.5
#: Least value of a feature, in the range that the network sees.
_LEAST = 1e-4
_TABLE = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True)
class Agreement:
    """What a model makes of a region, seen in eight ways and with other noise.

    All arrays are in the range that the network sees.

    Attributes
    ----------
    seen, restored : ndarray
        (h, w, C), the region and what the model makes of it as it is.
    turns, noise : ndarray
        (h, w), standard deviation over turns and mirrors, and what other noise changes; root mean
        square over the channels.
    deviations : ndarray
        (n, h, w, C), what each of the eight differs by from their mean.
    level : float
        Standard deviation of the noise in the image.
    """

    seen: Array
    restored: Array
    turns: Array
    noise: Array
    deviations: Array = field(repr=False)
    level: float

    @property
    def features(self) -> Array:
        """Logarithms of what the size of errors is told from: (h, w, `FEATURES`)."""
        change = np.sqrt(((self.restored - self.seen) ** 2).mean(-1))
        slopes = np.gradient(self.restored, axis=(0, 1)) if min(change.shape) > 1 else [change] * 2
        gradient = np.sqrt(sum(np.asarray(slope) ** 2 for slope in slopes))
        gradient = gradient.mean(-1) if gradient.ndim == 3 else gradient
        maps = [_around(part) for part in (self.turns, change, gradient)]
        maps.append(np.full(change.shape, np.sqrt(np.mean(change**2))))
        return np.log(np.stack(maps, -1) + _LEAST).astype(np.float32)


def _around(part: NDArray[Any]) -> NDArray[Any]:
    smooth: NDArray[Any] = np.sqrt(ndimage.gaussian_filter(part.astype(np.float64) ** 2, _AROUND))
    return smooth


def turned(image: torch.Tensor, symmetry: tuple[int, bool]) -> torch.Tensor:
    """Turn and mirror (…, h, w)."""
    turns, mirrored = symmetry
    image = image.flip(-1) if mirrored else image
    return torch.rot90(image, turns, (-2, -1))


def turned_back(image: torch.Tensor, symmetry: tuple[int, bool]) -> torch.Tensor:
    """Undo `turned`."""
    turns, mirrored = symmetry
    image = torch.rot90(image, -turns, (-2, -1))
    return image.flip(-1) if mirrored else image


class Restorer:
    """Restores a region of one plane, turned and mirrored at will.

    Parameters
    ----------
    image : array
        The whole image; the region, its halo and a view of the plane are read.
    plan : Plan
        Of a network that restores plane by plane.
    facts : Facts
    index : tuple of int
    region : Region
    """

    def __init__(
        self, image: Any, plan: Plan, facts: Facts, index: tuple[int, ...], region: Region
    ) -> None:
        layout, planes = plan.layout, Planes(image, plan.layout)
        self._plan, self._facts = plan, facts
        self._channel = layout.group(index)
        self._scale = facts.scales[self._channel]
        predictor = plan.predictor(facts, min(self._channel, max(0, len(facts.blurs) - 1)))
        self.device, self._channels = predictor.device, layout.channels
        self._reach = predictor.halo // 2
        grid = Grid(layout.size, predictor.multiple_of, plan.halo)
        window = grid.window(region)
        inside = grid.inside(window)
        seen, _ = normalized(planes, index, inside, self._scale, plan.spec.frames)
        whole = reflect(seen, inside, window, layout.size)
        self.window = torch.from_numpy(np.ascontiguousarray(whole)).permute(2, 0, 1)[None]
        top, left = region.top - window.top, region.left - window.left
        self._crop = np.s_[..., top : top + region.height, left : left + region.width]
        self._view = self._common = None
        if predictor.view:
            self._view = plane_view(planes, index, facts.scales, predictor.view)
            self._common = common_context(planes, facts.scales, predictor)
        self._box = place_in_view(window, facts.scales, layout.size)

    def __call__(
        self, symmetry: tuple[int, bool] = (0, False), extra: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Restore the region, (1, C, h, w), turned and mirrored meanwhile, or with more noise."""
        window = self.window if extra is None else self.window + extra
        tiles = turned(window, symmetry).contiguous()
        predictor = self._predictor(symmetry)
        context = None
        if self._view is not None:
            context = predictor.encode(turned(self._view, symmetry), self._common)
        boxes = torch.tensor([_turned_box(self._box, symmetry)], dtype=torch.float32)
        seen = tiles[:, : self._channels].clone()
        with torch.inference_mode():
            restored = predictor(tiles.clone(), context, boxes)
            change = restrain(restored - seen, seen, self._reach)
        back: torch.Tensor = turned_back(seen + change, symmetry)[self._crop]
        return back

    @property
    def seen(self) -> torch.Tensor:
        """The region as it is, (1, C, h, w)."""
        part: torch.Tensor = self.window[:, : self._channels][self._crop]
        return part

    def _predictor(self, symmetry: tuple[int, bool]) -> Any:
        from napari_restore.inference.predictor import KnownBlur, find_predictor

        plan, facts = self._plan, self._facts
        channel = min(self._channel, max(0, len(facts.blurs) - 1))
        blur = facts.blurs[channel] if facts.blurs else None
        if blur is None or blur.psf is None:
            return plan.predictor(facts, channel)
        assert plan.inverter is not None
        # The kernel of the image that is turned is turned as well.
        kernel = turned(torch.from_numpy(blur.psf.array.copy()), symmetry).contiguous().numpy()
        known = KnownBlur(kernel, blur.noise, plan.linear)
        return find_predictor(plan.inverter, plan.device, blur=known)


def _turned_box(
    box: tuple[float, float, float, float], symmetry: tuple[int, bool]
) -> tuple[float, float, float, float]:
    """Place in the turned plane, as shares of its height and width."""
    top, left, bottom, right = box
    turns, mirrored = symmetry
    if mirrored:
        left, right = 1 - right, 1 - left
    for _ in range(turns):
        # Counterclockwise: what was right is on top.
        top, left, bottom, right = 1 - right, top, 1 - left, bottom
    return top, left, bottom, right


def find_agreement(
    image: Any, plan: Plan, facts: Facts, index: tuple[int, ...], region: Region
) -> Agreement:
    """Restore a region in eight ways, and with other noise.

    Parameters
    ----------
    image : array
        The whole image.
    plan : Plan
        Of a network that restores plane by plane.
    facts : Facts
    index : tuple of int
        Which plane.
    region : Region
        Of bounded size: it is restored ten times, as one tile.
    """
    restore = Restorer(image, plan, facts, index, region)
    total = (len(SYMMETRIES) + REALIZATIONS) * region.pixels
    level = noise_level(restore.seen[0].permute(1, 2, 0).numpy())
    results, done = [], 0
    for symmetry in SYMMETRIES:
        tell(done, total, "Restoring it turned and mirrored")
        results.append(restore(symmetry))
        done += region.pixels
    base, stack = results[0], torch.cat(results)
    deviations = stack - stack.mean(0, keepdim=True)
    generator, noise = torch.Generator().manual_seed(0), torch.zeros_like(base)
    for _ in range(REALIZATIONS):
        tell(done, total, "Restoring it with other noise")
        drawn = level * torch.randn(restore.window.shape, generator=generator)
        noise += (restore(extra=drawn) - base).square() / REALIZATIONS
        done += region.pixels
    return Agreement(
        _plane(restore.seen),
        _plane(base),
        deviations.square().mean((0, 1)).sqrt().numpy(),
        noise.mean((0, 1)).sqrt().numpy(),
        deviations.permute(0, 2, 3, 1).numpy(),
        level,
    )


def _plane(tensor: torch.Tensor) -> Array:
    plane: Array = np.ascontiguousarray(tensor[0].permute(1, 2, 0).float().numpy())
    return plane


# ---------------------------------------------------------------- from agreement to errors


@lru_cache(maxsize=1)
def calibrations() -> Mapping[str, Any]:
    """Return what ``benchmarks/calibration.py`` found, by the name of the model."""
    if not _TABLE.exists():
        return {}
    return cast("Mapping[str, Any]", json.loads(_TABLE.read_text("utf-8")))


def likely_error(agreement: Agreement, calibration: Mapping[str, Any]) -> Array:
    """Size of error that 68 % of the samples do not exceed, (h, w), as the network sees them.

    Parameters
    ----------
    agreement : Agreement
    calibration : mapping
        Entry of `calibrations`.
    """
    weights = [calibration["error"]["weights"][name] for name in FEATURES]
    logs = agreement.features @ np.array(weights) + calibration["error"]["constant"]
    error: Array = np.exp(logs).astype(np.float32)
    return error
