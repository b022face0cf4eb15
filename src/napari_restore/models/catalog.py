"""The models that ship with the package: one explicit table."""

from __future__ import annotations

from pathlib import Path

from napari_restore.errors import ModelError

from .spec import TASKS, ModelSpec

#: Options of the networks that sharpen, but for their channels.
SHARPENER: dict[str, object] = {
    "width": 32,
    "encoder_blocks": (2, 4),
    "middle_blocks": 6,
    "decoder_blocks": (2, 2),
    "unshuffle": 2,
}

#: Options of the networks that remove defocus, but for their channels.
DEBLURRER: dict[str, object] = {
    "widths": (48, 96, 192),
    "encoder_blocks": (1, 4),
    "middle_blocks": 3,
    "decoder_blocks": (4, 1),
    "unshuffle": 2,
    "estimates": 1,
}

#: Light of other planes is wide: one level more than for blur, to see twice as far.
OUT_OF_FOCUS_LIGHT: dict[str, object] = {
    "channels": 1,
    "widths": (32, 64, 128, 192),
    "encoder_blocks": (1, 1, 2),
    "middle_blocks": 2,
    "decoder_blocks": (2, 1, 1),
    "unshuffle": 2,
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
    ),
    ModelSpec(
        name="dehaze-color",
        task="dehaze",
        channels=3,
        architecture="affine",
        weights="dehaze-color.safetensors",
        sha256="698d52d9581398afe3b18d328a012204bb46f9ad9903186ffb6f005cca628350",
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
        architecture="resunet",
        weights="dehaze-mono.safetensors",
        sha256="166566f1408f604f38aa435368bf0ffca391017aeee611bc3aba34d8b0ff49ca",
        options=OUT_OF_FOCUS_LIGHT,
        multiple_of=16,
        halo=160,
    ),
    ModelSpec(
        name="motion-color",
        task="motion_deblur",
        channels=3,
        architecture="nafnet",
        weights="motion-color.safetensors",
        sha256="36bab093267a27aae3dfaa673d00494de4fad74a37e7840da99144040346b7bb",
        options={"channels": 3, **SHARPENER},
    ),
    ModelSpec(
        name="motion-mono",
        task="motion_deblur",
        channels=1,
        architecture="nafnet",
        weights="motion-mono.safetensors",
        sha256="6033323cbd218845b5eed5823941397e2115b76817ee171c30b9889b34708658",
        options={"channels": 1, **SHARPENER},
        halo=64,
    ),
)


def check_task(task: str) -> None:
    """Raise a `ModelError` unless there is such a task."""
    if task not in TASKS:
        raise ModelError(f"No task '{task}'. Choose one of: {', '.join(TASKS)}.")


def find_model(task: str, channels: int, model: str = "auto") -> ModelSpec:
    """Find the model for an image.

    Parameters
    ----------
    task : str
        One of `TASKS`.
    channels : {1, 3}
        What the image has.
    model : str
        "auto" for the first of the catalogue that fits, a name of the catalogue, or the path of
        weights in ``.safetensors`` or of a published NAFNet checkpoint in ``.pth``.

    Raises
    ------
    ModelError
        If the task or the model does not exist or does not fit the image.
    """
    check_task(task)
    if model == "auto":
        return next(s for s in CATALOG if s.task == task and s.channels == channels)
    if Path(str(model)).suffix in (".safetensors", ".pth", ".pt"):
        from .files import spec_from_file

        spec = spec_from_file(Path(str(model)), task)
    else:
        found = [s for s in CATALOG if s.name == model]
        if not found:
            names = ", ".join(s.name for s in CATALOG)
            raise ModelError(
                f"No model '{model}'. Choose auto, one of {names}, or a .safetensors or .pth file."
            )
        spec = found[0]
    if spec.task != task:
        fitting = ", ".join(s.name for s in CATALOG if s.task == task)
        raise ModelError(
            f"Model '{spec.name}' is for {spec.task}, not {task}. Choose one of: {fitting}."
        )
    if spec.channels != channels:
        other = "mono" if channels == 1 else "color"
        raise ModelError(
            f"Model '{spec.name}' needs {spec.channels} channel{'s' if spec.channels > 1 else ''}; "
            f"the image has {channels}. Choose a {other} model, or 'auto'."
        )
    return spec
