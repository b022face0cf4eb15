"""Find the point spread function that blurred an image: try candidates, and judge them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_restore.image.intensity import evenly, structure
from napari_restore.physics import motion, psf
from napari_restore.physics.camera import to_linear
from napari_restore.physics.psf import stack
from napari_restore.runtime import side_by_side

from .free_form import refined, search
from .judge import merit, re_blur, score
from .point_spread import PSF
from .spectrum import misfit, power_spectrum, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .judge import ReBlur

    Samples = NDArray[np.float32]

#: Side of the windows that are looked at, in pixels, and how many are compared at most.
WINDOW, WINDOWS = 512, 3


@dataclass(frozen=True)
class Part:
    """The PSF of a part of an image whose middle is at (y, x) pixels."""

    y: float
    x: float
    psf: PSF | None


@dataclass(frozen=True)
class Finding:
    """What was found out about the blur of an image.

    Attributes
    ----------
    verdict : str
        ``found``; ``varies``: found, and not the same everywhere, see ``parts``; ``sharp``: nothing
        to undo; ``plain``: a restoration that is not told a PSF is better than any that is;
        ``unknown``: too noisy or too little structure.
    psf : PSF or None
        None unless one was found.
    noise : float
        Standard deviation of the image's noise, in the units of the image that was looked at.
    check : ReBlur or None
    statement : str
        All that in plain words.
    parts : tuple of Part
        One for each window that was looked at.
    """

    verdict: str
    psf: PSF | None
    noise: float
    statement: str
    check: ReBlur | None = None
    parts: tuple[Part, ...] = field(default=())


def find_psf(
    image: Any,
    tools: Tools,
    *,
    linear: bool = False,
    free_form: bool = True,
    progress: Callable[[float], None] = lambda share: None,
) -> Finding:
    """Find the point spread function of an image, if there is one to be found.

    Parameters
    ----------
    image : array
        (H, W) or (H, W, C), about [0, 1]; anything that can be sliced. Lazy arrays are read in at
        most 16 windows.
    tools : Tools
    linear : bool
        The blur acted on light, before the sRGB tone curve of the image.
    free_form : bool
        Also look for kernels of any form: motion.
    progress : callable
        Told the share of the work that is done, again and again; may raise to cancel.

    Returns
    -------
    Finding
    """
    progress(0.0)
    windows = rich_windows(image, WINDOW, WINDOWS, lambda: progress(0.02))
    looked = [Looked(window, tools, linear) for window in windows]
    seen = [part for part in looked if part.has_structure]
    if not seen:
        noise = looked[0].noise if looked else 0.0
        return Finding("unknown", None, noise, _UNKNOWN)
    progress(0.1)
    if all(part.is_sharp for part in seen):
        return Finding("sharp", None, seen[0].noise, _SHARP_STATEMENT)
    first = seen[0]
    choice = first.choose(free_form, progress)
    verdict, psf = choice.verdict, choice.psf
    if psf is None:
        statement = _SHARP_STATEMENT if verdict == "sharp" else _PLAIN
        return Finding(verdict, None, first.noise, statement)
    parts = [Part(*first.middle, psf)]
    for other in seen[1:]:
        progress(0.85)
        parts.append(Part(*other.middle, other.agrees(choice, first)))
    varies = any(part.psf is not psf for part in parts)
    statement = f"{psf.found}; it {choice.check.statement}." if choice.check else psf.found
    if varies:
        verdict = "varies"
        statement += _VARIES if all(part.psf is not None for part in parts) else _NOT_EVERYWHERE
    progress(1.0)
    return Finding(verdict, psf, first.noise, statement, choice.check, tuple(parts))


_UNKNOWN = (
    "The image has too little structure above its noise to find a point spread function; it is "
    "restored without one."
)
_VARIES = " It is not the same everywhere: parts of the image have their own."
_NOT_EVERYWHERE = " It is not the same everywhere: in parts of the image it does not hold."
_SHARP_STATEMENT = "The image is sharp: there is no blur to undo."
_PLAIN = "No point spread function explains the image better than a restoration without one."


#: Most windows along each axis that are looked at.
_MOST = 4


class Window(NamedTuple):
    """A part of an image.

    Attributes
    ----------
    top, left : int
    samples : ndarray
        (h, w) or (h, w, C), float32; samples that are not finite are the median of the others.
    structure : float
        Mean gradient of details coarser than noise.
    """

    top: int
    left: int
    samples: NDArray[np.float32]
    structure: float


def rich_windows(
    image: Any, side: int = 512, count: int = 3, check: Callable[[], None] = lambda: None
) -> list[Window]:
    """Choose windows of an image.

    Parameters
    ----------
    image : array
        (H, W) or (H, W, C); anything that can be sliced, lazy ones are read in windows alone.
    side : int
        Of the windows in pixels; smaller images are one window.
    count : int
        Most that are given.
    check : callable
        Called before each window is read; may raise.

    Returns
    -------
    list of Window
        The one with the most structure first; the further ones do not overlap it.
    """
    places = [_starts(length, side) for length in image.shape[:2]]
    found = []
    for top in places[0]:
        for left in places[1]:
            check()
            samples = np.asarray(image[top : top + side, left : left + side], np.float32)
            samples = _filled(samples)
            found.append(Window(top, left, samples, structure(samples)))
    found.sort(key=lambda window: -window.structure)
    chosen: list[Window] = []
    for window in found:
        apart = (max(abs(window.top - w.top), abs(window.left - w.left)) >= side for w in chosen)
        if len(chosen) < count and all(apart):
            chosen.append(window)
    return chosen


def richest_part(samples: NDArray[np.float32], side: int) -> tuple[slice, slice]:
    """Find the square with the most structure; of sides below ``side`` the whole."""
    height, width = samples.shape[:2]
    best, part = -1.0, (slice(0, height), slice(0, width))
    for top in evenly(height, side, 5):
        for left in evenly(width, side, 5):
            here = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            there = structure(samples[here])
            if there > best:
                best, part = there, here
    return part


def _filled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    good = np.isfinite(samples)
    if good.all():
        return samples
    middle = float(np.median(samples[good])) if good.any() else 0.0
    return np.where(good, samples, np.float32(middle))


def _starts(length: int, side: int) -> list[int]:
    return evenly(length, side, min(_MOST, max(1, length // side)))


#: Fourth differences: what is smooth over five pixels leaves nothing.
_FILTER = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)
#: Side of the blocks in pixels, how many levels of brightness are told apart, and which of the
#: blocks of a level counts: structure is in the others.
_BLOCK, _LEVELS, _QUIET = 16, 6, 0.3
#: By how much that block has less noise than the mean of all, by chance.
_CHANCE = 1.09


def noise_level(image: NDArray[np.floating]) -> float:
    """Estimate the noise of an image.

    Parameters
    ----------
    image : ndarray
        (H, W) or (H, W, C), any range.

    Returns
    -------
    float
        Root mean square over the image, in its units, rounding included. Shot noise differs with
        the brightness: levels of brightness are estimated apart, and averaged.

    Notes
    -----
    Differences along both axes that leave little of what is smooth, as in Immerkaer, "Fast Noise
    Variance Estimation", CVIU 1996; of the blocks of each brightness the quiet ones, since texture
    is not noise.
    """
    planes = np.asarray(image, np.float64)
    planes = planes[..., None] if planes.ndim == 2 else planes
    variances = [_variance(planes[..., index]) for index in range(planes.shape[-1])]
    return float(np.sqrt(np.mean(variances)))


def _variance(plane: NDArray[np.float64]) -> float:
    if min(plane.shape) < 12:
        return 0.0
    rough = ndimage.convolve1d(ndimage.convolve1d(plane, _FILTER, axis=0), _FILTER, axis=1)
    rough, plane = rough[2:-2, 2:-2], plane[2:-2, 2:-2]
    block = min(_BLOCK, *plane.shape)
    energy, level = (_blocks(part, block).ravel() for part in (rough**2, plane))
    order = np.argsort(level)
    parts = np.array_split(energy[order], max(1, min(_LEVELS, len(order) // 8)))
    return float(
        np.average([np.quantile(part, _QUIET) for part in parts], weights=[len(p) for p in parts])
    ) * (_CHANCE**2)


def _blocks(plane: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Means over blocks."""
    height, width = (length // side * side for length in plane.shape)
    cut = plane[:height, :width].reshape(height // side, side, width // side, side)
    means: NDArray[np.float64] = cut.mean((1, 3))
    return means


#: Equivalent sigmas in pixels that are looked for, and how many steps lie between two of them.
SIGMAS, _STEPS = np.geomspace(0.45, 4.0, 23), 10
#: Defocus of the pupils in radians.
_DEFOCUS = 1.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel that may have blurred an image.

    Attributes
    ----------
    family : str
    array : ndarray
        (k, k), odd k, sum 1.
    parameters : mapping
        In pixels and radians.
    """

    family: str
    array: NDArray[np.float32]
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian that blurs as much."""
        return psf.equivalent_sigma(self.array)


#: Families whose size an estimator sees.
KNOWN = ("gaussian", "disk", "pupil")

NOTHING = Candidate("none", np.ones((1, 1), np.float32))


def of_size(family: str, sigma: float) -> Candidate:
    """Kernel of a family that blurs as much as a Gaussian of a standard deviation in pixels."""
    if family == "gaussian":
        return Candidate(family, psf.gaussian(sigma), {"sigma": sigma})
    if family == "disk":
        return Candidate(family, psf.disk(2 * sigma), {"radius": 2 * sigma})
    if family == "pupil":
        cutoff = _cutoff(round(sigma, 2))
        array = _pupil(cutoff)
        return Candidate(family, array, {"cutoff": cutoff, "defocus": _DEFOCUS})
    raise ValueError(f"There is no family '{family}'.")


def line(length: float, angle: float) -> Candidate:
    """Even motion along a line; the angle in radians from the x axis toward y."""
    array = psf.combine(motion.kernel(motion.line(length, angle)), psf.gaussian(0.35))
    return Candidate("line", psf.centered(array), {"length": length, "angle": angle})


@lru_cache(maxsize=1)
def _transfers() -> dict[str, list[NDArray[np.float64]]]:
    """Transfer functions of each family out of focus, one for each of `SIGMAS`."""
    return {family: [transfer(of_size(family, s).array) for s in SIGMAS] for family in KNOWN}


@dataclass(frozen=True, eq=False)
class Defocus:
    """How far out of focus an image is.

    Attributes
    ----------
    candidate : Candidate
    unsure : float
        Standard deviation of the logarithm of its size.
    evidence : float
        Logarithm of how much more likely it is than no blur.
    """

    candidate: Candidate
    unsure: float
    evidence: float


#: What a misfit has to grow by for a blur to be less likely by a factor of e: spectra of images
#: are no power laws, and their rings are off together.
_MISFIT = 20.0
#: What the estimator is off by beside what it says, in logarithms; and what it counts at most,
#: since it may be off altogether.
_ESTIMATE, _WRONG = 0.12, 12.0
#: What speaks against pupils, which differ from Gaussians by little: logarithm of how rare they
#: are; and the sigma of images without blur.
_RARE, _NONE = 3.0, 0.3
#: What has to speak for a blur, and how sure its size has to be: below, a network that is told
#: nothing does better. How many standard deviations of the estimator it may be off.
_EVIDENCE, _SURE_SIZE, _OFF = 8.0, 0.15, 2.0


def defocus(
    plane: NDArray[np.floating],
    sigma: float,
    unsure: float,
    progress: Callable[[float], None] = lambda share: None,
) -> Defocus:
    """Find how far out of focus a plane is, from its spectrum and what an estimator says of it.

    Parameters
    ----------
    plane : ndarray
        (H, W) of light.
    sigma, unsure : float
        Standard deviation in pixels of the Gaussian that blurs as much, and the standard deviation
        of its logarithm; infinite where nothing is known.
    progress : callable
        Told the share of the work that is done; may raise.

    Returns
    -------
    Defocus
    """
    spectrum = power_spectrum(plane)

    def told(size: NDArray[np.float64]) -> NDArray[np.float64]:
        if not math.isfinite(unsure):
            return np.zeros(len(size))
        off = np.log(size / max(sigma, 1e-3)) / math.hypot(_ESTIMATE, unsure)
        return np.minimum(off**2 / 2, _WRONG)

    fine = np.geomspace(SIGMAS[0], SIGMAS[-1], _STEPS * (len(SIGMAS) - 1) + 1)
    against = {}
    for number, (family, transfers) in enumerate(_transfers().items()):
        progress(number / len(KNOWN))
        misfits = [misfit(spectrum, passed) for passed in transfers]
        against[family] = np.interp(np.log(fine), np.log(SIGMAS), misfits) / _MISFIT + told(fine)
    # Pixels hide the form of small pupils.
    against["pupil"] = np.where(fine > _SMALLEST_PUPIL, against["pupil"] + _RARE, np.inf)
    nothing = misfit(spectrum, np.ones_like(_transfers()["disk"][0])) / _MISFIT
    nothing += float(told(np.array([_NONE]))[0])
    best = min(against, key=lambda family: float(against[family].min()))
    costs = against[best]
    likely = np.exp(costs.min() - costs)
    logs = np.log(fine)
    mean = float((likely * logs).sum() / likely.sum())
    spread = math.sqrt(float((likely * (logs - mean) ** 2).sum() / likely.sum()))
    evidence = float(nothing - costs.min())
    return Defocus(of_size(best, float(fine[costs.argmin()])), spread, evidence)


@lru_cache(maxsize=64)
def _cutoff(sigma: float) -> float:
    low, high = 0.05, 1.0
    for _ in range(12):
        middle = math.sqrt(low * high)
        larger = psf.equivalent_sigma(_pupil(middle)) > sigma
        low, high = (middle, high) if larger else (low, middle)
    return math.sqrt(low * high)


def _pupil(cutoff: float) -> NDArray[np.float32]:
    return psf.pupil(cutoff, {"defocus": _DEFOCUS}, half=12)


#: A restoration has to score this much better than the image itself, as a share: of PSFs of any
#: form one always fits somewhat.
MARGIN = 0.03
#: Restorations that are not told a PSF take more noise away, and look this much sparser for it.
PLAIN_IS_SPARSER = 0.9
#: Side in pixels of the part of a window in which kernels are searched for, and tried.
TRIED = 256
#: Supports of free kernels, and what a sharp edge costs, of those that are tried.
SUPPORTS, COSTS = (15, 23, 31), (8e-3, 2e-2)
#: How many of the best kernels are found again from what they restore, and how often at most.
REFINED, REFINEMENTS = 3, 3
#: Below this equivalent sigma an image is sharp, if the estimator is sure within this standard
#: deviation of its logarithm.
_SHARP, _SURE = 0.42, 0.12
#: Sizes in two windows that differ by this factor, and more than by chance, are two sizes.
_DIFFERENT = 1.3
#: Equivalent sigma from which on pupils differ from Gaussians.
_SMALLEST_PUPIL = 1.25
#: Below this length in pixels, if the network is so sure, nothing moved; and below this equivalent
#: sigma nothing is blurred in another way.
_STILL, _STILL_SURE, _STILL_SIGMA = 0.5, 0.35, 0.45
#: Bonus of a straight line of a length in pixels or more where the standard deviation of the
#: direction, as the network tells it, is below a limit: free kernels fit noise and texture better.
_LONG, _LINE_BONUS = 5.0, ((0.2, 3.9), (0.3, 1.7))
#: Structure is at least this many times the noise's share of the variance.
_ENOUGH = 0.5


class Tools(NamedTuple):
    """Networks that help, as plain functions of one window, (h, w, C), about [0, 1].

    Attributes
    ----------
    invert : callable
        Restores a batch for given PSFs: (1, C, H, W), (N, k, k), noise, whether the blur acted on
        light before a tone curve; gives (N, C, H, W).
    estimator : callable or None
        How blurred a window is: standard deviation of the equivalent Gaussian in pixels, and the
        standard deviation of its logarithm.
    direction : callable or None
        How a window was moved: length in pixels, angle in radians from x to y, and how unsure.
    plain : callable or None
        Restores a window without knowing the PSF.
    """

    invert: Invert
    estimator: Callable[[Samples], tuple[float, float]] | None = None
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


class Tried(NamedTuple):
    """A candidate that was tried, and what it restores.

    Attributes
    ----------
    candidate : Candidate
    restored : Tensor
    score : float
        Beside doing nothing, the less the better; see `score`.
    merit : float
        Beside other candidates, the more the better; see `merit`.
    """

    candidate: Candidate
    restored: Tensor
    score: float
    merit: float


class Looked:
    """A window that is looked at."""

    def __init__(self, window: Window, tools: Tools, linear: bool) -> None:
        samples = window.samples
        self._window, self._tools, self._linear = window, tools, linear
        samples = samples[..., None] if samples.ndim == 2 else samples
        self._samples = samples
        part = samples[richest_part(samples, TRIED)]
        height, width = (length // 16 * 16 for length in part.shape[:2])
        self._tried = np.ascontiguousarray(part[:height, :width])
        self._image = self._tensor(self._tried)
        self.noise = noise_level(self._tried) if self._tried.size else 0.0
        self.sigma, self.unsure = math.nan, math.inf
        if self.has_structure and tools.estimator is not None:
            self.sigma, self.unsure = tools.estimator(self._tried)

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
        """Whether the estimator is sure of it, and no motion is seen."""
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
        if not free_form:
            return self._out_of_focus(progress)
        tried = self.tried(progress)
        # Nothing is no candidate: whether one is enough better than that is asked at the end.
        (nothing,) = self._try([NOTHING])
        better = [one for one in tried if one.score <= (1 - MARGIN) * nothing.score]
        rival = math.inf
        if self._tools.plain is not None:
            progress(0.8)
            restored = self._tensor(self._tools.plain(self._tried))
            rival = score(restored, self._image)
        if not better:
            undone = rival < PLAIN_IS_SPARSER * nothing.score or not self.sigma < _SHARP
            return Choice("plain" if undone else "sharp")
        best = max(better, key=lambda one: one.merit)
        if rival < PLAIN_IS_SPARSER * best.score:
            return Choice("plain")
        found, check = best.candidate, self._check(best.candidate, best.restored)
        return Choice("found", found, self._described(found), check)

    def tried(self, progress: Callable[[float], None] = lambda share: None) -> list[Tried]:
        """Try kernels of motion, and the best again as they are found from what they restore."""
        tried = self._try(self._moving(progress))
        return tried + self._refined(tried, progress)

    def _out_of_focus(self, progress: Callable[[float], None]) -> Choice:
        """Decide whether a lens was out of focus, and how far."""
        progress(0.2)
        found = self.defocus
        progress(0.7)
        if self.sees_defocus:
            check = self._check(found.candidate, self._undone([found.candidate]))
            if check.fits:
                return Choice("found", found.candidate, self._described(found.candidate), check)
        return Choice("sharp" if self.sigma < _SHARP else "plain")

    @cached_property
    def defocus(self) -> Defocus:
        """How far out of focus the window is."""
        return defocus(self._light(self._samples).mean(2), self.sigma, self.unsure)

    @property
    def sees_defocus(self) -> bool:
        """Whether enough speaks for that, and the estimator does not speak against it."""
        found = self.defocus
        off = abs(math.log(found.candidate.sigma / max(self.sigma, 1e-3)))
        agrees = math.isnan(off) or off < _OFF * math.hypot(_ESTIMATE, self.unsure)
        return agrees and found.evidence > _EVIDENCE and found.unsure < _SURE_SIZE

    def _check(self, candidate: Candidate, restored: Tensor) -> ReBlur:
        """See whether a kernel explains what is tried."""
        image, kept = self._in_light(self._image), self._in_light(restored)
        return re_blur(image, kept, torch.from_numpy(candidate.array.copy()), self._noise())

    def bonus(self, candidate: Candidate) -> float:
        """Count in favor of a straight line what the network that sees motion is sure of."""
        length, _, unsure = self._direction
        if candidate.family != "line" or length < _LONG:
            return 0.0
        return next((bonus for least, bonus in _LINE_BONUS if unsure < least), 0.0)

    @cached_property
    def _direction(self) -> tuple[float, float, float]:
        if self._tools.direction is None:
            return 0.0, 0.0, math.inf
        return self._tools.direction(self._tried)

    @property
    def _is_still(self) -> bool:
        """Whether no motion is seen, by a network that would."""
        if self._tools.direction is None:
            return False
        length, _, unsure = self._direction
        return length < _STILL and unsure < _STILL_SURE

    def _moving(self, progress: Callable[[float], None]) -> list[Candidate]:
        """Kernels of motion that may have blurred this window."""
        length, angle, _ = self._direction
        lines = [line(length * size, angle) for size in (0.94, 1.06)] if length > 2 else []
        light = self._light(self._tried).mean(2)
        # The longest first, so that none of the threads is left alone with it.
        searches = [
            partial(search, light, support, cost)
            for support in reversed(SUPPORTS)
            for cost in COSTS
            if support * 3 <= min(light.shape)
        ]
        found = side_by_side(searches, lambda done: progress(0.2 + 0.3 * done / len(searches)))
        return lines + [Candidate("free", kernel) for kernel in found]

    def _refined(self, tried: Sequence[Tried], progress: Callable[[float], None]) -> list[Tried]:
        """Find the best kernels again, from the images that they restore."""
        light, found = self._light(self._tried).mean(2), list[Tried]()
        going = sorted(tried, key=lambda one: -one.merit)[:REFINED]
        for number in range(REFINEMENTS):
            if not going:
                break
            progress(0.6 + 0.2 * number / REFINEMENTS)
            searches = []
            for before in going:
                sharp = self._in_light(before.restored).mean(1)[0].numpy()
                searches.append(partial(refined, light, sharp, before.candidate.array))
            after = self._try([Candidate("free", kernel) for kernel in side_by_side(searches)])
            found += after
            pairs = zip(after, going, strict=True)
            going = [there for there, before in pairs if there.merit >= before.merit]
        return found

    def agrees(self, choice: Choice, first: Looked) -> PSF | None:
        """Whether the PSF of another window holds here too: that, or the one that does."""
        candidate = choice.candidate
        assert candidate is not None
        if candidate.family in KNOWN:
            own, there = self.defocus, first.defocus
            if not self.sees_defocus:
                return None if self.is_sharp else choice.psf
            apart = abs(math.log(own.candidate.sigma / candidate.sigma))
            if not apart > max(math.log(_DIFFERENT), 2 * math.hypot(own.unsure, there.unsure)):
                return choice.psf
            return self._described(of_size(candidate.family, own.candidate.sigma))
        # Of a window with little to see it may say next to nothing.
        told, nothing = self._try([candidate, NOTHING])
        return choice.psf if told.score < 1.01 * nothing.score else None

    def _try(self, candidates: Sequence[Candidate]) -> list[Tried]:
        image, images = self._image, self._undone(candidates).split(1)
        return [
            Tried(
                candidate,
                restored,
                score(restored, image),
                merit(restored, image, candidate.array) + self.bonus(candidate),
            )
            for candidate, restored in zip(candidates, images, strict=True)
        ]

    def _undone(self, candidates: Sequence[Candidate]) -> Tensor:
        kernels = stack([candidate.array for candidate in candidates])
        return self._tools.invert(self._image, kernels, self.noise, self._linear)

    def _described(self, candidate: Candidate) -> PSF:
        spread = self.defocus.unsure if candidate.family in KNOWN else None
        text = _FOUND[candidate.family].format(**candidate.parameters)
        return PSF(
            candidate.array, candidate.family, candidate.parameters, spread, f"Found: {text}"
        )

    def _tensor(self, samples: Samples) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(samples)).permute(2, 0, 1)[None]

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
