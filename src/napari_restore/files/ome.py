"""OME-XML: what it says about pixels, and the same document for the restored image."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

#: Namespace of the annotation that holds the provenance.
PROVENANCE = "napari-restore/provenance"

_UNITS = {"X": "µm", "Y": "µm", "Z": "µm", "T": "s"}
_ATTRIBUTES = {axis: f"PhysicalSize{axis}" for axis in "XYZ"} | {"T": "TimeIncrement"}


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _local(child) == name)


def pixel_size(xml: str) -> dict[str, tuple[float, str]]:
    """Size of a step along X, Y, Z and T of the first image of an OME document.

    Returns
    -------
    dict
        Axis to (size, unit), where the document gives a positive size.
    """
    image = next(_children(ElementTree.fromstring(xml), "Image"), None)
    pixels = None if image is None else next(_children(image, "Pixels"), None)
    sizes: dict[str, tuple[float, str]] = {}
    if pixels is None:
        return sizes
    for axis, attribute in _ATTRIBUTES.items():
        try:
            size = float(pixels.get(attribute, ""))
        except ValueError:
            continue
        if size > 0:
            sizes[axis] = (size, pixels.get(f"{attribute}Unit", _UNITS[axis]))
    return sizes


def channel_names(xml: str) -> list[str]:
    """Names of the channels of the first image of an OME document; empty unless all have one."""
    image = next(_children(ElementTree.fromstring(xml), "Image"), None)
    pixels = None if image is None else next(_children(image, "Pixels"), None)
    names = [] if pixels is None else [c.get("Name", "") for c in _children(pixels, "Channel")]
    return names if all(names) else []


def attributes(sizes: dict[str, tuple[float, str]]) -> dict[str, float | str]:
    """Attributes of a Pixels element for the sizes that `pixel_size` returns."""
    out: dict[str, float | str] = {}
    for axis, (size, unit) in sizes.items():
        out[_ATTRIBUTES[axis]] = size
        out[f"{_ATTRIBUTES[axis]}Unit"] = unit
    return out


def restored_document(xml: str, axes: str, planes: int, provenance: str) -> str:
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
    _point_to_pages(next(_children(image, "Pixels")), axes, planes)
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
