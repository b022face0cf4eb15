"""A network on a device, ready for the engine; and one whose change of the image is smooth."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

from napari_restore.errors import ModelError
from napari_restore.models.catalog import ModelSpec, build_network, bundled_model, load_weights
from napari_restore.networks.cpu import with_winograd
from napari_restore.networks.motion_estimator import MOTION_UNIT
from napari_restore.physics.motion import half_angle
from napari_restore.runtime import (
    apply_threads,
    autocast_dtype,
    call_in,
    resolve_device,
    use_threads,
    use_threads_of_worker,
)

from .engine import WIDTH, halo_with, within_colors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .engine import Predictor

#: Predictors with a thread, which a process that is forked does not have.
_THREADED: WeakSet[TorchPredictor] = WeakSet()


class TorchPredictor:
    """Run the network of a model; see `napari_restore.inference.engine.Predictor`.

    Parameters
    ----------
    spec : ModelSpec
    device : str
        A name that torch knows.
    """

    def __init__(self, spec: ModelSpec, device: str) -> None:
        # What its class is depends on the model.
        network: Any = build_network(spec.architecture, spec.options)
        try:
            network.load_state_dict(load_weights(spec))
        except RuntimeError as error:
            # Torch lists every key and shape.
            brief = " ".join(str(error).split())[:300]
            raise ModelError(
                f"Weights {spec.path} do not fit the network '{spec.architecture}' with options "
                f"{dict(spec.options)}: {brief} …"
            ) from error
        self.spec, self.device = spec, device
        self.multiple_of, self.halo, self.view = spec.multiple_of, spec.halo, spec.view
        self.estimates_blur, self.frames = spec.estimator == "blur", spec.frames
        # Elsewhere it would gain little: a Mac's device shares the processor's memory.
        self.takes_device_tiles = device.startswith("cuda")
        self._network = network.eval().to(device)
        self._dtype = None if spec.as_it_is else autocast_dtype(device)
        if not spec.as_it_is:
            self._network.to(memory_format=torch.channels_last)
            if device == "cpu" and self._dtype is None:
                with_winograd(self._network)
        # Chunks of a lazy array are computed by many threads. One network at a time is quicker,
        # and in one thread of its own: each one that computes keeps threads and memory.
        self._begin_thread()

    def _begin_thread(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="napari-restore")
        _THREADED.add(self)

    def _run(self, function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        """Compute in the thread of the network."""

        def run() -> torch.Tensor:
            apply_threads()
            return function(*arguments)

        return call_in(self._thread, run)

    def _autocast(self) -> torch.autocast:
        kind = self.device.partition(":")[0]
        return torch.autocast(kind, self._dtype or torch.bfloat16, enabled=self._dtype is not None)

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """Global context of a plane from its view (1, C, h, w), and what all planes share."""
        return self._run(self._encode, view, common)

    def _encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            shared = None if common is None else common.to(self.device)
            context: torch.Tensor = self._network.context(view.to(self.device), shared)
        return context

    def merge_contexts(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Find what planes of one image share from the contexts of some."""
        common: torch.Tensor = self._network.common(contexts)
        return common

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Share of the light that came through haze, (N, 1, h, w), float32 on the CPU."""

        def find() -> torch.Tensor:
            with torch.inference_mode():
                arguments = (x.to(self.device) for x in (tiles, context, boxes))
                share: torch.Tensor = self._network.transmission(*arguments)
            return share.float().cpu()

        return self._run(find)

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate what degraded (N, C, h, w) on the CPU: (N, 2, E, h', w'), float32."""
        return self._run(self._estimate, image)

    def _estimate(self, image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            image = image.to(self.device).contiguous(memory_format=torch.channels_last)
            estimates: torch.Tensor = self._network.estimate(image)
        return estimates.float().cpu()

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore float32 tiles (N, C, h, w); the same comes back, to where they are."""
        return self._run(self._restore, tiles, context, boxes)

    def _restore(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        with torch.inference_mode():
            origin = tiles.device
            tiles = tiles.to(self.device).contiguous(memory_format=torch.channels_last)
            if context is not None:
                # Maps of single pixels are cheap and want full precision.
                with self._autocast() if self.halo else nullcontext():
                    restored = self._network.apply_context(
                        tiles, context.to(self.device), boxes.to(self.device)
                    )
            else:
                with self._autocast():
                    restored = self._network(tiles)
                restored = self._with_colors(restored.float(), tiles)
            result: torch.Tensor = restored.float().to(origin)
        return result

    def _with_colors(self, restored: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        moved = self.spec.task == "motion_deblur" and self.spec.channels == 3
        return within_colors(restored, seen) if moved else restored

    def restore_pair(self, tiles: torch.Tensor, exposure: float) -> torch.Tensor:
        """Restore the first of two frames (N, 2 C, h, w): (N, C, h, w), where they are."""

        def run() -> torch.Tensor:
            with torch.inference_mode(), self._autocast():
                shutter = torch.full((len(tiles), 1, 1, 1), exposure, device=self.device)
                frames = tiles.to(self.device).contiguous(memory_format=torch.channels_last)
                restored: torch.Tensor = self._network(frames, shutter)
                restored = self._with_colors(restored.float(), frames[:, : self.spec.channels])
            return restored.to(tiles.device)

        return self._run(run)

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        """Motion in tiles; see `napari_restore.inference.engine.Predictor`."""

        def find() -> torch.Tensor:
            with torch.inference_mode(), self._autocast():
                seen = tiles.to(self.device).contiguous(memory_format=torch.channels_last)
                if self.frames == 2:
                    flow = self._network.motion(seen).float()
                    return _means(flow, tiles.shape[-1] // flow.shape[-1], cell).cpu()
                vectors, log_variance = self._network.estimate(seen).float().unbind(1)
            size = tiles.shape[-1] // vectors.shape[-1]
            # Even places say nothing of motion, and say so.
            weight = (-log_variance.clamp(-6, 4)).exp()
            mean = _means(weight * vectors, size, cell) / _means(weight, size, cell)
            return half_angle(mean * MOTION_UNIT).cpu()

        return self._run(find)

    def to_cpu(self) -> TorchPredictor:
        """Return the same model on the CPU."""
        return load_predictor(self.spec, "cpu")


def _means(field: torch.Tensor, size: int, cell: int) -> torch.Tensor:
    """Means over cells, of what is known for each ``size`` pixels."""
    return torch.nn.functional.avg_pool2d(
        field, cell // size, ceil_mode=True, count_include_pad=False
    )


class AtExposure(TorchPredictor):
    """A predictor for two frames between which the shutter is open for a share of the time.

    Parameters
    ----------
    predictor : TorchPredictor
    exposure : float
    """

    def __init__(self, predictor: TorchPredictor, exposure: float) -> None:
        # All that it is and holds is that of the predictor, which is loaded once.
        self.__dict__.update(predictor.__dict__)
        self._exposure = exposure

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore the first of two frames."""
        return self.restore_pair(tiles, self._exposure)

    def to_cpu(self) -> AtExposure:
        """Return the same predictor on the CPU."""
        return AtExposure(super().to_cpu(), self._exposure)


class EachAlone(TorchPredictor):
    """A predictor for two frames that looks at the first of them alone.

    Parameters
    ----------
    pair : TorchPredictor
        For two frames; it still finds the motion, and its windows are those of this one.
    """

    def __init__(self, pair: TorchPredictor) -> None:
        self.__dict__.update(pair.__dict__)
        self._alone = load_predictor(bundled_model(self.spec.task, self.spec.channels), self.device)

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore the first of two frames."""
        return self._alone(tiles[:, : self.spec.channels], context, boxes)

    def to_cpu(self) -> EachAlone:
        """Return the same predictor on the CPU."""
        return EachAlone(super().to_cpu())


#: How far sharp colors may lie outside of those that are seen, as a share of their range: a blur
#: makes colors paler.
_MORE_COLOR = 0.5


@dataclass(frozen=True, eq=False)
class KnownBlur:
    """What a network that inverts a blur is told.

    Attributes
    ----------
    psf : ndarray
        (k, k), odd k, sum 1; or (N, k, k), one for each of N tiles that come at once.
    noise : float
        Standard deviation, in the range that the network sees.
    linear : bool
        Whether the blur acted on light before the sRGB tone curve of the image.
    """

    psf: NDArray[np.float32]
    noise: float
    linear: bool


class WithBlur(TorchPredictor):
    """A predictor that is told the point spread function.

    Parameters
    ----------
    predictor : TorchPredictor
    blur : KnownBlur
    """

    def __init__(self, predictor: TorchPredictor, blur: KnownBlur) -> None:
        # All that it is and holds is that of the predictor, which is loaded once.
        self.__dict__.update(predictor.__dict__)
        self._blur = blur

    def _restore(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        psf = torch.from_numpy(self._blur.psf.copy()).to(self.device)
        psf = psf.view(-1, *psf.shape[-2:])
        noise = torch.full((len(tiles), 1, 1, 1), self._blur.noise, device=self.device)
        linear = torch.full((len(tiles), 1, 1, 1), self._blur.linear, device=self.device)
        with torch.inference_mode():
            seen = tiles.to(self.device).contiguous(memory_format=torch.channels_last)
            with self._autocast():
                restored = self._network(seen, psf, noise, linear)
            restored = restored.float()
            if restored.shape[1] == 3:
                # The blur is common to the channels, and what it mixed up lies within its reach.
                restored = within_colors(restored, seen, psf.shape[-1] // 2, _MORE_COLOR)
            result: torch.Tensor = restored.to(tiles.device)
        return result

    def to_cpu(self) -> WithBlur:
        """Return the same predictor on the CPU."""
        return WithBlur(super().to_cpu(), self._blur)


_load = lru_cache(maxsize=8)(TorchPredictor)


def _after_fork() -> None:
    """Begin anew the threads that a forked process lacks."""
    # OpenMP would wait for its own, which are not there either.
    use_threads(1)
    for predictor in list(_THREADED):
        predictor._begin_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_loading = threading.Lock()


def load_predictor(spec: ModelSpec, device: str) -> TorchPredictor:
    """Load a model onto a device, once in each process.

    Parameters
    ----------
    spec : ModelSpec
    device : str
        "auto" is the best one of the machine that this runs on.

    Raises
    ------
    ModelError
        If the weights are missing, damaged or of another network.
    DeviceError
        If the device does not exist here.
    """
    # Chunks of a lazy array ask for it all at once, from many threads.
    with _loading:
        use_threads_of_worker()
        return _load(spec, resolve_device(device))


def find_predictor(
    spec: ModelSpec,
    device: str,
    structure_size: float = 0.0,
    exposure: float | None = None,
    blur: KnownBlur | None = None,
) -> Predictor:
    """Predictor of a model, with what the user asked of it.

    Parameters
    ----------
    spec : ModelSpec
    device : str
    structure_size : float
        Structures up to this many pixels stay, see `SmoothChange`; 0 leaves that to the network.
    exposure : float or LazyStatistic, optional
        For two frames, see `AtExposure`; 0 restores each alone.
    blur : KnownBlur, optional
        For models that are told the point spread function, see `WithBlur`.
    """
    predictor = load_predictor(spec, device)
    if exposure is not None:
        predictor = AtExposure(predictor, exposure) if exposure else EachAlone(predictor)
    if blur is not None:
        predictor = WithBlur(predictor, blur)
    return SmoothChange(predictor, structure_size) if structure_size else predictor


class SmoothChange:
    """A predictor whose change of the image is blurred: what varies faster stays as it was.

    Parameters
    ----------
    predictor : Predictor
    size : float
        Structures up to this many pixels across stay, even if the network takes all of them away:
        of a disk of this diameter 95 % are left in its middle, of a long line of this width three
        quarters. The change is blurred by a Gaussian whose standard deviation is 1.5 times as
        large, computed on a coarser grid where it is wide.
    """

    def __init__(self, predictor: Predictor, size: float) -> None:
        self._predictor, self._size, self._sigma = predictor, size, WIDTH * size
        self.multiple_of, self.view = predictor.multiple_of, predictor.view
        self.estimates_blur, self.device = predictor.estimates_blur, predictor.device
        self.frames, self.takes_device_tiles = predictor.frames, False
        self.halo = halo_with(predictor.halo, size)
        # Windows begin at multiples of these.
        coarser = 1
        while coarser < predictor.multiple_of and 4 * coarser <= self._sigma:
            coarser *= 2
        self._coarser = coarser

    def encode(self, view: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.encode(view, common)

    def merge_contexts(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.merge_contexts(contexts)

    def transmission(
        self, tiles: torch.Tensor, context: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.transmission(tiles, context, boxes)

    def estimate(self, image: torch.Tensor) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.estimate(image)

    def motion(self, tiles: torch.Tensor, cell: int) -> torch.Tensor:
        """As the predictor within."""
        return self._predictor.motion(tiles, cell)

    def __call__(
        self, tiles: torch.Tensor, context: torch.Tensor | None, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Restore tiles (N, C, h, w) by a smooth change."""
        change = self._predictor(tiles, context, boxes) - tiles
        # Half precision overflows on outliers; blurred, one of them would take its surroundings.
        change = change.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return tiles + self._blurred(change)

    def to_cpu(self) -> SmoothChange:
        """Return the same predictor on the CPU."""
        return SmoothChange(self._predictor.to_cpu(), self._size)

    def _blurred(self, change: torch.Tensor) -> torch.Tensor:
        functional = torch.nn.functional
        size, sigma = change.shape[-2:], self._sigma / self._coarser
        if self._coarser > 1:
            change = functional.avg_pool2d(change, self._coarser)
        reach = math.ceil(3 * sigma)
        line = torch.arange(-reach, reach + 1, dtype=change.dtype)
        weights = (-0.5 * (line / sigma) ** 2).exp()
        weights /= weights.sum()
        channels = change.shape[1]
        for axis in (2, 3):
            shape = [channels, 1, 1, 1]
            shape[axis] = -1
            kernel = weights.view([1, *shape[1:]]).expand(channels, *[-1] * 3)
            padding = [reach if axis == 3 else 0] * 2 + [reach if axis == 2 else 0] * 2
            change = functional.conv2d(
                functional.pad(change, padding, mode="replicate"), kernel, groups=channels
            )
        if self._coarser > 1:
            change = functional.interpolate(change, size=size, mode="bilinear", align_corners=False)
        return change
