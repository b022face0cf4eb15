"""The command line, as a user runs it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_restore import api
from napari_restore.cli import main, restore
from napari_restore.models.catalog import CATALOG

#: Strength 0 keeps the input, so that results can be compared with it sample by sample.
KEEP = ["--strength", "0", "--device", "cpu"]


def picture(path: Path, shape=(24, 33), seed=0) -> Path:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Two good images and a damaged one between them."""
    images = tmp_path / "images"
    images.mkdir()
    picture(images / "a.png")
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:60])
    picture(images / "c.jpg", (24, 33, 3))
    (images / "notes.txt").write_text("no image")
    return images


@pytest.mark.parametrize("name", ["in.png", "in.tif"])
def test_gray_under_alpha_0_stays_and_decides_nothing(tmp_path, name):
    rng = np.random.default_rng(0)
    gray = ndimage.gaussian_filter(rng.random((64, 72)), 2)
    gray = (100 + 100 * (gray - gray.min()) / np.ptp(gray)).astype(np.uint8)
    alpha = np.full_like(gray, 255)
    alpha[20:50, 30:60] = 0
    shown = []
    for hidden in (0, 255):
        both = np.stack([np.where(alpha == 0, hidden, gray).astype(np.uint8), alpha], -1)
        source, target = tmp_path / f"{hidden}-{name}", tmp_path / f"{hidden}-out-{name}"
        if name.endswith("png"):
            Image.fromarray(both, "LA").save(source)
        else:
            alone = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
            tifffile.imwrite(source, both, extrasamples=["unassalpha"], **alone)
        assert main(["dehaze", str(source), "-o", str(target), "--device", "cpu"]) == 0
        result = np.asarray(Image.open(target))
        np.testing.assert_array_equal(result[alpha == 0], both[alpha == 0])
        np.testing.assert_array_equal(result[..., 1], alpha)
        shown.append(result[alpha > 0])
    np.testing.assert_array_equal(*shown)
    assert (shown[0][:, 0] != gray[alpha > 0]).any()


@pytest.mark.parametrize("command", ["deblur", "dehaze", "motion-deblur"])
@pytest.mark.parametrize("shape", [(24, 33), (24, 33, 3), (24, 33, 4)])
def test_each_task_restores_an_image(tmp_path, capsys, command, shape):
    source, target = picture(tmp_path / "in.png", shape), tmp_path / "out.png"
    assert main([command, str(source), "-o", str(target), "--device", "cpu"]) == 0
    with Image.open(source) as one, Image.open(target) as two:
        before, after, note = (
            np.asarray(one),
            np.asarray(two),
            json.loads(two.text["napari-restore"]),
        )
    task = command.replace("-", "_")
    expected = getattr(api, task)(before, device="cpu")
    np.testing.assert_array_equal(after, expected)
    assert (note["task"], note["strength"], note["device"]) == (task, 1.0, "cpu")
    out, err = capsys.readouterr()
    assert str(target) in out
    assert note["model"] in out
    assert err == ""


def test_stack_keeps_axes_and_pixel_size(tmp_path):
    source, target = tmp_path / "in.ome.tif", tmp_path / "results" / ""
    data = np.random.default_rng(0).integers(0, 4000, (2, 3, 24, 33)).astype("uint16")
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 0.1, "Channel": {"Name": ["a", "b", "c"]}}
    tifffile.imwrite(source, data, photometric="minisblack", metadata=metadata)
    command = ["deblur", str(source), "-o", f"{target}/", "--device", "cpu", "--tile", "32"]
    assert main(command) == 0
    with tifffile.TiffFile(target / "in.ome.tif") as tif:
        assert tif.series[0].axes == "ZCYX"
        assert 'PhysicalSizeX="0.1"' in tif.ome_metadata
        expected = api.deblur(data, axes="ZCYX", device="cpu", tile=32)
        np.testing.assert_array_equal(tif.asarray(), expected)


def test_options_reach_the_engine(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (24, 33, 3)).astype("uint8")
    np.save(tmp_path / "a.npy", data)
    half = ["--strength", "0.5", "--axes", "zyx", "--model", "motion-mono"]
    command = ["motion-deblur", str(tmp_path / "a.npy"), "-o", str(tmp_path / "b.npy"), *half]
    assert main([*command, "--device", "cpu"]) == 0
    options = {"strength": 0.5, "axes": "ZYX", "model": "motion-mono", "device": "cpu"}
    expected = api.motion_deblur(data, **options)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected)


