"""``--force`` replaces earlier results; inputs and what others made stay, whatever hides them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_restore.cli import main, restore
from napari_restore.errors import FileError
from napari_restore.image import layout
from napari_restore.io import Inputs, Place, write_image
from napari_restore.io.files import FORMATS, folders_around, is_earlier_result, part_of

KEEP = ["--strength", "0", "--device", "cpu"]
IMAGE = np.random.default_rng(0).integers(0, 250, (24, 33)).astype(np.uint8)


def ome_zarr(path: Path) -> Path:
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", shape=IMAGE.shape, dtype="u1", chunks=(16, 16))[...] = IMAGE
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def plain_zarr(path: Path) -> Path:
    zarr.create_array(path, shape=IMAGE.shape, dtype="u1", chunks=(16, 16))[...] = IMAGE
    return path


def tables(path: Path) -> Path:
    zarr.create_group(path).create_array("tables", shape=(5,), dtype="f8")[...] = 1
    (path / "notes.txt").write_text("months of work")
    return path


def text(path: Path) -> Path:
    path.write_text("precious")
    return path


def photo(path: Path) -> Path:
    Image.fromarray(IMAGE).save(path)
    return path


def nifti(path: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(IMAGE[..., None], np.eye(4)), path)
    return path


def dicom(path: Path, number: int = 1) -> Path:
    pydicom = pytest.importorskip("pydicom")
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
    ds.Modality, ds.SeriesInstanceUID, ds.InstanceNumber = "CT", "1.2", number
    ds.Rows, ds.Columns = IMAGE.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    ds.PixelData = IMAGE.tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


def series(path: Path, slices: int = 2) -> Path:
    path.mkdir()
    for number in range(slices):
        dicom(path / f"{number}.dcm", number)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {str(file): file.read_bytes() for file in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def array(path: Path) -> Path:
    np.save(path, IMAGE)
    return path


def tiff(path: Path) -> Path:
    tifffile.imwrite(path, IMAGE)
    return path


#: Where a result goes, what makes its input, and what may stand there that was never a result.
FOREIGN = [
    ("out.png", array, photo),
    ("out.png", array, text),
    ("out.jpg", array, photo),
    ("out.tif", array, tiff),
    ("out.ome.tif", array, tiff),
    ("out.npy", array, array),
    ("out.nii", nifti, nifti),
    ("out.nii.gz", nifti, nifti),
    ("out.dcm", dicom, dicom),
    ("out.zarr", array, tables),
    ("out.zarr", array, plain_zarr),
    ("out.zarr", array, text),
    ("out.ome.zarr", array, ome_zarr),
]


@pytest.mark.parametrize(("name", "source", "foreign"), FOREIGN)
def test_force_replaces_earlier_results_and_nothing_else(tmp_path, capsys, name, source, foreign):
    given = source(tmp_path / ("in.npy" if source is array else name.replace("out", "in")))
    target = foreign(tmp_path / name)
    before = contents(target)
    command = ["deblur", str(given), "-o", str(target), "--force", *KEEP]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert f"{target} " in error
    assert "Name another, or remove it" in error
    assert contents(target) == before
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    # What the same command has made is replaced.
    assert main(command) == 0
    assert main(command[:4]) == 1
    assert "Use --force" in capsys.readouterr().err
    assert main(command) == 0
    assert names(tmp_path) == sorted([given.name, name])


@pytest.mark.parametrize("name", ["notes.txt", "0/mine.csv", "labels/0", "tables"])
def test_what_was_added_to_a_result_stays(tmp_path, capsys, name):
    source, target = array(tmp_path / "a.npy"), tmp_path / "out.ome.zarr"
    command = ["deblur", str(source), "-o", str(target), "--force", *KEEP]
    assert main(command) == 0
    (target / ".DS_Store").write_text("of a file manager")
    assert main(command) == 0
    (target / name).parent.mkdir(exist_ok=True)
    text(target / name)
    before = contents(target)
    assert main(command) == 1
    assert name.split("/")[0] in capsys.readouterr().err
    assert contents(target) == before


def test_slices_of_another_series_stay(tmp_path, capsys):
    given, target = series(tmp_path / "in"), tmp_path / "out"
    command = ["deblur", str(given), "-o", str(target), "--force", *KEEP]
    assert main(command) == 0
    assert main([*command[:3], f"{tmp_path}/other/", "--force", *KEEP]) == 0
    other = series(tmp_path / "other" / "again")
    before = contents(other)
    # The files have the names that a result would have, and are none.
    (tmp_path / "other" / "in").rename(tmp_path / "moved")
    other.rename(tmp_path / "other" / "in")
    assert main([*command[:3], f"{tmp_path}/other/", "--force", *KEEP]) == 1
    assert "0.dcm" in capsys.readouterr().err
    assert list(contents(tmp_path / "other" / "in").values()) == list(before.values())


@pytest.mark.parametrize("content", ["empty file", "empty folder"])
def test_what_holds_nothing_can_be_replaced(tmp_path, content):
    source = array(tmp_path / "a.npy")
    target = tmp_path / ("out.png" if content == "empty file" else "out.zarr")
    target.touch() if content == "empty file" else target.mkdir()
    assert main(["deblur", str(source), "-o", str(target), *KEEP]) == 1
    assert main(["deblur", str(source), "-o", str(target), "--force", *KEEP]) == 0


@pytest.mark.parametrize(
    "way",
    "holds, holds deeper, holds by link, holds another, relative, part, inside, inside by link, "
    "new folder inside".split(", "),
)
def test_no_result_takes_the_place_of_an_input_in_a_folder(tmp_path, monkeypatch, capsys, way):
    """An input may lie in the output, or the output in an input."""
    plate = tmp_path / "plate.ome.zarr"
    zarr.create_group(plate, zarr_format=2).attrs["plate"] = {"wells": [{"path": "A/1"}]}
    zarr.open_group(plate).create_group("A").create_group("1")
    for number in "01":
        ome_zarr(plate / "A" / "1" / number)
    image, inputs, output = plate / "A" / "1" / "0", [], str(plate)
    inputs = [image]
    if way == "holds deeper":
        inputs = [image / "0"]
        output = str(image)
    elif way == "holds by link":
        (tmp_path / "link").symlink_to(plate)
        output = str(tmp_path / "link")
    elif way == "holds another":
        inputs = [array(tmp_path / "plate.ome.zarr.npy"), image]
        (tmp_path / "out").mkdir()
        plate.rename(tmp_path / "out" / "x.npy")  # the folder is a zarr, whatever it is called
        inputs = [array(tmp_path / "x.npy"), tmp_path / "out" / "x.npy" / "A" / "1" / "0"]
        output = str(tmp_path / "out")
    elif way == "relative":
        monkeypatch.chdir(image)
        inputs, output = [Path("0")], "../0"
    elif way == "part":
        # What grows beside a result is put aside as well.
        output = str(tmp_path / "r.ome.zarr")
        plate.rename(tmp_path / "r.ome.zarr.part")
        (tmp_path / "r.ome.zarr.part" / "lock").touch()
        inputs = [tmp_path / "r.ome.zarr.part" / "A" / "1" / "0"]
    elif way == "inside":
        output = str(image / "0" / "c.ome.zarr")
    elif way == "inside by link":
        (image / "mine").mkdir()
        (tmp_path / "elsewhere").symlink_to(image / "mine")
        output = str(tmp_path / "elsewhere" / "b.png")
    elif way == "new folder inside":
        output = f"{plate}/A/results/"
    before = contents(tmp_path)
    assert main(["deblur", *map(str, inputs), "-o", output, "--force", *KEEP]) in (1, 2)
    assert before.items() <= contents(tmp_path).items()
    assert not (plate / "A" / "results").exists()
    assert "Name another" in capsys.readouterr().err


def test_links_hide_no_input(tmp_path):
    source = array(tmp_path / "a.npy")
    (tmp_path / "folder").mkdir()
    os.link(source, tmp_path / "folder" / "hard.npy")
    (tmp_path / "folder" / "soft.npy").symlink_to(source)
    (tmp_path / "again").symlink_to(tmp_path / "folder")
    inputs = Inputs([tmp_path / "again" / "hard.npy"])
    for path in ("a.npy", "folder/soft.npy", "again/../a.npy", "folder"):
        with pytest.raises(FileError, match="so it is kept"):
            inputs.check(tmp_path / path)
    inputs.check(tmp_path / "new.npy")
    assert tmp_path / "folder" in folders_around(tmp_path / "again" / "hard.npy")


def test_names_in_another_case_are_one_file(tmp_path, monkeypatch, capsys):
    """A hard link plays the part of a file system that takes them for one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = photo(tmp_path / "one" / "x.png"), photo(tmp_path / "two" / "X.png")
    out, real = tmp_path / "out", Place.take

    def take(self, made):
        real(self, made)
        if not (out / "X.png").exists():
            os.link(out / "x.png", out / "X.png")

    monkeypatch.setattr(Place, "take", take)
    assert main(["deblur", str(first), str(second), "-o", str(out), "--force", *KEEP]) == 1
    assert f"was written for {first}" in capsys.readouterr().err


