"""Take the pictures of the docks that README and documentation show.

Opens napari at 1280×800, adds a sample image and a dock, presses its buttons, and writes what the
window shows. Without a screen: ``scripts/with_display.sh python scripts/screenshots.py``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_restore.samples import load_sample

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
SIZE = (1280, 800)
#: A picture is stored with as many colors as fit into this many bytes.
LIMIT = 300_000
#: Seconds until a restoration is given up.
PATIENCE = 900


class Window:
    """A napari window with one sample and one dock.

    Parameters
    ----------
    sample : str or (array, dict)
        Key of a sample image; or an image and arguments of its layer.
    dock : str
        Title of a dock.
    """

    def __init__(self, sample: str | tuple[Any, dict[str, Any]], dock: str) -> None:
        import napari

        from napari_restore.gui import widget as gui_widget
        from napari_restore.gui.remembered import Settings

        # The controls as they are for everybody, and nobody's settings changed.
        settings = Settings(Path(tempfile.mkdtemp()) / "docks.json")
        gui_widget.known_settings = lambda: settings
        self.viewer = napari.Viewer(title="napari", show=False)
        window = self.viewer.window._qt_window
        window.resize(*SIZE)
        self.viewer.show()
        window.resize(*SIZE)
        array, options = load_sample(sample) if isinstance(sample, str) else sample
        self.viewer.add_image(array, **options)
        self.area, self.dock = self.viewer.window.add_plugin_dock_widget("napari-restore", dock)
        self._give_room()
        if hasattr(self.dock, "restore_button"):
            self.wait(self._idle)
        self.viewer.reset_view()

    def _give_room(self) -> None:
        """Let the dock have what the list of layers does not need, and be as wide as its text."""
        from qtpy.QtCore import Qt

        window = self.viewer.window._qt_window
        window.resizeDocks([self.area], [340], Qt.Orientation.Horizontal)
        self.settle()

    def _idle(self) -> bool:
        return bool(self.dock.restore_button.isEnabled())

    def press(self, start: Callable[[], Any]) -> None:
        """Start a preview or a restoration, and wait for its end."""
        if start() is None:
            raise RuntimeError(f"The dock refuses: {self.dock.summary.text()}")
        self.wait(self._idle)

    def wait(self, done: Callable[[], bool]) -> None:
        """Let Qt work until something is true."""
        started = time.monotonic()
        while not done():
            if time.monotonic() - started > PATIENCE:
                raise TimeoutError(f"Nothing came in {PATIENCE} s.")
            self.settle(0.05)

    def settle(self, seconds: float = 1.0) -> None:
        """Let Qt and napari draw what is pending."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def zoom(self, factor: float, center: tuple[float, float] | None = None) -> None:
        """Zoom in or out, around a place of the image if one is given: (row, column) in pixels."""
        camera = self.viewer.scene.camera
        if center is not None:
            layer = self.viewer.layers[0]
            camera.center = (0, *layer.data_to_world(center)[-2:])
        camera.zoom *= factor
        self.settle()

    def write(self, path: Path) -> None:
        """Write what the window shows."""
        from napari._qt.dialogs.qt_notification import NapariQtNotification

        self.settle()
        # Messages go away by themselves, but later.
        for message in self.viewer.window._qt_window.findChildren(NapariQtNotification):
            message.close()
        self.settle()
        pixels = self.viewer.window.screenshot(flash=False, canvas_only=False)
        save(Image.fromarray(np.asarray(pixels)[..., :3]), path)

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        self.settle(0.2)


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG of bounded size: with a palette, of fewer colors where need be."""
    for colors in (256, 192, 128, 96, 64):
        small = picture.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
        if path.stat().st_size <= LIMIT:
            break
    print(f"{path}  {picture.width}×{picture.height}, {path.stat().st_size // 1000} kB")


def first_minutes(folder: Path) -> None:
    """Deblur: the sample, a preview of its middle, the result, and both beside a swipe line."""
    window = Window("mitochondria", "Deblur")
    window.write(folder / "first-open.png")
    window.zoom(2.2, (300, 385))
    window.press(window.dock.preview)
    # The outline of what was restored, and some of the source around it.
    window.zoom(0.72)
    window.write(folder / "first-preview.png")
    window.press(window.dock.restore)
    window.write(folder / "deblur.png")
    window.dock.looks["Swipe line"].trigger()
    window.write(folder / "compare-swipe.png")
    window.close()


def dehaze(folder: Path) -> None:
    """Dehaze: a preview of the middle of a photograph in fog."""
    window = Window("pagoda", "Dehaze")
    window.zoom(1.5)
    window.press(window.dock.preview)
    window.viewer.reset_view()
    window.write(folder / "dehaze.png")
    window.close()


def motion(folder: Path) -> None:
    """Motion deblur: a photograph, with the path that was found."""
    window = Window("raccoon", "Motion deblur")
    window.press(window.dock.restore)
    window.write(folder / "motion-deblur.png")
    window.close()


#: A microscope, as a layer's metadata may record it.
_OPTICS = {"na": 0.5, "wavelength": "600 nm", "refractive_index": 1.0}
_PIXEL = 0.2


#: Another, whose aperture is small.
_SMALL = _OPTICS | {"na": 0.25}


def _seen(optics: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Mitochondria as a microscope sees them."""
    from napari_restore import Optics

    kernel = Optics(pixel_size=_PIXEL, **optics).psf()
    array, options = load_sample("mitochondria")
    light = _blurred(array.astype(np.float32), kernel)
    scale = {"scale": (_PIXEL,) * 2, "units": ("micrometer",) * 2}
    seen = np.random.default_rng(0).poisson(light.clip(0)).astype(np.uint16)
    return seen, {**options, **scale, "metadata": {"optics": optics}}


