"""Point spread functions from a shell: written, read, recorded, refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_restore.analysis.find import Finding
from napari_restore.analysis.point_spread import PSF
from napari_restore.cli import main
from napari_restore.physics import psf

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = psf.gaussian(1.2)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the search says, and how often it was asked, instead of a search."""
    kernel = PSF(KERNEL, "gaussian", {"sigma": 1.2}, 0.1, "Found: a Gaussian")
    answers = [Finding("found", kernel, 0.01, "Found: a Gaussian; it explains the image.")]

    def find(*_: Any, **__: Any) -> Finding:
        answers.append(answers[0])
        return answers[0]

    monkeypatch.setattr("napari_restore.restoration.psf_search.find_psf", find)
    return answers


def image(path: Path, channels: int = 1, **metadata: Any) -> Path:
    """An OME-TIFF of 65 nm pixels, which records a microscope."""
    rng = np.random.default_rng(0)
    shape = (channels, 48, 56) if channels > 1 else (48, 56)
    samples = psf.convolve(
        torch.from_numpy(rng.random((1, channels, 48, 56))), torch.tensor(KERNEL)[None]
    )
    told = {"axes": "CYX" if channels > 1 else "YX", "PhysicalSizeX": 65, "PhysicalSizeY": 65}
    told |= {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", **metadata}
    data = (1000 * samples.numpy()).astype(np.uint16).reshape(shape)
    tifffile.imwrite(path, data, metadata=told, ome=True)
    return path


def beads(path: Path) -> Path:
    points = np.zeros((90, 90))
    points[[20, 20, 70, 70, 45, 45], [20, 70, 20, 70, 42, 48]] = 1000
    light = psf.convolve(torch.from_numpy(points)[None, None], torch.tensor(KERNEL)[None])
    noise = np.random.default_rng(0).normal(10, 0.2, points.shape)
    tifffile.imwrite(path, (light.numpy()[0, 0] + noise).astype(np.float32))
    return path


def test_what_is_found_is_written_with_its_size(
    tmp_path: Path, found: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "psf.tif"
    assert main(["psf", str(image(tmp_path / "a.ome.tif")), "-o", str(out)]) == 0
    np.testing.assert_array_equal(tifffile.imread(out), KERNEL)
    with tifffile.TiffFile(out) as tif:
        assert 'PhysicalSizeX="0.065"' in tif.ome_metadata
    said = capsys.readouterr().out
    assert "FWHM 2.8 px (0.18" in said and "explains the image" in said
    assert main(["psf", str(tmp_path / "a.ome.tif"), "-o", str(out)]) == 1
    assert main(["psf", str(tmp_path / "a.ome.tif"), "-o", str(out), "--force"]) == 0


def test_nothing_found_is_no_error(
    tmp_path: Path, found: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    found[0] = Finding("unknown", None, 0.1, "Too little structure.")
    out = tmp_path / "psf.tif"
    assert main(["psf", str(image(tmp_path / "a.ome.tif")), "-o", str(out)]) == 0
    assert "Too little structure. Nothing was written." in capsys.readouterr().out
    assert not out.exists()


def test_beads_and_optics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "psf.ome.tif")
    assert main(["psf", str(beads(tmp_path / "b.tif")), "--beads", "-o", out]) == 0
    said = capsys.readouterr().out
    assert "4 of 6 beads were averaged" in said and "too close" in said
    words = ["--na", "0.8", "--wavelength", "520nm", "--pixel-size", "65nm"]
    assert main(["psf", *words, "-o", out, "--force"]) == 0
    assert "From the optics: widefield, NA 0.8, λ 520 nm, n 1." in capsys.readouterr().out
    two = image(tmp_path / "c.ome.tif", 2, Channel={"EmissionWavelength": [450, 650]})
    assert main(["psf", str(two), "--na", "0.8", "-o", out, "--force"]) == 0
    first, second = tifffile.imread(out)
    assert first.max() > 1.5 * second.max()


def restored(target: Path) -> dict[str, Any]:
    with tifffile.TiffFile(target) as tif:
        text = tif.pages.first.tags["Software"].value
    record: dict[str, Any] = json.loads(text[text.index("{") :])
    return record


#: Options of `deblur`, and what the provenance says of the PSF.
GIVEN: dict[str, tuple[list[str], str]] = {
    "a file": (["--psf", "psf.tif"], "As given in psf.tif. The PSF was resampled"),
    "beads": (["--beads", "b.tif"], "From beads: b.tif: 4 of 6 beads"),
    "optics": (["--na", "0.8", "--wavelength", "520nm"], "widefield, NA 0.8, λ 520 nm"),
    "recorded": (["--psf", "optics", "--na", "0.5"], "NA 0.5, λ 600 nm"),
    "found": (["--psf", "auto"], "Found: a Gaussian; it explains"),
}


@pytest.mark.parametrize(("options", "said"), GIVEN.values(), ids=GIVEN)
def test_images_are_restored_with_it(
    options: list[str],
    said: str,
    tmp_path: Path,
    found: list[Finding],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    metadata = {"PhysicalSizeX": 130, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 130}
    tifffile.imwrite(
        "psf.tif", psf.gaussian(0.8), metadata=metadata | {"PhysicalSizeYUnit": "nm"}, ome=True
    )
    beads(tmp_path / "b.tif")
    source = image(tmp_path / "a.ome.tif", Channel={"EmissionWavelength": 600})
    assert main(["deblur", str(source), "-o", "out.ome.tif", *options]) == 0
    record = restored(tmp_path / "out.ome.tif")
    assert said in record["psf"]["said"]
    assert record["model"] == "invert-mono"
    assert said.split(".")[0] in capsys.readouterr().out


def test_it_is_found_once_for_a_result_that_grows(tmp_path: Path, found: list[Finding]) -> None:
    source = image(tmp_path / "a.ome.tif")
    out = tmp_path / "out.ome.zarr"
    words = ["deblur", str(source), "-o", str(out), "--psf", "auto"]
    assert main(words) == 0
    asked = len(found)
    assert main([*words, "--resume"]) == 0
    assert len(found) == asked, "it was finished, and is not begun anew"
    assert main([*words[:-1], "none", "--resume"]) == 1


#: What is no point spread function, and what is said of it.
BAD: dict[str, tuple[list[str], str]] = {
    "no file": (["--psf", "nowhere.tif"], "no such file"),
    "no beads": (["--beads", "even.tif"], "No bead was found"),
    "NA above n": (["--na", "1.2", "--ri", "1", "--wavelength", "520nm"], "cannot reach"),
    "no wavelength": (["--na", "0.8"], "wavelength is missing"),
    "0.52 nm": (["--na", "0.8", "--wavelength", "0.52nm"], "0.52 nm, outside"),
    "no NA": (["--wavelength", "520nm"], "numerical aperture is missing"),
    "no modality": (["--na", "0.8", "--wavelength", "520nm", "--modality", "x"], "no modality"),
    "two": (["--psf", "auto", "--na", "0.8"], "Both --psf and --na"),
    "no size": (["--psf", "auto", "--pixel-size", "65s"], "not a length"),
    "all zero": (["--psf", "zero.tif"], "0 everywhere"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_what_is_none_is_refused(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("even.tif", np.random.default_rng(0).normal(9, 1, (60, 60)))
    tifffile.imwrite("zero.tif", np.zeros((5, 5), np.float32))
    source = image(tmp_path / "a.ome.tif")
    assert main(["deblur", str(source), "-o", "out.tif", *options]) in (1, 2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.tif").exists()
