"""Row of a dock that adapts the model to the selected image, and takes that back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_restore.errors import RestoreError
from napari_restore.models import library

from .layers import METADATA_KEY
from .models import LIBRARY
from .runner import notify
from .work import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.qt.threading import GeneratorWorker

    from .controls import Controls
    from .session import Session

_ADAPT, _UNDO = "Adapt to this image", "Undo adapting"


class AdaptRow(QWidget):
    """Button that adapts the model to the selected image, and then takes that back.

    Parameters
    ----------
    session : Session
        Of the dock; its runner does the work, so Cancel ends it.
    controls : Controls
        They say which PSF, and show which model restores.
    say : callable
        Shows a sentence in the dock.

    Attributes
    ----------
    made : str
        Name of the model that was adapted last; empty if there is nothing to take back.
    """

    def __init__(self, session: Session, controls: Controls, say: Callable[[str], None]) -> None:
        super().__init__()
        self._session, self._controls, self._say = session, controls, say
        self.made, self._before = "", "auto"
        self.button = QPushButton(_ADAPT)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.button)
        self.button.clicked.connect(lambda: self.undo() if self.made else self.adapt())
        self.suit(False)

    def suit(self, possible: bool) -> None:
        """Fit the button to what can be done: ``possible`` if an image could be restored."""
        if self.made and self.made not in self._controls.model.choices:
            # Somebody took it out of the library.
            self.made = ""
        self.button.setText(_UNDO if self.made else _ADAPT)
        self.button.setToolTip(
            f"Delete the model '{self.made}', take away what it restored, and go back to the model "
            "of before."
            if self.made
            else "Train the last blocks of the model on the selected image itself, for a minute or "
            "a few. It is kept only if it is surely better for this image."
        )
        self.button.setEnabled(not self._session.running and (possible or bool(self.made)))

    def adapt(self) -> GeneratorWorker[Any, Any, Any] | None:
        """Start to adapt in a thread, and return its worker; None if that is refused."""
        try:
            return self._start()
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            return None

    def _start(self) -> GeneratorWorker[Any, Any, Any]:
        # Only here: PyTorch takes seconds to import.
        from napari_restore.training.adapting import adapt_to, check_plan

        session, options = self._session, self._controls.options
        session.runner.refuse_if_running()
        if len(session.sources()) > 1:
            raise RestoreError("A model is adapted to one image. Select one layer.")
        if options.frames == 2:
            raise RestoreError("Two frames are told no PSF. Choose Frames: each alone.")
        psf = "auto" if options.psf is None else options.psf
        one = replace(options, psf=psf, scheduler=None, model="auto", dimensions=2)
        job = session.jobs(one)[0]
        check_plan(job.plan)
        name = library.adapted_name(job.name)
        session.target = job.name
        return session.runner.start(
            partial(attempt, adapt_to, job.array, job.plan, name, job.name),
            f"Adapting the model to {job.name}",
            1,
            self._finish,
        )

    def _finish(self, outcome: Outcome) -> str:
        if outcome.error is not None:
            return notify(outcome.error, "The model was not adapted")
        found = outcome.result
        if not found:
            return str(found.statement)
        self._before = self._controls.model.value
        LIBRARY.changed.emit()
        self._controls.model.value = self.made = found.name
        self.suit(True)
        return f"{found.statement} Restore uses it now."

    def undo(self) -> None:
        """Delete the model and its results, and go back to the model of before."""
        name, self.made = self.made, ""
        if self._controls.model.value == name:
            choices = self._controls.model.choices
            self._controls.model.value = self._before if self._before in choices else "auto"
        try:
            digest = library.find_entry(name).spec.sha256
            taken = self._session.take_away(lambda layer: _weights_of(layer) == digest)
            library.remove(name)
        except RestoreError as error:
            self._say(str(error))
            show_error(str(error))
            return
        LIBRARY.changed.emit()
        gone = f" {', '.join(taken)} went with it." if taken else ""
        self._say(f"The model is as before: '{name}' was deleted.{gone}")


def _weights_of(layer: Any) -> Any:
    return layer.metadata.get(METADATA_KEY, {}).get("weights_sha256")
