"""``napari-restore train``: train a recipe on folders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_restore.errors import RestoreError
from napari_restore.runtime import resolve_device, use_threads

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    """Train until the time is spent, and say where things are."""
    from napari_restore.models.catalog import WEIGHTS_FOLDER
    from napari_restore.training.loop import Trainer, TrainOptions
    from napari_restore.training.recipes import get_recipe

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