@pytest.mark.parametrize("names_", [["diary.txt"], ["image"], ["lock", "diary.txt"]])
def test_a_folder_that_is_no_unfinished_result_stays(tmp_path, capsys, names_):
    source, target = array(tmp_path / "a.npy"), tmp_path / "out.ome.zarr"
    part = part_of(target)
    part.mkdir()
    for name in names_:
        text(part / name)
    before = contents(part)
    for options in ([], ["--force"], ["--resume"]):
        assert main(["deblur", str(source), "-o", str(target), *options, *KEEP]) == 1
        assert "not an unfinished result" in capsys.readouterr().err
    assert contents(part) == before


@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.npy", "out.ome.zarr"])
@pytest.mark.parametrize("force", [False, True])
def test_what_appears_meanwhile_stays(tmp_path, monkeypatch, capsys, name, force):
    """Another run, or another program, may write the same name while an image is restored."""
    source, target = array(tmp_path / "a.npy"), tmp_path / name
    command = ["deblur", str(source), "-o", str(target), *["--force"] * force, *KEEP]
    real = Place.take

    def take(self, made):
        text(target)
        real(self, made)

    monkeypatch.setattr(Place, "take", take)
    assert main(command) == 1
    assert f"{target} " in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert [n for n in names(tmp_path) if not n.endswith(".part")] == ["a.npy", name]


