"""The docks: controls over a `Session`."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QAction, QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_restore.errors import RestoreError
from napari_restore.runtime import available_devices

from .adapt import AdaptRow
from .check import CheckRow
from .compare import HOLD_KEY, Comparison, comparison_of, hold_key
from .controls import Controls
from .describe import describe, title
from .jobs import LayerJob
from .models import LIBRARY
from .more import More, lasting
from .options import DEBLUR, DEHAZE, DENOISE, MOTION_DEBLUR
from .psf_controls import PsfPicture, psf_layer
from .remembered import known_settings
from .session import Session, end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari.viewer
    from napari.layers import Image
    from napari.qt.threading import GeneratorWorker

    from napari_restore.runtime import Progress

    from .options import DockConfig, DockOptions


class RestoreWidget(QWidget):
    """Restore the selected image layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Or a ``ViewerModel`` where there is no window.
    face : DockConfig
        Which of the docks this is.
    """

    #: Devices, once torch has been imported: that takes a second, in a thread.
    devices: ClassVar[tuple[str, ...]] = ()
    _search: ClassVar[Future[tuple[str, ...]] | None] = None

    def __init__(self, viewer: napari.viewer.Viewer, face: DockConfig) -> None:
        super().__init__()
        self.face = face
        self.session = Session(viewer, face.task)
        self._settings = known_settings()
        self._problem = ""
        self._psf_of: Image | None = None
        self._build()
        self.controls.set_values(lasting(self._settings.last(face.task)))
        self._connect()
        self.refresh()
        if not self.devices:
            self._find_devices()

    # ------------------------------------------------------------ what scripts and buttons call

    def restore(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start restoring the selected layers, and return the worker; None if that is refused."""
        return self._try(lambda options: self.session.restore(options, self.controls.values))

    def preview(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start a preview of what the canvas shows; as `restore`."""
        return self._try(self.session.preview)

    def preview_docks(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start a preview of what the canvas shows in each of the docks; as `restore`."""
        return self._try(self.session.preview_docks)

    def compare(self, look: Callable[[Comparison], Any]) -> None:
        """Compare what is selected, as a method of `Comparison` does, and say what is shown."""
        try:
            said = look(comparison_of(self.session.viewer))
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            return
        if said:
            self._say(said)

    def cancel(self) -> None:
        """Stop what is running; the viewer stays as it was."""
        self.session.cancel()
        self.cancel_button.setEnabled(False)

    def remember(self) -> None:
        """Keep the controls as they are for the next dock of this kind, and the next napari."""
        self._settings.keep_last(self.face.task, lasting(self.controls.values))

    def open_sample(self) -> None:
        """Open an image that shows what the dock does."""
        self.session.viewer.open_sample("napari-restore", self.face.sample)

    @property
    def options(self) -> DockOptions:
        """What the controls say."""
        return self.controls.options

    def _try(
        self, start: Callable[[DockOptions], GeneratorWorker[Any, Any, Any]]
    ) -> GeneratorWorker[Any, Any, Any] | None:
        try:
            return start(self.options)
        except RestoreError as error:
            # napari's message has one line and goes away.
            self._say("" if self.summary.text() == str(error) else str(error))
            show_error(str(error))
            return None

    def event(self, event: Any) -> bool:
        """Notice the end of the dock: napari takes the widget out of it and may keep it."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.remember()
            self.more.close()
            self.session.abandon()
        return bool(super().event(event))

    # ------------------------------------------------------------ building

    def _build(self) -> None:
        self.controls = Controls(self.face, self.devices)
        purpose = QLabel(self.face.purpose)
        self.name = QElidingLabel()
        font = self.name.font()
        font.setBold(True)
        self.name.setFont(font)
        self.summary = QLabel()
        self.status = QLabel()
        for label in (purpose, self.name, self.summary, self.status):
            # Names of layers are no HTML.
            label.setTextFormat(Qt.TextFormat.PlainText)
        for label in (purpose, self.summary, self.status):
            label.setWordWrap(True)
            # Long words, such as paths, are cut and do not widen the dock.
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        for widget in (self.progress_bar, self.status):
            widget.setVisible(False)

        self.preview_button = QPushButton("Preview")
        self.preview_button.setToolTip("Restore only what the canvas shows now.")
        self.restore_button = QPushButton("Restore")
        self.restore_button.setToolTip("Restore the selected layers whole, as new layers.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop; the layers stay as they were.")
        self.psf_picture = PsfPicture()
        buttons = QHBoxLayout()
        for button in (self.preview_button, self.restore_button, self.cancel_button):
            buttons.addWidget(button)

        self._build_compare()
        self.check_row = CheckRow(self.session)
        self.adapt_row = AdaptRow(self.session, self.controls, self._say)
        self.adapt_row.setVisible(self.face.undoes_blur)

        main = QFormLayout()
        more = QWidget()
        self.controls.fill(main, QFormLayout(more))
        self.advanced_button = QPushButton()
        self.advanced_button.setStyleSheet("text-align: left; background: transparent;")
        self._advanced = more
        self.show_advanced(False)

        # Several docks fit a small screen: what has no room is scrolled to.
        inside = QWidget()
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inside)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(area)
        layout = QVBoxLayout(inside)
        rows = (
            purpose,
            self.name,
            self.summary,
            self.sample_button,
            main,
            self.psf_picture,
            buttons,
            self._compare_row,
            self.check_row,
            self.adapt_row,
        )
        for row in (*rows, self.progress_bar, self.status, self.advanced_button, more):
            layout.addWidget(row) if isinstance(row, QWidget) else layout.addLayout(row)
        layout.addStretch()
        # Nothing scrolls sideways: a row of buttons has to fit.
        self.setMinimumWidth(max(260, inside.minimumSizeHint().width()))

    def _build_compare(self) -> None:
        self.compare_button = QPushButton("Compare")
        self.compare_button.setToolTip("See the difference between source and result.")
        menu = QMenu(self.compare_button)
        self.looks: dict[str, QAction] = {}
        looks: tuple[tuple[str, str, Callable[[], Any]] | None, ...] = (
            ("Swipe line", "swipe", lambda: self.compare(Comparison.swipe)),
            ("Side by side", "side by side", lambda: self.compare(Comparison.side_by_side)),
            ("Preview of all docks", "docks", self.preview_docks),
            None,
            ("Difference as a layer", "", lambda: self.compare(Comparison.difference)),
            ("Line profile", "", lambda: self.compare(Comparison.profile)),
            None,
            ("End comparison", "end", lambda: self.compare(Comparison.stop)),
        )
        for look in looks:
            if look is None:
                menu.addSeparator()
                continue
            name, mode, start = look
            action = self.looks[name] = QAction(name, menu)
            menu.addAction(action)
            action.setData(mode)
            action.setCheckable(mode not in ("", "end"))
            action.triggered.connect(lambda _, start=start: self._look(start))
        self.compare_button.setMenu(menu)
        self.source_button = QPushButton("Source")
        self.source_button.setToolTip(
            f"Shows the source while it is held down, or the key {HOLD_KEY} over the canvas."
        )
        self.more = More(self, self.face, self.session, self.controls, self._settings, self._say)
        self.live_box = QCheckBox("Live")
        self.live_box.setToolTip(
            "Restore what the canvas shows as you pan, zoom, move through slices and change "
            "controls."
        )
        self._compare_row = QHBoxLayout()
        self._compare_row.addWidget(self.live_box)
        self._compare_row.addWidget(self.compare_button, 1)
        self._compare_row.addWidget(self.source_button, 1)
        self._compare_row.addWidget(self.more.button, 1)
        self.sample_button = QPushButton("Open a sample")
        self.sample_button.setToolTip("An image that shows what this dock does.")

    def _look(self, start: Callable[[], Any]) -> None:
        start()
        # A click on the look that is on has taken the mark away.
        self._show_mode()

    def _on_live(self, on: bool) -> None:
        if on == self.session.live.on:
            return  # the box follows what a script did
        if not on:
            self.session.live.stop()
            return
        try:
            self.session.go_live(lambda: self.options)
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            self._show_live(False)

    def _show_live(self, on: bool) -> None:
        if self.live_box.isChecked() != on:
            self.live_box.setChecked(on)

    def _show_mode(self) -> None:
        mode = comparison_of(self.session.viewer).mode
        for action in self.looks.values():
            action.setChecked(bool(mode) and action.data() == mode)
        self.looks["End comparison"].setEnabled(bool(mode))

    def show_advanced(self, shown: bool) -> None:
        """Fold the controls under "Advanced" in or out."""
        self._advanced.setVisible(shown)
        self.advanced_button.setText(("▾" if shown else "▸") + " Advanced")

    def _connect(self) -> None:
        self.preview_button.clicked.connect(lambda: self.preview())
        self.restore_button.clicked.connect(lambda: self.restore())
        self.cancel_button.clicked.connect(lambda: self.cancel())
        self.psf_picture.button.clicked.connect(lambda: self.add_psf())
        for signal, down in (
            (self.source_button.pressed, True),
            (self.source_button.released, False),
        ):
            signal.connect(lambda down=down: self.compare(lambda shown: shown.hold(down)))
        self.advanced_button.clicked.connect(lambda: self.show_advanced(self._advanced.isHidden()))
        live = self.session.live
        self.live_box.toggled.connect(self._on_live)
        live.switched.connect(self._show_live)
        live.said.connect(self._say)
        self.sample_button.clicked.connect(self.open_sample)
        self.controls.all_channels.clicked.connect(self.session.select_channels)
        # Many change at once when a preset is taken.
        self._memory_timer = QTimer(self)
        self._memory_timer.setSingleShot(True)
        self._memory_timer.timeout.connect(self.remember)
        for control in self.controls.all().values():
            control.changed.connect(lambda _: self._memory_timer.start(100))
        for control in self.controls.deciding():
            control.changed.connect(lambda _: self.refresh())
            control.changed.connect(live.soon)
        # Many come while the slider moves.
        self._strength_timer = QTimer(self)
        self._strength_timer.setSingleShot(True)
        # Timers call methods: what holds a dock that is gone would be called once more.
        self._strength_timer.timeout.connect(self._set_strength)
        self.controls.strength.changed.connect(lambda _: self._strength_timer.start(20))
        session, runner = self.session, self.session.runner
        session.changed.connect(self.refresh)
        LIBRARY.changed.connect(self.refresh)
        comparison = comparison_of(session.viewer)
        comparison.changed.connect(self._show_mode)
        self._show_mode()
        session.viewer.bind_key(HOLD_KEY, hold_key(comparison), overwrite=True)
        session.viewer.bind_key("Escape", lambda viewer: end(viewer), overwrite=True)
        # The canvas hears keys while it has the focus; the dock has its own.
        escape = QShortcut(QKeySequence("Escape"), self)
        escape.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        escape.activated.connect(lambda: end(session.viewer))
        runner.started.connect(self._on_started)
        runner.progressed.connect(self._on_progress)
        runner.ended.connect(self._on_ended)

        more = self.more

        def let_go() -> None:
            # Qt deletes the widget before Python does; from here on nobody may call it.
            for signal in (session.changed, runner.started, runner.progressed, runner.ended):
                signal.disconnect()
            comparison.changed.disconnect(self._show_mode)
            LIBRARY.changed.disconnect(self.refresh, missing_ok=True)
            more.close()
            live.switched.disconnect()
            live.said.disconnect()
            session.close()

        self.destroyed.connect(let_go)

    def _set_strength(self) -> None:
        self.session.set_strength(self.controls.strength.value)

    def _find_devices(self) -> None:
        """Import torch and look for a GPU while the user looks at the dock."""
        if RestoreWidget._search is None:
            RestoreWidget._search = ThreadPoolExecutor(1).submit(available_devices)
        self._devices_timer = QTimer(self)
        self._devices_timer.timeout.connect(self._on_devices)
        self._devices_timer.start(50)

    def _on_devices(self) -> None:
        search = RestoreWidget._search
        if search is None or not search.done():
            return
        self._devices_timer.stop()
        try:
            RestoreWidget.devices = search.result()
        except (RestoreError, ImportError) as error:
            self._problem = str(error)
        self.refresh()

    # ------------------------------------------------------------ showing

    def refresh(self) -> None:
        """Say what a run would do to the selected layers."""
        device = self.controls.device
        if self.devices and len(device.choices) == 1:
            device.choices = ["auto", *self.devices]
        self.controls.suit(self.session.sources(), self.session.viewer.layers)
        name, text, possible, jobs = "", self._problem, False, list[LayerJob]()
        if not text and not self.devices:
            text = "Looking for a GPU …"
        elif not text:
            try:
                jobs = self.session.jobs(self.options)
                name, text = title(jobs), describe(jobs, self.session.rates)
                possible = True
            except RestoreError as error:
                text = str(error)
        running = self.session.running
        if not running:
            # What runs goes on showing what it is about.
            self.name.setText(name)
            self.summary.setText(text)
            self._show_psf(jobs)
        self.name.setVisible(bool(self.name.text()))
        self.preview_button.setEnabled(possible and not running)
        self.restore_button.setEnabled(possible and not running)
        self.cancel_button.setEnabled(running)
        self.adapt_row.suit(possible)
        channels = self.session.channels()
        self.controls.all_channels.setText(f"All {len(channels)} channels")
        chosen = set(self.session.sources())
        self.controls.all_channels.setVisible(bool(channels) and not chosen.issuperset(channels))
        self.sample_button.setVisible(not self.session.viewer.layers)
        self.more.suit()

    def _show_psf(self, jobs: Sequence[LayerJob]) -> None:
        """Show the point spread function of the topmost selected layer, as far as it is known."""
        job = jobs[-1] if jobs else None
        blur = None if job is None else self.session.blur_of(job)
        if blur is not None:
            self.psf_picture.show_psf(blur.psf, blur.statement, blur.doubt)
        elif job is not None and job.plan.psfs:
            self.psf_picture.show_psf(job.plan.psfs[0], job.plan.psfs[0].found)
        else:
            self.psf_picture.show_psf(None)
        self._psf_of = None if job is None else job.layer

    def add_psf(self) -> None:
        """Add the point spread function that is shown as a layer; the selection stays."""
        psf, source, layers = self.psf_picture.psf, self._psf_of, self.session.viewer.layers
        if psf is None or source is None:
            return
        chosen = set(layers.selection)
        layers.append(psf_layer(psf, self.psf_picture.text.text(), source))
        layers.selection = chosen

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def _on_started(self, message: str) -> None:
        self._say(message)
        self.name.setText(self.session.target)
        self.progress_bar.setValue(0)
        self.progress_bar.setVisible(True)
        self.refresh()

    def _on_progress(self, step: Progress) -> None:
        # Never a busy indicator: it would be drawn all the time, and the whole window with it.
        self.progress_bar.setValue(round(1000 * step.done / max(1, step.total)))
        if step.message:
            self._say(step.message)

    def _on_ended(self, message: str) -> None:
        self.progress_bar.setVisible(False)
        self._say(message)
        self.refresh()


class DeblurWidget(RestoreWidget):
    """Dock that removes defocus and optical blur."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, DEBLUR)


class DehazeWidget(RestoreWidget):
    """Dock that removes haze, smoke and out-of-focus light."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, DEHAZE)


class MotionDeblurWidget(RestoreWidget):
    """Dock that removes motion blur."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, MOTION_DEBLUR)


class DenoiseWidget(RestoreWidget):
    """Dock that removes noise."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, DENOISE)
