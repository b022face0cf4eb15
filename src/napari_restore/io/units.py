"""Units of length and time: how files spell them, how OME-XML writes them, how NGFF names them."""

from __future__ import annotations

import math
import re
import unicodedata

_PREFIXES = {
    **{"y": "yocto", "z": "zepto", "a": "atto", "f": "femto", "p": "pico", "n": "nano"},
    **{"µ": "micro", "m": "milli", "c": "centi", "d": "deci", "": "", "da": "deca", "h": "hecto"},
    **{"k": "kilo", "M": "mega", "G": "giga", "T": "tera", "P": "peta", "E": "exa"},
    **{"Z": "zetta", "Y": "yotta"},
}
#: Symbols as in OME-XML, and the names that NGFF allows (UDUNITS-2).
LENGTHS = {
    **{f"{symbol}m": f"{name}meter" for symbol, name in _PREFIXES.items()},
    **{"Å": "angstrom", "in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "pc": "parsec"},
}
TIMES = {
    **{f"{symbol}s": f"{name}second" for symbol, name in _PREFIXES.items()},
    **{"min": "minute", "h": "hour", "d": "day"},
}
#: Units that OME-XML has and NGFF has not, in units that it has.
_IN_OTHERS = {
    **{"thou": (25.4, "µm"), "li": (25.4 / 12, "mm"), "pt": (25.4 / 72, "mm"), "dam": (10, "m")},
    **{"ua": (149597870.7, "km"), "ly": (9.4607304725808, "Pm"), "das": (10, "s")},
}
_SPELLINGS = {
    **dict.fromkeys(("um", "micron"), "µm"),
    **dict.fromkeys(("a", "ang", "ångström", "ångstrom", "ångstroem"), "Å"),
    **dict.fromkeys(("sec", "secs"), "s"),
    **dict.fromkeys(("msec", "msecs"), "ms"),
    **dict.fromkeys(("us", "usec", "usecs"), "µs"),
    **dict.fromkeys(("mins",), "min"),
    **dict.fromkeys(("hr", "hrs"), "h"),
    **{"inches": "in", "feet": "ft"},
}
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_NAMES = {name: symbol for symbol, name in (LENGTHS | TIMES).items()}


def _symbol(text: str, allowed: dict[str, str]) -> str | None:
    """Read a unit however it is spelled; None if it is none of those that are allowed."""
    # ImageJ escapes what is not ASCII; there are two micro signs, and two Å.
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).strip(" \0")
    text = unicodedata.normalize("NFKC", text).replace("μ", "µ").replace("Âµ", "µ")
    if text in allowed:
        return text
    lower = text.lower()
    singular = (lower.removesuffix("s") if len(lower) > 3 else lower).replace("metre", "meter")
    for word in (lower, singular):
        found = _SPELLINGS.get(word) or _NAMES.get(word) or (word if word in allowed else None)
        if found in allowed:
            return found
    return None


def length_unit(text: str) -> str | None:
    """Symbol of a unit of length, such as "µm" for "microns"; None if it is none."""
    if text in _IN_OTHERS:
        return text
    return _symbol(text, LENGTHS)


def time_unit(text: str) -> str | None:
    """Symbol of a unit of time, such as "ms" for "msec"; None if it is none."""
    return _symbol(text, TIMES)


def unit_along(axis: str, text: str) -> str | None:
    """Symbol of a unit along an axis: of time along T, else of length."""
    return time_unit(text) if axis == "T" else length_unit(text)


def for_ngff(size: float, symbol: str) -> tuple[float, str]:
    """Size and unit in which NGFF can say a size, and OME-XML's symbol of that unit."""
    factor, other = _IN_OTHERS.get(symbol, (1.0, symbol))
    return size * factor, other


def ngff_name(symbol: str) -> str | None:
    """Name of a unit in NGFF; None if it has none for it."""
    return None if symbol in _IN_OTHERS else (LENGTHS | TIMES).get(symbol)


def as_size(value: object) -> float | None:
    """Read the size of a step: a finite number above 0, or None."""
    try:
        size = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return size if math.isfinite(size) and size > 0 else None
