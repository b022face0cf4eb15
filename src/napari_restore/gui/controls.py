"""The controls of a dock: what can be set, in rows, and what they say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, FloatSlider, FloatSpinBox, LineEdit
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton

from napari_restore.models.catalog import CATALOG, own_names

from .jobs import side_of_pixel
from .options import DockOptions
from .psf_controls import PsfControls
from .region import REGIONS, SLICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from magicgui.widgets.bases import ValueWidget
    from napari.layers import Image, Layer

    from .options import DockConfig

_TIPS = {
    "strength": "0 keeps the image as it is, 1 is the full restoration.",
    "model": "auto: the color model for RGB layers, the mono model for all others, or the one of "
    "your library that is the default for such images.",
    "place": "Where Restore computes. Previews are computed on this computer.",
    "address": "What 'dask scheduler' says when it starts. The workers need this version of "
    "napari-restore, and choose their devices themselves if Device is auto.",
    "device": "auto: a GPU if there is one.",
    "tile": (
        "Side in pixels of a tile, which is computed at a time. Smaller tiles need less memory."
    ),
    "hide_source": "Hide the source layers once they are restored.",
    "structure_size": "Single-channel images: structures up to this size stay, and only light that "
    "is smoother is removed. auto leaves it to the network.",
    "show_removed": "Add a layer: of single-channel images the light that was removed, of color "
    "images the share of the light that came through the haze.",
    "frames": "each alone: from its own blur. with the next: along the motion between two frames "
    "of a movie, or of two selected images of one size.",
    "exposure": "With two frames: share of the time between them that the shutter is open. auto "
    "finds it from the movie.",
    "time_axis": "With two frames: which axis of the layer is time. auto: the one labeled t, or "
    "the only one.",
    "dimensions": "Whether a stack is one volume, restored along Z too, or planes of their own. "
    "automatic: a volume where an axis is labeled z and the PSF has planes.",
    "method": "How the PSF is inverted: by a network that was trained for it, or by a classical "
    "method. Without a PSF there is only the network.",
    "keep_range": "Whether results stay between the smallest and the largest value of the layer. "
    "auto: where values are signed integers, as in CT.",
    "channels": "Which axis of a stack holds channels: each gets an intensity scale of its own. "
    "auto: the one labeled c, or one of few planes of very different brightness.",
    "region": "What Restore restores. The result keeps its place in the source. slices: along the "
    "slider that was moved last. inside a shape: the selected shape of the topmost "
    "Shapes layer.",
    "slices": "First and last slice, as the slider counts them.",
    "replace_earlier": "Remove the earlier result that this dock made from the same layer.",
    "show_motion": "Add a layer of vectors: arrows from frame to frame, or lines along the blur.",
}
_CLUSTER = "dask cluster"
_STACKS = [("automatic", "auto"), ("as a volume", 3), ("plane by plane", 2)]
_METHODS = [
    ("network", "network"),
    ("Richardson–Lucy", "richardson-lucy"),
    ("Wiener", "wiener"),
]
_RANGES = {"auto": None, "of the source": True, "free": False}


class Controls:
    """Magicgui widgets, which turn values into native ones and back; the dock lays them out.

    Parameters
    ----------
    face : DockConfig
        Which of the docks this is.
    devices : sequence of str
        That are known already.
    """

    #: Of the cluster, for docks that are opened later.
    _last_address: ClassVar[str] = ""

    def __init__(self, face: DockConfig, devices: Sequence[str]) -> None:
        self._face = face
        self.strength = FloatSlider(value=1.0, min=0.0, max=1.0, step=0.05)
        self.model = ComboBox(choices=self._models())
        self.place = ComboBox(choices=["this computer", _CLUSTER])
        self.address = LineEdit(value=Controls._last_address)
        self.address.native.setPlaceholderText("tcp://HOST:8786")
        self._address_label = QLabel("Address")
        self.address.changed.connect(_remember)
        self.device = ComboBox(choices=["auto", *devices])
        self.tile = ComboBox(choices=["auto", 128, 256, 512, 1024, 2048])
        self.hide_source = CheckBox(value=False, text="Hide the source")
        self.region = ComboBox(choices=REGIONS)
        self.slices = LineEdit()
        self.slices.native.setPlaceholderText("0-9")
        self._slices_label = QLabel("Slices")
        self.replace_earlier = CheckBox(value=False, text="Replace the earlier result")
        self.structure_size = FloatSpinBox(value=0, min=0, max=1e6, step=1)
        self.show_removed = CheckBox(value=False, text="Show what was removed")
        self.frames = ComboBox(choices=[("each alone", 1), ("with the next", 2)])
        self.exposure = FloatSpinBox(value=0, min=0, max=1, step=0.05)
        self.time_axis = ComboBox(choices=["auto", *range(6)])
        self.keep_range = ComboBox(choices=[*_RANGES])
        self.channels = ComboBox(choices=["auto", "none", *range(6)])
        self._channels_label = QLabel("Channel axis")
        self.all_channels = QPushButton()
        self.all_channels.setToolTip(
            "Select all layers that are channels of this image. Each gets an intensity scale of "
            "its own."
        )
        self.dimensions = ComboBox(choices=_STACKS)
        self._dimensions_label = QLabel("Stack")
        self.method = ComboBox(choices=_METHODS)
        self._method_label = QLabel("Method")
        self.show_motion = CheckBox(value=False, text="Show motion")
        self.psf = PsfControls()
        for name, tip in _TIPS.items():
            getattr(self, name).tooltip = tip
        for control in (self.structure_size, self.exposure):
            control.native.setSpecialValueText("auto")

    @property
    def options(self) -> DockOptions:
        """What the controls say.

        Raises
        ------
        RestoreError
            If something that was chosen is missing.
        """
        face, two = self._face, self.frames.value == 2
        return DockOptions(
            model=self.model.value,
            device=self.device.value,
            tile=self.tile.value,
            strength=self.strength.value,
            hide_source=self.hide_source.value,
            replace_earlier=self.replace_earlier.value,
            region=self.region.value,
            slices=self.slices.value,
            scheduler=self.address.value if self.place.value == _CLUSTER else None,
            structure_size=self.structure_size.value or None if face.removes_light else None,
            show_removed=face.removes_light and self.show_removed.value,
            frames=self.frames.value if face.follows_motion else 1,
            exposure=self.exposure.value or None if two else None,
            time_axis=None if self.time_axis.value == "auto" or not two else self.time_axis.value,
            channel_axis=None if self.channels.value == "none" else self.channels.value,
            psf=self.psf.value if face.undoes_blur and not two else None,
            dimensions=self.dimensions.value if face.in_space else 2,
            method=self.method.value if face.in_space else "network",
            keep_range=_RANGES[self.keep_range.value],
            show_motion=face.follows_motion and self.show_motion.value,
        )

    def all(self) -> dict[str, ValueWidget[Any]]:
        """Every control by its name, but for those that name a layer."""
        named = {name: getattr(self, name) for name in (*_TIPS, "psf")}
        psf = named.pop("psf")
        named |= {"psf": psf.source, "modality": psf.modality}
        return named | {f"optics.{name}": field for name, field in psf.fields.items()}

    @property
    def values(self) -> dict[str, Any]:
        """Values of all controls, which JSON can hold."""
        return {name: control.value for name, control in self.all().items()}

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Set controls; those without a value, or of a value that is no choice, stay."""
        for name, control in self.all().items():
            if name in values and control.value != values[name]:
                try:
                    control.value = values[name]
                except (ValueError, TypeError):
                    continue

    def deciding(self) -> Iterator[ValueWidget[Any]]:
        """Those on which hangs what a run would do."""
        names = ("model", "place", "address", "device", "tile", "structure_size", "frames")
        more = (
            "region",
            "slices",
            "exposure",
            "time_axis",
            "channels",
            "keep_range",
            "dimensions",
            "method",
        )
        for name in (*names, *more):
            yield getattr(self, name)
        yield from self.psf.deciding()

    def fill(self, main: QFormLayout, more: QFormLayout) -> None:
        """Lay them out in rows: those that matter most, and those under Advanced."""
        main.addRow("Strength", self.strength.native)
        if self._face.undoes_blur:
            self.psf.fill(main)
        if self._face.in_space:
            main.addRow(self._method_label, self.method.native)
            main.addRow(self._dimensions_label, self.dimensions.native)
        if self._face.removes_light:
            main.addRow("Keep up to", self.structure_size.native)
            main.addRow(self.show_removed.native)
        if self._face.follows_motion:
            main.addRow("Frames", self.frames.native)
            main.addRow("Exposure", self.exposure.native)
            main.addRow(self.show_motion.native)
        main.addRow(self._channels_label, self.channels.native)
        self.all_channels.setVisible(False)
        main.addRow("", self.all_channels)
        main.addRow("Region", self.region.native)
        main.addRow(self._slices_label, self.slices.native)
        more.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        more.addRow("Model", self.model.native)
        more.addRow("Run on", self.place.native)
        more.addRow(self._address_label, self.address.native)
        more.addRow("Device", self.device.native)
        more.addRow("Tile", self.tile.native)
        more.addRow("Range", self.keep_range.native)
        if self._face.follows_motion:
            more.addRow("Time axis", self.time_axis.native)
        more.addRow("", self.hide_source.native)
        more.addRow("", self.replace_earlier.native)

    def _models(self) -> list[str]:
        task = self._face.task
        return ["auto", *(spec.name for spec in CATALOG if spec.task == task), *own_names(task)]

    def suit(self, sources: Sequence[Image], layers: Sequence[Layer]) -> None:
        """Fit units, and what can be set, to the selected layers among all."""
        models = self._models()
        if list(self.model.choices) != models:
            # The library has changed.
            self.model.choices = models
        if self._face.undoes_blur:
            deep = self._face.in_space and self.dimensions.value != 2
            self.psf.suit(sources, layers, deep)
            self.psf.source.enabled = not (self._face.follows_motion and self.frames.value == 2)
        for row in (self._address_label, self.address.native):
            row.setVisible(self.place.value == _CLUSTER)
        stacks = any(layer.ndim > 2 for layer in sources)
        for row in (self._channels_label, self.channels.native):
            # A choice that was made stays in sight.
            row.setVisible(stacks or self.channels.value != "auto")
        for row in (self._slices_label, self.slices.native):
            row.setVisible(self.region.value == SLICES)
        for row in (self._dimensions_label, self.dimensions.native):
            row.setVisible(self._face.in_space and (stacks or self.dimensions.value != "auto"))
        for row in (self._method_label, self.method.native):
            told = self.psf.tells or self.method.value != "network"
            row.setVisible(self._face.in_space and told)
        if self._face.removes_light:
            self._name_unit(sources)
        if self._face.follows_motion:
            for control in (self.exposure, self.time_axis):
                control.enabled = self.frames.value == 2

    def _name_unit(self, sources: Sequence[Image]) -> None:
        """Say in which unit the size of structures is: that of the topmost selected layer."""
        side, unit = 1.0, "px"
        if sources:
            side, unit = side_of_pixel({"scale": sources[-1].scale, "units": sources[-1].units})
        control = self.structure_size.native
        control.setSuffix(f" {unit}")
        # As fine as one pixel, but never coarser than what is entered.
        digits = min(12, max(0, math.ceil(-math.log10(side))))
        if round(control.value(), digits) == control.value():
            control.setDecimals(digits)
            control.setSingleStep(10.0**-digits)


def _remember(address: str) -> None:
    Controls._last_address = address
