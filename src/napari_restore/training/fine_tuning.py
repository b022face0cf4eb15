"""Train a model further on a user's images: the engine behind the dock and the command line."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.models import library
from napari_restore.models.catalog import bundled_model, is_own
from napari_restore.physics import psf
from napari_restore.runtime import resolve_device, use_threads

from .blurs import KernelBlur
from .data import CropSource, center_crop, load_folder
from .degradations import ColorBlur, ColorNoise, MonoBlur, MonoNoise
from .loop import Trainer, TrainingData, TrainOptions, generators
from .losses import log_error
from .objectives import forward
from .projects import KEEP, PAUSE, Status
from .recipes import get_recipe
from .recorded_pairs import PairSource, RecordedPairs, load_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_restore.models.library import Entry

    from .data import SharpImage
    from .degradations import Degradation
    from .projects import Project, Settings
    from .recipes import Recipe

#: Tasks for which pairs can be recorded: their networks see no more than a crop shows.
_FROM_PAIRS = ("deblur", "denoise")
#: Most images that are held out, and the share of them.
_MOST_HELD_OUT, _HELD_OUT = 8, 0.2
#: Seconds between two words on how far it is.
_TELL = 1.0
#: Validations in a row without a gain after which a user is warned.
_PATIENCE = 4
#: Side of the example in pixels.
_SIDE = 160


# ---------------------------------------------------------------- what is trained


def find_base(name: str) -> tuple[Entry, Recipe]:
    """Find the model that a training begins with, and the recipe of its network.

    Raises
    ------
    ModelError
        If there is none, or it cannot be trained further.
    """
    entry = library.find_entry(name)
    spec = entry.spec
    if spec.psf or spec.frames != 1:
        raise ModelError(
            f"'{name}' cannot be trained further: it looks at two frames, or is told a point "
            "spread function. Choose a model of deblur, dehaze, motion deblur or denoise for one "
            "frame."
        )
    recipe = get_recipe(bundled_model(spec.task, spec.channels).name)
    if spec.architecture != recipe.architecture:
        raise ModelError(
            f"'{name}' is a '{spec.architecture}', and those that are trained here are "
            f"'{recipe.architecture}'. Begin with {recipe.name}."
        )
    return entry, replace(recipe, options=dict(spec.options))


def defocus_between(low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Kernel of a lens out of focus of a standard deviation in pixels: disk or Gaussian."""
    sigma = rng.uniform(low, high)
    if rng.random() < 0.5:
        # The standard deviation of a disk along one axis is half its radius.
        return psf.disk(max(2 * sigma, 0.3))
    return psf.gaussian(max(sigma, 0.15))


def degradation_of(recipe: Recipe, settings: Settings) -> Degradation:
    """Degradation of sharp images as the user chose it, else as the recipe has it.

    Raises
    ------
    ModelError
        If something cannot be chosen for this task.
    """
    made, blur, noise = recipe.degradation, settings.blur, settings.noise
    if blur is not None:
        if recipe.task != "deblur":
            raise ModelError(f"blur is for deblur; '{settings.model}' does {recipe.task}.")
        assert isinstance(made, (ColorBlur, MonoBlur))
        kernel = partial(defocus_between, *blur)
        made = replace(made, blur=KernelBlur(kernel), margin=max(12, math.ceil(3 * blur[1])))
    if noise is not None:
        if recipe.task not in ("deblur", "denoise"):
            raise ModelError(
                f"noise is for deblur and denoise; '{settings.model}' does {recipe.task}."
            )
        low, high = (max(share, 1e-4) for share in noise)
        if isinstance(made, (ColorNoise, MonoNoise)):
            made = replace(made, sigmas=(low, high))
        elif isinstance(made, (ColorBlur, MonoBlur)):
            # Half of the variance in the middle of the range is shot noise.
            half = 0.5**0.5
            made = replace(made, photons=(high**-2, low**-2), read=(half * low, half * high))
    return made


