"""One bad file never ends a batch, and nothing that is said does."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_restore import api
from napari_restore.cli import Steady, main, restore, steady_output

KEEP = ["--strength", "0", "--device", "cpu"]
IMAGE = np.random.default_rng(0).integers(0, 250, (24, 33)).astype(np.uint8)


def photo(path: Path) -> Path:
    Image.fromarray(IMAGE).save(path)
    return path


def npy(shape: object, descr: str = "<f4") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.png", "a link to itself"),
        ("m.png", b""),
        ("m.png", b"GIF89a" + bytes(40)),
        ("m.jpg", b"<!DOCTYPE html><html></html>"),
        ("m.tif", b"II*\0\xff\xff\xff\xff"),
        ("m.npy", npy((10**5, 10**6))),
        ("m.npy", npy((-1, 5))),
        ("m.npy", npy((True, 3))),
        ("m.npy", npy("(2**70, 3)")),
        ("m.npy", npy((4, 4), "|O")),
        ("m.npy", npy((4, 4), "nonsense")),
        ("m.npy", b"\x93NUMPY\1\0\x05\0{'a' "),
        ("m.nii", struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(20)),
        ("m.dcm", bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff"),
        ("m.zarr", None),
    ],
)
def test_a_bad_file_is_one_line_and_the_others_go_on(tmp_path, capsys, name, content):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    photo(folder / "a.png"), photo(folder / "z.png")
    if content is None:
        (folder / name).mkdir()
        (folder / name / "zarr.json").write_text("{")
    elif isinstance(content, str):
        (folder / name).symlink_to(name)
    else:
        (folder / name).write_bytes(content)
    # A folder with DICOM would be one image.
    inputs = [folder / n for n in ("a.png", name, "z.png")] if name == "m.dcm" else [folder]
    assert main(["deblur", *map(str, inputs), "-o", str(out), *KEEP]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "z.png"]
    error = capsys.readouterr().err
    assert error.startswith(f"napari-restore: {folder / name}: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("stage", ["read_image", "make_plan", "restore_array", "write_image"])
@pytest.mark.parametrize("error", [KeyError("x"), ValueError("1\n2"), MemoryError()])
def test_whatever_is_raised_the_next_file_follows(tmp_path, monkeypatch, capsys, stage, error):
    first, second, out = photo(tmp_path / "a.png"), photo(tmp_path / "b.png"), tmp_path / "out"
    real, calls = getattr(restore, stage), []

    def fail_once(*args, **options):
        calls.append(stage)
        if len(calls) == 1:
            raise error
        return real(*args, **options)

    command = ["deblur", str(first), str(second), "-o", str(out), *KEEP]
    monkeypatch.setattr(restore, stage, fail_once)
    assert main(command) == 1
    assert [path.name for path in out.iterdir()] == ["b.png"]
    said = capsys.readouterr().err
    assert said.startswith(f"napari-restore: {first}: ")
    assert len(said.splitlines()) == 1
    calls.clear()
    assert main([*command, "--verbose", "--force"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["https://example.org/a.ome.zarr", "s3://bucket/b.tif"])
def test_addresses_are_no_files(tmp_path, capsys, address):
    good = photo(tmp_path / "a.png")
    assert main(["deblur", address, str(good), "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert f"{address}: This is an address" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").exists()
    assert main(["deblur", str(good), "-o", address, *KEEP]) == 2
    assert address in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".png", ".tif", ".ome.tif", ".npy", ".ome.zarr"])
def test_names_as_long_as_the_disk_takes(tmp_path, ending):
    source = photo(tmp_path / "a.png")
    target = tmp_path / ("x" * (255 - len(ending)) + ending)
    assert main(["deblur", str(source), "-o", str(target), *KEEP]) == 0
    assert target.exists()
    assert main(["deblur", str(source), "-o", str(target), "--force", *KEEP]) == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_that_is_too_long_is_said(tmp_path, capsys):
    good, long = photo(tmp_path / "a.png"), tmp_path / ("x" * 300 + ".png")
    assert main(["deblur", str(long), str(good), "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert (tmp_path / "out" / "a.png").exists()
    assert main(["deblur", str(good), "-o", str(long), *KEEP]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
@pytest.mark.parametrize("ending", [b".png", b".tif", b".ome.tif", b".npy", b".ome.zarr"])
@pytest.mark.parametrize("stem", [b"caf\xe9 \xff", b"tab\there\x01"])
def test_names_that_are_no_text(tmp_path, capsys, stem, ending):
    first = tmp_path / os.fsdecode(stem + b".png")
    photo(tmp_path / "a.png").rename(first)
    out = tmp_path / os.fsdecode(b"out \xfe")
    out.mkdir()
    assert main(["deblur", str(first), "-o", str(out / os.fsdecode(stem + ending)), *KEEP]) == 0
    assert os.listdir(os.fsencode(out)) == [stem + ending]
    assert main(["deblur", str(out), "-o", str(tmp_path / "again"), *KEEP]) == 0


def test_empty_names_are_not_this_folder(tmp_path, monkeypatch, capsys):
    """As of a variable of a shell that was not set."""
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    assert main(["deblur", "", "-o", "b.png", *KEEP]) == 1
    assert main(["deblur", "", "a.png", "-o", "out", *KEEP]) == 1
    assert main(["deblur", "out/a.png", "-o", "", *KEEP]) == 2
    assert capsys.readouterr().err.count("is empty") == 3
    assert sorted(os.listdir(tmp_path)) == ["a.png", "out"]


@pytest.mark.skipif(sys.platform == "win32", reason="names have no line breaks there")
def test_a_name_with_line_breaks_is_said_in_one_line(tmp_path, capsys):
    photo(tmp_path / "a\nb.png")
    (tmp_path / "c\r\nd.png").write_bytes(b"")
    assert main(["deblur", str(tmp_path), "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert (tmp_path / "out" / "a\nb.png").exists()
    captured = capsys.readouterr()
    assert [len(text.splitlines()) for text in captured] == [1, 1]
    assert "a\\nb.png" in captured.out


# ------------------------------------------------------------------ what is said


class Gone(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class Full(io.StringIO):
    """A log on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "make",
    [
        Gone,
        Full,
        lambda: None,
        lambda: io.TextIOWrapper(io.BytesIO(), encoding="cp1252"),
        lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
        lambda: io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
    ],
)
@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_no_stream_stops_a_batch(tmp_path, monkeypatch, make, which):
    paths = [photo(tmp_path / name) for name in ("a.png", os.fsdecode(b"b\xff.png"), "σ.png")]
    bad = tmp_path / "σ bad.png"
    bad.write_bytes(b"")
    monkeypatch.setattr(sys, which, make())
    out = tmp_path / "out"
    assert main(["deblur", *map(str, [bad, *paths]), "-o", str(out), "--device", "cpu"]) == 1
    assert len(list(out.iterdir())) == 3


