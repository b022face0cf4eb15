"""Sharp training crops from folders of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_restore.errors import FileError, RestoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


@dataclass(frozen=True)
class SharpImage:
    """One image, (H, W, C) in [0, 255], and the group that its file name puts it in."""

    pixels: NDArray[Any]
    group: str
    name: str


def load_folder(folders: Iterable[str | Path], channels: int) -> list[SharpImage]:
    """Load every image below some folders.

    Parameters
    ----------
    folders : iterable of path
    channels : {1, 3}
        With 3, gray images are left out; with 1, color images are turned to gray. One-channel
        images are stretched so that their 0.5 and 99.9 percentiles become 0 and 200 of 255.

    Raises
    ------
    RestoreError
        If no image was found, or a file is not one gray or color image.
    """
    images = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            pixels = read_plane(path)
            if channels == 3 and pixels.ndim == 2:
                continue
            pixels = _color(pixels) if channels == 3 else _gray(pixels)
            words = []
            for word in path.stem.split("_"):
                if not word.isalpha():
                    break
                words.append(word)
            images.append(SharpImage(pixels, "_".join(words), path.name))
    if not images:
        raise _none(folders, channels)
    return images


def as_training_image(pixels: NDArray[Any], name: str, channels: int) -> SharpImage:
    """Make an image to learn from of an array (H, W) or (H, W, 3).

    Raises
    ------
    RestoreError
        If it is gray and has to be color.
    """
    if channels == 3 and pixels.ndim == 2:
        raise RestoreError(f"'{name}' is gray, and the model is for color. Choose a mono model.")
    return SharpImage(_color(pixels) if channels == 3 else _gray(pixels), "", name)


def load_first(folders: Iterable[str | Path], channels: int, number: int = 0) -> SharpImage:
    """Load one image of some folders, the first or another one.

    Raises
    ------
    RestoreError
        If there is none.
    """
    files = [
        path
        for folder in folders
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    for place in range(len(files)):
        path = files[(number + place) % len(files)]
        pixels = read_plane(path)
        if channels == 1 or pixels.ndim == 3:
            return as_training_image(pixels, path.name, channels)
    raise _none(folders, channels)


def _none(folders: Iterable[str | Path], channels: int) -> RestoreError:
    return RestoreError(
        f"No {'color ' if channels == 3 else ''}image in {', '.join(map(str, folders))}. "
        f"Give folders that hold files ending in {', '.join(sorted(SUFFIXES))}."
    )


def read_plane(path: Path) -> NDArray[Any]:
    """One image, (H, W) or (H, W, 3), without alpha."""
    from skimage.io import imread

    try:
        pixels: NDArray[Any] = imread(path)
    except Exception as error:
        # Each format has its own errors; which file it was is what the user needs to know.
        raise FileError(f"{path} cannot be read ({error}). Repair it or take it out.") from error
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 2):
        pixels = pixels[..., 0]
    elif pixels.ndim == 3 and pixels.shape[-1] == 4:
        pixels = pixels[..., :3]
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise FileError(
            f"{path} of shape {pixels.shape} is not one gray or color image. Save its planes as "
            "files of their own."
        )
    if pixels.ndim == 3 and pixels.dtype.kind != "u":
        raise FileError(
            f"{path} holds color as {pixels.dtype}. Save it with 8 or 16 bits for each sample."
        )
    return pixels


def _color(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        pixels = (pixels / np.iinfo(pixels.dtype).max * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _gray(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    gray = pixels.astype(np.float32)
    if gray.ndim == 3:
        gray = gray @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(gray, (0.5, 99.9))
    stretched = (gray - low) / max(high - low, 1e-6) * 200
    gray8: NDArray[np.uint8] = stretched.clip(0, 255).round().astype(np.uint8)[..., None]
    return gray8


def _shrink(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(
        tensor, scale_factor=1 / factor, mode="bilinear", antialias=True
    )
    return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Share of the gradient energy that vanishes when the image is shrunk by two."""
    gray = pixels.astype(np.float32).mean(-1)
    fine = np.abs(np.diff(gray, axis=0)).mean()
    coarse = np.abs(gray[2::2] - gray[:-2:2]).mean()
    return float(2 * fine / max(coarse, 1e-6)) - 1


class Crops(Protocol):
    """Gives batches to learn from."""

    def batch(self, rng: np.random.Generator, count: int, size: int) -> torch.Tensor:
        """Draw crops: (count, C, size, size)."""
        ...


