"""Volumes from a shell: chosen by themselves and said, into files of every way."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_restore import Optics, deblur
from napari_restore.cli import main, restore
from napari_restore.image import layout
from napari_restore.io import read_image
from napari_restore.restoration.run import BlockTask
from small_blocks import BLOCK, make_blocks_small

if TYPE_CHECKING:
    from pathlib import Path

OPTICS = Optics(na=0.9, wavelength=0.52, pixel_size=0.12, z_step=0.6)
TOLD = ["--na", "0.9", "--wavelength", "520nm"]


def stack(
    path: Path, shape: tuple[int, int, int] = (10, 64, 72), **metadata: Any
) -> tuple[Path, np.ndarray]:
    """An OME-TIFF of points on a dark ground, with the size of its voxels."""
    rng = np.random.default_rng(0)
    data = rng.poisson(20, shape).astype(np.uint16)
    data[rng.integers(2, 8, 30), rng.integers(4, 60, 30), rng.integers(4, 68, 30)] += 900
    told = {"axes": "ZYX", "PhysicalSizeX": 0.12, "PhysicalSizeY": 0.12, "PhysicalSizeZ": 0.6}
    tifffile.imwrite(path, data, metadata=told | metadata, ome=True)
    return path, data


def expected(data: np.ndarray, **options: Any) -> np.ndarray:
    result: np.ndarray = deblur(data, axes="ZYX", psf=OPTICS, dimensions=3, **options)
    return result


@pytest.mark.parametrize("method", ["network", "richardson-lucy"])
def test_a_stack_with_its_voxels_is_a_volume(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data = stack(tmp_path / "a.ome.tif")
    out = tmp_path / "b.ome.tif"
    assert main(["deblur", str(source), "-o", str(out), *TOLD, "--method", method]) == 0
    assert "As a volume: 10 planes" in capsys.readouterr().out
    np.testing.assert_array_equal(tifffile.imread(out), expected(data, method=method))


def test_plane_by_plane_if_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data = stack(tmp_path / "a.ome.tif")
    out = tmp_path / "b.ome.tif"
    command = ["deblur", str(source), "-o", str(out), *TOLD, "--method", "wiener"]
    assert main([*command, "--dimensions", "2"]) == 0
    assert "volume" not in capsys.readouterr().out
    planes = deblur(data, axes="ZYX", psf=OPTICS, method="wiener")
    np.testing.assert_array_equal(tifffile.imread(out), planes)


def test_zarr_and_a_psf_with_other_planes(tmp_path: Path) -> None:
    source, data = stack(tmp_path / "a.ome.tif")
    finer = Optics(na=0.9, wavelength=0.52, pixel_size=0.12, z_step=0.3)
    told = {"axes": "ZYX", "PhysicalSizeX": 0.12, "PhysicalSizeY": 0.12, "PhysicalSizeZ": 0.3}
    kernel = tmp_path / "psf.ome.tif"
    tifffile.imwrite(kernel, finer.psf(dimensions=3), metadata=told, ome=True)
    out = tmp_path / "b.ome.zarr"
    command = ["deblur", str(source), "-o", str(out), "--psf", str(kernel), "--dimensions", "3"]
    assert main([*command, "--method", "richardson-lucy"]) == 0
    result = read_image(out)
    record = result.extras["ngff"]["provenance"]
    assert "resampled" in record["psf"]["found"] and record["dimensions"] == 3
    other = expected(data, method="richardson-lucy")
    assert np.corrcoef(np.asarray(result.data).ravel(), other.ravel())[0, 1] > 0.98
    assert main([*command, "--method", "richardson-lucy", "--resume"]) == 0


def test_a_large_tiff_is_restored_in_deep_blocks_not_in_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wider the planes, the fewer would fit in memory, and the more were margin."""
    source, data = stack(tmp_path / "a.ome.tif", shape=(10, 150, 170))
    make_blocks_small(monkeypatch)
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    monkeypatch.setattr(layout, "BLOCK_BYTES", 10 * BLOCK**2 * data.itemsize)
    seen, real = [], BlockTask.__call__

    def recorded(self: BlockTask, block: layout.Block, *rest: Any, **named: Any) -> Any:
        seen.append(tuple(part.stop - part.start for part in block))
        return real(self, block, *rest, **named)

    monkeypatch.setattr(BlockTask, "__call__", recorded)
    out = tmp_path / "b.ome.tif"
    assert main(["deblur", str(source), "-o", str(out), *TOLD, "--method", "wiener"]) == 0
    assert len(seen) == 9 and set(seen) >= {(10, BLOCK, BLOCK)}
    with tifffile.TiffFile(out) as tif:
        assert tif.pages.first.tile == (BLOCK, BLOCK)
        found = tif.asarray().astype(float)
    assert np.abs(found - expected(data, method="wiener")).max() < 0.01 * np.ptp(data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "b.ome.tif"]


