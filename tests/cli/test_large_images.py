"""Large images on the command line: block by block, broken off, continued, never half."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr
from zarr.storage import _local

from napari_restore import api
from napari_restore.cli import main, restore
from napari_restore.image import layout
from napari_restore.io import Inputs, Place
from napari_restore.io.files import unfinished
from napari_restore.io.ome_zarr import OmeZarr
from napari_restore.restoration.run import Run
from small_blocks import BLOCK, contents, make_blocks_small


@pytest.fixture
def small_blocks(monkeypatch):
    make_blocks_small(monkeypatch)


def save_image(folder):
    """Two frames of 256 pixels: 32 blocks."""
    data = np.random.default_rng(3).normal(2000, 300, (2, 256, 256)).astype("uint16")
    np.save(folder / "in.npy", data)
    return data


@pytest.fixture
def image(tmp_path):
    return save_image(tmp_path)


def command_in(folder, model):
    command = ["deblur", str(folder / "in.npy"), "-o", str(folder / "out.ome.zarr")]
    return [*command, "--axes", "TYX", "--model", model, "--tile", "32", "--device", "cpu"]


@pytest.fixture
def command(tmp_path, image, mono_model):
    return command_in(tmp_path, mono_model)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, mono_model):
    """Bytes of the result of the command when it is made in one go, wherever that is."""
    folder = tmp_path_factory.mktemp("in one go")
    save_image(folder)
    with pytest.MonkeyPatch.context() as patch:
        make_blocks_small(patch)
        assert main(command_in(folder, mono_model)) == 0
    return contents(folder / "out.ome.zarr")


# ------------------------------------------------------------------ results


def test_blocks_give_the_result_in_memory(tmp_path, image, command, mono_model, small_blocks):
    assert main(command) == 0
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    expected = api.deblur(image, axes="TYX", model=mono_model, tile=32, device="cpu")
    np.testing.assert_array_equal(group["0"][...], expected)
    assert [group[name].shape for name in "012"] == [(2, 256, 256), (2, 128, 128), (2, 64, 64)]
    note = group.attrs["napari_restore"]
    assert (note["axes"], note["tile"], note["clipped_samples"]) == ("TYX", 32, 0)
    assert names(tmp_path) == ["in.npy", "out.ome.zarr"]


@pytest.mark.parametrize("frames", [1, 2])
def test_views_and_neighbors_reach_every_block(
    tmp_path, affine_model, small_blocks, monkeypatch, frames
):
    data = np.random.default_rng(0).integers(0, 250, (3, 64, 128, 3)).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", metadata={"axes": "TYXS"})
    options = {"model": affine_model, "task": "dehaze"}
    extra = ["--model", affine_model]
    if frames == 2:
        options, extra = {"frames": 2, "exposure": 0.5, "task": "motion_deblur"}, ["--frames", "2"]
        extra += ["--exposure", "0.5"]
        monkeypatch.setattr(layout, "BLOCK_PIXELS", 3 * 64**2)
    task = options.pop("task")
    command = [task.replace("_", "-"), str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.zarr")]
    assert main([*command, *extra, "--tile", "64", "--device", "cpu"]) == 0
    expected = api.restore(data, task, axes="TYXS", tile=64, device="cpu", **options)
    result = zarr.open_array(tmp_path / "b.zarr" / "0")[...].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("axes", "shape", "photometric"),
    [("TYX", (2, 200, 256), "minisblack"), ("SYX", (3, 200, 256), "rgb"), ("YX", (200, 256), None)],
)
def test_a_large_tiff_is_written_tile_by_tile(
    tmp_path, monkeypatch, small_blocks, axes, shape, photometric, mono_model, color_model
):
    data = np.random.default_rng(0).integers(0, 4000, shape).astype("uint16")
    source, target = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    # Tiled and compressed, or bare samples in the order of another processor.
    bare = {"byteorder": ">"} if axes == "YX" else {"tile": (32, 32), "compression": "zlib"}
    tifffile.imwrite(
        source,
        data,
        photometric=photometric,
        **bare,
        planarconfig="separate" if axes == "SYX" else None,
        metadata={"axes": axes, "PhysicalSizeX": 0.5, "Name": "µ & <cells>"},
    )
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    monkeypatch.setattr("napari_restore.io.tiff.reader.SCRATCH_BYTES", 10)
    monkeypatch.setattr("napari_restore.io.tiff.writer.CLASSIC_BYTES", 10)
    model = color_model if axes == "SYX" else mono_model
    command = ["deblur", str(source), "-o", str(target), "--model", model, "--tile", "32"]
    assert main([*command, "--device", "cpu"]) == 0
    expected = api.deblur(data, axes=axes, model=model, tile=32, device="cpu")
    if axes == "SYX":
        expected = expected.transpose(1, 2, 0)
    with tifffile.TiffFile(target) as tif:
        assert tif.series[0].axes == axes.replace("SYX", "YXS")
        np.testing.assert_array_equal(tif.asarray(), expected)
        page = tif.pages.first
        assert page.tile == (BLOCK, BLOCK)
        assert tif.is_bigtiff
        assert page.compression.name == ("NONE" if axes == "YX" else "ADOBE_DEFLATE")
        assert 'PhysicalSizeX="0.5"' in tif.ome_metadata
        note = json.loads(page.software.split(" ", 2)[2])
        assert note["tile"] == 32
        assert note["clipped_samples"] > 0
        root = ElementTree.fromstring(tif.ome_metadata)
        values = [e.text for e in root.iter() if e.tag.endswith("}Value")]
        assert [json.loads(value) for value in values] == [note]
    assert names(tmp_path) == ["a.ome.tif", "b.ome.tif"]


def test_strips_are_decoded_once(tmp_path, monkeypatch, small_blocks, mono_model):
    data = np.random.default_rng(0).integers(0, 4000, (128, 256)).astype("uint16")
    strips = {"rowsperstrip": 16, "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", data, **strips)
    monkeypatch.setattr("napari_restore.io.tiff.reader.SCRATCH_BYTES", 10)
    seen, real = [], restore.block_shape

    def shape_of(*given, **named):
        seen.append(real(*given, **named))
        return seen[0]

    monkeypatch.setattr(restore, "block_shape", shape_of)
    command = ["deblur", str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.zarr"), "--tile", "32"]
    assert main([*command, "--model", mono_model, "--device", "cpu"]) == 0
    assert seen == [(64, 256)]
    expected = api.deblur(data, model=mono_model, tile=32, device="cpu")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "b.zarr" / "0")[...], expected)


def test_a_large_imagej_tiff_stays_one(tmp_path, monkeypatch, mono_model):
    data = np.random.default_rng(0).integers(0, 4000, (2, 80, 90)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TYX"})
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    command = ["deblur", str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.tif")]
    assert main([*command, "--model", mono_model, "--device", "cpu"]) == 0
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.is_imagej
        expected = api.deblur(data, axes="TYX", model=mono_model, device="cpu")
        np.testing.assert_array_equal(tif.asarray(), expected)


# ------------------------------------------------------------------ broken off and continued

KILLED = """
import json, os, signal, sys
from napari_restore.image import layout
from napari_restore.io import files, ome_zarr
layout.BLOCK_PIXELS = 64**2
layout.BLOCK_TILES = 1
ome_zarr.CHUNK = 64
ome_zarr._REDUCED = 64**2
ome_zarr.COARSEST = 64
from zarr.storage import _local
# Here once for all runs: it takes seconds to import.
import tifffile, torch
from napari_restore.cli import main

