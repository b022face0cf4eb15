"""Predictors that the engine cannot tell from networks, and whose reach is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_restore.image.intensity import find_scales
from napari_restore.image.layout import Planes, TileOptions, find_layout
from napari_restore.inference.engine import Report, run
from napari_restore.models.catalog import ModelSpec
from napari_restore.restoration.plan import Options, Plan
from napari_restore.runtime import Progress, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = TileOptions(10**6)


class LocalPredictor:
    """Blocks of ``multiple_of`` pixels averaged, a box mean of ``radius``, then a square.

    Made of elementwise operations in one order, so that a pixel comes out the same to the last bit
    wherever its tile lies. The blocks tell whether tiles begin at the right phase.
    """

    def __init__(
        self,
        radius: int = 3,
        multiple_of: int = 1,
        halo: int | None = None,
        view: int = 0,
        device: str = "cpu",
    ) -> None:
        self.radius, self.multiple_of, self.view, self.device = radius, multiple_of, view, device
        self.halo = radius + multiple_of - 1 if halo is None else halo
        self.estimates_blur, self.frames = False, 1
        self.takes_device_tiles = False
        self.shapes: list[tuple[int, ...]] = []
        self.looks = 0
        self.commons: list[torch.Tensor | None] = []

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        raise AssertionError("has no gauge")

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        raise AssertionError("finds no motion")

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Brightness, times where the pixel lies between the top and the bottom of the plane."""
        span = boxes[0, 2] - boxes[0, 0]
        y = boxes[0, 0] + span * (torch.arange(tiles.shape[2]) + 0.5) / tiles.shape[2]
        share: torch.Tensor = tiles.mean(1, keepdim=True) * y.view(-1, 1) * context.mean()
        return share

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        assert max(view.shape[-2:]) <= self.view
        self.looks += 1
        self.commons.append(common)
        mean = view.mean((2, 3), keepdim=True)
        return mean if common is None else mean + 0.01 * common

    def merge_contexts(self, contexts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(contexts).mean(0)

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        self.shapes.append(tuple(tiles.shape))
        assert tiles.dtype == torch.float32
        assert tiles.shape[2] % self.multiple_of == tiles.shape[3] % self.multiple_of == 0
        x = tiles
        if self.multiple_of > 1:
            x = F.interpolate(F.avg_pool2d(x, self.multiple_of), scale_factor=self.multiple_of)
        for axis in (-2, -1):
            padding = (0, 0, self.radius, self.radius) if axis == -2 else (self.radius,) * 2
            padded = F.pad(x, padding)
            x = sum(padded.narrow(axis, k, x.shape[axis]) for k in range(2 * self.radius + 1))
            x = x / (2 * self.radius + 1)
        out = 0.5 * tiles + x + 0.25 * x * x
        if context is not None:
            assert context.shape[0] == boxes.shape[0] == len(tiles)
            out = out + context * _places(boxes, tiles.shape[-2:])
        return out

    def to_cpu(self) -> LocalPredictor:
        other = LocalPredictor(self.radius, self.multiple_of, self.halo, self.view)
        other.shapes = self.shapes
        return other


def _places(boxes: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Sum of the relative coordinates of every pixel, from the boxes alone."""
    y, x = (
        boxes[:, first, None]
        + (boxes[:, first + 2] - boxes[:, first])[:, None] * (torch.arange(count) + 0.5) / count
        for first, count in zip((0, 1), size, strict=True)
    )
    return (y[:, :, None] + x[:, None, :])[:, None]


class FaultyPredictor(LocalPredictor):
    """Raises an error where ``fails(shape of the tiles, number of the call)`` says so."""

    def __init__(
        self,
        fails: Callable[[tuple[int, ...], int], bool],
        error: Callable[[], Exception],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.fails, self.error, self.calls = fails, error, 0

    def __call__(self, tiles: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.calls += 1
        if self.fails(tuple(tiles.shape), self.calls):
            raise self.error()
        return super().__call__(tiles, *rest)


def restored(
    image: np.ndarray,
    predictor: LocalPredictor,
    *,
    tiles: TileOptions = WHOLE,
    axes: str | None = None,
    scales: Any = None,
    report: Report | None = None,
    **options: Any,
) -> np.ndarray:
    """Run the engine over a NumPy array."""
    layout = find_layout(image, axes)
    source, out = Planes(image, layout), np.empty_like(image)
    if scales is None and layout.pixels:
        scales = find_scales(source)
    run(source, Planes(out, layout), predictor, scales, tiles=tiles, report=report, **options)
    return out


def told(function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Progress]:
    """Call a function; what it told of its progress."""
    steps: list[Progress] = []
    with Watch(steps.append).around():
        function(*arguments, **options)
    return steps


@dataclass(frozen=True)
class FakePlan(Plan):
    """A plan whose predictor is made up."""

    make: Callable[[], Any] = LocalPredictor

    def predictor(self, facts: Any = None, channel: int = 0) -> Any:
        return self.make()


def fake_plan(
    image: Any,
    make: Callable[[], Any] = LocalPredictor,
    *,
    axes: str | None = None,
    side: int = 64,
    frames: int = 1,
) -> FakePlan:
    layout, like = find_layout(image, axes), make()
    spec = ModelSpec(
        "made up",
        "deblur",
        layout.channels,
        "none",
        "none",
        None,
        multiple_of=like.multiple_of,
        halo=like.halo,
        view=like.view,
        frames=frames,
    )
    return FakePlan(
        layout,
        np.dtype(image.dtype).name,
        spec,
        Options("deblur"),
        "cpu",
        TileOptions(side),
        make=make,
    )
