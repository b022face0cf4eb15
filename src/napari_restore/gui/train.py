"""Dock that trains a model further on own images; the training is a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit
from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_restore.errors import RestoreError
from napari_restore.models.library import check_name, free_name
from napari_restore.training.projects import (
    KEEP,
    PAUSE,
    Project,
    Settings,
    all_projects,
    projects_folder,
)

from .curve import Curve
from .describe import duration
from .models import LIBRARY
from .runner import Runner
from .work import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import napari.viewer
    from numpy.typing import NDArray

    from napari_restore.training.data import SharpImage
    from napari_restore.training.projects import Status

_NEW = "new training"
_SHARP, _PAIRS = "sharp images", "pairs of low and high quality"
#: Milliseconds between two looks at a training, and after a change before the example is made.
_LOOK, _SOON = 1000, 300
#: Most planes of a layer that are taken.
_MOST_PLANES = 48
_BUSY = ("preparing", "training", "validating")


# ---------------------------------------------------------------- layers and processes


def write_layers(layers: Sequence[tuple[str, Any, bool]], folder: Path) -> None:
    """Write the planes of layers into a folder, as a training reads them.

    Parameters
    ----------
    layers : sequence of (name, array, rgb)
        Of stacks, up to 48 planes spread evenly.
    folder : Path
        Is made.
    """
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    for number, (_, array, rgb) in enumerate(layers):
        before = array.shape[: array.ndim - (3 if rgb else 2)]
        count = int(np.prod(before, dtype=int))
        chosen = np.linspace(0, count - 1, min(count, _MOST_PLANES)).round().astype(int)
        for index in sorted(set(chosen.tolist())):
            plane = np.asarray(array[np.unravel_index(index, before)] if before else array)
            name = f"layer{number:03d}_plane{index:04d}.tif"
            tifffile.imwrite(folder / name, _plain(plane, rgb))


def _plain(plane: NDArray[Any], rgb: bool) -> NDArray[Any]:
    if rgb:
        plane = plane[..., :3]
        if plane.dtype.kind == "f":
            plane = (255 * np.nan_to_num(plane).clip(0, 1)).round().astype(np.uint8)
        return plane
    if plane.dtype.kind == "f":
        known = np.isfinite(plane)
        plane = np.where(known, plane, np.median(plane[known]) if known.any() else 0)
        return plane.astype(np.float32)
    return plane.astype(np.uint8) if plane.dtype.kind == "b" else plane


def as_source(layer: Image) -> tuple[str, Any, bool]:
    """Name, array at full resolution, and whether it is color."""
    return layer.name, layer.data[0] if layer.multiscale else layer.data, bool(layer.rgb)


def start_process(project: Project) -> subprocess.Popen[bytes]:
    """Train, or go on, in a process that outlives napari."""
    words = [sys.executable, "-m", "napari_restore.cli", "train", "--quiet"]
    words += ["--continue", project.settings.name]
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    try:
        with (project.folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **apart
            )
    except OSError as error:
        raise RestoreError(
            f"The training could not be started ({error}). From a shell: napari-restore train "
            f"--continue '{project.settings.name}'"
        ) from error


# ---------------------------------------------------------------- what images are chosen


class Sources(QWidget):
    """Layers and folders that were chosen, and buttons to choose them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    title : str
    changed : callable
        Called after every change.
    """

    def __init__(self, viewer: Any, title: str, changed: Callable[[], None]) -> None:
        super().__init__()
        self._viewer, self._changed = viewer, changed
        self.layers: list[Image] = []
        self.folders: list[str] = []
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setWordWrap(True)
        self.text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        heading = QLabel(title)
        self.buttons = {}
        row = QHBoxLayout()
        for name, do, tip in (
            ("Add layers", self.add_selected, "Take the selected image layers."),
            ("Add a folder …", self.ask_folder, "Take all images of a folder."),
            ("Clear", self.clear, "Take nothing."),
        ):
            self.buttons[name] = QPushButton(name)
            self.buttons[name].setToolTip(tip)
            self.buttons[name].clicked.connect(partial(_call, do))
            row.addWidget(self.buttons[name])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading)
        layout.addWidget(self.text)
        layout.addLayout(row)
        self._show()

    def add_selected(self) -> None:
        """Take the selected image layers, in their order in the list."""
        chosen = set(self._viewer.layers.selection)
        found = [layer for layer in self._viewer.layers if layer in chosen]
        for layer in found:
            if isinstance(layer, Image) and layer not in self.layers:
                self.layers.append(layer)
        if not any(isinstance(layer, Image) for layer in found):
            show_error("Select one or more image layers in napari's list of layers.")
        self._show()

    def add_folder(self, folder: str | Path) -> None:
        """Take all images of a folder."""
        if str(folder) not in self.folders:
            self.folders.append(str(folder))
        self._show()

    def ask_folder(self) -> None:
        """Ask for a folder."""
        folder = QFileDialog.getExistingDirectory(self, "Folder of images")
        if folder:
            self.add_folder(folder)

    def clear(self) -> None:
        """Take nothing."""
        self.layers, self.folders = [], []
        self._show()

    def _show(self) -> None:
        names = [f"layer {layer.name}" for layer in self.layers] + self.folders
        more = f"\n… and {len(names) - 6} more" if len(names) > 6 else ""
        self.text.setText("\n".join(names[:6]) + more if names else "none yet")
        self.buttons["Clear"].setEnabled(bool(names))
        self._changed()

    def __bool__(self) -> bool:
        return bool(self.layers or self.folders)


# ---------------------------------------------------------------- the dock


class TrainWidget(QWidget):
    """Dock that trains a model further.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Or a ``ViewerModel`` where there is no window.
    """

    #: Processes that this napari has started, by the name of the training.
    _processes: ClassVar[dict[str, subprocess.Popen[bytes]]] = {}

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.project: Project | None = None
        self.runner = Runner()
        self._draw = 0
        self._shown: tuple[Any, ...] = ()
        self._told: set[str] = set()
        self._build()
        self._example_timer = QTimer(self)
        self._example_timer.setSingleShot(True)
        self._example_timer.timeout.connect(self.show_example)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(_LOOK)
        self._connect()
        self._list_projects()
        going = [each for each in all_projects() if not each.status.ended]
        self.choose(going[0].settings.name if going else _NEW)

    # ------------------------------------------------------------ building

    def _build(self) -> None:
        self.training = ComboBox(choices=[_NEW])
        self.training.tooltip = "A new training, or one to look at and to continue."
        self.base = ComboBox(choices=self._bases(), value="deblur-mono")
        self.base.tooltip = (
            "The model to begin with: mono for single-channel images, color for RGB."
        )
        self.kind = ComboBox(choices=[_SHARP, _PAIRS])
        self.as_trained = CheckBox(value=True, text="Blur and noise as the model was trained")
        self.blur = _spins(1.0, 3.0, 10.0, 0.1, "Standard deviation in pixels: least and most.")
        self.noise = _spins(0.5, 5.0, 50.0, 0.1, "Standard deviation in % of the range.")
        self.minutes = FloatSpinBox(value=15, min=0.1, max=10000, step=5)
        self.minutes.tooltip = "Time to train. You can stop earlier and keep the best."
        self.name = LineEdit(value="")
        self.name.native.setPlaceholderText("such as nuclei 40x")
        self.sharp = Sources(self.viewer, "Sharp images", self._soon)
        self.low = Sources(self.viewer, "Images of low quality", self._soon)
        self.high = Sources(self.viewer, "The same places in high quality", self._soon)
        self.example = QLabel()
        self.example_text = _text()
        self.again_button = QPushButton("Another example")
        self.train_button = QPushButton("Train")
        purpose = _text()
        purpose.setText("Trains a model further on your own images.")

        self.new_panel = QWidget()
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Begin with", self.base.native)
        form.addRow("Learn from", self.kind.native)
        self._choices = QFormLayout()
        self._choices.addRow(self.as_trained.native)
        self._blur_row, self._noise_row = _pair(*self.blur), _pair(*self.noise)
        self._choices.addRow("Blur, px", self._blur_row)
        self._choices.addRow("Noise, %", self._noise_row)
        end = QFormLayout()
        end.addRow("Minutes", self.minutes.native)
        end.addRow("Name", self.name.native)
        rows = QVBoxLayout(self.new_panel)
        rows.setContentsMargins(0, 0, 0, 0)
        for row in (form, self.sharp, self.low, self.high, self._choices):
            rows.addWidget(row) if isinstance(row, QWidget) else rows.addLayout(row)
        rows.addWidget(self.example)
        rows.addWidget(self.example_text)
        rows.addWidget(self.again_button)
        rows.addLayout(end)
        rows.addWidget(self.train_button)

        self.run_panel = QWidget()
        self.title, self.state, self.warning = _text(), _text(), _text()
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.warning.setStyleSheet("color: #e69f00;")
        self.curve = Curve()
        self.pictures = QLabel()
        self.pictures_text = _text()
        self.pictures_text.setText(
            "A place of a held-out image: as it was, restored with the training so far, and true."
        )
        self.pause_button = QPushButton("Pause")
        self.keep_button = QPushButton("Stop and keep the best")
        self.discard_button = QPushButton("Discard")
        self.keep_button.setToolTip("End the training; the best weights so far go to the library.")
        self.discard_button.setToolTip("Delete the training. Models of the library stay.")
        buttons = QHBoxLayout()
        for button in (self.pause_button, self.keep_button, self.discard_button):
            buttons.addWidget(button)
        rows = QVBoxLayout(self.run_panel)
        rows.setContentsMargins(0, 0, 0, 0)
        shown = (self.title, self.state, self.warning, self.curve, self.pictures)
        for part in (*shown, self.pictures_text):
            rows.addWidget(part)
        rows.addLayout(buttons)

        self.status = _text()
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
        layout.addWidget(purpose)
        layout.addWidget(self.training.native)
        for widget in (self.new_panel, self.run_panel, self.status):
            layout.addWidget(widget)
        layout.addStretch()
        self.setMinimumWidth(max(300, inside.minimumSizeHint().width()))

    def _connect(self) -> None:
        self.training.changed.connect(self.choose)
        for control in (self.base, self.kind, self.as_trained, *self.blur, *self.noise):
            control.changed.connect(lambda _: self._soon())
        self.again_button.clicked.connect(self._another)
        self.train_button.clicked.connect(partial(self._try, self.train))
        self.pause_button.clicked.connect(partial(self._try, self.pause_or_continue))
        self.keep_button.clicked.connect(partial(self._try, self.keep))
        self.discard_button.clicked.connect(partial(self._try, self.ask_discard))
        self.runner.ended.connect(self._on_prepared)

        runner = self.runner

        def let_go() -> None:
            runner.ended.disconnect()
            runner.abandon()

        self.destroyed.connect(let_go)

    def _bases(self) -> list[str]:
        from napari_restore.models import catalog

        names = []
        for task in catalog.TASKS:
            bundled = [s for s in catalog.CATALOG if s.task == task and s.frames == 1]
            names += [*(spec.name for spec in bundled), *catalog.own_names(task, told=False)]
        return names

    def _list_projects(self) -> None:
        names = [project.settings.name for project in all_projects()]
        if list(self.training.choices) != [_NEW, *names]:
            with self.training.changed.blocked():
                self.training.choices = [_NEW, *names]

    def _try(self, do: Callable[[], Any], _: bool = False) -> None:
        try:
            do()
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    # ------------------------------------------------------------ a new one

    def choose(self, name: str) -> None:
        """Show a training, or what it takes to begin a new one."""
        self._list_projects()
        self.project = None
        if name != _NEW:
            try:
                self.project = Project.load(name)
            except RestoreError as error:
                self._say(str(error))
        shown = _NEW if self.project is None else name
        if self.training.value != shown:
            with self.training.changed.blocked():
                self.training.value = shown
        self._say("")
        self._shown = ()
        self._suit()
        self.look()

    def _suit(self) -> None:
        new, pairs = self.project is None, self.kind.value == _PAIRS
        self.new_panel.setVisible(new)
        self.run_panel.setVisible(not new)
        if not new:
            return
        bases = self._bases()
        if list(self.base.choices) != bases:
            self.base.choices = bases
        self.sharp.setVisible(not pairs)
        self.low.setVisible(pairs)
        self.high.setVisible(pairs)
        task = self._task
        shown = not pairs and task in ("deblur", "denoise")
        _set_row(self._choices, self.as_trained.native, shown)
        chosen = shown and not self.as_trained.value
        _set_row(self._choices, self._blur_row, chosen and task == "deblur")
        _set_row(self._choices, self._noise_row, chosen)
        ready = (bool(self.low) and bool(self.high)) if pairs else bool(self.sharp)
        self.train_button.setEnabled(ready and not self.runner.running)
        example = not pairs and bool(self.sharp)
        for widget in (self.example, self.example_text, self.again_button):
            widget.setVisible(example)

    @property
    def _task(self) -> str:
        from napari_restore.models.library import find_entry

        try:
            return find_entry(self.base.value).spec.task
        except RestoreError:
            return ""

    @property
    def settings(self) -> Settings:
        """What the controls say, but for the folders."""
        pairs, task = self.kind.value == _PAIRS, self._task
        chosen = not (pairs or self.as_trained.value) and task in ("deblur", "denoise")
        blur = (self.blur[0].value, self.blur[1].value) if chosen and task == "deblur" else None
        noise = (self.noise[0].value / 100, self.noise[1].value / 100) if chosen else None
        name = self.name.value.strip() or free_name(f"my {self.base.value}")
        return Settings(name, self.base.value, minutes=self.minutes.value, blur=blur, noise=noise)

    def _soon(self) -> None:
        if hasattr(self, "_example_timer"):
            self._suit()
            self._example_timer.start(_SOON)

    def _another(self) -> None:
        self._draw += 1
        self.show_example()

    def show_example(self) -> None:
        """Show what becomes of a sharp image before it is trained on."""
        from napari_restore.training.fine_tuning import example_of

        if self.project is not None or not self.sharp or self.kind.value == _PAIRS:
            return
        try:
            image = self._one_sharp()
            pictures = example_of(self.settings, image, self._draw)
        except RestoreError as error:
            self.example.clear()
            self.example_text.setText(str(error))
            return
        self.example.setPixmap(_pixmap(pictures))
        self.example_text.setText(f"{image.name}: as the model will see it, and as it should be.")

    def _one_sharp(self) -> SharpImage:
        from napari_restore.training.data import as_training_image, load_first

        channels = 3 if self.base.value.endswith("color") else self._channels()
        if self.sharp.layers:
            name, array, rgb = as_source(self.sharp.layers[self._draw % len(self.sharp.layers)])
            before = array.shape[: array.ndim - (3 if rgb else 2)]
            middle = tuple(length // 2 for length in before)
            plane = _plain(np.asarray(array[middle] if before else array), rgb)
            return as_training_image(plane, name, channels)
        return load_first(self.sharp.folders, channels, self._draw)

    def _channels(self) -> int:
        from napari_restore.models.library import find_entry

        return find_entry(self.base.value).spec.channels

    def train(self) -> None:
        """Begin the training that the controls describe.

        Raises
        ------
        RestoreError
            If something is missing.
        """
        settings = self.settings
        name = check_name(settings.name)
        if any(project.settings.name == name for project in all_projects()):
            raise RestoreError(
                f"There is a training '{name}' already. Choose it above, or another name."
            )
        folder = projects_folder() / name
        parts = {"low": self.low, "high": self.high}
        if self.kind.value == _SHARP:
            parts = {"sharp": self.sharp}
        sources = {key: [as_source(x) for x in part.layers] for key, part in parts.items()}
        folders = {key: list(part.folders) for key, part in parts.items()}
        for key, layers in sources.items():
            if layers:
                folders[key].append(str(folder / key))

        def prepare() -> Project:
            given: dict[str, Any] = {key: tuple(part) for key, part in folders.items()}
            whole = replace(settings, name=name, **given)
            whole.checked()
            for key, layers in sources.items():
                if layers:
                    write_layers(layers, folder / key)
            return Project.create(whole)

        self.runner.start(partial(attempt, prepare), "Writing the images", 0, self._begin)
        self._say("Writing the images …")
        self.train_button.setEnabled(False)

    def _begin(self, outcome: Outcome) -> str:
        if outcome.error is not None:
            if not isinstance(outcome.error, RestoreError):
                raise outcome.error
            show_error(str(outcome.error))
            return str(outcome.error)
        project = outcome.result
        self.start(project)
        self.choose(project.settings.name)
        return ""

    def _on_prepared(self, text: str) -> None:
        self._say(text)
        self._suit()

    # ------------------------------------------------------------ one that runs

    def start(self, project: Project) -> None:
        """Train in a process, from where it is."""
        self._processes[project.settings.name] = start_process(project)

    def pause_or_continue(self) -> None:
        """Pause a training that runs, or go on with one that does not."""
        project = self._chosen()
        if self._runs(project):
            project.wish(PAUSE)
            self._say("It pauses after this step.")
        else:
            self.start(project)
            self._say("")
        self.look()

    def keep(self) -> None:
        """End the training, and keep the best weights."""
        project = self._chosen()
        project.wish(KEEP)
        if not self._runs(project):
            self.start(project)
        self._say("It ends after this step.")
        self.look()

    def ask_discard(self) -> None:
        """Ask whether to delete the training, and do."""
        project = self._chosen()
        if not project.status.ended:
            answer = QMessageBox.question(
                self, "Discard", f"Delete the training '{project.settings.name}'?"
            )
            if answer != QMessageBox.StandardButton.Yes:
                return
        self.discard()

    def discard(self) -> None:
        """Delete the training; models of the library stay."""
        self._chosen().discard()
        self.choose(_NEW)

    def _chosen(self) -> Project:
        if self.project is None:
            raise RestoreError("Choose a training.")
        return self.project

    def _runs(self, project: Project) -> bool:
        process = self._processes.get(project.settings.name)
        # What another napari has started is known by its lock.
        return (process is not None and process.poll() is None) or project.running

    def look(self) -> None:
        """See how far the training is, and show it."""
        if self.project is None:
            return
        project, status = self.project, self.project.status
        runs = self._runs(project) if not status.ended else False
        if not runs and status.state == "paused" and project.wished() == KEEP:
            # It was ending while it was asked.
            self.start(project)
            runs = True
        self.title.setText(f"{project.settings.name}, from {project.settings.model}")
        self.state.setText(self._said(project, status, runs))
        self.warning.setText(status.warning)
        self.warning.setVisible(bool(status.warning))
        self.pause_button.setText("Pause" if runs else "Continue")
        self.pause_button.setEnabled(not status.ended)
        self.keep_button.setEnabled(not status.ended and status.best is not None)
        self.discard_button.setEnabled(not runs)
        curve = project.curve
        state = (len(curve), status.start, project.settings.name, status.step if not curve else 0)
        if state != self._shown:
            self._shown = state
            self.curve.show_rows(curve, status.start, project.settings.minutes)
            example = project.example
            self.pictures.setVisible(example is not None)
            self.pictures_text.setVisible(example is not None)
            if example is not None:
                self.pictures.setPixmap(_pixmap(example))
        if status.result and status.result not in self._told:
            self._told.add(status.result)
            LIBRARY.changed.emit()

    def _said(self, project: Project, status: Status, runs: bool) -> str:
        process = self._processes.get(project.settings.name)
        ended = process is not None and process.poll() is not None
        if not runs and ended and status.state == "new":
            return f"It could not be started: {_last_line(project)}"
        if runs and status.state not in _BUSY:
            return "Starting …"
        if status.state == "training":
            words = [f"Step {status.step}"]
            if status.left:
                words.append(f"{duration(status.left, 'about ')} left")
            if status.best is not None and status.start is not None:
                words.append(f"{status.best - status.start:+.2f} dB on {status.held_out} held out")
            goes = "It goes on if napari is closed."
            return f"{', '.join(words)}. {status.message or goes}"
        return status.message or {"new": "Not begun.", "paused": "Paused."}.get(status.state, "")


def _last_line(project: Project) -> str:
    try:
        text = (project.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said."


def _pixmap(pictures: NDArray[np.uint8]) -> QPixmap:
    """Put pictures (N, H, W, C) beside each other."""
    if pictures.shape[-1] == 1:
        pictures = pictures.repeat(3, -1)
    gap = np.full((*pictures.shape[1:2], 4, 3), 128, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    row = np.ascontiguousarray(np.concatenate(parts, 1))
    height, width = row.shape[:2]
    # Qt does not copy them.
    data = row.tobytes()
    image = QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888)
    pixmap = QPixmap.fromImage(image)
    return pixmap.scaledToWidth(300, Qt.TransformationMode.SmoothTransformation)


def _text() -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _spins(low: float, high: float, most: float, step: float, tip: str) -> list[FloatSpinBox]:
    made = [FloatSpinBox(value=value, min=0, max=most, step=step) for value in (low, high)]
    for spin in made:
        spin.tooltip = tip
    return made


def _pair(first: FloatSpinBox, second: FloatSpinBox) -> QWidget:
    both = QWidget()
    row = QHBoxLayout(both)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(first.native, 1)
    row.addWidget(QLabel("to"))
    row.addWidget(second.native, 1)
    return both


def _set_row(form: QFormLayout, field: QWidget, shown: bool) -> None:
    field.setVisible(shown)
    label = form.labelForField(field)
    if label is not None:
        label.setVisible(shown)


def _call(do: Callable[[], Any], _: bool = False) -> None:
    do()
