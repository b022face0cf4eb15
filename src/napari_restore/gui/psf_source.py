"""Where a dock takes the point spread function of a layer from."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_restore.errors import PsfError
from napari_restore.restoration.given_psf import Measured, optics_of_channels

if TYPE_CHECKING:
    from napari_restore.physics.beads import BeadPsf

_BEADS: weakref.WeakKeyDictionary[Image, tuple[weakref.ref[Any], BeadPsf]]
_BEADS = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class BeadsIn:
    """The point spread function of the beads in a layer."""

    layer: Image


@dataclass(frozen=True, eq=False)
class OpticsOf:
    """The point spread function of a microscope; what is not told is taken from the layer.

    Attributes
    ----------
    told : mapping
        Arguments of `napari_restore.Optics`, and ``pixel_size``.
    """

    told: Mapping[str, Any]


def micrometers_of(layer: Image) -> tuple[float, float] | None:
    """Height and width of a layer's pixels in µm; None where its units are no lengths."""
    units, scale = layer.units[-2:], layer.scale[-2:]
    if any(unit.dimensionality != {"[length]": 1} for unit in units):
        return None
    sizes = [abs(float(s)) * u for s, u in zip(scale, units, strict=True)]
    height, width = (float((1 * size).to("micrometer").magnitude) for size in sizes)
    return height, width


def resolve_psf(psf: Any, layer: Image) -> Any:
    """Turn what a dock or a script names into what `napari_restore.restore` takes.

    Parameters
    ----------
    psf : Any
        A layer, `BeadsIn`, `OpticsOf`, or anything that `napari_restore.restore` takes.
    layer : napari.layers.Image
        The one that is restored.

    Raises
    ------
    PsfError
        If the other layer can be none.
    """
    if isinstance(psf, Image):
        return _measured(psf, layer)
    if isinstance(psf, BeadsIn):
        return _beads(psf.layer)
    if isinstance(psf, OpticsOf):
        channels, _ = optics_of_channels(recorded_by(layer), psf.told)
        return channels
    return psf


def _samples(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _measured(psf: Image, layer: Image) -> Any:
    data, size = np.asarray(_samples(psf)), micrometers_of(psf)
    relative = size is None or micrometers_of(layer) is None
    if relative:
        height, width = (
            abs(float(own / other))
            for own, other in zip(psf.scale[-2:], layer.scale[-2:], strict=True)
        )
        # A scale without a unit that only one of the two has compares nothing.
        unlike = (size is None) != (micrometers_of(layer) is None)
        size = (1.0, 1.0) if unlike else (height, width)
    labels = [str(label).lower() for label in psf.axis_labels]
    if data.ndim == 3 and labels[0] in ("c", "channel") and not psf.rgb:
        names = [f"'{psf.name}', channel {channel}" for channel in range(len(data))]
        return [Measured(plane, size, n, relative) for plane, n in zip(data, names, strict=True)]
    return Measured(data, size, f"'{psf.name}'", relative)


def _beads(layer: Image) -> BeadPsf:
    """Average the beads in a layer, once for its data."""
    from napari_restore.physics.beads import psf_from_beads

    data = _samples(layer)
    known = _BEADS.get(layer)
    if known is not None and known[0]() is data:
        return known[1]
    if layer.ndim != 2 or layer.rgb:
        raise PsfError(
            f"Layer '{layer.name}' has the shape {tuple(data.shape)}. Beads are taken from one "
            "plane: add the one in which they are in focus as a layer."
        )
    try:
        beads = psf_from_beads(np.asarray(data), pixel_size=micrometers_of(layer))
    except PsfError as error:
        raise PsfError(f"Layer '{layer.name}': {error}") from error
    try:
        _BEADS[layer] = weakref.ref(data), beads
    except TypeError:
        pass
    return beads


def recorded_by(layer: Image) -> str | Mapping[str, Any] | None:
    """Find what is recorded of the microscope: in the layer's metadata, else in its file.

    Looked for are OME-XML, the dictionary that tifffile makes of it, and a dictionary of the
    arguments of `napari_restore.Optics`, by itself or under ``"optics"``.
    """
    for value in (layer.metadata, *layer.metadata.values()):
        if isinstance(value, str) and "<OME" in value[:1000]:
            return value
        if isinstance(value, Mapping):
            if "OME" in value or "Pixels" in str(value.get("Image"))[:1000]:
                return value
            if isinstance(optics := value.get("optics", value), Mapping) and "na" in optics:
                return {str(k): v for k, v in optics.items() if k in _ARGUMENTS}
    path = layer.source.path
    return None if path is None else _in_file(str(path))


_ARGUMENTS = (
    "na wavelength refractive_index ri_immersion ri_sample modality excitation pinhole defocus "
    "sheet_thickness depth pixel_size channels name"
).split()


@lru_cache(maxsize=64)
def _in_file(path: str) -> str | None:
    """OME-XML of a TIFF, or nothing: what a file does not say is no error."""
    if not path.lower().endswith((".tif", ".tiff")) or not Path(path).is_file():
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            xml: str | None = tif.ome_metadata
            return xml
    except (OSError, ValueError, tifffile.TiffFileError):
        return None
