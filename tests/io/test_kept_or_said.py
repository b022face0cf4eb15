"""What files say beside samples: the result says it too, or a note names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps

from napari_restore.errors import FileError
from napari_restore.image.layout import Inverted, for_ngff, length_unit, ngff_name, time_unit
from napari_restore.io import (
    check_target,
    clip,
    losses,
    name_axes,
    read_image,
    reading,
    write_image,
)
from napari_restore.io.tiff import reader as tiff_reader
from planning import plan

if TYPE_CHECKING:
    from pathlib import Path

PROVENANCE = json.dumps({"task": "deblur"})


def samples(*shape, top=250, dtype="uint8"):
    return (np.random.default_rng(0).random(shape) * top).astype(dtype)


def copy(source: Path, target: Path, axes=None, change=lambda data: data):
    """Read and write as a restoration does; returns the picture and all notes."""
    picture = read_image(source)
    letters, rgb = reading(picture, axes, None)
    layout = plan(picture.data, "deblur", axes=letters, rgb=rgb, device="cpu").layout
    name_axes(picture, layout, named_by_user=axes is not None)
    check_target(target, picture)
    notes = [*picture.notes, *losses(target, picture)]
    data, _ = clip(picture, change(np.array(picture.data)))
    write_image(target, data, picture, PROVENANCE)
    return picture, " ".join(notes)


def ngff(path):
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    entry = attributes["multiscales"][0]
    scale = entry["datasets"][0]["coordinateTransformations"][0]["scale"]
    units = [axis.get("unit") for axis in entry["axes"]]
    return dict(
        zip((axis["name"] for axis in entry["axes"]), zip(scale, units, strict=True), strict=True)
    ), (attributes.get("omero", {}).get("channels", []))


def ome_xml(frames=1, bits=16, **attributes):
    said = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint{bits}" SizeX="30" SizeY="20" SizeC="1" SizeZ="1" SizeT="{frames}" {said}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    ).encode()


def write_ome(path, pages, **attributes):
    frames = attributes.pop("frames", len(pages))
    with tifffile.TiffWriter(path, ome=False) as writer:
        for number, page in enumerate(pages):
            xml = ome_xml(frames, page.dtype.itemsize * 8, **attributes) if not number else None
            writer.write(
                page, contiguous=False, metadata=None, photometric="minisblack", description=xml
            )


# --------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("spelled", "symbol", "name"),
    [
        ("um", "µm", "micrometer"),
        ("\u03bcm", "µm", "micrometer"),
        ("\\u00B5m", "µm", "micrometer"),
        ("Microns", "µm", "micrometer"),
        ("micrometers", "µm", "micrometer"),
        ("Micrometres", "µm", "micrometer"),
        ("NM", "nm", "nanometer"),
        ("Mm", "Mm", "megameter"),
        ("\u212b", "Å", "angstrom"),
        ("\\u00C5", "Å", "angstrom"),
        ("A", "Å", "angstrom"),
        ("inches", "in", "inch"),
        ("thou", "thou", None),
        ("pixel", None, None),
        ("s", None, None),
        ("", None, None),
    ],
)
def test_units_of_length(spelled, symbol, name):
    assert length_unit(spelled) == symbol
    assert symbol is None or ngff_name(symbol) == name


@pytest.mark.parametrize(
    ("spelled", "symbol"),
    [
        ("sec", "s"),
        ("msec", "ms"),
        ("\u03bcs", "µs"),
        ("Minutes", "min"),
        ("hrs", "h"),
        ("m", None),
    ],
)
def test_units_of_time(spelled, symbol):
    assert time_unit(spelled) == symbol


def test_units_without_a_name_in_ngff_are_converted():
    assert for_ngff(2.0, "thou") == (pytest.approx(50.8), "µm")
    assert for_ngff(2.0, "nm") == (2.0, "nm")


# -------------------------------------------------------------------- ImageJ


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (
            {"unit": "um", "yunit": "nm", "zunit": "mm", "spacing": 3.0},
            {"x": (0.1, "micrometer"), "y": (0.2, "nanometer"), "z": (3.0, "millimeter")},
        ),
        (
            {"unit": "micrometer", "spacing": -0.5},
            {"x": (0.1, "micrometer"), "y": (0.2, "micrometer"), "z": (0.5, "micrometer")},
        ),
        ({"unit": "pixel", "spacing": 2.0}, dict.fromkeys("xyz", (1.0, None))),
    ],
)
def test_imagej_has_a_unit_for_each_axis(tmp_path, meta, expected):
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples(3, 20, 30),
        imagej=True,
        resolution=(10, 5),
        metadata={"axes": "ZYX", **meta},
    )
    copy(tmp_path / "a.tif", tmp_path / "b.zarr")
    assert ngff(tmp_path / "b.zarr")[0] == expected


def test_imagej_time_has_a_unit_and_unknown_ones_are_named(tmp_path):
    meta = {"axes": "TYX", "unit": "furlong", "finterval": 2.0, "tunit": "min"}
    tifffile.imwrite(
        tmp_path / "a.tif", samples(3, 20, 30), imagej=True, resolution=(10, 5), metadata=meta
    )
    _, notes = copy(tmp_path / "a.tif", tmp_path / "b.zarr")
    assert ngff(tmp_path / "b.zarr")[0]["t"] == (2.0, "minute")
    assert "furlong" in notes


@pytest.mark.parametrize(
    ("c0", "c1", "dtype", "becomes"),
    [
        (-32768.0, 1.0, "uint16", "int16"),
        (0.5, 0.25, "uint8", "float32"),
        (255, -1, "uint8", "uint8"),
    ],
)
@pytest.mark.parametrize("target", ["b.npy", "b.ome.tif", "b.zarr"])
def test_imagej_calibration_is_applied_elsewhere(tmp_path, c0, c1, dtype, becomes, target):
    data = samples(20, 30, dtype=dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", data, imagej=True, metadata={"cf": 0, "c0": c0, "c1": c1, "vunit": "HU"}
    )
    _, notes = copy(tmp_path / "a.tif", tmp_path / target)
    again = np.asarray(read_image(tmp_path / target).data)
    assert again.dtype == becomes
    np.testing.assert_array_equal(again, data.astype(float) * c1 + c0)
    assert "unit of the values" in notes
    copy(tmp_path / "a.tif", tmp_path / "c.tif")
    with tifffile.TiffFile(tmp_path / "c.tif") as tif:
        assert (tif.imagej_metadata["c0"], tif.imagej_metadata["c1"]) == (c0, c1)
        np.testing.assert_array_equal(tif.asarray(), data)


def test_imagej_calibration_that_is_no_line_is_named(tmp_path):
    meta = {"cf": 3, "c0": 1.0, "c1": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", samples(20, 30), imagej=True, metadata=meta)
    assert "function 3" in copy(tmp_path / "a.tif", tmp_path / "b.npy")[1]


def test_imagej_colors_become_those_of_channels_and_the_rest_is_named(tmp_path):
    tables = [np.zeros((3, 256), "uint8") for _ in range(2)]
    tables[0][0] = tables[1][1] = np.arange(256)
    meta = {"axes": "CYX", "LUTs": tables, "Labels": ["a", "b"], "Overlays": b"1234"}
    tifffile.imwrite(tmp_path / "a.tif", samples(2, 20, 30), imagej=True, metadata=meta)
    _, notes = copy(tmp_path / "a.tif", tmp_path / "b.zarr")
    assert [c["color"] for c in ngff(tmp_path / "b.zarr")[1]] == ["FF0000", "00FF00"]
    assert "labels of slices" in notes
    assert "overlays" in notes
    tables[0][1] = np.arange(256)[::-1]
    tifffile.imwrite(tmp_path / "c.tif", samples(2, 20, 30), imagej=True, metadata=meta)
    assert "look-up tables" in copy(tmp_path / "c.tif", tmp_path / "c.zarr")[1]


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 1), ("uint16", 1), ("uint8", 2)])
def test_imagej_images_with_one_look_up_table(tmp_path, dtype, count):
    """With 8 bits it is the palette of the file."""
    table = np.stack([np.arange(256)[::-1]] * 3).astype("uint8")
    meta = {"axes": "CYX" if count > 1 else "YX", "LUTs": [table] * count}
    data = samples(*(count,) * (count > 1), 20, 30, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata=meta)
    picture, notes = copy(tmp_path / "a.tif", tmp_path / "b.npy")
    np.testing.assert_array_equal(picture.data, data)
    assert "look-up tables" in notes
    assert "look-up tables" not in copy(tmp_path / "a.tif", tmp_path / "b.tif")[1]


# ----------------------------------------------------------- OME and OME-Zarr


def test_colors_and_names_of_channels_go_both_ways(tmp_path):
    channel = {"Name": ["DAPI", "GFP", "RFP"], "Color": [65535, 16711935, -16776961]}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", samples(3, 20, 30), metadata={"axes": "CYX", "Channel": channel}
    )
    copy(tmp_path / "a.ome.tif", tmp_path / "b.zarr")
    found = ngff(tmp_path / "b.zarr")[1]
    assert [c["color"] for c in found] == ["0000FF", "00FF00", "FF0000"]
    assert [c["label"] for c in found] == channel["Name"]
    copy(tmp_path / "b.zarr", tmp_path / "c.ome.tif")
    picture = read_image(tmp_path / "c.ome.tif")
    assert picture.colors == ["0000FF", "00FF00", "FF0000"]
    assert picture.channels == channel["Name"]
    assert "colors of channels" in copy(tmp_path / "b.zarr", tmp_path / "c.npy")[1]


@pytest.mark.parametrize("size", ["INF", "-INF", "NaN", "0", "-1", "1e400", "wide"])
def test_what_is_no_size_is_said_and_left_out(tmp_path, size):
    write_ome(tmp_path / "a.ome.tif", [samples(20, 30)], PhysicalSizeX=size, PhysicalSizeY="0.1")
    _, notes = copy(tmp_path / "a.ome.tif", tmp_path / "b.zarr")
    assert f"PhysicalSizeX is given as {size}" in notes
    assert ngff(tmp_path / "b.zarr")[0] == {"y": (0.1, "micrometer"), "x": (1.0, None)}


@pytest.mark.parametrize("unit", ["pixel", "reference frame"])
def test_units_that_are_none_are_said(tmp_path, unit):
    write_ome(
        tmp_path / "a.ome.tif", [samples(20, 30)], PhysicalSizeX="0.1", PhysicalSizeXUnit=unit
    )
    _, notes = copy(tmp_path / "a.ome.tif", tmp_path / "b.zarr")
    assert f"0.1 {unit}" in notes
    assert ngff(tmp_path / "b.zarr")[0]["x"] == (1.0, None)


@pytest.mark.parametrize("unit", ["angstrom", "nanometer", "inch", "kilometer"])
def test_units_of_ngff_come_back_from_ome_tiff(tmp_path, unit):
    write_zarr(tmp_path / "a.zarr", scale=[2.0, 3.0], unit=unit)
    copy(tmp_path / "a.zarr", tmp_path / "b.ome.tif")
    copy(tmp_path / "b.ome.tif", tmp_path / "c.zarr")
    assert ngff(tmp_path / "c.zarr")[0] == {"y": (2.0, unit), "x": (3.0, unit)}


def write_zarr(path, scale, unit=None, shift=None, **attributes):
    group = zarr.create_group(path)
    group.create_array("0", shape=(20, 30), dtype="uint16", chunks=(20, 30))[:] = samples(20, 30)
    axes = [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in "yx"]
    steps = [{"type": "scale", "scale": scale}]
    steps += [{"type": "translation", "translation": shift}] if shift else []
    dataset = {"path": "0", "coordinateTransformations": steps}
    entry = {"axes": axes, "datasets": [dataset]}
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [entry]}, **attributes})


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"scale": [2, 2], "unit": "furlong"}, "scale along Y, X (with the unit 'furlong')"),
        ({"scale": [2, 2]}, "scale along Y, X"),
        ({"scale": [1, 1], "unit": "meter", "shift": [5, 5]}, "origin"),
        ({"scale": [1, 1], "stain": "HE"}, "attribute 'stain'"),
    ],
)
def test_what_tiff_cannot_hold_of_ome_zarr_is_named(tmp_path, said, named):
    write_zarr(tmp_path / "a.zarr", **said)
    assert named in copy(tmp_path / "a.zarr", tmp_path / "b.ome.tif")[1]
    assert copy(tmp_path / "a.zarr", tmp_path / "b.zarr")[1] == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda ome: ome.update(omero="x"), "omero"),
        (lambda ome: ome.update(omero={"channels": "x"}), "omero"),
        (lambda ome: ome.update(omero={"channels": [3]}), "omero"),
        (lambda ome: ome["multiscales"][0].pop("axes"), "axes"),
        (lambda ome: ome["multiscales"][0].update(metadata={"method": "x"}), "levels"),
    ],
)
def test_metadata_that_are_damaged_or_lost_are_said(tmp_path, change, named):
    write_zarr(tmp_path / "a.zarr", scale=[2.0, 3.0])
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = group.attrs["ome"]
    change(ome)
    group.attrs["ome"] = ome
    picture, notes = copy(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert named in notes
    assert picture.axes == "YX"
    assert ngff(tmp_path / "b.zarr")[0]["x"] == (3.0, None)


def test_what_else_is_in_an_ome_zarr_is_named_or_kept(tmp_path):
    write_zarr(tmp_path / "a.zarr", scale=[2.0, 3.0])
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = group.attrs["ome"]
    ome["multiscales"][0]["stain"] = "HE"
    group.attrs["ome"] = ome
    group.create_group("tables"), group.create_group("labels")
    _, notes = copy(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert "'tables'" in notes
    assert "labels" in notes
    again = zarr.open_group(tmp_path / "b.zarr").attrs["ome"]["multiscales"][0]
    assert again["stain"] == "HE"


@pytest.mark.parametrize("step", [np.inf, np.nan, 0.0])
def test_no_infinity_gets_into_json(tmp_path, step):
    write_zarr(tmp_path / "a.zarr", scale=[step, 0.1], unit="micrometer")
    _, notes = copy(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert "scale along Y" in notes
    json.loads((tmp_path / "b.zarr" / "zarr.json").read_text(), parse_constant=pytest.fail)
    assert ngff(tmp_path / "b.zarr")[0] == {"y": (1.0, None), "x": (0.1, "micrometer")}


def test_a_zarr_array_may_name_its_axes(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr",
        shape=(3, 20, 30),
        dtype="uint16",
        chunks=(1, 20, 30),
        dimension_names=["t", "y", "x"],
        attributes={"stain": "HE"},
    )
    picture = read_image(tmp_path / "a.zarr")
    assert picture.axes == "TYX"
    assert "'stain'" in " ".join(picture.notes)


# ----------------------------------------------------- range, white, orientation


@pytest.mark.parametrize("bits", [10, 12])
def test_significant_bits_bound_the_result(tmp_path, bits):
    top = 2**bits - 1
    write_ome(
        tmp_path / "a.ome.tif", [samples(20, 30, top=top, dtype="uint16")], SignificantBits=bits
    )
    picture, _ = copy(
        tmp_path / "a.ome.tif", tmp_path / "b.ome.tif", change=lambda data: data + 500
    )
    again = read_image(tmp_path / "b.ome.tif")
    assert (picture.top, again.top, again.data.max()) == (top, top, top)


def test_values_beyond_the_significant_bits_stay(tmp_path):
    data = samples(20, 30, top=60000, dtype="uint16")
    write_ome(tmp_path / "a.ome.tif", [data], SignificantBits=12)
    _, notes = copy(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.ome.tif").data, data)
    assert "12 significant bits" in notes
    assert 'SignificantBits="16"' in tifffile.TiffFile(tmp_path / "b.ome.tif").ome_metadata


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "bool"])
def test_zero_is_white(tmp_path, monkeypatch, dtype, large):
    data = samples(20, 30, dtype=dtype)
    source = tmp_path / "a.tif"
    tifffile.imwrite(source, data, photometric="miniswhite")
    if large:
        monkeypatch.setattr("napari_restore.io.tiff.reader.SCRATCH_BYTES", 10)
    picture, _ = copy(source, tmp_path / "b.tif")
    assert isinstance(picture.data, Inverted) == large
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        np.testing.assert_array_equal(tif.asarray(), data)
    _, notes = copy(source, tmp_path / "b.npy")
    seen = np.load(tmp_path / "b.npy")
    np.testing.assert_array_equal(seen, -1 - data if dtype == "int16" else np.invert(data))
    assert "Zero is white" in notes


@pytest.mark.parametrize("target", ["b.png", "b.npy", "b.zarr"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_stands_upright_in_other_formats(tmp_path, orientation, target):
    source = tmp_path / "a.tif"
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(source, samples(20, 30, 3), photometric="rgb", extratags=[tag])
    with Image.open(source) as image:
        seen = np.asarray(ImageOps.exif_transpose(image))
    copy(source, tmp_path / target)
    again = read_image(tmp_path / target)
    data = np.asarray(again.data)
    np.testing.assert_array_equal(np.moveaxis(data, 0, -1) if again.axes == "SYX" else data, seen)
    copy(source, tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif").orientation == orientation


# ------------------------------------------------------------ which image, and all of it


@pytest.mark.parametrize(
    ("preview", "options"),
    [
        (samples(16, 20), {"subfiletype": 1}),
        (samples(16, 20), {"extratags": [(255, 3, 1, 2, True)]}),
        (samples(16, 20), {}),
        (samples(16, 20, 3), {"subfiletype": 1}),
        (samples(16, 20), {"subfiletype": 1, "subifds": 1}),
    ],
)
def test_previews_before_the_image_are_passed_over(tmp_path, preview, options):
    main = samples(64, 80, dtype="uint16")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(preview, metadata=None, **options)
        writer.write(main, photometric="minisblack", metadata=None)
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.data, main)
    assert "preview" in " ".join(picture.notes)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"metadata": {"axes": "TYX"}},
        {"metadata": {"axes": "TYX"}, "compression": "zlib"},
        {"metadata": None},
        {"ome": True, "metadata": {"axes": "TYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}, "compression": "zlib"},
        {"bigtiff": True},
    ],
)
def test_a_stack_that_is_cut_short_is_refused(tmp_path, options, share):
    path = tmp_path / "a.tif"
    data = samples(6, 64, 80, dtype="uint16")
    tifffile.imwrite(path, data, photometric="minisblack", **options)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(FileError, match="cut short"):
        read_image(path)


def test_a_chain_of_pages_that_breaks_off_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_ome(path, list(samples(6, 20, 30, dtype="uint16")))
    path.write_bytes(path.read_bytes()[:4500])
    with pytest.raises(FileError, match="cut short"):
        read_image(path)


def test_pages_that_the_metadata_leave_out_are_restored(tmp_path):
    pages = list(samples(6, 20, 30, dtype="uint16"))
    write_ome(tmp_path / "a.ome.tif", pages, frames=4)
    picture = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(picture.data, pages)
    assert "fewer planes" in " ".join(picture.notes)


def test_planes_that_are_missing_are_said(tmp_path):
    write_ome(tmp_path / "a.ome.tif", list(samples(3, 20, 30, dtype="uint16")), frames=5)
    picture = read_image(tmp_path / "a.ome.tif")
    assert picture.data.shape == (5, 20, 30)
    assert not np.asarray(picture.data)[3:].any()
    assert "missing 2 frames" in " ".join(picture.notes)


# ------------------------------------------------------------------------ tags


TAGS = [
    (269, 2, 0, "plate 3", True),
    (700, 7, 12, b"<x:xmpmeta/>", True),
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (34735, 3, 4, (1, 1, 0, 0), True),
    (42113, 2, 0, "-9999", True),
    (51123, 2, 0, '{"PixelSizeUm": 0.1}', True),
    (65000, 5, 1, (3, 7), True),
    (65009, 12, 1, 0.25, True),
    (65010, 11, 1, 0.5, True),
    (65012, 9, 2, (-3, 5), True),
]


@pytest.mark.parametrize("target", ["b.tif", "b.ome.tif", "b.npy"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_are_kept_or_named(tmp_path, order, target):
    tifffile.imwrite(tmp_path / "a.tif", samples(20, 30), byteorder=order, extratags=TAGS)
    picture, notes = copy(tmp_path / "a.tif", tmp_path / target)
    assert picture.invalid_value == -9999
    if target == "b.npy":
        for name in ("XMP", "georeference", "tag 269", "tag 51123", "tag 65009"):
            assert name in notes
        return
    assert notes == ""
    with tifffile.TiffFile(tmp_path / "a.tif") as one, tifffile.TiffFile(tmp_path / target) as two:
        for code, *_ in TAGS:
            assert two.pages.first.tags[code].value == one.pages.first.tags[code].value


def test_every_tag_that_is_lost_is_named(tmp_path):
    tags = [(65000 + number, 3, 1, number, True) for number in range(20)]
    tifffile.imwrite(tmp_path / "a.tif", samples(20, 30), extratags=tags)
    notes = copy(tmp_path / "a.tif", tmp_path / "b.png")[1]
    assert all(str(65000 + number) in notes for number in range(20))


def test_tags_of_single_pages_are_kept_or_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number, page in enumerate(samples(3, 20, 30)):
            tag = (285, 2, 0, f"well {number}", True)
            writer.write(
                page,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                description=f"z={number}",
                extratags=[tag],
            )
    _, notes = copy(tmp_path / "a.tif", tmp_path / "b.tif")
    assert notes == ""
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        found = [(page.description, page.tags[285].value) for page in tif.pages]
    assert found == [(f"z={number}", f"well {number}") for number in range(3)]
    assert "single pages" in copy(tmp_path / "a.tif", tmp_path / "c.tif", axes="ZYX")[1]


@pytest.mark.parametrize(("code", "named"), [(34665, "EXIF"), (33628, "MetaMorph")])
def test_tags_that_belong_to_their_file_are_named(tmp_path, code, named):
    tifffile.imwrite(tmp_path / "a.tif", samples(20, 30))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        # tifffile does not write such tags: one of its own gets the number.
        offset = tif.pages.first.tags["Software"].offset
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    raw[offset : offset + 2] = code.to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(raw)
    assert named in " ".join(read_image(tmp_path / "a.tif").notes)


@pytest.mark.parametrize(
    ("extra", "color", "named"),
    [([0], False, "fourth sample"), ([1], True, ""), ([2], True, ""), ([2, 0], False, "alpha")],
)
def test_a_fourth_sample_is_alpha_if_the_file_says_so(tmp_path, extra, color, named):
    data = samples(20, 30, 3 + len(extra))
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", extrasamples=extra)
    picture, notes = copy(tmp_path / "a.tif", tmp_path / "b.tif")
    assert picture.color == color
    assert named in notes
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        page = tif.pages.first
        assert (page.photometric, list(page.extrasamples)) == (tifffile.PHOTOMETRIC.RGB, extra)
    if not color:
        with pytest.raises(FileError, match="does not call colors"):
            copy(tmp_path / "a.tif", tmp_path / "b.png")


@pytest.mark.parametrize("name", ["b.png", "b.jpg"])
def test_samples_that_lie_apart_are_joined_in_photographs(tmp_path, name):
    data = samples(3, 24, 32)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig="separate")
    copy(tmp_path / "a.tif", tmp_path / name)
    again = read_image(tmp_path / name)
    assert again.axes == "YXS"
    if name.endswith("png"):
        np.testing.assert_array_equal(again.data, data.transpose(1, 2, 0))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_every_integer_goes_into_ome_zarr(tmp_path, order, dtype):
    data = samples(20, 30, dtype=dtype)
    for name, options in (("a.tif", {}), ("b.tif", {"compression": "zlib"})):
        tifffile.imwrite(tmp_path / name, data, byteorder=order, **options)
        copy(tmp_path / name, tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.zarr").data, data)


def test_profiles_and_packets_go_between_formats(tmp_path):
    profile = b"\0" * 36 + b"acsp" + b"\0" * 88
    tifffile.imwrite(tmp_path / "a.tif", samples(20, 30), iccprofile=profile)
    copy(tmp_path / "a.tif", tmp_path / "b.ome.tif")
    assert read_image(tmp_path / "b.ome.tif").said["ICC profile"] == profile
    assert "ICC profile" in copy(tmp_path / "a.tif", tmp_path / "b.zarr")[1]


def test_the_largest_value_that_a_tag_allows_is_kept(tmp_path):
    data = samples(20, 30, top=4000, dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, extratags=[(tiff_reader._LARGEST, 3, 1, 4095, True)])
    copy(tmp_path / "a.tif", tmp_path / "b.tif", change=lambda values: values + 500)
    again = read_image(tmp_path / "b.tif")
    assert (again.top, again.data.max()) == (4095, 4095)
