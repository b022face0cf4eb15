"""The button "Check" of a dock: how far to trust the result that is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_restore.errors import ImageError, RestoreError

from .canvas import visible_block
from .compare import comparison_of
from .jobs import side_of_pixel
from .layers import METADATA_KEY, place_of_part
from .lineage import source_of
from .stacking import insert_on_top

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.qt.threading import GeneratorWorker

    from napari_restore.evaluation.check_report import Check

    from .session import Session

#: Longest side of what is checked, in pixels.
_SIDE = 1024


class CheckRow(QWidget):
    """Buttons that check the result that is selected, and save the report.

    Parameters
    ----------
    session : Session
        Of the dock; its runner does the work, so Cancel ends it.

    Attributes
    ----------
    found : Check or None
        The last.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.found: Check | None = None
        self.check_button = QPushButton("Check")
        self.check_button.setToolTip(
            "Says how far to trust the selected result: a map of likely errors, three sentences, "
            "and a report. Select a third image too to compare with the truth."
        )
        self.report_button = QPushButton("Save report …")
        self.report_button.setToolTip("Save the last check as one HTML file.")
        self.report_button.setEnabled(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.check_button, 1)
        row.addWidget(self.report_button, 1)
        self.check_button.clicked.connect(lambda: self.check())
        self.report_button.clicked.connect(lambda: self.save())

    def check(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start a check in a thread, and return its worker; None if that is refused."""
        try:
            return self._start()
        except RestoreError as error:
            show_error(str(error))
            return None

    def save(self, path: str | None = None) -> None:
        """Write the last report; without a path, ask where."""
        if self.found is None:
            return
        if path is None:
            path, _ = QFileDialog.getSaveFileName(
                self, "Save the report", "check.html", "HTML (*.html)"
            )
        if not path:
            return
        try:
            self.found.save(path)
        except RestoreError as error:
            show_error(str(error))

    def _start(self) -> GeneratorWorker[Any, Any, Any]:
        from napari_restore.evaluation.check import check

        self._session.runner.refuse_if_running()
        viewer = self._session.viewer
        source, result, truth = _chosen(viewer)
        record = _provenance(result)
        options: dict[str, Any] = {
            "provenance": record or None,
            "axes": record.get("axes"),
            "rgb": None if record.get("axes") else bool(source.rgb),
            "pixel_size": _pixel_size(source),
            "reference": None if truth is None else _array(truth),
        }
        try:
            block = visible_block(source, viewer.dims, _SIDE)
        except ImageError:
            # What is not seen is chosen by its structure.
            block = ()
        if block:
            rows, columns = block[-2:]
            options["index"] = [part.start for part in block[:-2]]
            options["region"] = (rows.start, columns.start, rows.stop, columns.stop)
        arrays = _array(source), _array(result)

        def work() -> Any:
            try:
                return check(*arrays, **options)
            except RestoreError as error:
                return error

        return self._session.runner.start(
            work, f"Checking '{result.name}'", 1, lambda found: self._show(found, source, result)
        )

    def _show(self, found: Check | RestoreError, source: Image, result: Image) -> str:
        """Add the map over the source, and say the three sentences."""
        if isinstance(found, RestoreError):
            show_error(str(found))
            return str(found)
        self.found = found
        self.report_button.setEnabled(True)
        viewer = self._session.viewer
        if source in viewer.layers:
            # What was selected stays so: it can be checked or restored again.
            chosen = set(viewer.layers.selection)
            insert_on_top(viewer, [_error_layer(found, source, result)])
            viewer.layers.selection = chosen & set(viewer.layers)
        return "\n".join(found.sentences)


def _chosen(viewer: Any) -> tuple[Image, Image, Image | None]:
    """Source, result, and the truth if three images are selected."""
    layers, chosen = viewer.layers, viewer.layers.selection
    images = [x for x in layers if x in chosen and isinstance(x, Image)]
    if len(images) < 3:
        return (*comparison_of(viewer).pair(), None)
    results = [x for x in images if _provenance(x)]
    if len(images) > 3 or len(results) != 1:
        raise RestoreError(
            f"{len(images)} images are selected, {len(results)} of them results. Select a result, "
            "or the image, its result and the truth."
        )
    source = source_of(results[0], layers)
    rest = [x for x in images if x is not results[0] and x is not source]
    if source is None or len(rest) != 1:
        raise RestoreError(
            f"The image that '{results[0].name}' was made from is not among the selected ones. "
            "Select it, its result and the truth."
        )
    return source, results[0], rest[0]


def _provenance(layer: Image) -> Mapping[str, Any]:
    record: Mapping[str, Any] = layer.metadata.get(METADATA_KEY, {})
    return record if "task" in record else {}


def _array(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _pixel_size(layer: Image) -> str | None:
    size, unit = side_of_pixel({"scale": layer.scale, "units": layer.units})
    return None if unit == "px" else f"{size} {unit}"


def _error_layer(found: Check, source: Image, result: Image) -> Image:
    """Map in the place of what was checked."""
    top, left, _, _ = found.region
    offset = np.array([*found.index, top, left][-source.ndim :], float)
    place = place_of_part(source, offset)
    data = found.error.reshape((1,) * (source.ndim - 2) + found.error.shape)
    return Image(
        data,
        name=f"{result.name} [{found.meaning}]",
        scale=source.scale,
        translate=place,
        rotate=source.rotate,
        shear=source.shear,
        affine=source.affine.affine_matrix,
        units=source.units,
        axis_labels=source.axis_labels,
        colormap="inferno",
        contrast_limits=(0, max(float(np.quantile(found.error, 0.99)), 1e-9)),
        metadata={
            METADATA_KEY: {
                "shows": found.meaning,
                "source": source.name,
                "result": result.name,
                "sentences": list(found.sentences),
                "figures": {group: dict(each) for group, each in found.figures.items()},
                "notes": list(found.notes),
            }
        },
    )
