"""The dock: controls over a `Session`."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, FloatSlider, FloatSpinBox
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_restore.core.device import available_devices
from napari_restore.errors import RestoreError
from napari_restore.models.catalog import CATALOG

from .describe import describe, title
from .layers import pixel_size
from .session import Options, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.viewer
    from napari.qt.threading import GeneratorWorker

    from napari_restore.core.protocol import Progress

    from .tasks import Face


_STRUCTURE_TIP = (
    "Single-channel images: structures up to this size stay, and only light that is smoother is "
    "removed. auto leaves it to the network."
)
_REMOVED_TIP = (
    "Add a layer: of single-channel images the light that was removed, of colour images the share "
    "of the light that came through the haze."
)


class RestoreWidget(QWidget):
    """Restore the selected image layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Or a ``ViewerModel`` where there is no window.
    face : Face
        Which of the three docks this is.
    """

    #: Devices, once torch has been imported: that takes a second, in a thread.
    devices: ClassVar[tuple[str, ...]] = ()
    _search: ClassVar[Future[tuple[str, ...]] | None] = None

    def __init__(self, viewer: napari.viewer.Viewer, face: Face) -> None:
        super().__init__()
        self.face = face
        self.session = Session(viewer, face.task)
        self._problem = ""
        self._build()
        self._connect()
        self.refresh()
        if not self.devices:
            self._find_devices()

    # ------------------------------------------------------------ what scripts and buttons call

    def restore(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start restoring the selected layers, and return the worker; None if that is refused."""
        return self._try(self.session.restore)

    def preview(self) -> GeneratorWorker[Any, Any, Any] | None:
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
            structure_size=self.structure_size.value or None,
            show_removed=self.show_removed.value,
            hide_source=self.hide_source.value,
        )

    def _try(
        self, start: Callable[[Options], GeneratorWorker[Any, Any, Any]]
    ) -> GeneratorWorker[Any, Any, Any] | None:
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
        # magicgui turns values into widgets and back; the rows are laid out here.
        self.strength = FloatSlider(value=1.0, min=0.0, max=1.0, step=0.05)
        self.model = ComboBox(choices=models)
        self.device = ComboBox(choices=["auto", *self.devices])
        self.tile = ComboBox(choices=["auto", 128, 256, 512, 1024, 2048])
        self.hide_source = CheckBox(value=False, text="Hide the source")
        self.structure_size = FloatSpinBox(value=0, min=0, max=1e6, step=1)
        self.show_removed = CheckBox(value=False, text="Show what was removed")
        for control, tip in (
            (self.strength, "0 keeps the image as it is, 1 is the full restoration."),
            (self.model, "auto: the colour model for RGB layers, the mono model for all others."),
            (self.device, "auto: a GPU if there is one."),
            (self.tile, "Side in pixels of what is computed at a time. Smaller takes less memory."),
            (self.hide_source, "Hide the source layers once they are restored."),
            (self.structure_size, _STRUCTURE_TIP),
            (self.show_removed, _REMOVED_TIP),
        ):
            control.tooltip = tip
        purpose = QLabel(self.face.purpose)
        self.name = QElidingLabel()
        font = self.name.font()
        font.setBold(True)
        self.name.setFont(font)
        self.summary = QLabel()
        self.status = QLabel()
        for label in (purpose, self.summary, self.status):
            label.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.progress_bar = QProgressBar()
        for widget in (self.progress_bar, self.status):
            widget.setVisible(False)

        self.preview_button = QPushButton("Preview")
        self.preview_button.setToolTip("Restore only what the canvas shows now.")
        self.restore_button = QPushButton("Restore")
        self.restore_button.setToolTip("Restore the selected layers whole, as new layers.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop; the layers stay as they were.")
        buttons = QHBoxLayout()
        for button in (self.preview_button, self.restore_button, self.cancel_button):
            buttons.addWidget(button)

        main = QFormLayout()
        main.addRow("Strength", self.strength.native)
        if self.face.removes_light:
            self.structure_size.native.setSpecialValueText("auto")
            main.addRow("Keep up to", self.structure_size.native)
            main.addRow(self.show_removed.native)
        more = QWidget()
        form = QFormLayout(more)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, control in (("Model", self.model), ("Device", self.device), ("Tile", self.tile)):
            form.addRow(text, control.native)
        form.addRow("", self.hide_source.native)
        self.advanced_button = QPushButton()
        self.advanced_button.setStyleSheet("text-align: left; background: transparent;")
        self._advanced = more
        self.show_advanced(False)

        layout = QVBoxLayout(self)
        rows = (purpose, self.name, self.summary, main, buttons)
        for row in (*rows, self.progress_bar, self.status, self.advanced_button, more):
            layout.addWidget(row) if isinstance(row, QWidget) else layout.addLayout(row)
        layout.addStretch()
        self.setMinimumWidth(260)

    def show_advanced(self, shown: bool) -> None:
        """Fold the controls under "Advanced" in or out."""
        self._advanced.setVisible(shown)
        self.advanced_button.setText(("▾" if shown else "▸") + " Advanced")

    def _connect(self) -> None:
        self.preview_button.clicked.connect(lambda: self.preview())
        self.restore_button.clicked.connect(lambda: self.restore())
        self.cancel_button.clicked.connect(lambda: self.cancel())
        self.advanced_button.clicked.connect(lambda: self.show_advanced(self._advanced.isHidden()))
        for control in (self.model, self.device, self.tile, self.structure_size):
            control.changed.connect(lambda _: self.refresh())
        session, runner = self.session, self.session.runner
        session.changed.connect(self.refresh)
        runner.started.connect(self._on_started)
        runner.progressed.connect(self._on_progress)
        runner.ended.connect(self._on_ended)

        def let_go() -> None:
            # Qt deletes the widget before Python does; from here on nobody may call it.
            for signal in (session.changed, runner.started, runner.progressed, runner.ended):
                signal.disconnect()
            session.close()

        self.destroyed.connect(let_go)

    def _find_devices(self) -> None:
        """Import torch and look for a GPU while the user looks at the dock."""
        if RestoreWidget._search is None:
            RestoreWidget._search = ThreadPoolExecutor(1).submit(available_devices)
        timer = QTimer(self)
        timer.timeout.connect(lambda: self._on_devices(timer))
        timer.start(50)

    def _on_devices(self, timer: QTimer) -> None:
        search = RestoreWidget._search
        if search is None or not search.done():
            return
        timer.stop()
        try:
            RestoreWidget.devices = search.result()
        except (RestoreError, ImportError) as error:
            self._problem = str(error)
        self.refresh()

    # ------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Say what a run would do to the selected layers."""
        if self.devices and len(self.device.choices) == 1:
            self.device.choices = ["auto", *self.devices]
        name, text, possible = "", self._problem, False
        if not text and not self.devices:
            text = "Looking for a GPU …"
        elif not text:
            try:
                jobs = self.session.jobs(self.options)
                name, text = title(jobs), describe(jobs, self.session.rates)
                possible = True
            except RestoreError as error:
                text = str(error)
        if self.face.removes_light:
            self._name_unit()
        self.name.setText(name)
        self.name.setVisible(bool(name))
        self.summary.setText(text)
        running = self.session.running
        self.preview_button.setEnabled(possible and not running)
        self.restore_button.setEnabled(possible and not running)
        self.cancel_button.setEnabled(running)

    def _name_unit(self) -> None:
        """Say in which unit the size of structures is: that of the topmost selected layer."""
        sources = self.session.sources()
        side, unit = 1.0, "px"
        if sources:
            side, unit = pixel_size({"scale": sources[-1].scale, "units": sources[-1].units})
        control = self.structure_size.native
        control.setSuffix(f" {unit}")
        # As fine as one pixel, but never coarser than what is entered.
        digits = min(12, max(0, math.ceil(-math.log10(side))))
        if round(control.value(), digits) == control.value():
            control.setDecimals(digits)
            control.setSingleStep(10.0**-digits)

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def _on_started(self, message: str) -> None:
        self._say(message)
        self.progress_bar.setRange(0, 0)
        self.progress_bar.setVisible(True)
        self.refresh()

    def _on_progress(self, step: Progress) -> None:
        if step.done:
            self.progress_bar.setRange(0, 1000)
            self.progress_bar.setValue(round(1000 * step.done / step.total))
        if step.message:
            self._say(step.message)

    def _on_ended(self, message: str) -> None:
        self.progress_bar.setVisible(False)
        self._say(message)
        self.refresh()