def fine_tuning_recipe(settings: Settings) -> tuple[Entry, Recipe]:
    """Find the base model, and the recipe that trains it further: gentler, on smaller batches."""
    entry, recipe = find_base(settings.model)
    options = dict(recipe.options)
    if settings.from_pairs:
        if recipe.task not in _FROM_PAIRS:
            raise ModelError(
                f"{recipe.task} is learned from sharp and clear images, not from pairs. Give such "
                "images, or begin with a model of deblur or denoise."
            )
        # Nobody knows how blurred recorded images are, so it is not estimated any more.
        options.pop("estimates", None)
        degradation: Degradation = RecordedPairs(recipe.channels)
    else:
        degradation = degradation_of(recipe, settings)
    hazy = recipe.task == "dehaze"
    return entry, replace(
        recipe,
        name=settings.name,
        options=options,
        degradation=degradation,
        # Haze is seen in what is wide.
        crops=recipe.crops[:1] if hazy else ((0.0, 64, 8), (0.6, 96, 4)),
        learning_rate=1e-4 if hazy else 3e-4,
        warm_up=20,
        losses=((0.0, recipe.losses[-1][1] if hazy else log_error),),
        emphasis={},
        estimate_share=0.0,
        oracle_motion_until=0.0,
        minutes=settings.minutes,
    )


def hold_out(images: Sequence[SharpImage]) -> tuple[list[SharpImage], list[SharpImage], str]:
    """Hold some images out for the validation, whole ones and never crops of others.

    Planes of one layer belong together: they are held out together where there are other layers.

    Returns
    -------
    train, held_out : list of SharpImage
    note : str
        What to keep in mind, or nothing.

    Raises
    ------
    RestoreError
        If there is one image alone.
    """
    if len(images) < 2:
        raise RestoreError(
            "One image is too few: one is trained on, another is held out. Give two or more."
        )
    groups: dict[str, list[SharpImage]] = {}
    for image in images:
        stem, plane, _ = image.name.partition("_plane")
        groups.setdefault(stem if plane else image.name, []).append(image)
    note = ""
    parts = list(groups.values())
    if len(parts) == 1:
        parts = [[image] for image in images]
        note = (
            "All planes are of one layer: the validation may be better than other images will be."
        )
    count = max(1, min(_MOST_HELD_OUT, round(_HELD_OUT * len(parts))))
    # Of one layer those at its end, which are least like the others; else spread evenly.
    chosen = (
        set(range(len(parts) - count, len(parts)))
        if note
        else {int((place + 0.5) * len(parts) / count) for place in range(count)}
    )
    held = [image for index in sorted(chosen) for image in parts[index]]
    step = max(1, math.ceil(len(held) / _MOST_HELD_OUT))
    train = [image for index, part in enumerate(parts) if index not in chosen for image in part]
    return train, held[::step], note


def load(settings: Settings, recipe: Recipe) -> tuple[TrainingData, list[str]]:
    """Load what a training learns from.

    Raises
    ------
    RestoreError
        If it is of no use; the message says why.
    """
    notes: list[str] = []
    if settings.from_pairs:
        images, notes = load_pairs(settings.low, settings.high, recipe.channels)
        train, held_out, note = hold_out(images)
        data = TrainingData(PairSource(train), held_out, len(train))
    else:
        _check_folders(settings.sharp)
        train, held_out, note = hold_out(load_folder(settings.sharp, recipe.channels))
        source = CropSource(train, minimum=96, scenes=recipe.scenes)
        data = TrainingData(source, held_out, len(train))
    return data, [*notes, *([note] if note else [])]


def _check_folders(folders: Sequence[str]) -> None:
    from pathlib import Path

    for folder in folders:
        if not Path(folder).is_dir():
            raise FileError(f"The folder {folder} is gone. Bring it back, and continue.")


