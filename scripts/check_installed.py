"""Check an installed wheel, from outside the checkout: it restores an image with what is in it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import napari_restore
from napari_restore.models.catalog import SHIPPED, sha256
from napari_restore.samples import SAMPLES, load_sample, samples_folder


def check(condition: bool, text: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {text}")
    print(f"ok: {text}")


def main() -> None:
    """Run all checks; the first that fails ends with status 1."""
    package = Path(napari_restore.__file__).parent
    check("site-packages" in package.parts, f"the package is the installed one, {package}")
    for name in ("napari.yaml", "py.typed"):
        check((package / name).is_file(), f"{name} is inside")
    for spec in SHIPPED:
        check(
            package in spec.path.parents and sha256(spec.path) == spec.sha256,
            f"weights of {spec.name} are inside and are the catalog's",
        )
    check(package in samples_folder().parents, "samples are inside")
    for sample in SAMPLES:
        array, _ = load_sample(sample.key)
        result = napari_restore.restore(array, sample.task, rgb=sample.rgb)
        check(
            result.shape == array.shape and result.dtype == array.dtype and np.ptp(result) > 0,
            f"{sample.key} is restored by the library",
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = samples_folder() / "mitochondria.ome.tif", Path(folder) / "out.ome.tif"
        command = Path(sys.executable).with_name("napari-restore")
        subprocess.run([command, "deblur", source, "-o", target], check=True)
        check(
            tifffile.imread(target).shape == tifffile.imread(source).shape,
            "the command line restores a file",
        )


if __name__ == "__main__":
    main()
