"""Optics from what a file says about its microscope: OME-XML, or a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from napari_restore.errors import PsfError

from .lengths import Measure
from .optics import INFRARED, Optics

#: Refractive indices of the immersions that OME names.
IMMERSIONS = {
    "air": 1.0,
    "water": 1.33,
    "waterdipping": 1.33,
    "glycerol": 1.46,
    "oil": 1.515,
    "silicone": 1.4,
}
#: Media between coverslip and sample that OME names.
MEDIA = {"air": 1.0, "water": 1.33, "glycerol": 1.46, "oil": 1.515}
#: Parts of OME's acquisition modes, and what they mean here. The first that fits counts.
_MODES = {
    "multiphoton": "two-photon",
    "twophoton": "two-photon",
    "spinningdisk": "spinning disk",
    "confocal": "confocal",
    "spim": "light sheet",
    "lightsheet": "light sheet",
    "wide": "widefield",
}
#: What every point spread function needs.
_NEEDED = {
    "na": "numerical aperture",
    "wavelength": "emission wavelength",
    "pixel_size": "pixel size",
}


@dataclass(frozen=True)
class RecordedOptics:
    """What is known of the optics of one channel.

    Attributes
    ----------
    name : str
        Of the channel; may be empty.
    found : dict
        Arguments of `Optics`, as far as they are known. Lengths are in µm.
    missing : tuple of str
        What has to be told before there is a point spread function.
    notes : tuple of str
        What was said and could not be used.
    """

    name: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def optics(self, **told: Any) -> Optics:
        """Make `Optics` of what was found and what is told beside; what is told counts."""
        return Optics(**self.found | {name: v for name, v in told.items() if v is not None})


def recorded_optics(metadata: str | Mapping[str, Any]) -> list[RecordedOptics]:
    """Read the optics of each channel.

    Parameters
    ----------
    metadata : str or mapping
        OME-XML, the nested dictionary that ``tifffile.xml2dict`` makes of it, or a flat one with
        the arguments of `Optics`; there ``"channels"`` may hold a list of more of these, one for
        each channel.

    Returns
    -------
    list of RecordedOptics
        One for each channel, at least one. Of an OME document, the first image counts.

    Raises
    ------
    PsfError
        Where the text is no XML. What the document gives and cannot be (a pixel size of 0, say)
        counts as missing, and is a note.
    """
    if isinstance(metadata, str):
        from xml.etree.ElementTree import ParseError

        from tifffile import xml2dict

        try:
            metadata = xml2dict(metadata)
        except (ParseError, ValueError) as error:
            raise PsfError(
                f"The metadata are not OME-XML ({error}). Give the optics by hand."
            ) from error
    ome = metadata.get("OME") or (metadata if "Image" in metadata else None)
    return _flat(metadata) if ome is None else _ome(ome)


def _flat(told: Mapping[str, Any]) -> list[RecordedOptics]:
    known = {part.name for part in fields(Optics)}
    shared = {name: value for name, value in told.items() if name in known}
    channels = list(told.get("channels") or [{}])
    out = []
    for channel in channels:
        each = shared | {name: value for name, value in channel.items() if name in known}
        unused = sorted(str(n) for n in {*told, *channel} - known - {"channels", "name"})
        notes = [f"Not understood: {', '.join(unused)}."] if unused else []
        out.append(_recorded(str(channel.get("name", told.get("name", ""))), each, notes))
    return out


def _ome(ome: Mapping[str, Any]) -> list[RecordedOptics]:
    image = _first(ome, "Image")
    pixels = _first(image, "Pixels")
    shared: dict[str, Any] = {}
    for name, attribute in (("pixel_size", "PhysicalSizeX"), ("z_step", "PhysicalSizeZ")):
        if attribute in pixels:
            unit = pixels.get(f"{attribute}Unit", "µm")
            shared[name] = f"{pixels[attribute]} {_spelled(unit)}"
    settings = _first(image, "ObjectiveSettings")
    shared |= _objective(ome, settings)
    channels = list(_all(pixels, "Channel")) or [{}]
    return [
        _recorded(str(channel.get("Name", "")), *_channel(shared, channel)) for channel in channels
    ]


def _objective(ome: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    objectives = [o for i in _all(ome, "Instrument") for o in _all(i, "Objective")]
    named = [o for o in objectives if o.get("ID") == settings.get("ID")]
    # Without a reference, a document with one objective still leaves no doubt.
    objective = (named or (objectives if len(objectives) == 1 else [{}]))[0]
    found: dict[str, Any] = {}
    if "LensNA" in objective:
        found["na"] = objective["LensNA"]
    immersion = str(objective.get("Immersion", "")).lower().replace(" ", "")
    if "RefractiveIndex" in settings:
        found["ri_immersion"] = settings["RefractiveIndex"]
    elif immersion in IMMERSIONS:
        found["ri_immersion"] = IMMERSIONS[immersion]
    medium = str(settings.get("Medium", "")).lower()
    if medium in MEDIA:
        found["ri_sample"] = MEDIA[medium]
    return found


def _channel(
    shared: Mapping[str, Any], channel: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    found, notes = dict(shared), []
    names = {"wavelength": "EmissionWavelength", "excitation": "ExcitationWavelength"}
    for name, attribute in names.items():
        if attribute in channel:
            unit = channel.get(f"{attribute}Unit", "nm")
            found[name] = f"{channel[attribute]} {_spelled(unit)}"
    mode = str(channel.get("AcquisitionMode", "")).lower()
    modality = next((known for part, known in _MODES.items() if part in mode), None)
    if modality is not None:
        found["modality"] = modality
    elif mode and mode != "other":
        notes.append(f"The acquisition mode {channel['AcquisitionMode']} is taken as wide-field.")
    if "PinholeSize" in channel:
        notes.append(
            "The pinhole was not used: its size in Airy units follows from magnifications that "
            "are not recorded."
        )
    return found, notes


def _recorded(name: str, told: Mapping[str, Any], notes: Iterable[str]) -> RecordedOptics:
    """Keep what each argument can be; name what is missing."""
    found, said = {}, list(notes)
    for argument, value in told.items():
        part = Optics.__dict__.get(argument)
        if value is None:
            continue
        try:
            found[argument] = part.checked(value) if isinstance(part, Measure) else value
        except PsfError as error:
            said.append(str(error))
    missing = [text for argument, text in _NEEDED.items() if argument not in found]
    if found.get("modality") == "light sheet" and "sheet_thickness" not in found:
        missing.append("sheet thickness")
    if found.get("modality") == "two-photon" and found.get("excitation", 0) < INFRARED:
        missing.append("excitation wavelength")
    return RecordedOptics(name, found, tuple(missing), tuple(said))


def _spelled(unit: Any) -> str:
    """Names of units as pint knows them."""
    return "angstrom" if unit == "Å" else str(unit)


def _all(node: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    """Children of a name: none, one or several."""
    child = node.get(name, [])
    children = child if isinstance(child, list | tuple) else [child]
    return (c for c in children if isinstance(c, Mapping))


def _first(node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next(iter(_all(node, name)), {})
