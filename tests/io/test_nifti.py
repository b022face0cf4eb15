"""NIfTI files: the samples change, the header does not."""

from __future__ import annotations

import gzip
import json
import os
import struct
import sys

import nibabel
import numpy as np
import pytest
import tifffile
from nibabel.nifti1 import Nifti1Extension

from napari_restore import api
from napari_restore.cli import main
from napari_restore.errors import FileError
from napari_restore.image import layout
from napari_restore.io import read_image, write_image

PROVENANCE = json.dumps({"task": "deblur", "seconds": 1.5})
CPU = ["--device", "cpu"]
#: Not along the axes, with a reflection.
AFFINE = np.array(
    [[-0.46, 0.1, 0.2, 90.0], [0.1, 0.45, -0.7, -120.0], [0.05, 0.2, 1.9, 30.0], [0, 0, 0, 1]]
)


def samples(shape, dtype="int16", seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random(shape) * 200).astype(dtype)


def save(path, data, *, kind=nibabel.Nifti1Image, slope=None, intercept=None, sizes=None, **fields):
    """Write samples as they are, with a header that says a lot."""
    header = kind.header_class(endianness=">" if data.dtype.byteorder == ">" else "<")
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_sform(AFFINE, 2)
    header.set_qform(AFFINE, 1)
    header.set_xyzt_units("mm", "sec")
    header["pixdim"][4:6] = 2.5, 7
    if sizes is not None:
        header["pixdim"][1:4] = sizes
    header["descrip"], header["aux_file"] = b"scan of a thing", b"a.txt"
    header["cal_max"], header["intent_name"] = 150, b"thing"
    for name, value in fields.items():
        header[name] = value
    header["scl_slope"] = np.nan if slope is None else slope
    header["scl_inter"] = np.nan if intercept is None else intercept
    header.extensions.append(Nifti1Extension(4, b"<AFNI attributes/>"))
    header["vox_offset"] = 0
    with (gzip.open if path.name.endswith(".gz") else open)(path, "wb") as file:
        header.write_to(file)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        file.write(data.tobytes(order="F"))
    return path


def raw(path):
    """Header of the file as it is there, and the stored samples."""
    image = nibabel.load(path)
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
        header = type(image.header).from_fileobj(file, check=False)
    return header, np.asarray(image.dataobj.get_unscaled())


def same_header(source, target):
    one, two = raw(source)[0], raw(target)[0]
    # Where the samples begin depends on the extensions.
    one["vox_offset"] = two["vox_offset"] = 0
    assert two.binaryblock == one.binaryblock
    kept, added = two.extensions[:-1], two.extensions[-1]
    assert [e.get_content() for e in kept] == [e.get_content() for e in one.extensions]
    assert added.get_code() == 6
    return json.loads(bytes(added.get_content()).rstrip(b"\0").removeprefix(b"napari-restore: "))


def copy(source, target, change=lambda data: data):
    picture = read_image(source)
    write_image(target, change(np.array(picture.data)), picture, PROVENANCE)
    return picture


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "slope", "intercept"),
    [
        ("a.nii", (9, 8, 5), "int16", None, None),
        ("a.nii.gz", (9, 8, 5), "uint8", 0.5, -3.25),
        ("a.nii", (9, 8, 5, 3), "uint16", 2, 10),
        ("a.nii", (9, 8), "float32", 1e-3, 7),
        ("a.nii", (9, 8, 5), ">i2", -1.5, 100),
        ("a.nii.gz", (9, 8, 5), "float64", -2, 0),
        ("a.nii", (9, 8, 5, 1, 2), "int32", 0, 3),
    ],
)
def test_header_and_samples_come_back(tmp_path, kind, name, shape, dtype, slope, intercept):
    data = samples(shape, dtype)
    if slope == -2:
        data[2, 3, 1] = np.nan
    source = save(tmp_path / name, data, kind=kind, slope=slope, intercept=intercept)
    target = tmp_path / f"out_{name}"
    picture = copy(source, target)
    assert picture.axes == "XYZTC"[: len(shape)]
    np.testing.assert_array_equal(raw(target)[1], data)
    assert raw(target)[1].dtype == np.dtype(dtype)
    assert same_header(source, target) == json.loads(PROVENANCE)
    again = tmp_path / f"again_{name}"
    write_image(again, np.array(picture.data), picture, PROVENANCE)
    assert again.read_bytes() == target.read_bytes()
    one, two = nibabel.load(source), nibabel.load(target)
    np.testing.assert_array_equal(two.get_fdata(), one.get_fdata())
    np.testing.assert_array_equal(two.affine, one.affine)
    sizes = {"X": "mm", "Y": "mm", "Z": "mm", "T": "s"}
    assert {k: u for k, (_, u) in picture.pixel_size.items()} == {
        k: u for k, u in sizes.items() if k in picture.axes
    }


