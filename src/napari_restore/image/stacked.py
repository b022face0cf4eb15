"""Arrays seen as one, with a new first axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import ImageError

from .lazy import as_dask, is_lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Stacked:
    """NumPy arrays of one shape and dtype as the frames of a movie; nothing is copied.

    Parameters
    ----------
    arrays : sequence of ndarray
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        self.dtype = arrays[0].dtype
        self.shape = (len(arrays), *arrays[0].shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Part of one array, or of some: the first index is its number, or a slice of numbers."""
        if isinstance(key[0], slice):
            return np.stack([array[key[1:]] for array in self._arrays[key[0]]])
        part: NDArray[Any] = self._arrays[key[0]][key[1:]]
        return part


def stacked(arrays: Sequence[Any]) -> Any:
    """See arrays of one shape and dtype as one: a dask array if one of them is lazy.

    Raises
    ------
    ImageError
        If they differ.
    """
    shapes, dtypes = (
        [str(getattr(array, name)) for array in arrays] for name in ("shape", "dtype")
    )
    if len(set(shapes)) > 1 or len(set(dtypes)) > 1:
        said = ", ".join(f"{a} {b}" for a, b in zip(shapes, dtypes, strict=True))
        raise ImageError(f"Frames must have one shape and one dtype; got {said}.")
    if any(is_lazy(array) for array in arrays):
        import dask.array as da

        return da.stack([as_dask(array) for array in arrays])
    return Stacked([np.asarray(array) for array in arrays])
