"""Low-resolution views of whole planes, for networks that want to see all of the image once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .device import import_torch
from .intensity import fill_invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from .axes import Layout, Planes
    from .intensity import Scale


def plane_view(
    source: Planes, index: tuple[int, ...], scales: Sequence[Scale], longest: int
) -> torch.Tensor:
    """Low-resolution view of one whole plane, normalised: (1, C, h, w).

    Very large planes are first sampled at a regular stride, so that the memory stays bounded.
    """
    layout = source.layout
    key = view_key(layout, index, longest)
    return view_of(
        source.canonical(source.array[key]), layout, scales[layout.group(index)], longest
    )


def view_key(layout: Layout, index: tuple[int, ...], longest: int) -> tuple[Any, ...]:
    """Index expression for the samples that a plane's view is made of."""
    stride = max(1, max(layout.size) // (4 * longest))
    # A side that is shorter than the stride still gives one sample.
    rows, columns = (
        slice(min(stride // 2, (length - 1) // 2), None, stride) for length in layout.size
    )
    return layout.key(index, rows, columns)


def view_of(block: NDArray[Any], layout: Layout, scale: Scale, longest: int) -> torch.Tensor:
    """View of a plane from the samples of `view_key`, (h, w, S), as `plane_view` returns it."""
    filled, _ = fill_invalid(block)
    normal = scale.normalise(filled[..., : layout.channels])
    height, width = layout.size
    tensor: torch.Tensor = import_torch().from_numpy(normal).permute(2, 0, 1)[None]
    shrink = longest / max(height, width)
    if shrink < 1:
        size = [max(1, round(length * shrink)) for length in (height, width)]
        tensor = import_torch().nn.functional.interpolate(tensor, size, mode="area")
    return tensor
