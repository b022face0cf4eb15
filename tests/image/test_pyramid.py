from __future__ import annotations

import numpy as np
import pytest

from napari_restore.image import pyramid as module
from napari_restore.image.pyramid import pyramid


def test_levels_fit_shapes_that_are_no_exact_division():
    finest = np.arange(13 * 10, dtype=np.uint8).reshape(13, 10)
    levels = pyramid(finest, [(7, 5), (3, 2)])
    assert [level.shape for level in levels] == [(13, 10), (7, 5), (3, 2)]
    assert levels[0] is finest
    assert levels[1].dtype == np.uint8
    assert levels[1][0, 0] == round(finest[:2, :2].mean())
    # Beyond the border the last row is repeated.
    assert levels[1][6, 0] == round(finest[12, :2].mean())


def test_booleans_by_majority():
    finest = np.zeros((4, 4), bool)
    finest[:2, :2] = [[True, True], [True, False]]
    finest[2, 2] = True
    assert pyramid(finest, [(2, 2)])[1].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("shape", [(3, 64, 48), (64, 48), (1, 30, 48)])
def test_slabs_make_no_difference(shape, monkeypatch):
    finest = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    wanted = tuple(length // 2 if length > 3 else length for length in shape)
    whole = pyramid(finest, [wanted])[1]
    monkeypatch.setattr(module, "_SLAB_SAMPLES", 500)
    np.testing.assert_array_equal(pyramid(finest, [wanted])[1], whole)
