from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.registration import phase_cross_correlation

from napari_restore import samples
from napari_restore.errors import FileError
from napari_restore.models.catalog import TASKS
from napari_restore.samples import SAMPLES, load_sample, samples_folder

FOLDER = Path(__file__).parents[1] / "sample_data"
KEYS = [sample.key for sample in SAMPLES]
SHORT = {"micrometer": "µm", "millimeter": "mm"}


def test_folder_holds_the_samples_and_their_readme_and_nothing_else():
    found = {path.name for path in FOLDER.iterdir()}
    assert found == {sample.file for sample in SAMPLES} | {"README.md"}
    assert len(KEYS) == len(set(KEYS))
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8e6


def test_readme_tells_of_every_file():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    # Once with what it shows, once with where it comes from.
    assert all(text.count(f"`{sample.file}`") >= 2 for sample in SAMPLES)


def test_there_is_one_for_every_dock_and_every_kind_of_user():
    # Noise is in all of them.
    tasks = set(TASKS) - {"denoise"}
    assert {sample.task for sample in SAMPLES} == tasks
    assert {sample.subject for sample in SAMPLES} == {"microscopy", "medical", "photograph"}
    assert {(sample.task, sample.rgb) for sample in SAMPLES} == {
        (task, rgb) for task in tasks for rgb in (True, False)
    }
    assert any(load_sample(sample.key)[0].ndim - sample.rgb > 2 for sample in SAMPLES)


@pytest.mark.parametrize("sample", SAMPLES, ids=KEYS)
def test_sample_becomes_a_layer(sample):
    from napari.layers import Image

    array, options = load_sample(sample.key)
    layer = Image(array, **options)
    assert layer.rgb is sample.rgb
    assert layer.metadata["license"]
    assert np.ptp(array) > 50
    low, high = layer.contrast_limits
    assert low < array.mean() < high
    if sample.scale is not None:
        np.testing.assert_allclose(layer.scale, sample.scale)
        assert {str(unit) for unit in layer.units} == {sample.units}


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.scale], ids=lambda sample: sample.key)
def test_pixel_size_is_the_one_in_the_file(sample):
    with tifffile.TiffFile(FOLDER / sample.file) as file:
        axes = file.series[0].axes
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert len(axes) == len(sample.scale)
    for axis, step in zip(axes, sample.scale, strict=True):
        assert pixels[f"PhysicalSize{axis}"] == pytest.approx(step)
        assert pixels[f"PhysicalSize{axis}Unit"] == SHORT[sample.units]


def test_movie_says_which_axis_is_time():
    (movie,) = (sample for sample in SAMPLES if sample.movie)
    array, options = load_sample(movie.key)
    assert options["axis_labels"] == ("t", "y", "x")
    assert array.shape[0] >= 10
    with tifffile.TiffFile(FOLDER / movie.file) as file:
        assert file.series[0].axes == "TYX"


def test_frames_of_the_movie_are_shifted_against_each_other():
    (movie,) = (sample for sample in SAMPLES if sample.movie)
    array, _ = load_sample(movie.key)
    steps = [
        phase_cross_correlation(late, early, upsample_factor=4)[0]
        for early, late in pairwise(array.astype(np.float32))
    ]
    lengths = np.hypot(*np.transpose(steps))
    assert 2 < lengths.min() < 5
    assert 10 < lengths.max() < 14


def test_installed_samples_come_before_those_of_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "src" / "napari_restore"
    monkeypatch.setattr(samples, "__file__", str(package / "samples.py"))
    with pytest.raises(FileError, match="Reinstall"):
        samples_folder()
    for folder in (tmp_path / "sample_data", package / "sample_data"):
        folder.mkdir(parents=True)
        assert samples_folder() == folder
    with pytest.raises(FileError, match=r"pagoda\.png is missing"):
        load_sample("pagoda")


def test_unknown_sample_is_refused_with_the_known_ones():
    with pytest.raises(FileError, match=r"'cat'.*mitochondria"):
        load_sample("cat")


def test_a_volume_brings_its_optics():
    from napari.layers import Image

    from napari_restore.gui.jobs import plan_layer
    from napari_restore.gui.psf_source import OpticsOf

    array, options = load_sample("volume")
    job = plan_layer(Image(array, **options), "deblur", dimensions="auto", psf=OpticsOf({}))
    assert job.plan.dimensions == 3
    assert job.plan.psfs[0].pixel_size == pytest.approx((0.25, 0.1, 0.1))
