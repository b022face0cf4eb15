"""Rows of a dock for the point spread function: which, and how it looks."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, LineEdit
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_restore.errors import PsfError, RestoreError
from napari_restore.physics.optics import MODALITIES

from .axes import read_axes
from .layers import METADATA_KEY
from .psf_source import BeadsIn, OpticsOf, micrometers_of, recorded_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from magicgui.widgets.bases import ValueWidget
    from napari.layers import Layer
    from qtpy.QtWidgets import QFormLayout

    from napari_restore.analysis.point_spread import PSF

AUTO, NONE, FOUND, LAYER, BEADS, OPTICS = (
    "auto",
    "none",
    "found from the image",
    "layer",
    "beads in layer",
    "from optics",
)
_TIP = (
    "What a single point looks like in the image. With it, a network undoes just this blur. "
    "none: the network guesses. auto: found in single images, else none."
)
#: Fields of the optics: name, label, unit, what it says while it is empty, tip.
_FIELDS = (
    ("na", "NA", "", "1.4", "Numerical aperture of the objective."),
    ("wavelength", "λ nm", "nm", "520", "Emission wavelength; of several channels 450, 520."),
    ("refractive_index", "n", "", "auto", "Refractive index of the immersion. auto: the usual."),
    ("pixel_size", "pixel nm", "nm", "65", "Side of a pixel in the sample."),
    ("z_step", "z step nm", "nm", "200", "Distance between planes in the sample."),
    ("defocus", "defocus µm", "µm", "0", "Distance from the focus to the plane that is seen."),
    ("excitation", "exc. nm", "nm", "auto", "Wavelength of the excitation."),
    ("pinhole", "pinhole AU", "", "1", "Diameter of the pinhole in Airy units."),
    ("sheet_thickness", "sheet µm", "µm", "2", "Full width at half maximum of the light sheet."),
    ("ri_sample", "n sample", "", "auto", "Refractive index of the sample. auto: as immersion."),
    ("depth", "depth µm", "µm", "0", "Of the first plane below the coverslip."),
)
#: Those that matter for volumes only, and one that volumes have not.
_DEEP, _FLAT = ("z_step", "ri_sample", "depth"), ("defocus",)
#: Fields that only some kinds of microscopes have.
_ONLY = {
    "excitation": ("confocal", "spinning disk", "two-photon"),
    "pinhole": ("confocal", "spinning disk"),
    "sheet_thickness": ("light sheet",),
}
#: Side of the picture of a PSF, in pixels of the screen.
_SIDE = 56


class PsfControls:
    """Magicgui widgets of the point spread function; the dock lays them out."""

    def __init__(self) -> None:
        self.source = ComboBox(choices=[AUTO, NONE, FOUND, LAYER, BEADS, OPTICS], tooltip=_TIP)
        self.layer = ComboBox(choices=[], nullable=True)
        self.layer.tooltip = "The layer with the PSF, or with the beads."
        self.modality = ComboBox(choices=list(MODALITIES), tooltip="Kind of microscope.")
        self.fields: dict[str, LineEdit] = {}
        self._layer_label, self._optics_label = QLabel("PSF layer"), QLabel("Microscope")
        self._optics = QWidget()
        grid = self._grid = QGridLayout(self._optics)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        self._labels: dict[str, QLabel] = {}
        for name, label, _, empty, tip in _FIELDS:
            field = self.fields[name] = LineEdit(tooltip=tip)
            field.native.setPlaceholderText(empty)
            field.native.setMinimumWidth(40)
            self._labels[name] = QLabel(label)
        self._deep = False
        self._shown = self._deep, self.modality.value
        self._prefilled: weakref.ref[Image] | None = None
        #: Texts of lengths that each layer knows of itself: they are not told to others.
        self._own: dict[str, str] = {}
        self._lay_out()

    def deciding(self) -> Iterator[ValueWidget[Any]]:
        """Those on which hangs what a run would do."""
        yield from (self.source, self.layer, self.modality, *self.fields.values())

    def fill(self, main: QFormLayout) -> None:
        """Lay them out in rows."""
        main.addRow("PSF", self.source.native)
        main.addRow(self._layer_label, self.layer.native)
        main.addRow(self._optics_label, self.modality.native)
        # Below its label: beside it there is no room for four columns.
        main.addRow(self._optics)

    @property
    def tells(self) -> bool:
        """Whether a PSF is told."""
        return self.source.value in (LAYER, BEADS, OPTICS)

    @property
    def value(self) -> Any:
        """What the controls say, as `plan_layer` takes it.

        Raises
        ------
        PsfError
            If a layer or a number is missing.
        """
        kind = self.source.value
        if kind in (LAYER, BEADS):
            chosen = self.layer.value
            if chosen is None:
                what = "an image of a point" if kind == LAYER else "an image of beads"
                raise PsfError(f"There is no other image layer. Add {what} as a layer.")
            return chosen if kind == LAYER else BeadsIn(chosen)
        if kind == OPTICS:
            return OpticsOf(self._told())
        return {AUTO: None, NONE: "none", FOUND: "auto"}[kind]

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"modality": self.modality.value}
        for name, label, unit, _, _ in _FIELDS:
            text = self.fields[name].value.strip()
            if not text or text in ("auto", self._own.get(name)) or not self._applies(name):
                continue
            try:
                numbers = [float(part) for part in text.replace(";", ",").split(",")]
            except ValueError:
                raise PsfError(f"{label} is '{text}'. Give a number.") from None
            if len(numbers) > 1 and name != "wavelength":
                raise PsfError(f"{label} is '{text}'. Give one number.")
            values = [f"{number:g} {unit}" if unit else number for number in numbers]
            told[name] = values if len(values) > 1 else values[0]
        return told

    def _applies(self, name: str) -> bool:
        fits = name not in (_FLAT if self._deep else _DEEP)
        return fits and self.modality.value in _ONLY.get(name, MODALITIES)

    def _lay_out(self) -> None:
        """Put the fields that apply into rows of two, and hide the others."""
        grid, number = self._grid, 0
        for name in self.fields:
            label, field = self._labels[name], self.fields[name].native
            applies = self._applies(name)
            for part in (label, field):
                grid.removeWidget(part)
                part.setVisible(applies)
            if applies:
                row, column = divmod(number, 2)
                grid.addWidget(label, row, 2 * column)
                grid.addWidget(field, row, 2 * column + 1)
                number += 1

    def suit(self, sources: Sequence[Image], layers: Sequence[Layer], deep: bool = False) -> None:
        """Show the rows that the choice needs; offer layers; fill in what is recorded.

        Parameters
        ----------
        sources, layers : sequence of Layer
            Those that are selected, and all.
        deep : bool
            Whether stacks among them may be volumes.
        """
        kind = self.source.value
        self._deep = deep and any(layer.ndim > 2 for layer in sources)
        for row in (self._layer_label, self.layer.native):
            row.setVisible(kind in (LAYER, BEADS))
        for row in (self._optics_label, self.modality.native, self._optics):
            row.setVisible(kind == OPTICS)
        others = [x for x in layers if isinstance(x, Image) and x not in sources]
        choices = [(x.name, x) for x in others]
        if [(x.name, x) for x in self.layer.choices if x is not None] != choices:
            before = self.layer.value
            with self.layer.changed.blocked():
                self.layer.choices = choices
                if before in others:
                    self.layer.value = before
        if kind == OPTICS and sources:
            self._prefill(sources[-1])
        if self._shown != (self._deep, self.modality.value):
            self._shown = self._deep, self.modality.value
            self._lay_out()

    def _prefill(self, layer: Image) -> None:
        if self._prefilled is not None and self._prefilled() is layer:
            return
        self._prefilled = weakref.ref(layer)
        found = _recorded(layer)
        self._own = _own_lengths(layer)
        found |= self._own
        for name, control in (*self.fields.items(), ("modality", self.modality)):
            # What was typed stays where nothing is recorded.
            if name in found:
                with control.changed.blocked():
                    control.value = found[name]


def _recorded(layer: Image) -> dict[str, str]:
    """Texts of the fields, as far as the layer tells."""
    from napari_restore.physics.recorded import recorded_optics

    found: dict[str, str] = {}
    metadata = recorded_by(layer)
    try:
        records = recorded_optics(metadata) if metadata is not None else []
    except PsfError:
        records = []
    if records:
        first = records[0].found
        found |= {name: str(first[name]) for name in ("na", "modality") if name in first}
        index = first.get("ri_immersion", first.get("refractive_index"))
        found |= {} if index is None else {"refractive_index": f"{index:g}"}
        if "excitation" in first:
            found["excitation"] = f"{1000 * first['excitation']:g}"
        for name in ("defocus", "sheet_thickness"):
            if name in first:
                found[name] = f"{first[name]:g}"
        lengths = [record.found.get("wavelength") for record in records]
        if all(length is not None for length in lengths):
            texts = list(dict.fromkeys(f"{1000 * length:g}" for length in lengths if length))
            found["wavelength"] = ", ".join(texts)
        for name in ("pixel_size", "z_step"):
            if name in first:
                found[name] = f"{1000 * first[name]:.4g}"
        for name in ("ri_sample", "pinhole", "depth"):
            if name in first:
                found[name] = f"{first[name]:g}"
    return found


def _own_lengths(layer: Image) -> dict[str, str]:
    """Texts of the lengths that a layer knows by its scale and units."""
    try:
        size = micrometers_of(layer, read_axes(layer, deep=True))
    except RestoreError:
        # The summary says what is wrong with the axes.
        return {}
    if size is None:
        return {}
    found = {"pixel_size": f"{1000 * min(size[-2:]):.4g}"}
    if len(size) == 3:
        found["z_step"] = f"{1000 * size[0]:.4g}"
    return found


class PsfPicture(QWidget):
    """The PSF that is used: a picture, its width, what it explains, and a button."""

    def __init__(self) -> None:
        super().__init__()
        self.psf: PSF | None = None
        self.picture, self.text = QLabel(), QLabel()
        self.picture.setFixedSize(_SIDE, _SIDE)
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.button = QPushButton("Add")
        self.button.setFixedWidth(_SIDE)
        self.button.setToolTip("Add the point spread function as a layer.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        left = QVBoxLayout()
        left.addWidget(self.picture)
        left.addWidget(self.button)
        row.addLayout(left)
        row.setAlignment(left, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.text, 1)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setVisible(False)

    def show_psf(self, psf: PSF | None, statement: str = "", doubt: str = "") -> None:
        """Show a PSF and what is known of it; nothing without both.

        What is known of optics with planes is long, and most of it is told in the rows above: it is
        the tooltip.

        Parameters
        ----------
        psf : PSF or None
        statement : str
            All that is to be said of it.
        doubt : str
            That part of the statement which is always seen, as is a coarse sampling.
        """
        self.psf = psf if psf else None
        self.picture.setVisible(self.psf is not None)
        self.button.setVisible(self.psf is not None)
        lines, tip = [statement] if statement else [], ""
        if self.psf is not None:
            self.picture.setPixmap(picture_of(self.psf))
            size = f"PSF: {self.psf.size_text}"
            if self.psf.dimensions == 3 and self.psf.optics is not None:
                tip = "\n".join([size, *lines])
                lines = [text for text in (self.psf.optics.coarse, doubt) if text]
                size = f"PSF: {self.psf.short_size}"
            lines.insert(0, size)
        self.text.setText("\n".join(lines))
        for part in (self.text, self.picture):
            part.setToolTip(tip)
        self.setVisible(bool(lines))


def picture_of(psf: PSF, side: int = _SIDE) -> QPixmap:
    """Draw a PSF, its bright part large enough to be seen; faint light shows too.

    Of one with planes, Z goes down, as far as its voxels are long.
    """
    array, heights = psf.array, 1.0
    if array.ndim == 3:
        array = array[:, array.shape[1] // 2]
        if psf.pixel_size is not None and len(psf.pixel_size) == 3:
            heights = psf.pixel_size[0] / psf.pixel_size[2]
    rows, columns = (n // 2 for n in array.shape)
    # What holds nearly all of the light, and a margin.
    bright = np.nonzero(array > 0.02 * array.max())
    far = max(heights * np.abs(bright[0] - rows).max(), np.abs(bright[1] - columns).max(), 3) + 1
    up, wide = min(rows, int(far / heights)), min(columns, int(far))
    part = array[rows - up : rows + up + 1, columns - wide : columns + wide + 1]
    gray = np.ascontiguousarray(255 * np.sqrt((part / part.max()).clip(0, 1)), np.uint8)
    height, width = gray.shape
    image = QImage(gray.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy()
    unit = side / max(height * heights, width)
    drawn = QPixmap.fromImage(image).scaled(
        max(1, round(width * unit)), max(1, round(height * heights * unit))
    )
    whole = QPixmap(side, side)
    whole.fill(Qt.GlobalColor.black)
    painter = QPainter(whole)
    painter.drawPixmap((side - drawn.width()) // 2, (side - drawn.height()) // 2, drawn)
    painter.end()
    return whole


def psf_layer(psf: PSF, statement: str, source: Image) -> Image:
    """Make a layer of a PSF, in pixels as large as those of its source."""
    record = psf.record() | {"said": statement, "source": source.name}
    axes = [-2, -1]
    if psf.dimensions == 3:
        letters = read_axes(source).replace("S", "")
        # Without a label, the one axis before the plane is that of depth.
        axes.insert(0, letters.index("Z") if "Z" in letters else -3)
    return Image(
        psf.array,
        name=f"PSF of {source.name}",
        scale=[source.scale[axis] for axis in axes],
        units=[source.units[axis] for axis in axes],
        axis_labels=[source.axis_labels[axis] for axis in axes] if len(axes) == 3 else None,
        colormap="inferno",
        metadata={METADATA_KEY: {"shows": "point spread function", "psf": record}},
    )