def example_of(settings: Settings, image: SharpImage, seed: int = 0) -> NDArray[np.uint8]:
    """Show what a sharp image becomes before anything is trained: uint8 (2, H, W, C).

    Parameters
    ----------
    settings : Settings
        For sharp images.
    image : SharpImage
    seed : int
        Another number gives another draw.
    """
    _, recipe = find_base(settings.model)
    degradation = degradation_of(recipe, settings)
    rng, generator = generators(torch.device("cpu"), 7, seed)
    crop = center_crop(image, _SIDE + 2 * degradation.margin)
    pair = degradation(crop, rng, generator)
    return _pictures(pair.image, pair.target)


def _pictures(*tensors: torch.Tensor) -> NDArray[np.uint8]:
    """Show batches of one image as pictures, black and white where they are in the last."""
    channels = tensors[-1].shape[1]
    low, high = 0.0, 1.0
    if channels == 1:
        ends = torch.quantile(tensors[-1].flatten()[::7].float(), torch.tensor([0.005, 0.998]))
        low, high = float(ends[0]), max(float(ends[1]), float(ends[0]) + 1e-6)
    shown = [
        ((tensor[0].float().cpu() - low) / (high - low)).clamp(0, 1).mul(255).round()
        for tensor in tensors
    ]
    stacked: NDArray[np.uint8] = torch.stack(shown).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    return stacked


# ---------------------------------------------------------------- the run


