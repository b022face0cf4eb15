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


def micrometers_of(layer: Image, axes: str = "") -> tuple[float, ...] | None:
    """Height and width of a layer's pixels in µm; None where its units are no lengths.

    Parameters
    ----------
    layer : napari.layers.Image
    axes : str
        Its axes by their letters; with Z among them, the distance of planes comes first, if its
        unit is a length too.
    """
    places = [-2, -1]
    if "Z" in axes:
        places.insert(0, axes.index("Z"))
    sizes = []
    for place in places:
        unit = layer.units[place]
        if unit.dimensionality == {"[length]": 1}:
            sizes.append(float((abs(float(layer.scale[place])) * unit).to("micrometer").magnitude))
        elif place < 0:
            return None
    return tuple(sizes)


def voxel_of(layer: Image, axes: str, psf: Any) -> tuple[Any, ...] | None:
    """Distance of a layer's planes, if one axis is Z, and height and width of its pixels.

    What is told with the optics counts, then what the layer says, then its file.

    Parameters
    ----------
    layer : napari.layers.Image
    axes : str
        Its axes by their letters.
    psf : Any
        As for `resolve_psf`.

    Returns
    -------
    tuple of length or None
        As for `napari_restore.restore`; None where the pixel size is not known.
    """
    own = micrometers_of(layer, axes)
    told, recorded = dict[str, Any](), dict[str, Any]()
    if isinstance(psf, OpticsOf):
        told = dict(psf.told)
        if own is None or len(own) < 2 + ("Z" in axes):
            recorded = _recorded_lengths(layer)
    pixel = told.get("pixel_size")
    plane: tuple[Any, ...] | None = None if pixel is None else (pixel, pixel)
    if plane is None and own is not None:
        plane = own[-2:]
    if plane is None and "pixel_size" in recorded:
        plane = (recorded["pixel_size"],) * 2
    if plane is None or "Z" not in axes:
        return plane
    step = told.get("z_step")
    if step is None:
        step = own[0] if own is not None and len(own) == 3 else recorded.get("z_step")
    return plane if step is None else (step, *plane)


def _recorded_lengths(layer: Image) -> dict[str, Any]:
    from napari_restore.physics.recorded import recorded_optics

    metadata = recorded_by(layer)
    try:
        return {} if metadata is None else recorded_optics(metadata)[0].found
    except PsfError:
        return {}


def resolve_psf(psf: Any, layer: Image, axes: str) -> Any:
    """Turn what a dock or a script names into what `napari_restore.restore` takes.

    Parameters
    ----------
    psf : Any
        A layer, `BeadsIn`, `OpticsOf`, or anything that `napari_restore.restore` takes.
    layer : napari.layers.Image
        The one that is restored.
    axes : str
        Its axes by their letters.

    Raises
    ------
    PsfError
        If the other layer can be none.
    """
    if isinstance(psf, Image):
        return _measured(psf, layer, axes)
    if isinstance(psf, BeadsIn):
        return _beads(psf.layer)
    if isinstance(psf, OpticsOf):
        channels, _ = optics_of_channels(recorded_by(layer), psf.told)
        return channels
    return psf


def _samples(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _measured(psf: Image, layer: Image, axes: str) -> Any:
    data = np.asarray(_samples(psf))
    labels = [str(label).lower() for label in psf.axis_labels]
    channels = data.ndim > 2 and labels[0] in ("c", "channel") and not psf.rgb
    deep = layer.ndim > 2 and data.ndim - channels > 2
    own, other = ("CZYX" if channels else "ZYX") if deep else "", axes if deep else ""
    size = micrometers_of(psf, own)
    relative = size is None or micrometers_of(layer, other) is None
    if relative:
        places = [(-2, -2), (-1, -1)]
        if deep and "Z" in axes:
            places.insert(0, (-3, axes.index("Z")))
        ratios = tuple(abs(float(psf.scale[i] / layer.scale[k])) for i, k in places)
        # A scale without a unit that only one of the two has compares nothing.
        unlike = (size is None) != (micrometers_of(layer, other) is None)
        size = (1.0,) * len(ratios) if unlike else ratios
    if channels:
        names = [f"'{psf.name}', channel {channel}" for channel in range(len(data))]
        return [Measured(part, size, n, relative) for part, n in zip(data, names, strict=True)]
    return Measured(data, size, f"'{psf.name}'", relative)


def _beads(layer: Image) -> BeadPsf:
    """Average the beads in a layer, once for its data."""
    from napari_restore.physics.beads import psf_from_beads

    data = _samples(layer)
    known = _BEADS.get(layer)
    if known is not None and known[0]() is data:
        return known[1]
    if layer.ndim not in (2, 3) or layer.rgb:
        raise PsfError(
            f"Layer '{layer.name}' has the shape {tuple(data.shape)}. Beads need one plane or one "
            "volume: add the one that holds them as a layer."
        )
    size = micrometers_of(layer, "ZYX" if layer.ndim == 3 else "")
    try:
        beads = psf_from_beads(np.asarray(data), pixel_size=size)
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
    "sheet_thickness depth pixel_size z_step channels name"
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
