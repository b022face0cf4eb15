"""The transmission of haze: one number for each pixel of color images, in memory and lazy."""

from __future__ import annotations

from functools import partial

import dask.array as da
import numpy as np
import pytest

from fakes import LocalPredictor, fake_plan
from napari_restore.analysis.transmission import transmission_of
from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes, find_layout
from napari_restore.restoration.dask_graph import lazy_contexts
from napari_restore.restoration.plan import Facts
from napari_restore.restoration.run import BlockTask
from napari_restore.restoration.transmission import lazy_transmission

get_predictor = partial(LocalPredictor, view=16)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((20, 30, 3), "YXS"), ((1500, 40, 4), "YXS"), ((4, 20, 30, 3), "TYXS"), ((3, 20, 30), "SYX")],
    ids=str,
)
def test_every_pixel_has_its_share(shape, axes, rng):
    image = rng.integers(1, 255, shape).astype(np.uint8)  # no alpha of 0 hides a color
    layout = find_layout(image, axes)
    source = Planes(image, layout)
    scales = find_scales(source)
    result = transmission_of(source, get_predictor(), scales)
    assert result.dtype == np.float32
    assert result.shape == tuple(n for n, letter in zip(shape, axes, strict=True) if letter != "S")
    color = axes.index("S")
    gray = image.take(range(3), color).mean(color) / 255
    rows = (np.arange(layout.size[0]) + 0.5) / layout.size[0]
    expected = gray * rows[:, None]
    ratio = result / np.maximum(expected, 1e-6)
    # What is left is the context of the plane.
    assert ratio.std(axis=(-2, -1)).max() < 1e-3
    assert 0.3 < ratio.mean() < 0.7


@pytest.mark.parametrize("chunks", [(1, 20, 30, 3), (2, 7, 30, 1), (4, 20, 11, 3)], ids=str)
def test_lazy_images_give_a_lazy_transmission(chunks, rng):
    image = rng.integers(0, 255, (4, 20, 30, 3)).astype(np.uint8)
    layout = find_layout(image, "TYXS")
    scales = find_scales(Planes(image, layout))
    source = da.from_array(image, chunks=chunks).rechunk({3: -1})
    task = BlockTask(fake_plan(source, get_predictor, axes="TYXS"), Facts(scales))
    contexts = lazy_contexts(source, task)
    lazy = lazy_transmission(source, layout, contexts, get_predictor, scales)
    assert lazy.shape == (4, 20, 30)
    assert lazy.dtype == np.float32
    assert lazy.chunks == source.chunks[:3]
    expected = transmission_of(Planes(image, layout), get_predictor(), scales)
    np.testing.assert_allclose(lazy.compute(), expected, atol=1e-5)
