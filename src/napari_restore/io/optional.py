"""Libraries that come with an extra: imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from types import ModuleType


def medical(module: str) -> ModuleType:
    """Import nibabel or pydicom, or a part of them.

    Raises
    ------
    FileError
        If it is not installed; says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise FileError(
            f"Medical images need {library}, which cannot be imported ({error}). Install it: "
            'pip install "napari-restore[medical]"'
        ) from error
