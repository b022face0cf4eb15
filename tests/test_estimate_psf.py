"""The point spread function of an image, for scripts: found, or said to be unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from napari_restore import PSF, RestoreError, deblur, estimate_psf
from napari_restore.analysis.find import Finding
from napari_restore.physics import psf

if TYPE_CHECKING:
    from napari_restore.runtime import Progress

IMAGE = np.random.default_rng(0).random((2, 40, 48))


@pytest.fixture
def planes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of a search: the n-th plane that is looked at is blurred by a disk of radius n."""
    seen: list[float] = []

    def find(plane: Any, *_: Any, progress: Any, **__: Any) -> Finding:
        progress(0.5)
        seen.append(float(plane[:, :].mean()))
        found = PSF(psf.disk(len(seen)), "disk", {"radius": len(seen)}, 0.1, "Found: a disk")
        return Finding("found", found, 0.01, "Found: a disk; it explains the image.")

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_psf", find)
    return seen


@pytest.mark.parametrize("image", [IMAGE, da.from_array(IMAGE, chunks=20)], ids=["array", "dask"])
def test_what_was_found_is_said(image: Any, planes: list[float]) -> None:
    steps: list[Progress] = []
    found = estimate_psf(image, pixel_size="65 nm", progress=steps.append)
    assert isinstance(found, PSF) and found
    assert (found.pixel_size, found.unit) == ((0.065, 0.065), "µm")
    assert found.fwhm_in_units == pytest.approx(0.065 * found.fwhm)
    assert (found.family, found.uncertainty) == ("disk", 0.1)
    assert "explains the image" in found.found and "µm)" in str(found)
    assert any("point spread function, 50%" in step.message for step in steps)
    assert len(planes) == 1


def test_each_channel_has_its_own(planes: list[float]) -> None:
    found = estimate_psf(np.stack([IMAGE, 2 * IMAGE**2], 1), axes="ZCYX")
    assert [len(each.array) for each in found] == [3, 5]
    assert len(set(planes)) == 2


def test_what_was_found_restores_as_if_found_again(planes: list[float]) -> None:
    told = deblur(IMAGE[0], psf=estimate_psf(IMAGE[0]))
    planes.clear()
    # The noise may be measured elsewhere.
    np.testing.assert_allclose(told, deblur(IMAGE[0], psf="auto"), atol=0.5)
    assert len(planes) == 1


NOTHING: dict[str, Any] = {
    "noise": np.random.default_rng(0).normal(100, 5, (96, 96)),
    "even": np.full((96, 96), 7, np.uint8),
    "small": np.arange(64.0).reshape(8, 8),
    "empty": np.zeros((0, 40)),
    "missing": np.full((64, 64), np.nan),
}


@pytest.mark.parametrize("image", NOTHING.values(), ids=NOTHING)
def test_where_there_is_none_it_says_why(image: np.ndarray) -> None:
    found = estimate_psf(image)
    assert not found
    assert found.family == "none" and found.found
    np.testing.assert_array_equal(found.array, [[1]])
    np.testing.assert_array_equal(deblur(image, psf=found), deblur(image))


@pytest.mark.parametrize("task", ["dehaze", "sharpen"])
def test_only_blur_has_one(task: str) -> None:
    with pytest.raises(RestoreError, match="task"):
        estimate_psf(np.zeros((40, 40)), task=task)
