"""A line over napari's canvas that can be dragged: one image is drawn left of it, one right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QLabel, QWidget
from vispy.visuals.filters import Clipper

if TYPE_CHECKING:
    from napari.layers import Image

#: Width in pixels of the screen of what can be dragged.
_WIDTH = 23
_LABEL = "background: rgba(0, 0, 0, 170); color: white; padding: 2px 6px; border-radius: 3px;"
#: Pixels of the screen between line and names, and between names and the upper edge.
_GAP, _TOP = 8, 8


class SwipeLine(QWidget):
    """Clips what the canvas draws of two layers, so that it works for all that napari draws.

    No image is copied or composed: lazy, multiscale and 3D layers are drawn as ever, and the line
    stays where it is while the image moves beneath it.

    Parameters
    ----------
    qt_viewer : napari's widget of a viewer
    first, second : napari.layers.Image
        Left and right of the line.
    """

    def __init__(self, qt_viewer: Any, first: Image, second: Image) -> None:
        self._canvas = qt_viewer.canvas
        native = self._canvas.native
        super().__init__(native)
        self.share = 0.5
        self._layers = (first, second)
        self._clippers = (Clipper(), Clipper())
        self._attached: tuple[list[Any], list[Any]] = ([], [])
        self._labels = [QLabel(layer.name, native) for layer in self._layers]
        for label in self._labels:
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setStyleSheet(_LABEL)
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            label.show()
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip("Drag the line.")
        native.installEventFilter(self)
        # Nodes are other ones in 3D, and for other samples: those that draw are found before that.
        self._canvas._scene_canvas.events.draw.connect(self._attach, position="first")
        for layer in self._layers:
            layer.events.name.connect(self._place)
        self._place()
        self.show()
        self.raise_()

    def remove(self) -> None:
        """Draw both layers whole again."""
        self._canvas._scene_canvas.events.draw.disconnect(self._attach)
        for layer in self._layers:
            layer.events.name.disconnect(self._place)
        for clipper, nodes in zip(self._clippers, self._attached, strict=True):
            for node in nodes:
                node.detach(clipper)
        self._canvas.native.removeEventFilter(self)
        for widget in (*self._labels, self):
            widget.hide()
            widget.deleteLater()
        self._canvas._scene_canvas.update()

    def move_to(self, share: float) -> None:
        """Move the line; 0 is the left edge of the canvas, 1 the right one."""
        self.share = min(max(share, 0.0), 1.0)
        self._place()

    def _place(self, _: Any = None) -> None:
        native = self._canvas.native
        x = round(self.share * native.width())
        self.setGeometry(x - _WIDTH // 2, 0, _WIDTH, native.height())
        room = (x, native.width() - x)
        for layer, label, space in zip(self._layers, self._labels, room, strict=True):
            label.setText(layer.name)
            label.adjustSize()
            label.setVisible(label.width() + 2 * _GAP <= space)
        self._labels[0].move(x - _GAP - self._labels[0].width(), _TOP)
        self._labels[1].move(x + _GAP, _TOP)
        # In pixels of the frame buffer, which may be finer than those of the window.
        width, height = self._canvas._scene_canvas.physical_size
        edge = self.share * width
        self._clippers[0].bounds = (0, 0, edge, height)
        self._clippers[1].bounds = (edge, 0, width - edge, height)
        self._canvas._scene_canvas.update()

    def _attach(self, _: Any = None) -> None:
        for layer, clipper, attached in zip(
            self._layers, self._clippers, self._attached, strict=True
        ):
            visual = self._canvas.layer_to_visual.get(layer)
            if visual is None:
                continue
            # Large images are drawn as tiles.
            nodes = list(getattr(visual.node, "adopted_children", None) or [visual.node])
            if nodes == attached:
                continue
            for node in attached:
                node.detach(clipper)
            for node in nodes:
                node.attach(clipper)
            attached[:] = nodes

    # ------------------------------------------------------------ Qt's

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Follow the size of the canvas."""
        if event.type() == QEvent.Type.Resize:
            self._place()
        return False

    def mousePressEvent(self, event: Any) -> None:
        """Begin to drag: what is beneath does not get it."""
        event.accept()

    def mouseMoveEvent(self, event: Any) -> None:
        """Drag."""
        native = self._canvas.native
        x = self.mapTo(native, QPoint(round(event.position().x()), 0)).x()
        self.move_to(x / max(1, native.width()))
        event.accept()

    def paintEvent(self, event: Any) -> None:
        """Draw a bright line with a dark rim, which is seen on any image, and a handle."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        x, y = self.width() / 2, self.height() / 2
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(0, 0, 0, 150))
        painter.drawRect(round(x - 2), 0, 4, self.height())
        painter.setBrush(QColor(255, 255, 255))
        painter.drawRect(round(x - 1), 0, 2, self.height())
        painter.setPen(QPen(QColor(0, 0, 0, 150), 1))
        painter.drawEllipse(round(x - 9), round(y - 9), 18, 18)
        painter.setPen(QPen(QColor(60, 60, 60), 2))
        for side in (-1, 1):
            tip = round(x + 6 * side)
            painter.drawLine(tip, round(y), tip - 3 * side, round(y - 3))
            painter.drawLine(tip, round(y), tip - 3 * side, round(y + 3))
