"""Image files: what goes in comes out, with everything it said about the image."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_restore.errors import FileError
from napari_restore.image import layout
from napari_restore.image.layout import StoredArray
from napari_restore.io import image_files, name_axes, read_image, reading, write_image
from napari_restore.io.tiff import reader as tiff_reader
from napari_restore.io.tiff import writer as tiff_writer
from planning import plan

PROVENANCE = json.dumps({"task": "deblur", "seconds": 1.5})


def samples(shape, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype) == bool:
        return rng.random(shape) > 0.5
    return (rng.random(shape) * 250).astype(dtype)


def copy(source: Path, target: Path, axes=None, rgb=None, change=None):
    """Read, plan, write: what a restoration does, without one."""
    picture = read_image(source)
    letters, color = reading(picture, axes, rgb)
    layout = plan(picture.data, "deblur", axes=letters, rgb=color, device="cpu").layout
    name_axes(picture, layout, named_by_user=axes is not None)
    data = np.array(picture.data)
    write_image(target, data if change is None else change(data), picture, PROVENANCE)
    return picture, layout


def same_stack(first: Path, second: Path):
    with tifffile.TiffFile(first) as one, tifffile.TiffFile(second) as two:
        a, b = one.series[0], two.series[0]
        assert (b.axes, b.shape, b.dtype, b.kind) == (a.axes, a.shape, a.dtype, a.kind)
        np.testing.assert_array_equal(b.asarray(), a.asarray())
        page, page2 = one.pages.first, two.pages.first
        assert page2.photometric == page.photometric
        assert page2.planarconfig == page.planarconfig
        assert page2.extrasamples == page.extrasamples
        assert page2.resolution == pytest.approx(page.resolution)


# ------------------------------------------------------------------ OME-TIFF

OME = {
    "PhysicalSizeX": 0.11,
    "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 0.12,
    "PhysicalSizeYUnit": "µm",
    "PhysicalSizeZ": 300.0,
    "PhysicalSizeZUnit": "nm",
    "TimeIncrement": 2.5,
    "TimeIncrementUnit": "s",
}


@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [
        ((21, 34), "YX", "uint16"),
        ((3, 21, 34), "ZYX", "float32"),
        ((2, 3, 21, 34), "TCYX", "int16"),
        ((2, 4, 3, 21, 34), "TZCYX", "uint16"),
        ((2, 3, 4, 21, 34), "ZCTYX", "uint8"),
        ((21, 34, 3), "YXS", "uint8"),
        ((4, 21, 34, 3), "ZYXS", "uint8"),
        ((3, 21, 34), "SYX", "uint8"),
        ((21, 34), "YX", "bool"),
        ((21, 1), "YX", "uint8"),
    ],
)
def test_ome_tiff_keeps_axes_sizes_and_channels(tmp_path, shape, axes, dtype):
    source, target = tmp_path / "in.ome.tif", tmp_path / "out.tif"
    metadata = {"axes": axes, **OME, "Name": "cells α"}
    if "C" in axes:
        metadata["Channel"] = {"Name": ["DAPI", "GFP", "µ-dye"]}
    color = "S" in axes
    tifffile.imwrite(
        source,
        samples(shape, dtype),
        photometric="rgb" if color else "minisblack",
        planarconfig={"S": "separate", "Z": "contig"}.get(axes[0], "contig") if color else None,
        metadata=metadata,
        resolution=(1e4 / 0.11, 1e4 / 0.12),
        resolutionunit="CENTIMETER",
    )
    picture, layout = copy(source, target)
    assert layout.axes == axes
    assert picture.pixel_size == {
        "X": (0.11, "µm"),
        "Y": (0.12, "µm"),
        "Z": (300.0, "nm"),
        "T": (2.5, "s"),
    }
    same_stack(source, target)
    with tifffile.TiffFile(target) as tif:
        xml = tif.ome_metadata
    again = read_image(target)
    assert again.pixel_size == picture.pixel_size
    root = ElementTree.fromstring(xml)
    pixels = next(e for e in root.iter() if e.tag.endswith("}Pixels"))
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    names = [e.get("Name") for e in root.iter() if e.tag.endswith("}Channel")]
    assert ("C" not in axes) or names == ["DAPI", "GFP", "µ-dye"]
    comments = [e for e in root.iter() if e.tag.endswith("}CommentAnnotation")]
    assert [json.loads("".join(c.itertext())) for c in comments] == [json.loads(PROVENANCE)]


def test_ome_tiff_keeps_what_it_does_not_understand(tmp_path):
    """Objective, wavelengths and plane positions stay; other images of the document go."""
    source, target = tmp_path / "in.ome.tif", tmp_path / "out.ome.tif"
    with tifffile.TiffWriter(source, ome=True) as writer:
        for name in ("first", "second"):
            writer.write(
                samples((2, 20, 30), "uint16"),
                photometric="minisblack",
                metadata={
                    "axes": "CYX",
                    "Name": name,
                    "Channel": {"Name": ["a", "b"], "EmissionWavelength": [450, 520]},
                    "Plane": {"PositionX": [1.0, 2.0]},
                    "Dataset": {"Name": "both"},
                },
            )
    picture, _ = copy(source, target)
    assert any("2 images" in note for note in picture.notes)
    with tifffile.TiffFile(target) as tif:
        assert len(tif.series) == 1
        root = ElementTree.fromstring(tif.ome_metadata)
    found = list(root.iter())
    assert [e.get("Name") for e in found if e.tag.endswith("}Image")] == ["first"]
    waves = [e.get("EmissionWavelength") for e in found if e.tag.endswith("}Channel")]
    assert waves == ["450", "520"]
    assert [e.get("PositionX") for e in found if e.tag.endswith("}Plane")] == ["1.0", "2.0"]
    references = {e.get("ID") for e in found if e.tag.endswith("}ImageRef")}
    assert references <= {e.get("ID") for e in found if e.tag.endswith("}Image")}
    pixels = next(e for e in found if e.tag.endswith("}Pixels"))
    kinds = [child.tag.rpartition("}")[2] for child in pixels]
    assert kinds == ["Channel", "Channel", "TiffData", "Plane", "Plane"]


def test_ome_tiff_with_an_axis_of_angles(tmp_path):
    source, target = tmp_path / "in.ome.tif", tmp_path / "out.tif"
    metadata = {"axes": "TAZYX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "nm"}
    data = samples((2, 3, 4, 20, 30), "uint16")
    tifffile.imwrite(source, data, photometric="minisblack", metadata=metadata)
    picture, layout = copy(source, target)
    assert layout.axes == "TAZYX"
    assert picture.notes
    same_stack(source, target)
    assert read_image(target).pixel_size == {"X": (0.2, "nm")}


def test_ome_tiff_in_several_files_is_refused(tmp_path):
    source = tmp_path / "a.ome.tif"
    tifffile.imwrite(source, samples((20, 30)), photometric="minisblack", metadata={"axes": "YX"})
    other = tmp_path / "b.ome.tif"
    tifffile.imwrite(other, samples((20, 30)), photometric="minisblack", metadata={"axes": "YX"})
    xml = tifffile.tiffcomment(other)
    identity = ElementTree.fromstring(xml).get("UUID")
    place = f'<UUID FileName="b.ome.tif">{identity}</UUID>'
    pages = f'<TiffData IFD="0" PlaneCount="1">{place}</TiffData>'
    xml = tifffile.tiffcomment(source).replace('<TiffData IFD="0" PlaneCount="1"/>', pages)
    tifffile.tiffcomment(source, xml.encode())
    with pytest.raises(FileError, match="one of several"):
        read_image(source)


# ------------------------------------------------------------------ ImageJ TIFF


@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [
        ((21, 34), "YX", "uint8"),
        ((5, 21, 34), "ZYX", "uint16"),
        ((2, 3, 2, 21, 34), "TZCYX", "float32"),
        ((2, 21, 34), "CYX", "uint16"),
        ((4, 21, 34, 3), "ZYXS", "uint8"),
    ],
)
def test_imagej_tiff_keeps_its_metadata(tmp_path, shape, axes, dtype):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    pages = int(np.prod(shape)) // (21 * 34 * (3 if "S" in axes else 1))
    metadata = {
        "axes": axes,
        "spacing": 0.5,
        "unit": "\\u00B5m",
        "finterval": 1.25,
        "Info": "Scanned on Monday, 37 °C",
        "Labels": [f"slice {i}" for i in range(pages)],
        "min": 3.0,
        "max": 99.0,
    }
    tifffile.imwrite(
        source, samples(shape, dtype), imagej=True, resolution=(10, 5), metadata=metadata
    )
    picture, layout = copy(source, target)
    assert layout.axes == axes
    assert picture.pixel_size == {
        "X": (0.1, "µm"),
        "Y": (0.2, "µm"),
        "Z": (0.5, "µm"),
        "T": (1.25, "s"),
    }
    same_stack(source, target)
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        before, after = one.imagej_metadata, two.imagej_metadata
    info = after.pop("Info").splitlines()
    assert info[0] == before.pop("Info")
    assert json.loads(info[1].removeprefix("napari-restore: ")) == json.loads(PROVENANCE)
    assert after == before


def test_imagej_tiff_keeps_look_up_tables(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    ramp = np.arange(256, dtype=np.uint8)
    luts = [np.stack([ramp, 0 * ramp, 0 * ramp]), np.stack([0 * ramp, ramp, 0 * ramp])]
    metadata = {"axes": "CYX", "mode": "composite", "LUTs": luts, "Ranges": (0, 9, 0, 8)}
    tifffile.imwrite(source, samples((2, 20, 30)), imagej=True, metadata=metadata)
    copy(source, target)
    with tifffile.TiffFile(target) as tif:
        after = tif.imagej_metadata
    np.testing.assert_array_equal(after["LUTs"], luts)
    assert after["Ranges"] == (0, 9, 0, 8)
    assert after["mode"] == "composite"


def test_imagej_tiff_beyond_4_gb_becomes_ome(tmp_path, monkeypatch):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(
        source, samples((3, 20, 30), "uint16"), imagej=True, resolution=(10, 10), metadata=metadata
    )
    monkeypatch.setattr(tiff_writer, "CLASSIC_BYTES", 1000)
    copy(source, target)
    with tifffile.TiffFile(target) as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
    sizes = {"X": (0.1, "µm"), "Y": (0.1, "µm"), "Z": (0.5, "µm")}
    assert read_image(target).pixel_size == sizes


# ------------------------------------------------------------------ plain TIFF


@pytest.mark.parametrize(
    "dtype",
    "bool uint8 int8 uint16 int16 uint32 int32 int64 float16 float32 float64".split(),
)
def test_plain_tiff_keeps_dtype_and_tags(tmp_path, dtype):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(
        source,
        samples((21, 34), dtype),
        photometric="minisblack",
        metadata=None,
        description="sample 7, 5 µm".encode(),
        resolution=(120, 60),
        resolutionunit="CENTIMETER",
        extratags=[(315, 2, 0, "A. Curie", True), (34118, 2, 0, "AP_PIXEL_SIZE = 3 nm", True)],
        iccprofile=b"profile!" * 20,
    )
    picture, _ = copy(source, target)
    assert picture.dpi == pytest.approx((304.8, 152.4))
    same_stack(source, target)
    with tifffile.TiffFile(target) as tif:
        page = tif.pages.first
        assert page.description == "sample 7, 5 µm"
        assert page.resolutionunit == 3
        assert page.tags.valueof(315) == "A. Curie"
        assert page.tags.valueof(34675) == b"profile!" * 20
        assert 34118 in page.tags
        note = page.software[page.software.index("{") :]
        assert json.loads(note) == json.loads(PROVENANCE)


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((5, 21, 34), {"photometric": "minisblack", "metadata": None}, "IYX"),
        ((2, 5, 21, 34), {"photometric": "minisblack"}, "RQYX"),
        ((2, 5, 21, 34), {"photometric": "minisblack", "metadata": {"axes": "TZYX"}}, "TZYX"),
        ((21, 34), {"photometric": "miniswhite"}, "YX"),
        ((21, 34, 3), {"photometric": "rgb"}, "YXS"),
        ((21, 34, 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]}, "YXS"),
        ((3, 21, 34), {"photometric": "rgb", "planarconfig": "separate"}, "SYX"),
        ((21, 34, 3), {"photometric": "minisblack", "planarconfig": "contig"}, "YXC"),
        ((21, 34, 5), {"photometric": "minisblack", "planarconfig": "contig"}, "YXC"),
        (
            (21, 34, 2),
            {
                "photometric": "minisblack",
                "planarconfig": "contig",
                "extrasamples": ["unassalpha"],
            },
            "YX",
        ),
        ((21, 34), {"photometric": "minisblack", "compression": "zlib", "predictor": True}, "YX"),
        ((21, 34), {"photometric": "minisblack", "tile": (16, 16)}, "YX"),
        ((21, 34), {"photometric": "minisblack", "byteorder": ">"}, "YX"),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_plain_tiff_keeps_its_layout(tmp_path, shape, options, axes, dtype):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, samples(shape, dtype), **options)
    _, layout = copy(source, target)
    assert layout.axes == axes
    same_stack(source, target)
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        assert (one.pages.first.compression == 1) == (two.pages.first.compression == 1)


def test_large_bare_samples_are_memory_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "IN_MEMORY", 0)
    for name, options in {"a.tif": {}, "b.ome.tif": {"metadata": {"axes": "ZYX"}}}.items():
        tifffile.imwrite(tmp_path / name, samples((4, 20, 30)), photometric="minisblack", **options)
        assert isinstance(read_image(tmp_path / name).data, np.memmap)
    np.save(tmp_path / "c.npy", samples((4, 20, 30)))
    assert isinstance(read_image(tmp_path / "c.npy").data, np.memmap)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 40, 70), {"photometric": "minisblack", "compression": "zlib", "tile": (16, 32)}),
        ((40, 70, 3), {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 8}),
        ((3, 40, 70), {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
        ((40, 70, 3), {"photometric": "rgb", "compression": "jpeg", "tile": (32, 32)}),
        ((40, 70), {"photometric": "miniswhite", "tile": (16, 32), "byteorder": ">"}),
    ],
)
def test_large_samples_are_read_in_parts(tmp_path, monkeypatch, shape, options):
    data = samples(shape, "uint8" if options.get("compression") == "jpeg" else "uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    monkeypatch.setattr(tiff_reader, "SCRATCH_BYTES", 1000)
    large = read_image(tmp_path / "a.tif")
    monkeypatch.undo()
    small = read_image(tmp_path / "a.tif")
    assert isinstance(large.data, StoredArray)
    assert isinstance(small.data, np.ndarray)
    assert (large.axes, large.color, large.extras) == (small.axes, small.color, small.extras)
    np.testing.assert_array_equal(large.data[...], small.data)


@pytest.mark.parametrize("kind", ["one strip", "alpha", "palette"])
def test_large_samples_that_cannot_be_read_in_parts_go_to_disk(tmp_path, monkeypatch, kind):
    options = {"photometric": "minisblack", "compression": "zlib"}
    data = samples((40, 70, 2) if kind == "alpha" else (40, 70))
    if kind == "alpha":
        options |= {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    if kind == "palette":
        options |= {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    monkeypatch.setattr(tiff_reader, "SCRATCH_BYTES", 1000)
    monkeypatch.setattr(tiff_reader, "_SEGMENT_BYTES", 1000 if kind == "one strip" else 10**6)
    read = read_image(tmp_path / "a.tif")
    assert isinstance(read.data, np.ndarray)
    if kind == "one strip":
        assert isinstance(read.data, np.memmap)
        np.testing.assert_array_equal(read.data, data)
    if kind == "alpha":
        np.testing.assert_array_equal(read.alpha, data[..., 1])


def test_more_than_4_gb_become_bigtiff(tmp_path, monkeypatch):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, samples((20, 30)), photometric="minisblack")
    monkeypatch.setattr(tiff_writer, "CLASSIC_BYTES", 100)
    copy(source, target)
    with tifffile.TiffFile(target) as tif:
        assert tif.is_bigtiff
    same_stack(source, target)


def test_lzw_is_read(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    data = samples((3, 20, 30), "uint16")
    frames = [Image.fromarray(plane) for plane in data]
    frames[0].save(source, compression="tiff_lzw", save_all=True, append_images=frames[1:])
    picture, _ = copy(source, target)
    np.testing.assert_array_equal(picture.data, data)
    with tifffile.TiffFile(target) as tif:
        assert tif.pages.first.compression.name == "ADOBE_DEFLATE"
        np.testing.assert_array_equal(tif.asarray(), data)


def test_palette_tiff_becomes_rgb_but_imagej_keeps_its_intensities(tmp_path):
    index = samples((20, 30))
    table = np.random.default_rng(1).integers(0, 65535, (3, 256)).astype(np.uint16)
    plain, imagej = tmp_path / "plain.tif", tmp_path / "imagej.tif"
    tifffile.imwrite(plain, index, photometric="palette", colormap=table)
    tifffile.imwrite(imagej, index, photometric="palette", colormap=table, imagej=True)
    picture, layout = copy(plain, tmp_path / "a.tif")
    assert layout.axes == "YXS"
    assert picture.notes
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), (table >> 8).T[index])
    copy(imagej, tmp_path / "b.tif")
    same_stack(imagej, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        np.testing.assert_array_equal(tif.pages.first.colormap, table)


@pytest.mark.parametrize("photometric", ["cielab", "separated", "cfa"])
def test_tiff_without_intensities_is_refused(tmp_path, photometric):
    shape = {"cielab": (20, 30, 3), "separated": (20, 30, 4), "cfa": (20, 30)}[photometric]
    options = {"extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]}
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples(shape),
        photometric=photometric,
        planarconfig="contig" if len(shape) == 3 else None,
        **(options if photometric == "cfa" else {}),
    )
    with pytest.raises(FileError, match=photometric.upper()):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("large", [False, True])
def test_pyramid_keeps_full_size(tmp_path, monkeypatch, large):
    data = samples((64, 64))
    options = {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(data, subifds=1, metadata={"axes": "YX"}, **options)
        writer.write(data[::2, ::2], subfiletype=1, **options)
    if large:
        monkeypatch.setattr(tiff_reader, "SCRATCH_BYTES", 1000)
    picture, _ = copy(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    assert isinstance(picture.data, StoredArray) == large
    assert any("pyramid" in note for note in picture.notes)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.ome.tif"), data)


# ------------------------------------------------------------------ what the user says


@pytest.mark.parametrize(
    ("metadata", "photometric", "shape", "rgb", "axes"),
    [
        ({"axes": "YXS"}, "rgb", (20, 30, 3), False, "YXC"),
        ({"axes": "YXS"}, "minisblack", (20, 30, 3), True, "YXS"),
        ({"axes": "CYX"}, "minisblack", (3, 20, 30), True, "SYX"),
        ({"axes": "CYX"}, "minisblack", (3, 20, 30), None, "CYX"),
        (None, "minisblack", (4, 20, 3), True, "YXS"),
    ],
)
def test_rgb_or_channels(tmp_path, metadata, photometric, shape, rgb, axes):
    planar = "contig" if metadata == {"axes": "YXS"} else None
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples(shape, "uint16"),
        photometric=photometric,
        planarconfig=planar,
        metadata=metadata,
    )
    _, layout = copy(tmp_path / "a.tif", tmp_path / "b.tif", rgb=rgb)
    assert layout.axes == axes
    same_stack(tmp_path / "a.tif", tmp_path / "b.tif")


def test_axes_given_by_the_user_are_written(tmp_path):
    np.save(tmp_path / "a.npy", samples((4, 20, 30), "uint16"))
    copy(tmp_path / "a.npy", tmp_path / "b.ome.tif", axes="zyx")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        assert json.loads(PROVENANCE)["task"] in tif.ome_metadata
    copy(tmp_path / "a.npy", tmp_path / "c.tif", axes="zyx")
    with tifffile.TiffFile(tmp_path / "c.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == ("ZYX", (4, 20, 30))


def test_unusual_order_is_turned_for_tiff_and_kept_for_npy(tmp_path):
    data = samples((20, 30, 4), "uint16")
    np.save(tmp_path / "a.npy", data)
    copy(tmp_path / "a.npy", tmp_path / "b.ome.tif", axes="YXZ")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.ome.tif"), data.transpose(2, 0, 1))
    copy(tmp_path / "a.npy", tmp_path / "c.npy", axes="YXZ")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), data)


def test_unnamed_axes_are_not_given_a_meaning(tmp_path):
    np.save(tmp_path / "a.npy", samples((2, 3, 4, 20, 30), "uint16"))
    copy(tmp_path / "a.npy", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == ("QQQYX", (2, 3, 4, 20, 30))
    with pytest.raises(FileError, match="--axes"):
        copy(tmp_path / "a.npy", tmp_path / "b.ome.tif")


# ------------------------------------------------------------------ PNG, JPEG, NPY


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (21, 34), "uint8"),
        ("I;16", (21, 34), "uint16"),
        ("1", (21, 34), "bool"),
        ("LA", (21, 34, 2), "uint8"),
        ("RGB", (21, 34, 3), "uint8"),
        ("RGBA", (21, 34, 4), "uint8"),
    ],
)
def test_png_keeps_samples_alpha_and_resolution(tmp_path, mode, shape, dtype):
    source, target = tmp_path / "in.png", tmp_path / "out.PNG"
    data = samples(shape, dtype)
    image = Image.fromarray(data)
    assert image.mode == mode
    chunks = PngInfo()
    chunks.add_text("Title", "a μ-scope")
    image.save(source, dpi=(300, 200), pnginfo=chunks, icc_profile=b"profile!" * 20)
    copy(source, target)
    with Image.open(target) as result:
        assert result.mode == mode
        np.testing.assert_array_equal(np.asarray(result), data)
        assert result.info["dpi"] == pytest.approx((300, 200), abs=0.1)
        assert result.info["icc_profile"] == b"profile!" * 20
        assert result.text["Title"] == "a μ-scope"
        assert json.loads(result.text["napari-restore"]) == json.loads(PROVENANCE)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette_png_becomes_rgb(tmp_path, transparent):
    image = Image.fromarray(samples((20, 30, 3))).quantize(16)
    options = {"transparency": 3} if transparent else {}
    image.save(tmp_path / "a.png", **options)
    with Image.open(tmp_path / "a.png") as read:
        colors = np.asarray(read.convert("RGBA" if transparent else "RGB"))
    copy(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as result:
        np.testing.assert_array_equal(np.asarray(result), colors)


@pytest.mark.parametrize("bits", ["rgb16", "animation"])
def test_png_that_would_lose_something_is_refused(tmp_path, bits):
    path = tmp_path / "a.png"
    if bits == "rgb16":
        path.write_bytes(png_rgb16())
    else:
        frames = [Image.fromarray(samples((20, 30), seed=i)) for i in range(3)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(FileError, match="TIFF"):
        read_image(path)


def png_rgb16() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * 6)) * 2)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_stays_upright_and_close(tmp_path, mode):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpeg"
    ramp = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)
    image = Image.fromarray(ramp if mode == "L" else np.stack([ramp, ramp // 2, 255 - ramp], -1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    exif[0x010F] = "Maker"
    image.save(source, quality=95, exif=exif, dpi=(240, 240))
    picture, _ = copy(source, target)
    assert picture.data.shape[:2] == (60, 40)
    with Image.open(target) as result:
        assert result.size == (40, 60)
        assert result.mode == mode
        assert result.getexif().get(0x0112, 1) == 1
        assert result.getexif()[0x010F] == "Maker"
        assert result.info["dpi"] == pytest.approx((240, 240))
        assert json.loads(result.info["comment"]) == json.loads(PROVENANCE)
        difference = np.asarray(result).astype(int) - picture.data.astype(int)
    assert np.abs(difference).mean() < 2


def test_cmyk_is_refused(tmp_path):
    Image.fromarray(samples((20, 30, 4)), "CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(FileError, match="CMYK"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore:The array of shape")
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int64", "float64", "bool"])
@pytest.mark.parametrize("shape", [(20, 30), (2, 3, 20, 30), (0, 5), (20, 30, 3)])
def test_npy_keeps_everything(tmp_path, shape, dtype):
    data = samples(shape, dtype)
    np.save(tmp_path / "a.npy", data)
    copy(tmp_path / "a.npy", tmp_path / "b.npy")
    result = np.load(tmp_path / "b.npy")
    assert result.dtype == data.dtype
    np.testing.assert_array_equal(result, data)


@pytest.mark.parametrize("target", ["out.tif", "out.png", "out.npy", "out.ome.tif"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 2), (20, 30, 3), (20, 30, 4)])
def test_one_format_to_another(tmp_path, shape, target):
    data = samples(shape)
    Image.fromarray(data).save(tmp_path / "in.png", dpi=(300, 300))
    copy(tmp_path / "in.png", tmp_path / target)
    back = tmp_path / "back.png"
    again = read_image(tmp_path / target)
    if again.format == "npy":
        np.testing.assert_array_equal(again.data, data)
        return
    copy(tmp_path / target, back)
    with Image.open(back) as result:
        np.testing.assert_array_equal(np.asarray(result), data)
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)


# ------------------------------------------------------------------ refusals


@pytest.mark.filterwarnings("ignore:The array of shape")
@pytest.mark.parametrize(
    ("data", "name", "names"),
    [
        (samples((20, 30), "float32"), "out.png", "float32.*.tif"),
        (samples((4, 20, 30)), "out.png", "(4, 20, 30).*.tif"),
        (samples((20, 30), "uint16"), "out.jpg", "uint16.*.tif"),
        (samples((20, 30, 4)), "out.jpg", "alpha.*.png"),
        (samples((20, 30, 3), "uint8").astype("uint16"), "out.png", ".tif"),
        (samples((20, 30), "int64"), "out.ome.tif", "int64.*.npy"),
        (samples((20, 30), "longdouble"), "out.tif", "float128.*.npy"),
        (samples((0, 30)), "out.tif", "empty.*.npy"),
        (samples((20, 30)), "out.bmp", "'.bmp'.*.tif"),
        (samples((20, 30)), "out", "without an ending"),
        (samples((20, 30)), "nowhere/out.tif", "no folder"),
    ],
)
def test_a_format_that_cannot_hold_it_names_one_that_can(tmp_path, data, name, names):
    np.save(tmp_path / "in.npy", data)
    names = names.replace("(", r"\(").replace(")", r"\)").replace(".", r"\.").replace(r"\.*", ".*")
    with pytest.raises(FileError, match=names):
        copy(tmp_path / "in.npy", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


@pytest.mark.parametrize("ending", ["tif", "png", "jpg", "npy"])
@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_damaged_files(tmp_path, ending, content):
    path = tmp_path / f"a.{ending}"
    if content is None:
        good = tmp_path / f"good.{ending}"
        if ending == "npy":
            np.save(good, samples((64, 64)))
        else:
            Image.fromarray(samples((64, 64))).save(good)
        content = good.read_bytes()[: good.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(FileError, match="cannot be read"):
        read_image(path)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"an": "object"}], object), allow_pickle=True)
    with pytest.raises(FileError, match="NPY"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize(("name", "match"), [("a.xyz", "'.xyz'"), ("gone.tif", "no such file")])
def test_unknown_and_missing_files(tmp_path, name, match):
    (tmp_path / "a.xyz").write_bytes(b"?")
    with pytest.raises(FileError, match=match):
        read_image(tmp_path / name)


@pytest.mark.parametrize("ending", ["tif", "png", "npy"])
def test_a_failed_write_leaves_nothing(tmp_path, ending, monkeypatch):
    np.save(tmp_path / "in.npy", samples((20, 30)))
    target = tmp_path / f"out.{ending}"

    def full(*args, **options):
        # Something has reached the disk when it fills up.
        next(arg for arg in args if isinstance(arg, Path)).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr("napari_restore.io.files.write_npy", full)
    with pytest.raises(FileError, match="No space left"):
        copy(tmp_path / "in.npy", target)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_folder_lists_images_alone(tmp_path):
    for name in ("b.TIF", "a.png", ".hidden.tif", "notes.txt", "x.part"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.tif").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.TIF"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no image file"):
        image_files(tmp_path / "empty")
