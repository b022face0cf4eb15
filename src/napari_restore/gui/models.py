"""Page of the model library: all models, their cards, and what can be done with them."""

from __future__ import annotations

import contextlib
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_restore.errors import ModelError, RestoreError
from napari_restore.models import library
from napari_restore.models.catalog import TASKS, read_metadata

from .runner import Runner, notify
from .work import attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.viewer

    from napari_restore.models.library import Entry
    from napari_restore.runtime import Progress

    from .work import Outcome

_COLUMNS = ("Model", "Task", "Images", "PSNR", "Origin", "License", "Size")


class _Library:
    """Tells docks and pages of this napari that the library has changed."""

    changed = Signal()


LIBRARY = _Library()


class ModelsWidget(QWidget):
    """Dock that lists the model library.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Not used: models belong to no viewer.
    """

    def __init__(self, viewer: napari.viewer.Viewer | None = None) -> None:
        super().__init__()
        self._entries: list[Entry] = []
        self.table = QTableWidget(0, len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        rows, header = self.table.verticalHeader(), self.table.horizontalHeader()
        assert rows is not None and header is not None
        rows.setVisible(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.card = QTextBrowser()
        self.card.setOpenExternalLinks(True)
        self.card.setPlaceholderText("Select a model to read its card.")
        self.search = QLineEdit()
        self.search.setPlaceholderText("Find a model")
        self.search.setClearButtonEnabled(True)
        self.status = QLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        actions = {
            "Import …": (self.ask_import, "Take a file of weights into your library."),
            "Export …": (self.ask_export, "Copy the model and its card into a file."),
            "Use by default": (
                self.toggle_default,
                "Let auto take this model for its task and kind of image.",
            ),
            "Rename …": (self.ask_rename, "Give the model another name; its hash stays."),
            "Remove …": (self.ask_remove, "Delete the model from your library."),
        }
        self.buttons: dict[str, QPushButton] = {}
        above, below = QHBoxLayout(), QHBoxLayout()
        for number, (text, (do, tip)) in enumerate(actions.items()):
            button = self.buttons[text] = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(partial(self._call, do))
            (above if number < 2 else below).addWidget(button)
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(self.table)
        split.addWidget(self.card)
        split.setStretchFactor(0, 3)
        split.setStretchFactor(1, 2)
        layout = QVBoxLayout(self)
        layout.addWidget(self.search)
        layout.addWidget(split, 1)
        layout.addLayout(above)
        layout.addLayout(below)
        layout.addWidget(self.status)
        self.status.setVisible(False)
        self.runner = Runner()
        for signal in (self.runner.started, self.runner.ended):
            signal.connect(self._say)
        self.runner.progressed.connect(self._progressed)
        self.destroyed.connect(self.runner.abandon)
        self.table.itemSelectionChanged.connect(self._suit)
        self.search.textChanged.connect(self._filter)
        # Qt deletes the widget before Python does.
        heard = partial(_if_there, weakref.ref(self), ModelsWidget.refresh)
        LIBRARY.changed.connect(heard)
        self.destroyed.connect(lambda: LIBRARY.changed.disconnect(heard, missing_ok=True))
        self.refresh()

    # ------------------------------------------------------------ what is shown

    def refresh(self) -> None:
        """List the library anew; the selection stays."""
        chosen = self.selected
        found, problems = library.entries()
        # The user's own are few, and what is looked for.
        self._entries = sorted(found, key=lambda entry: entry.bundled)
        self.table.setRowCount(len(self._entries))
        for row, entry in enumerate(self._entries):
            spec = entry.spec
            values = (
                entry.name + (" (default)" if entry.default else ""),
                spec.task.replace("_", " "),
                spec.kind,
                entry.gain,
                entry.origin,
                spec.license,
                f"{entry.megabytes:.1f} MB",
            )
            for column, value in enumerate(values):
                item = QTableWidgetItem(value)
                item.setToolTip(f"SHA-256 {spec.sha256}")
                self.table.setItem(row, column, item)
        if chosen is not None:
            self.select(chosen.name)
        if problems:
            self._say(" ".join(problems))
        self._filter()
        self._suit()

    @property
    def selected(self) -> Entry | None:
        """The model that is selected."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        return self._entries[rows.pop()] if len(rows) == 1 and self._entries else None

    def select(self, name: str) -> None:
        """Select a model; nothing if there is none of that name."""
        self.table.clearSelection()
        for row, entry in enumerate(self._entries):
            if entry.name == name:
                self.table.selectRow(row)

    def _filter(self) -> None:
        words = self.search.text().casefold().split()
        for row, entry in enumerate(self._entries):
            said = f"{entry.name} {entry.spec.task} {entry.spec.kind} {entry.origin}".casefold()
            self.table.setRowHidden(row, not all(word in said for word in words))

    def _suit(self) -> None:
        entry = self.selected
        self.card.setMarkdown("" if entry is None else entry.card())
        own = entry is not None and not entry.bundled
        for name in ("Rename …", "Remove …"):
            self.buttons[name].setEnabled(own)
        self.buttons["Export …"].setEnabled(entry is not None)
        default = self.buttons["Use by default"]
        is_default = entry is not None and entry.default
        default.setText("Not by default" if is_default else "Use by default")
        default.setEnabled(own)

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def _call(self, do: Callable[[], str], _: bool = False) -> None:
        try:
            said = do()
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            return
        if said:
            self._say(said)

    # ------------------------------------------------------------ what can be done

    def ask_import(self) -> str:
        """Ask for a file, and for what it does not say."""
        kinds = "Models (*.safetensors *.pth *.pt *.zip)"
        path, _ = QFileDialog.getOpenFileName(self, "Import a model", "", kinds)
        if not path:
            return ""
        task = None
        # A package says it itself.
        if Path(path).suffix != ".zip" and "task" not in _said(Path(path)):
            tasks = [task.replace("_", " ") for task in TASKS]
            chosen, agreed = QInputDialog.getItem(
                self, "Import a model", "The file does not say what it does:", tasks, 0, False
            )
            if not agreed:
                return ""
            task = TASKS[tasks.index(chosen)]
        if Path(path).suffix == ".safetensors" and "options" in _said(Path(path)):
            return self.add(Path(path), task)
        return self.add_slowly(Path(path), task)

    def add_slowly(self, path: Path, task: str | None = None) -> str:
        """Import a file as `add` does, in a thread: how far others' networks look is measured."""
        self.runner.start(
            lambda: attempt(partial(library.add, path, library.free_name(path.stem), task=task)),
            f"Importing '{path.name}'",
            0,
            self._imported,
        )
        return ""

    def _imported(self, outcome: Outcome) -> str:
        if outcome.error is None:
            return self._added(outcome.result)
        return notify(outcome.error, "Import")

    def _progressed(self, step: Progress) -> None:
        self._say(f"{step.message} ({step.done} of {step.total}) …")

    def add(self, path: Path, task: str | None = None) -> str:
        """Import a file, under its name or one like it."""
        return self._added(library.add(path, library.free_name(path.stem), task=task))

    def _added(self, entry: Entry) -> str:
        return self._changed(entry.name, f"Imported '{entry.name}'. All docks offer it.")

    def ask_export(self) -> str:
        """Ask where to, and write the model and its card."""
        entry = self._chosen()
        kinds = "Weights (*.safetensors);;Package of bioimage.io (*.zip);;ONNX (*.onnx)"
        path, _ = QFileDialog.getSaveFileName(
            self, "Export a model", f"{entry.name}.safetensors", kinds
        )
        if not path:
            return ""
        target = Path(path)
        # The dialog has asked whether to replace the file.
        return f"Wrote {library.export(entry.name, target, force=target.exists())}."

    def toggle_default(self) -> str:
        """Let auto take the model, or not any more."""
        entry = self._chosen()
        if entry.default:
            library.end_default(entry.name)
            said = f"auto takes the bundled model again for {entry.spec.kind} images."
        else:
            library.use_by_default(entry.name)
            said = f"auto takes '{entry.name}' for {entry.spec.kind} images."
        return self._changed(entry.name, said)

    def ask_rename(self) -> str:
        """Ask for another name."""
        old = self._chosen().name
        new, agreed = QInputDialog.getText(self, "Rename", "Name", QLineEdit.EchoMode.Normal, old)
        return self.rename(new) if agreed else ""

    def rename(self, new: str) -> str:
        """Give the selected model another name."""
        old = self._chosen().name
        return self._changed(library.rename(old, new).name, f"'{old}' is now '{new}'.")

    def ask_remove(self) -> str:
        """Ask whether to delete the selected model, and do."""
        name = self._chosen().name
        answer = QMessageBox.question(
            self, "Remove", f"Delete '{name}' from your library? Export it first to keep a copy."
        )
        return self.remove() if answer == QMessageBox.StandardButton.Yes else ""

    def remove(self) -> str:
        """Delete the selected model."""
        name = self._chosen().name
        library.remove(name)
        return self._changed("", f"Removed '{name}'.")

    def _chosen(self) -> Entry:
        entry = self.selected
        if entry is None:
            raise ModelError("Select a model.")
        return entry

    def _changed(self, name: str, said: str) -> str:
        LIBRARY.changed.emit()
        self.select(name)
        return said


def _said(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    return read_metadata(path)


def _if_there(reference: Any, do: Callable[[Any], None]) -> None:
    widget = reference()
    if widget is not None:
        with contextlib.suppress(RuntimeError):
            do(widget)
