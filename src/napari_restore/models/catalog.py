"""The models that ship with the package: one explicit table."""

from __future__ import annotations

from pathlib import Path

from napari_restore.errors import ModelError

from .spec import TASKS, ModelSpec

#: Options of the networks that remove defocus, but for their channels.
DEBLURRER: dict[str, object] = {
    "widths": (48, 96, 192),
    "encoder_blocks": (1, 4),
    "middle_blocks": 3,
    "decoder_blocks": (4, 1),
    "unshuffle": 2,
    "estimates": 1,
}

#: Options of the networks that invert a known blur, but for their channels.
INVERTER: dict[str, object] = {key: DEBLURRER[key] for key in DEBLURRER if key != "estimates"}

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
        gauge="blur",
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
        gauge="blur",
    ),
    ModelSpec(
        name="dehaze-color",
        task="dehaze",
        channels=3,
        architecture="affine",
        weights="dehaze-color.safetensors",
        sha256="225a4480c5e6d86bca63aabde5860f262b2967b544c585247fb91c9a63b1c66f",
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
        gauge="motion",
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
        gauge="motion",
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
        gauge="motion",
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
        gauge="motion",
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
        sha256="23343ae7de2d56aab3e9b7c93a7660f6381ce6d47db81dce761feb42c93aae41",
        options={"channels": 1, "keep_light": True, **INVERTER},
        halo=192,
        psf=True,
    ),
    3: ModelSpec(
        name="invert-color",
        task="deblur",
        channels=3,
        architecture="inverter",
        weights="invert-color.safetensors",
        sha256="8174afbf43bb4011fdefba87a967b4abf922e19af40bf9bf361996ca711ec2d5",
        options={"channels": 3, **INVERTER},
        halo=192,
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
    sha256="8ce1dac3ec0352793a365e1a916c32e2a3ef44eaca61248ea189a743645207d9",
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
        "auto" for the first of the catalog that fits, a name of the catalog, or the path of
        weights in ``.safetensors`` or of a published NAFNet checkpoint in ``.pth``.
    frames : {1, 2}
        How many consecutive frames it looks at to restore one.

    Raises
    ------
    ModelError
        If the task or the model does not exist or does not fit the image.
    """
    check_task(task)
    if model == "auto":
        for candidate in CATALOG:
            if (candidate.task, candidate.channels, candidate.frames) == (task, channels, frames):
                return candidate
        raise ModelError(f"No model for {task} looks at {frames} frames. Leave frames at 1.")
    if Path(str(model)).suffix in (".safetensors", ".pth", ".pt"):
        from .checkpoints import spec_from_file

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
