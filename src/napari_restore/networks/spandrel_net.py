"""Published networks that spandrel knows, built from their weights alone."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_restore.errors import ModelError

from .nafnet import WindowMean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Side in image pixels over which means over the whole image are taken instead: about that of the
#: crops that published weights were trained on.
WINDOW = 256
#: Side of the image with which the scale of inner features is found.
_PROBE = 128


class SpandrelNet(nn.Module):
    """A network that spandrel builds when its state dict is loaded; empty before.

    Means over the whole image become means over a window, as in NAFNet here (test-time local
    converter, Chu et al., 2022), so that the result does not depend on the size of the image.

    Parameters
    ----------
    network : str
        What spandrel calls it, such as "DRUNet". Other weights are refused.
    channels : {1, 3}
        Of the image, in and out.
    """

    def __init__(self, network: str, channels: int = 3) -> None:
        super().__init__()
        self.network, self.channels = network, channels
        self._built: Any = None

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Build the network that the weights are of.

        Raises
        ------
        ModelError
            If spandrel is missing, or the weights are of another network.
        """
        built = described(state_dict)
        found = built.architecture.id, built.input_channels
        if found != (self.network, self.channels):
            raise ModelError(
                f"The weights are of '{found[0]}' with {found[1]} channels, not of "
                f"'{self.network}' with {self.channels}."
            )
        self._built, self.model = built, built.model.eval().requires_grad_(False)
        _look_at_windows(self, max(_PROBE, built.size_requirements.minimum))

    @property
    def multiple_of(self) -> int:
        """Sides that it takes are multiples of this, as far as spandrel knows."""
        return int(self._built.size_requirements.multiple_of)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, C, H, W), about [0, 1]; the sides are multiples of what it wants."""
        size, least = image.shape[-2:], self._built.size_requirements.minimum
        more = [max(0, least - side) for side in size]
        # These networks were written for this layout of memory, and for float32.
        x = image.float().contiguous()
        if any(more):
            x = F.pad(x, (0, more[1], 0, more[0]), mode="replicate")
        with torch.autocast(x.device.type, enabled=False):
            # Its own call cuts the result off at 0 and 1. Not all take several images at once.
            restored = torch.cat([self._built._call_fn(self.model, one) for one in x.split(1)])
        return restored[..., : size[0], : size[1]]


def described(state: Mapping[str, Any]) -> Any:
    """Build the network of a state dict on the processor, as spandrel's descriptor.

    Parameters
    ----------
    state : mapping
        Tensors by name.

    Returns
    -------
    spandrel.ImageModelDescriptor
        Of a network that restores an image to one of its size, with its channels.

    Raises
    ------
    ModelError
        If spandrel is missing, does not know it, or it does something else.
    """
    registry, kind, unknown = _spandrel()
    try:
        with _no_more_weights(2 * sum(value.numel() for value in state.values())):
            built = registry.load(dict(state))
    except unknown:
        raise ModelError(
            "The weights are of no network that is known, here or in spandrel. Some of those that "
            "are not free for all uses come with another package: pip install spandrel_extra_arches"
        ) from None
    except ModelError:
        raise
    except Exception as error:
        # Whatever the builder stumbles over: files may hold anything.
        brief = " ".join(str(error).split())[:200] or repr(error)
        raise ModelError(
            f"The weights do not make the network that they seem to be: {brief}"
        ) from error
    name = built.architecture.id
    if not isinstance(built, kind) or built.purpose == "FaceSR":
        raise ModelError(f"'{name}' fills in or makes up parts of an image, and restores none.")
    if built.scale != 1:
        raise ModelError(f"'{name}' enlarges images {built.scale} times, and restores none.")
    channels = built.input_channels, built.output_channels
    if channels not in ((1, 1), (3, 3)):
        raise ModelError(f"'{name}' turns {channels[0]} channels into {channels[1]}; needs 1 or 3.")
    if built.size_requirements.square:
        raise ModelError(f"'{name}' takes square images alone, and tiles are not all square.")
    return built


def _spandrel() -> tuple[Any, Any, Any]:
    """Its registry, the class of what restores an image, and the error for unknown weights."""
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision that was built for another torch.
        brief = " ".join(str(error).split())[:150]
        raise ModelError(
            f"Published networks other than NAFNet need spandrel, which cannot be imported "
            f'({brief}). Install it: pip install "napari-restore[spandrel]". If it is there, '
            "torchvision has to be the one of your torch: https://pytorch.org/get-started"
        ) from error
    registry = spandrel.MAIN_REGISTRY.copy()
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        pass
    else:
        registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return registry, spandrel.ImageModelDescriptor, spandrel.UnsupportedModelError


@contextmanager
def _no_more_weights(most: int) -> Iterator[None]:
    """Raise a `ModelError` as soon as a network gets more weights than its file can hold."""
    thread, count = threading.get_ident(), 0

    def look(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        # Other threads build networks of their own.
        if parameter is not None and threading.get_ident() == thread:
            count += parameter.numel()
            if count > most:
                raise ModelError(
                    "The weights are fewer than those of the network that they seem to be of. The "
                    "file is damaged, or was cut short."
                )

    handle = nn.modules.module.register_module_parameter_registration_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _look_at_windows(network: SpandrelNet, side: int) -> None:
    """Replace means over the whole image by those over a window."""
    places = [
        (parent, name, module)
        for parent in network.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    ]
    if not places:
        return
    widths: dict[nn.Module, int] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        widths[module] = given[0].shape[-1]

    handles = [module.register_forward_pre_hook(note) for *_, module in places]
    side = -(-side // network.multiple_of) * network.multiple_of
    with torch.inference_mode():
        network(torch.zeros(1, network.channels, side, side))
    for handle in handles:
        handle.remove()
    for parent, name, module in places:
        if module in widths:
            window = max(1, WINDOW * widths[module] // side)
            setattr(parent, name, WindowMean(window).eval())
