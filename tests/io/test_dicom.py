"""DICOM files and series: values keep their meaning, headers what they say, slices their place."""

from __future__ import annotations

import json
import os
import sys

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

from napari_restore import api
from napari_restore.cli import main
from napari_restore.errors import FileError
from napari_restore.io import is_image_folder, read_image, write_image
from napari_restore.io.dicom import PRIVATE_GROUP, arrange, pydicom_speaks

CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2")
PROVENANCE = json.dumps(
    {
        "task": "deblur",
        "model": "deblur-mono",
        "weights_sha256": "0123456789abcdef",
        "strength": 1.0,
        "versions": {"napari-restore": "0.1.0"},
    }
)
CPU = ["--device", "cpu"]
KEEP = ["--strength", "0", *CPU]
#: Direction of rows and columns of an oblique slice, and its normal.
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(ROW, COLUMN)


def words(shape=(12, 10), top=4000, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def dataset(pixels, *, series="1.2.3.4", number=1, position=None, **fields):
    """CT image with all that is usual, and what a test asks for."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", series
    ds.FrameOfReferenceUID = "1.2.3.9"
    ds.PatientName, ds.PatientID = "Nobody^At^All", "n-1"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 3, number
    ds.SeriesDescription, ds.ImageType = "Thorax 5 mm", ["ORIGINAL", "PRIMARY", "AXIAL"]
    color = pixels.ndim > 2 and pixels.shape[-1] == 3
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if color else pixels.shape[-2:]
    if pixels.ndim - color > 2:
        ds.NumberOfFrames = pixels.shape[0]
    ds.SamplesPerPixel = 3 if color else 1
    ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if position is not None:
        ds.ImagePositionPatient = [float(x) for x in position]
        ds.ImageOrientationPatient = [*ROW, *COLUMN]
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.5], 5
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.add_new((0x0009, 0x0010), "LO", "MAKER")
    ds.add_new((0x0009, 0x1001), "LO", "of the maker")
    ds.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(ds, name, value)
    return ds


def put(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder, slices=4, *, step=5.0, skip=(), pixels=words, **fields):
    """Write a series, its files named in another order than they lie; data sets in order."""
    folder.mkdir(exist_ok=True)
    made = []
    for i in range(slices):
        position = np.array([-30.0, 20, 100]) + i * step * NORMAL
        each = {k: v[i] if isinstance(v, list) else v for k, v in fields.items()}
        each = {"number": i + 1, "position": position, **each}
        ds = dataset(pixels(seed=i), **each)
        if i not in skip:
            put(ds, folder / f"IM{(i * 7 + 3) % 10}")
        made.append(ds)
    return made


def copy(source, target, change=lambda data: data, **options):
    picture = read_image(source, **options)
    data = change(np.array(picture.data))
    clipped = picture.fit(data) if picture.fit else 0
    write_image(target, data, picture, PROVENANCE)
    return picture, clipped


def by_place(folder):
    """Data sets of a folder, by name, in the order in which they lie."""
    found = [(pydicom.dcmread(path), path.name) for path in folder.iterdir()]
    return sorted(found, key=lambda pair: NORMAL @ np.array(pair[0].ImagePositionPatient, float))


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("bits", "high", "signed", "slope", "intercept"),
    [(16, 15, 0, 1, -1024), (12, 11, 0, 0.5, 3), (12, 11, 1, -2, 0), (10, 13, 1, 0.013, 1e3)],
)
def test_stored_integers_keep_their_place_in_the_word(
    tmp_path, bits, high, signed, slope, intercept
):
    """Sign, unused bits (overlays once lived there) and range are as in the header."""
    word = words(top=2**16)
    shift, mask = high + 1 - bits, (1 << bits) - 1
    ds = dataset(word, BitsStored=bits, HighBit=high, PixelRepresentation=signed)
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    source = put(ds, tmp_path / "a.dcm")
    stored = (word.astype(int) >> shift) & mask
    if signed:
        stored = np.where(stored > mask // 2, stored - mask - 1, stored)
    picture = read_image(source)
    np.testing.assert_allclose(picture.data, stored * slope + intercept, rtol=1e-6)
    copy(source, tmp_path / "same.dcm")
    np.testing.assert_array_equal(
        pydicom.dcmread(tmp_path / "same.dcm").pixel_array.view("uint16"),
        pydicom.dcmread(source).pixel_array.view("uint16"),
    )
    _, clipped = copy(source, tmp_path / "b.dcm", lambda data: data + 7 * slope)
    low, top = (-(mask + 1) // 2, mask // 2) if signed else (0, mask)
    after = np.frombuffer(pydicom.dcmread(tmp_path / "b.dcm").PixelData, "uint16")
    after = after.reshape(word.shape).astype(int)
    new = np.clip(stored + 7, low, top)
    assert clipped == np.count_nonzero(stored + 7 > top)
    np.testing.assert_array_equal((after >> shift) & mask, new & mask)
    unused = 0xFFFF & ~(mask << shift)
    beyond = after & unused, word & unused
    if signed and not shift:  # there the sign goes on, where it did
        beyond = tuple(
            part ^ (unused * (value < 0)) for part, value in zip(beyond, (new, stored), strict=True)
        )
    np.testing.assert_array_equal(*beyond)


def test_the_sign_reaches_into_the_unused_bits(tmp_path):
    """Readers that take the whole word for the value see the right one."""
    values = words(top=100, dtype="int16") - np.int16(50)
    source = put(dataset(values, BitsStored=12, HighBit=11), tmp_path / "a.dcm")
    copy(source, tmp_path / "b.dcm", lambda data: -data)
    after = np.frombuffer(pydicom.dcmread(tmp_path / "b.dcm").PixelData, "int16")
    np.testing.assert_array_equal(after.reshape(values.shape), -values)


def test_slices_with_slopes_of_their_own_are_restored_on_one_scale(tmp_path):
    """PET and the like: the same values, stored otherwise, give the same values."""
    rng = np.random.default_rng(0)
    volume = np.kron(rng.random((3, 6, 6)), np.ones((1, 8, 8))) * [[[500]], [[2000]], [[1000]]]
    slopes, offsets = [0.05, 0.4, -0.2], [0.0, -10.0, 3000.0]

    def stored(seed):
        return np.rint((volume[seed] - offsets[seed]) / slopes[seed]).astype("int16")

    series(tmp_path / "in", 3, pixels=stored, RescaleSlope=slopes, RescaleIntercept=offsets)
    picture = read_image(tmp_path / "in")
    np.testing.assert_allclose(picture.data, volume, atol=0.21)
    command = ["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *CPU]
    assert main(command) == 0
    expected = api.deblur(picture.data, axes="ZYX", device="cpu", keep_range=True)
    assert np.abs(expected - picture.data).max() > 20
    for i, (ds, _) in enumerate(by_place(tmp_path / "out")):
        assert (float(ds.RescaleSlope), float(ds.RescaleIntercept)) == (slopes[i], offsets[i])
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_allclose(values, expected[i], atol=abs(slopes[i]) / 2 + 1e-3)


def test_bright_is_bright_where_low_values_are_shown_so(tmp_path, capsys):
    image = words((40, 40), 256, "uint8")
    one = put(dataset(image), tmp_path / "a.dcm")
    inverse = dataset(255 - image, PhotometricInterpretation="MONOCHROME1")
    two = put(inverse, tmp_path / "b.dcm")
    for path in (one, two):
        assert main(["deblur", str(path), "-o", f"{tmp_path / 'out'}/", *CPU]) == 0
    after, turned = (pydicom.dcmread(tmp_path / "out" / name) for name in ("a.dcm", "b.dcm"))
    assert turned.PhotometricInterpretation == "MONOCHROME1"
    assert np.abs(after.pixel_array.astype(int) - image).max() > 3
    np.testing.assert_array_equal(255 - turned.pixel_array, after.pixel_array)
    assert "MONOCHROME1" not in capsys.readouterr().err
    assert main(["deblur", str(two), "-o", str(tmp_path / "b.npy"), *KEEP]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), 255 - image)
    assert "MONOCHROME1); NPY holds the values" in capsys.readouterr().err


@pytest.mark.parametrize("mark", [-2000, 65536 - 2000])
def test_padding_stays_and_nothing_else_becomes_padding(tmp_path, mark, capsys):
    values = words((40, 40), 500, "int16") - np.int16(1900)
    values[:8] = -2000
    ds = dataset(values)
    ds.add_new("PixelPaddingValue", "SS" if mark < 0 else "US", mark)
    source = put(ds, tmp_path / "a.dcm")
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.dcm"), *CPU]) == 0
    assert "320 samples without a value" in capsys.readouterr().out
    after = pydicom.dcmread(tmp_path / "b.dcm").pixel_array
    assert (after[:8] == -2000).all()
    assert (after[8:] != values[8:]).any()
    copy(source, tmp_path / "c.dcm", lambda data: np.where(data < -1800, -2000, data))
    after = pydicom.dcmread(tmp_path / "c.dcm").pixel_array
    np.testing.assert_array_equal(after == -2000, values == -2000)
    assert (after[8:][values[8:] < -1800] == -1999).all()
    copy(source, tmp_path / "d.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), values)


# ------------------------------------------------------------------ headers


def test_headers_are_kept_but_for_identity_and_origin(tmp_path):
    fields = {"RescaleSlope": 1, "RescaleIntercept": -1024, "LossyImageCompression": "01"}
    before = series(tmp_path / "in", SmallestImagePixelValue=3, **fields)
    copy(tmp_path / "in", tmp_path / "out", lambda data: data[:, ::-1])
    after = by_place(tmp_path / "out")
    assert [name for _, name in after] == [name for _, name in by_place(tmp_path / "in")]
    uids = {ds.SOPInstanceUID for ds, _ in after}
    assert len(uids) == 4
    assert not uids & {ds.SOPInstanceUID for ds in before}
    assert {ds.SeriesInstanceUID for ds, _ in after}.isdisjoint({"1.2.3.4"})
    assert len({ds.SeriesInstanceUID for ds, _ in after}) == 1
    changed = {"SOPInstanceUID", "SeriesInstanceUID", "ImageType", "SeriesDescription", "PixelData"}
    for old, (new, _) in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.pixel_array, old.pixel_array[::-1])
        kept = [e for e in old if e.keyword not in changed | {"SmallestImagePixelValue"}]
        assert [new[e.tag] for e in kept] == kept
        assert "SmallestImagePixelValue" not in new
        assert list(new.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert new.SeriesDescription == "Thorax 5 mm [deblurred]"
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
        (reference,) = new.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == CT_IMAGE
        assert "deblur with model deblur-mono, weights 0123456789ab" in new.DerivationDescription
        block = new.private_block(PRIVATE_GROUP, "napari-restore")
        assert block[0x01].value == PROVENANCE
        new_tags = {e.keyword for e in new} - {e.keyword for e in old}
        assert new_tags == {
            *("SourceImageSequence", "DerivationDescription", ""),
            *("InstanceCreationDate", "InstanceCreationTime"),
        } - {e.keyword for e in old}


def test_a_long_history_fits(tmp_path):
    ds = dataset(words(), SeriesDescription="s" * 64, DerivationDescription="d" * 1024)
    ds.SourceImageSequence = [Dataset()]
    put(ds, tmp_path / "a.dcm")
    copy(tmp_path / "a.dcm", tmp_path / "b.dcm")
    after = pydicom.dcmread(tmp_path / "b.dcm")
    assert after.SeriesDescription == "s" * 52 + " [deblurred]"
    assert len(after.DerivationDescription) == 1024
    assert after.DerivationDescription.endswith("strength 1.0")
    assert len(after.SourceImageSequence) == 2


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_RLE.dcm", "Explicit VR Little Endian"),
        ("MR_small_implicit.dcm", "Implicit VR Little Endian"),
        ("MR_small_bigendian.dcm", "Explicit VR Big Endian"),
        ("ExplVR_BigEnd.dcm", "Explicit VR Big Endian"),
        ("MR_small_jp2klossless.dcm", "Explicit VR Little Endian"),
        ("SC_rgb_rle_2frame.dcm", "Explicit VR Little Endian"),
    ],
)
def test_encodings(tmp_path, name, syntax):
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip(f"this pydicom comes without {name}")
    picture, _ = copy(
        tmp_path.joinpath(source), tmp_path / "b.dcm", lambda data: data[..., ::-1, :]
    )
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "b.dcm")
    assert after.file_meta.TransferSyntaxUID.name == syntax
    flipped = before.pixel_array[..., ::-1, :]
    np.testing.assert_array_equal(after.pixel_array, flipped)
    assert after.PatientName == before.PatientName
    assert picture.color == (before.SamplesPerPixel == 3)


def test_colors_become_rgb(tmp_path):
    rgb = words((16, 12, 3), 256, "uint8")
    ycc = pydicom.pixels.processing.convert_color_space(rgb, "RGB", "YBR_FULL")
    source = put(dataset(ycc, PhotometricInterpretation="YBR_FULL"), tmp_path / "a.dcm")
    picture, _ = copy(source, tmp_path / "b.dcm")
    assert (picture.axes, picture.color) == ("YXS", True)
    assert np.abs(picture.data.astype(int) - rgb).max() <= 2
    after = pydicom.dcmread(tmp_path / "b.dcm")
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == ("RGB", 0)
    np.testing.assert_array_equal(after.pixel_array, picture.data)


def test_palettes_become_rgb(tmp_path):
    indices = words((12, 10), 4, "uint8")
    ds = dataset(indices, PhotometricInterpretation="PALETTE COLOR")
    table = words((3, 4), 256, "uint16", seed=1) * 257
    for color, row in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(ds, f"{color}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(ds, f"{color}PaletteColorLookupTableData", row.tobytes())
    source = put(ds, tmp_path / "a.dcm")
    copy(source, tmp_path / "b.dcm")
    after = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(after.pixel_array, table.T[indices])
    assert after.PhotometricInterpretation == "RGB"
    assert not [e for e in after if "Palette" in e.keyword]


def test_frames_of_one_file_keep_their_slopes(tmp_path):
    """Enhanced CT: what belongs to a frame stands in its functional groups."""
    ds = dataset(words((3, 12, 10)), ImageType=["ORIGINAL", "PRIMARY"])
    del ds.ImageType
    shared = Dataset()
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.7, 0.5]
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [*ROW, *COLUMN]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for i, slope in enumerate((1.0, 0.5, 2.0)):
        group = Dataset()
        group.PixelValueTransformationSequence = [Dataset()]
        group.PixelValueTransformationSequence[0].RescaleSlope = slope
        group.PixelValueTransformationSequence[0].RescaleIntercept = -10
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = [float(x) for x in -3 * i * NORMAL]
        group.CTImageFrameTypeSequence = [Dataset()]
        group.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    source = put(ds, tmp_path / "a.dcm")
    picture, _ = copy(source, tmp_path / "b.dcm", lambda data: data + 6)
    slopes = np.array([1, 0.5, 2])[:, None, None]
    np.testing.assert_array_equal(picture.data, ds.pixel_array * slopes - 10)
    assert picture.axes == "ZYX"
    assert picture.pixel_size == {"X": (0.5, "mm"), "Y": (0.7, "mm"), "Z": (3.0, "mm")}
    after = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(after.pixel_array, ds.pixel_array + 6 / slopes)
    group = after.PerFrameFunctionalGroupsSequence[1]
    assert group.CTImageFrameTypeSequence[0].FrameType[0] == "DERIVED"


def test_a_cine_is_a_movie(tmp_path):
    source = put(dataset(words((3, 12, 10)), FrameTime=40), tmp_path / "a.dcm")
    picture = read_image(source)
    assert (picture.axes, picture.pixel_size) == ("TYX", {"T": (40.0, "ms")})
    command = ["motion-deblur", str(source), "-o", str(tmp_path / "b.dcm"), "--frames", "2"]
    assert main([*command, *KEEP]) == 0
    after = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(after.pixel_array, picture.data)
    assert after.SeriesDescription == "Thorax 5 mm [motion deblurred]"


# ------------------------------------------------------------------ series


def test_slices_are_sorted_by_place(tmp_path):
    """Neither by name nor by number."""
    before = series(tmp_path / "in", InstanceNumber=[9, 2, 5, 1])
    picture = read_image(tmp_path / "in")
    assert (picture.axes, picture.notes) == ("ZYX", [])
    np.testing.assert_array_equal(picture.data, [ds.pixel_array for ds in before])
    sizes = {axis: round(size, 6) for axis, (size, _) in picture.pixel_size.items()}
    assert sizes == {"X": 0.5, "Y": 0.7, "Z": 5.0}


def test_a_missing_slice(tmp_path, capsys):
    """Files go on, with a note; one volume would be wrong."""
    series(tmp_path / "in", 6, skip=(2,))
    assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]) == 0
    note = capsys.readouterr().err
    assert "Slices are 1 missing: 10 mm between IM0 and IM4, 5 mm elsewhere" in note
    assert len(list((tmp_path / "out").iterdir())) == 5
    for name in ("out.tif", "out.nii"):
        assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / name), *KEEP]) == 1
        assert "1 missing" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("other", [[0.7, 0.6], None])
def test_slices_whose_pixels_differ_in_size(tmp_path, capsys, other):
    """Files go on, each with its own; a volume would have the size of the first throughout."""
    (*_, last) = series(tmp_path / "in", skip=(3,))
    last.PixelSpacing = other
    put(last, tmp_path / "in" / "last")
    assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]) == 0
    note = capsys.readouterr().err
    seen = "0.7 × 0.6 mm" if other else "not given"
    assert "PixelSpacing is 0.7 × 0.5 mm in IM" in note
    assert f"{seen} in last" in note
    assert pydicom.dcmread(tmp_path / "out" / "last").PixelSpacing == other
    for name in ("out.tif", "out.nii"):
        assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / name), *KEEP]) == 1
        assert "do not have one size" in capsys.readouterr().err


def test_a_slice_twice(tmp_path):
    (_, second, _, _) = series(tmp_path / "in")
    put(second, tmp_path / "in" / "again")
    with pytest.raises(FileError, match="again are the same image"):
        read_image(tmp_path / "in")
    second.SOPInstanceUID = generate_uid()
    put(second, tmp_path / "in" / "again")
    with pytest.raises(FileError, match=r"2 slices of the series \(.*again\), at .* mm 1\."):
        read_image(tmp_path / "in")


def test_several_volumes_in_one_series(tmp_path):
    """Every place twice: two times or echoes, told apart by their numbers."""
    before = [
        *series(tmp_path / "in", 3, number=[1, 2, 3]),
        *(dataset(words(seed=10 + i), number=11 + i) for i in range(3)),
    ]
    for i, ds in enumerate(before[3:]):
        ds.ImagePositionPatient = before[i].ImagePositionPatient
        ds.ImageOrientationPatient, ds.PixelSpacing = [*ROW, *COLUMN], [0.7, 0.5]
        put(ds, tmp_path / "in" / f"A{i}")
    picture, _ = copy(tmp_path / "in", tmp_path / "out", lambda data: data + 1)
    assert picture.axes == "QZYX"
    assert "2 volumes" in picture.notes[0]
    expected = np.array([ds.pixel_array for ds in before])
    np.testing.assert_array_equal(picture.data.reshape(expected.shape), expected)
    after = pydicom.dcmread(tmp_path / "out" / "A1")
    np.testing.assert_array_equal(after.pixel_array, before[4].pixel_array + 1)


@pytest.mark.parametrize("lost", ["Rows", "Rows Modality", "Rows SOPClassUID Modality"])
def test_a_slice_that_lost_its_header_is_no_report(tmp_path, lost):
    series(tmp_path / "in", 3)
    damaged = pydicom.dcmread(tmp_path / "in" / "IM0")
    for keyword in lost.split():
        delattr(damaged, keyword)
    damaged.save_as(tmp_path / "in" / "IM0")
    with pytest.raises(FileError, match=r"^IM0 does not give the number of rows"):
        read_image(tmp_path / "in")


def test_several_series_in_one_folder(tmp_path, capsys):
    series(tmp_path / "in", 3)
    for i in range(2):
        other = dataset(words(seed=20), series="1.9", SeriesNumber=7, SeriesDescription="Scout")
        put(other, tmp_path / "in" / f"S{i}")
    put(dataset(words(), Modality="SR"), tmp_path / "in" / "DICOMDIR")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    report = dataset(words(), series="1.8", Modality="SR")
    del report.Rows
    put(report, tmp_path / "in" / "report")
    command = ["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "2 series: number 3 'Thorax 5 mm' (CT, 3 files, such as IM0; 1.2.3.4)" in error
    assert "number 7 'Scout' (CT, 2 files" in error
    assert "--series" in error
    assert main([*command, "--series", "9"]) == 1
    for name, expected in (("7", 2), ("1.2.3.4", 3)):
        assert main([*command[:3], f"{tmp_path / name}", *KEEP, "--series", name]) == 0
        assert len(list((tmp_path / name).iterdir())) == expected
        assert "1 DICOM files without an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Rows": 10, "Columns": 12}, "Rows is"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "do not have one orientation: 1 of 4"),
        ({"NumberOfFrames": 2, "PixelData": words((2, 12, 10)).tobytes()}, "holds 2 frames"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"BitsStored": 17}, "BitsStored 17"),
    ],
)
def test_files_that_make_no_image_together(tmp_path, change, message):
    ds = series(tmp_path / "in")[2]
    for name, value in change.items():
        setattr(ds, name, value)
    put(ds, tmp_path / "in" / "IM7")
    with pytest.raises(FileError, match=message):
        read_image(tmp_path / "in")


def test_folders_of_dicom_are_told_from_folders_of_images(tmp_path, capsys):
    series(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    assert is_image_folder(tmp_path / "in")
    assert not is_image_folder(tmp_path / "empty")
    np.save(tmp_path / "in" / "a.npy", words())
    assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert "other images, such as a.npy" in capsys.readouterr().err


# ------------------------------------------------------------------ other formats


def test_hounsfield_units_in_other_formats(tmp_path):
    """A phantom of air, water and bone; int16 holds 12 bits of it exactly."""
    phantom = np.array([-1000, 0, 1200])[words((12, 10), 3)]
    fields = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}
    series(tmp_path / "in", pixels=lambda seed: (phantom + 1024 + seed).astype("uint16"), **fields)
    expected = np.array([phantom + i for i in range(4)])
    picture, _ = copy(tmp_path / "in", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        np.testing.assert_array_equal(tif.asarray(), expected)
        assert tif.asarray().dtype == np.int16
    assert read_image(tmp_path / "out.tif").pixel_size == picture.pixel_size
    copy(tmp_path / "in", tmp_path / "out.npy", lambda data: data + 0.4)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_values_that_are_no_integers_become_float32(tmp_path):
    (ds,) = series(tmp_path / "in", 1, RescaleSlope=0.25, RescaleIntercept=-3)
    _, clipped = copy(tmp_path / "in", tmp_path / "out.npy", lambda data: data - 5)
    after = np.load(tmp_path / "out.npy")
    assert after.dtype == np.float32
    expected = ds.pixel_array * 0.25 - 8
    np.testing.assert_array_equal(after, np.maximum(expected, -3))
    assert clipped == np.count_nonzero(expected < -3) > 0


@pytest.mark.parametrize("tilt", [0.0, 1.5])
def test_nifti_has_every_voxel_where_dicom_has_it(tmp_path, tilt):
    """DICOM counts toward left and posterior, NIfTI toward right and anterior."""
    before = series(tmp_path / "in", RescaleSlope=1, RescaleIntercept=-1024)
    for i, ds in enumerate(before):  # a tilted gantry shears the stack
        place = np.array(ds.ImagePositionPatient, float) + i * tilt * COLUMN
        ds.ImagePositionPatient = [float(x) for x in place]
        put(ds, tmp_path / "in" / f"IM{(i * 7 + 3) % 10}")
    copy(tmp_path / "in", tmp_path / "out.nii.gz")
    image = nibabel.load(tmp_path / "out.nii.gz")
    assert image.shape == (10, 12, 4)
    assert image.get_data_dtype() == np.float32
    assert (image.get_qform(coded=True)[1], image.get_sform(coded=True)[1]) == (not tilt, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    for k, ds in enumerate(before):
        for row, column in ((0, 0), (0, 9), (11, 0), (7, 4)):
            origin = np.array(ds.ImagePositionPatient, float)
            lps = origin + column * 0.5 * ROW + row * 0.7 * COLUMN
            ras = image.affine @ [column, row, k, 1]
            np.testing.assert_allclose(ras[:3], lps * [-1, -1, 1], atol=1e-4)
            assert image.dataobj[column, row, k] == ds.pixel_array[row, column] - 1024.0
    (extension,) = image.header.extensions
    assert json.loads(bytes(extension.get_content()).rstrip(b"\0")[16:]) == json.loads(PROVENANCE)


def test_what_has_no_place_does_not_become_nifti(tmp_path):
    source = put(dataset(words()), tmp_path / "a.dcm")
    with pytest.raises(FileError, match="cannot become NIfTI"):
        copy(source, tmp_path / "b.nii")


def test_other_images_do_not_become_dicom(tmp_path, capsys):
    np.save(tmp_path / "a.npy", words())
    assert main(["deblur", str(tmp_path / "a.npy"), "-o", str(tmp_path / "b.dcm"), *KEEP]) == 1
    assert "Only DICOM images can become DICOM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "good"), [("b", True), ("1.2.84", True), ("b.ima", True), ("b.tiif", False)]
)
def test_names_of_results(tmp_path, name, good):
    source = put(dataset(words()), tmp_path / "a.ima")
    assert main(["deblur", str(source), "-o", str(tmp_path / name), *KEEP]) == (0 if good else 1)
    assert (tmp_path / name).exists() == good
    if good:
        assert pydicom.dcmread(tmp_path / name).ImageType[0] == "DERIVED"


# ------------------------------------------------------------------ nothing is lost


def test_a_series_is_never_overwritten(tmp_path, capsys):
    series(tmp_path / "in", 2)
    (tmp_path / "in" / "IM3").rename(tmp_path / "in" / "IM3.tif")  # DICOM all the same
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    inputs = ["deblur", str(tmp_path / "in"), "--force", *KEEP, "-o"]
    assert main([*inputs, str(tmp_path)]) == 1
    assert main([*inputs, str(tmp_path / "in" / "IM3.tif")]) == 1
    assert main(["deblur", str(tmp_path / "in" / "IM0"), "--force", *KEEP, "-o", inputs[1]]) == 1
    assert capsys.readouterr().err.count("so it is kept") == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


def test_force_replaces_results_alone(tmp_path, capsys):
    """A folder that holds anything else is not removed."""
    series(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    command = ["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]
    assert main(command) == 0
    result = tmp_path / "out" / "in"
    first = pydicom.dcmread(result / "IM0").SOPInstanceUID
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    (result / "diary.txt").write_text("precious")
    assert main([*command, "--force"]) == 1
    assert "diary.txt" in capsys.readouterr().err
    (result / "diary.txt").unlink()
    assert main([*command, "--force"]) == 0
    assert pydicom.dcmread(result / "IM0").SOPInstanceUID != first
    assert os.listdir(tmp_path / "out") == ["in"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_write_leaves_no_half_series(tmp_path, monkeypatch, existing):
    series(tmp_path / "in", 3)
    if existing:
        copy(tmp_path / "in", tmp_path / "out")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    real, count = pydicom.dcmwrite, iter(range(9))

    def full(*args, **options):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        real(*args, **options)

    picture = read_image(tmp_path / "in")
    monkeypatch.setattr(pydicom, "dcmwrite", full)
    with pytest.raises(FileError, match="No space left"):
        write_image(tmp_path / "out", picture.data, picture, PROVENANCE, force=True)
    assert next(count) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_earlier_result_stays_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    series(tmp_path / "in", 2)
    copy(tmp_path / "in", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    real = os.replace

    def refuse(source, target):
        if str(source).endswith(".part"):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    picture = read_image(tmp_path / "in")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FileError, match="Permission denied"):
        write_image(tmp_path / "out", picture.data, picture, PROVENANCE, force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Rows": None}, "holds no image, but CT Image Storage"),
        ({"Modality": "RTDOSE"}, "a dose distribution"),
        ({"BitsAllocated": 1}, "1-bit words"),
        ({"PhotometricInterpretation": "HSV"}, "stored as HSV"),
        ({"PixelData": b"half"}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_restored_is_said(tmp_path, change, message):
    ds = dataset(words())
    for name, value in change.items():
        setattr(ds, name, value)
    if ds.Rows is None:
        del ds.Rows
    with pytest.raises(FileError, match=message):
        read_image(put(ds, tmp_path / "a.dcm"))


def test_missing_decoders_are_named(tmp_path):
    """Pixels that say they are JPEG-LS, which no installed library reads."""
    ds = dataset(words(dtype="uint8", top=250))
    ds.compress(RLELossless)
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.80")
    with pytest.raises(FileError, match=r"cannot be decoded.*pip install pylibjpeg\[all\]"):
        read_image(put(ds, tmp_path / "a.dcm"))


def test_no_dicom_at_all(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_image(tmp_path / "IM0")
    (tmp_path / "IM0").write_bytes(b"no image at all")
    with pytest.raises(FileError, match="without an ending"):
        read_image(tmp_path / "IM0")
    (tmp_path / "a.dcm").write_bytes(b"no image at all")
    with pytest.raises(FileError, match="lacks the mark DICM"):
        read_image(tmp_path / "a.dcm")


def test_without_pydicom_it_is_said_how_to_get_it(tmp_path, monkeypatch, capsys):
    series(tmp_path / "in", 2)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert main(["deblur", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert 'pip install "napari-restore[medical]"' in capsys.readouterr().err


# ------------------------------------------------------------------ sloppy headers


def with_raw(**values):
    """A data set whose header holds bytes that its writer never checked."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    ds = dataset(words())
    for keyword, (vr, value) in values.items():
        tag = Tag(keyword)
        ds._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return ds


def sloppy(path, **values):
    """A file of such a data set."""
    return put(with_raw(**values), path)


@pytest.mark.parametrize(
    ("values", "size", "note"),
    [
        ({"PixelSpacing": ("DS", b"0,5\\0,25")}, (0.5, 0.25), "read as 0.5 mm"),
        ({"PixelSpacing": ("DS", b"0.5 ")}, None, "not two sizes"),
        ({"PixelSpacing": ("DS", b"abc\\1 ")}, None, "not two sizes"),
        ({"PixelSpacing": ("DS", b"0\\0 ")}, None, "not two sizes"),
        ({"PixelSpacing": ("UT", b"2.5\\2.5 ")}, (2.5, 2.5), ""),
        ({"InstanceNumber": ("IS", b"abc ")}, (0.7, 0.6), ""),
        ({"ImagePositionPatient": ("DS", b"1\\2 ")}, (0.7, 0.6), ""),
        ({"SliceThickness": ("DS", b"thin")}, (0.7, 0.6), ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_sloppy_headers_are_read_as_far_as_they_can_be(tmp_path, values, size, note):
    given = {} if "PixelSpacing" in values else {"PixelSpacing": ("DS", b"0.7\\0.6 ")}
    picture = read_image(sloppy(tmp_path / "a.dcm", **given, **values))
    expected = {} if size is None else {"Y": (size[0], "mm"), "X": (size[1], "mm")}
    assert {k: v for k, v in picture.pixel_size.items() if k in "YX"} == expected
    assert note in " ".join(picture.notes)


@pytest.mark.parametrize(
    "keyword",
    ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"],
)
def test_what_cannot_be_decoded_is_said(tmp_path, keyword):
    """Seven bytes are no number of eight."""
    header, notes = with_raw(**{keyword: ("FD", b"1234567")}), []
    with pydicom_speaks(notes):
        arrange([header], [tmp_path / "a.dcm"])
    (note,) = notes
    assert note.startswith(f"Its {keyword} cannot be decoded (")
    # Why, in pydicom's words.
    assert "7" in note
    assert note.endswith("), so it is not used.")


def test_a_place_of_two_numbers_is_said(tmp_path):
    picture = read_image(sloppy(tmp_path / "a.dcm", ImagePositionPatient=("DS", b"1\\2 ")))
    assert "Its ImagePositionPatient is '1\\2', which is not 3 numbers" in " ".join(picture.notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RescaleSlope": ("DS", b"1,0 ")}, "RescaleSlope"),
        ({"RescaleIntercept": ("DS", b"x ")}, "RescaleIntercept"),
        ({"NumberOfFrames": ("IS", b"two ")}, "NumberOfFrames"),
        ({"NumberOfFrames": ("IS", b"-3")}, "NumberOfFrames"),
        ({"BitsStored": ("US", b"")}, "BitsStored"),
        ({"Columns": ("US", b"\1\0\2\0")}, "Columns"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_value_depends_on_is_not_guessed(tmp_path, values, message):
    with pytest.raises(FileError, match=message):
        read_image(sloppy(tmp_path / "a.dcm", **values))


@pytest.mark.parametrize(
    ("keyword", "where"),
    [("ImagerPixelSpacing", "detector"), ("NominalScannedPixelSpacing", "film")],
)
def test_sizes_outside_the_body_are_kept_and_noted(tmp_path, keyword, where):
    ds = dataset(words())
    ds.pop("PixelSpacing", None)
    setattr(ds, keyword, [0.143, 0.15])
    picture = read_image(put(ds, tmp_path / "a.dcm"))
    assert picture.pixel_size["Y"] == (0.143, "mm")
    assert picture.pixel_size["X"] == (0.15, "mm")
    assert where in " ".join(picture.notes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("x.dcm", b"", "empty"), ("x.dcm", b"no DICOM", "lacks the mark"), ("IM77", b"", "empty")],
)
def test_damaged_slices_are_not_left_out(tmp_path, name, content, message):
    series(tmp_path / "in", 3)
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(FileError, match=f"{name} is .*{message}"):
        read_image(tmp_path / "in")


def test_other_files_of_a_folder_are_noted(tmp_path):
    series(tmp_path / "in", 3)
    (tmp_path / "in" / "README.txt").write_text("from the archive")
    assert "README.txt" in " ".join(read_image(tmp_path / "in").notes)
