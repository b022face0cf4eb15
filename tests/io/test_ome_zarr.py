"""OME-Zarr: what goes in comes out, with all levels and everything it said about the image."""

from __future__ import annotations

import json

import numpy as np
import ome_zarr_models.v04.image
import ome_zarr_models.v05.image
import pytest
import tifffile
import zarr

from napari_restore.errors import FileError
from napari_restore.image.layout import (
    Layout,
    StoredArray,
    TileOptions,
    block_shape,
    blocks,
    reading_of,
    regions_of,
)
from napari_restore.image.pyramid import pyramid
from napari_restore.io import check_target, name_axes, ome_zarr, read_image, reading, write_image
from planning import plan

PROVENANCE = json.dumps({"task": "deblur", "scales": [[10.0, 200.0]]})
SCALE = {"t": 2.0, "c": 1.0, "z": 0.3, "y": 0.11, "x": 0.12}
TYPES = {"t": "time", "c": "channel"}
UNITS = {"t": "second", "z": "nanometer", "y": "micrometer", "x": "micrometer"}


def samples(shape, dtype="uint16", seed=0):
    values = np.random.default_rng(seed).random(shape) * 250
    return values > 125 if np.dtype(dtype) == bool else values.astype(dtype)


def write_ngff(path, data, axes, version="0.5", levels=1, omero=None, chunks=None, **entry):
    """An OME-Zarr as other programs write it; each level halves Y and X, and Z if it is long."""
    kind = 2 if version == "0.4" else 3
    group = zarr.create_group(path, zarr_format=kind)
    datasets, shape, factor = [], data.shape, 1
    shapes = [shape]
    for _ in range(levels - 1):
        shapes.append(
            tuple(-(-n // 2) if a in "zyx" else n for n, a in zip(shapes[-1], axes, strict=True))
        )
    for level, array in enumerate(pyramid(data, shapes[1:])):
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if kind == 2 else {}
        size = chunks or (1,) * (data.ndim - 2) + (32, 32)
        group.create_array(str(level), data=array, chunks=size, **options)
        steps = [SCALE[a] * (factor if a in "zyx" else 1) for a in axes]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": steps}]}
        )
        factor *= 2
    described = [
        {"name": a, "type": TYPES.get(a, "space")} | ({"unit": UNITS[a]} if a in UNITS else {})
        for a in axes
    ]
    ome = {"multiscales": [{"name": "cells", "axes": described, "datasets": datasets, **entry}]}
    ome |= {"omero": omero} if omero else {}
    if kind == 2:
        ome["multiscales"][0]["version"] = "0.4"
        group.attrs.update(ome | {"lab": {"stain": "µ-dye"}})
    else:
        group.attrs.update({"ome": ome | {"version": "0.5"}, "lab": {"stain": "µ-dye"}})
    return path


def copy(source, target, axes=None, rgb=None, **options):
    """Read, plan, write: what a restoration does, without one."""
    picture = read_image(source)
    letters, color = reading(picture, axes, rgb)
    layout = plan(picture.data, "deblur", axes=letters, rgb=color, device="cpu").layout
    name_axes(picture, layout, named_by_user=axes is not None)
    check_target(target, picture, **options)
    write_image(target, np.asarray(picture.data[...]), picture, PROVENANCE, **options)
    return picture, layout


def entry_of(path):
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    return attributes.get("ome", attributes)["multiscales"][0]


def valid(path, version="0.5"):
    """Attributes of an image, checked against the specification; with its omero."""
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    if version == "0.4":
        image = ome_zarr_models.v04.image.ImageAttrs.model_validate(attributes)
        assert image.multiscales[0].version == version
    else:
        image = ome_zarr_models.v05.image.Image.from_zarr(group).attributes.ome
        assert image.version == version
    for dataset in image.multiscales[0].datasets:
        assert group[dataset.path].ndim == len(image.multiscales[0].axes)
    omero = attributes.get("ome", attributes).get("omero")
    return omero and ome_zarr_models.v04.image.Omero.model_validate(omero)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("yx", (70, 50), "uint16"),
        ("zyx", (3, 70, 50), "float32"),
        ("tczyx", (2, 2, 3, 40, 50), "int16"),
        ("cyx", (2, 40, 50), "bool"),
    ],
)
def test_an_ome_zarr_keeps_everything(tmp_path, version, axes, shape, dtype):
    channel = {"color": "00FF00", "window": {"min": 0, "max": 9, "start": 1, "end": 5}}
    omero = {"channels": [{"label": name, **channel} for name in ("DAPI", "GFP")]}
    data = samples(shape, dtype)
    source = write_ngff(tmp_path / "a.ome.zarr", data, axes, version, levels=2, omero=omero)
    picture, layout = copy(source, tmp_path / "b.ome.zarr")
    assert layout.axes == axes.upper()
    assert isinstance(picture.data, StoredArray)
    assert picture.pixel_size["X"] == (0.12, "µm")
    assert picture.channels == ["DAPI", "GFP"]
    before, after = (zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r") for name in "ab")
    assert after.metadata.zarr_format == before.metadata.zarr_format
    for level in "01":
        assert after[level].dtype == before[level].dtype
        np.testing.assert_array_equal(after[level][...], before[level][...])
    one, two = before.attrs.asdict(), after.attrs.asdict()
    assert two.pop("napari_restore")["task"] == "deblur"
    for attributes in (one, two):
        for dataset in attributes.get("ome", attributes)["multiscales"][0]["datasets"]:
            del dataset["coordinateTransformations"][1:]
    two.get("ome", two)["multiscales"][0].pop("type")
    assert two == one
    assert valid(tmp_path / "b.ome.zarr", version).channels[0].label == "DAPI"


def test_levels_are_means_down_to_a_screen(tmp_path, monkeypatch):
    monkeypatch.setattr(ome_zarr, "CHUNK", 64)
    monkeypatch.setattr(ome_zarr, "_REDUCED", 64 * 64)
    monkeypatch.setattr(ome_zarr, "COARSEST", 50)
    data = samples((2, 301, 190))
    np.save(tmp_path / "a.npy", data)
    copy(tmp_path / "a.npy", tmp_path / "b.zarr", axes="ZYX")
    group = zarr.open_group(tmp_path / "b.zarr", mode="r")
    expected = pyramid(data, [(2, 151, 95), (2, 76, 48), (2, 38, 24)])
    assert sorted(group.array_keys()) == ["0", "1", "2", "3"]
    for level, array in enumerate(expected):
        assert group[str(level)].chunks[-1] <= 64
        np.testing.assert_array_equal(group[str(level)][...], array)
    # The center of a coarse pixel is the middle of those that it is the mean of.
    scale, shift = entry_of(tmp_path / "b.zarr")["datasets"][2]["coordinateTransformations"]
    assert (scale["scale"], shift["translation"]) == ([1, 4, 4], [0, 1.5, 1.5])
    assert [axis["name"] for axis in entry_of(tmp_path / "b.zarr")["axes"]] == list("zyx")
    assert valid(tmp_path / "b.zarr") is None


def test_levels_that_are_no_whole_fractions_are_made_anew(tmp_path):
    assert ome_zarr.level_shapes((1, 900, 700), "ZYX", [(1, 900, 700), (1, 600, 500)]) == [
        (1, 450, 350)
    ]
    assert ome_zarr.level_shapes((9, 900, 700), "ZYX", [(9, 900, 700), (3, 225, 175)]) == [
        (3, 225, 175)
    ]
    assert ome_zarr.level_shapes((1, 1025), "YX", []) == [(1, 513), (1, 257)]


def test_chunks_of_the_original_are_kept_where_they_are_sensible(tmp_path):
    data = samples((4, 300, 300))
    for name, chunks, expected in [
        ("a", (2, 256, 256), (2, 256, 256)),
        ("b", (1, 30, 30), (1, 300, 300)),
        ("c", (4, 3, 300), (1, 300, 300)),
    ]:
        source = write_ngff(tmp_path / f"{name}.zarr", data, "zyx", chunks=chunks)
        copy(source, tmp_path / f"{name}-out.zarr")
        assert zarr.open_array(tmp_path / f"{name}-out.zarr" / "0").chunks == expected


def test_transformations_of_the_whole_are_applied(tmp_path):
    whole = [{"type": "scale", "scale": [2.0, 2.0]}, {"type": "translation", "translation": [5, 7]}]
    source = write_ngff(
        tmp_path / "a.zarr", samples((40, 50)), "yx", coordinateTransformations=whole
    )
    picture, _ = copy(source, tmp_path / "b.zarr")
    assert picture.pixel_size == {"Y": (0.22, "µm"), "X": (0.24, "µm")}
    scale, shift = entry_of(tmp_path / "b.zarr")["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], shift["translation"]) == ([0.22, 0.24], [5, 7])


# ------------------------------------------------------------------ to and from other formats


def test_rgb_becomes_three_channels_and_rgb_again(tmp_path):
    data = samples((40, 50, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb")
    copy(tmp_path / "a.tif", tmp_path / "b.ome.zarr")
    group = zarr.open_group(tmp_path / "b.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][...], data.transpose(2, 0, 1))
    omero = valid(tmp_path / "b.ome.zarr")
    assert [channel.color for channel in omero.channels] == ["FF0000", "00FF00", "0000FF"]
    picture, layout = copy(tmp_path / "b.ome.zarr", tmp_path / "c.ome.zarr")
    assert (picture.axes, picture.color, layout.channels) == ("SYX", True, 3)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "c.ome.zarr/0")[...], group["0"][...])
    copy(tmp_path / "b.ome.zarr", tmp_path / "d.tif")
    copy(tmp_path / "d.tif", tmp_path / "e.ome.zarr")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "e.ome.zarr/0")[...], group["0"][...])


def test_tiff_and_back_keeps_axes_sizes_and_channels(tmp_path):
    data = samples((3, 2, 40, 50))
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "nm"}
    metadata |= {"Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata=metadata)
    copy(tmp_path / "a.ome.tif", tmp_path / "b.ome.zarr")
    group = zarr.open_group(tmp_path / "b.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][...], data.transpose(1, 0, 2, 3))
    x = entry_of(tmp_path / "b.ome.zarr")["axes"][-1]
    assert x == {"name": "x", "type": "space", "unit": "nanometer"}
    channel = valid(tmp_path / "b.ome.zarr").channels[1]
    assert (channel.label, channel.window.start, channel.window.end) == ("GFP", 10, 200)
    copy(tmp_path / "b.ome.zarr", tmp_path / "c.tif")
    with tifffile.TiffFile(tmp_path / "c.tif") as tif:
        assert tif.series[0].axes == "CZYX"
        assert 'PhysicalSizeXUnit="nm"' in tif.ome_metadata
        assert 'Name="GFP"' in tif.ome_metadata
        np.testing.assert_array_equal(tif.asarray(), group["0"][...])


def test_samples_that_ome_tiff_cannot_hold(tmp_path):
    source = write_ngff(tmp_path / "a.zarr", samples((3, 40, 50), "int64"), "zyx")
    copy(source, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert (tif.series[0].kind, tif.series[0].axes) == ("shaped", "ZYX")
        np.testing.assert_array_equal(tif.asarray(), samples((3, 40, 50), "int64"))


@pytest.mark.parametrize(
    ("shape", "axes", "match"),
    [((2, 2, 8, 8), None, "--axes"), ((2, 8, 8, 3), "CYXS", ".tif"), ((0, 8), "YX", ".npy")],
)
def test_what_ome_zarr_cannot_hold(tmp_path, shape, axes, match):
    np.save(tmp_path / "a.npy", samples(shape))
    with pytest.raises(FileError, match=match):
        copy(tmp_path / "a.npy", tmp_path / "b.zarr", axes=axes)
    assert not (tmp_path / "b.zarr").exists()


# ------------------------------------------------------------------ what is no image


def test_a_plain_array_is_restored(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", samples((3, 40, 50)))
    _, layout = copy(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert layout.axes == "QYX"
    assert [axis["name"] for axis in entry_of(tmp_path / "b.zarr")["axes"]] == ["q", "y", "x"]
    assert valid(tmp_path / "b.zarr") is None


def broken(kind, path):
    group = zarr.create_group(path)
    if kind == "plain":
        group.create_array("raw", shape=(4, 4), dtype="u1")
        group.create_group("more")
    elif kind == "plate":
        wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}]
        group.attrs["ome"] = {"version": "0.5", "plate": {"wells": wells}}
    elif kind == "well":
        group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}
    elif kind == "collection":
        group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
        for name in ("0", "1", "OME"):
            group.create_group(name)
    elif kind == "damaged":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": [], "datasets": []}]}
    elif kind == "labels":
        write_ngff(path / "x", samples((9, 9)), "yx")
        inner = zarr.open_group(path / "x")
        group.attrs["ome"] = dict(inner.attrs["ome"]) | {"image-label": {}}


@pytest.mark.parametrize(
    ("kind", "matches"),
    [
        ("plain", ["no 'multiscales'", "a.zarr/raw, .*a.zarr/more"]),
        ("plate", ["plate of 1 wells", "a.zarr/A/1/0"]),
        ("well", ["2 images", "a.zarr/0, .*a.zarr/1"]),
        ("collection", ["2 images", "a.zarr/0, .*a.zarr/1[.]"]),
        ("damaged", ["damaged"]),
        ("labels", ["not intensities"]),
        ("empty", ["empty"]),
    ],
)
def test_what_is_no_image_is_explained(tmp_path, kind, matches):
    broken(kind, tmp_path / "a.zarr")
    for match in matches:
        with pytest.raises(FileError, match=match):
            read_image(tmp_path / "a.zarr")


def test_an_image_inside_a_plate_is_read(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    write_ngff(tmp_path / "a.zarr/A/1/0", samples((40, 50)), "yx")
    picture, _ = copy(tmp_path / "a.zarr/A/1/0", tmp_path / "b.zarr")
    assert picture.axes == "YX"
    with pytest.raises(FileError, match="inside"):
        copy(tmp_path / "b.zarr", tmp_path / "a.zarr/A/1/1.zarr")


def test_a_folder_that_is_no_zarr_stays(tmp_path):
    np.save(tmp_path / "a.npy", samples((40, 50)))
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "thesis.txt").write_text("precious")
    with pytest.raises(FileError, match="not a zarr folder"):
        copy(tmp_path / "a.npy", tmp_path / "b.zarr", force=True)
    assert (tmp_path / "b.zarr" / "thesis.txt").read_text() == "precious"


# ------------------------------------------------------------------ blocks


@pytest.mark.parametrize(
    ("axes", "shape", "chunks", "expected"),
    [
        ("YX", (65536, 65536), (1024, 1024), (2048, 2048)),
        ("YX", (1500, 900), (1024, 900), (1500, 900)),
        ("YXS", (9000, 9000, 3), (1024, 1024, 1), (2048, 2048, 3)),
        ("TYX", (5000, 256, 256), (1, 256, 256), (64, 256, 256)),
        ("ZYX", (640, 4096, 4096), (32, 256, 256), (32, 512, 512)),
    ],
)
def test_blocks_are_whole_chunks_and_bounded(axes, shape, chunks, expected):
    layout = Layout(shape, axes)
    block = block_shape(layout, chunks, 2, TileOptions(640))
    assert block == expected
    for length, chunk, whole, letter in zip(block, chunks, shape, axes, strict=True):
        assert length % chunk == 0 or length == whole or letter == "S"
    assert len(blocks(shape, block)) == np.prod(-(-np.array(shape) // block))


def test_blocks_of_whole_rows_follow_the_pages():
    layout = Layout((3, 30000, 30000), "TYX")
    block = block_shape(layout, (1, 512, 512), 2, TileOptions(640), full_width=True)
    assert block[2] == 30000
    assert block[1] % 512 == 0
    assert block[0] == 1


def test_blocks_read_their_halo_and_neighbors_in_time():
    layout = Layout((4, 1000, 1000), "TYX")
    network = {"multiple_of": 8, "halo": 20, "frames": 2}
    last = (slice(3, 4), slice(512, 1000), slice(0, 512))
    assert reading_of(layout, last, **network) == (slice(2, 4), slice(488, 1000), slice(0, 536))
    first = (slice(0, 2), slice(0, 512), slice(0, 512))
    assert reading_of(layout, first, **network)[0] == slice(0, 3)
    assert [index for index, _ in regions_of(layout, first)] == [(0,), (1,)]
