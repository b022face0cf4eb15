"""Packages of bioimage.io (model description 0.5): out as TorchScript, in as known weights.

Source: https://bioimage.io/docs, specification of the format_version 0.5.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError, ModelError
from napari_restore.image.intensity import PERCENTILES
from napari_restore.runtime import installed_version, whole_file

from .catalog import ARCHITECTURES, build_network, load_weights, refuse_unless_local

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import ModelSpec

_FORMAT = "0.5.4"
_HOME = "https://github.com/napari-restore/napari-restore"
#: Our own file in a package: it keeps its hash and its card.
WEIGHTS = "napari-restore.safetensors"
#: Most bytes that are read of a member, and of the description.
_MOST, _MOST_TEXT = 4 << 30, 1 << 20


def write_package(spec: ModelSpec, card: str, target: Path) -> None:
    """Write a model as a package with a test input and its output.

    Parameters
    ----------
    spec : ModelSpec
        Of a network that restores a part of an image from that part alone.
    card : str
        Markdown.
    target : Path
        Appears whole or not at all.

    Raises
    ------
    ModelError
        If the network needs more than a part of the image.
    """
    if spec.as_it_is:
        raise ModelError(
            f"'{spec.name}' is a network of others, which is not packaged here. Export it as "
            ".safetensors, and hand on the file that it was imported from."
        )
    refuse_unless_local(spec, "A package of bioimage.io")
    script, test, result = _traced(spec)
    files = {
        "weights.pt": script,
        "input.npy": _npy(test),
        "output.npy": _npy(result),
        "README.md": card.encode(),
        WEIGHTS: spec.path.read_bytes(),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    description = _description(spec, hashes, list(test.shape[-2:]))
    # JSON is YAML.
    text = json.dumps(description, indent=1, ensure_ascii=False)
    with whole_file(target) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as package:
            package.writestr("rdf.yaml", text)
            for name, content in files.items():
                package.writestr(name, content)


def _traced(spec: ModelSpec) -> tuple[bytes, Any, Any]:
    """TorchScript of the network, a test input (1, C, H, W) as files have it, and its output."""
    import numpy as np
    import torch

    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_weights(spec))
    network.eval().requires_grad_(False)
    side = _least(spec) + 4 * spec.multiple_of
    rng = np.random.default_rng(0)
    coarse = rng.random((spec.channels, side // 8 + 1, side // 8 + 1))
    fine = coarse.repeat(8, 1).repeat(8, 2)[None, :, :side, :side]
    noisy = fine + rng.normal(0, 0.03, fine.shape)
    test = (255 * noisy).clip(0, 255).round().astype(np.float32)
    seen = torch.from_numpy(test)
    if spec.channels == 3:
        seen = seen / 255
    else:
        low, high = (float(np.percentile(test, end)) for end in PERCENTILES)
        seen = (seen - low) / (high - low + 1e-6)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch gives TorchScript up; the consumers of packages still want it.
        warnings.simplefilter("ignore", DeprecationWarning)
        script: Any = torch.jit.trace(network, seen, check_trace=False)
        result = script(seen).numpy()
        buffer = io.BytesIO()
        torch.jit.save(script, buffer)
    return buffer.getvalue(), test, result


def _least(spec: ModelSpec) -> int:
    """Shortest side that leaves something between the halos."""
    step = spec.multiple_of
    return (2 * spec.halo // step + 2) * step


def _description(spec: ModelSpec, hashes: dict[str, str], size: list[int]) -> dict[str, Any]:
    import torch

    color = spec.channels == 3
    channels = ["red", "green", "blue"] if color else ["intensity"]
    scaling: dict[str, Any] = (
        {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}
        if color
        else {
            "id": "scale_range",
            "kwargs": {
                "axes": ["channel", "y", "x"],
                "min_percentile": PERCENTILES[0],
                "max_percentile": PERCENTILES[1],
                "eps": 1e-6,
            },
        }
    )

    def axes(sizes: Any, **more: Any) -> list[dict[str, Any]]:
        plane = [{"type": "space", "id": name, "size": sizes(name), **more} for name in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *plane]

    step = {"min": _least(spec), "step": spec.multiple_of}
    source = ARCHITECTURES[spec.architecture].replace(":", ".")
    return {
        "type": "model",
        "format_version": _FORMAT,
        "name": re.sub(r"[^\w +()-]", " ", spec.name)[:128],
        "description": f"{spec.task.replace('_', ' ')} of {spec.kind} images (napari-restore)",
        "authors": [{"name": "The napari-restore founders"}],
        "cite": [{"text": "napari-restore", "url": _HOME}],
        "license": spec.license,
        "git_repo": _HOME,
        "documentation": "README.md",
        "tags": ["napari", "restoration", spec.task, "2d", "pytorch"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "attachments": [{"source": WEIGHTS, "sha256": hashes[WEIGHTS]}],
        "inputs": [
            {
                "id": "input",
                "description": "8-bit color" if color else "gray values of any unit",
                "axes": axes(lambda name: step),
                "data": {"type": "float32"},
                "preprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    scaling,
                ],
                "test_tensor": {"source": "input.npy", "sha256": hashes["input.npy"]},
            }
        ],
        "outputs": [
            {
                "id": "output",
                "description": "restored, in the range that the preprocessing gives",
                "axes": axes(lambda name: {"tensor_id": "input", "axis_id": name}, halo=spec.halo),
                "data": {"type": "float32"},
                "test_tensor": {"source": "output.npy", "sha256": hashes["output.npy"]},
            }
        ],
        "weights": {
            "torchscript": {
                "source": "weights.pt",
                "sha256": hashes["weights.pt"],
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {
            "napari_restore": {
                "task": spec.task,
                "architecture": source,
                "options": dict(spec.options),
                "weights_sha256": spec.sha256,
                "version": installed_version(),
            }
        },
    }


def _npy(array: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


# ---------------------------------------------------------------- in


def weights_in(package: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Take the weights of a network that is known here out of a package. Nothing in it is run.

    Parameters
    ----------
    package : Path
        A ``.zip``.
    folder : Path
        Where the file of weights is put.

    Returns
    -------
    Path
        Safetensors, or a state dict of which only tensors are to be read.
    dict
        What the package says: ``task``, ``license``, ``architecture``, ``options`` (JSON).

    Raises
    ------
    ModelError
        If it holds no such network; the message says why.
    """
    try:
        with zipfile.ZipFile(package) as opened:
            return _weights_in(opened, package, folder)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise FileError(f"{package} cannot be read as a package ({error}).") from error


