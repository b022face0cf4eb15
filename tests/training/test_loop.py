"""The training loop: it learns, resumes where it stopped, and exports what can be run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.io import imsave

from napari_restore.api import restore
from napari_restore.errors import RestoreError
from napari_restore.models.catalog import build_network, load_state, read_metadata, save_weights
from napari_restore.physics import psf
from napari_restore.training import loop
from napari_restore.training.blurs import KernelBlur
from napari_restore.training.degradations import MonoBlur
from napari_restore.training.losses import restoration_loss
from napari_restore.training.recipes import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCKS = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
SMALL = {"channels": 1, "width": 8, **BLOCKS}
RECIPE = Recipe(
    "small-mono",
    "deblur",
    "nafnet",
    MonoBlur(KernelBlur(lambda rng: psf.gaussian(rng.uniform(1.2, 1.6))), margin=6),
    SMALL,
    crops=((0.0, 32, 4), (0.5, 40, 2)),
    learning_rate=3e-2,
    minutes=1.0,
)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small pictures of blobs."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        rng = np.random.default_rng(number)
        spots = (rng.random((96, 104)) > 0.97).astype(float)
        picture = ndimage.gaussian_filter(spots, 0.7) + ndimage.gaussian_filter(spots, 3)
        imsave(
            folder / f"blobs_{number}.png",
            (picture / picture.max() * 255).astype(np.uint8),
            check_contrast=False,
        )
    return folder


@pytest.fixture
def make(images: Path, tmp_path: Path) -> Callable[..., loop.Trainer]:
    def trainer(out: str = "out", recipe: Recipe = RECIPE, **options: Any) -> loop.Trainer:
        return loop.Trainer(recipe, loop.TrainOptions([images], tmp_path / out, **options))

    return trainer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every step takes one second."""
    now = [0.0]
    step = loop.Trainer.train_step

    def tick(self: loop.Trainer) -> float:
        loss = step(self)
        now[0] += 1
        return loss

    monkeypatch.setattr(loop.Trainer, "train_step", tick)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def states_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_forty_steps_lower_the_loss(make: Callable[..., loop.Trainer]) -> None:
    trainer = make()
    degraded, target, *_ = trainer.validation.pairs[0]

    def loss() -> float:
        with torch.inference_mode():
            return float(restoration_loss(trainer.network.eval()(degraded), target))

    before = loss()
    # An untrained network returns its input.
    assert before == pytest.approx(float(restoration_loss(degraded, target)), rel=1e-3)
    losses = [trainer.train_step() for _ in range(40)]
    assert all(np.isfinite(losses))
    assert trainer.step == 40
    assert loss() < 0.97 * before


def test_the_average_follows_the_network_and_forgets_its_start(
    make: Callable[..., loop.Trainer],
) -> None:
    trainer = make()
    key = "intro.weight"
    start = trainer.network.state_dict()[key].clone()
    for _ in range(6):
        trainer.train_step()
    network, average = (n.state_dict()[key] for n in (trainer.network, trainer.average))
    assert not torch.equal(network, average)
    assert float((average - network).norm()) < 0.5 * float((average - start).norm())


def test_steps_depend_on_the_seed_alone(make: Callable[..., loop.Trainer]) -> None:
    trainers = [make("a", seed=1), make("b", seed=1), make("c", seed=2)]
    losses = [[trainer.train_step() for _ in range(3)] for trainer in trainers]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert states_equal(trainers[0].network, trainers[1].network)
    assert not states_equal(trainers[0].network, trainers[2].network)


def test_a_resumed_training_is_the_uninterrupted_one(
    make: Callable[..., loop.Trainer], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole", minutes=8 / 60, checkpoint_seconds=2)
    whole.run(progress=False)
    assert whole.step == 8

    # Stopped between two checkpoints, as by the keyboard.
    first = make("parts", minutes=8 / 60, checkpoint_seconds=2)
    step = loop.Trainer.train_step

    def interrupted(self: loop.Trainer) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "train_step", interrupted)
        first.run(progress=False)

    second = make("parts", minutes=8 / 60, checkpoint_seconds=2)
    assert (second.step, second.elapsed) == (4, 4.0)
    assert second.best == first.best
    second.run(progress=False)
    assert (second.step, second.elapsed) == (whole.step, whole.elapsed) == (8, 8.0)
    assert states_equal(second.network, whole.network)
    assert states_equal(second.average, whole.average)
    logs = [
        [json.loads(line) for line in (t.options.out / "small-mono.jsonl").read_text().splitlines()]
        for t in (whole, second)
    ]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == [2, 4, 6, 8]


def test_a_finished_training_is_not_taken_further(
    make: Callable[..., loop.Trainer], clock: list[float]
) -> None:
    path = make(minutes=3 / 60).run(progress=False)
    again = make(minutes=3 / 60)
    weights = path.read_bytes()
    assert again.run(progress=False) == path
    assert again.step == 3
    assert path.read_bytes() == weights


