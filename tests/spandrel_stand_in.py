"""A stand-in for spandrel, which knows one network: most tests need no more of it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import pytest


class Blur(nn.Module):
    """Half of every eight pixels come from a window on a grid; it wants one channel more."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 5, padding=2)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one image at a time")
        # Views need the layout of memory that the network was written for.
        flat = self.mix(x).view(len(x), -1)
        seen: Tensor = flat.view(len(x), 1, *x.shape[-2:])
        return 2 * seen + self.pool(seen)


class Descriptor:
    def __init__(self, model: nn.Module, state: dict[str, Tensor], **said: Any) -> None:
        model.load_state_dict(state)
        self.model, self.architecture = model, SimpleNamespace(id=said.pop("id", "Blur"))
        self.purpose, self.scale = "Restoration", 1
        self.input_channels = self.output_channels = 1
        self.size_requirements = SimpleNamespace(minimum=24, multiple_of=8, square=False)
        self._call_fn = lambda model, x: model(torch.cat([x, x - 0.2], 1))
        self.__dict__.update(said)


class Unsupported(Exception):
    pass


class Registry:
    """Makes what a test wants of any weights that have a ``mix``."""

    said: dict[str, Any] = {}  # noqa: RUF012

    def copy(self) -> Registry:
        return self

    def add(self, *more: Any, ignore_duplicates: bool) -> None:
        pass

    def load(self, state: dict[str, Tensor]) -> Descriptor:
        if "mix.weight" not in state:
            raise Unsupported
        return Descriptor(Blur(), state, **self.said)


def stand_in_for_spandrel(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put the stand-in in its place; gives what it says of its network, to be changed."""
    stand_in: Any = ModuleType("spandrel")
    stand_in.MAIN_REGISTRY, stand_in.UnsupportedModelError = Registry(), Unsupported
    stand_in.ImageModelDescriptor = Descriptor
    monkeypatch.setitem(sys.modules, "spandrel", stand_in)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    monkeypatch.setattr(Registry, "said", {})
    return Registry.said
