"""Make the files of sample_data from the images that they come from.

Usage: python scripts/make_samples.py ARCHIVES [-o sample_data]

ARCHIVES is a folder with the package archives that `SOURCES` names, as ``pip download --no-deps
NAME==VERSION`` or the package's own page gives them. Everything random is seeded.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import io
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage
import tifffile
import torch
from PIL import Image
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from napari_restore import Optics
from napari_restore.physics import camera, haze, motion, psf
from napari_restore.samples import SAMPLES, Sample
from napari_restore.training import scenes

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, np.dtype[Any]]

#: Archive (glob), member, SHA-256 of the member. Without an archive: a file of scikit-image.
SOURCES = {
    "mitochondria": (
        "napari-zelda-0.1.12.tar.gz",
        "napari-zelda-0.1.12/docs/3ch_DNA_Actin_Mitochondria-MitoTracker.tif",
        "b54204e2dd9fa067d378fd005cfcb0e8b021e147c535982df49c4b4e2001d81a",
    ),
    "actin": (
        "napari-zelda-0.1.12.tar.gz",
        "napari-zelda-0.1.12/docs/3ch_DNA_Actin_Mitochondria-AF488.tif",
        "b954d7096d82d51bbca2db2a4484134dd97a2e93bcfac3db8b2dfb2b715eb666",
    ),
    "tissue": ("", "ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    "retina": (
        "",
        "retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    ),
    "chest_ct": (
        "pyradiomics-3.1.0.tar.gz",
        "pyradiomics-3.1.0/data/lung1_image.nrrd",
        "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",
    ),
    "brain_section": (
        "spotiflow-0.6.5-*.whl",
        "spotiflow/sample_data/images/img_hybiss_2d.tif",
        "debc9a03facb2c8f46b9bbf17ae74e6033c4d87df5abba31cc2a16f0833d3671",
    ),
    "nuclei": (
        "spotiflow-0.6.5-*.whl",
        "spotiflow/sample_data/images/img_terra_2d.tif",
        "86d9bcd1c186b4e95272bf63511a53109c35930b8d928867aa38d85cdffb154b",
    ),
    "pagoda": (
        "scikit_learn-1.*.whl",
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    "raccoon": (
        "scipy-1.9.3-*.whl",
        "scipy/misc/face.dat",
        "9d8b0b4d081313e2b485748c770472e5a95ed1738146883d84c7030493e82886",
    ),
}


def read_source(key: str, archives: Path) -> Array:
    """Pixels of a source image, (H, W), (H, W, 3) or (Z, H, W)."""
    pattern, member, sha256 = SOURCES[key]
    if not pattern:
        data = (Path(skimage.__file__).parent / "data" / member).read_bytes()
    else:
        found = sorted(archives.glob(pattern))
        if not found:
            raise SystemExit(f"{archives} has no {pattern}; get it with pip download --no-deps.")
        if found[0].suffix == ".whl":
            data = zipfile.ZipFile(found[0]).read(member)
        else:
            with tarfile.open(found[0]) as archive:
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(
            f"{member} of {pattern or 'scikit-image'} is not the file this was made from."
        )
    if member.endswith(".tif"):
        return tifffile.imread(io.BytesIO(data))
    if member.endswith(".nrrd"):
        header, _, body = data.partition(b"\n\n")
        sizes = next(line for line in header.splitlines() if line.startswith(b"sizes:"))
        shape = [int(size) for size in sizes.split()[1:]]
        return np.frombuffer(gzip.decompress(body), "<i2").reshape(shape[::-1])
    if member.endswith(".dat"):
        return np.frombuffer(bz2.decompress(data), np.uint8).reshape(768, 1024, 3)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ---------------------------------------------------------------- from arrays to tensors and back


def to_tensor(pixels: Array) -> torch.Tensor:
    """RGB uint8 (H, W, 3) to (1, 3, H, W) in [0, 1]; a plane (H, W) to (1, 1, H, W), as it is."""
    if pixels.ndim == 3:
        return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return torch.from_numpy(pixels.astype(np.float32))[None, None]


def to_rgb8(image: torch.Tensor) -> Array:
    return (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def shrink(pixels: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS))


def photograph(sharp: Array, kernel: Array, photons: float, seed: int) -> Array:
    """Blur an sRGB image in linear light and take it again: shot noise, read noise, 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    light = psf.convolve(camera.to_linear(to_tensor(sharp)), psf.stack([kernel]))
    return to_rgb8(camera.to_srgb(camera.add_noise(light, photons, 2e-3, generator).clamp(0, 1)))


