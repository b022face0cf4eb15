"""Training a model further on own images: sharp ones, recorded pairs, and what goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.io import imsave

from napari_restore.cli import main
from napari_restore.errors import FileError, ModelError, RestoreError
from napari_restore.models import catalog, library
from napari_restore.models.catalog import find_model
from napari_restore.physics import psf
from napari_restore.training import fine_tuning, projects
from napari_restore.training.data import SharpImage
from napari_restore.training.fine_tuning import FineTuning, degradation_of, find_base, hold_out
from napari_restore.training.projects import KEEP, PAUSE, Project, Settings, all_projects
from napari_restore.training.recorded_pairs import load_pairs, match_names, register
from small_networks import SMALL_AFFINE
from waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = "small base"
BLOCKS = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
SMALL = {"channels": 1, "widths": [8, 12], "unshuffle": 2, "estimates": 1, **BLOCKS}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of data for each test, which programs inherit."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(
        catalog, "own_folder", lambda: tmp_path / "data" / "napari-restore" / "models"
    )
    monkeypatch.setattr(
        projects, "projects_folder", lambda: tmp_path / "data" / "napari-restore" / "trainings"
    )
    return tmp_path / "data"


@pytest.fixture
def base(write_model: Callable[..., str]) -> str:
    """A small network that changes nothing yet, in the library."""
    path = write_model("base", "deblur", "resunet", **SMALL)
    entry = library.add(Path(path), BASE)
    state = library.load_state(entry.spec.path)
    for key in ("ending.weight", "ending.bias"):
        state[key] = torch.zeros_like(state[key])
    said = {"task": "deblur", "architecture": "resunet", "options": SMALL}
    library.save_weights(entry.spec.path, state, said)
    return BASE


def scene(seed: int, side: int = 128) -> np.ndarray:
    """Blobs, in [0, 1]."""
    rng = np.random.default_rng(seed)
    spots = (rng.random((side, side)) > 0.97).astype(float)
    picture = ndimage.gaussian_filter(spots, 0.7) + ndimage.gaussian_filter(spots, 3)
    return picture / picture.max()


def write(folder: Path, name: str, picture: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.tif"
    imsave(path, (1000 + 20000 * picture).astype(np.uint16), check_contrast=False)
    return path


@pytest.fixture
def sharp(tmp_path: Path) -> Path:
    for seed in range(5):
        write(tmp_path / "sharp", f"scene_{seed}", scene(seed))
    return tmp_path / "sharp"


def recorded(tmp_path: Path, moved: tuple[int, int] = (0, 0), count: int = 4) -> tuple[str, str]:
    """Pairs: blurred and noisy, and sharp, moved and three times as bright."""
    for seed in range(count):
        rng, full = np.random.default_rng(seed), scene(seed, 140)
        low = ndimage.gaussian_filter(full, 1.5) + rng.normal(0, 0.01, full.shape)
        write(tmp_path / "low", f"{seed}", low[:128, :128].clip(0, 1))
        y, x = moved
        write(tmp_path / "high", f"{seed}", 3 * full[y : y + 128, x : x + 128])
    return str(tmp_path / "low"), str(tmp_path / "high")


@pytest.fixture
def settings(base: str, sharp: Path) -> Settings:
    return Settings("nuclei", base, sharp=(str(sharp),), minutes=0.1, blur=(1.4, 1.6), threads=1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn in few steps, and count a step as a tenth of a second."""
    made = fine_tuning.fine_tuning_recipe

    def faster(settings: Settings) -> Any:
        entry, recipe = made(settings)
        return entry, replace(recipe, crops=((0.0, 48, 4),), learning_rate=1e-2, warm_up=3)

    monkeypatch.setattr(fine_tuning, "fine_tuning_recipe", faster)
    step = fine_tuning.Trainer.train_step

    def counted(self: fine_tuning.Trainer) -> float:
        loss = step(self)
        now[0] += 0.1
        return loss

    now = [0.0]
    monkeypatch.setattr(fine_tuning.Trainer, "train_step", counted)
    monkeypatch.setattr("napari_restore.training.loop.time.monotonic", lambda: now[0])


# ---------------------------------------------------------------- from sharp images


