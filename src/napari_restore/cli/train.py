"""``napari-restore train``: train a model further on own images, or a recipe from nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_restore.cli.restore import UsageError
from napari_restore.errors import ModelError, RestoreError
from napari_restore.runtime import resolve_device, use_threads

if TYPE_CHECKING:
    import argparse

    from napari_restore.training.projects import Project, Status


def run(args: argparse.Namespace) -> int:
    """Train until the time is spent, and say where things are."""
    return _run_recipe(args) if args.recipe is not None else _train_further(args)


# ---------------------------------------------------------------- a model, on own images


def _train_further(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from napari_restore.training.fine_tuning import FineTuning

    project = _project(args)
    settings = project.settings
    if project.status.ended:
        print(f"{project.status.message} Choose another --name to train again.")
        return 0
    total = round(60 * settings.minutes)
    bar = tqdm(total=total, unit="s", disable=args.quiet or None, leave=False)
    said = {""}

    def show(status: Status) -> None:
        bar.n = min(total, round(status.elapsed))
        best = "" if status.best is None else f" best {status.best:.2f} dB"
        bar.set_postfix_str(f"step {status.step} loss {status.loss:.3f}{best}")
        for text in (status.message, status.warning):
            if text not in said and status.state != "done":
                said.add(text)
                bar.write(text)

    try:
        with bar:
            status = FineTuning(project, show).run()
    except KeyboardInterrupt:
        print(f"Stopped. Go on with: napari-restore train --continue '{settings.name}'")
        raise
    print(status.message)
    if status.result:
        task = _task_of(settings.model)
        print(f"Use it: napari-restore {task} IN -o OUT --model '{status.result}'")
    return 0 if status.result or status.state == "paused" else 1


def _task_of(model: str) -> str:
    from napari_restore.models.library import find_entry

    return find_entry(model).spec.task.replace("_", "-")


def _project(args: argparse.Namespace) -> Project:
    """Training that was asked for: a new one, or one to continue."""
    from napari_restore.training.fine_tuning import fine_tuning_recipe
    from napari_restore.training.projects import Project, Settings

    if args.going is not None:
        return Project.load(args.going)
    if not args.name:
        raise UsageError("--model needs --name: what the new model is called.")
    noise = None if args.noise is None else (args.noise[0] / 100, args.noise[1] / 100)
    settings = Settings(
        name=args.name,
        model=args.model,
        sharp=tuple(str(path.resolve()) for path in args.images),
        low=tuple(str(path.resolve()) for path in args.low),
        high=tuple(str(path.resolve()) for path in args.high),
        minutes=args.minutes or 15.0,
        blur=args.blur,
        noise=noise,
        device=args.device,
        threads=args.threads or 0,
        seed=args.seed,
    ).checked()
    fine_tuning_recipe(settings)
    try:
        return Project.create(settings)
    except ModelError:
        found = Project.load(settings.name)
        if replace(found.settings, notes=()) != settings:
            raise
        return found


# ---------------------------------------------------------------- a recipe, from nothing


def _run_recipe(args: argparse.Namespace) -> int:
    from napari_restore.models.catalog import WEIGHTS_FOLDER
    from napari_restore.training.loop import Trainer, TrainOptions
    from napari_restore.training.recipes import get_recipe

    if not args.images:
        raise UsageError("--recipe needs --images: folders of sharp images.")
    recipe = get_recipe(args.recipe)
    if args.threads:
        use_threads(args.threads)
    if recipe.start_from and args.init is None:
        bundled = WEIGHTS_FOLDER / f"{recipe.start_from}.safetensors"
        print(
            f"Hint: {recipe.name} learns faster from the weights of {recipe.start_from}: "
            f"--init {bundled}"
        )
    options = TrainOptions(
        images=args.images,
        validation=args.validation,
        out=args.out,
        minutes=args.minutes,
        device=resolve_device(args.device),
        seed=args.seed,
        init=args.init,
    )
    trainer = Trainer(recipe, options)
    counts = trainer.counts
    print(
        f"{recipe.name}: {counts['train']} images to train on, {counts['validation']} to validate, "
        f"{trainer.budget / 60:g} minutes on {options.device}."
    )
    if trainer.step:
        print(
            f"Going on from the checkpoint in {args.out}: step {trainer.step}, "
            f"{trainer.elapsed / 60:.1f} minutes done."
        )
    if trainer.elapsed >= trainer.budget:
        print("The time is spent already. Give more --minutes to go on, or another --out.")
    try:
        weights = trainer.run(progress=not args.quiet)
    except KeyboardInterrupt:
        print(f"Stopped at step {trainer.step}. The same command goes on from the last checkpoint.")
        raise
    if not weights.is_file():
        raise RestoreError(
            "The training gave no usable weights: its validation figures are not numbers. Start "
            "again with other images or another --seed, in another --out."
        )
    print(f"Weights: {weights}")
    print(f"Log: {args.out / recipe.name}.jsonl")
    command = recipe.task.replace("_", "-")
    print(f"Use them: napari-restore {command} IN -o OUT --model {weights}")
    return 0