def test_the_export_says_how_it_was_made_and_runs(
    make: Callable[..., loop.Trainer], clock: list[float], rng: np.random.Generator
) -> None:
    trainer = make(minutes=4 / 60, seed=11)
    path = trainer.run(progress=False)
    assert path.name == "small-mono.safetensors"
    metadata = read_metadata(path)
    assert (metadata["name"], metadata["task"]) == ("small-mono", "deblur")
    assert (metadata["architecture"], json.loads(metadata["options"])) == ("nafnet", SMALL)
    assert (metadata["seed"], metadata["steps"]) == ("11", "4")
    assert (metadata["training_images"], metadata["device"]) == ("3", "cpu")
    assert metadata["license"] == "BSD-3-Clause"
    figures = json.loads(metadata["validation"])
    assert set(figures) == {"input", "output", "improved", "identity", "identity_worst"}
    assert figures["output"] == trainer.best
    state = load_state(path)
    for key, value in trainer.average.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4)
    result = restore(rng.random((30, 40)), "deblur", model=str(path))
    assert result.shape == (30, 40)


def test_the_best_weights_are_kept_not_the_last(
    make: Callable[..., loop.Trainer], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([20.0, 30.0, 25.0, 30.0])

    def validate(self: loop.Trainer) -> dict[str, float]:
        return {"input": 20.0, "output": next(figures)}

    monkeypatch.setattr(loop.Trainer, "validate", validate)
    trainer = make(minutes=4 / 60, checkpoint_seconds=1)
    metadata = read_metadata(trainer.run(progress=False))
    assert metadata["steps"] == "2"
    assert trainer.best == 30


def test_crops_grow_and_the_rate_falls_with_the_share_of_time(
    make: Callable[..., loop.Trainer], clock: list[float]
) -> None:
    trainer = make(minutes=6 / 60)
    seen = []
    forward = trainer.network.forward

    def watch(image: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(image.shape), trainer.optimizer.param_groups[0]["lr"]))
        return forward(image)

    trainer.network.forward = watch  # type: ignore[method-assign]
    trainer.run(progress=False)
    assert [shape for shape, _ in seen] == [(4, 1, 32, 32)] * 3 + [(2, 1, 40, 40)] * 3
    assert all(0 < rate <= RECIPE.learning_rate for _, rate in seen)
    # The first of 200 steps of the rise.
    assert seen[0][1] == pytest.approx(RECIPE.learning_rate / 200)


def test_validation_measures_input_output_and_identity(make: Callable[..., loop.Trainer]) -> None:
    trainer = make()
    figures = trainer.validate()
    assert figures["output"] == pytest.approx(figures["input"], abs=0.3)
    assert 5 < figures["input"] < 45
    # An untrained network returns clean images as they are, up to half precision.
    assert figures["identity"] > 45
    assert figures["identity_worst"] <= figures["identity"]
    assert make("again").validate() == figures


def test_images_to_validate_on_may_be_given(images: Path, tmp_path: Path) -> None:
    options = loop.TrainOptions([images], tmp_path / "out", validation=[images])
    trainer = loop.Trainer(RECIPE, options)
    assert trainer.counts == {"train": 4, "validation": 4}


def test_one_image_is_too_few(images: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.png").write_bytes((images / "blobs_0.png").read_bytes())
    with pytest.raises(RestoreError, match="two or more"):
        loop.Trainer(RECIPE, loop.TrainOptions([only], tmp_path / "out"))


def test_steps_are_counted_and_parts_learn_alone(
    make: Callable[..., loop.Trainer], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, steps=4, parts=("decoders", "ups"), warm_up=1, minutes=1e-9)
    trainer = make(recipe=recipe)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    assert [stand.step for stand in trainer.steps()] == [1, 2, 3, 4]
    after = trainer.network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith(recipe.parts) for key in changed)


def test_a_judge_decides_in_place_of_held_out_images(
    make: Callable[..., loop.Trainer], tmp_path: Path
) -> None:
    class Judge:
        scores = iter((20.0, 19.0, 21.0))

        def measure(self, forward: Any) -> dict[str, float]:
            return {"output": next(self.scores)}

    data = loop.TrainingData(make().source, (), 1, Judge())
    trainer = loop.Trainer(RECIPE, loop.TrainOptions((), tmp_path / "judged"), data)
    trainer.begin()
    assert (trainer.judge()[1], trainer.weights.exists()) == (False, False)
    assert trainer.judge() == ({"output": 21.0}, True)
    assert read_metadata(trainer.weights)["validation"] == '{"output": 21.0, "start": 20.0}'


# ---------------------------------------------------------------- starting from other weights


def test_a_training_starts_from_given_weights(
    make: Callable[..., loop.Trainer],
    tmp_path: Path,
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    state = scramble(build_network("nafnet", {**SMALL, "channels": 3})).state_dict()
    save_weights(tmp_path / "start.safetensors", state, {})
    trainer = make(init=tmp_path / "start.safetensors")
    key = "middle_blks.0.conv1.weight"
    torch.testing.assert_close(trainer.network.state_dict()[key], state[key], rtol=1e-3, atol=1e-4)


def test_weights_of_another_network_are_refused(
    make: Callable[..., loop.Trainer], tmp_path: Path
) -> None:
    for number, options in enumerate(
        [{**SMALL, "width": 12}, {**SMALL, "middle_blocks": 0}, {**SMALL, "unshuffle": 4}]
    ):
        path = tmp_path / f"other{number}.safetensors"
        save_weights(path, build_network("nafnet", options).state_dict(), {})
        with pytest.raises(RestoreError, match=f"other{number}"):
            make(init=path)
