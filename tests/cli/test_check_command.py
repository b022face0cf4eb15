from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_restore.cli import main
from napari_restore.cli.check import _recorded
from napari_restore.io import ImageFile, read_image, write_image


@pytest.fixture
def files(tmp_path):
    sharp = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(64, 64)), 1) > 0
    result = (40 + 150 * sharp).astype(np.uint8)
    noise = np.random.default_rng(1).normal(0, 2, result.shape)
    image = (ndimage.gaussian_filter(result.astype(float), 1.2) + noise).astype(np.uint8)
    for name, data in (("image", image), ("result", result)):
        made = ImageFile(tmp_path / "a.npy", data, "YX", "npy")
        write_image(tmp_path / f"{name}.tif", data, made, json.dumps({"task": "none"}))
    return tmp_path


def test_sentences_report_and_map(files, capsys):
    names = [str(files / name) for name in ("image.tif", "result.tif")]
    report, error = files / "report.html", files / "error.tif"
    command = ["check", *names, "--reference", names[1], "-o", str(report), "--map", str(error)]
    assert main(command) == 0
    assert capsys.readouterr().out.count("\n") == 5
    assert "Not for diagnosis" in report.read_text("utf-8")
    assert read_image(error).data.shape == (64, 64)
    # Nothing is replaced unasked.
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


@pytest.mark.parametrize("option", ["-o", "--map"])
@pytest.mark.parametrize("name", ["image.tif", "result.tif", "truth.tif", "other.html"])
def test_force_replaces_nothing_but_what_it_made(files, capsys, option, name):
    (files / "truth.tif").write_bytes((files / "result.tif").read_bytes())
    (files / "other.html").write_text("<html>not ours</html>")
    if (option, name) == ("--map", "other.html"):
        name = "other.tif"
        tifffile.imwrite(files / name, np.zeros((8, 8), np.uint8))
    before = (files / name).read_bytes()
    names = [str(files / each) for each in ("image.tif", "result.tif")]
    command = ["check", *names, "--reference", str(files / "truth.tif")]
    assert main([*command, option, str(files / name), "--force"]) == 1
    said = capsys.readouterr().err
    assert "is an input" in said or "is not a re" in said
    assert (files / name).read_bytes() == before


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".ome.zarr"])
def test_what_a_file_says_of_how_it_was_made(tmp_path, suffix):
    data = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    made = ImageFile(tmp_path / "a.npy", data, "YX", "npy")
    record = {"task": "deblur", "model": "deblur-mono", "versions": {"napari-restore": "1"}}
    path = tmp_path / f"result{suffix}"
    write_image(path, data, made, json.dumps(record))
    assert _recorded(read_image(path)) == record
