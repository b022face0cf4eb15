"""Find the point spread function that blurred an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .trial import Looked, Tools
from .windows import rich_windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .judge import ReBlur
    from .point_spread import PSF

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
