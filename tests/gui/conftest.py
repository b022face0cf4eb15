"""Fixtures of the GUI tests: a viewer without a window, and a fake network."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from napari.components import ViewerModel

from napari_restore.gui.rates import Rates
from napari_restore.gui.remembered import Settings
from napari_restore.gui.session import Session
from waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakePredictor:
    """Adds 0.1 of the range to every pixel; tiles may be held back, or made to fail."""

    multiple_of, halo, view, estimates_blur, device = 8, 8, 0, True, "cpu"
    frames = 1
    takes_device_tiles = False

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.tiles = 0
        self.begun, self._free = threading.Event(), threading.Event()
        self._last = math.inf

    def hold(self, after: int = 0) -> None:
        """Let so many more tiles be finished and no further one; notice anew when one begins."""
        self._free.clear()
        self.begun.clear()
        self._last = self.tiles + after

    def free(self) -> None:
        """Let all go on."""
        self._last = math.inf
        self._free.set()

    def __call__(self, tiles, context, boxes):
        self.begun.set()
        self.tiles += len(tiles)
        if self.tiles > self._last:
            assert self._free.wait(LIMIT)
        if self.error is not None:
            raise self.error
        return tiles + 0.1

    def estimate(self, image):
        """σ of 1.5 px."""
        shape = (len(image), 2, 1, image.shape[2] // 8, image.shape[3] // 8)
        estimates = torch.full(shape, math.log(1.5))
        estimates[:, 1] = -4
        return estimates

    def to_cpu(self):
        return self


@pytest.fixture
def predictor(monkeypatch) -> Iterator[FakePredictor]:
    fake = FakePredictor()
    monkeypatch.setattr("napari_restore.inference.predictor.load_predictor", lambda *_: fake)
    # It sees no motion, and nothing could be tried with it.
    monkeypatch.setattr("napari_restore.restoration.psf_search.find_blurs", lambda *_: ())
    yield fake
    fake.free()


@pytest.fixture(autouse=True)
def rates(monkeypatch, tmp_path):
    """Speeds of their own for each test, and nobody else's file."""
    known = Rates(tmp_path / "speeds.json")
    monkeypatch.setattr("napari_restore.gui.session.known_rates", lambda: known)
    monkeypatch.setattr(Rates, "_loaded", set())
    return known


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """Settings of their own for each test."""
    known = Settings(tmp_path / "docks.json")
    monkeypatch.setattr("napari_restore.gui.widget.known_settings", lambda: known)
    return known


@pytest.fixture
def viewer(qapp) -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def session(viewer):
    session = Session(viewer, "deblur")
    yield session
    session.close()


@pytest.fixture
def image() -> np.ndarray:
    y, x = np.mgrid[:96, :120]
    wave = 1000 + 400 * np.sin(x / 5) * np.cos(y / 7)
    return wave.astype(np.uint16)
