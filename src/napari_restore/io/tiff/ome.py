"""OME-XML: what it says about pixels, and the same document for the restored image."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from napari_restore.image.layout import as_size, unit_along

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

#: Namespace of the annotation that holds the provenance.
PROVENANCE = "napari-restore/provenance"

_ATTRIBUTES = {axis: f"PhysicalSize{axis}" for axis in "XYZ"} | {"T": "TimeIncrement"}
#: Attributes and children of a channel that `Facts` holds, or that say how samples are stored.
_PLAIN_CHANNEL = {"ID", "Name", "Color", "SamplesPerPixel"}
_PLAIN_PIXELS = {"Channel", "TiffData", "BinData", "MetadataOnly"}


@dataclass
class Facts:
    """What an OME document says of its first image.

    Attributes
    ----------
    pixel_size : dict
        Axis to (size, unit), where the document gives a size above 0 with a unit.
    channels, colors : list of str
        Names, "" for a channel without, and colors, "RRGGBB"; empty if no channel has any.
    bits : int or None
        Significant bits of a sample.
    comment : str
        Description of the image.
    others : list of str
        Names of what else there is.
    notes : list of str
        What is no size.
    """

    pixel_size: dict[str, tuple[float, str]] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    bits: int | None = None
    comment: str = ""
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _local(child) == name)


def facts(xml: str) -> Facts:
    """Read what an OME document says of its first image."""
    root, found = ElementTree.fromstring(xml), Facts()
    image = next(_children(root, "Image"), None)
    pixels = None if image is None else next(_children(image, "Pixels"), None)
    if image is None or pixels is None:
        return found
    for axis, attribute in _ATTRIBUTES.items():
        text = pixels.get(attribute)
        if text is None:
            continue
        spelled = pixels.get(f"{attribute}Unit", "s" if axis == "T" else "µm")
        size, unit = as_size(text), unit_along(axis, spelled)
        if size is not None and unit is not None:
            found.pixel_size[axis] = (size, unit)
        else:
            found.notes.append(f"{attribute} is given as {text} {spelled}, which is not a size.")
    channels = list(_children(pixels, "Channel"))
    names = [channel.get("Name", "") for channel in channels]
    found.channels = names if any(names) else []
    if any("Color" in channel.attrib for channel in channels):
        found.colors = [_hexadecimal(channel.get("Color", "-1")) for channel in channels]
    bits = pixels.get("SignificantBits", "")
    found.bits = int(bits) if bits.isdigit() and int(bits) > 0 else None
    described = next(_children(image, "Description"), None)
    found.comment = (described.text or "") if described is not None else ""
    found.others = _others(root, image, pixels, channels)
    return found


def _others(root: Element, image: Element, pixels: Element, channels: list[Element]) -> list[str]:
    """Names of what a document holds beside what `Facts` has a field for."""
    names = [_local(child) for child in root if _local(child) != "Image" and not _is_own(child)]
    names += [_local(child) for child in image if _local(child) not in ("Pixels", "Description")]
    names += [_local(child) for child in pixels if _local(child) not in _PLAIN_PIXELS]
    for channel in channels:
        names += [name for name in channel.attrib if name not in _PLAIN_CHANNEL]
        names += [_local(child) for child in channel if child.attrib or len(child)]
    # References name what stands elsewhere in the document.
    return list(dict.fromkeys(name for name in names if not name.endswith("Ref")))


def _is_own(element: Element) -> bool:
    """Whether an element holds nothing but the provenance of an earlier restoration."""
    return len(element) > 0 and all(child.get("Namespace") == PROVENANCE for child in element)


def _hexadecimal(color: str) -> str:
    """OME-XML's color, a signed integer of red, green, blue and alpha, as "RRGGBB"."""
    try:
        number = int(color)
    except ValueError:
        return "FFFFFF"
    return f"{(number & 0xFFFFFFFF) >> 8:06X}"


def color_number(color: str) -> int:
    """Color "RRGGBB" as the signed integer of OME-XML, opaque."""
    number = int(color, 16) << 8 | 0xFF
    return number - 2**32 if number >= 2**31 else number


def attributes(sizes: dict[str, tuple[float, str]]) -> dict[str, float | str]:
    """Attributes of a Pixels element for the sizes that `Facts` holds."""
    out: dict[str, float | str] = {}
    for axis, (size, unit) in sizes.items():
        out[_ATTRIBUTES[axis]] = size
        out[f"{_ATTRIBUTES[axis]}Unit"] = unit
    return out


def restored_document(
    xml: str, axes: str, planes: int, provenance: str, bits: int | None = None
) -> str:
    """Document of the restored image: the original with everything that it says about the sample.

    Parameters
    ----------
    xml : str
        The original document. Its first image is kept.
    axes : str
        Axes of the array as it is written; those before the plane are among T, Z and C.
    planes : int
        Number of TIFF pages.
    provenance : str
        How the result was made.
    bits : int, optional
        Significant bits of the samples, if the document is to say so.

    Returns
    -------
    str
        OME-XML with new references to the pages, and a comment annotation with the provenance.
    """
    root = ElementTree.fromstring(xml)
    namespace = root.tag.rpartition("}")[0].removeprefix("{")
    ElementTree.register_namespace("", namespace)
    root.set("UUID", f"urn:uuid:{uuid.uuid4()}")
    image, *others = _children(root, "Image")
    for other in others:
        root.remove(other)
    gone = {other.get("ID") for other in others}
    for parent in list(root.iter()):
        for reference in list(_children(parent, "ImageRef")):
            if reference.get("ID") in gone:
                parent.remove(reference)
    pixels = next(_children(image, "Pixels"))
    if bits is not None:
        pixels.set("SignificantBits", str(bits))
    _point_to_pages(pixels, axes, planes)
    _annotate(root, image, provenance)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, "unicode")


def _point_to_pages(pixels: Element, axes: str, planes: int) -> None:
    leading = [letter for letter in reversed(axes) if letter in "TZC"]
    pixels.set("DimensionOrder", "XY" + "".join(leading + [c for c in "CZT" if c not in leading]))
    pixels.attrib.pop("BigEndian", None)
    for child in list(pixels):
        if _local(child) in ("TiffData", "BinData", "MetadataOnly"):
            pixels.remove(child)
    # The schema wants the pages after the channels and before the planes.
    place = sum(1 for _ in _children(pixels, "Channel"))
    prefix = pixels.tag.rpartition("Pixels")[0]
    pages = ElementTree.Element(f"{prefix}TiffData", {"IFD": "0", "PlaneCount": str(planes)})
    pixels.insert(place, pages)


def _annotate(root: Element, image: Element, provenance: str) -> None:
    prefix = root.tag.rpartition("OME")[0]
    taken = {element.get("ID") for element in root.iter()}
    number = next(n for n in range(len(taken) + 1) if f"Annotation:restored-{n}" not in taken)
    name = f"Annotation:restored-{number}"
    ElementTree.SubElement(image, f"{prefix}AnnotationRef", {"ID": name})
    annotations = next(_children(root, "StructuredAnnotations"), None)
    if annotations is None:
        annotations = ElementTree.Element(f"{prefix}StructuredAnnotations")
        root.insert(list(root).index(image) + 1, annotations)
    comment = ElementTree.SubElement(
        annotations, f"{prefix}CommentAnnotation", {"ID": name, "Namespace": PROVENANCE}
    )
    ElementTree.SubElement(comment, f"{prefix}Value").text = provenance
