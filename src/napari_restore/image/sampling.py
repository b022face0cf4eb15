"""A bounded, even sample of an image of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .tiling import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .layout import Layout

#: Most pixels the scale is found from.
SAMPLE_PIXELS = 2**23
_WINDOW, _WINDOWS = 512, 16


def sample_regions(
    layout: Layout, pixels: int = SAMPLE_PIXELS
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Choose a bounded, even sample of an image: (plane index, region).

    Small images are taken whole. Of large ones, planes are spread evenly over the stack and square
    windows evenly over each plane, so that lazy data read few chunks. The choice depends on the
    shape alone.
    """
    height, width = layout.size
    if layout.pixels <= pixels:
        whole = Region(0, 0, height, width)
        yield from ((index, whole) for index in layout.indices())
        return
    # The channel axis is walked in full, the others are counted through.
    channel = layout.axes.find("C")
    counts = tuple(1 if axis == channel else layout.shape[axis] for axis in layout.leading)
    total = int(np.prod(counts, dtype=np.int64))
    share = pixels // layout.groups
    want = min(total, max(1, share // min(height * width, _WINDOWS * _WINDOW**2)))
    for number in np.unique(np.linspace(0, total - 1, want).round().astype(np.int64)):
        index = tuple(int(i) for i in np.unravel_index(int(number), counts)) if counts else ()
        for group in range(layout.groups):
            chosen = tuple(
                group if axis == channel else i
                for axis, i in zip(layout.leading, index, strict=True)
            )
            yield from ((chosen, region) for region in _spread(height, width, share // want))


def _spread(height: int, width: int, budget: int) -> Iterator[Region]:
    if height * width <= budget:
        yield Region(0, 0, height, width)
        return
    side = max(1, min(_WINDOW, int(budget**0.5)))
    count = max(1, int((budget / side**2) ** 0.5))
    for top in _starts(height, count, side):
        for left in _starts(width, count, side):
            yield Region(top, left, min(top + side, height), min(left + side, width))


def _starts(length: int, count: int, side: int) -> list[int]:
    last = max(0, length - side)
    count = min(count, -(-length // side))
    if count == 1:
        return [last // 2]
    return np.linspace(0, last, count).round().astype(int).tolist()  # type: ignore[no-any-return]
