"""What a model is, as the catalog states it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from napari_restore.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

#: What can be asked for.
TASKS = ("deblur", "dehaze", "motion_deblur")

#: Architectures by name; the module is imported when the first network is built.
ARCHITECTURES = {
    "nafnet": "napari_restore.networks.nafnet:NAFNet",
    "resunet": "napari_restore.networks.resunet:ResUNet",
    "inverter": "napari_restore.networks.inverter:Inverter",
    "volume": "napari_restore.networks.volume_inverter:VolumeInverter",
    "unveil": "napari_restore.networks.unveil_net:UnveilNet",
    "affine": "napari_restore.networks.dehaze_net:DehazeNet",
    "motion": "napari_restore.networks.motion_net:MotionRestorer",
    "framepair": "napari_restore.networks.motion_net:FramePairRestorer",
}

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalog.

    Attributes
    ----------
    name : str
    task : str
        One of `TASKS`.
    channels : int
        3 for color, 1 for mono.
    architecture : str
        Key of `ARCHITECTURES`.
    weights : str
        File name in the package's weights folder, or a path.
    sha256 : str or None
        Of the weights; None leaves them unchecked (a user's own file).
    options : mapping
        Arguments of the network.
    multiple_of : int
        Sides of what the network gets are multiples of this many pixels.
    halo : int
        Pixels around a tile that influence it noticeably.
    view : int
        Longest side of the view of the whole plane that the network wants, 0 for none.
    frames : int
        Consecutive frames that the network looks at to restore one: 1 or 2.
    psf : bool
        Whether it is told the point spread function. Such a model serves several tasks, and is
        chosen by the point spread function and not by name.
    gauge : str
        What it estimates beside: "blur", "motion", or nothing.
    black_is_zero : bool
        Whether intensities are scaled from 0, where black has a physical meaning, instead of from a
        low percentile.
    licence : str
    """

    name: str
    task: str
    channels: int
    architecture: str
    weights: str
    sha256: str | None
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    multiple_of: int = 8
    halo: int = 48
    view: int = 0
    frames: int = 1
    psf: bool = False
    gauge: str = ""
    black_is_zero: bool = False
    licence: str = "BSD-3-Clause"

    @property
    def path(self) -> Path:
        """Where the weights are."""
        return WEIGHTS_FOLDER / self.weights

    @property
    def goes_by_rows(self) -> bool:
        """Whether a processor needs no more memory for a large tile, see `models.by_rows`."""
        return self.architecture != "nafnet" and not self.options.get("normalize")

    @property
    def kind(self) -> str:
        """What it restores: ``color`` or ``mono``."""
        return "color" if self.channels == 3 else "mono"


def build_network(architecture: str, options: Mapping[str, object]) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    architecture : str
        Key of `ARCHITECTURES`.
    options : mapping
        Arguments of the network's class.

    Raises
    ------
    ModelError
        If there is no such architecture, or not with these options.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"No architecture '{architecture}'. Choose one of: {', '.join(ARCHITECTURES)}."
        )
    module, _, name = ARCHITECTURES[architecture].partition(":")
    try:
        network: nn.Module = getattr(import_module(module), name)(**options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"No '{architecture}' with {dict(options)}: {error}.") from error
    return network