def test_large_uncompressed_files_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "IN_MEMORY", 0)
    picture = read_image(save(tmp_path / "a.nii", samples((9, 8, 5))))
    assert isinstance(picture.data, np.memmap)


def test_bits_that_turned_in_compressed_files_are_noticed(tmp_path):
    whole = save(tmp_path / "a.nii.gz", samples((20, 30, 4))).read_bytes()
    for place in np.linspace(20, len(whole) - 9, 20).astype(int):
        turned = bytearray(whole)
        turned[place] ^= 4
        (tmp_path / "b.nii.gz").write_bytes(turned)
        with pytest.raises(FileError, match="cannot be read as NIfTI"):
            read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("slope", [0.25, -0.25])
def test_restored_values_do_not_depend_on_how_they_are_stored(tmp_path, slope):
    """Halves of the slope away at most, with either sign, as the same values in float."""
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 1000, (40, 36, 2)).astype("int16")
    values = (stored * np.float32(slope) + 5).astype("float32")
    save(tmp_path / "a.nii", stored, slope=slope, intercept=5)
    save(tmp_path / "b.nii", values)
    for name in "ab":
        command = ["deblur", str(tmp_path / f"{name}.nii"), "-o", str(tmp_path / f"{name}o.nii.gz")]
        assert main([*command, *CPU]) == 0
    one, two = (nibabel.load(tmp_path / f"{name}o.nii.gz").get_fdata() for name in "ab")
    assert np.abs(two - values).max() > 10
    # bfloat16 tells changes of this size apart to about 1 %.
    assert np.abs(one - two).max() < 0.02 * np.abs(two - values).max() + 0.13


def test_the_command_line_restores_planes_in_place(tmp_path, capsys):
    data = samples((30, 26, 3))
    source = save(tmp_path / "in.nii.gz", data)
    assert main(["deblur", str(source), "-o", f"{tmp_path / 'out'}/", *CPU]) == 0
    expected = api.deblur(data, axes="XYZ", device="cpu")
    np.testing.assert_array_equal(raw(tmp_path / "out" / "in.nii.gz")[1], expected)
    note = same_header(source, tmp_path / "out" / "in.nii.gz")
    assert (note["task"], note["axes"]) == ("deblur", "XYZ")
    assert capsys.readouterr().err == ""


def test_clipped_samples_are_counted(tmp_path, capsys):
    data = np.where(np.indices((40, 40, 1)).sum(axis=0) // 10 % 2, 255, 0).astype("uint8")
    source = save(tmp_path / "a.nii", data, slope=3, intercept=1)
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.nii"), *CPU]) == 0
    count = same_header(source, tmp_path / "b.nii")["clipped_samples"]
    assert count > 0
    assert f"{count} samples clipped to uint8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sizes", "shape", "along", "axes", "noted"),
    [
        ((0.5, 0.5, 5), (9, 8, 7), None, "XYZ", False),
        ((5, 0.5, 0.5), (9, 8, 7), None, "ZXY", True),
        ((0.9, 3, 0.9), (9, 8, 7), None, "XZY", True),
        ((1.2, 1, 1), (9, 8, 7), None, "ZXY", True),
        ((1, 1, 1.001), (9, 8, 7), None, "XYZ", True),
        ((1, 1, 1), (9, 8, 7), 0, "ZXY", True),
        ((1, 1, 1), (9, 8, 7), 2, "XYZ", False),
        ((5, 0.5, 0.5), (9, 8, 7), 2, "ZXY", True),
        ((0.5, 0.5, 5), (9, 1, 7), None, "XZY", False),
        ((0.5, 0.6, 5), (9, 8, 1), None, "XYZ", False),
        ((0, 0, 0), (9, 8, 7), None, "XYZ", True),
    ],
)
def test_the_plane_of_acquisition(tmp_path, sizes, shape, along, axes, noted):
    info = 0 if along is None else (along + 1) << 4
    source = save(tmp_path / "a.nii", samples(shape), sizes=sizes, dim_info=info)
    picture = read_image(source)
    assert picture.axes == axes
    assert bool(picture.notes) == noted
    if noted:
        place = sorted(axes.index(letter) + 1 for letter in "XY")
        assert f"axes {place[0]} and {place[1]}" in picture.notes[0]
        assert "--axes" in picture.notes[0]