class FineTuning:
    """One run of a project: until it is done, paused, or fails.

    Parameters
    ----------
    project : Project
    on_status : callable, optional
        Gets every `Status` that the project is told.
    """

    def __init__(
        self, project: Project, on_status: Callable[[Status], object] | None = None
    ) -> None:
        self.project, self._on_status = project, on_status
        self.status = Status()
        self._notes: list[str] = []
        self._told = -math.inf

    def run(self) -> Status:
        """Train, or go on.

        Returns
        -------
        Status
            With the state "done" or "paused".

        Raises
        ------
        RestoreError
            If it cannot go on, or another process trains this; the status says so too.
        """
        lock = self.project.lock()
        try:
            # Whoever looks whether it runs holds the lock for a moment.
            lock.acquire(timeout=3)
        except TimeoutError:
            raise RestoreError(
                f"'{self.project.settings.name}' is being trained already, by another window or "
                "shell. Pause it there."
            ) from None
        with lock:
            before = self.project.status
            if self.project.wished() == PAUSE:
                self.project.forget_wish()
            self.status = replace(before, message="", warning="")
            try:
                return self._run()
            except KeyboardInterrupt:
                raise
            except Exception as error:
                # Whatever it was, somebody looks at the status alone.
                said = str(error) if isinstance(error, RestoreError) else f"{error!r}"
                with contextlib.suppress(RestoreError, OSError):
                    self._say(state="failed", message=said)
                raise

    def _run(self) -> Status:
        settings = self.project.settings
        self._say(state="preparing", message="Reading the images …")
        if settings.threads:
            use_threads(settings.threads)
        entry, recipe = fine_tuning_recipe(settings)
        data, self._notes = load(settings, recipe)
        seconds = 60 * settings.minutes
        options = TrainOptions(
            images=(),
            out=self.project.folder,
            device=resolve_device(settings.device),
            seed=settings.seed,
            init=entry.spec.path,
            checkpoint_seconds=max(5.0, min(150.0, seconds / 12)),
        )
        trainer = Trainer(recipe, options, data, self._said(entry))
        self._say(
            state="validating",
            message=f"Measuring '{settings.model}' on {len(data.held_out)} held-out images …",
            images=data.images,
            held_out=len(data.held_out),
            warning=" ".join(self._notes[:4]),
        )
        trainer.begin()
        if not trainer.step:
            trainer.save()
        self._show(trainer)
        self._say(
            state="training",
            message="",
            step=trainer.step,
            elapsed=trainer.elapsed,
            start=trainer.start,
            best=trainer.best,
            last=trainer.start if self.status.last is None else self.status.last,
        )
        if self.project.wished() != KEEP:
            self._steps(trainer)
        wish = self.project.wished()
        if wish == PAUSE and trainer.elapsed < trainer.budget:
            trainer.save()
            return self._say(state="paused", message="Paused. It continues from here.")
        return self._keep(trainer, stopped=wish == KEEP)

    def _steps(self, trainer: Trainer) -> None:
        began, before = time.monotonic(), trainer.elapsed
        for stand in trainer.steps():
            done = max(stand.elapsed - before, 1e-3)
            # Validations take time too.
            slower = (time.monotonic() - began) / done
            changes: dict[str, Any] = {
                "step": stand.step,
                "elapsed": stand.elapsed,
                "left": max(0.0, trainer.budget - stand.elapsed) * max(1.0, slower),
                "loss": stand.loss,
            }
            if stand.figures is not None:
                changes |= {"best": trainer.best, "last": stand.figures["output"]}
                changes["warning"] = self._warning(trainer)
                self._show(trainer)
            if stand.figures is not None or time.monotonic() - self._told > _TELL:
                self._say(state="training", **changes)
            if self.project.wished():
                self._say(state="training", **changes)
                return

    def _warning(self, trainer: Trainer) -> str:
        """Early warnings, the gravest first."""
        outputs = [row["output"] for row in self.project.curve if "output" in row]
        start = trainer.start if trainer.start is not None else -math.inf
        said = list(self._notes[:4])
        since = len(outputs) - 1 - int(np.argmax(outputs)) if outputs else 0
        if len(outputs) >= 3 and max(outputs) < start - 0.1:
            said.insert(
                0,
                f"Worse than the model that it began with ({max(outputs):.2f} and {start:.2f} dB): "
                "are the images sharp, or do the pairs show the same?",
            )
        elif since >= _PATIENCE:
            said.insert(
                0,
                f"The validation has not improved for {since} validations: stop and keep the best.",
            )
        return " ".join(said)

    def _keep(self, trainer: Trainer, stopped: bool) -> Status:
        settings = self.project.settings
        self.project.forget_wish()
        if stopped and not trainer.weights.is_file():
            trainer.judge()
        if not trainer.weights.is_file():
            begun = "?" if trainer.start is None else f"{trainer.start:.2f} dB"
            message = (
                f"Nothing was kept: no weights were better on the held-out images than "
                f"'{settings.model}' ({begun}). Train longer, or give more or other images."
            )
            self.project.clean()
            return self._say(state="done", message=message, left=0.0)
        entry = library.add(trainer.weights, library.free_name(settings.name))
        self.project.clean()
        gain = entry.figures["output"] - entry.figures["start"]
        ended = "Stopped" if stopped else "Done"
        message = (
            f"{ended}: '{entry.name}' is in your library. On held-out images {gain:+.2f} dB beyond "
            f"'{settings.model}'."
        )
        return self._say(state="done", message=message, left=0.0, result=entry.name)

    def _said(self, entry: Entry) -> dict[str, Any]:
        settings = self.project.settings
        training: dict[str, Any] = {
            "images": "recorded pairs" if settings.from_pairs else "sharp images, degraded",
            "held out": "by image",
        }
        if settings.blur is not None:
            training["blur, σ in pixels"] = "{:g} to {:g}".format(*settings.blur)
        if settings.noise is not None:
            training["noise"] = "{:.1%} to {:.1%} of the range".format(*settings.noise)
        licenses = {"license": entry.spec.license} if is_own(entry.spec) else {}
        return {"training": training, "origin": f"trained from {settings.model}", **licenses}

    def _show(self, trainer: Trainer) -> None:
        pair = trainer.validation.pairs[0]
        top, left = ((length - _SIDE) // 2 for length in pair.degraded.shape[-2:])
        place = (..., slice(top, top + _SIDE), slice(left, left + _SIDE))
        with torch.inference_mode():
            restored, _ = forward(trainer.average, pair.degraded, pair.exposure, pair.told)
        with contextlib.suppress(OSError):
            self.project.show(
                _pictures(*(t[place] for t in (pair.degraded, restored, pair.target)))
            )

    def _say(self, **changes: Any) -> Status:
        self.status = replace(self.status, **changes)
        self._told = time.monotonic()
        self.project.tell(self.status)
        if self._on_status is not None:
            self._on_status(self.status)
        return self.status
