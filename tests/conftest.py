"""Fixtures for all tests: a seeded generator, and small networks in files."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

# Each worker of pytest-xdist has one core: threads of its own would wait for those of the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import dask
import numpy as np
import pytest
import torch

from napari_restore.inference import predictor
from napari_restore.models.catalog import ModelSpec, build_network, save_weights
from napari_restore.restoration import plan
from napari_restore.runtime import use_threads
from rounding import terms_of
from small_networks import SMALL, SMALL_AFFINE, SMALL_INVERTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


if "PYTEST_XDIST_WORKER" in os.environ and "numba" in sys.modules:
    # A plugin of pytest has imported napari, and so Numba, which read its variable before it was
    # set. When napari's first labels start Numba's threads, torch gets as many.
    sys.modules["numba"].config.reload_config()
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Settings and speeds of docks are not those of whoever runs the tests; programs inherit it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"XDG_{kind}_HOME", str(folder / kind.lower()))
        yield folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks in float32 also where the processor would take bfloat16."""
    predictor._load.cache_clear()
    monkeypatch.setattr(predictor, "autocast_dtype", lambda device: None)
    yield
    predictor._load.cache_clear()


@pytest.fixture(scope="session")
def scramble() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Give a network random weights with which every part of it changes the result."""

    def fill(network: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, value in network.named_parameters():
                fan = value[0].numel() if value.ndim == 4 and "beta" not in name else 4
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise / max(fan, 1) ** 0.5 + (1.0 if "norm" in name else 0.0))
            # A change of about a tenth of the range is that of a real restoration.
            for name, value in network.named_parameters():
                if "ending" in name:
                    value.mul_(0.03)
        return network.eval()

    return fill


@pytest.fixture(scope="session")
def write_model(
    tmp_path_factory: pytest.TempPathFactory,
    scramble: Callable[[torch.nn.Module], torch.nn.Module],
) -> Callable[..., str]:
    """Write a random network as `napari_restore.training` would; gives the path."""

    def write(name: str, task: str, architecture: str = "nafnet", **options: Any) -> str:
        path: Path = tmp_path_factory.mktemp("models") / f"{name}.safetensors"
        state = scramble(build_network(architecture, options)).state_dict()
        metadata = {"name": name, "task": task, "architecture": architecture, "options": options}
        save_weights(path, state, metadata)
        return str(path)

    return write


@pytest.fixture(scope="session")
def mono_model(write_model: Callable[..., str]) -> str:
    return write_model("small-mono", "deblur", channels=1, **SMALL)


@pytest.fixture(scope="session")
def color_model(write_model: Callable[..., str]) -> str:
    return write_model("small-color", "deblur", channels=3, **SMALL)


@pytest.fixture(scope="session")
def affine_model(write_model: Callable[..., str]) -> str:
    return write_model("small-haze", "dehaze", "affine", channels=3, **SMALL_AFFINE)


@pytest.fixture
def small_inverters(
    write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> dict[int, ModelSpec]:
    """Networks that are told a PSF, in place of those that ship."""
    made = {}
    for channels, kind in ((1, "mono"), (3, "color")):
        options: dict[str, Any] = {"channels": channels, **SMALL_INVERTER}
        path = write_model(f"small-invert-{kind}", "deblur", "inverter", **options)
        told: dict[str, Any] = {"options": options, "multiple_of": 4, "halo": 32, "psf": True}
        name = f"small-invert-{kind}"
        made[channels] = ModelSpec(name, "deblur", channels, "inverter", path, None, **told)
    monkeypatch.setattr(plan, "INVERTERS", made)
    return made


@pytest.fixture(scope="session")
def small_rounding() -> float:
    """What the order of additions may change in results of these networks, for a range of 1."""
    networks = (
        build_network("nafnet", {"channels": 3, **SMALL}),
        build_network("affine", {"channels": 3, **SMALL_AFFINE}),
    )
    return torch.finfo(torch.float32).eps * max(map(terms_of, networks))


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[Any]:
    """Two worker processes with a thread each, for a module: they take seconds to start."""
    distributed = pytest.importorskip("distributed")
    # A worker that was killed is started anew by its nanny. Some seconds after, the cluster looks
    # for it, and gives the nanny up if the next test has just killed it again.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with patience, cluster as made:
        yield made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the workers: convolutions add up in an order that depends on the number of threads."""
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)