def test_colors(tmp_path):
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    data = np.empty((30, 26, 2), rgb)
    for seed, name in enumerate("RGB"):
        data[name] = samples(data.shape, "uint8", seed)
    source = save(tmp_path / "a.nii", data)
    picture = copy(source, tmp_path / "b.nii", lambda values: values + np.uint8([1, 2, 3]))
    assert (picture.axes, picture.color) == ("XYZS", True)
    after = raw(tmp_path / "b.nii")[1]
    for number, name in enumerate("RGB"):
        np.testing.assert_array_equal(after[name], data[name] + number + 1)
    same_header(source, tmp_path / "b.nii")
    assert main(["deblur", str(source), "-o", str(tmp_path / "c.nii"), *CPU]) == 0
    assert same_header(source, tmp_path / "c.nii")["model"] == "deblur-color"


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, 0, "int16"), (1, -24, "float32"), (0.5, 3, "float32"), (-1, 4, "float32")],
)
@pytest.mark.parametrize("name", ["b.tif", "b.npy", "b.ome.tif"])
def test_other_formats_hold_values_and_sizes(tmp_path, slope, intercept, dtype, name):
    """Where there is no slope, the values of the image are written themselves."""
    data = samples((9, 8, 5, 2))
    source = save(tmp_path / "a.nii", data, slope=slope, intercept=intercept)
    copy(source, tmp_path / name)
    values = nibabel.load(source).get_fdata().astype(dtype)
    if name == "b.npy":
        after = np.load(tmp_path / name)
    else:
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.series[0].axes == "ZTYX"
            after = tif.asarray().transpose(3, 2, 0, 1)
        assert read_image(tmp_path / name).pixel_size == read_image(source).pixel_size
    assert after.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(after, values)


def test_small_integers_stay_integers(tmp_path):
    source = save(tmp_path / "a.nii", samples((9, 8, 5), "uint8"), slope=-3, intercept=5)
    copy(source, tmp_path / "b.npy")
    after = np.load(tmp_path / "b.npy")
    assert after.dtype == np.int16
    np.testing.assert_array_equal(after, nibabel.load(source).get_fdata())


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        (samples((9, 8, 5), "complex64"), {}, "complex64.*modulus"),
        (samples((9, 8, 5), "uint8"), {"intent_code": 1002}, "labels"),
        (samples((9,)), {}, "no planes"),
        (samples((9, 8, 5)), {"slope": 2.0, "intercept": np.inf}, "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, data, fields, message):
    with pytest.raises(FileError, match=message):
        read_image(save(tmp_path / "a.nii", data, **fields))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.7])
def test_damaged_files(tmp_path, name, share):
    path = save(tmp_path / name, samples((20, 20, 20)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(FileError, match="cannot be read as NIfTI"):
        read_image(path)


def test_other_images_do_not_become_nifti(tmp_path):
    np.save(tmp_path / "a.npy", samples((9, 8)))
    picture = read_image(tmp_path / "a.npy")
    picture.axes = "YX"
    with pytest.raises(FileError, match="where an image lies"):
        write_image(tmp_path / "b.nii", picture.data, picture, PROVENANCE)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    source = save(tmp_path / "a.nii", samples((9, 8, 5)))

    def full(self, fileobj):
        fileobj.write(b"half")
        fileobj.flush()
        assert len(os.listdir(tmp_path)) == 2
        raise OSError(28, "No space left on device")

    picture = read_image(source)
    monkeypatch.setattr(nibabel.Nifti1Header, "write_to", full)
    with pytest.raises(FileError, match="No space left"):
        write_image(tmp_path / "b.nii", picture.data, picture, PROVENANCE)
    assert os.listdir(tmp_path) == ["a.nii"]


def test_without_nibabel_it_is_said_how_to_get_it(tmp_path, monkeypatch, capsys):
    source = save(tmp_path / "a.nii", samples((9, 8, 5)))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.nii"), *CPU]) == 1
    assert 'pip install "napari-restore[medical]"' in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(4, 24, 33, 5, 0), (3, 24, 0, 5, 1), (4, 24, 33, 5, -2)])
def test_headers_that_count_no_voxel(tmp_path, shape):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((24, 33, 5), "i2"), np.eye(4)), path)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<5h", raw, 40, *shape)
    path.write_bytes(raw)
    with pytest.raises(FileError, match=r"voxel|cannot be read"):
        read_image(path)


def test_what_nibabel_mends_is_noted_once(tmp_path, capfd):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((24, 33, 5), "i2"), np.eye(4)), path)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 80, 0, 0, 0)
    path.write_bytes(raw)
    assert "pixdim" in " ".join(read_image(path).notes)
    assert capfd.readouterr().err == ""
