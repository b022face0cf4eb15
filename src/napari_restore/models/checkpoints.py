"""Models from a user's own file: trained here, or a published NAFNet checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from napari_restore.device import torch
from napari_restore.errors import ModelError

from .spec import ARCHITECTURES, ModelSpec, build_network
from .weights import load_state, read_metadata, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

#: Side of the crops that published NAFNet weights were trained on, which their attention averages.
PUBLISHED_WINDOW = 384
#: Largest number among the options of a network: none has more channels, blocks or pixels.
_MOST = 4096


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
    window = options.get("attention_window")
    # Measured on the bundled models: two convolutions a block look twice as far as one.
    reach = (8 if architecture == "nafnet" else 16) * multiple
    return ModelSpec(
        name=metadata.get("name", path.stem),
        task=metadata.get("task", task),
        channels=int(options.get("channels", 3)),
        architecture=architecture,
        weights=str(path),
        sha256=sha256(path),
        options=options,
        multiple_of=multiple,
        # An attention window looks half its side further than the convolutions.
        halo=0 if affine else reach + (window // 2 if window else 0),
        view=int(options.get("view", views[architecture])) if architecture in views else 0,
        frames=2 if pair else 1,
        gauge="motion" if along else "blur" if options.get("estimates") else "",
        black_is_zero=affine,
        licence=metadata.get("licence", "unknown"),
    )


def _refuse_absurd(path: Path, architecture: str, options: dict[str, Any]) -> None:
    """Raise a `ModelError` if a network cannot be in the file, before it takes any memory."""
    for key, number in _numbers(options):
        if not 0 <= number <= _MOST:
            raise ModelError(f"{path} has an option that no network has: {key} = {number}.")
    try:
        with torch.device("meta"):
            network = build_network(architecture, options)
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
            "Train one with 'napari-restore train', or give a published NAFNet checkpoint."
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


def _blocks(state: Mapping[str, Tensor], part: str) -> list[int]:
    """Blocks of each level, from keys such as ``encoders.0.1.conv1.weight``."""
    places = {tuple(key.split(".")[1:3]) for key in state if key.startswith(f"{part}.")}
    counts = Counter(int(level) for level, _ in places)
    return [counts[level] for level in sorted(counts)]
