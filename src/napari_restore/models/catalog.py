"""The models: what each is, which ship, and their weights and checkpoints on disk."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from napari_restore.errors import ModelError
from napari_restore.runtime import torch, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

#: What can be asked for.
TASKS = ("deblur", "dehaze", "motion_deblur", "denoise")

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
    "spandrel": "napari_restore.networks.spandrel_net:SpandrelNet",
}

#: Architectures that look at a bounded part of one frame, and nothing else.
_LOCAL = ("nafnet", "resunet", "spandrel")
#: Architectures that are told a point spread function, and how far one for planes looks.
_TOLD = ("inverter", "volume")
_TOLD_HALO = 192

#: Ending of the user's models; what comes before it is the name.
OWN_SUFFIX = ".safetensors"
#: File beside them that says which of them "auto" takes.
DEFAULTS = "defaults.json"
#: Where the weights of the bundled models are.
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
        Whether it is told the point spread function. Those that ship serve several tasks, and are
        chosen by the point spread function and not by name.
    estimator : str
        What it estimates beside: "blur", "motion", or nothing.
    black_is_zero : bool
        Whether intensities are scaled from 0, where black has a physical meaning, instead of from a
        low percentile.
    license : str
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
    estimator: str = ""
    black_is_zero: bool = False
    license: str = "BSD-3-Clause"

    @property
    def path(self) -> Path:
        """Where the weights are."""
        return WEIGHTS_FOLDER / self.weights

    @property
    def goes_by_rows(self) -> bool:
        """Whether a processor needs no more memory for a large tile, see `networks.cpu`."""
        ours = self.architecture not in ("nafnet", "spandrel")
        return ours and not self.options.get("normalize")

    @property
    def as_it_is(self) -> bool:
        """Whether its network was written elsewhere, and is computed in no other way."""
        return self.architecture == "spandrel"

    @property
    def kind(self) -> str:
        """What it restores: ``color`` or ``mono``."""
        return "color" if self.channels == 3 else "mono"


def build_network(
    architecture: str, options: Mapping[str, object], device: str = "cpu"
) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    architecture : str
        Key of `ARCHITECTURES`.
    options : mapping
        Arguments of the network's class.
    device : str
        Where its weights are made; with "meta" they take no memory.

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
    # Imported before: constants of a module are made once, and have to be real ones.
    build = getattr(import_module(module), name)
    try:
        with torch.device(device):
            network: nn.Module = build(**options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"No '{architecture}' with {dict(options)}: {error}.") from error
    return network


#: Options of the networks that remove defocus, but for their channels.
DEBLURRER: dict[str, object] = {
    "widths": (48, 96, 192),
    "encoder_blocks": (1, 4),
    "middle_blocks": 3,
    "decoder_blocks": (4, 1),
    "unshuffle": 2,
    "estimates": 1,
}

#: Options of the networks that remove noise, but for their channels: the same network.
DENOISER: dict[str, object] = {key: DEBLURRER[key] for key in DEBLURRER if key != "estimates"}

#: Options of the networks that invert a known blur, but for their channels.
INVERTER: dict[str, object] = DENOISER

#: Options of the network that restores volumes: steps after which it sees an estimate.
VOLUME_STAGES = (3, 7, 14, 28)
VOLUME: dict[str, object] = {"stages": VOLUME_STAGES, "width": 16, "layers": 2}

#: Motion blur is wide too.
_ALONG_MOTION: dict[str, object] = {
    "widths": (32, 64, 128, 192),
    "encoder_blocks": (1, 2, 1),
    "middle_blocks": 1,
    "decoder_blocks": (1, 2, 1),
    "unshuffle": 2,
}
#: Options of the networks that restore one frame along its motion, but for their channels.
MOTION_DEBLURRER: dict[str, object] = {"restorer": _ALONG_MOTION}
#: Options of the networks that restore a frame along the motion to its neighbor.
FRAME_PAIR: dict[str, object] = {
    "flow": {"widths": (24, 32, 48, 64), "decoder": (80, 64, 48), "radius": 4},
    "restorer": _ALONG_MOTION,
}

#: Light of other planes is wide: one level more than for blur, to see twice as far.
OUT_OF_FOCUS_LIGHT: dict[str, object] = {
    "channels": 1,
    "widths": (32, 64, 128, 192),
    "encoder_blocks": (1, 1, 2),
    "middle_blocks": 2,
    "decoder_blocks": (2, 1, 1),
    "unshuffle": 2,
    "view": 512,
}
HAZE: dict[str, object] = {
    "channels": 3,
    "widths": (48, 96, 192),
    "encoder_blocks": (1, 2),
    "middle_blocks": 3,
    "decoder_blocks": (1, 1),
    "view": 256,
    "unshuffle": 4,
}

# Halos are measured: benchmarks/halo.py.
CATALOG: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="deblur-color",
        task="deblur",
        channels=3,
        architecture="resunet",
        weights="deblur-color.safetensors",
        sha256="69c9c98b0410b2c4adb87af9c9ae252d05d4d14ca2340eefdcb0b059b47542ad",
        options={"channels": 3, **DEBLURRER},
        halo=128,
        estimator="blur",
    ),
    ModelSpec(
        name="deblur-mono",
        task="deblur",
        channels=1,
        architecture="resunet",
        weights="deblur-mono.safetensors",
        sha256="c2cdad796b5ffc21c1c3b960f2ae74425ceb8b9738a5900832a48f5e3e9b088f",
        options={"channels": 1, "keep_mean": True, **DEBLURRER},
        halo=128,
        estimator="blur",
    ),
    ModelSpec(
        name="denoise-color",
        task="denoise",
        channels=3,
        architecture="resunet",
        weights="denoise-color.safetensors",
        sha256="e9870301159f223181428751dbb28927e2da1307f0d6ac56e7a3a6bf72bd15be",
        options={"channels": 3, **DENOISER},
        halo=128,
    ),
    ModelSpec(
        name="denoise-mono",
        task="denoise",
        channels=1,
        architecture="resunet",
        weights="denoise-mono.safetensors",
        sha256="221bc9801dc3c03eac7e4f7f1e0ec741c2e5ac7896bd0bd323d7d3c032a98823",
        options={"channels": 1, "keep_mean": True, **DENOISER},
        halo=128,
    ),
    ModelSpec(
        name="dehaze-color",
        task="dehaze",
        channels=3,
        architecture="affine",
        weights="dehaze-color.safetensors",
        sha256="0e2c7c9d1b148ce8fa12c251bf7d2edead4cde35221ccd67723f02681a496839",
        options=HAZE,
        multiple_of=1,
        halo=0,
        view=256,
        black_is_zero=True,
    ),
    ModelSpec(
        name="dehaze-mono",
        task="dehaze",
        channels=1,
        architecture="unveil",
        weights="dehaze-mono.safetensors",
        sha256="51b54104bf4a8bd2ec2195f0d455ef2fbea747dbd51a0d309d38754d29ff51a6",
        options=OUT_OF_FOCUS_LIGHT,
        multiple_of=16,
        halo=160,
        view=512,
    ),
    ModelSpec(
        name="motion-color",
        task="motion_deblur",
        channels=3,
        architecture="motion",
        weights="motion-color.safetensors",
        sha256="d47f755c61f1b883f59311edadfb428724843cd49af68f762a82ae8d8435985e",
        options={"channels": 3, **MOTION_DEBLURRER},
        multiple_of=16,
        halo=160,
        estimator="motion",
    ),
    ModelSpec(
        name="motion-mono",
        task="motion_deblur",
        channels=1,
        architecture="motion",
        weights="motion-mono.safetensors",
        sha256="a9a7e84b86d6428a5b0f8a284f1a6b022ba69b65ad142238a661a54e4eda8a82",
        options={"channels": 1, **MOTION_DEBLURRER},
        multiple_of=16,
        halo=160,
        estimator="motion",
    ),
    ModelSpec(
        name="motion-frames-color",
        task="motion_deblur",
        channels=3,
        architecture="framepair",
        weights="motion-frames-color.safetensors",
        sha256="7775c13a7b31d5b55b5ffc17c72b561e68a993b015cb5b639b4c0888a440e833",
        options={"channels": 3, **FRAME_PAIR},
        halo=192,
        multiple_of=16,
        frames=2,
        estimator="motion",
    ),
    ModelSpec(
        name="motion-frames-mono",
        task="motion_deblur",
        channels=1,
        architecture="framepair",
        weights="motion-frames-mono.safetensors",
        sha256="267fd77a24646ccfd95381e74b079e860efff8d03ab53094c1b34dea70c03d73",
        options={"channels": 1, **FRAME_PAIR},
        halo=192,
        multiple_of=16,
        frames=2,
        estimator="motion",
    ),
)


#: Networks that invert a point spread function, by the channels of the image.
INVERTERS: dict[int, ModelSpec] = {
    1: ModelSpec(
        name="invert-mono",
        task="deblur",
        channels=1,
        architecture="inverter",
        weights="invert-mono.safetensors",
        sha256="fd53fb98fb59ec501c74070c4cfb9aa1b6285a0950c65cdaa6d5974878c7d756",
        options={"channels": 1, "keep_light": True, **INVERTER},
        halo=_TOLD_HALO,
        psf=True,
    ),
    3: ModelSpec(
        name="invert-color",
        task="deblur",
        channels=3,
        architecture="inverter",
        weights="invert-color.safetensors",
        sha256="ce153d96739d3ed1dfeda48d2298d7cb59533abdfa04f2ccf9dc7cc713a8f465",
        options={"channels": 3, **INVERTER},
        halo=_TOLD_HALO,
        psf=True,
    ),
}


#: The model that restores volumes with a known blur, gray or each color by itself.
VOLUME_INVERTER = ModelSpec(
    name="invert-volume",
    task="deblur",
    channels=1,
    architecture="volume",
    weights="invert-volume.safetensors",
    sha256="70c245e037bcbbd8cf1364576d1d742767cae87340f9200c58cacb05d4ba80ab",
    options=VOLUME,
    multiple_of=1,
    halo=0,
    psf=True,
)

#: All that ships: models that can be chosen, and those that a point spread function chooses.
SHIPPED: tuple[ModelSpec, ...] = (*CATALOG, *INVERTERS.values(), VOLUME_INVERTER)


def check_task(task: str) -> None:
    """Raise a `ModelError` unless there is such a task."""
    if task not in TASKS:
        raise ModelError(f"No task '{task}'. Choose one of: {', '.join(TASKS)}.")


def find_model(task: str, channels: int, model: str = "auto", frames: int = 1) -> ModelSpec:
    """Find the model for an image.

    Parameters
    ----------
    task : str
        One of `TASKS`.
    channels : {1, 3}
        What the image has.
    model : str
        "auto" for the user's default for this kind of image, else the first of the catalog that
        fits; a name of the catalog or of the user's library; or the path of weights in
        ``.safetensors`` or of a published NAFNet checkpoint in ``.pth``.
    frames : {1, 2}
        How many consecutive frames it looks at to restore one.

    Raises
    ------
    ModelError
        If the task or the model does not exist or does not fit the image.
    """
    check_task(task)
    if model == "auto":
        own = default_for(task, "color" if channels == 3 else "mono") if frames == 1 else None
        return bundled_model(task, channels, frames) if own is None else own_model(own)
    if Path(str(model)).suffix in (".safetensors", ".pth", ".pt"):
        spec = spec_from_file(Path(str(model)), task)
    else:
        spec = _named(str(model))
    if spec.task != task:
        fitting = ", ".join(s.name for s in CATALOG if s.task == task)
        raise ModelError(
            f"Model '{spec.name}' is for {spec.task}, not {task}. Choose one of: {fitting}."
        )
    if spec.frames != frames:
        raise ModelError(
            f"Model '{spec.name}' looks at {spec.frames} frame{'s' if spec.frames > 1 else ''} to "
            f"restore one, and frames is {frames}. Choose another model, or frames={spec.frames}."
        )
    if spec.channels != channels:
        other = "mono" if channels == 1 else "color"
        raise ModelError(
            f"Model '{spec.name}' needs {spec.channels} channel{'s' if spec.channels > 1 else ''}; "
            f"the image has {channels}. Choose a {other} model, or 'auto'."
        )
    return spec


def bundled_model(task: str, channels: int, frames: int = 1) -> ModelSpec:
    """Find the model that ships for an image; see `find_model`."""
    for candidate in CATALOG:
        if (candidate.task, candidate.channels, candidate.frames) == (task, channels, frames):
            return candidate
    raise ModelError(f"No model for {task} looks at {frames} frames. Leave frames at 1.")


def refuse_unless_local(spec: ModelSpec, file: str) -> None:
    """Raise a `ModelError` if a model needs more than a part of the image.

    Parameters
    ----------
    spec : ModelSpec
    file : str
        What it was to become, for the message.
    """
    if spec.architecture not in _LOCAL:
        needs = (
            "is told a point spread function"
            if spec.psf
            else "looks at two frames"
            if spec.frames == 2
            else "looks at the whole image too"
            if spec.view
            else "moves pixels along a motion that it finds first"
        )
        raise ModelError(
            f"'{spec.name}' {needs}. {file} has no place for that. Export a model of deblur or "
            "denoise, or this one as .safetensors."
        )


# ---------------------------------------------------------------- the user's models


def own_folder() -> Path:
    """Where the user's models are, a file for each; it may not exist yet."""
    return Path(platformdirs.user_data_dir("napari-restore", appauthor=False)) / "models"


