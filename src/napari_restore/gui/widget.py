"""The dock: controls over a `Session`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSlider
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_restore.core.device import available_devices, import_torch
from napari_restore.errors import RestoreError
from napari_restore.models.catalog import CATALOG

from .session import Options, Session

if TYPE_CHECKING:
    import napari.viewer
    from napari.qt.threading import FunctionWorker, GeneratorWorker

    from napari_restore.core.protocol import Progress

    from .tasks import Face


class RestoreWidget(QWidget):
    """Restore the selected image layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Or a ``ViewerModel`` where there is no window.
    face : Face
        Which of the three docks this is.
    """

    def __init__(self, viewer: napari.viewer.Viewer, face: Face) -> None:
        super().__init__()
        self.face = face
        self.session = Session(viewer, face.task)
        self._build()
        self._connect()
        self.refresh()
        if "torch" not in sys.modules:
            self._load_torch()

    # ------------------------------------------------------------ what scripts and buttons call

    def restore(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start restoring the selected layers, and return the worker; None if that is refused."""
        return self._try(self.session.restore)

    def preview(self) -> FunctionWorker[Any] | None:
        """Start a preview of what the canvas shows; as `restore`."""
        return self._try(self.session.preview)

    def cancel(self) -> None:
        """Stop what is running; the viewer stays as it was."""
        self.session.cancel()
        self.cancel_button.setEnabled(False)

    @property
    def options(self) -> Options:
        """What the controls say."""
        return Options(
            model=self.model.value,
            device=self.device.value,
            tile=self.tile.value,
            strength=self.strength.value,
            hide_source=self.hide_source.value,
        )

    def _try(self, start: Any) -> Any:
        try:
            return start(self.options)
        except RestoreError as error:
            show_error(str(error))
            return None

    def event(self, event: Any) -> bool:
        """Notice the end of the dock: napari takes the widget out of it and may keep it."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.session.abandon()
        return bool(super().event(event))

    # ------------------------------------------------------------ building

    def _build(self) -> None:
        models = ["auto", *(spec.name for spec in CATALOG if spec.task == self.face.task)]
        self.strength = FloatSlider(
            value=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            label="Strength",
            tooltip="0 keeps the image as it is, 1 is the full restoration.",
        )
        self.model = ComboBox(
            choices=models,
            label="Model",
            tooltip="auto: the colour model for RGB layers, the mono model for all others.",
        )
        self.device = ComboBox(
            choices=["auto"], label="Device", tooltip="auto: a GPU if there is one."
        )
        self.tile = ComboBox(
            choices=["auto", 128, 256, 512, 1024, 2048],
            label="Tile",
            tooltip="Side in pixels of what is computed at a time. Smaller takes less memory.",
        )
        self.hide_source = CheckBox(
            value=False, text="Hide the source", label="", tooltip="Hide the layers once restored."
        )
        purpose = QLabel(self.face.purpose)
        self.summary = QLabel()
        self.status = QLabel()
        for label in (purpose, self.summary, self.status):
            label.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.progress_bar = QProgressBar()
        self.progress_bar.setVisible(False)

        self.preview_button = QPushButton("Preview")
        self.preview_button.setToolTip("Restore only what the canvas shows now.")
        self.restore_button = QPushButton("Restore")
        self.restore_button.setToolTip("Restore the selected layers whole, as new layers.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop; the layers stay as they were.")
        buttons = QHBoxLayout()
        for button in (self.preview_button, self.restore_button, self.cancel_button):
            buttons.addWidget(button)

        main = Container(widgets=[self.strength], labels=True)
        more = Container(
            widgets=[self.model, self.device, self.tile, self.hide_source], labels=True
        )
        for container in (main, more):
            container.margins = (0, 0, 0, 0)
        self.advanced = QCollapsible("Advanced", expandedIcon="▼", collapsedIcon="▶")
        self.advanced.setDuration(0)
        self.advanced.addWidget(more.native)
        # The containers own their Qt widgets; without a reference they would go.
        self._containers = (main, more)

        layout = QVBoxLayout(self)
        for widget in (purpose, self.summary, main.native):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        for widget in (self.progress_bar, self.status, self.advanced):
            layout.addWidget(widget)
        layout.addStretch()
        self.setMinimumWidth(260)

    def _connect(self) -> None:
        session = self.session
        self.preview_button.clicked.connect(lambda: self.preview())
        self.restore_button.clicked.connect(lambda: self.restore())
        self.cancel_button.clicked.connect(lambda: self.cancel())
        for control in (self.model, self.device, self.tile):
            control.changed.connect(lambda _: self.refresh())
        session.started.connect(self._on_started)
        session.progressed.connect(self._on_progress)
        session.ended.connect(self._on_ended)
        selection = session.viewer.layers.selection.events
        selection.changed.connect(self.refresh)

        def let_go() -> None:
            # Qt deletes the widget before Python does; from here on nobody may call it.
            selection.changed.disconnect(self.refresh)
            for signal in (session.started, session.progressed, session.ended):
                signal.disconnect()
            session.close()

        self.destroyed.connect(let_go)

    def _load_torch(self) -> None:
        """Import torch in a thread while the user looks at the dock: it takes a second or two."""
        worker = create_worker(import_torch, _start_thread=False)
        worker.returned.connect(lambda _: self.refresh())
        worker.start()

    # ------------------------------------------------------------ showing

    def refresh(self, event: object = None) -> None:
        """Say what a run would do to the selected layers."""
        running, possible = self.session.running, False
        if "torch" not in sys.modules:
            text = "Looking for a GPU …"
            possible = bool(self.session.sources())
        else:
            if len(self.device.choices) == 1:
                self.device.choices = ["auto", *available_devices()]
            try:
                text = self.session.describe(self.session.plans(self.options))
                possible = True
            except RestoreError as error:
                text = str(error)
        self.summary.setText(text)
        self.preview_button.setEnabled(possible and not running)
        self.restore_button.setEnabled(possible and not running)
        self.cancel_button.setEnabled(running)

    def _on_started(self, message: str) -> None:
        self.status.setText(message)
        self.progress_bar.setRange(0, 0)
        self.progress_bar.setVisible(True)
        self.refresh()

    def _on_progress(self, step: Progress) -> None:
        if step.done:
            self.progress_bar.setRange(0, 1000)
            self.progress_bar.setValue(round(1000 * step.done / step.total))
        if step.message:
            self.status.setText(step.message)

    def _on_ended(self, message: str) -> None:
        self.progress_bar.setVisible(False)
        self.status.setText(message)
        self.refresh()
