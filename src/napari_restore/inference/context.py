"""Low-resolution views of whole planes, for networks that want to see all of the image once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.device import torch

from .conversion import as_seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_restore.image.intensity import Scale
    from napari_restore.image.layout import Layout, Planes

    from .protocol import Predictor

#: Planes whose context is kept; a movie has thousands.
_KEPT = 64
#: Planes from which is found what all have in common.
_LOOKS = 5


class Contexts:
    """Global contexts of the planes of an image, found when first asked for.

    Parameters
    ----------
    source : Planes
        The whole image, unless all contexts that will be asked for are known.
    scales : sequence of Scale
        One for each channel of the layout.
    known : dict, optional
        Contexts by plane index. They cannot be found again from a window of the image.
    """

    def __init__(
        self,
        source: Planes,
        scales: Sequence[Scale],
        known: dict[tuple[int, ...], torch.Tensor] | None = None,
    ) -> None:
        self._source, self._scales = source, scales
        self._known = dict(known or {})
        self._keep = max(_KEPT, len(self._known))
        self._common: torch.Tensor | None = None

    def get(self, index: tuple[int, ...], predictor: Predictor) -> torch.Tensor:
        """Context of a plane."""
        if index not in self._known:
            if self._common is None:
                self._common = common_context(self._source, self._scales, predictor)
            view = plane_view(self._source, index, self._scales, predictor.view)
            self._known[index] = predictor.encode(view, self._common)
        return self._known[index]

    def trim(self) -> None:
        """Forget the oldest."""
        while len(self._known) > self._keep:
            del self._known[next(iter(self._known))]

    def to_cpu(self) -> None:
        """Bring all that is known to the CPU."""
        self._known = {index: context.cpu() for index, context in self._known.items()}
        self._common = None if self._common is None else self._common.cpu()


def common_context(
    source: Planes, scales: Sequence[Scale], predictor: Predictor
) -> torch.Tensor | None:
    """Find what all planes of an image have in common, from a few of them; None for one plane.

    In a movie the air keeps its color; found anew for every frame, it would flicker.
    """
    layout = source.layout
    if layout.planes == 1:
        return None
    lengths = [layout.shape[axis] for axis in layout.leading]
    contexts = []
    for number in np.unique(np.linspace(0, layout.planes - 1, _LOOKS).round().astype(int)):
        index = tuple(int(i) for i in np.unravel_index(int(number), lengths))
        contexts.append(predictor.encode(plane_view(source, index, scales, predictor.view), None))
    return predictor.merge_contexts(contexts)


def plane_view(
    source: Planes, index: tuple[int, ...], scales: Sequence[Scale], longest: int
) -> torch.Tensor:
    """Low-resolution view of one whole plane, normalized: (1, C, h, w).

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
    key = view_key(layout, (0,) * len(layout.leading), longest)
    rows, columns = (
        range(length)[key[layout.axes.index(letter)]]
        for letter, length in zip("YX", layout.size, strict=True)
    )
    normal, _ = as_seen(block, scale, layout, rows, columns)
    height, width = layout.size
    tensor: torch.Tensor = torch.from_numpy(normal).permute(2, 0, 1)[None]
    shrink = longest / max(height, width)
    if shrink < 1:
        size = [max(1, round(length * shrink)) for length in (height, width)]
        tensor = torch.nn.functional.interpolate(tensor, size, mode="area")
    return tensor
