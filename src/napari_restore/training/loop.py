"""Train a recipe for a wall-clock budget: resumable, validated, exported."""

from __future__ import annotations

import copy
import json
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError

from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.models.catalog import (
    build_network,
    load_state,
    read_metadata,
    save_weights,
    sha256,
)
from napari_restore.runtime import whole_file

from .data import CropSource, as_scene, center_crop, load_folder
from .objectives import batch_loss, estimation_error, forward, truth_of
from .warm_start import adapt_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .data import Crops, SharpImage
    from .degradations import Degradation, Told
    from .recipes import Recipe

    Forward = Callable[
        [torch.Tensor, torch.Tensor | None, Told | None],
        tuple[torch.Tensor, torch.Tensor | None],
    ]

LICENSE = "BSD-3-Clause"


@dataclass(frozen=True)
class TrainOptions:
    """How long and where to train.

    Attributes
    ----------
    images, validation : sequence of path
        Folders of sharp images. Without ``validation``, a twentieth of ``images`` is held out.
    out : Path
        Folder for the checkpoint, the log and the exported weights.
    minutes : float or None
        Wall-clock budget, over all runs that resume each other; None takes the recipe's.
    device : str
    seed : int
    init : Path or None
        Weights to start from, in place of fresh ones.
    checkpoint_seconds : float
        Time between validations, each of which also saves the checkpoint.
    """

    images: Sequence[str | Path]
    out: Path
    validation: Sequence[str | Path] = ()
    minutes: float | None = None
    device: str = "cpu"
    seed: int = 0
    init: Path | None = None
    checkpoint_seconds: float = 150.0


class Judge(Protocol):
    """Measures a network; see `Validation.measure`. The figure ``output`` decides."""

    def measure(self, forward: Forward) -> dict[str, float]:
        """Measure a network."""
        ...


class TrainingData(NamedTuple):
    """What a training learns from, and what it is validated on.

    Attributes
    ----------
    source : Crops
    held_out : sequence of SharpImage
    images : int
        That the crops are from.
    judge : Judge, optional
        In place of held-out images: says how good weights are, the more the better.
    """

    source: Crops
    held_out: Sequence[SharpImage]
    images: int
    judge: Judge | None = None


class Stand(NamedTuple):
    """How far a training is, after each step.

    Attributes
    ----------
    step : int
    elapsed : float
        Seconds of training, over all runs.
    loss : float
    figures : dict or None
        Where this step ended with a validation.
    best : bool
        Whether that was the best so far.
    """

    step: int
    elapsed: float
    loss: float
    figures: dict[str, float] | None
    best: bool


def sharp_data(recipe: Recipe, options: TrainOptions) -> TrainingData:
    """Load sharp images from folders, and hold some out.

    Raises
    ------
    RestoreError
        If there are none, or one alone.
    """
    images = load_folder(options.images, recipe.channels)
    if options.validation:
        held_out = load_folder(options.validation, recipe.channels)
    else:
        held_out, images = images[::20], [im for i, im in enumerate(images) if i % 20]
    if not images:
        raise RestoreError("One image is too few to train on: give two or more.")
    source = CropSource(images, scenes=recipe.scenes, emphasis=recipe.emphasis)
    return TrainingData(source, held_out, len(images))


def _origin(init: Path | None) -> dict[str, Any] | None:
    """Say which weights a training began with."""
    if init is None:
        return None
    metadata = read_metadata(init) if init.suffix == ".safetensors" else {}
    origin: dict[str, Any] = {key: metadata.get(key) for key in ("name", "steps", "minutes")}
    return origin | {"sha256": sha256(init)}


