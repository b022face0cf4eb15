"""Plot of a training: PSNR of the held-out images, and loss, over the minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Colors of PSNR and loss, which color-blind people can tell apart.
_PSNR, _LOSS = "#56b4e9", "#e69f00"


class Curve(QWidget):
    """Two lines with axes of their own: PSNR on the left, loss on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.psnr: list[tuple[float, float]] = []
        self.loss: list[tuple[float, float]] = []
        self.start: float | None = None
        self._minutes = 1.0
        self.setMinimumHeight(140)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "PSNR of the held-out images (blue), dashed that of the model it began with; and the "
            "loss (orange)."
        )

    def show_rows(
        self, rows: Sequence[dict[str, float]], start: float | None, minutes: float
    ) -> None:
        """Show the figures of validations.

        Parameters
        ----------
        rows : sequence of dict
            With ``minutes``, ``output`` and ``loss``.
        start : float or None
            PSNR in dB of the weights that it began with.
        minutes : float
            In all.
        """
        known = [row for row in rows if np.isfinite(row.get("output", np.nan))]
        begun = [] if start is None else [(0.0, start)]
        self.psnr = begun + [(row["minutes"], row["output"]) for row in known]
        self.loss = [(row["minutes"], row["loss"]) for row in known if "loss" in row]
        self.start, self._minutes = start, max(minutes, 1e-3)
        self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw both lines."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        metrics = painter.fontMetrics()
        left, right = (
            metrics.horizontalAdvance("00.0 dB") + 4,
            metrics.horizontalAdvance("-0.00") + 4,
        )
        line = metrics.height()
        frame = QRectF(left, line, self.width() - left - right, self.height() - 2.4 * line)
        painter.setPen(QPen(ink, 1))
        painter.drawRect(frame)
        painter.drawText(QPointF(left, self.height() - 0.3 * line), "0")
        end = f"{self._minutes:g} min"
        place = frame.right() - metrics.horizontalAdvance(end)
        painter.drawText(QPointF(place, self.height() - 0.3 * line), end)
        self._draw(painter, frame, self.psnr, _PSNR, "{:.1f} dB", 0.0)
        self._draw(painter, frame, self.loss, _LOSS, "{:.2f}", frame.right() + 4)
        painter.end()

    def _draw(
        self,
        painter: QPainter,
        frame: QRectF,
        points: Sequence[tuple[float, float]],
        color: str,
        form: str,
        labels: float,
    ) -> None:
        if not points:
            return
        values = [value for _, value in points]
        low, high = min(values), max(values)
        room = max(0.1 * (high - low), 0.05)
        low, high = low - room, high + room

        def at(minutes: float, value: float) -> QPointF:
            x = frame.left() + frame.width() * min(1.0, minutes / self._minutes)
            return QPointF(x, frame.bottom() - frame.height() * (value - low) / (high - low))

        painter.setPen(QPen(QColor(color), 1))
        line = painter.fontMetrics().height()
        painter.drawText(QPointF(labels, frame.top() + 0.8 * line), form.format(high))
        painter.drawText(QPointF(labels, frame.bottom()), form.format(low))
        if color == _PSNR and self.start is not None:
            painter.setPen(QPen(QColor(color), 1, Qt.PenStyle.DashLine))
            painter.drawLine(at(0, self.start), at(self._minutes, self.start))
        painter.setPen(QPen(QColor(color), 2))
        painter.drawPolyline(QPolygonF([at(*point) for point in points]))
        for point in points:
            painter.drawEllipse(at(*point), 2, 2)