@pytest.mark.parametrize(
    ("option", "model"), [("--rgb", "deblur-color"), ("--no-rgb", "deblur-mono")]
)
def test_rgb_option(tmp_path, capsys, option, model):
    source = picture(tmp_path / "a.png", (24, 33, 3))
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.png"), option, *KEEP]) == 0
    assert model in capsys.readouterr().out


def test_progress_is_shown_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    source = picture(tmp_path / "in.png", (40, 40))
    assert main(["deblur", str(source), "-o", str(tmp_path / "out.png"), *KEEP]) == 0
    shown = sys.stderr.getvalue()
    assert "in.png" in shown
    assert "1.60k" in shown
    assert "pixel" in shown


# ------------------------------------------------------------------ many files


def test_a_damaged_file_is_reported_and_the_others_go_on(tmp_path, folder, capsys):
    out = tmp_path / "new" / "results"
    assert main(["deblur", str(folder), "-o", str(out), *KEEP]) == 1
    assert names(out) == ["a.png", "c.jpg"]
    error = capsys.readouterr().err
    assert error.startswith(f"napari-restore: {folder / 'b.png'}: ")
    assert "Traceback" not in error
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "a.png")), np.asarray(Image.open(folder / "a.png"))
    )


def test_files_and_folders_together(tmp_path, folder, capsys):
    single, empty = picture(tmp_path / "d.png"), tmp_path / "empty"
    empty.mkdir()
    (folder / "b.png").unlink()
    gone = tmp_path / "gone.png"
    inputs = [str(path) for path in (folder, empty, gone, single)]
    assert main(["deblur", *inputs, "-o", str(tmp_path / "out"), *KEEP]) == 1
    assert names(tmp_path / "out") == ["a.png", "c.jpg", "d.png"]
    error = capsys.readouterr().err
    assert f"{empty}: The folder holds no image file" in error
    assert f"{gone}: There is no such file" in error


def test_two_inputs_of_one_name_do_not_share_a_result(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "x.png", seed=ord(name))
    inputs = [str(tmp_path / name / "x.png") for name in "ab"]
    assert main(["deblur", *inputs, "-o", str(tmp_path / "out"), "--force", *KEEP]) == 1
    assert "was written for" in capsys.readouterr().err
    with Image.open(inputs[0]) as first, Image.open(tmp_path / "out" / "x.png") as result:
        np.testing.assert_array_equal(np.asarray(result), np.asarray(first))


# ------------------------------------------------------------------ nothing is lost


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    source, target = picture(tmp_path / "in.png"), tmp_path / "out.png"
    target.write_bytes(b"precious")
    command = ["deblur", str(source), "-o", str(target), *KEEP]
    assert main(command) == 1
    assert target.read_bytes() == b"precious"
    assert "not a result of napari-restore" in capsys.readouterr().err
    target.unlink()
    assert main(command) == 0
    before = target.read_bytes()
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    assert target.read_bytes() == before


@pytest.mark.parametrize("way", ["same", "dotted", "link", "folder", "other input"])
def test_an_input_is_never_overwritten(tmp_path, way, capsys):
    source = picture(tmp_path / "in.png")
    before = source.read_bytes()
    inputs, output = [str(source)], str(source)
    if way == "dotted":
        (tmp_path / "sub").mkdir()
        output = str(tmp_path / "sub" / ".." / "in.png")
    elif way == "link":
        (tmp_path / "link.png").symlink_to(source)
        output = str(tmp_path / "link.png")
    elif way == "folder":
        inputs, output = [str(tmp_path)], str(tmp_path)
    elif way == "other input":
        (tmp_path / "sub").mkdir()
        inputs.append(str(picture(tmp_path / "sub" / "in.png", seed=1)))
        output = str(tmp_path)
    assert main(["deblur", *inputs, "-o", output, "--force", *KEEP]) == 1
    assert source.read_bytes() == before
    assert "is an input, so it is kept" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (OSError, 1)])
@pytest.mark.parametrize("moment", ["computing", "writing"])
def test_a_broken_run_leaves_no_file(tmp_path, monkeypatch, capsys, error, status, moment):
    source = picture(tmp_path / "in.png")
    # Results of this size go through a scratch file.
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)

    def broken(image, path, *args, **options):
        Path(path).write_bytes(b"half")
        raise error

    def fail(*args, **options):
        raise error

    if moment == "writing":
        monkeypatch.setattr(Image.Image, "save", broken)
    else:
        monkeypatch.setattr(restore, "restore_array", fail)
    command = ["deblur", str(source), "-o", str(tmp_path / "out.png"), *KEEP]
    assert main(command) == status
    assert "Traceback" not in capsys.readouterr().err
    assert names(tmp_path) == ["in.png"]