class Trainer:
    """One training: network, averaged weights, optimizer, clock.

    Parameters
    ----------
    recipe : Recipe
    options : TrainOptions
    data : TrainingData, optional
        In place of the folders of the options.
    said : mapping, optional
        What the exported weights say beside.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: TrainOptions,
        data: TrainingData | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.options = recipe, options
        self.budget = 60 * (recipe.minutes if options.minutes is None else options.minutes)
        self.device = torch.device(options.device)
        data = sharp_data(recipe, options) if data is None else data
        self._said = dict(said or {})
        self.counts = {"train": data.images, "validation": len(data.held_out)}
        self.source = data.source
        torch.manual_seed(options.seed)
        network = build_network(recipe.architecture, recipe.options)
        if options.init is not None:
            try:
                network.load_state_dict(adapt_state(load_state(options.init), network))
            except (KeyError, RuntimeError, ValueError) as error:
                raise ModelError(
                    f"Weights {options.init} do not fit the network of '{recipe.name}': {error}"
                ) from error
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        for name, weights in self.network.named_parameters():
            weights.requires_grad_(not recipe.parts or name.startswith(recipe.parts))
        self._learning = [w for w in self.network.parameters() if w.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self._learning, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4
        )
        self.validation = Validation(
            data.held_out, recipe.degradation, self.device, recipe.scenes[:1]
        )
        self._judge: Judge = data.judge or self.validation
        self.step, self.elapsed, self.best = 0, 0.0, -math.inf
        #: PSNR of the weights that it began with, if that was measured.
        self.start: float | None = None
        options.out.mkdir(parents=True, exist_ok=True)
        self._checkpoint = options.out / f"{recipe.name}.ckpt"
        self._log = options.out / f"{recipe.name}.jsonl"
        if self._checkpoint.exists():
            self._resume()

    # ------------------------------------------------------------ one step

    @property
    def _share(self) -> float:
        if self.recipe.steps:
            return min(1.0, self.step / self.recipe.steps)
        return min(1.0, self.elapsed / self.budget)

    def _crop(self) -> tuple[int, int]:
        crops = reversed(self.recipe.crops)
        return next((size, count) for start, size, count in crops if self._share >= start)

    def _loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        losses = reversed(self.recipe.losses)
        return next(loss for start, loss in losses if self._share >= start)

    def _learning_rate(self) -> float:
        rise = min(1.0, (self.step + 1) / self.recipe.warm_up)
        return (
            self.recipe.learning_rate
            * rise
            * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self._share)))
        )

    def train_step(self) -> float:
        """Take one step and return its loss."""
        rng, generator = generators(self.device, self.options.seed, self.step)
        size, count = self._crop()
        margin = self.recipe.degradation.margin
        sharp = self.source.batch(rng, count, size + 2 * margin).to(self.device)
        pair = self.recipe.degradation(sharp, rng, generator)
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        estimate_alone = self._share < self.recipe.estimate_share
        told = self.recipe.oracle_motion_until
        # To the end of every other batch: what is found is seldom as wrong as it may be told.
        motion_told = self._share < told or (told > 0 and self.step % 2 == 0)
        loss = batch_loss(
            self.network, pair, self._loss(), estimate_alone, motion_told, self.recipe.harm
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learning, 0.5)
        self.optimizer.step()
        # A short memory at first, so that the average forgets the untrained network.
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                mean.lerp_(new, 1 - decay)
        self.step += 1
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights; see `Validation.measure`."""
        return self._judge.measure(partial(forward, self.average))

    # ------------------------------------------------------------ files

    def save(self) -> None:
        """Write what it takes to go on from here.

        Raises
        ------
        FileError
            If that cannot be written; the last checkpoint stays.
        """
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "start": self.start,
        }
        with _written(self._checkpoint), whole_file(self._checkpoint) as temporary:
            torch.save(state, temporary)

    def _note(self, figures: dict[str, float], loss: float) -> None:
        minutes = round(self.elapsed / 60, 2)
        row = {"step": self.step, "minutes": minutes, **figures, "loss": round(loss, 4)}
        with _written(self._log), self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        # Checkpoints of before are spelled in British English.
        self.optimizer.load_state_dict(state.get("optimizer") or state["optimiser"])
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]
        self.start = state.get("start")

    @property
    def weights(self) -> Path:
        """Where the best weights are exported."""
        return self.options.out / f"{self.recipe.name}.safetensors"

    def _export(self, figures: dict[str, float]) -> None:
        metadata: dict[str, Any] = {
            "name": self.recipe.name,
            "task": self.recipe.task,
            "architecture": self.recipe.architecture,
            "options": dict(self.recipe.options),
            "license": LICENSE,
            "training_images": self.counts["train"],
            "started_from": _origin(self.options.init),
            "seed": self.options.seed,
            "steps": self.step,
            "minutes": round(self.elapsed / 60, 1),
            "device": self.device.type,
            "validation": figures if self.start is None else {**figures, "start": self.start},
            **self._said,
        }
        with _written(self.weights):
            save_weights(self.weights, self.average.state_dict(), metadata)

    # ------------------------------------------------------------ the whole

    def begin(self) -> None:
        """Measure the weights that it begins with: what is kept has to be better."""
        if self.start is None and not self.step:
            self.start = self.best = self.validate()["output"]

    def judge(self) -> tuple[dict[str, float], bool]:
        """Validate, and export the weights if they are the best so far: figures, and whether."""
        figures = self.validate()
        best = figures["output"] > self.best
        if best:
            self.best = figures["output"]
            self._export(figures)
        return figures, best

    def steps(self) -> Iterator[Stand]:
        """Train until the budget is spent, and tell of every step.

        Whoever asks may stop asking; `save` then keeps what was done since the last validation.

        Raises
        ------
        FileError
            If a checkpoint cannot be written; the last one stays.
        """
        since, losses = 0.0, list[float]()
        while self._share < 1:
            start = time.monotonic()
            loss = self.train_step()
            seconds = time.monotonic() - start
            self.elapsed += seconds
            since += seconds
            losses.append(loss)
            figures, best = None, False
            if since >= self.options.checkpoint_seconds or self._share >= 1:
                since = 0.0
                figures, best = self.judge()
                self.save()
                self._note(figures, float(np.mean(losses)))
                losses.clear()
            yield Stand(self.step, self.elapsed, loss, figures, best)

    def run(self, progress: bool = True) -> Path:
        """Train until the budget is spent.

        Parameters
        ----------
        progress : bool
            Show a progress bar, and the figures of each validation.

        Returns
        -------
        Path
            The exported weights: those of the best validation PSNR.
        """
        from tqdm import tqdm

        bar = tqdm(
            total=round(self.budget), initial=round(self.elapsed), unit="s", disable=not progress
        )
        with bar:
            for stand in self.steps():
                bar.n = min(round(stand.elapsed), bar.total)
                bar.set_postfix_str(f"step {stand.step} loss {stand.loss:.4f}")
                if stand.figures is not None and progress:
                    bar.write(f"{self.recipe.name} {stand.elapsed / 60:.1f} min {stand.figures}")
        return self.weights


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say what could not be written, and that nothing is lost."""
    try:
        yield
    # Torch and safetensors have their own errors for a full disk.
    except (OSError, RuntimeError, SafetensorError) as error:
        brief = (str(error).strip() or repr(error)).splitlines()[0]
        raise FileError(
            f"{path} cannot be written ({brief}). Is the disk full? Make room, and continue: the "
            "last checkpoint is whole."
        ) from error


_SIZE = 256
#: Pairs nearer than this, in dB, are identity pairs; those are measured apart.
_UNTOUCHED = 45


def psnr(result: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a range of 1."""
    return float(-10 * torch.log10(((result - target) ** 2).mean().clamp(min=1e-10)))


