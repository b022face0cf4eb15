"""Values in the headers of DICOM files, which are often sloppy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def value_of(dataset: Any, keyword: str) -> Any:
    """Look a value up; None where it is missing, empty, or nothing that can be decoded."""
    try:
        value = dataset.get(keyword)
    # pydicom decodes when asked, and raises whatever a sloppy value makes it stumble over.
    except Exception:
        return None
    return None if value in ("", []) else value


def unreadable(dataset: Any, keyword: str) -> bool:
    """Whether a header says something that cannot be decoded."""
    if keyword not in dataset or value_of(dataset, keyword) is not None:
        return False
    raw = dataset.get_item(keyword).value
    return raw is not None and bool(len(raw))


def numbers(value: Any, count: int) -> list[float] | None:
    """Read finite numbers, also with a decimal comma; None unless there are ``count``."""
    if isinstance(value, str):
        value = value.split("\\")
    values = list(value) if isinstance(value, Iterable) else [value]
    try:
        found = [float(str(each).strip().replace(",", ".")) for each in values]
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def functional(dataset: Any, frame: int, sequence: str, keyword: str) -> Any:
    """Look up what holds for a frame: its own group, the group of all frames, the file itself."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = value_of(dataset, groups) or []
        number = frame if groups.startswith("Per") else 0
        inner = value_of(items[number], sequence) if number < len(items) else None
        if inner and value_of(inner[0], keyword) is not None:
            return value_of(inner[0], keyword)
    return value_of(dataset, keyword)
