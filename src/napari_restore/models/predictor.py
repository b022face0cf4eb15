"""A network on a device, ready for the engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

from napari_restore.core.device import autocast_dtype
from napari_restore.errors import ModelError

from .spec import ModelSpec, build_network
from .weights import load_state


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
            raise ModelError(
                f"Weights {spec.path} do not fit {spec.architecture}: {error}"
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

    def look(self, view: torch.Tensor) -> torch.Tensor:
        """Global context of a plane from its view (1, C, h, w)."""
        return self._thread.submit(self._look, view).result()

    def _look(self, view: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            context: torch.Tensor = self._network.coefficients(view.to(self.device))
        return context.float()

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


@lru_cache(maxsize=8)
def load_predictor(spec: ModelSpec, device: str) -> TorchPredictor:
    """Load a model onto a device, once.

    Raises
    ------
    ModelError
        If the weights are missing, damaged or of another network.
    """
    return TorchPredictor(spec, device)