@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.npy", "out.ome.zarr"])
def test_the_earlier_result_stays_if_a_forced_run_breaks_off(tmp_path, monkeypatch, capsys, name):
    source, target = array(tmp_path / "a.npy"), tmp_path / name
    command = ["deblur", str(source), "-o", str(target), "--force", *KEEP]
    assert main(command) == 0
    before = contents(target)
    real = os.replace

    def refuse(old, new):
        if Path(new) == target and ".old" not in str(old):
            raise PermissionError(13, "Permission denied")
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        assert main(command) == 1
    assert contents(target) == before
    assert "cannot be written" in capsys.readouterr().err
    assert main(command) == 0


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.ome.zarr"])
@pytest.mark.parametrize("result", ["out.png", "out.ome.zarr"])
def test_an_input_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch, capsys, name, result):
    makers = {"a.npy": array, "a.tif": tiff, "a.ome.zarr": ome_zarr}
    source, target = makers[name](tmp_path / name), tmp_path / result
    real = restore.check_target

    def check(*args, **options):
        real(*args, **options)
        changed = source / "0" / "0.0" if source.is_dir() else source
        os.utime(changed, ns=(1, 1))

    monkeypatch.setattr(restore, "check_target", check)
    assert main(["deblur", str(source), "-o", str(target), *KEEP]) == 1
    assert "changed while it was restored" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.nii"])
@pytest.mark.parametrize("in_memory", [0, 2**26])
def test_an_input_that_is_cut_short_meanwhile_ends_no_batch(
    tmp_path, monkeypatch, capsys, name, in_memory
):
    """The system would end the process where a file that is mapped ends too early."""
    makers = {"a.npy": array, "a.tif": tiff, "a.nii": nifti}
    source, other = makers[name](tmp_path / name), photo(tmp_path / "b.png")
    monkeypatch.setattr(layout, "IN_MEMORY", in_memory)
    real = restore.check_target

    def check(*args, **options):
        real(*args, **options)
        if source.exists() and source.stat().st_size > 400:
            os.truncate(source, 400)

    monkeypatch.setattr(restore, "check_target", check)
    out = tmp_path / "out"
    assert main(["deblur", str(source), str(other), "-o", str(out), *KEEP]) == 1
    assert os.listdir(out) == ["b.png"]
    said = capsys.readouterr().err
    assert name in said
    assert "should not happen" not in said


def test_the_library_looks_as_well(tmp_path):
    from napari_restore.io import read_image

    picture = read_image(array(tmp_path / "a.npy"))
    picture.axes = "YX"
    photo(tmp_path / "b.png")
    for target in ("a.npy", "b.png"):
        with pytest.raises(FileError, match="so it is kept"):
            write_image(tmp_path / target, IMAGE, picture, json.dumps({}), force=True)


def test_what_may_not_be_read_is_named_as_that(tmp_path):
    """It is not called foreign: nobody could look."""
    target = tmp_path / "a.tif"
    target.symlink_to(target)
    with pytest.raises(FileError, match=r"a\.tif cannot be read .*Allow it to be read"):
        is_earlier_result(target, "tiff")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", ["folder", "folder with a file", "text", "nothing"])
def test_another_thing_is_no_earlier_result(tmp_path, kind, what):
    """It can be read, so nobody is told to allow that."""
    target = tmp_path / "a"
    if what.startswith("folder"):
        target.mkdir()
    if what == "folder with a file":
        (target / "notes.txt").write_text("mine")
    if what == "text":
        target.write_text("mine")
    assert not is_earlier_result(target, kind)
