"""Sharp images and what known physics makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_restore.training.data import SharpImage
    from napari_restore.training.recipes import Recipe

    Image = NDArray[np.float64]

#: Pairs that are this near to each other are identity pairs of the training, and are drawn again.
_UNTOUCHED = 45.0
#: Where the range of a mono image is put in 16 bits, with room on both sides.
_BLACK, _WHITE = 10000.0, 50000.0


def load_sharp(folders: Sequence[Any], kind: str, limit: int | None = None) -> list[SharpImage]:
    """Load sharp images, ``limit`` of them spread over the folders.

    Parameters
    ----------
    folders : sequence of path
    kind : {"color", "mono"}
        Color images serve for mono too, turned to gray; gray ones do not serve for color.
    limit : int, optional

    Raises
    ------
    RestoreError
        If there is none.
    """
    from napari_restore.training.data import load_folder

    images = load_folder(folders, 3 if kind == "color" else 1)
    if limit is None or limit >= len(images):
        return images
    return [images[i] for i in np.linspace(0, len(images) - 1, limit).round().astype(int)]


def find_recipe(task: str, kind: str) -> Recipe:
    """Recipe whose degradation belongs to a task and a kind of image.

    Raises
    ------
    ModelError
        If there is none.
    """
    from napari_restore.models.catalog import bundled_model
    from napari_restore.training.recipes import get_recipe

    # That of the model that "auto" takes.
    return get_recipe(bundled_model(task, 3 if kind == "color" else 1).name)


class DegradedPair(NamedTuple):
    """What known physics makes of a sharp image.

    Attributes
    ----------
    degraded, target, sharp : ndarray
        (Y, X, C); color in [0, 1]. ``target`` is what a perfect restoration gives; it differs from
        ``sharp`` in brightness.
    kernel : ndarray or None
        What blurred it, (k, k); None for haze.
    linear : bool
        Whether it acted on light, before the tone curve of a camera.
    """

    degraded: Image
    target: Image
    sharp: Image
    kernel: Image | None
    linear: bool


def degraded_pair(
    image: SharpImage, recipe: Recipe, size: int, seed: tuple[int, ...]
) -> DegradedPair:
    """Degrade the middle of a sharp image, always alike for the same seed.

    Parameters
    ----------
    image : SharpImage
    recipe : Recipe
    size : int
        Side of the crop, in pixels.
    seed : tuple of int

    Returns
    -------
    DegradedPair
        Blurred by a kernel that is the same everywhere, unless the task is to remove haze.
    """
    import torch

    from napari_restore.training.data import center_crop

    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    margin = recipe.degradation.margin
    crop = center_crop(image, size + 2 * margin)
    for _ in range(20):
        pair = recipe.degradation(crop.clone(), rng, generator)
        changed = float(((pair.image - pair.target) ** 2).mean()) > 10 ** (-_UNTOUCHED / 10)
        if changed and not any(kernel is None for kernel in pair.kernels):
            break
    sharp = crop[..., margin : margin + size, margin : margin + size]
    first, second, third = (
        t[0].permute(1, 2, 0).double().numpy() for t in (pair.image, pair.target, sharp)
    )
    known = pair.kernels and pair.kernels[0] is not None
    kernel = np.asarray(pair.kernels[0], np.float64) if known else None
    return DegradedPair(first, second, third, kernel, any(pair.linear))


@dataclass(frozen=True)
class Camera:
    """Turns an image into samples as files have them, and back.

    Attributes
    ----------
    kind : {"color", "mono"}
    low, span : float
        What becomes black, and how far white is from it.
    """

    kind: str
    low: float = 0.0
    span: float = 1.0

    @classmethod
    def for_image(cls, image: Image, kind: str) -> Camera:
        """Camera whose exposure suits an image."""
        if kind == "color":
            return cls(kind)
        low, high = float(image.min()), float(image.max())
        return cls(kind, low, max(high - low, 1e-6))

    def expose(self, image: Image) -> NDArray[Any]:
        """From (Y, X, C) to samples: (Y, X, 3) uint8 or (Y, X) uint16."""
        if self.kind == "color":
            return (255 * image).round().clip(0, 255).astype(np.uint8)
        normal = (image[..., 0] - self.low) / self.span
        return (_BLACK + normal * (_WHITE - _BLACK)).round().clip(0, 65535).astype(np.uint16)

    def develop(self, samples: NDArray[Any]) -> Image:
        """From samples to (Y, X, C) in the units of the image."""
        if self.kind == "color":
            return samples / 255.0
        normal = (samples.astype(np.float64) - _BLACK) / (_WHITE - _BLACK)
        return (normal * self.span + self.low)[..., None]
