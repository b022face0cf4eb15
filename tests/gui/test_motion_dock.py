"""The Motion deblur dock: two frames, two layers, and the vectors over them."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Vectors
from scipy import ndimage

from napari_restore import RestoreError, motion_deblur
from napari_restore.errors import ImageError
from napari_restore.gui.axes import read_axes
from napari_restore.gui.jobs import plan_layer
from napari_restore.gui.layers import METADATA_KEY
from napari_restore.gui.options import DockOptions
from napari_restore.gui.session import Session
from waiting import LIMIT_MS


@pytest.fixture
def motion(viewer, request):
    session = Session(viewer, "motion_deblur")
    yield session
    session.close()


@pytest.fixture
def movie() -> np.ndarray:
    """Structure that moves to the right by 3 pixels from frame to frame."""
    rng = np.random.default_rng(0)
    scene = ndimage.gaussian_filter(rng.random((70, 110)), 1.5)
    scene = (scene - scene.min()) / np.ptp(scene) * 4000
    return np.stack([scene[:, 20 - 3 * t : 100 - 3 * t] for t in range(3)]).astype(np.uint16)


def restored(session: Session, options: DockOptions, qtbot) -> None:
    session.restore(options)
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)


def test_a_movie_is_restored_as_by_the_library(motion, viewer, movie, qtbot):
    viewer.add_image(movie, name="cells", scale=(2, 0.5, 0.5), units=("s", "um", "um"))
    restored(motion, DockOptions(frames=2, exposure=0.5, show_motion=True), qtbot)
    result, vectors = viewer.layers["cells [motion deblurred]"], viewer.layers["cells [motion]"]
    np.testing.assert_array_equal(result.data, motion_deblur(movie, frames=2, exposure=0.5))
    record = result.metadata[METADATA_KEY]
    assert (record["frames"], record["exposure"], record["exposure_found"]) == (2, 0.5, False)
    assert isinstance(vectors, Vectors)
    assert vectors.ndim == 3
    np.testing.assert_array_equal(vectors.scale, result.scale)
    assert vectors.units == result.units
    assert viewer.layers.selection == {result}


def test_the_exposure_is_found_and_said(motion, viewer, movie, qtbot):
    viewer.add_image(movie, name="cells")
    said: list[str] = []
    motion.runner.ended.connect(said.append)
    restored(motion, DockOptions(frames=2), qtbot)
    record = viewer.layers["cells [motion deblurred]"].metadata[METADATA_KEY]
    assert record["exposure_found"]
    assert 0 < record["exposure"] <= 1
    assert "Exposure found" in said[-1]


def test_two_images_are_neighbors_of_each_other(motion, viewer, movie, qtbot):
    first, second = (viewer.add_image(movie[t], name=f"t{t}") for t in range(2))
    viewer.layers.selection = {first, second}
    restored(motion, DockOptions(frames=2, exposure=0.4, show_motion=True), qtbot)
    both = motion_deblur(movie[:2], frames=2, exposure=0.4)
    for t in range(2):
        result = viewer.layers[f"t{t} [motion deblurred]"]
        # Scales are found from both frames either way.
        np.testing.assert_array_equal(result.data, both[t])
        assert result.metadata[METADATA_KEY]["neighbor"] == f"t{1 - t}"
        assert viewer.layers[f"t{t} [motion]"].ndim == 2


def test_two_layers_that_differ_are_refused(motion, viewer, movie):
    first = viewer.add_image(movie[0], name="a")
    second = viewer.add_image(movie[1, :50], name="b")
    viewer.layers.selection = {first, second}
    with pytest.raises(ImageError, match=r"'a'.*one shape.*\(70, 80\).*\(50, 80\)"):
        motion.jobs(DockOptions(frames=2))


def test_preview_of_two_frames_is_that_part_of_the_result(motion, viewer, movie, qtbot):
    viewer.add_image(movie, name="cells")
    viewer.dims.set_current_step(0, 1)
    motion.preview(DockOptions(frames=2, exposure=0.5))
    qtbot.waitUntil(lambda: not motion.running, timeout=LIMIT_MS)
    preview = viewer.layers["cells [preview]"]
    whole = motion_deblur(movie, frames=2, exposure=0.5)[1]
    np.testing.assert_array_equal(preview.data[1], whole)
    np.testing.assert_array_equal(preview.data[[0, 2]], movie[[0, 2]])


def test_a_lazy_movie_stays_lazy(motion, viewer, movie, qtbot):
    viewer.add_image(da.from_array(movie, chunks=(1, 70, 80)), name="cells")
    restored(motion, DockOptions(frames=2), qtbot)
    result = viewer.layers["cells [motion deblurred]"]
    assert isinstance(result.data, da.Array)
    exposure = result.metadata[METADATA_KEY]["exposure"]
    np.testing.assert_array_equal(
        result.data.compute(), motion_deblur(movie, frames=2, exposure=exposure)
    )


def test_lines_of_one_frame_are_centered_on_their_places(motion, viewer, movie, qtbot):
    viewer.add_image(movie[0], name="cells")
    restored(motion, DockOptions(show_motion=True), qtbot)
    lines = viewer.layers["cells [motion blur]"]
    assert lines.vector_style == "line"
    middles = lines.data[:, 0] + lines.data[:, 1] / 2
    assert set(np.round((middles + 0.5) / 16 - 0.5, 3).ravel() % 1) <= {0.0}


@pytest.mark.parametrize(
    ("labels", "chosen", "axes"),
    [
        (("-3", "-2", "-1"), None, "TYX"),
        (("t", "y", "x"), None, "TYX"),
        (("z", "y", "x"), 0, "TYX"),
        (("t", "z", "y", "x"), None, "TZYX"),
        (("t", "z", "y", "x"), 1, "QTYX"),
        (("-4", "z", "y", "x"), None, "TZYX"),
        (("-4", "-3", "y", "x"), 1, "QTYX"),
    ],
    ids=str,
)
def test_which_axis_is_time(labels, chosen, axes):
    layer = Image(np.zeros((2, 3, 4, 5)[-len(labels) :]), axis_labels=labels)
    assert read_axes(layer, moves=True, time_axis=chosen) == axes


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("y", "x"), ["single image", "two selected layers"]),
        (("z", "y", "x"), ["Which axis", "(z, y, x)", "Advanced"]),
        (("-4", "-3", "y", "x"), ["Which axis", "Advanced"]),
    ],
    ids=str,
)
def test_if_no_axis_is_time_the_remedy_is_named(labels, words):
    layer = Image(np.zeros((2, 3, 4, 5)[-len(labels) :]), axis_labels=labels, name="cells")
    with pytest.raises(RestoreError) as caught:
        plan_layer(layer, "motion_deblur", frames=2)
    for word in ("'cells'", *words):
        assert word in str(caught.value)


def test_a_multiscale_movie_stays_multiscale(motion, viewer, movie, qtbot):
    viewer.add_image([movie, movie[:, ::2, ::2]], multiscale=True, name="cells")
    restored(motion, DockOptions(frames=2, exposure=0.5), qtbot)
    result = viewer.layers["cells [motion deblurred]"]
    assert [level.shape for level in result.data] == [(3, 70, 80), (3, 35, 40)]
