from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.registration import phase_cross_correlation

from napari_restore import deblur, samples
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
        time = [] if sample.interval is None else [sample.interval]
        np.testing.assert_allclose(layer.scale, [*time, *sample.scale])
        assert [str(unit) for unit in layer.units] == (
            ["second"] * len(time) + [sample.units] * len(sample.scale)
        )


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.scale], ids=lambda sample: sample.key)
def test_pixel_size_is_the_one_in_the_file(sample):
    with tifffile.TiffFile(FOLDER / sample.file) as file:
        axes = file.series[0].axes.removeprefix("T" * sample.movie)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert len(axes) == len(sample.scale)
    for axis, step in zip(axes, sample.scale, strict=True):
        assert pixels[f"PhysicalSize{axis}"] == pytest.approx(step)
        assert pixels[f"PhysicalSize{axis}Unit"] == SHORT[sample.units]
    assert pixels.get("TimeIncrement") == sample.interval


def test_movie_says_which_axis_is_time():
    movies = {sample.key: sample for sample in SAMPLES if sample.movie}
    assert set(movies) == {"nuclei", "volume_movie"}
    for key, axes in (("nuclei", "tyx"), ("volume_movie", "tzyx")):
        array, options = load_sample(key)
        assert options["axis_labels"] == tuple(axes)
        assert array.ndim == len(axes)
        with tifffile.TiffFile(FOLDER / movies[key].file) as file:
            assert file.series[0].axes == axes.upper()
    assert len(load_sample("nuclei")[0]) >= 10


def test_frames_of_the_movie_are_shifted_against_each_other():
    array, _ = load_sample("nuclei")
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


@pytest.mark.parametrize(
    ("key", "voxel"), [("volume", (0.25, 0.1, 0.1)), ("volume_movie", (0.3, 0.1, 0.1))]
)
def test_volumes_bring_their_optics(key, voxel):
    from napari.layers import Image

    from napari_restore.gui.jobs import plan_layer
    from napari_restore.gui.psf_source import OpticsOf

    array, options = load_sample(key)
    job = plan_layer(Image(array, **options), "deblur", dimensions="auto", psf=OpticsOf({}))
    assert job.plan.dimensions == 3
    assert job.plan.psfs[0].pixel_size == pytest.approx(voxel)


def test_each_time_of_the_movie_is_a_volume():
    array, options = load_sample("volume_movie")
    told = {"psf": options["metadata"]["optics"], "pixel_size": (0.3, 0.1, 0.1)}
    told |= {"dimensions": "auto", "method": "richardson-lucy"}
    # Two times are enough, and intensities have one scale.
    result = deblur(array[[0, 4]], axes="TZYX", **told)
    assert result.dtype == array.dtype
    # The blur along Z goes: light gathers in fewer planes.
    light = result.astype(float).clip(25) - 25, array[[0, 4]].astype(float).clip(25) - 25
    sharper, before = (np.square(each).sum((1, 2, 3)) / each.sum((1, 2, 3)) for each in light)
    assert (sharper > 1.3 * before).all()
    both = np.concatenate([array[[0, 4]], array[[0, 4]][:, ::-1]])
    turned = deblur(both, axes="TZYX", **told)
    # Time is no space: a volume does not depend on those before and after it.
    np.testing.assert_allclose(turned[2], turned[0][::-1].astype(float), atol=1)