def test_what_an_encoding_lacks_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with steady_output():
        print("blur σ 1.5 µm, a\udcff.png")
    stream.flush()
    assert stream.buffer.getvalue().decode("cp1252").strip() == r"blur \u03c3 1.5 µm, a\udcff.png"
    assert Steady(stream).encoding == "cp1252"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("redirect", ["| true", "> /dev/full"])
def test_a_closed_output_ends_without_a_traceback(tmp_path, redirect):
    if "full" in redirect and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    source = photo(tmp_path / "a.png")
    line = f"'{sys.executable}' -m napari_restore.cli deblur '{source}' -o out.png {redirect}"
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.png").exists()


# ------------------------------------------------------------------ reliability


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", ["out.png", "out.npy", "out.tif", "out.ome.zarr"])
def test_a_folder_that_cannot_be_written_to(tmp_path, capsys, name):
    source, folder = photo(tmp_path / "a.png"), tmp_path / "readonly"
    folder.mkdir(mode=0o500)
    assert main(["deblur", str(source), "-o", str(folder / name), *KEEP]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_many_threads_get_what_one_gets(tmp_path):
    """The library is called from eight threads at once, with other images and options in each."""
    images = [np.roll(IMAGE, 3 * n) for n in range(8)]
    tasks = [("deblur", 1.0), ("dehaze", 0.5)]
    expected = [
        getattr(api, tasks[n % 2][0])(image, device="cpu", strength=tasks[n % 2][1])
        for n, image in enumerate(images)
    ]
    found: dict[int, object] = {}
    start = threading.Barrier(8)

    def work(n: int) -> None:
        start.wait()
        name, strength = tasks[n % 2]
        try:
            found[n] = getattr(api, name)(images[n], device="cpu", strength=strength)
        except Exception as error:
            found[n] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(8):
        np.testing.assert_array_equal(found[n], expected[n])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_was_forked_after_use_works(tmp_path):
    """As ``multiprocessing`` under Linux does: threads of the parent are not there any more."""
    code = """
import multiprocessing, numpy as np
from napari_restore import deblur
image = np.random.default_rng(0).random((200, 200)).astype("float32")
first = deblur(image, device="cpu")
with multiprocessing.get_context("fork").Pool(2) as pool:
    for again in pool.map_async(deblur, [image, image]).get(timeout=60):
        assert np.allclose(first, again, atol=1e-5)
print("right")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "right", done.stderr