def own_files() -> dict[str, Path]:
    """Files of the user's models by their names, in alphabetical order."""
    files = own_folder().glob(f"*{OWN_SUFFIX}")
    found = {path.name.removesuffix(OWN_SUFFIX): path for path in files if path.name[0] != "."}
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def default_for(task: str, kind: str) -> str | None:
    """Name of the user's model that "auto" takes for a kind of image; None for the bundled one."""
    name = read_defaults().get(f"{task} {kind}")
    return name if isinstance(name, str) and name in own_files() else None


def read_defaults() -> dict[str, Any]:
    """Names of the models that "auto" takes, by task and kind of image."""
    try:
        known = json.loads((own_folder() / DEFAULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def own_model(name: str) -> ModelSpec:
    """Describe a model of the user's library.

    Raises
    ------
    ModelError
        If there is none of that name, or its file is damaged.
    """
    path = own_files().get(name)
    if path is None:
        raise ModelError(f"No model '{name}' in {own_folder()}.")
    state = path.stat()
    return _own(name, path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _own(name: str, path: Path, *state: int) -> ModelSpec:
    # In the library, the file's name is the model's.
    return replace(spec_from_file(path, TASKS[0]), name=name, weights=str(path))


def own_names(task: str, *, told: bool = True) -> list[str]:
    """Names of the user's models for a task, as their files say; builds no network.

    Parameters
    ----------
    task : str
    told : bool
        Also those that are told a point spread function.
    """
    said = {name: _said(path) for name, path in own_files().items()}
    return [
        name
        for name, metadata in said.items()
        if metadata.get("task") == task and (told or metadata.get("architecture") not in _TOLD)
    ]


def _said(path: Path) -> Mapping[str, str]:
    """Metadata of a file of the user's; none if it is damaged."""
    try:
        state = path.stat()
        return _said_by(path, state.st_mtime_ns, state.st_size)
    except (ModelError, OSError):
        return {}


@lru_cache(maxsize=256)
def _said_by(path: Path, *state: int) -> Mapping[str, str]:
    return read_metadata(path)


def adapted_to(spec: ModelSpec) -> dict[str, Any]:
    """Tell what a model was adapted to: an object with ``psf``, a record; empty if to nothing."""
    path = Path(spec.weights)
    if not spec.psf or not path.is_absolute() or path.suffix != ".safetensors":
        return {}
    try:
        found = json.loads(_said(path).get("adapted", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_own(spec: ModelSpec) -> bool:
    """Whether a model is in the user's library, here."""
    path = Path(spec.weights)
    return path.is_absolute() and own_files().get(spec.name) == path


def _named(model: str) -> ModelSpec:
    found = [spec for spec in CATALOG if spec.name == model]
    if found:
        return found[0]
    if model in own_files():
        return own_model(model)
    names = ", ".join([*(spec.name for spec in CATALOG), *own_files()])
    raise ModelError(
        f"No model '{model}'. Choose auto, one of {names}, or a .safetensors or .pth file."
    )


def load_weights(spec: ModelSpec) -> dict[str, Tensor]:
    """Read the weights of a model; on another computer than that of its file, by their hash.

    Raises
    ------
    ModelError
        If they are missing, damaged, or not the ones that were expected.
    """
    path, digest = spec.path, spec.sha256
    if Path(spec.weights).is_absolute() and digest is not None:
        if not path.is_file() or sha256(path) != digest:
            found = next((own for own in own_files().values() if sha256(own) == digest), None)
            if found is None:
                raise ModelError(
                    f"The weights of '{spec.name}' (SHA-256 {digest[:12]}…) are neither at {path} "
                    f"nor in {own_folder()}. Import them there: napari-restore models import FILE"
                )
            path = found
    return load_state(path, digest)


#: Side of the crops that published NAFNet weights were trained on, which their attention averages.
PUBLISHED_WINDOW = 384
#: Largest number among the options of a network: none has more channels, blocks or pixels.
_MOST = 4096
#: Largest ``multiple_of`` and halo of a network that was written elsewhere.
_MOST_STEP, _MOST_HALO = 64, 512


def spec_from_file(path: Path, task: str) -> ModelSpec:
    """Describe the model in a file.

    Parameters
    ----------
    path : Path
        Weights written by `napari_restore.training`, or a state dict with NAFNet's published keys.
    task : str
        Task of a checkpoint that does not say its own.

    Raises
    ------
    ModelError
        If the file is missing, unreadable or of an unknown network.
    """
    path = path.expanduser().resolve()
    try:
        return _spec(path, task)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # What a damaged file says of itself is of any type.
        raise ModelError(f"{path} describes no network: {error or repr(error)}.") from error


def _spec(path: Path, task: str) -> ModelSpec:
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    architecture = metadata.get("architecture", "nafnet")
    if architecture not in ARCHITECTURES:
        raise ModelError(f"{path} holds a '{architecture}', which this version does not know.")
    if "options" in metadata:
        options = _options(path, metadata["options"])
    else:
        options = published_options(load_state(path))
    _refuse_absurd(path, architecture, options)
    common: dict[str, Any] = {
        "name": metadata.get("name", path.stem),
        "task": metadata.get("task", task),
        "channels": int(options.get("channels", 3)),
        "architecture": architecture,
        "weights": str(path),
        "sha256": sha256(path),
        "options": options,
        # Weights of before, those that ship among them, have the British spelling.
        "license": metadata.get("license", metadata.get("licence", "unknown")),
    }
    if architecture == "spandrel":
        multiple, halo = int(metadata["multiple_of"]), int(metadata["halo"])
        if not (0 < multiple <= _MOST_STEP and 0 <= halo <= _MOST_HALO):
            raise ModelError(
                f"{path} has multiple_of {multiple} and halo {halo}; at most {_MOST_STEP} and "
                f"{_MOST_HALO} are supported."
            )
        return ModelSpec(**common, multiple_of=multiple, halo=halo)
    affine, views = architecture == "affine", {"affine": 256, "unveil": 512}
    pair, along = architecture == "framepair", architecture in ("framepair", "motion")
    inner = options.get("restorer", {}) if along else options
    levels = len(inner.get("encoder_blocks", (2, 4)))
    multiple = 1 if affine else int(inner.get("unshuffle", 2)) * 2**levels
    if along:
        # The cells of spectra, and the coarsest features that motion is found from.
        multiple = max(multiple, 16)
    if 16 % multiple:
        raise ModelError(
            f"{path} needs image sides in multiples of {multiple}; at most 16 is supported."
        )
    if architecture == "inverter":
        return ModelSpec(**common, multiple_of=multiple, halo=_TOLD_HALO, psf=True)
    window = options.get("attention_window")
    # Measured on the bundled models: two convolutions a block look twice as far as one.
    reach = (8 if architecture == "nafnet" else 16) * multiple
    return ModelSpec(
        **common,
        multiple_of=multiple,
        # An attention window looks half its side further than the convolutions.
        halo=0 if affine else reach + (window // 2 if window else 0),
        view=int(options.get("view", views[architecture])) if architecture in views else 0,
        frames=2 if pair else 1,
        estimator="motion" if along else "blur" if options.get("estimates") else "",
        black_is_zero=affine,
    )


def _refuse_absurd(path: Path, architecture: str, options: dict[str, Any]) -> None:
    """Raise a `ModelError` if a network cannot be in the file, before it takes any memory."""
    for key, number in _numbers(options):
        if not 0 <= number <= _MOST:
            raise ModelError(f"{path} has an option that no network has: {key} = {number}.")
    try:
        network = build_network(architecture, options, "meta")
    except ModelError as error:
        raise ModelError(f"{path} describes no network. {error}") from error
    count = sum(value.numel() for value in network.parameters())
    # Weights take two bytes at least.
    if 2 * count > path.stat().st_size:
        raise ModelError(
            f"{path} holds {path.stat().st_size} bytes, too few for the {count} weights of the "
            f"'{architecture}' that it describes. It is damaged, or was cut short."
        )


def _numbers(options: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Find all numbers in nested options."""
    if isinstance(options, dict):
        for name, value in options.items():
            yield from _numbers(value, name)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _numbers(value, key)
    elif isinstance(options, (int, float)):
        yield key, options


def _options(path: Path, text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ModelError(f"{path} has options that are not a JSON object: {text!r}.")
    return options


def published_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the options of a NAFNet off its published state-dict keys.

    Raises
    ------
    ModelError
        If the keys are not NAFNet's.
    """
    if "intro.weight" not in state or "ending.weight" not in state:
        raise ModelError(
            "The file is not a NAFNet state dict: it lacks 'intro.weight' or 'ending.weight'. "
            "Train one with 'napari-restore train', give a published NAFNet checkpoint, or import "
            "other published networks first: napari-restore models import FILE --task TASK"
        )
    attention = any(".sca." in key for key in state)
    return {
        "channels": int(state["intro.weight"].shape[1]),
        "width": int(state["intro.weight"].shape[0]),
        "encoder_blocks": _blocks(state, "encoders"),
        "middle_blocks": len(
            {key.split(".")[1] for key in state if key.startswith("middle_blks.")}
        ),
        "decoder_blocks": _blocks(state, "decoders"),
        "unshuffle": 1,
        "attention_window": PUBLISHED_WINDOW if attention else None,
    }


def is_published_nafnet(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a published NAFNet's; other networks have some of its keys."""
    try:
        network = build_network("nafnet", published_options(state), "meta")
    except (ModelError, ValueError, IndexError):
        return False
    return network.state_dict().keys() == state.keys()


def _blocks(state: Mapping[str, Tensor], part: str) -> list[int]:
    """Blocks of each level, from keys such as ``encoders.0.1.conv1.weight``."""
    places = {tuple(key.split(".")[1:3]) for key in state if key.startswith(f"{part}.")}
    counts = Counter(int(level) for level, _ in places)
    return [counts[level] for level in sorted(counts)]


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; computed once for each state of it."""
    state = path.stat()
    return _sha256(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=256)
def _sha256(path: Path, *state: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_weights(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any], *, half: bool = True
) -> None:
    """Write weights with metadata; the file appears whole or not at all.

    Parameters
    ----------
    path : Path
    state : mapping
        A state dict.
    metadata : mapping
        Anything JSON can hold; strings are kept, other values are written as JSON.
    half : bool
        As float16; else as they are.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if half:
        tensors = {key: value.to(torch.float16) for key, value in tensors.items()}
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, texts)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors.

    Raises
    ------
    ModelError
        If the file is missing or is not a safetensors file.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise ModelError(
            f"No weights at {path}. Reinstall the package or name another file."
        ) from None
    # Whatever the reader stumbles over.
    except Exception as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}).") from None


def load_state(path: Path, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict in float32, from ``.safetensors`` or from ``.pth`` without unpickling code.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or not the one that was expected.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(f"No weights at {path}. Reinstall the package or name another file.")
    if expected_sha256 is not None and sha256(path) != expected_sha256:
        raise ModelError(
            f"{path} is damaged: its SHA-256 is not the catalog's. Reinstall the package."
        )
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            # Published checkpoints wrap their state dict.
            for key in ("params", "params_ema", "state_dict", "model_state_dict", "model", "net"):
                state = state.get(key, state) if isinstance(state, dict) else state
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        # Torch explains in several lines.
        brief = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(f"{path} cannot be read as weights: {brief}") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for a file that holds more than tensors.
        raise ModelError(
            f"{path} holds more than tensors, or is damaged, and was not opened. Save the tensors "
            "alone, by name, best as .safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path} is not a state dict: it must hold nothing but named tensors.")
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{path} is damaged: '{key}' holds values that are not finite.")
    return {key: value.float() for key, value in state.items()}