def test_large_results_grow_on_disk(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 4000, (3, 24, 33)).astype("uint16")
    np.save(tmp_path / "a.npy", data)
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    seen = []
    real = restore.restore_array

    def spy(image, plan, out, client):
        seen.append((image, out))
        return real(image, plan, out=out, client=client)

    monkeypatch.setattr(restore, "restore_array", spy)
    assert main(["deblur", str(tmp_path / "a.npy"), "-o", str(tmp_path / "b.npy"), *KEEP]) == 0
    assert [type(array) for array in seen[0]] == [np.ndarray, np.memmap]
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), data)
    assert names(tmp_path) == ["a.npy", "b.npy"]


def test_a_full_disk_is_seen_beforehand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(restore, "SCRATCH_BYTES", 10)
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    source = picture(tmp_path / "a.png")
    assert main(["deblur", str(source), "-o", str(tmp_path / "b.png"), *KEEP]) == 1
    assert "larger disk" in capsys.readouterr().err


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("out.jpg", [], "JPEG has no alpha"),
        ("out.bmp", [], "'.bmp'"),
        ("out", [], "without an ending"),
        ("gone/out.png", [], "no folder"),
        ("out.png", ["--axes", "ZZ"], "axes 'ZZ'"),
        ("out.png", ["--model", "deblur-mono"], "needs 1 channel"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, target, options, message):
    source = picture(tmp_path / "in.png", (24, 33, 4))
    command = ["deblur", str(source), "-o", str(tmp_path / target), *options, *KEEP]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"napari-restore: {source}: ")
    assert message in error
    assert names(tmp_path) == ["in.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sharpen", "a.png"],
        ["deblur", "a.png"],
        ["deblur", "-o", "b.png"],
        ["deblur", "a.png", "-o", "b.png", "--tile", "0"],
        ["deblur", "a.png", "-o", "b.png", "--strength", "2"],
        ["deblur", "a.png", "-o", "b.png", "--strength", "nan"],
        ["deblur", "a.png", "-o", "b.png", "--strength", "much"],
        ["evaluate", "--sharp", "no-such-folder", "--task", "deblur"],
        ["train", "--recipe", "deblur-mono", "--images", ".", "--minutes", "-1"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: napari-restore" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "abacus"], "abacus"),
        (["--model", "deblur-magic"], "deblur-magic"),
        (["--model", "motion-color"], "is for motion_deblur"),
        (["--model", "gone.safetensors"], "gone.safetensors"),
    ],
)
def test_wrong_names_are_reported_once(folder, tmp_path, capsys, options, message):
    assert main(["deblur", str(folder), "-o", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.count(message) == error.count("\n") == 1


def test_several_results_need_a_folder(folder, tmp_path, capsys):
    target = picture(tmp_path / "one.png")
    assert main(["deblur", str(folder), "-o", str(target), *KEEP]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["deblur", "--help"], ["train", "--help"], []])
def test_help_is_quick(arguments):
    code = f"""
import sys
from napari_restore.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{"torch", "numpy", "napari", "qtpy", "skimage", "PIL"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# ------------------------------------------------------------------ models, gui


def test_models_lists_the_catalog(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for spec in CATALOG:
        line = next(line for line in out.splitlines() if line.startswith(spec.name))
        assert spec.task.replace("_", "-") in line
        assert spec.license in line
        assert f"{spec.path.stat().st_size / 1e6:.1f} MB" in line


def test_gui_without_napari_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "napari", None)
    assert main(["gui"]) == 1
    assert 'pip install "napari-restore[all]"' in capsys.readouterr().err


def test_gui_opens_files_after_torch(monkeypatch, tmp_path, capsys):
    source, calls = picture(tmp_path / "a.png"), []

    class Napari:
        class Viewer:
            def __init__(self):
                calls.append("torch" in sys.modules)

            def open(self, paths):
                calls.append(paths)

        @staticmethod
        def run():
            calls.append("run")

    monkeypatch.setitem(sys.modules, "napari", Napari)
    assert main(["gui", str(source)]) == 0
    assert calls == [True, [str(source)], "run"]
    assert main(["gui", str(tmp_path / "gone.png")]) == 1
    assert "no such file" in capsys.readouterr().err


# ------------------------------------------------------------------ train, evaluate


@pytest.fixture
def sharp(tmp_path):
    """A folder of small color images."""
    sharp = tmp_path / "sharp"
    sharp.mkdir()
    for number in range(3):
        picture(sharp / f"noise_{number}.png", (160, 160, 3), seed=number)
    return sharp


def test_trained_weights_restore_an_image(tmp_path, sharp, capsys):
    out = tmp_path / "training"
    command = ["train", "--recipe", "dehaze-color", "--images", str(sharp), "--out", str(out)]
    command += ["--minutes", "0.02", "--device", "cpu", "--quiet", "--threads", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    weights = out / "dehaze-color.safetensors"
    assert str(weights) in said
    assert str(out / "dehaze-color.jsonl") in said
    assert (out / "dehaze-color.jsonl").is_file()
    source = picture(tmp_path / "in.png", (24, 33, 3))
    restored = ["dehaze", str(source), "-o", str(tmp_path / "out.png"), "--model", str(weights)]
    assert main([*restored, "--device", "cpu"]) == 0
    with Image.open(tmp_path / "out.png") as result:
        note = json.loads(result.text["napari-restore"])
    assert note["weights_sha256"] not in {spec.sha256 for spec in CATALOG}
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Going on from the checkpoint" in said
    assert "The time is spent already" in said


def test_train_hints_at_a_warm_start(tmp_path, sharp, capsys, monkeypatch):
    from napari_restore.training import loop

    monkeypatch.setattr(loop.Trainer, "run", lambda self, progress: self.weights)
    command = ["train", "--recipe", "deblur-mono", "--images", str(sharp), "--minutes", "1"]
    command += ["--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 1
    out, err = capsys.readouterr()
    assert "--init" in out
    assert "no usable weights" in err
    bundled = next(spec.path for spec in CATALOG if spec.name == "deblur-color")
    main([*command, "--out", str(tmp_path / "b"), "--init", str(bundled)])
    assert "--init" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--recipe", "nonsense"], 1, "No recipe 'nonsense'"),
        (["--recipe", "dehaze-color", "--device", "abacus"], 1, "abacus"),
    ],
)
def test_train_says_what_is_wrong(tmp_path, sharp, capsys, options, status, message):
    command = ["train", "--images", str(sharp), "--out", str(tmp_path / "out"), *options]
    assert main(command) == status
    assert message in capsys.readouterr().err


def test_train_without_images(tmp_path, capsys):
    command = ["train", "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*command, "--recipe", "dehaze-color", "--device", "cpu"]) == 1
    assert "No color image" in capsys.readouterr().err


def test_interrupted_training_can_go_on(tmp_path, sharp, capsys, monkeypatch):
    from napari_restore.training import loop

    def interrupted(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "run", interrupted)
    command = ["train", "--images", str(sharp), "--out", str(tmp_path / "out")]
    assert main([*command, "--recipe", "dehaze-color", "--device", "cpu"]) == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "methods"),
    [
        (
            "deblur",
            [
                "input",
                "unsharp mask",
                "Richardson–Lucy, Gaussian σ 1.5",
                "Wiener, Gaussian σ 1.5",
                "Richardson–Lucy",
                "Wiener",
                "deblur-color",
            ],
        ),
        ("dehaze", ["input", "dark channel prior", "dehaze-color"]),
    ],
)
def test_evaluate_prints_a_table_for_each_kind(sharp, capsys, task, methods):
    command = ["evaluate", "--sharp", str(sharp), "--task", task, "--limit", "2", "--size", "64"]
    assert main([*command, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    color, mono = out.split("\n\n")
    assert color.startswith(f"{task}, color: 2 images of 64×64 pixels")
    assert mono.startswith(f"{task}, mono: 2 images of 64×64 pixels")
    rows = color.splitlines()[3:]
    for row, method in zip(rows, methods, strict=False):
        assert row.startswith(method)
        assert "dB" in row
    assert all(("PSF true  PSF found" in table) == (task == "deblur") for table in (color, mono))
    assert out.count("sharp images returned at ") == 2
    assert ("affine fit" in mono) == (task == "dehaze")
    assert "affine fit" not in color


def test_evaluate_leaves_out_what_there_are_no_images_for(tmp_path, capsys):
    gray = tmp_path / "gray"
    gray.mkdir()
    picture(gray / "a.png", (80, 80))
    command = ["evaluate", "--sharp", str(gray), "--task", "deblur", "--size", "48"]
    command += ["--device", "cpu"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "color left out" in err
    assert out.startswith("deblur, mono: 1 image of 48×48")
    assert main([*command, "--kind", "color"]) == 1
    assert main([*command, "--model", "deblur-color", "--kind", "mono"]) == 1
    assert "Choose a mono model" in capsys.readouterr().err
