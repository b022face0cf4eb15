"""Another strength of what was restored already: a blend of source and result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.intensity import Scale, add_residual, fit_float32
from napari_restore.image.layout import as_dask, is_lazy

from .layers import METADATA_KEY, result_name

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from .jobs import LayerJob

#: How many times more of the change may be taken than was computed: rounding grows with it.
_MOST = 4.0
#: Samples that are blended at a time.
_SLAB = 2**22


def blended(original: Any, result: Any, strength: float, made_at: float) -> Any:
    """Give a result another strength, within the rounding of one sample for each change of one.

    Parameters
    ----------
    original, result : array
        Of one shape and dtype; lazy if one of them is.
    strength, made_at : float
        The strength that is wanted, and that of ``result``, above 0.

    Returns
    -------
    array
        Same shape and dtype; NaN, infinities and alpha as they are.
    """
    if strength == made_at:
        return result
    if is_lazy(result):
        import dask.array as da

        source = as_dask(original).rechunk(result.chunks)
        share = {"strength": strength, "made_at": made_at}
        return da.map_blocks(blended, source, result, dtype=result.dtype, **share)
    original, result = np.asarray(original), np.asarray(result)
    if strength == 0:
        return original.copy()
    out = np.empty_like(result)
    rows = max(1, _SLAB // max(1, result[:1].size))
    for first in range(0, len(result), rows):
        part = slice(first, first + rows)
        out[part] = _blended(original[part], result[part], strength / made_at)
    return out


def _blended(original: NDArray[Any], result: NDArray[Any], share: float) -> NDArray[Any]:
    kind = np.float32 if fit_float32(original.dtype) or original.dtype == bool else np.float64
    with np.errstate(invalid="ignore"):
        change = result.astype(kind) - original.astype(kind)
    change[~np.isfinite(change)] = 0
    return add_residual(original, change, Scale(0.0, 1.0), share)[0]


class FreshResult:
    """A result that was just added, whose strength can still be changed.

    Parameters
    ----------
    job : LayerJob
    layer : napari.layers.Image
        In the viewer.
    """

    def __init__(self, job: LayerJob, layer: Image) -> None:
        self.source, self.layer = job.layer, layer
        self._job, self._made_at = job, job.plan.options.strength
        self._strength, self._name = self._made_at, layer.name
        self._results = list(layer.data) if layer.multiscale else [layer.data]
        self._data = layer.data

    @property
    def untouched(self) -> bool:
        """Whether its data are those that were put there last."""
        return self.layer.data is self._data

    def blend(self, strength: float) -> bool:
        """Change its strength; False if only a new run can do that."""
        if strength == self._strength or not self.untouched:
            return strength == self._strength
        if strength > _MOST * self._made_at:
            return False
        pairs = zip(self._job.shown_levels, self._results, strict=True)
        levels = [blended(source, result, strength, self._made_at) for source, result in pairs]
        layer, self._strength = self.layer, strength
        layer.data = levels if layer.multiscale else levels[0]
        self._data = layer.data
        record = {**layer.metadata[METADATA_KEY], "strength": strength}
        record.pop("blended_from", None)
        if strength != self._made_at:
            # The network ran for this one.
            record["blended_from"] = self._made_at
        layer.metadata = {**layer.metadata, METADATA_KEY: record}
        if layer.name == self._name:
            layer.name = result_name(self._job, strength)
            self._name = layer.name
        return True

    def as_made(self) -> None:
        """Give it back the strength that it was made with."""
        self.blend(self._made_at)
