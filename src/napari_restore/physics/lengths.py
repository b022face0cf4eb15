"""Lengths with units, as micrometers; fields of dataclasses that hold them; and full widths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from napari_restore.errors import PsfError

if TYPE_CHECKING:
    import pint

    #: A number in µm, a text with a unit ("520 nm"), or a quantity of pint.
    Length = float | str | pint.Quantity[Any]
    from collections.abc import Sequence

    from numpy.typing import NDArray


def micrometers(length: Length, name: str) -> float:
    """Convert a length.

    Parameters
    ----------
    length : float, str or pint.Quantity
        Numbers, and texts without a unit, are micrometers.
    name : str
        What it is, for messages.

    Raises
    ------
    PsfError
        Where it is no finite length.
    """
    import pint

    try:
        quantity: Any = length
        if isinstance(length, str):
            quantity = pint.get_application_registry().Quantity(length)
        if isinstance(quantity, pint.Quantity):
            quantity = quantity if quantity.dimensionless else quantity.to("micrometer")
            quantity = quantity.magnitude
        # True is no length, though Python calls it a number.
        value = math.nan if isinstance(quantity, bool) else float(quantity)
    # What the parser makes of odd texts is not one family of errors.
    except (pint.PintError, ArithmeticError, AttributeError, TypeError, ValueError, SyntaxError):
        value = math.nan
    if not math.isfinite(value):
        raise PsfError(
            f"The {name} is {length!r}, which is not a length. Give a number in µm, or a text with "
            "a unit, such as '520 nm'."
        )
    return value


def named(length: float) -> str:
    """Write a length in µm with the unit that people would choose."""
    return f"{length:.4g} µm" if abs(length) >= 1 or not length else f"{length * 1e3:.4g} nm"


@dataclass
class Measure:
    """What a field may hold.

    Attributes
    ----------
    name : str
        For messages.
    low, high : float
        The range, both ends among it.
    hint : str
        What to give instead.
    length : bool
        Whether it is a length, in µm, or a plain number.
    default : float, optional
    """

    name: str
    low: float
    high: float
    hint: str
    length: bool = True
    default: float | None = None

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute

    def __set__(self, instance: object, given: Length | None) -> None:
        instance.__dict__[self.attribute] = None if given is None else self.checked(given)

    def checked(self, given: Length) -> float:
        """Convert a number, or say why it cannot be."""
        if self.length:
            value = micrometers(given, self.name)
        else:
            try:
                value = float(given)
            except (TypeError, ValueError):
                value = math.nan
        if self.low <= value <= self.high:
            return value
        write = named if self.length else "{:g}".format
        seen = f"{given!r}" if math.isnan(value) else write(value)
        if self.length and value == given:
            seen += f" ({value:g}; plain numbers are µm)"
        bounds = f"{write(self.low)} to {write(self.high)}"
        if math.isinf(self.high):
            bounds = f"{write(self.low)} or more"
        raise PsfError(f"The {self.name} is {seen}, outside {bounds}. {self.hint}")


class Needed(Measure):
    """A number that has to be told."""

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> float: ...
    def __get__(self, instance: object | None, owner: type) -> float | None:
        return self.default if instance is None else instance.__dict__[self.attribute]

    def __set__(self, instance: object, given: Length | None) -> None:
        """Keep a number, or say that it is missing."""
        if given is None:
            raise PsfError(f"The {self.name} is missing. {self.hint}")
        super().__set__(instance, given)


class Told(Measure):
    """A number that may be told."""

    def __get__(self, instance: object | None, owner: type) -> float | None:
        return self.default if instance is None else instance.__dict__[self.attribute]


def full_widths(psf: NDArray[np.floating], peak: Sequence[int] | None = None) -> tuple[float, ...]:
    """Full widths at half maximum along the axes through the brightest pixel, in pixels.

    Parameters
    ----------
    psf : ndarray
        Any number of axes.
    peak : sequence of int, optional
        The pixel, where it is not the brightest.
    """
    if peak is None:
        peak = [int(place) for place in np.unravel_index(int(psf.argmax()), psf.shape)]
    widths = []
    for axis in range(psf.ndim):
        place: tuple[int | slice, ...] = (*peak[:axis], slice(None), *peak[axis + 1 :])
        line = psf[place].astype(np.float64)
        level, top = line[peak[axis]] / 2, int(peak[axis])
        width = 0.0
        for side in (line[top::-1], line[top:]):
            under = np.flatnonzero(side < level)
            if len(under):
                end = int(under[0])
                width += end - (level - side[end]) / (side[end - 1] - side[end])
            else:
                width += len(side) - 0.5
        widths.append(width)
    return tuple(widths)


def describe_widths(psf: NDArray[np.floating], pixel_size: Sequence[float] | None = None) -> str:
    """Write down the full widths at half maximum, in pixels and, where known, in lengths."""
    widths = full_widths(psf)
    text = " × ".join(f"{width:.2f}" for width in widths) + " pixels"
    if pixel_size is None:
        return text
    lengths = (named(w * size) for w, size in zip(widths, pixel_size, strict=True))
    return f"{text} ({' × '.join(lengths)})"