def _weights_in(
    opened: zipfile.ZipFile, package: Path, folder: Path
) -> tuple[Path, dict[str, str]]:
    import yaml

    names = opened.namelist()
    described = next((name for name in ("rdf.yaml", "bioimageio.yaml") if name in names), None)
    if described is None:
        raise ModelError(f"{package} is no package of bioimage.io: it has no rdf.yaml.")
    try:
        description = yaml.safe_load(_read(opened, described, _MOST_TEXT))
    except yaml.YAMLError as error:
        raise ModelError(f"The rdf.yaml of {package} is damaged ({error}).") from error
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{package} describes no model.")
    said = {"license": str(description.get("license", "unknown"))}
    if WEIGHTS in names:
        return _put(opened, WEIGHTS, folder), said
    weights = description.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    entry = weights.get("pytorch_state_dict")
    if not isinstance(entry, dict):
        kinds = ", ".join(map(str, weights)) or "none"
        raise ModelError(
            f"{package} has weights as {kinds}. Those are programs of their own, which are not run "
            "here: only tensors of known networks are (pytorch_state_dict)."
        )
    architecture = entry.get("architecture")
    architecture = architecture if isinstance(architecture, dict) else {}
    if "source" in architecture:
        raise ModelError(
            f"The network of {package} is a program of its own ({architecture['source']}), which "
            f"would have to be run. Known networks are: {', '.join(ARCHITECTURES)}."
        )
    asked = f"{architecture.get('import_from')}:{architecture.get('callable')}"
    known = {place: name for name, place in ARCHITECTURES.items()}
    if asked not in known:
        raise ModelError(
            f"The network of {package} is '{asked}', which is not known here. Known networks are: "
            f"{', '.join(ARCHITECTURES)}."
        )
    config = description.get("config")
    ours = config.get("napari_restore") if isinstance(config, dict) else None
    if isinstance(ours, dict) and isinstance(ours.get("task"), str):
        said["task"] = ours["task"]
    said["architecture"] = known[asked]
    said["options"] = json.dumps(architecture.get("kwargs") or {})
    source = str(entry.get("source"))
    if source not in names:
        raise ModelError(f"{package} names the weights '{source}', which are not in it.")
    path = _put(opened, source, folder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if entry.get("sha256") not in (None, digest):
        raise ModelError(
            f"{package} is damaged: the hash of '{source}' is not that which it names."
        )
    return path, said


def _read(opened: zipfile.ZipFile, name: str, most: int) -> bytes:
    with opened.open(name) as member:
        content = member.read(most + 1)
    if len(content) > most:
        raise ModelError(f"'{name}' in the package has more than {most} bytes.")
    return content


def _put(opened: zipfile.ZipFile, name: str, folder: Path) -> Path:
    # The name of a member may lead anywhere: its ending alone is taken.
    suffix = ".safetensors" if name.endswith(".safetensors") else ".pth"
    path = folder / f"weights{suffix}"
    path.write_bytes(_read(opened, name, _MOST))
    return path
