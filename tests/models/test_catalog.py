"""Every model of the catalog: its weights, its network, and how it is found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_restore.api import restore
from napari_restore.errors import ModelError
from napari_restore.inference.predictor import load_predictor
from napari_restore.models.catalog import (
    ARCHITECTURES,
    CATALOG,
    TASKS,
    VOLUME_INVERTER,
    build_network,
    find_model,
    load_state,
    read_metadata,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_restore.models.catalog import ModelSpec

# Model after model, so that each is loaded once.
every_model = pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.name, scope="module")


def test_each_task_has_a_color_and_a_mono_model() -> None:
    kinds = [(spec.task, spec.channels, spec.frames) for spec in CATALOG]
    assert set(kinds) == {
        *((task, channels, 1) for task in TASKS for channels in (1, 3)),
        *(("motion_deblur", channels, 2) for channels in (1, 3)),
    }
    assert len(set(kinds)) == len(kinds)
    assert len({spec.name for spec in CATALOG}) == len(CATALOG)
    assert all(spec.kind == spec.name.rpartition("-")[2] for spec in CATALOG)


@every_model
def test_weights_are_small_sealed_and_say_how_they_were_made(spec: ModelSpec) -> None:
    assert spec.path.stat().st_size <= 8 * 2**20
    assert sha256(spec.path) == spec.sha256
    metadata = read_metadata(spec.path)
    assert (metadata["name"], metadata["task"]) == (spec.name, spec.task)
    assert metadata["architecture"] == spec.architecture
    assert metadata.get("license", metadata.get("licence")) == spec.license
    assert {"training_images", "seed", "steps", "validation"} <= metadata.keys()
    figures = json.loads(metadata["validation"])
    assert {"input", "output", "identity"} <= figures.keys()
    assert int(metadata["steps"]) >= 0


def test_the_model_of_volumes_is_sealed_and_says_how_it_was_made() -> None:
    spec = VOLUME_INVERTER
    assert sha256(spec.path) == spec.sha256
    metadata = read_metadata(spec.path)
    assert (metadata["name"], metadata["architecture"]) == (spec.name, spec.architecture)
    assert {"recorded_volumes", "seed", "steps", "licence"} <= metadata.keys()
    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_state(spec.path, spec.sha256))


@every_model
def test_weights_fit_the_network_and_are_finite(spec: ModelSpec) -> None:
    network = build_network(spec.architecture, spec.options)
    state = load_state(spec.path, spec.sha256)
    assert state.keys() == network.state_dict().keys()
    network.load_state_dict(state)
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert 16 % spec.multiple_of == 0
    assert network.multiple_of == spec.multiple_of
    assert (spec.view or 0) == getattr(network, "view", 0)
    # What looks at no more than a view of the plane works pixel by pixel.
    assert (spec.halo == 0) == (spec.architecture == "affine")


@every_model
def test_the_metadata_alone_describes_the_same_model(spec: ModelSpec) -> None:
    # So a bundled file copied elsewhere and given by its path is the same model.
    found = find_model(spec.task, spec.channels, str(spec.path), spec.frames)
    same = ("task", "channels", "architecture", "multiple_of", "view", "black_is_zero", "frames")
    for name in (*same, "estimator"):
        assert getattr(found, name) == getattr(spec, name)
    assert found.sha256 == spec.sha256
    assert found.halo >= spec.halo


@every_model
def test_models_run_on_any_size(spec: ModelSpec, rng: np.random.Generator) -> None:
    for size in ((1, 1), (37, 50)):
        shape = (*size, 3) if spec.channels == 3 else size
        shape = (3, *shape) if spec.frames == 2 else shape
        image = rng.integers(0, 4000, shape).astype(np.uint16)
        result = restore(
            image, spec.task, model=spec.name, rgb=spec.channels == 3, frames=spec.frames
        )
        assert (result.shape, result.dtype) == (shape, np.uint16)


@every_model
def test_a_model_is_loaded_once(spec: ModelSpec) -> None:
    assert load_predictor(spec, "cpu") is load_predictor(spec, "cpu")
    assert load_predictor(spec, "cpu").to_cpu() is load_predictor(spec, "cpu")


def reach(options: dict[str, Any]) -> int:
    """Pixels that a U-Net without attention can look, at most."""
    # A NAFNet's block has one wide convolution, a residual block two.
    scale, wide = options["unshuffle"], 2 if "widths" in options else 1
    total = 2 * scale  # first and last convolution
    if options.get("keep_mean"):
        # Five cells of 8 pixels, and the interpolation between them.
        total += 5 * 8
    levels = zip(options["encoder_blocks"], options["decoder_blocks"][::-1], strict=True)
    for encoder, decoder in levels:
        total += wide * (encoder + decoder) * scale
        scale *= 2
    # And the grid of the lowest level, of which each side may add a step.
    return total + wide * options["middle_blocks"] * scale + 2 * scale


@pytest.mark.parametrize(
    "spec",
    [s for s in CATALOG if s.architecture in ("nafnet", "resunet", "unveil")],
    ids=lambda spec: spec.name,
)
def test_networks_have_no_global_operation(
    spec: ModelSpec, scramble: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    network = scramble(build_network(spec.architecture, spec.options))
    far = reach(dict(spec.options))
    side = (far // spec.multiple_of + 4) * spec.multiple_of
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, spec.channels, spec.multiple_of, side, generator=generator)
    other = image.clone()
    other[..., 0] += 5.0
    with torch.inference_mode():
        change = (network(image) - network(other))[0].abs().amax((0, 1))
    assert float(change[:far].max()) > 1e-3
    assert float(change[far:].max()) == 0
    assert len(change[far:]) >= 2 * spec.multiple_of


@pytest.mark.parametrize("spec", [s for s in CATALOG if not s.halo], ids=lambda spec: spec.name)
def test_given_its_context_a_model_without_a_halo_works_pixel_by_pixel(spec: ModelSpec) -> None:
    predictor = load_predictor(spec, "cpu")
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, spec.channels, 40, 48, generator=generator)
    context, box = predictor.encode(image, None), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    other = image.clone()
    other[..., 7, 9] += 0.5
    change = (predictor(image, context, box) - predictor(other, context, box)).abs().sum((0, 1))
    assert torch.nonzero(change).tolist() == [[7, 9]]
    # A tile gets the values of its place in the whole.
    part = torch.tensor([[10 / 40, 24 / 48, 30 / 40, 40 / 48]])
    torch.testing.assert_close(
        predictor(image[..., 10:30, 24:40], context, part),
        predictor(image, context, box)[..., 10:30, 24:40],
        atol=1e-5,
        rtol=0,
    )


# ---------------------------------------------------------------- finding


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_auto_finds_the_model_that_fits(task: str, channels: int) -> None:
    spec = find_model(task, channels)
    assert (spec.task, spec.channels) == (task, channels)
    assert find_model(task, channels, spec.name) == spec
    assert spec.frames == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_finds_the_model_for_two_frames(channels: int) -> None:
    spec = find_model("motion_deblur", channels, frames=2)
    assert (spec.channels, spec.frames) == (channels, 2)
    with pytest.raises(ModelError, match=r"2 frames.*frames is 1"):
        find_model("motion_deblur", channels, spec.name)
    with pytest.raises(ModelError, match="No model for deblur looks at 2 frames"):
        find_model("deblur", channels, frames=2)


@pytest.mark.parametrize(
    ("task", "channels", "model", "words"),
    [
        ("sharpen", 1, "auto", ["'sharpen'", *TASKS]),
        ("deblur", 1, "deblur-gray", ["'deblur-gray'", "deblur-mono", ".pth"]),
        ("deblur", 1, "X.PTH", ["X.PTH"]),
        ("deblur", 1, "", ["''", "deblur-mono"]),
        ("dehaze", 1, "deblur-mono", ["'deblur-mono'", "not dehaze", "dehaze-mono"]),
        ("deblur", 1, "deblur-color", ["needs 3 channels", "has 1", "mono"]),
        ("deblur", 3, "deblur-mono", ["needs 1 channel;", "has 3", "color"]),
    ],
)
def test_what_cannot_be_found_is_named(
    task: str, channels: int, model: str, words: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(task, channels, model)
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'vgg'.*nafnet"):
        build_network("vgg", {})
    # Of published checkpoints, and of models that a blur chooses, there is none in this table.
    assert set(ARCHITECTURES) == {
        *(spec.architecture for spec in CATALOG),
        *("nafnet", "inverter", "volume", "spandrel"),
    }
