"""PNG and JPEG: what they say beside their samples is kept, or a note says that it is lost."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_restore.cli import main
from napari_restore.io import losses, read_image

if TYPE_CHECKING:
    from pathlib import Path

KEEP = ["--strength", "0", "--device", "cpu", "--force"]
COLOR = np.random.default_rng(0).integers(0, 250, (24, 33, 3)).astype(np.uint8)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><r tiff:Orientation=\"6\"/></x:xmpmeta>"
ICC = b"profile " * 10000
IPTC = b"Photoshop 3.0\x00 8BIM with a caption"


def run(source: Path, target: Path, capsys) -> str:
    """Restore; what is said on the way."""
    assert main(["deblur", str(source), "-o", str(target), *KEEP]) == 0
    return capsys.readouterr().err


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(path: Path, comment: bytes = b"scale=0.25um/px", extra: bytes = b"") -> Path:
    image = Image.fromarray(COLOR)
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    options = {"exif": exif, "icc_profile": ICC, "dpi": (300, 200), "comment": comment}
    extra += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    image.save(path, "JPEG", quality=95, extra=extra, **options)
    return path


def png(path: Path, chunks: list[tuple[bytes, bytes]] = [], data=COLOR) -> Path:  # noqa: B006
    Image.fromarray(data).save(path)
    raw = path.read_bytes()
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    path.write_bytes(raw[:33] + made + raw[33:])
    return path


@pytest.mark.parametrize("dpi", [(0, 300), (300, 0)])
def test_a_resolution_that_is_none_is_said(dpi, tmp_path, capsys):
    per_meter = struct.pack(">IIB", *(round(one / 0.0254) for one in dpi), 1)
    said = run(png(tmp_path / "a.png", [(b"pHYs", per_meter)]), tmp_path / "b.png", capsys)
    assert "dots per inch, is none, and left out" in said
    assert "299.99" in said
    with Image.open(tmp_path / "b.png") as result:
        assert "dpi" not in result.info


def test_a_jpeg_keeps_what_it_says(tmp_path, capsys):
    source = jpeg(tmp_path / "a.jpg", extra=segment(0xED, IPTC))
    assert run(source, tmp_path / "b.jpg", capsys) == ""
    assert run(tmp_path / "b.jpg", tmp_path / "c.jpg", capsys) == ""
    for name in "bc":
        with Image.open(tmp_path / f"{name}.jpg") as result:
            info = result.info
            assert info["comment"].startswith(b"scale=0.25um/px\n")
            assert info["comment"].count(b"napari-restore: ") == 1
            assert info["xmp"] == XMP.replace(b'tiff:Orientation="6"', b"")
            assert info["icc_profile"] == ICC
            assert (result.size, info["dpi"]) == ((24, 33), (200, 300))
            assert ("APP13", IPTC) in result.applist
            assert dict(result.getexif()) == {0x010F: "Maker"}


@pytest.mark.parametrize("comment", [b"0.25 \xb5m", "0.25 µm σ".encode(), b"x" * 65000])
def test_comments_in_any_encoding_and_length(tmp_path, capsys, comment):
    source = jpeg(tmp_path / "a.jpg", comment)
    said = run(source, tmp_path / "b.jpg", capsys)
    with Image.open(tmp_path / "b.jpg") as result:
        assert comment in result.info["comment"] or "comment" in said


def test_jpeg_to_png_and_back(tmp_path, capsys):
    source = jpeg(tmp_path / "a.jpg")
    assert run(source, tmp_path / "b.png", capsys) == ""
    assert run(tmp_path / "b.png", tmp_path / "c.jpg", capsys) == ""
    for name in ("b.png", "c.jpg"):
        picture = read_image(tmp_path / name)
        assert picture.said["comment"] == "scale=0.25um/px"
        assert picture.said["ICC profile"] == ICC
        assert b"Maker" in picture.said["EXIF"]
        assert picture.said["XMP"].startswith(b"<x:xmpmeta")
        assert picture.dpi == pytest.approx((200, 300), abs=0.1)


@pytest.mark.parametrize("ending", ["tif", "ome.tif", "npy", "ome.zarr"])
def test_what_other_formats_cannot_hold_is_named(tmp_path, capsys, ending):
    source = jpeg(tmp_path / "a.jpg", extra=segment(0xED, IPTC))
    said = run(source, tmp_path / f"b.{ending}", capsys)
    assert "IPTC" in said
    assert "EXIF" in said


def test_segments_of_unknown_kinds_are_named(tmp_path, capsys):
    source = jpeg(tmp_path / "a.jpg", extra=segment(0xEB, b"JP\0content credentials"))
    assert "APP11 (JP)" in run(source, tmp_path / "b.jpg", capsys)


PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
CHUNKS = {
    "gamma": (b"gAMA", struct.pack(">I", 100000)),
    "chromaticities": (
        b"cHRM",
        struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
    ),
    "significant bits": (b"sBIT", b"\5\6\5"),
    "coding of color": (b"cICP", bytes([9, 16, 0, 1])),
}


@pytest.mark.parametrize("said", list(CHUNKS))
def test_a_png_says_how_its_colors_are_meant(tmp_path, capsys, said):
    source = png(tmp_path / "a.png", [CHUNKS[said]])
    assert run(source, tmp_path / "b.png", capsys) == ""
    name, body = CHUNKS[said]
    assert name + body in (tmp_path / "b.png").read_bytes()
    for target in ("b.jpg", "b.tif", "b.npy"):
        assert said in run(source, tmp_path / target, capsys)


def test_what_is_taken_for_granted_is_not_noted(tmp_path, capsys):
    source = png(tmp_path / "a.png", [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))])
    for target in ("b.png", "b.jpg", "b.tif"):
        assert run(source, tmp_path / target, capsys) == ""
    assert b"gAMA" in (tmp_path / "b.png").read_bytes()


def test_texts_of_a_png(tmp_path, capsys):
    texts = PngInfo()
    texts.add_text("Title", "cells")
    texts.add_itxt("Author", "Grüße σ", "de", "Verfasser")
    texts.add_text("Comment", "scale=0.25um/px", zip=True)
    Image.fromarray(COLOR).save(tmp_path / "a.png", pnginfo=texts)
    assert run(tmp_path / "a.png", tmp_path / "b.png", capsys) == ""
    with Image.open(tmp_path / "b.png") as result:
        assert result.text["Title"] == "cells"
        assert (result.text["Author"], result.text["Author"].lang) == ("Grüße σ", "de")
        assert result.text["Comment"] == "scale=0.25um/px"
    assert "texts" in run(tmp_path / "a.png", tmp_path / "b.jpg", capsys)
    with Image.open(tmp_path / "b.jpg") as result:
        assert result.info["comment"].startswith(b"scale=0.25um/px")


def test_other_chunks_are_named(tmp_path, capsys):
    chunks = [(b"sCAL", b"\x011e-7\x001e-7"), (b"vpAg", bytes(9))]
    said = run(png(tmp_path / "a.png", chunks), tmp_path / "b.png", capsys)
    assert "sCAL, vpAg" in said


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of this test's own look at the file
@pytest.mark.parametrize(
    "exif", [bytes(64), b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x02\x01\x12", b"junk"]
)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_broken_exif_with_sound_pixels(tmp_path, capsys, exif, ending):
    source = tmp_path / f"a.{ending}"
    Image.fromarray(COLOR).save(source, exif=b"Exif\0\0" + exif)
    run(source, tmp_path / "b.png", capsys)
    with Image.open(source) as one, Image.open(tmp_path / "b.png") as two:
        np.testing.assert_array_equal(np.asarray(two), np.asarray(one))


def test_an_orientation_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    source = tmp_path / "a.jpg"
    Image.fromarray(COLOR).save(source)

    def damaged(*_):
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    notes = " ".join(read_image(source).notes)
    assert notes.count("unpack requires a buffer of 4 bytes") == 2
    assert "turn it if it does not lie upright" in notes


def test_photographs_with_previews_behind_them(tmp_path, capsys):
    small = Image.fromarray(COLOR).resize((16, 12))
    image = Image.fromarray(COLOR)
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small, small])
    said = run(tmp_path / "a.jpg", tmp_path / "b.jpg", capsys)
    assert "3 pictures; the first is restored" in said
    with Image.open(tmp_path / "b.jpg") as result:
        assert (result.format, result.size) == ("JPEG", image.size)


# ------------------------------------------------------------------ wrong endings


@pytest.mark.parametrize("written", ["JPEG", "PNG", "TIFF", "NPY"])
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".npy"])
def test_content_decides_where_an_ending_is_wrong(tmp_path, written, ending):
    path = tmp_path / f"a{ending}"
    if written == "NPY":
        with path.open("wb") as file:
            np.save(file, COLOR)
    else:
        Image.fromarray(COLOR).save(path, written)
    picture = read_image(path)
    assert picture.format == written.lower()
    right = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "NPY": ".npy"}[written] == ending
    assert any(written in note for note in picture.notes) != right
    if written != "JPEG":
        np.testing.assert_array_equal(np.asarray(picture.data), COLOR)


@pytest.mark.parametrize("written", ["GIF", "BMP", "WEBP"])
def test_other_formats_are_named(tmp_path, capsys, written):
    source = tmp_path / "a.png"
    Image.fromarray(COLOR).save(source, written)
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.png"), *KEEP]) == 1
    assert written in capsys.readouterr().err.upper()


def test_tiff_to_photo_keeps_profile_and_words(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOR, iccprofile=ICC, description="cells", metadata=None)
    picture = read_image(tmp_path / "a.tif")
    picture.axes = "YXS"
    for name in ("b.png", "b.jpg"):
        assert not any("ICC" in note for note in losses(tmp_path / name, picture))
