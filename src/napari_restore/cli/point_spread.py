"""Where commands take point spread functions from: files, beads, optics, or the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import PsfError, RestoreError
from napari_restore.io import read_image
from napari_restore.physics.lengths import micrometers
from napari_restore.restoration.given_psf import Measured, find_pixel_size, optics_of_channels

from .inputs import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from napari_restore.io import ImageFile

#: Options of the command line that are arguments of `Optics`, by the argument.
OPTICS = {
    "na": "--na",
    "wavelength": "--wavelength",
    "refractive_index": "--ri",
    "modality": "--modality",
    "excitation": "--excitation",
    "sheet_thickness": "--sheet-thickness",
    "defocus": "--defocus",
}
#: What `--psf` takes beside files.
WORDS = ("none", "auto", "optics")


def told_optics(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Optics` that the command line names."""
    all_of_them = {name: getattr(args, name, None) for name in OPTICS}
    told: dict[str, Any] = {k: value for k, value in all_of_them.items() if value is not None}
    for name, value in told.items():
        if name not in ("modality", "wavelength"):
            told[name] = _number(value)
    if "wavelength" in told:
        each = [_number(part.strip()) for part in told["wavelength"].split(",")]
        told["wavelength"] = each if len(each) > 1 else each[0]
    return told


def _number(text: str) -> float | str:
    """Read a plain number; texts with a unit stay."""
    try:
        return float(text)
    except ValueError:
        return text


def _lengths(told: str) -> Any:
    """Read one length, or several between commas."""
    each = [_number(part.strip()) for part in told.split(",")]
    return each if len(each) > 1 else each[0]


def pixel_size_of(picture: ImageFile | None, told: str | None) -> tuple[float, ...] | None:
    """Height and width of the pixels in µm: what the command line says, or the file.

    The distance of planes comes before them, where it is known.
    """
    size = None if told is None else find_pixel_size(_lengths(told))
    if picture is None or (size is not None and len(size) == 3):
        return size
    size = _in_plane(picture) if size is None else size
    step = picture.pixel_size.get("Z")
    if size is None or step is None:
        return size
    return _micrometers(*step), *size


def _micrometers(size: float, unit: str) -> float:
    spelt = "angstrom" if unit == "Å" else unit
    return micrometers(f"{size} {spelt}", "pixel size of the image")


def _in_plane(picture: ImageFile) -> tuple[float, float] | None:
    sizes = [picture.pixel_size.get(axis) for axis in "YX"]
    known = next((size for size in sizes if size is not None), None)
    if known is None:
        return None
    height, width = (_micrometers(*(size or known)) for size in sizes)
    return height, width


class PsfSource:
    """The point spread function that a command line asks for.

    Parameters
    ----------
    args : Namespace
        Of a command with these options.

    Raises
    ------
    UsageError
        If several are asked for, or a file is none.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._told = told_optics(args)
        self._pixel_size: str | None = args.pixel_size
        given = [
            name
            for name, there in (
                ("--psf", args.psf not in (None, "optics")),
                ("--beads", args.beads is not None),
                (
                    OPTICS[next(iter(self._told))] if self._told else "--psf optics",
                    bool(self._told) or args.psf == "optics",
                ),
            )
            if there
        ]
        if len(given) > 1:
            raise UsageError(
                f"Both {given[0]} and {given[1]} name a point spread function. Give one of them."
            )
        self._optics = args.psf == "optics" or bool(self._told)
        self._known: Any = None if args.psf == "optics" else args.psf
        try:
            # Before the first image: a file that is none is no fault of each.
            if self._pixel_size is not None:
                find_pixel_size(_lengths(self._pixel_size))
            if args.beads is not None:
                self._known = beads_in(Path(args.beads))
            elif args.psf not in (None, *WORDS):
                self._known = measured_in(Path(args.psf))
        except RestoreError as error:
            raise UsageError(str(error)) from error

    @property
    def asked(self) -> bool:
        """Whether there is one."""
        given = self._known is not None and not (
            isinstance(self._known, str) and self._known == "none"
        )
        return self._optics or given

    def options(self, picture: ImageFile) -> tuple[dict[str, Any], list[str]]:
        """Options ``psf`` and ``pixel_size`` for an image, and what has to be said of them."""
        size = pixel_size_of(picture, self._pixel_size)
        if not self._optics:
            return {"psf": self._known, "pixel_size": size}, []
        channels, notes = optics_of_channels(recorded_in(picture), self._told)
        return {"psf": channels, "pixel_size": size}, notes


def recorded_in(picture: ImageFile) -> str | Mapping[str, Any] | None:
    """Return what a file records of its microscope."""
    xml: str | None = picture.extras.get("xml")
    return xml


def _read(path: Path) -> tuple[ImageFile, Any, str | None]:
    """Read an image, and its samples without axes of length 1."""
    try:
        picture = read_image(path)
    except RestoreError as error:
        raise type(error)(f"{path}: {error}") from error
    axes = picture.axes or "Q" * max(0, np.ndim(picture.data) - 2) + "YX"
    data = np.asarray(picture.data)
    if picture.plain is not None:
        data = picture.plain.convert(data)
    spare = [place for place, letter in enumerate(axes) if data.shape[place] == 1]
    spare = [place for place in spare if axes[place] not in "YX"]
    kept = "".join(letter for place, letter in enumerate(axes) if place not in spare)
    return picture, data.squeeze(tuple(spare)), kept


def measured_in(path: Path) -> Any:
    """Read a measured point spread function, or one for each channel.

    Returns
    -------
    Measured, or list of Measured
    """
    picture, data, axes = _read(path)
    size = pixel_size_of(picture, None)
    if axes is not None and axes[0] == "C":
        names = [f"{path.name}, channel {channel}" for channel in range(len(data))]
        return [Measured(*each) for each in zip(data, [size] * len(data), names, strict=True)]
    return Measured(data, size, path.name)


def beads_in(path: Path, pixel_size: str | None = None) -> Any:
    """Average the beads in an image."""
    from napari_restore.physics.beads import psf_from_beads

    picture, data, axes = _read(path)
    try:
        if axes is None or axes.strip("QRZ") != "YX" or data.ndim > 3:
            raise PsfError(
                f"The image of beads has the axes {axes} and the shape {data.shape}. Choose a "
                "plane in which they are in focus, or a stack of planes; of one channel."
            )
        beads = psf_from_beads(data, pixel_size=pixel_size_of(picture, pixel_size))
    except PsfError as error:
        raise PsfError(f"{path}: {error}") from error
    return replace(beads, notes=(f"{path.name}:", *beads.notes))