@pytest.mark.usefixtures("quick")
def test_a_model_learns_the_images_and_goes_to_the_library(settings: Settings) -> None:
    project = Project.create(settings)
    status = FineTuning(project).run()
    assert (status.state, status.result) == ("done", "nuclei")
    entry = library.find_entry("nuclei")
    figures = entry.figures
    assert figures["output"] > figures["start"] + 0.2
    assert figures["output"] == pytest.approx(status.best)
    assert find_model("deblur", 1, "nuclei").estimator == "blur"
    for part in (BASE, "1.4 to 1.6", "held out: by image".split(":")[1], entry.spec.sha256):
        assert part in entry.card()
    # What is large is gone, what tells of it stays.
    assert project.status == status
    assert project.curve[-1]["minutes"] == pytest.approx(0.1, abs=0.01)
    assert project.example.shape == (3, 160, 160, 1)
    assert not list(project.folder.glob("*.ckpt"))


@pytest.mark.usefixtures("quick")
def test_a_pause_loses_nothing_and_the_best_can_be_kept(settings: Settings) -> None:
    project = Project.create(settings)

    def pause(status: projects.Status) -> None:
        if status.step == 7 or status.elapsed > 0.65:
            project.wish(PAUSE)

    status = FineTuning(project, pause).run()
    assert status.state == "paused"
    done = status.step
    assert project.status.state == "paused"

    def keep(status: projects.Status) -> None:
        if status.step > done + 3:
            project.wish(KEEP)

    seen: list[int] = []
    status = FineTuning(project, lambda s: (seen.append(s.step), keep(s))).run()
    # It goes on from the step, not from the last validation.
    assert min(step for step in seen if step) == done
    assert status.state == "done"
    assert status.step < 60