def micrograph(counts: Array, kernel: Array, gain: float, photons: float, seed: int) -> Array:
    """Blur a linear image above its dark level and detect it again, in counts times ``gain``."""
    light = psf.convolve(to_tensor(counts), psf.stack([kernel]))
    return detect(light, counts, gain, photons, seed)[0]


def detect(light: torch.Tensor, counts: Array, gain: float, photons: float, seed: int) -> Array:
    """Frames (N, 1, H, W) as a camera counts them, ``photons`` at the brightest of ``counts``."""
    generator = torch.Generator().manual_seed(seed)
    dark, full = np.percentile(counts, 1), counts.max()
    signal = (light - dark) / (full - dark)
    noisy = camera.add_noise(signal.clamp(min=0), photons, 4e-3, generator)
    result = (noisy[:, 0].numpy() * (full - dark) + dark) * gain
    return result.round().clip(0, 65535).astype(np.uint16)


# ---------------------------------------------------------------- the samples


def mitochondria(source: Array) -> Array:
    # 0.524 µm pixels, 600 nm emission, NA 0.4; the focus is off by 1.2 rad (rms).
    kernel = psf.microscope(0.4, 0.6, 0.524, {"defocus": 1.2}, half=8)
    return micrograph(source, kernel, 4, 4000, 1)


def actin(source: Array) -> Array:
    path = motion.shake(np.random.default_rng(4), 8, jerk=0.01)
    return micrograph(source, motion.kernel(path), 16, 4000, 2)


def stage(time: Array) -> Array:
    """Displacements (y, x) in pixels of a stage that drifts and vibrates; time in frames."""
    turn = 2 * np.pi * time
    drift = np.stack([-20 * np.cos(turn / 16), -36 * np.cos(turn / 24)], 1)
    return drift + np.stack([np.sin(0.43 * turn), 0.7 * np.sin(0.31 * turn)], 1)


def nuclei(source: Array) -> Array:
    # The noise of the source would move along with the cells. Its variance is 1.3 (I - 98.6), so
    # that it is even (0.57) in the square root.
    root = np.sqrt((source.astype(np.float32) - 98.6).clip(min=0))
    root = denoise_nl_means(root, patch_size=3, patch_distance=7, h=0.34, sigma=0.57)
    sharp = (root**2 + 98.6).astype(np.float32)
    side, frames = 384, []
    for frame in range(12):
        # The shutter is open for 0.7 of the time between two frames.
        path = stage(frame + np.linspace(0, 0.7, 64))
        corner = path.mean(0).round().astype(int)
        # What the window moves over moves the other way in it.
        seen = psf.convolve(to_tensor(sharp), psf.stack([motion.kernel(corner - path)]))
        y, x = np.array([612, 500]) + corner
        frames.append(seen[..., y : y + side, x : x + side])
    return detect(torch.cat(frames), sharp, 4, 4000, 9)


def tissue(source: Array) -> Array:
    return photograph(source, psf.disk(3.2), 6000, 3)


def retina(source: Array) -> Array:
    path = motion.shake(np.random.default_rng(7), 13)
    return photograph(shrink(source, (640, 640)), motion.kernel(path), 6000, 4)


def raccoon(source: Array) -> Array:
    path = motion.shake(np.random.default_rng(11), 15)
    return photograph(shrink(source, (480, 640)), motion.kernel(path), 4000, 5)


def chest_ct(source: Array) -> Array:
    generator = torch.Generator().manual_seed(6)
    planes = torch.from_numpy(source[12:20, 160:496].astype(np.float32))[:, None]
    soft = psf.convolve(planes, psf.stack([psf.gaussian(1.6)]))[:, 0]
    noise = torch.empty_like(soft).normal_(std=8, generator=generator)
    return (soft + noise).round().clamp(-1024, 3071).numpy().astype(np.int16)


