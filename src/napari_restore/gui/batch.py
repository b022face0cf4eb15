"""Batch page: files in, a folder out, with what a dock's controls say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_restore.errors import RestoreError
from napari_restore.runtime import Progress, check, relaying

from .repeat import arguments_of
from .runner import Runner, notify
from .work import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtWidgets import QWidget

    from napari_restore.cli.restore import FileStep

    from .controls import Controls
    from .options import DockConfig
    from .session import Session


@dataclass(frozen=True)
class FileProgress(Progress):
    """A step of one file."""

    file: FileStep | None = None


def restore_batch(words: Sequence[str]) -> list[FileStep]:
    """Run a command as a shell would, and tell of each file; runs in a thread.

    Parameters
    ----------
    words : sequence of str
        Of the command line, without the program.

    Returns
    -------
    list of FileStep
        The last of each file.
    """
    from napari_restore.cli import make_parser
    from napari_restore.cli.restore import restore_files

    args = make_parser().parse_args(list(words))
    ended: list[FileStep] = []
    current: list[FileStep] = []

    def of_file(step: Progress) -> Progress:
        if isinstance(step, FileProgress) or not current:
            return step
        return FileProgress(step.done, step.total, step.message, current[-1])

    watch = relaying(of_file)
    with watch.around():
        for step in restore_files(args):
            if step.state in ("done", "failed"):
                ended.append(step)
            current.append(step)
            watch.tell(FileProgress(0, 0, step.state, step))
            check()
    return ended


class BatchPage(QDialog):
    """Window with files, a folder for the results, and how far each is.

    Parameters
    ----------
    parent : QWidget
        The dock.
    face : DockConfig
    session : Session
    controls : Controls
        They say how.
    """

    def __init__(
        self, parent: QWidget, face: DockConfig, session: Session, controls: Controls
    ) -> None:
        super().__init__(parent)
        self._face, self._session, self._controls = face, session, controls
        self.runner = Runner()
        self.setWindowTitle(f"{face.title}: batch")
        self.resize(640, 420)
        self.how, self.status = QLabel(), QLabel()
        for label in (self.how, self.status):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["File or folder", "State"])
        header = self.table.horizontalHeader()
        assert header is not None
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        self.table.setColumnWidth(0, 260)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.output = QLineEdit()
        self.output.setPlaceholderText("Folder for the results")
        self.force = QCheckBox("Replace earlier results")
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        buttons = {
            "files_button": ("Add files …", self.ask_files),
            "folder_button": ("Add a folder …", self.ask_folder),
            "clear_button": ("Clear", self.clear),
            "output_button": ("Browse …", self.ask_output),
            "start_button": ("Restore", self.start),
            "cancel_button": ("Cancel", self.runner.cancel),
        }
        made = {}
        for name, (text, do) in buttons.items():
            made[name] = QPushButton(text)
            made[name].clicked.connect(partial(_call, do))
        self.buttons = made
        rows = QVBoxLayout(self)
        rows.addWidget(self.how)
        rows.addLayout(_row(*(made[x] for x in ("files_button", "folder_button", "clear_button"))))
        rows.addWidget(self.table, 1)
        rows.addLayout(_row(self.output, made["output_button"]))
        rows.addLayout(_row(self.force, made["start_button"], made["cancel_button"]))
        rows.addWidget(self.progress_bar)
        rows.addWidget(self.status)
        #: Row of each file by its path, and what was put in.
        self._rows: dict[str, int] = {}
        self._given: list[str] = []
        self._ended = 0
        self.output.textChanged.connect(self._suit)
        self.runner.started.connect(lambda _: self._suit())
        self.runner.progressed.connect(self._on_progress)
        self.runner.ended.connect(self._on_ended)
        self._suit()

    # ------------------------------------------------------------ what is put in

    def add(self, *paths: str | Path) -> None:
        """Put files or folders in; those that are there already stay."""
        if not self.runner.running and self._ended:
            self._show_given()  # a batch that has ended gives way to the next
        for path in map(str, paths):
            if path not in self._given:
                self._given.append(path)
                self._set(path, "waiting")
        self._suit()

    def clear(self) -> None:
        """Take all files out."""
        self._given = []
        self._show_given()
        self._suit()

    def ask_files(self) -> None:
        """Ask for files."""
        paths, _ = QFileDialog.getOpenFileNames(self, "Images to restore")
        self.add(*paths)

    def ask_folder(self) -> None:
        """Ask for a folder: its images are restored."""
        path = QFileDialog.getExistingDirectory(self, "Folder of images")
        if path:
            self.add(path)

    def ask_output(self) -> None:
        """Ask where the results go."""
        path = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if path:
            self.output.setText(path)

    # ------------------------------------------------------------ run

    def words(self) -> list[str]:
        """Words of the command that does it.

        Raises
        ------
        RestoreError
            If the command line cannot say what the controls say.
        """
        options = self._controls.options
        job = self._session.jobs(options)[-1] if self._session.sources() else None
        words = arguments_of(options, self._face.task, job)
        force = ["--force"] if self.force.isChecked() else []
        # The separator says that it is a folder, also for one file.
        return [
            *words,
            *force,
            "-o",
            str(Path(self.output.text().strip())) + "/",
            "--",
            *self._given,
        ]

    def start(self) -> None:
        """Restore all files."""
        try:
            self.runner.refuse_if_running()
            words = self.words()
        except RestoreError as error:
            self.status.setText(str(error))
            show_error(str(error))
            return
        self._show_given()
        if any(Path(path).is_dir() for path in self._given):
            # The images of a folder are listed as they are found.
            self.table.setRowCount(0)
            self._rows = {}
        self.progress_bar.setValue(0)
        self.runner.start(
            partial(attempt, restore_batch, words), "Restoring files", 0, self._finish
        )

    def _on_progress(self, step: Progress) -> None:
        if not isinstance(step, FileProgress) or step.file is None:
            self.status.setText(step.message)
            return
        file, share = step.file, 0.0
        path = str(file.source)
        if file.state == "begun":
            share = step.done / step.total if step.total else 0.0
            self._set(path, f"{share:.0%}" if share else step.message or "begun")
        elif file.state == "found":
            self._set(path, "waiting")
        else:
            self._ended += 1
            share = 0.0
            self._set_end(file)
        self.progress_bar.setValue(round(1000 * (self._ended + share) / max(1, len(self._rows))))

    def _set_end(self, file: FileStep) -> None:
        if file.error is None:
            self._set(str(file.source), "done", file.said)
        else:
            self._set(str(file.source), f"failed: {_why(file.error)}", _why(file.error))

    def _finish(self, outcome: Outcome) -> str:
        if outcome.error is not None:
            return notify(outcome.error, "Nothing was restored")
        for file in outcome.result:
            self._set_end(file)
        failed = sum(file.error is not None for file in outcome.result)
        done = len(outcome.result) - failed
        text = f"{done} of {len(outcome.result)} files restored into {self.output.text()}."
        return text + (f" {failed} failed: the table says why." if failed else "")

    def _on_ended(self, text: str) -> None:
        if "Canceled" in text:
            text = "Canceled. Finished files stay; the file in progress left nothing behind."
        self.status.setText(text)
        self._ended = max(1, self._ended)
        self._suit()

    # ------------------------------------------------------------ showing

    def showEvent(self, event: Any) -> None:
        """Say what the controls say now."""
        super().showEvent(event)
        self._suit()

    def _suit(self, _: Any = None) -> None:
        running = self.runner.running
        try:
            said = " ".join(arguments_of(self._controls.options, self._face.task))
            self.how.setText(f"As the controls of the dock say: {said}")
        except RestoreError as error:
            self.how.setText(str(error))
        ready = bool(self._given and self.output.text().strip()) and not running
        self.buttons["start_button"].setEnabled(ready)
        self.buttons["cancel_button"].setEnabled(running)
        for name in ("files_button", "folder_button", "clear_button"):
            self.buttons[name].setEnabled(not running)

    def _show_given(self) -> None:
        self.table.setRowCount(0)
        self._rows, self._ended = {}, 0
        for path in self._given:
            self._set(path, "waiting")

    def _set(self, path: str, state: str, tip: str = "") -> None:
        row = self._rows.get(path)
        if row is None:
            row = self._rows[path] = self.table.rowCount()
            self.table.insertRow(row)
            name = QTableWidgetItem(Path(path).name or path)
            name.setToolTip(path)
            self.table.setItem(row, 0, name)
        item = QTableWidgetItem(state)
        item.setToolTip(tip)
        self.table.setItem(row, 1, item)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, RestoreError) else f"{type(error).__name__}: {error}"


def _call(do: Any, _: bool = False) -> None:
    do()


def _row(*widgets: Any) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
