"""Large images on a dask cluster: the files are those of a run on this computer."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import tifffile
import zarr

from napari_restore import Optics
from napari_restore.cli import main, restore
from napari_restore.image import layout
from napari_restore.io.files import read_on_workers
from napari_restore.io.ome_zarr import OmeZarr
from napari_restore.restoration.cluster import connect
from napari_restore.restoration.run import BlockTask
from small_blocks import BLOCK, contents, make_blocks_small
from waiting import replaced, until

pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Here alone: what workers compute is said by the blocks that they are given."""
    make_blocks_small(monkeypatch)


def on(cluster, *command):
    return main([*map(str, command), "--scheduler", cluster.scheduler_address, "--device", "cpu"])


def here(*command):
    return main([*map(str, command), "--device", "cpu"])


@pytest.fixture
def movie(tmp_path):
    """An OME-Zarr of two frames: 24 blocks. Its name, and how it was named on the command line."""
    data = np.random.default_rng(3).normal(2000, 300, (2, 250, 180)).astype("uint16")
    group = zarr.create_group(tmp_path / "in.ome.zarr")
    group.create_array("0", data=data, chunks=(1, BLOCK, BLOCK))
    axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space"} for a in "yx")]
    step = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": step}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    return tmp_path / "in.ome.zarr"


def unread(self, image, block):
    raise AssertionError("a window was read on this computer")


def test_an_ome_zarr_is_that_of_this_computer(
    tmp_path, movie, mono_model, dask_cluster, monkeypatch, capsys
):
    command = ["deblur", movie, "--model", mono_model, "--tile", "32", "-o"]
    assert here(*command, tmp_path / "here.ome.zarr") == 0
    capsys.readouterr()
    monkeypatch.setattr(BlockTask, "read", unread)
    assert on(dask_cluster, *command, tmp_path / "far.ome.zarr") == 0
    said = capsys.readouterr()
    assert "2 workers" in said.out
    assert said.err == ""
    assert contents(tmp_path / "far.ome.zarr") == contents(tmp_path / "here.ome.zarr")
    assert "0/c/1/3/2" in contents(tmp_path / "far.ome.zarr")


def computing(dask_scheduler) -> bool:
    """Whether a cluster computes. Other tests, which share it, may still hold results on it."""
    return any(task.state == "processing" for task in dask_scheduler.tasks.values())


def test_a_broken_off_run_is_continued_to_the_same_bytes(
    tmp_path, movie, mono_model, dask_cluster, monkeypatch, capsys
):
    command = ["deblur", movie, "--model", mono_model, "--tile", "32", "-o"]
    target, real, written = tmp_path / "out.ome.zarr", OmeZarr.write, []
    assert here(*command, target) == 0
    target.rename(tmp_path / "in one go")

    def stop(self, block, data):
        if len(written) == 7:
            raise KeyboardInterrupt
        real(self, block, data)
        written.append(block)

    with monkeypatch.context() as patch:
        patch.setattr(OmeZarr, "write", stop)
        assert on(dask_cluster, *command, target) == 130
    assert "7 of 24 blocks are kept" in capsys.readouterr().err
    with connect(dask_cluster.scheduler_address) as client:
        # The scheduler hears a moment later that the client has gone.
        until(lambda: not client.run_on_scheduler(computing))
        victim = next(iter(client.run(os.getpid).values()))

    def kill(self, block, data):
        if len(written) == 12:
            os.kill(victim, signal.SIGKILL)
        real(self, block, data)
        written.append(block)

    with monkeypatch.context() as patch:
        patch.setattr(OmeZarr, "write", kill)
        assert on(dask_cluster, *command, target, "--resume") == 0
    assert sorted(map(str, written)) == sorted(map(str, layout.blocks((2, 250, 180), (1, 64, 64))))
    assert contents(target) == contents(tmp_path / "in one go")
    assert on(dask_cluster, *command, target, "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    with connect(dask_cluster.scheduler_address) as client:
        until(lambda: replaced(client, victim))


def test_what_was_begun_here_is_continued_there(
    tmp_path, movie, mono_model, dask_cluster, monkeypatch
):
    command = ["deblur", movie, "--model", mono_model, "--tile", "32"]
    command += ["-o", tmp_path / "out.ome.zarr"]
    real, left = OmeZarr.write, [5]

    def stop(self, block, data):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(self, block, data)

    with monkeypatch.context() as patch:
        patch.setattr(OmeZarr, "write", stop)
        assert here(*command) == 130
    assert on(dask_cluster, *command, "--resume") == 0
    far = contents(tmp_path / "out.ome.zarr")
    assert here(*command, "--force") == 0
    assert contents(tmp_path / "out.ome.zarr") == far


@pytest.fixture
def stack(tmp_path):
    """An OME-TIFF of a volume, and its point spread function."""
    data = np.random.default_rng(4).normal(2000, 300, (5, 70, 40)).clip(0).astype("uint16")
    told = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 0.5}
    kernel = Optics(na=0.9, wavelength=0.52, pixel_size=0.2, z_step=0.5).psf(dimensions=3)
    for name, samples in (("stack", data), ("psf", kernel)):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", samples, metadata={"axes": "ZYX", **told})
    return tmp_path / "stack.ome.tif", tmp_path / "psf.ome.tif"