def test_a_training_that_is_killed_goes_on(settings: Settings) -> None:
    project = Project.create(replace(settings, minutes=3.0))
    words = [sys.executable, "-m", "napari_restore.cli", "train", "--continue", "nuclei", "--quiet"]
    process = subprocess.Popen(words)
    try:
        until(lambda: project.status.step > 0)
        assert project.running
        with pytest.raises(RestoreError, match="already"):
            FineTuning(project).run()
    finally:
        os.kill(process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait(LIMIT)
    assert not project.running
    assert project.status.state == "paused"
    assert "broken off" in project.status.message
    assert [each.settings for each in all_projects()] == [project.settings]
    status = FineTuning(project, lambda s: project.wish(PAUSE)).run()
    assert status.state == "paused"
    assert (project.folder / "nuclei.ckpt").is_file()
    project.discard()
    assert all_projects() == []


@pytest.mark.usefixtures("quick")
def test_nothing_is_kept_that_is_not_better(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fine_tuning.Trainer, "validate", lambda self: {"output": 30.0 - self.step, "input": 20.0}
    )
    monkeypatch.setattr(fine_tuning, "TrainOptions", _validating_often)
    project = Project.create(settings)
    warnings: set[str] = set()
    status = FineTuning(project, lambda s: warnings.add(s.warning)).run()
    assert (status.state, status.result) == ("done", "")
    assert "Nothing was kept" in status.message
    assert any("Worse than the model" in text for text in warnings)
    with pytest.raises(ModelError):
        library.find_entry("nuclei")


@pytest.mark.usefixtures("quick")
def test_no_more_progress_is_said_early(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([20.0, 25.0, *[24.0] * 20])
    monkeypatch.setattr(
        fine_tuning.Trainer, "validate", lambda self: {"output": next(figures), "input": 20.0}
    )
    monkeypatch.setattr(fine_tuning, "TrainOptions", _validating_often)
    warnings: list[str] = []
    status = FineTuning(Project.create(settings), lambda s: warnings.append(s.warning)).run()
    assert any("not improved for 4 validations" in text for text in warnings)
    assert status.best == 25


def _validating_often(**options: Any) -> Any:
    from napari_restore.training.loop import TrainOptions

    return TrainOptions(**{**options, "checkpoint_seconds": 0.6})


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_said_and_the_last_checkpoint_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.create(settings)
    FineTuning(project, lambda s: project.wish(PAUSE)).run()
    before = (project.folder / "nuclei.ckpt").read_bytes()

    def full(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match="disk full"):
        FineTuning(project).run()
    assert project.status.state == "failed"
    assert "last checkpoint is whole" in project.status.message
    assert (project.folder / "nuclei.ckpt").read_bytes() == before
    monkeypatch.undo()


def test_folders_without_images_and_folders_that_are_gone(
    settings: Settings, sharp: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    empty = Project.create(replace(settings, name="a", sharp=(str(tmp_path / "empty"),)))
    with pytest.raises(RestoreError, match="No image in"):
        FineTuning(empty).run()
    assert (empty.status.state, "No image in" in empty.status.message) == ("failed", True)
    gone = Project.create(replace(settings, name="b", sharp=(str(tmp_path / "gone"),)))
    with pytest.raises(FileError, match="is gone"):
        FineTuning(gone).run()


# ---------------------------------------------------------------- what is chosen


def test_blur_and_noise_are_those_that_were_chosen() -> None:
    _, recipe = find_base("deblur-mono")
    chosen = Settings("x", "deblur-mono", ("a",), blur=(2.0, 2.2), noise=(0.02, 0.02))
    degradation = degradation_of(recipe, chosen)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    even = torch.full((64, 1, 48, 48), 0.5)
    pair = degradation(even, rng, generator)
    # Gain is up to 1.6, and one image in eight has none.
    noise = pair.image.std((1, 2, 3)) / (pair.target.mean((1, 2, 3)).abs() + 1)
    assert 0.005 < float(noise.median()) < 0.03
    sigmas = {round(psf.equivalent_sigma(k), 1) for k in pair.kernels if k.size > 1}
    assert sigmas and all(1.8 <= sigma <= 2.4 for sigma in sigmas)


@pytest.mark.parametrize("model", ["denoise-mono", "denoise-color"])
def test_noise_of_denoising_is_that_which_was_chosen(model: str) -> None:
    _, recipe = find_base(model)
    degradation = degradation_of(recipe, Settings("x", model, ("a",), noise=(0.05, 0.05)))
    even = torch.full((32, recipe.channels, 48, 48), 0.4)
    pair = degradation(even, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert pair.noise is not None
    noise = pair.noise.flatten()
    assert 0.03 < float(noise[noise > 0].median()) < 0.08


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sharp": ()}, "sharp images, or pairs"),
        ({"low": ("a",)}, "sharp images, or pairs"),
        ({"sharp": (), "low": ("a",)}, "Pairs need"),
        ({"minutes": 0}, "minutes must be"),
        ({"blur": (3.0, 1.0)}, "3 to 1"),
        ({"noise": (0.0, 0.9)}, "0.5 of the range"),
        ({"sharp": (), "low": ("a",), "high": ("b",), "blur": (1.0, 2.0)}, "have their own"),
        ({"name": "a/b"}, "cannot be called"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RestoreError, match=said):
        replace(Settings("x", "deblur-mono", sharp=("a",)), **changes).checked()


@pytest.mark.parametrize("model", ["invert-mono", "motion-frames-mono"])
def test_models_that_look_further_are_not_trained_here(model: str) -> None:
    with pytest.raises(ModelError, match="cannot be trained further"):
        find_base(model)


@pytest.mark.usefixtures("quick")
def test_haze_is_learned_from_clear_images(write_model: Callable[..., str], tmp_path: Path) -> None:
    library.add(Path(write_model("haze", "dehaze", "affine", channels=3, **SMALL_AFFINE)), "haze")
    (tmp_path / "clear").mkdir()
    for seed in range(3):
        picture = np.stack([scene(seed), scene(seed + 10), scene(seed + 20)], -1)
        pixels = (255 * picture).astype(np.uint8)
        imsave(tmp_path / "clear" / f"{seed}.png", pixels, check_contrast=False)
    settings = Settings("clear", "haze", sharp=(str(tmp_path / "clear"),), minutes=0.1, threads=1)
    status = FineTuning(Project.create(settings)).run()
    assert (status.state, status.step > 10) == ("done", True)
    if status.result:
        assert find_model("dehaze", 3, "clear").view == SMALL_AFFINE["view"]
    pairs = replace(settings, sharp=(), low=("a",), high=("b",))
    with pytest.raises(ModelError, match="not from pairs"):
        fine_tuning.fine_tuning_recipe(pairs)
    with pytest.raises(ModelError, match="noise is for deblur and denoise"):
        fine_tuning.fine_tuning_recipe(replace(settings, noise=(0.0, 0.1)))


def images(*names: str) -> list[SharpImage]:
    return [SharpImage(np.zeros((4, 4, 1), np.uint8), "", name) for name in names]


def test_whole_images_are_held_out() -> None:
    planes = [f"layer{n}_plane{m}.tif" for n in range(4) for m in range(3)]
    train, held, note = hold_out(images(*planes))
    assert {image.name[:6] for image in train} & {image.name[:6] for image in held} == set()
    assert len(train) + len(held) == 12
    assert note == ""
    train, held, note = hold_out(images(*planes[:3]))
    assert (len(train), [image.name for image in held]) == (2, ["layer0_plane2.tif"])
    assert "one layer" in note
    assert len(hold_out(images(*(f"{n}.tif" for n in range(100))))[1]) == 8
    with pytest.raises(RestoreError, match="One image is too few"):
        hold_out(images("a.tif"))


# ---------------------------------------------------------------- pairs


@pytest.mark.usefixtures("quick")
def test_pairs_are_learned(base: str, tmp_path: Path) -> None:
    low, high = recorded(tmp_path, (5, 3))
    settings = Settings("paired", base, low=(low,), high=(high,), minutes=0.1, threads=1)
    status = FineTuning(Project.create(settings)).run()
    assert status.best is not None and status.start is not None
    assert status.best > status.start + 0.2
    assert "moved by +5.0, +3.0 pixels" in status.warning
    assert "factor of 3" in status.warning
    # How blurred they were is not known.
    assert find_model("deblur", 1, "paired").estimator == ""


@pytest.mark.parametrize("moved", [(0, 0), (7, 2), (0, 11)])
def test_pairs_are_brought_over_each_other(tmp_path: Path, moved: tuple[int, int]) -> None:
    low, high = recorded(tmp_path, moved, 2)
    pairs, notes = load_pairs([low], [high], 1)
    assert len(notes) == 2
    for pair in pairs:
        seen, target = pair.pixels[..., 0], pair.pixels[..., 1]
        assert seen.shape == (128 - moved[0], 128 - moved[1])
        # Light and place agree, up to what is left of the noise.
        smooth = ndimage.gaussian_filter(target, 2.5), ndimage.gaussian_filter(seen, 2)
        assert np.abs(smooth[0] - smooth[1])[8:-8, 8:-8].mean() < 3
        assert abs(seen.mean() - target.mean()) < 1


def test_a_shift_of_half_a_pixel_is_taken_back() -> None:
    full = 100 * scene(1, 150)
    low = ndimage.gaussian_filter(full, 1.2)[10:138, 10:138, None].astype(np.float32)
    high = ndimage.shift(full, (0.5, -1.3), order=5)[10:138, 10:138, None].astype(np.float32)
    found = register(low, high)
    assert found.shift == pytest.approx((-0.5, 1.3), abs=0.11)
    assert found.correlation > 0.95


def test_pairs_that_do_not_match_are_left_out_and_named(tmp_path: Path) -> None:
    low, high = recorded(tmp_path)
    write(tmp_path / "high", "1", scene(77))
    write(tmp_path / "high", "2", scene(2, 100))
    pairs, notes = load_pairs([low], [high], 1)
    assert len(pairs) == 2
    assert "1.tif: it does not show what its partner shows" in notes[0]
    assert "2.tif: the shapes differ: 128 × 128 and 100 × 100" in notes[1]
    write(tmp_path / "high", "3", 1 - scene(3))
    with pytest.raises(RestoreError, match="The pairs do not match: 1 can be used"):
        load_pairs([low], [high], 1)


def test_names_make_pairs_or_else_their_order() -> None:
    def paths(*names: str) -> list[Path]:
        return [Path(f"{name}.tif") for name in names]

    assert match_names(paths("b", "a"), paths("a", "b", "c"))[0] == (Path("b.tif"), Path("b.tif"))
    assert match_names(paths("a", "b"), paths("x", "y"))[1] == (Path("b.tif"), Path("y.tif"))
    with pytest.raises(RestoreError, match=r"2 images of low quality and 1 of high"):
        match_names(paths("a", "b"), paths("a"))
    with pytest.raises(RestoreError, match="No image of high quality"):
        match_names(paths("a"), [])


# ---------------------------------------------------------------- from a shell


@pytest.mark.usefixtures("quick")
def test_the_command_trains_and_the_same_command_says_it_is_done(
    base: str, sharp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--model", base, "--name", "mine", "--images", str(sharp)]
    words += ["--blur", "1.4:1.6", "--noise", "0:1", "--minutes", "0.1", "--threads", "1"]
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "'mine' is in your library" in said
    assert "napari-restore deblur IN -o OUT --model 'mine'" in said
    assert main(words) == 0
    assert "Choose another --name" in capsys.readouterr().out
    assert main([*words[:-4], "--minutes", "2"]) == 1
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "deblur-mono", "--images", "."], "needs --name"),
        (["--recipe", "deblur-mono"], "needs --images"),
    ],
)
def test_words_that_are_missing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err
