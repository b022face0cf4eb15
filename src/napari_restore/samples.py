"""The sample images that ship: real images with free licenses, one or more for each task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


@dataclass(frozen=True)
class Sample:
    """One sample image; where it comes from in full stands in sample_data/README.md.

    Attributes
    ----------
    key : str
        Identifier.
    title : str
        As File ▸ Open Sample shows it.
    file : str
        Name in the folder of samples.
    task : str
        What it wants most: "deblur", "dehaze" or "motion_deblur".
    subject : str
        "microscopy", "medical" or "photograph".
    source, license : str
        For the layer's metadata.
    rgb : bool
        Whether its last axis is color.
    scale : tuple of float or None
        Pixel size along each axis of space, if it is known.
    units : str or None
        Unit of the scale.
    contrast_limits : (float, float) or None
        Range to show, where the range of the data is a poor choice.
    movie : bool
        Whether its first axis is time.
    interval : float or None
        Seconds from one frame of a movie to the next; told with a scale alone.
    optics : mapping or None
        Arguments of `napari_restore.Optics`, where the microscope is known.
    """

    key: str
    title: str
    file: str
    task: str
    subject: str
    source: str
    license: str
    rgb: bool = False
    scale: tuple[float, ...] | None = None
    units: str | None = None
    contrast_limits: tuple[float, float] | None = None
    movie: bool = False
    interval: float | None = None
    optics: Mapping[str, Any] | None = None


SAMPLES: tuple[Sample, ...] = (
    Sample(
        key="mitochondria",
        title="Mitochondria, out of focus",
        file="mitochondria.ome.tif",
        task="deblur",
        subject="microscopy",
        source="R. D'Antuono, napari-zelda",
        license="BSD-3-Clause",
        scale=(0.5239, 0.5239),
        units="micrometer",
    ),
    Sample(
        key="tissue",
        title="Stained tissue, out of focus",
        file="tissue.png",
        task="deblur",
        subject="microscopy",
        source="CMMI, scikit-image",
        license="no known copyright restrictions",
        rgb=True,
    ),
    Sample(
        key="volume",
        title="Nuclei and filaments, confocal (made-up volume)",
        file="volume.ome.tif",
        task="deblur",
        subject="microscopy",
        source="made by napari-restore",
        license="CC0-1.0",
        scale=(0.25, 0.1, 0.1),
        units="micrometer",
        optics={
            "na": 1.2,
            "wavelength": "520 nm",
            "refractive_index": 1.33,
            "modality": "confocal",
        },
    ),
    Sample(
        key="volume_movie",
        title="Moving nuclei and filaments, spinning disk (made-up movie of volumes)",
        file="volume_movie.ome.tif",
        task="deblur",
        subject="microscopy",
        source="made by napari-restore",
        license="CC0-1.0",
        scale=(0.3, 0.1, 0.1),
        units="micrometer",
        movie=True,
        interval=20.0,
        optics={
            "na": 1.2,
            "wavelength": "520 nm",
            "excitation": "488 nm",
            "refractive_index": 1.33,
            "modality": "spinning disk",
        },
    ),
    Sample(
        key="chest_ct",
        title="Chest CT, soft (stack)",
        file="chest_ct.ome.tif",
        task="deblur",
        subject="medical",
        source="Harvard Medical School, PyRadiomics",
        license="BSD-3-Clause",
        scale=(5.0, 0.5703125, 0.5703125),
        units="millimeter",
        contrast_limits=(-1000, 600),
    ),
    Sample(
        key="brain_section",
        title="In situ sequencing, out-of-focus light",
        file="brain_section.ome.tif",
        task="dehaze",
        subject="microscopy",
        source="A. Dominguez Mantes and M. Weigert, Spotiflow",
        license="BSD-3-Clause",
        contrast_limits=(1110, 1520),
    ),
    Sample(
        key="pagoda",
        title="Pagoda in fog",
        file="pagoda.png",
        task="dehaze",
        subject="photograph",
        source="danielbuechele (Flickr), scikit-learn",
        license="CC-BY-2.0",
        rgb=True,
    ),
    Sample(
        key="actin",
        title="Actin, shaken",
        file="actin.ome.tif",
        task="motion_deblur",
        subject="microscopy",
        source="R. D'Antuono, napari-zelda",
        license="BSD-3-Clause",
        scale=(0.5239, 0.5239),
        units="micrometer",
    ),
    Sample(
        key="nuclei",
        title="Nuclei, drifting stage (movie)",
        file="nuclei.ome.tif",
        task="motion_deblur",
        subject="microscopy",
        source="A. Dominguez Mantes and M. Weigert, Spotiflow",
        license="BSD-3-Clause",
        contrast_limits=(395, 650),
        movie=True,
    ),
    Sample(
        key="retina",
        title="Retina, moved",
        file="retina.png",
        task="motion_deblur",
        subject="medical",
        source="Mikael Häggström, scikit-image",
        license="CC0-1.0",
        rgb=True,
    ),
    Sample(
        key="raccoon",
        title="Raccoon, camera shake",
        file="raccoon.png",
        task="motion_deblur",
        subject="photograph",
        source="public-domain-image.com, SciPy",
        license="public domain",
        rgb=True,
    ),
)


def samples_folder() -> Path:
    """Where the files are: in the package, or beside it in a checkout.

    Raises
    ------
    FileError
        If they are in neither place.
    """
    package = Path(__file__).parent
    for folder in (package / "sample_data", package.parents[1] / "sample_data"):
        if folder.is_dir():
            return folder
    raise FileError(f"No folder sample_data in {package}. Reinstall napari-restore.")


def load_sample(key: str) -> tuple[np.ndarray[Any, np.dtype[Any]], dict[str, Any]]:
    """Load a sample.

    Parameters
    ----------
    key : str
        One of the keys in `SAMPLES`.

    Returns
    -------
    array : ndarray
        Axes (Y, X), (Z, Y, X), (T, Y, X), (T, Z, Y, X), or (Y, X, 3) for color; uint8, uint16 or
        int16.
    options : dict
        Keyword arguments of a napari image layer.

    Raises
    ------
    FileError
        If there is no such sample or its file is missing.
    """
    sample = next((sample for sample in SAMPLES if sample.key == key), None)
    if sample is None:
        keys = ", ".join(sample.key for sample in SAMPLES)
        raise FileError(f"No sample '{key}'. Choose one of: {keys}.")
    path = samples_folder() / sample.file
    if not path.is_file():
        raise FileError(f"{path} is missing. Reinstall napari-restore.")
    options: dict[str, Any] = {
        "name": sample.title,
        "rgb": sample.rgb,
        "metadata": {"source": sample.source, "license": sample.license},
    }
    if sample.optics is not None:
        options["metadata"]["optics"] = dict(sample.optics)
    pixels = _read(path)
    if sample.scale is not None:
        options |= {"scale": sample.scale, "units": (sample.units,) * len(sample.scale)}
        options["axis_labels"] = tuple("zyx"[-len(sample.scale) :])
    if sample.movie:
        options["axis_labels"] = ("t", *"zyx"[1 - pixels.ndim :])
        if sample.scale is not None:
            options["scale"] = (sample.interval or 1.0, *sample.scale)
            options["units"] = ("second", *options["units"])
    if sample.contrast_limits is not None:
        options["contrast_limits"] = sample.contrast_limits
    return pixels, options


def _read(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    if path.suffix == ".tif":
        import tifffile

        return tifffile.imread(path)
    import numpy as np
    from PIL import Image

    return np.array(Image.open(path))