class CropSource:
    """Random crops with enough structure to learn from.

    Images enter at full size (unless soft) and shrunk by 1.5 and 2, so that
    a structure is seen at several scales. Groups of images (by the leading words of the file
    name) are drawn in proportion to the square root of their pixels.

    Parameters
    ----------
    images : list of SharpImage
    minimum : int
        Shortest side in pixels that a shrunk image may have.
    soft : float
        Images whose `sharpness` is below are used only shrunk by two.
    scenes : sequence of int
        For networks that look at whole scenes: shrink every image to these lengths of its shorter
        side instead, as far as it is larger, and keep it upright.
    emphasis : mapping, optional
        How many times more often to draw groups whose names begin with a word.
    """

    def __init__(
        self,
        images: list[SharpImage],
        minimum: int = 160,
        soft: float = 0.06,
        scenes: Sequence[int] = (),
        emphasis: Mapping[str, float] | None = None,
    ) -> None:
        self._upright = bool(scenes)
        self._groups: dict[str, list[NDArray[np.uint8]]] = {}
        for image in images:
            if scenes:
                levels = _scene_levels(image.pixels, scenes)
            else:
                levels = _detail_levels(image.pixels, minimum, soft)
            self._groups.setdefault(image.group, []).extend(levels)
        areas = [sum(level.size for level in group) for group in self._groups.values()]
        weights = np.array(areas, float) ** 0.5
        for word, factor in (emphasis or {}).items():
            weights[[name.startswith(word) for name in self._groups]] *= factor
        self._names, self._weights = list(self._groups), weights / weights.sum()

    def batch(self, rng: np.random.Generator, count: int, size: int) -> torch.Tensor:
        """Draw crops: (count, C, size, size) in [0, 1]."""
        return torch.stack([self._crop(rng, size) for _ in range(count)])

    def _crop(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        group = self._groups[self._names[rng.choice(len(self._names), p=self._weights)]]
        # Mirrored parts are no scene; only where all are small they have to do.
        group = [image for image in group if min(image.shape[:2]) >= size] or group
        best, energy = None, -1.0
        for _ in range(int(rng.integers(1, 4))):
            image = group[int(rng.integers(len(group)))]
            crop = _window(image, rng, size)
            coarse = crop[::2, ::2].astype(np.int16)
            score = float(np.abs(np.diff(coarse, axis=0)).mean())
            if score > energy:
                best, energy = crop, score
        assert best is not None
        if rng.random() < 0.5:
            best = best[:, ::-1]
        if not self._upright:
            best = np.rot90(best, int(rng.integers(4)))
        return torch.from_numpy(best.transpose(2, 0, 1).copy()).float() / 255


def _detail_levels(pixels: NDArray[np.uint8], minimum: int, soft: float) -> list[NDArray[np.uint8]]:
    levels = [_shrink(pixels, 2)] if sharpness(pixels) < soft else [pixels]
    for factor in (1.5, 2):
        if min(levels[0].shape[:2]) / factor >= minimum:
            levels.append(_shrink(levels[0], factor))
    return levels


def _scene_levels(pixels: NDArray[np.uint8], scenes: Sequence[int]) -> list[NDArray[np.uint8]]:
    shorter = min(pixels.shape[:2])
    levels = [_shrink(pixels, shorter / length) for length in scenes if length < shorter]
    return levels or [pixels]


def as_scene(image: SharpImage, length: int) -> SharpImage:
    """Shrink an image until its shorter side has a length in pixels; small ones stay."""
    return replace(image, pixels=_scene_levels(image.pixels, (length,))[0])


def _window(image: NDArray[np.uint8], rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if min(height, width) < size:
        below, right = max(0, size - height), max(0, size - width)
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
        height, width = image.shape[:2]
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    return image[top : top + size, left : left + size]


def center_crop(image: SharpImage, size: int) -> torch.Tensor:
    """Middle of an image, (1, C, size, size) in [0, 1], reflected where it is too small."""
    pixels = image.pixels
    below, right = (max(0, size - length) for length in pixels.shape[:2])
    pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="symmetric")
    top, left = ((length - size) // 2 for length in pixels.shape[:2])
    crop = pixels[top : top + size, left : left + size]
    return torch.from_numpy(crop.transpose(2, 0, 1).copy())[None].float() / 255