def _blurred(image: Any, kernel: Any) -> Any:
    import torch

    from napari_restore.physics.psf import convolve

    tensor = torch.from_numpy(image)[None, None]
    return convolve(tensor, torch.from_numpy(kernel)[None])[0, 0].numpy()


def psf_optics(folder: Path) -> None:
    """Deblur: a micrograph out of focus, with optics from its metadata."""
    window = Window(_seen(_OPTICS | {"defocus": 2.5}), "Deblur")
    window.dock.controls.psf.source.value = "from optics"
    window.zoom(2.2, (300, 385))
    window.press(window.dock.restore)
    window.write(folder / "psf-optics.png")
    window.close()


def psf_beads(folder: Path) -> None:
    """Deblur: a micrograph, with the PSF of an image of beads."""
    from napari_restore import Optics

    kernel = Optics(pixel_size=_PIXEL, **_SMALL).psf()
    rng = np.random.default_rng(1)
    points = np.zeros((400, 400), np.float32)
    points[tuple(rng.integers(30, 370, (2, 14)))] = 60000
    noisy = rng.poisson(_blurred(points, kernel).clip(0) + 50).astype(np.uint16)
    array, options = _seen(_SMALL)
    window = Window((array, options), "Deblur")
    cells = window.viewer.layers[0]
    place = {name: options[name] for name in ("scale", "units")}
    beads = window.viewer.add_image(noisy, name="beads", **place)
    window.viewer.layers.move(1, 0)
    window.viewer.layers.selection = {cells}
    window.dock.controls.psf.source.value = "beads in layer"
    window.dock.controls.psf.layer.value = beads
    window.zoom(2.2, (300, 385))
    window.press(window.dock.restore)
    window.dock.add_psf()
    window.viewer.layers[-1].visible = False
    window.write(folder / "psf-beads.png")
    window.close()


def train(folder: Path) -> None:
    """Train a model: planes of a stack as sharp images, an example of the degradation, a short run.

    The library and the trainings are those of a folder that is thrown away.
    """
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()
    window = Window("chest_ct", "Train a model")
    dock = window.dock
    dock.sharp.add_selected()
    dock.name.value = "chest CT"
    dock.minutes.value = 2
    dock.show_example()
    window.write(folder / "train-example.png")
    dock.train()
    window.wait(lambda: dock.project is not None and dock.project.status.ended)
    dock.look()
    window.write(folder / "train-run.png")
    window.close()


def model_library(folder: Path) -> None:
    """Model library: what ships, and the card of one model."""
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()
    window = Window("mitochondria", "Model library")
    window.dock.select("denoise-mono")
    window.write(folder / "models.png")
    window.close()


PICTURES = {
    "deblur": first_minutes,
    "dehaze": dehaze,
    "motion": motion,
    "psf-optics": psf_optics,
    "psf-beads": psf_beads,
    "train": train,
    "models": model_library,
}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images", metavar="FOLDER")
    parser.add_argument("--only", choices=PICTURES, nargs="+", default=list(PICTURES))
    args = parser.parse_args()
    # One pixel of the picture for each of the screen, whatever the desktop's settings.
    os.environ["QT_ENABLE_HIGHDPI_SCALING"] = "0"
    os.environ["QT_SCALE_FACTOR"] = "1"
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        PICTURES[name](args.output)


if __name__ == "__main__":
    main()