@pytest.mark.parametrize("what", ["full", "stopped"])
def test_what_ends_a_large_tiff_leaves_the_earlier_result(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = stack(tmp_path / "a.ome.tif")
    out = tmp_path / "b.ome.tif"
    command = ["deblur", str(source), "-o", str(out), *TOLD, "--method", "wiener", "--force"]
    assert main(command) == 0
    before = out.read_bytes()
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if what == "full":
        monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    else:
        monkeypatch.setattr(BlockTask, "__call__", stop)
    assert main(command) == (1 if what == "full" else 130)
    told = capsys.readouterr().err
    assert ("No space left on device" in told) == (what == "full")
    # Where there is no room, nothing was begun.
    assert ("cannot be continued" in told) == (what != "full")
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "b.ome.tif"]


def test_a_volume_without_a_psf_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = stack(tmp_path / "a.ome.tif")
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.tif"), "--dimensions", "3"]) == 1
    assert "needs a point spread function" in capsys.readouterr().err


def test_evaluate_measures_stacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, data = stack(tmp_path / "a.ome.tif")
    stack(tmp_path / "b.ome.tif")
    # A movie is no volume, however it is named.
    told = {"axes": "TYX", "PhysicalSizeX": 0.12}
    tifffile.imwrite(tmp_path / "movie.ome.tif", data, metadata=told, ome=True)
    command = ["evaluate", "--sharp", str(tmp_path), "--task", "deblur", "--kind", "volume"]
    command += ["--size", "32", "--device", "cpu"]
    assert main([*command, *TOLD, "--photons", "300"]) == 0
    out, err = capsys.readouterr()
    assert "movie.ome.tif left out: its axes are TYX" in err
    title, header, _, *rows = out.splitlines()
    assert title == "deblur, volume: 2 volumes of 10×32×32 pixels"
    assert header.split() == ["method", "PSNR", "SSIM", "gain", "better", "light"]
    for row, name in zip(rows, ("input", "Richardson–Lucy", "Wiener", "plane"), strict=False):
        assert row.startswith(name) and "dB" in row
    assert rows[4].startswith("invert-volume")
    # Another microscope sees something else; so do those that are drawn.
    for other in (["--na", "0.6", "--wavelength", "520nm"], []):
        assert main([*command, *other, "--photons", "300", "--limit", "1"]) == 0
        assert capsys.readouterr().out.splitlines()[3] != rows[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "mono", "--na", "1"], "--na is for volumes. Add --kind volume"),
        (["--photons", "9"], "--photons is for volumes"),
        (["--kind", "volume", "--psf", "none"], "--psf none is not for volumes"),
        (["--kind", "volume", "--model", "deblur-mono"], "--model deblur-mono is not for volumes"),
        (["--kind", "volume", "--task", "dehaze"], "Volumes are for deblur; --task is dehaze"),
    ],
)
def test_evaluate_says_what_is_not_for_volumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["evaluate", "--sharp", str(tmp_path), "--task", "deblur", *options]) == 2
    assert said in capsys.readouterr().err


def test_evaluate_without_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--sharp", str(tmp_path), "--task", "deblur", "--kind", "volume"]
    assert main(command) == 1
    assert "No volume that can be measured in" in capsys.readouterr().err