@pytest.mark.parametrize("method", ["network", "richardson-lucy"])
def test_a_volume_is_that_of_this_computer_and_can_be_continued(
    tmp_path, stack, dask_cluster, monkeypatch, method
):
    command = ["deblur", stack[0], "--psf", stack[1], "--dimensions", "3", "--method", method]
    monkeypatch.setattr(layout, "BLOCK_BYTES", 1)
    real, written = OmeZarr.write, []

    def stop(self, block, data):
        if len(written) == 1:
            raise KeyboardInterrupt
        real(self, block, data)
        written.append(block)

    assert here(*command, "-o", tmp_path / "here.ome.zarr") == 0
    assert on(dask_cluster, *command, "-o", tmp_path / "far.ome.zarr") == 0
    with monkeypatch.context() as patch:
        patch.setattr(OmeZarr, "write", stop)
        assert here(*command, "-o", tmp_path / "again.ome.zarr") == 130
    assert here(*command, "-o", tmp_path / "again.ome.zarr", "--resume") == 0
    whole = contents(tmp_path / "here.ome.zarr")
    assert contents(tmp_path / "far.ome.zarr") == whole
    assert contents(tmp_path / "again.ome.zarr") == whole


@pytest.mark.parametrize("seen", [True, False])
def test_a_tiff_is_that_of_this_computer(
    tmp_path, affine_model, dask_cluster, monkeypatch, capsys, seen
):
    """Its tiles come in order; each needs the view of its plane, which is found here."""
    data = np.random.default_rng(0).integers(0, 250, (2, 200, 130, 3)).astype("uint8")
    source = tmp_path / "a.tif"
    tifffile.imwrite(source, data, photometric="rgb", metadata={"axes": "TYXS"})
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    monkeypatch.setattr(layout, "IN_MEMORY", 10)
    command = ["dehaze", source, "--model", affine_model, "--tile", "64", "-o"]
    assert here(*command, tmp_path / "here.tif") == 0
    capsys.readouterr()
    if seen:
        monkeypatch.setattr(BlockTask, "read", unread)
    else:

        def astray(picture):
            image = read_on_workers(picture)
            image._path = tmp_path / "on this computer alone.tif"
            return image

        monkeypatch.setattr(restore, "read_on_workers", astray)
    assert on(dask_cluster, *command, tmp_path / "far.tif") == 0
    assert (f"Not all workers find {source}" in capsys.readouterr().err) != seen
    assert (tmp_path / "far.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()
