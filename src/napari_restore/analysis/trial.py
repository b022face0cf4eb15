"""Try what may have blurred a window of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from napari_restore.physics.camera import to_linear
from napari_restore.physics.psf import stack

from .families import KNOWN, NEIGHBORS, NOTHING, SIZE, Candidate, ellipses, line, of_size
from .free_form import search
from .judge import MARGINS, PLAIN_IS_SPARSER, ReBlur, re_blur, score
from .noise import noise_level
from .point_spread import PSF
from .windows import Window, richest_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

#: Sides in pixels: of the part of a window in which free kernels are searched for, and of the part
#: of that in which hypotheses are tried.
SEARCHED, TRIED = 256, 192
#: Supports of free kernels, and what a sharp edge costs, of those that are tried.
SUPPORTS, COSTS = (15, 23, 31), (2e-3, 8e-3)
#: Below this equivalent sigma an image is sharp, if the gauge is sure within this standard
#: deviation of its logarithm.
_SHARP, _SURE = 0.42, 0.12
#: Sizes in two windows that differ by this factor, and more than by chance, are two sizes.
_DIFFERENT = 1.3
#: Equivalent sigma from which on pupils differ from Gaussians.
_SMALLEST_PUPIL = 1.25
#: Above, the gauge does not know.
_UNSURE = 0.7
#: Below this length in pixels, if the network is so sure, nothing moved; and below this equivalent
#: sigma nothing is blurred in another way.
_STILL, _STILL_SURE, _STILL_SIGMA = 0.5, 0.35, 0.45
#: Bonus of a straight line of a length in pixels or more where the standard deviation of the
#: direction, as the network tells it, is below a limit: free kernels fit noise and texture better.
_LONG, _LINE_BONUS = 5.0, ((0.2, 0.09), (0.3, 0.04))
#: Structure is at least this many times the noise's share of the variance.
_ENOUGH = 0.5


class Tools(NamedTuple):
    """Networks that help, as plain functions of one window, (h, w, C), about [0, 1].

    Attributes
    ----------
    invert : callable
        Restores a batch for given PSFs: (1, C, H, W), (N, k, k), noise, whether the blur acted on
        light before a tone curve; gives (N, C, H, W).
    gauge : callable or None
        How blurred a window is: standard deviation of the equivalent Gaussian in pixels, and the
        standard deviation of its logarithm.
    direction : callable or None
        How a window was moved: length in pixels, angle in radians from x to y, and how unsure.
    plain : callable or None
        Restores a window without knowing the PSF.
    """

    invert: Invert
    gauge: Callable[[Samples], tuple[float, float]] | None = None
    direction: Callable[[Samples], tuple[float, float, float]] | None = None
    plain: Callable[[Samples], Samples] | None = None


class Invert(Protocol):
    """Restores one image for several point spread functions."""

    def __call__(
        self, image: torch.Tensor, psf: torch.Tensor, noise: float, linear: bool
    ) -> torch.Tensor:
        """See `Tools`."""
        ...


@dataclass(frozen=True)
class Choice:
    """What was decided about a window; see `napari_restore.analysis.find.Finding`."""

    verdict: str
    candidate: Candidate | None = None
    psf: PSF | None = None
    check: ReBlur | None = None


class _Trial:
    """Candidates that are tried one after another; the best is kept."""

    def __init__(self, measure: Callable[[Candidate], float]) -> None:
        self._measure = measure
        self.nothing = measure(NOTHING)
        self.least, self.best = self.nothing, NOTHING

    def add(self, candidate: Candidate, bonus: float = 0.0) -> None:
        """Try one more, for which something speaks from the start."""
        there = self._measure(candidate) - bonus
        # Nothing is no candidate: whether one is enough better than that is asked at the end.
        if there < self.least or self.best is NOTHING:
            self.least, self.best = there, candidate

    def around(self, sizes: Sequence[float]) -> None:
        """Try the best in other sizes."""
        best = self.best
        for size in sizes:
            self.add(of_size(best.family, best.sigma * size))


class Looked:
    """A window that is looked at."""

    def __init__(self, window: Window, tools: Tools, linear: bool) -> None:
        samples = window.samples
        self._window, self._tools, self._linear = window, tools, linear
        samples = samples[..., None] if samples.ndim == 2 else samples
        self._samples = samples
        self._searched = samples[richest_part(samples, SEARCHED)]
        part = self._searched[richest_part(self._searched, TRIED)]
        height, width = (length // 16 * 16 for length in part.shape[:2])
        self._tried = np.ascontiguousarray(part[:height, :width])
        self._image = self._tensor(self._tried)
        self.noise = noise_level(self._tried) if self._tried.size else 0.0
        self.sigma, self.unsure = math.nan, math.inf
        if self.has_structure and tools.gauge is not None:
            self.sigma, self.unsure = tools.gauge(self._tried)

    @property
    def has_structure(self) -> bool:
        """Whether there is anything but noise."""
        if min(self._tried.shape[:2]) < 32:
            return False
        variance = float(self._tried.var((0, 1)).mean())
        coarse = self._tried
        height, width, channels = coarse.shape
        means = coarse.reshape(height // 8, 8, width // 8, 8, channels).mean((1, 3))
        # Of white noise an eighth is left by means of 8 x 8 pixels.
        return variance > 1e-7 and float(means.var((0, 1)).mean()) > max(
            _ENOUGH * self.noise**2, 0.06 * variance
        )

    @property
    def is_sharp(self) -> bool:
        """Whether the gauge is sure of it, and no motion is seen."""
        still = self._tools.direction is None or self._is_still
        return self.sigma < _SHARP and self.unsure < _SURE and still

    @property
    def middle(self) -> tuple[float, float]:
        """Where this window is in the image, (y, x) in pixels."""
        height, width = self._window.samples.shape[:2]
        return self._window.top + height / 2, self._window.left + width / 2

    def choose(self, free_form: bool, progress: Callable[[float], None]) -> Choice:
        """Try hypotheses, refine the best and compare it with doing nothing."""
        if free_form and self._is_still:
            return Choice("plain" if self.sigma > _STILL_SIGMA else "sharp")
        trial = _Trial(self._score)
        for candidate in self._moving(progress) if free_form else ():
            trial.add(candidate, self._bonus(candidate))
        if not free_form and self.unsure < _UNSURE and self.sigma > 0.4:
            self._out_of_focus(trial, progress)
        nothing, best = trial.nothing, trial.best
        rival = math.inf
        if self._tools.plain is not None:
            progress(0.8)
            restored = self._tensor(self._tools.plain(self._tried))
            rival = score(restored, self._image)
        margin = MARGINS["known" if best.family in KNOWN else "free"]
        if trial.least > (1 - margin) * nothing:
            undone = rival < PLAIN_IS_SPARSER * nothing or not self.sigma < _SHARP
            return Choice("plain" if undone else "sharp")
        if rival < PLAIN_IS_SPARSER * trial.least:
            return Choice("plain")
        kernel = torch.from_numpy(best.array.copy())
        kept = self._in_light(self._restored(best))
        check = re_blur(self._in_light(self._image), kept, kernel, self._noise())
        return Choice("found", best, self._described(best), check)

    def _out_of_focus(self, trial: _Trial, progress: Callable[[float], None]) -> None:
        """Try the families of a lens out of focus, in sizes around that of the gauge."""
        for family in KNOWN:
            progress(0.15)
            # Pixels hide the form of small pupils.
            if family != "pupil" or self.sigma > _SMALLEST_PUPIL:
                trial.add(of_size(family, SIZE * self.sigma))
        for sizes in NEIGHBORS:
            progress(0.2)
            trial.around(sizes)
        if trial.best.family == "gaussian":
            for ellipse in ellipses(trial.best.sigma):
                progress(0.25)
                trial.add(ellipse)

    def _bonus(self, candidate: Candidate) -> float:
        """Count in favor of a straight line what the network that sees motion is sure of."""
        length, _, unsure = self._direction
        if candidate.family != "line" or length < _LONG:
            return 0.0
        return next((bonus for least, bonus in _LINE_BONUS if unsure < least), 0.0)

    @cached_property
    def _direction(self) -> tuple[float, float, float]:
        if self._tools.direction is None:
            return 0.0, 0.0, math.inf
        return self._tools.direction(self._searched)

    @property
    def _is_still(self) -> bool:
        """Whether no motion is seen, by a network that would."""
        if self._tools.direction is None:
            return False
        length, _, unsure = self._direction
        return length < _STILL and unsure < _STILL_SURE

    def _moving(self, progress: Callable[[float], None]) -> Iterator[Candidate]:
        """Kernels of motion that may have blurred this window."""
        length, angle, _ = self._direction
        if length > 2:
            yield from (line(length * size, angle) for size in (0.94, 1.06))
        light = self._light(self._searched).mean(2)
        for index, support in enumerate(SUPPORTS):
            if support * 3 > min(light.shape):
                return
            share = 0.2 + 0.5 * index / len(SUPPORTS)
            kernels = search(light, support, COSTS, partial(progress, share))
            yield from (Candidate("free", kernel) for kernel in kernels)

    def agrees(self, choice: Choice, first: Looked) -> PSF | None:
        """Whether the PSF of another window holds here too: that, or the one that does."""
        candidate = choice.candidate
        assert candidate is not None
        if candidate.family in KNOWN:
            apart = abs(math.log(max(self.sigma, 1e-3) / max(first.sigma, 1e-3)))
            chance = 2 * math.hypot(self.unsure, first.unsure)
            if not apart > max(math.log(_DIFFERENT), chance):
                return choice.psf
            if self.is_sharp:
                return None
            factor = candidate.sigma / max(first.sigma, 1e-3)
            return self._described(of_size(candidate.family, self.sigma * factor))
        # Of a window with little to see it may say next to nothing.
        return choice.psf if self._score(candidate) < 1.01 * self._score(NOTHING) else None

    def _score(self, candidate: Candidate) -> float:
        return score(self._restored(candidate), self._image)

    def _described(self, candidate: Candidate) -> PSF:
        spread = self.unsure if candidate.family in KNOWN else None
        text = _FOUND[candidate.family].format(**candidate.parameters)
        return PSF(
            candidate.array, candidate.family, candidate.parameters, spread, f"Found: {text}"
        )

    def _tensor(self, samples: Samples) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(samples)).permute(2, 0, 1)[None]

    def _restored(self, candidate: Candidate) -> torch.Tensor:
        kernel = stack([candidate.array])
        return self._tools.invert(self._image, kernel, self.noise, self._linear)

    def _in_light(self, image: torch.Tensor) -> torch.Tensor:
        return to_linear(image) if self._linear else image

    def _light(self, samples: Samples) -> Samples:
        light: Samples = self._in_light(torch.from_numpy(samples)).numpy()
        return light

    def _noise(self) -> float:
        return noise_level(self._light(self._tried)) if self._linear else self.noise


_FOUND = {
    "gaussian": "a Gaussian",
    "disk": "a lens out of focus, a disk of radius {radius:.1f} px",
    "pupil": "a pupil out of focus",
    "line": "straight motion over {length:.0f} px",
    "free": "the path of a moving camera",
}