def generators(device: torch.device, *seed: int) -> tuple[np.random.Generator, torch.Generator]:
    """Random numbers for the draw of a degradation and for its noise."""
    rng = np.random.default_rng(seed)
    return rng, torch.Generator(device).manual_seed(int(rng.integers(2**31)))


class ValidationPair(NamedTuple):
    """One degraded image, how it ought to come back, and the same undegraded; (1, C, S, S).

    Of two frames, the degraded and the undegraded have the channels of both.
    """

    degraded: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    truth: torch.Tensor | None
    exposure: torch.Tensor | None
    told: Told | None


class Validation:
    """A fixed set of degraded images.

    Parameters
    ----------
    images : sequence of SharpImage
    degradation : Degradation
    device : torch.device
    scenes : sequence of int
        The first is the length of the shorter side that images are shrunk to; empty for none.
    """

    def __init__(
        self,
        images: Sequence[SharpImage],
        degradation: Degradation,
        device: torch.device,
        scenes: Sequence[int] = (),
    ) -> None:
        if scenes:
            images = [as_scene(image, scenes[0]) for image in images]
        self.pairs = [_pair(image, i, degradation, device) for i, image in enumerate(images)]

    @torch.inference_mode()
    def measure(self, forward: Forward) -> dict[str, float]:
        """Measure a network.

        Parameters
        ----------
        forward : callable
            From a batch, its exposure and what is told of its blur to the restored one and the
            estimates, as
            `napari_restore.training.objectives.forward`.

        Returns
        -------
        dict
            Mean PSNR in dB of ``input`` and ``output``, share of images ``improved``, mean and
            smallest PSNR of clean images given as they are (``identity``, ``identity_worst``), and
            the mean `estimation_error` of networks that estimate.
        """
        rows, errors, name = [], [], ""
        for degraded, target, clean, truth, exposure, told in self.pairs:
            result, estimates = forward(degraded, exposure, told)
            same, _ = forward(clean, exposure, told)
            seen, sharp = degraded[:, : target.shape[1]], clean[:, : target.shape[1]]
            rows.append((psnr(seen, target), psnr(result, target), psnr(same, sharp)))
            if estimates is not None and truth is not None and bool(truth.isfinite().all()):
                name, error = estimation_error(estimates, truth)
                errors.append(error)
        before, after, identity = np.array(rows).T
        figures = {
            "input": before.mean(),
            "output": after.mean(),
            "improved": (after > before).mean(),
            "identity": identity.mean(),
            "identity_worst": identity.min(),
        }
        if errors:
            figures[name] = np.mean(errors)
        return {name: round(float(value), 3) for name, value in figures.items()}


def _pair(
    image: SharpImage, index: int, degradation: Degradation, device: torch.device
) -> ValidationPair:
    rng, generator = generators(device, 12345, index)
    margin = degradation.margin
    sharp = center_crop(image, _SIZE + 2 * margin).to(device)
    clean = sharp[..., margin : margin + _SIZE, margin : margin + _SIZE]
    for _ in range(20):
        pair = degradation(sharp.clone(), rng, generator)
        if psnr(pair.image[:, : pair.target.shape[1]], pair.target) < _UNTOUCHED:
            break
    # Of recorded pairs the channels of the image come first, and those of its target after them.
    clean = clean[:, -pair.target.shape[1] :]
    frames = pair.image.shape[1] // pair.target.shape[1]
    truth = truth_of(pair)
    return ValidationPair(
        pair.image,
        pair.target,
        clean.repeat(1, frames, 1, 1),
        None if truth is None else truth.to(device),
        pair.exposure,
        pair.told,
    )