def run(command, place, count):
    owner, name = {
        "chunk": (_local, "_put"),
        "journal": (files.Checkpoint, "finished"),
        "level": (ome_zarr.OmeZarr, "reduce"),
        "attributes": (ome_zarr.OmeZarr, "finish"),
    }[place]
    real = getattr(owner, name)

    def deadly(*args, **options):
        nonlocal count
        count -= 1
        if count < 0:
            if place == "chunk":
                path = args[0].with_suffix(".torn.partial")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(owner, name, deadly)
    main(command)

for place, count, *command in json.load(sys.stdin):
    child = os.fork()
    if not child:
        run(command, place, count)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, place
"""
DEATHS = {"chunk": 20, "journal": 9, "level": 3, "attributes": 0}


@pytest.fixture(scope="module")
def killed(tmp_path_factory, mono_model):
    """Folders of runs that were killed, by the place where they were; one process has forked all.

    Nothing is computed before it forks, so each is like a process that has just begun.
    """
    folders = {place: tmp_path_factory.mktemp(place) for place in DEATHS}
    for folder in folders.values():
        save_image(folder)
    runs = [
        [place, DEATHS[place], *command_in(folder, mono_model)] for place, folder in folders.items()
    ]
    subprocess.run([sys.executable, "-c", KILLED], input=json.dumps(runs), text=True, check=True)
    return folders


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("place", DEATHS)
def test_a_killed_run_is_continued_to_the_same_bytes(
    killed, mono_model, small_blocks, uninterrupted, place, capsys
):
    folder, command = killed[place], command_in(killed[place], mono_model)
    target, part = folder / "out.ome.zarr", folder / "out.ome.zarr.part"
    assert not target.exists()
    assert "multiscales" not in str(zarr.open_group(part / "image", mode="r").attrs.asdict())
    done = [json.loads(line) for line in (part / "journal").read_text().splitlines()[1:]]
    assert len(done) > 5
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "--force" in error
    written = []
    real = OmeZarr.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmeZarr, "write", lambda self, b, d: (written.append(b), real(self, b, d)))
        assert main([*command, "--resume"]) == 0
    assert len(written) == 32 - sum(record["level"] == 0 for record in done)
    assert contents(target) == uninterrupted
    assert "out.ome.zarr.part" not in names(folder)


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 1)]
)
def test_signals_and_a_full_disk_keep_what_is_finished(
    tmp_path, command, small_blocks, uninterrupted, monkeypatch, capsys, number, status, ctrl_c
):
    left, real = [12], _local._put

    def broken(path, *args, **options):
        left[0] -= 1
        if left[0] < 0:
            path.with_suffix(".torn.partial").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **options)

    def interrupted(self, *args, **options):
        left[0] -= 1
        if left[0] == 0:
            # In the main thread, where Python handles signals: it arrives here, and once.
            signal.raise_signal(number)
        counted(self, *args, **options)

    with monkeypatch.context() as patch:
        if number is None:
            patch.setattr(_local, "_put", broken)
        else:
            counted = Run.add
            patch.setattr(Run, "add", interrupted)
        capsys.readouterr()
        assert main(command) == status
    error = capsys.readouterr().err
    assert "of 32 blocks are kept" in error
    assert "--resume" in error
    assert ("No space left" in error) == (number is None)
    assert not (tmp_path / "out.ome.zarr").exists()
    assert main([*command, "--resume"]) == 0
    assert contents(tmp_path / "out.ome.zarr") == uninterrupted


@pytest.fixture
def begun(command, small_blocks, monkeypatch):
    """A run that was broken off after five blocks."""
    with monkeypatch.context() as patch:
        real, left = OmeZarr.write, [5]

        def stop(self, *args):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(self, *args)

        patch.setattr(OmeZarr, "write", stop)
        assert main(command) == 130


@pytest.mark.parametrize("change", ["input", "time", "strength", "model", "tile"])
def test_what_has_changed_is_not_continued(
    tmp_path, begun, command, capsys, change, image, write_model
):
    path = tmp_path / "in.npy"
    if change == "input":
        state = path.stat()
        np.save(path, image[::-1])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(0, 0))
    elif change == "strength":
        command = [*command, "--strength", "0.5"]
    elif change == "model":
        options = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
        other = write_model("other", "deblur", channels=1, width=4, **options)
        command = [*command, "--model", other]
    else:
        command = [*command, "--tile", "64"]
    before = contents(tmp_path / "out.ome.zarr.part" / "image")
    assert main([*command, "--resume"]) == 1
    said = {"input": "sample_sha256", "time": "modified_ns", "model": "weights_sha256"}
    error = capsys.readouterr().err
    assert f"{said.get(change, change)} was" in error
    assert "--force" in error
    assert contents(tmp_path / "out.ome.zarr.part" / "image") == before
    assert main([*command, "--force"]) == 0
    assert not (tmp_path / "out.ome.zarr.part").exists()


def test_a_torn_journal_loses_the_torn_line_alone(tmp_path, begun, command, image, mono_model):
    journal = tmp_path / "out.ome.zarr.part" / "journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert main([*command, "--resume"]) == 0
    expected = api.deblur(image, axes="TYX", model=mono_model, tile=32, device="cpu")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.ome.zarr/0")[...], expected)


def test_two_runs_do_not_write_one_result(tmp_path, begun, command, capsys):
    target, before = tmp_path / "out.ome.zarr", contents(tmp_path / "out.ome.zarr.part")
    place = Place(target, "zarr", force=False, inputs=Inputs())
    with unfinished(place, resume=True):
        for option in ("--resume", "--force"):
            assert main([*command, option]) == 1
            assert "Another run" in capsys.readouterr().err
    assert contents(tmp_path / "out.ome.zarr.part") == before
    assert main([*command, "--resume"]) == 0


def test_force_replaces_a_result_when_the_new_one_is_whole(tmp_path, command, begun, capsys):
    target = tmp_path / "out.ome.zarr"
    assert main([*command, "--resume"]) == 0
    old = contents(target)
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--strength", "0", "--force"]) == 0
    assert contents(target).keys() == old.keys()
    assert contents(target) != old
    assert names(tmp_path) == ["in.npy", "out.ome.zarr"]


def test_what_is_finished_is_passed_over_when_continuing(tmp_path, command, begun, capsys):
    target = tmp_path / "out.ome.zarr"
    assert main([*command, "--resume"]) == 0
    before = contents(target)
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main([*command, "--resume", "--strength", "0.5"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert contents(target) == before


def test_only_ome_zarr_is_continued(tmp_path, command, capsys, monkeypatch):
    command[3] = str(tmp_path / "out.tif")
    assert main([*command, "--resume"]) == 1
    assert ".ome.zarr" in capsys.readouterr().err
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "blocks", stop)
    assert main(command) == 130
    assert ".ome.zarr" in capsys.readouterr().err
    assert names(tmp_path) == ["in.npy"]


def test_folders_of_ome_zarr_are_images(tmp_path, command, small_blocks):
    (tmp_path / "images").mkdir()
    for name in "ab":
        zarr.save_array(tmp_path / "images" / f"{name}.zarr", np.zeros((40, 50), "uint16"))
    out = tmp_path / "results"
    assert main(["deblur", str(tmp_path / "images"), "-o", str(out), "--device", "cpu"]) == 0
    assert names(out) == ["a.zarr", "b.zarr"]


def test_a_damaged_chunk_is_named(tmp_path, command, small_blocks, capsys):
    assert main(command) == 0
    source = tmp_path / "out.ome.zarr"
    next((source / "0" / "c" / "1" / "2").iterdir()).write_bytes(b"no chunk")
    command[1], command[3] = str(source), str(tmp_path / "again.zarr")
    del command[4:6]
    assert main(command) == 1
    assert "cannot be read at [" in capsys.readouterr().err
