"""What PNG and JPEG say beside their samples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

#: Chunks of PNG that are carried over, or that say nothing about the image once it is decoded.
_PNG_READ = set(
    "IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP sBIT pHYs tEXt zTXt iTXt eXIf tIME "
    "acTL fcTL fdAT iDOT".split()
)
#: Segments of JPEG that are carried over, or that say how it was encoded.
_JPEG_READ = (b"JFIF", b"JFXX", b"Exif", b"http://ns.adobe.com/xap/1.0/", b"ICC_PROFILE", b"MPF",
              b"Adobe", b"Photoshop 3.0")  # fmt: skip
#: Key of XMP among the texts of PNG, and that of an old way to store EXIF.
XMP_KEY, RAW_EXIF = "XML:com.adobe.xmp", "Raw profile type exif"
#: Of white, red, green and blue in sRGB, as PNG names them.
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
#: Begins the line of a comment that is the provenance.
PROVENANCE = "napari-restore: "


def said_by(
    image: Image.Image, path: Path, kind: str, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find what a photograph says beside its samples, EXIF and XMP, which turn with them.

    Parameters
    ----------
    image : Image
        As it was opened.
    path : Path
    kind : {"png", "jpeg"}
    notes : list of str
        Gets words for what is not carried over.

    Returns
    -------
    said : dict
        For `ImageFile.said`. IPTC is the segments of JPEG that hold it.
    extras : dict
        For the writer of the same format: ``chunks`` of PNG about color, name and bytes;
        ``encoding`` of the comment of a JPEG.
    """
    info = image.info
    said: dict[str, Any] = {}
    if info.get("icc_profile"):
        said["ICC profile"] = info["icc_profile"]
    if kind == "jpeg":
        return said, {"encoding": _read_segments(image, said, notes)}
    chunks, others = _chunks(path)
    if others:
        notes.append(f"Of the PNG, {', '.join(others)} is not carried over.")
    texts = {
        key: text
        for key, text in getattr(image, "text", {}).items()
        if key not in (XMP_KEY, RAW_EXIF, "napari-restore")
    }
    if "Comment" in texts:
        said["comment"] = str(texts.pop("Comment"))
    if texts:
        said["texts"] = texts
    # Near 1 / 2.2 it says what is taken for granted without it.
    if abs(info.get("gamma", 1 / 2.2) - 1 / 2.2) > 0.01:
        said["gamma"] = info["gamma"]
    primaries = info.get("chromaticity", _SRGB)
    if np.abs(np.subtract(primaries, _SRGB)).max() > 0.005:
        said["chromaticities"] = primaries
    names = {b"cICP": "coding of color (cICP)", b"sBIT": "significant bits (sBIT)"}
    said |= {names[name]: body for name, body in chunks if name in names}
    return said, {"chunks": chunks}


def _chunks(path: Path) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Chunks about color, as they are, and the names of those that are not carried over."""
    kept: list[tuple[bytes, bytes]] = []
    others: dict[str, None] = {}
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            if name in (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT") and length <= 64:
                kept.append((name, file.read(length)))
                file.seek(4, 1)
                continue
            if name.isalpha() and name.decode() not in _PNG_READ:
                others[name.decode()] = None
            if name == b"IEND":
                break
            file.seek(length + 4, 1)
    return kept, list(others)


def _read_segments(image: Image.Image, said: dict[str, Any], notes: list[str]) -> str:
    """Find comments and IPTC of a JPEG; returns the encoding of the comments."""
    kept, comments, others, encoding = [], [], [], "utf-8"
    applist: list[tuple[str, bytes]] = getattr(image, "applist", [])
    for name, body in applist:
        if name == "COM":
            try:
                comments.append(body.decode("utf-8"))
            except UnicodeDecodeError:
                encoding = "latin-1"
                comments.append(body.decode(encoding))
        elif body.startswith(b"Photoshop 3.0"):  # holds IPTC
            kept.append(b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body)
        elif not body.startswith(_JPEG_READ):
            label = "".join(chr(c) for c in body[:24].split(b"\0")[0] if 32 <= c < 127)
            others.append(f"{name} ({label})" if label else name)
    comment = without_provenance("\n".join(comments))
    if comment:
        said["comment"] = comment
    if kept:
        said["IPTC"] = kept
    if others:
        listed = ", ".join(dict.fromkeys(others))
        notes.append(f"Of the JPEG, {listed} is not carried over.")
    return encoding


def without_provenance(comment: str) -> str:
    """Take the words of an earlier restoration out of a comment."""
    try:
        record = json.loads(comment)
    except ValueError:
        record = None
    if isinstance(record, dict) and "napari-restore" in record.get("versions", {}):
        return ""
    lines = [line for line in comment.split("\n") if not line.startswith(PROVENANCE)]
    return "\n".join(lines).rstrip("\0")
