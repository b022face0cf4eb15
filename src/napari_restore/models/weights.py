"""Weights on disk: half-precision safetensors whose metadata says how they were made."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from napari_restore.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from torch import Tensor


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights as float16 with metadata; the file appears whole or not at all.

    Parameters
    ----------
    path : Path
    state : mapping
        A state dict.
    metadata : mapping
        Anything JSON can hold; strings are kept, other values are written as JSON.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {
        key: value.detach().cpu().to(torch.float16).contiguous() for key, value in state.items()
    }
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, texts)
    temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    os.replace(temporary, path)


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
            for key in ("params", "params_ema", "state_dict", "model"):
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
        raise ModelError(f"{path} is not a state dict: it must hold tensors by name, alone.")
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{path} is damaged: '{key}' holds values that are not finite.")
    return {key: value.float() for key, value in state.items()}
