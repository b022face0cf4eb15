"""Train a recipe for a wall-clock budget: resumable, validated, exported."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from napari_restore.errors import ModelError, RestoreError
from napari_restore.models.catalog import (
    build_network,
    load_state,
    read_metadata,
    save_weights,
    sha256,
)

from .data import CropSource, load_folder
from .objectives import batch_loss, forward
from .validation import Validation, generators
from .warm_start import adapt_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .recipes import Recipe

LICENCE = "BSD-3-Clause"


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
    """

    def __init__(self, recipe: Recipe, options: TrainOptions) -> None:
        self.recipe, self.options = recipe, options
        self.budget = 60 * (recipe.minutes if options.minutes is None else options.minutes)
        self.device = torch.device(options.device)
        images = load_folder(options.images, recipe.channels)
        if options.validation:
            held_out = load_folder(options.validation, recipe.channels)
        else:
            held_out, images = images[::20], [im for i, im in enumerate(images) if i % 20]
        if not images:
            raise RestoreError("One image is too few to train on: give two or more.")
        self.counts = {"train": len(images), "validation": len(held_out)}
        self.source = CropSource(
            images, scenes=recipe.scenes, emphasis=recipe.emphasis, clearness=recipe.clearness
        )
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
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4
        )
        self.validation = Validation(held_out, recipe.degradation, self.device, recipe.scenes[:1])
        self.step, self.elapsed, self.best = 0, 0.0, -math.inf
        options.out.mkdir(parents=True, exist_ok=True)
        self._checkpoint = options.out / f"{recipe.name}.ckpt"
        self._log = options.out / f"{recipe.name}.jsonl"
        if self._checkpoint.exists():
            self._resume()

    # ------------------------------------------------------------ one step

    @property
    def _share(self) -> float:
        return min(1.0, self.elapsed / self.budget)

    def _crop(self) -> tuple[int, int]:
        crops = reversed(self.recipe.crops)
        return next((size, count) for start, size, count in crops if self._share >= start)

    def _loss(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        losses = reversed(self.recipe.losses)
        return next(loss for start, loss in losses if self._share >= start)

    def _learning_rate(self) -> float:
        rise = min(1.0, (self.step + 1) / 200)
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
        motion_alone = self._share < self.recipe.motion_share
        told = self.recipe.oracle_motion_until
        # To the end of every other batch: what is found is seldom as wrong as it may be told.
        motion_told = self._share < told or (told > 0 and self.step % 2 == 0)
        rounds = 1 if self._share < self.recipe.one_round_until else None
        loss = batch_loss(self.network, pair, self._loss(), motion_alone, motion_told, rounds)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
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
        return self.validation.measure(partial(forward, self.average))

    # ------------------------------------------------------------ files

    def _save(self, figures: dict[str, float]) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
        }
        temporary = self._checkpoint.with_suffix(".part")
        torch.save(state, temporary)
        os.replace(temporary, self._checkpoint)
        row = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **figures}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        # Checkpoints of before are spelled in British English.
        self.optimizer.load_state_dict(state.get("optimizer") or state["optimiser"])
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]

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
            "licence": LICENCE,
            "training_images": self.counts["train"],
            "started_from": _origin(self.options.init),
            "seed": self.options.seed,
            "steps": self.step,
            "minutes": round(self.elapsed / 60, 1),
            "device": self.device.type,
            "validation": figures,
        }
        save_weights(self.weights, self.average.state_dict(), metadata)

    # ------------------------------------------------------------ the whole

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
        since = 0.0
        with bar:
            while self.elapsed < self.budget:
                start = time.monotonic()
                loss = self.train_step()
                seconds = time.monotonic() - start
                self.elapsed += seconds
                since += seconds
                bar.n = min(round(self.elapsed), bar.total)
                bar.set_postfix_str(f"step {self.step} loss {loss:.4f}")
                if since >= self.options.checkpoint_seconds or self.elapsed >= self.budget:
                    since = 0.0
                    figures = self.validate()
                    if figures["output"] > self.best:
                        self.best = figures["output"]
                        self._export(figures)
                    self._save(figures)
                    if progress:
                        bar.write(f"{self.recipe.name} {self.elapsed / 60:.1f} min {figures}")
        return self.weights
