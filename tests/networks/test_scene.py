"""What a whole scene says about its haze."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_restore.networks.scene import (
    SceneReader,
    count_statistics,
    haziest,
    local_minimum,
    scene_statistics,
)
from napari_restore.training.degradations import Optics
from napari_restore.training.losses import harm, scene_error

AIR = 0.85


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Texture, and the same in haze that grows from left to right."""
    clear = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(seed))
    t = torch.linspace(0.9, 0.2, 128)
    return clear, clear * t + AIR * (1 - t)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (40, 31)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_have_as_many_finite_statistics(
    size: tuple[int, int], channels: int
) -> None:
    found = scene_statistics(torch.rand(2, channels, *size))
    assert found.shape == (2, count_statistics(channels))
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= 7.5


def test_the_air_is_where_contrast_would_vanish() -> None:
    _, hazy = scene()
    lines = scene_statistics(hazy)[0, 9 * 8 : 9 * 8 + 12 : 2] / 3 + 0.5
    # Mean brightness over local contrast, in haze of every thickness.
    assert float(lines[2]) == pytest.approx(AIR, abs=0.03)


def test_the_haziest_places_show_the_air() -> None:
    clear, hazy = scene()
    shown = haziest(hazy, local_minimum(hazy, 2))
    torch.testing.assert_close(shown, torch.full((1, 3), AIR), atol=0.2, rtol=0)
    assert float(haziest(clear, local_minimum(clear, 2)).mean()) < 0.6


def test_untrained_a_reader_tells_haze_from_clear_air() -> None:
    reader = SceneReader(3)
    with torch.inference_mode():
        thickness = [float(F.softplus(reader(image)[1])) for image in scene()]
    truth = float(-torch.linspace(0.9, 0.2, 128).log().mean())
    assert thickness[0] < 0.1 * truth
    assert thickness[1] == pytest.approx(truth, rel=0.3)


def test_a_reader_learns_the_air_of_scenes() -> None:
    torch.manual_seed(0)
    reader = SceneReader(3, 16)
    t = torch.linspace(0.9, 0.2, 32)
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    errors = []
    for step in range(60):
        generator = torch.Generator().manual_seed(step)
        clear = torch.rand(4, 3, 32, 32, generator=generator)
        air = 0.5 + 0.5 * torch.rand(4, 1, 1, 1, generator=generator)
        truth = Optics(
            (-t.log()).expand(4, 3, 32, 32), air.expand(4, 3, 32, 32), torch.ones(4, 1, 1, 1)
        )
        shown, thickness, _ = reader(clear * t + air * (1 - t))
        error = scene_error(shown.sigmoid(), F.softplus(thickness), truth)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])


def test_what_is_not_known_of_the_haze_is_not_learned() -> None:
    unknown = Optics(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.zeros(2, 1, 1, 1))
    assert float(scene_error(torch.zeros(2, 3), torch.zeros(2, 1), unknown)) == 0


def test_harm_is_to_be_worse_than_the_image() -> None:
    target = torch.zeros(2, 3, 8, 8)
    image = target + 0.1
    assert float(harm(target + 0.05, image, target)) == 0
    assert float(harm(image, image, target)) == 0
    worse = harm(torch.stack([target[0] + 0.2, target[1]]), image, target)
    assert float(worse) == pytest.approx(0.5 * torch.tensor(0.0405 / 0.0105).log().item(), rel=1e-3)