def volume() -> Array:
    """Make up cells, and let a microscope see them, with 200 photons and an offset of 20."""
    sample = next(sample for sample in SAMPLES if sample.key == "volume")
    rng, shape = np.random.default_rng(31), (24, 144, 144)
    kernel, threads, cells = _cells(sample, shape, rng)
    sharp = threads / np.percentile(threads, 99.9) + 0.5 * cells
    seen = scenes.see(sharp, kernel, shape, 200, rng)
    return (seen.blurred * 200 + 20).round().astype(np.uint16)


def volume_movie() -> Array:
    """Cells that drift and rise while threads stay; photons bleach from 150 to 80."""
    sample = next(sample for sample in SAMPLES if sample.key == "volume_movie")
    rng, shape, frames = np.random.default_rng(5), (16, 96, 96), 5
    kernel, threads, cells = _cells(sample, shape, rng)
    threads = threads / np.percentile(threads, 99.9)
    movie = []
    for photons, place in zip(np.geomspace(150, 80, frames), range(frames), strict=True):
        # A fifth of a micrometer from frame to frame, and a third of a plane.
        moved = ndimage.shift(cells, (place / 3, 1.5 * place, -1.2 * place), order=1, mode="mirror")
        seen = scenes.see(threads + 0.5 * moved, kernel, shape, photons, rng)
        movie.append((seen.blurred * photons + 20).round().astype(np.uint16))
    return np.stack(movie)


def _cells(
    sample: Sample, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Point spread function of a sample's optics; threads, and cells, in and around a shape."""
    assert sample.scale is not None and sample.optics is not None
    step, side = sample.scale[0], sample.scale[2]
    kernel = Optics(**sample.optics, z_step=step, pixel_size=side).psf(dimensions=3)
    whole, apart = scenes.around(shape, kernel.shape), step / side
    return kernel, scenes.filaments(whole, rng, apart), scenes.nuclei(whole, rng, apart)


def brain_section(source: Array) -> Array:
    return source  # its haze is real


def pagoda(source: Array) -> Array:
    rng, generator = np.random.default_rng(2), torch.Generator().manual_seed(8)
    sharp = to_tensor(source)
    height, width = sharp.shape[-2:]
    # Fog that thickens with height and drifts: near ground at the bottom, sky at the top.
    rise = torch.linspace(1, 0, height)[:, None].expand(height, width)
    thickness = 0.45 + 0.75 * rise + 0.55 * haze.smooth_field(rng, height, width)
    airlight = torch.tensor([0.80, 0.82, 0.84]).view(3, 1, 1)
    hazy = haze.add_haze(sharp, torch.exp(-thickness), airlight)
    return to_rgb8(camera.add_noise(hazy, 1e5, 3e-3, generator))


def write(path: Path, pixels: Array, sample: Sample) -> None:
    """Write a sample; TIFFs with axes and pixel size as OME has them."""
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path, optimize=True)
        return
    space = "ZYX"[sample.movie - pixels.ndim :]
    metadata: dict[str, Any] = {"axes": "T" * sample.movie + space}
    if sample.interval is not None:
        metadata |= {"TimeIncrement": sample.interval, "TimeIncrementUnit": "s"}
    if sample.scale is not None:
        unit = {"micrometer": "µm", "millimeter": "mm"}[sample.units or ""]
        for axis, step in zip(space, sample.scale, strict=True):
            metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit}
    if sample.optics is not None:
        wavelength = float(sample.optics["wavelength"].removesuffix(" nm"))
        metadata["Channel"] = {"EmissionWavelength": wavelength, "EmissionWavelengthUnit": "nm"}
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, compression="zlib", predictor=True)


def main() -> None:
    """Make every sample."""
    parser = argparse.ArgumentParser(description="Make the files of sample_data.")
    parser.add_argument("archives", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parents[1] / "sample_data"
    )
    args = parser.parse_args()
    print(f"scikit-image {version('scikit-image')}, torch {version('torch')}")
    for sample in SAMPLES:
        make: Callable[..., Array] = globals()[sample.key]
        # What is made up comes from no source.
        sources = [read_source(sample.key, args.archives)] if sample.key in SOURCES else []
        pixels = make(*sources)
        path = args.output / sample.file
        write(path, pixels, sample)
        print(f"{path}  {pixels.shape}  {pixels.dtype}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
