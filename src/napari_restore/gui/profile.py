"""Line profile: values of two images along a line of a Shapes layer, as they change."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from scipy.ndimage import map_coordinates
from vispy import scene

from napari_restore.errors import RestoreError
from napari_restore.image.layout import is_lazy

from .canvas import shown_plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import Dims, ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

_LINE = "profile line"
#: Colors of source and result, which color-blind people can tell apart.
_COLORS = ("#56b4e9", "#e69f00")
#: Samples along a line; fewer where each is asked of napari.
_MOST, _MOST_LAZY = 2000, 200
#: Milliseconds between two pictures while a line is dragged.
_PAUSE = 40


def values_along(
    layer: Image, dims: Dims, ends: NDArray[Any], count: int | None = None
) -> NDArray[np.float64]:
    """Values of the shown plane of a layer along a line.

    Parameters
    ----------
    layer : napari.layers.Image
        Of color images the mean of red, green and blue.
    dims : napari.components.Dims
        Of the viewer.
    ends : ndarray, (2, 2)
        Row and column of both ends, in the viewer's coordinates.
    count : int, optional
        How many; without it, one for each pixel.

    Returns
    -------
    ndarray
        Interpolated linearly, NaN outside of the image. Of lazy layers what the canvas shows is
        taken, from the nearest pixel: nothing is computed.
    """
    points = np.tile(np.asarray(dims.point, float), (2, 1))
    points[:, -2:] = ends
    world = points[:, -layer.ndim :]
    inside = np.array([layer.world_to_data(point) for point in world])
    lazy = is_lazy(layer.data[0] if layer.multiscale else layer.data)
    steps = number_of_samples(inside, _MOST_LAZY if lazy else _MOST) if count is None else count
    if lazy:
        return _as_shown(layer, np.linspace(world[0], world[1], steps))
    index = shown_plane(layer, dims)
    if index is None:
        return np.full(steps, np.nan)
    data = layer.data[0] if layer.multiscale else layer.data
    plane = np.asarray(data[index])
    rows, columns = np.linspace(inside[0, -2:], inside[1, -2:], steps).T
    # Only the part around the line becomes floats.
    top, left = (max(0, int(np.floor(x.min()))) for x in (rows, columns))
    bottom, right = (max(0, int(np.ceil(x.max()))) + 2 for x in (rows, columns))
    part = plane[top:bottom, left:right].astype(np.float64)
    part = part[..., :3].mean(axis=-1) if layer.rgb else part
    if not part.size:
        return np.full(steps, np.nan)
    places = np.array([rows - top, columns - left])
    values: NDArray[np.float64] = map_coordinates(part, places, order=1, mode="nearest")
    height, width = plane.shape[:2]
    outside = (rows < -0.5) | (rows > height - 0.5) | (columns < -0.5) | (columns > width - 0.5)
    values[outside] = np.nan
    return values


def number_of_samples(inside: NDArray[Any], most: int) -> int:
    """One for each pixel between two ends, in pixels of the data."""
    return int(np.clip(np.ceil(np.linalg.norm(np.subtract(*inside[:, -2:]))) + 1, 2, most))


def _as_shown(layer: Image, points: NDArray[Any]) -> NDArray[np.float64]:
    values = []
    for point in points:
        value = layer.get_value(point, world=True)
        value = value[1] if layer.multiscale and isinstance(value, tuple) else value
        values.append(np.nan if value is None else float(np.mean(np.atleast_1d(value)[:3])))
    return np.array(values)


def length_of(layer: Image, ends: NDArray[Any]) -> tuple[float, str]:
    """Length of a line of the viewer, and its unit: that of the layer."""
    unit = f"{layer.units[-1]:~P}"
    if unit in ("", "px", "pixel"):
        inside = np.array(ends) / np.abs(np.asarray(layer.scale[-2:]))
        return float(np.linalg.norm(inside[1] - inside[0])), "px"
    return float(np.linalg.norm(ends[1] - ends[0])), unit


class Profile(QWidget):
    """Plot of two images along the line that was drawn, or selected, last.

    It is drawn with vispy, as napari's own histogram is: napari always brings it, and it keeps pace
    with the mouse.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    images : sequence of napari.layers.Image
        One or two.
    """

    def __init__(self, viewer: ViewerModel, images: Sequence[Image]) -> None:
        super().__init__()
        self.viewer, self.images = viewer, list(images)
        #: Distances, values of each image, and the unit of the distances, as they are shown.
        self.shown: tuple[NDArray[Any], list[NDArray[Any]], str] | None = None
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setWordWrap(True)
        self._build_plot()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.text)
        layout.addWidget(self._canvas.native, 1)
        self.setMinimumHeight(150)
        self.lines = self._line_layer()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self.refresh)
        for event in self._events():
            event.connect(self._soon)
        self.destroyed.connect(self.close_profile)
        self.refresh()

    def _build_plot(self) -> None:
        self._canvas = scene.SceneCanvas(keys=None, bgcolor="#1f2125", size=(400, 140))
        grid = self._canvas.central_widget.add_grid(margin=4, spacing=0)
        looks = {"axis_color": "#808080", "text_color": "#d0d0d0", "font_size": 8}
        looks |= {"tick_label_margin": 12, "axis_label_margin": 34, "minor_tick_length": 0}
        self._axes = [
            scene.AxisWidget(orientation=side, axis_width=1, tick_width=1, **looks)
            for side in ("left", "bottom")
        ]
        self._axes[0].width_max = self._axes[0].width_min = 62
        self._axes[1].height_max = self._axes[1].height_min = 30
        right = scene.Widget()
        right.width_max = right.width_min = 14
        grid.add_widget(self._axes[0], row=0, col=0)
        grid.add_widget(self._axes[1], row=1, col=1)
        grid.add_widget(right, row=0, col=2)
        self._view = grid.add_view(row=0, col=1, border_color="#404040")
        self._view.camera = scene.PanZoomCamera()
        self._view.camera.interactive = False
        for axis in self._axes:
            axis.link_view(self._view)
        self._curves = [
            scene.Line(np.zeros((2, 2)), color=color, parent=self._view.scene, width=1.5)
            for color in _COLORS
        ]

    def _line_layer(self) -> Shapes:
        """Shapes layer with the line; a new one with a line across the view if there is none."""
        layers = self.viewer.layers
        for layer in reversed(layers):
            if isinstance(layer, Shapes) and "line" in layer.shape_type:
                return layer
        chosen = set(layers.selection)
        image = self.images[0]
        corners = np.array(image.corner_pixels, float)[:, -2:]
        shape = (image.data[0] if image.multiscale else image.data).shape
        if image.multiscale:
            corners *= np.asarray(image.downsample_factors)[image.data_level][-2:]
        if not corners.any():
            corners = np.array([(0, 0), shape[image.ndim - 2 : image.ndim]], float)
        height, width = corners[1] - corners[0]
        middle = corners.mean(axis=0)
        ends = middle + np.array([(0.0, -0.3 * width), (0.0, 0.3 * width)])
        lines = Shapes(
            [ends],
            shape_type="line",
            name=_LINE,
            edge_color="yellow",
            edge_width=max(1.0, min(height, width) / 300),
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=image.units[-2:],
        )
        layers.append(lines)
        lines.mode = "select"
        lines.selected_data = {0}
        layers.selection = chosen
        return lines

    def _events(self) -> list[Any]:
        events = [self.viewer.dims.events.point, self.lines.events.set_data]
        events += [self.lines.events.data, self.lines.events.highlight]
        for image in self.images:
            events += [image.events.set_data, image.events.data, image.events.name]
        return events

    def _soon(self, _: Any = None) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def close_profile(self, _: Any = None) -> None:
        """Let go of the layers."""
        for event in self._events():
            event.disconnect(self._soon)

    def refresh(self) -> None:
        """Show the values as they are now."""
        places = [i for i, kind in enumerate(self.lines.shape_type) if kind in ("line", "path")]
        selected = [i for i in self.lines.selected_data if i in places]
        if not places:
            self._say("Draw a line in a Shapes layer.")
            return
        vertices = self.lines.data[selected[-1] if selected else places[-1]]
        ends = np.array([self.lines.data_to_world(x)[-2:] for x in vertices[[0, -1]]], float)
        length, unit = length_of(self.images[0], ends)
        dims = self.viewer.dims
        first = values_along(self.images[0], dims, ends)
        values = [first, *(values_along(x, dims, ends, len(first)) for x in self.images[1:])]
        distances = np.linspace(0, length, len(first))
        self.shown = distances, values, unit
        names = " &nbsp; ".join(
            f'<span style="color: {color}">━</span> {escape(image.name)}'
            for color, image in zip(_COLORS, self.images, strict=False)
        )
        self._say(f"{names} &nbsp; <span style='color: #a0a0a0'>(gray values along {unit})</span>")
        self._draw(distances, values, unit)

    def _draw(self, distances: NDArray[Any], values: list[NDArray[Any]], unit: str) -> None:
        known = np.concatenate([x[np.isfinite(x)] for x in values])
        if not known.size:
            self._say("The line lies outside of the image.")
            return
        for curve, each in zip(self._curves, values, strict=False):
            curve.set_data(np.stack([distances, each], axis=-1))
        low, high = float(known.min()), float(known.max())
        margin = 0.05 * (high - low) or 1.0
        self._view.camera.set_range(
            (0, distances[-1] or 1), (low - margin, high + margin), margin=0
        )
        self._canvas.update()

    def _say(self, text: str) -> None:
        self.text.setText(text)


def show_profile(viewer: ViewerModel, images: Sequence[Image]) -> Profile:
    """Open the plot in a dock of its own beneath the canvas, in place of an earlier one."""
    window = getattr(viewer, "window", None)
    if window is None:
        raise RestoreError("A line profile needs napari's window.")
    name = "Line profile"
    if name in getattr(window, "dock_widgets", {}):
        window.remove_dock_widget(window.dock_widgets[name])
    profile = Profile(viewer, images)
    window.add_dock_widget(profile, name=name, area="bottom")
    return profile
