"""Degradations: what every training pair must be, whatever is drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_restore.errors import ModelError
from napari_restore.physics import motion, psf
from napari_restore.training import blurs
from napari_restore.training.blurs import IDENTITY_SHARE
from napari_restore.training.frames import FramePairBlur
from napari_restore.training.haze_degradations import OutOfFocusLight
from napari_restore.training.losses import (
    charbonnier,
    estimate_error,
    fourier,
    log_error,
    optics_error,
    restoration_loss,
)
from napari_restore.training.recipes import RECIPES, get_recipe

if TYPE_CHECKING:
    from napari_restore.training.degradations import Pair
    from napari_restore.training.recipes import Recipe

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def sharp_batch(recipe: Recipe, count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Crops with structure at a few scales, in [0, 1]."""
    return _structure(count, recipe.channels, size + 2 * recipe.degradation.margin, seed)


@cache
def _structure(count: int, channels: int, side: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (count, channels, side, side)
    image = sum(
        ndimage.gaussian_filter(rng.normal(size=shape), (0, 0, s, s)) * s for s in (0.7, 2, 6)
    )
    image = (image - image.min()) / (image.max() - image.min())
    return torch.from_numpy(image.astype(np.float32))


def pair(
    recipe: Recipe, count: int, size: int, seed: int, gamma: float = 1.0, bright: bool = False
) -> Pair:
    sharp = sharp_batch(recipe, count, size) ** gamma
    return recipe.degradation(
        1 - sharp if bright else sharp,
        np.random.default_rng(seed),
        torch.Generator().manual_seed(seed),
    )


@every_recipe
def test_pairs_have_the_size_that_was_asked_for(recipe: Recipe) -> None:
    made = pair(recipe, 5, 48, 1)
    frames = 1 if made.exposure is None else 2
    assert made.image.shape == (5, frames * recipe.channels, 48, 48)
    assert made.target.shape == (5, recipe.channels, 48, 48)
    for tensor in (made.image, made.target):
        assert tensor.dtype == torch.float32
        assert bool(torch.isfinite(tensor).all())


@every_recipe
def test_one_seed_gives_one_pair(recipe: Recipe) -> None:
    first, again, other = (pair(recipe, 3, 40, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@every_recipe
def test_values_stay_near_the_range_of_a_network(recipe: Recipe) -> None:
    for seed in range(4):
        image, target, *_ = pair(recipe, 6, 48, seed)
        if recipe.channels == 3:
            assert 0 <= float(image.min())
            assert float(image.max()) <= 1
            assert 0 <= float(target.min())
            assert float(target.max()) <= 1
        assert -1 < float(image.median()) < 1.5
        assert -1 < float(target.median()) < 2


@every_recipe
def test_some_come_back_as_they_were(recipe: Recipe) -> None:
    recipe = without_noisy_identities(recipe)
    share = getattr(recipe.degradation, "identity_share", IDENTITY_SHARE)
    # Four standard deviations of the binomial law.
    assert abs(unchanged_share(recipe) - share) < 4 * (share * (1 - share) / 400) ** 0.5
    assert 0.08 <= share <= 0.3


def test_structure_that_fills_the_image_is_mostly_left_alone() -> None:
    recipe = without_noisy_identities(get_recipe("dehaze-mono"))
    assert unchanged_share(recipe, bright=True) > 0.5


def without_noisy_identities(recipe: Recipe) -> Recipe:
    """Out-of-focus light, but what has none has no noise either, so that it can be counted."""
    if not isinstance(recipe.degradation, OutOfFocusLight):
        return recipe
    return replace(recipe, degradation=replace(recipe.degradation, noisy_share=0))


def unchanged_share(recipe: Recipe, bright: bool = False) -> float:
    """Share of identity pairs among 400; the fourth power makes the background dark."""
    same = 0
    for seed in range(25):
        image, target, *_ = pair(recipe, 16, 16, seed, 4.0, bright)
        same += int((image[:, : target.shape[1]] - target).abs().flatten(1).amax(1).lt(1e-6).sum())
    return same / 400


@every_recipe
def test_all_others_are_degraded(recipe: Recipe) -> None:
    errors = []
    for seed in range(6):
        image, target, *_ = pair(recipe, 8, 48, seed, gamma=4.0)
        errors += (image[:, : target.shape[1]] - target).square().flatten(1).mean(1).sqrt().tolist()
    errors = sorted(errors)
    # Something to learn in most pairs, and something left to see.
    assert errors[2 * len(errors) // 5] > 0.002
    assert errors[len(errors) // 2] < 0.6


@pytest.mark.parametrize("name", ["deblur-mono", "motion-mono"])
def test_both_sides_of_a_mono_pair_share_gain_and_offset(name: str) -> None:
    recipe = get_recipe(name)
    slopes = []
    for seed in range(6):
        image, target, *_ = pair(recipe, 8, 48, seed)
        # Blur keeps means: whatever gain and offset were drawn, they were drawn for both.
        means = (image.mean((1, 2, 3)) - target.mean((1, 2, 3))).abs()
        assert float(means.max()) < 0.1
        slopes.append(float(target.std((1, 2, 3)).max() / target.std((1, 2, 3)).min()))
    assert max(slopes) > 1.5


@pytest.mark.parametrize(
    "draw", [blurs.random_defocus, blurs.random_motion], ids=["defocus", "motion"]
)
def test_random_kernels_are_kernels_and_fit_the_margin(draw) -> None:  # type: ignore[no-untyped-def]
    sizes = set()
    for seed in range(150):
        kernel = draw(np.random.default_rng(seed))
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        half = kernel.shape[0] // 2
        near = kernel[max(0, half - 20) : half + 21, max(0, half - 20) : half + 21]
        assert near.sum() > 0.995
        sizes.add(kernel.shape[0])
    assert len(sizes) > 5


def test_recipes_are_found_by_name() -> None:
    assert [get_recipe(recipe.name) for recipe in RECIPES] == list(RECIPES)
    with pytest.raises(ModelError, match=r"'deblur-gray'.*deblur-mono"):
        get_recipe("deblur-gray")


@every_recipe
def test_recipes_belong_to_the_catalog(recipe: Recipe) -> None:
    from napari_restore.models.catalog import CATALOG, INVERTERS, build_network

    spec = next(s for s in (*CATALOG, *INVERTERS.values()) if s.name == recipe.name)
    assert (spec.task, spec.channels, spec.architecture) == (
        recipe.task,
        recipe.channels,
        recipe.architecture,
    )
    shapes = [
        {k: v.shape for k, v in build_network(spec.architecture, options).state_dict().items()}
        for options in (spec.options, recipe.options)
    ]
    assert shapes[0] == shapes[1]
    assert recipe.start_from is None or get_recipe(recipe.start_from)
    assert recipe.crops[0][0] == 0
    assert all(size % spec.multiple_of == 0 for _, size, _ in recipe.crops)


# ---------------------------------------------------------------- losses


def test_losses_are_least_where_the_target_is() -> None:
    target = torch.rand(2, 3, 16, 16)
    off = target + 0.1
    assert float(charbonnier(target, target)) == pytest.approx(1e-3)
    assert float(charbonnier(off, target)) == pytest.approx(0.1, rel=1e-3)
    assert float(fourier(target, target)) == 0
    assert float(restoration_loss(off, target)) > float(restoration_loss(target, target))


def test_white_errors_weigh_the_same_in_the_image_and_its_spectrum() -> None:
    noise = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    in_image = float(noise.abs().mean())
    in_spectrum = float(fourier(noise, torch.zeros_like(noise)))
    assert in_spectrum == pytest.approx(in_image / 2**0.5, rel=0.1)


def test_of_two_images_the_better_one_counts_as_much() -> None:
    target = torch.zeros(2, 1, 8, 8)
    result = torch.stack([torch.full((1, 8, 8), 0.3), torch.full((1, 8, 8), 0.03)])
    whole = log_error(result, target, floor=0.0)
    for index in range(2):
        halved = result.clone()
        halved[index] /= 2
        assert float(whole - log_error(halved, target, floor=0.0)) == pytest.approx(np.log(2))
    assert float(log_error(target, target)) == pytest.approx(np.log(1e-4))


def test_a_gauge_is_best_where_it_is_right_and_knows_it() -> None:
    truth = torch.tensor([0.5, float("nan")]).view(2, 1, 1, 1)

    def error(mean: float, log_variance: float) -> float:
        estimates = torch.tensor([mean, log_variance]).view(1, 2, 1, 1, 1).expand(2, 2, 1, 4, 4)
        return float(estimate_error(estimates, truth))

    assert error(0.5, -3) < error(0.5, 0) < error(1.5, 0) < error(1.5, -3)


@pytest.mark.parametrize("name", ["deblur-color", "deblur-mono"])
def test_pairs_tell_what_blurred_them(name: str) -> None:
    recipe = get_recipe(name)
    unblurred = 0
    for seed in range(12):
        image, target, drawn, *_ = pair(recipe, 8, 32, seed)
        assert len(drawn) == 8
        for degraded, wanted, kernel in zip(image, target, drawn, strict=True):
            assert kernel is not None
            assert kernel.sum() == pytest.approx(1, abs=1e-4)
            if torch.equal(degraded, wanted):
                assert psf.equivalent_sigma(kernel) < 0.3
                unblurred += 1
            else:
                assert kernel.shape[0] > 1
    assert unblurred > 4


def test_sharp_images_keep_their_noise() -> None:
    """Half of the pairs without blur are noisy on both sides."""
    recipe, noisy, clean = get_recipe("deblur-mono"), 0, 0
    for seed in range(12):
        side = 32 + 2 * recipe.degradation.margin
        flat = torch.full((16, 1, side, side), 0.5)
        image, target, *_ = recipe.degradation(
            flat, np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        )
        for degraded, wanted in zip(image, target, strict=True):
            if torch.equal(degraded, wanted):
                spread = float(degraded.std())
                noisy, clean = noisy + (spread > 1e-4), clean + (spread < 1e-6)
    assert noisy > 5
    assert clean > 5


def test_optics_of_haze_take_it_away() -> None:
    recipe = get_recipe("dehaze-color")
    ratios: list[float] = []
    for seed in range(6):
        made = pair(recipe, 6, 48, seed)
        assert made.optics is not None
        log_gain, airlight, plain = made.optics
        clear = airlight + (made.image - airlight) * log_gain.exp()
        errors = [(x - made.target).abs().flatten(1).mean(1) for x in (made.image, clear)]
        # Compression is no haze.
        there = log_gain.flatten(1).amax(1) > 0
        hazy = (plain.flatten() == 1) & (errors[0] > 0.05) & there
        # What is left is noise and rounding, made stronger.
        ratios += (errors[1] / errors[0])[hazy].tolist()
        assert bool((log_gain[errors[0] == 0] == 0).all())
        assert float(optics_error(log_gain, airlight, made.optics)) == 0
        assert float(optics_error(log_gain + 0.1, airlight, made.optics)) > 0
        unknown = made.optics._replace(known=torch.zeros_like(plain))
        assert float(optics_error(log_gain + 0.1, airlight, unknown)) == 0
    assert len(ratios) > 9
    assert np.median(ratios) < 0.15
    assert max(ratios) < 0.8


def test_motion_is_told_place_by_place() -> None:
    recipe, parted, alike = get_recipe("motion-color"), 0, 0
    for seed in range(8):
        made = pair(recipe, 8, 48, seed)
        assert made.motion is not None
        assert made.motion.shape == (8, 2, 48, 48)
        for field, kernel, degraded, wanted in zip(
            made.motion, made.kernels, made.image, made.target, strict=True
        ):
            if kernel is None:
                parted += bool((field - field[:, :1, :1]).abs().max() > 0.1)
            else:
                expected = torch.from_numpy(motion.blur_vector(kernel))[:, None, None]
                torch.testing.assert_close(field, expected.expand_as(field))
                alike += 1
            if torch.equal(degraded, wanted):
                assert float(field.abs().max()) == 0
    assert parted > 3
    assert alike > 20


def test_flow_leads_from_frame_to_frame() -> None:
    """Fetched along the flow, the second frame is the first, but for what covers what."""
    blur, better = FramePairBlur(longest=12, cut_share=0), []
    recipe = get_recipe("motion-frames-color")
    for seed in range(6):
        light = sharp_batch(recipe, 4, 64, seed)
        made = blur(light, np.random.default_rng(seed))
        assert made.motion is not None
        assert made.exposure is not None
        assert 0 < float(made.exposure.min()) <= float(made.exposure.max()) <= 1
        first, second = made.light.split(3, 1)
        inner = np.s_[..., 24:-24, 24:-24]
        apart, fetched = (
            (first - other)[inner].abs().mean((1, 2, 3))
            for other in (second, motion.warp(second, made.motion))
        )
        for index, still in enumerate(made.still):
            if still:
                assert torch.equal(first[index], second[index])
                assert torch.equal(first[index], made.sharp[index])
                assert float(made.motion[index].abs().max()) == 0
            elif float(made.motion[index][inner].norm(dim=0).mean()) > 2:
                better.append(float(fetched[index] / apart[index]))
    assert len(better) > 8
    assert np.median(better) < 0.3
