"""A network on a device, ready for the engine."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from napari_restore.core.device import autocast_dtype
from napari_restore.core.smooth import SmoothChange
from napari_restore.errors import ModelError

from .spec import ModelSpec, build_network
from .weights import load_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_restore.core.protocol import Predictor


class TorchPredictor:
    """Run the network of a model; see `napari_restore.core.engine.Predictor`.

    Parameters
    ----------
    spec : ModelSpec
    device : str
        A name that torch knows.
    """

    def __init__(self, spec: ModelSpec, device: str) -> None:
        network = build_network(spec.architecture, spec.options)
        try:
            network.load_state_dict(load_state(spec.path, spec.sha256))
        except RuntimeError as error:
            # Torch lists every key and shape.
            brief = str(error)[:300]
            raise ModelError(
                f"Weights {spec.path} do not fit the network '{spec.architecture}' with options "
                f"{dict(spec.options)}: {brief} …"
            ) from error
        self.spec, self.device = spec, device
        self.multiple_of, self.halo, self.view = spec.multiple_of, spec.halo, spec.view
        self.has_gauge = getattr(network, "gauge", None) is not None
        network = network.eval().to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = autocast_dtype(device)
        # Chunks of a lazy array are computed by many threads. One network at a time is quicker,
        # and in one thread of its own: each one that computes keeps threads and memory.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="napari-restore")

    def _autocast(self) -> torch.autocast:
        kind = self.device.partition(":")[0]
        return torch.autocast(kind, self._dtype or torch.bfloat16, enabled=self._dtype is not None)

    def look(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """Global context of a plane from its view (1, C, h, w), and what all planes share."""
        return self._thread.submit(self._look, view, common).result()

    def _look(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            context: torch.Tensor = self._network.coefficients(view.to(self.device)).float()
            if common is not None:
                context = self._network.with_airlight(context, common.to(self.device))
        return context

    def agree(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Find what planes of one image share from the contexts of some."""
        airlight: torch.Tensor = self._network.mean_airlight(contexts)
        return airlight

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Share of the light that came through haze, (N, 1, h, w), float32 on the CPU."""

        def find() -> torch.Tensor:
            with torch.inference_mode():
                arguments = (x.to(self.device) for x in (tiles, context, boxes))
                share: torch.Tensor = self._network.transmission(*arguments)
            return share.float().cpu()

        return self._thread.submit(find).result()

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate what degraded (N, C, h, w) on the CPU: (N, 2, E, h', w'), float32."""
        return self._thread.submit(self._estimate, image).result()

    def _estimate(self, image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            image = image.to(self.device).contiguous(memory_format=torch.channels_last)
            estimates: torch.Tensor = self._network.estimate(image)
        return estimates.float().cpu()

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore float32 tiles (N, C, h, w) on the CPU; the same comes back."""
        return self._thread.submit(self._restore, tiles, context, boxes).result()

    def _restore(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        with torch.inference_mode():
            tiles = tiles.to(self.device).contiguous(memory_format=torch.channels_last)
            if context is not None:
                # Affine maps are cheap and want full precision.
                restored = self._network.apply_coefficients(
                    tiles, context.to(self.device), boxes.to(self.device)
                )
            else:
                with self._autocast():
                    restored = self._network(tiles)
            result: torch.Tensor = restored.float().cpu()
        return result

    def to_cpu(self) -> TorchPredictor:
        """Return the same model on the CPU."""
        return load_predictor(self.spec, "cpu")


_load = lru_cache(maxsize=8)(TorchPredictor)
_loading = threading.Lock()


def load_predictor(spec: ModelSpec, device: str) -> TorchPredictor:
    """Load a model onto a device, once.

    Raises
    ------
    ModelError
        If the weights are missing, damaged or of another network.
    """
    # Chunks of a lazy array ask for it all at once, from many threads.
    with _loading:
        return _load(spec, device)


def find_predictor(spec: ModelSpec, device: str, structure_size: float = 0.0) -> Predictor:
    """Predictor of a model, with what the user asked of it.

    Parameters
    ----------
    spec : ModelSpec
    device : str
    structure_size : float
        Structures up to this many pixels stay, see `SmoothChange`; 0 leaves that to the network.
    """
    predictor = load_predictor(spec, device)
    return SmoothChange(predictor, structure_size) if structure_size else predictor
