"""The menu "More" of a dock: copy, presets, again, undo, batch, guide."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QUrl
from qtpy.QtGui import QAction, QDesktopServices  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication, QInputDialog, QMenu, QPushButton, QWidget

from napari_restore.errors import RestoreError

from .batch import BatchPage
from .layers import METADATA_KEY
from .lineage import source_of
from .psf_controls import BEADS, LAYER
from .repeat import command_of, python_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Layer

    from .controls import Controls
    from .options import DockConfig
    from .remembered import Settings
    from .session import Session

GUIDE = "https://napari-restore.github.io/napari-restore/"
_HOMES = {
    "deblur": "deblur",
    "dehaze": "dehaze",
    "motion_deblur": "motion-deblur",
    "denoise": "denoise",
}
#: Controls that say something of one image.
_OF_ONE_IMAGE = ("channels", "time_axis", "region", "slices")


def lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of controls that mean the same for the next image."""
    values = {name: value for name, value in values.items() if name not in _OF_ONE_IMAGE}
    if values.get("psf") in (LAYER, BEADS):
        del values["psf"]
    return values


class More:
    """A button with a menu.

    Parameters
    ----------
    parent : QWidget
        The dock.
    face : DockConfig
    session : Session
    controls : Controls
    settings : Settings
        Holds the presets.
    say : callable
        Shows a sentence in the dock.
    """

    def __init__(
        self,
        parent: QWidget,
        face: DockConfig,
        session: Session,
        controls: Controls,
        settings: Settings,
        say: Callable[[str], object],
    ) -> None:
        self._parent, self._face, self._session = parent, face, session
        self._controls, self._settings, self._say = controls, settings, say
        self.batch: BatchPage | None = None
        self.defaults = dict(controls.values)
        self.button = QPushButton("More")
        self.button.setToolTip("Copy, presets, again, undo, guide.")
        menu = QMenu(self.button)
        self.actions: dict[str, QAction] = {}
        self.presets = QMenu("Presets", menu)
        self.presets.aboutToShow.connect(self.fill_presets)
        for entry in (
            ("Copy as Python", self.copy_python),
            ("Copy as command", self.copy_command),
            None,
            self.presets,
            ("Batch …", self.open_batch),
            ("Again with the settings of the result", self.again),
            ("Undo the last run", self.undo),
            None,
            ("Guide", lambda: _open(f"docks/{_HOMES[face.task]}/")),
            ("Model card", lambda: _open(self.card())),
        ):
            if entry is None:
                menu.addSeparator()
            elif isinstance(entry, QMenu):
                menu.addMenu(entry)
            else:
                name, do = entry
                self.actions[name] = _entry(menu, name, partial(self._do, do))
        self.button.setMenu(menu)

    def suit(self) -> None:
        """Offer what can be done now."""
        running = self._session.running
        self.actions["Undo the last run"].setEnabled(self._session.can_undo and not running)
        again = self._result() is not None
        self.actions["Again with the settings of the result"].setEnabled(again)

    def _do(self, what: Callable[[], Any]) -> None:
        try:
            said = what()
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            return
        if said:
            self._say(said)

    # ------------------------------------------------------------ copy

    def copy_python(self) -> str:
        """Copy what the dock would do, for napari's console."""
        options = self._controls.options
        _copy(python_of(self._session.jobs(options), options, self._face.task))
        return "Copied. Paste it into napari's console: the button >_ beneath the list of layers."

    def copy_command(self) -> str:
        """Copy what the dock would do, for a shell."""
        options = self._controls.options
        _copy(command_of(self._session.jobs(options), options, self._face.task))
        return (
            "Copied. Paste it into a terminal: it restores the file and writes the result "
            "beside it."
        )

    # ------------------------------------------------------------ presets

    def fill_presets(self) -> None:
        """List the presets anew."""
        self.presets.clear()
        task = self._face.task
        known = self._settings.presets(task)
        delete = QMenu("Delete", self.presets)
        for name in sorted(known):
            _entry(self.presets, name, partial(self._do, partial(self.take_preset, name)))
            _entry(delete, name, partial(self._settings.delete_preset, task, name))
        if known:
            self.presets.addSeparator()
        _entry(self.presets, "Save as …", self.ask_and_save)
        if known:
            self.presets.addMenu(delete)
        _entry(self.presets, "Defaults", lambda: self._controls.set_values(self.defaults))

    def ask_and_save(self) -> None:
        """Ask for a name, and save the controls under it."""
        name, agreed = QInputDialog.getText(self._parent, "Save preset", "Name")
        if agreed and name.strip():
            self._do(lambda: self.save_preset(name.strip()))

    def save_preset(self, name: str) -> str:
        """Save the controls under a name."""
        self._settings.save_preset(self._face.task, name, lasting(self._controls.values))
        return f"Saved as '{name}'."

    def take_preset(self, name: str) -> str:
        """Set the controls as they were saved."""
        values = self._settings.presets(self._face.task).get(name)
        if values is None:
            raise RestoreError(f"There is no preset '{name}' any more.")
        self._controls.set_values(values)
        return f"Preset '{name}'."

    # ------------------------------------------------------------ again

    def _result(self) -> Layer | None:
        layer = self._session.viewer.layers.selection.active
        record = None if layer is None else layer.metadata.get(METADATA_KEY)
        if not isinstance(record, dict) or record.get("task") != self._face.task:
            return None
        return None if "shows" in record else layer

    def again(self) -> str:
        """Set the controls as they were for the selected result, and select its source."""
        layer = self._result()
        if layer is None:
            raise RestoreError(f"Select a result of {self._face.title}.")
        record = layer.metadata[METADATA_KEY]
        self._controls.set_values({**self.defaults, **said_by(record)})
        source = source_of(layer, self._session.viewer.layers)
        if source is not None:
            self._session.viewer.layers.selection = {source}
        where = f"'{layer.name}' was made with these settings."
        return (
            where
            if source is not None
            else (f"{where} Its source is not in the viewer: select an image.")
        )

    def open_batch(self) -> None:
        """Open the page that restores files with what the controls say."""
        if self.batch is None:
            self.batch = BatchPage(self._parent, self._face, self._session, self._controls)
        self.batch.show()
        self.batch.raise_()

    def close(self) -> None:
        """Stop a batch: nobody is left to hear of it."""
        if self.batch is not None:
            self.batch.runner.abandon()

    def undo(self) -> str:
        """Take away what the last run added."""
        return self._session.undo()

    def card(self) -> str:
        """Page of the model that would run."""
        try:
            plan = self._session.jobs(self._controls.options)[-1].plan
        except RestoreError:
            return "models/"
        return f"models/{plan.spec.name}/"


def said_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values of controls with which a result was made, as far as its metadata tell."""
    if isinstance(record.get("controls"), dict):
        # The strength may have been moved since.
        return {**record["controls"], "strength": record.get("strength", 1.0)}
    names = ("strength", "model", "tile", "frames", "dimensions", "method")
    values = {name: record[name] for name in names if name in record}
    if record.get("psf_asked") or record.get("method"):
        # What was told of the blur stands in no control; the network that inverts it is auto's.
        values.pop("model", None)
    if record.get("keep_range"):
        values["keep_range"] = "of the source"
    if record.get("exposure") and not record.get("exposure_found"):
        values["exposure"] = record["exposure"]
    return values


def _entry(menu: QMenu, name: str, do: Callable[[], Any]) -> QAction:
    action = QAction(name, menu)
    action.triggered.connect(lambda _: do())
    menu.addAction(action)
    return action


def _copy(text: str) -> None:
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    clipboard.setText(text)


def _open(page: str) -> None:
    QDesktopServices.openUrl(QUrl(GUIDE + page))
