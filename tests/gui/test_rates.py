"""Estimates of time: learned from every run, and remembered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_restore.gui import rates as module
from napari_restore.gui.jobs import plan_layer
from napari_restore.gui.options import DockOptions
from napari_restore.gui.rates import Rates, Stopwatch, Times
from napari_restore.restoration.run import LOADING
from napari_restore.runtime import Progress
from waiting import LIMIT_MS


@pytest.fixture
def job(viewer, image):
    return plan_layer(viewer.add_image(image, name="cells"), "deblur", device="cpu")


def times_of(job, *, loading=2.0, network=10.0, beside=0.0, rest=1.0) -> Times:
    return Times(loading, network, beside, rest, job.plan.work / 1e6, job.pixels / 1e6)


def test_one_run_of_one_small_tile_is_learned_from(job, rates):
    times = times_of(job)
    assert rates.seconds(job) < times.total / 2
    rates.learn(job, times)
    # The model is in memory now.
    assert rates.seconds(job) == pytest.approx(times.total - times.loading)
    assert rates.all_seconds([job, job]) == pytest.approx(2 * 11)


def test_the_next_session_knows_what_this_one_found(job, rates, tmp_path, monkeypatch):
    rates.learn(job, times_of(job))
    monkeypatch.setattr(Rates, "_loaded", set())
    later = Rates(tmp_path / "speeds.json")
    assert later.seconds(job) == pytest.approx(13)
    # Loaded once for all.
    assert later.all_seconds([job, job]) == pytest.approx(13 + 11)


def test_newer_and_larger_runs_count_more(job, rates, viewer):
    rates.learn(job, times_of(job, network=10))
    for _ in range(6):
        rates.learn(job, times_of(job, network=1))
    assert rates.seconds(job) == pytest.approx(2, rel=0.2)
    large = plan_layer(viewer.add_image(np.zeros((2000, 2000), np.uint8)), "deblur", device="cpu")
    rates.learn(large, times_of(large, network=20))
    before = rates.seconds(large)
    rates.learn(job, times_of(job, network=0.5))
    assert rates.seconds(large) == pytest.approx(before, rel=0.2)


def test_other_models_of_the_device_are_guessed_from_it(job, rates, viewer, image):
    color = np.stack([image.astype(np.uint8)] * 3, -1)
    other = plan_layer(viewer.add_image(color), "deblur", device="cpu")
    before = rates.seconds(other)
    rates.learn(job, times_of(job, network=100))
    assert rates.seconds(other) > 20 * before


def test_what_is_asked_for_beside_takes_time_too(viewer, image, rates):
    layer = viewer.add_image(image)
    plain, more = (
        plan_layer(layer, "dehaze", device="cpu", show_removed=shown) for shown in (False, True)
    )
    rates.learn(more, times_of(more, beside=6))
    assert rates.seconds(more) == pytest.approx(rates.seconds(plain) + 6)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"a": 1}', '{"a": {}}', '{"a": {"seen": "x"}}', "\x00\xff", "null"],
)
def test_a_damaged_file_counts_as_none(tmp_path, job, text):
    path = tmp_path / "speeds.json"
    path.write_bytes(text.encode("latin-1"))
    rates = Rates(path)
    rates.learn(job, times_of(job))
    assert Rates(path).seconds(job) == pytest.approx(11)


@pytest.mark.parametrize("value", ["NaN", "-1", "1e999", "Infinity"])
def test_absurd_values_count_as_none(tmp_path, job, value):
    path = tmp_path / "speeds.json"
    Rates(path).learn(job, times_of(job))
    known = json.loads(path.read_text())
    for entry in known.values():
        entry["network"] = "?"
    path.write_text(json.dumps(known).replace('"?"', value))
    assert module._read(path) == {}


def test_a_file_that_cannot_be_written_is_done_without(tmp_path, job):
    (tmp_path / "file").write_text("")
    rates = Rates(tmp_path / "file" / "speeds.json")
    rates.learn(job, times_of(job))
    assert rates.seconds(job) == pytest.approx(11)


def test_a_stopwatch_tells_loading_from_the_rest(monkeypatch):
    clock = iter([0, 1, 3, 6, 10, 15, 21])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    watch = Stopwatch()
    for step in (
        Progress(0, 9, LOADING),
        Progress(0, 9, "Finding the range of intensities"),
        Progress(0, 9, "Restoring"),
        Progress(4, 9),
        Progress(9, 9, "Memory ran out; going on with 2 tiles at a time."),
    ):
        watch.see(step)
    times = watch.times(1, 1)
    assert (times.loading, times.network, times.total) == (2, 9, 21)


@pytest.mark.parametrize("what", ["restore", "preview"])
def test_every_run_is_learned_from(session, viewer, predictor, image, qtbot, rates, tmp_path, what):
    viewer.add_image(image, name="cells")
    (job,) = session.jobs(DockOptions(device="cpu"))
    guess = rates.seconds(job)
    getattr(session, what)(DockOptions(device="cpu"))
    qtbot.waitUntil(lambda: not session.running, timeout=LIMIT_MS)
    assert rates.seconds(job) != guess
    assert Rates(tmp_path / "speeds.json").seconds(job) == rates.seconds(job)
