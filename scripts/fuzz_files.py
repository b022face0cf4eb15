"""Damage files of every format, and see that each ends in a right result or in one plain line.

    python scripts/fuzz_files.py [--count 1100] [--only npy weights] [--keep DIR]

The seed is fixed. Each file goes through the command line, in a process with bounded memory that is
started anew when it dies or takes too long. Exit status 1 if any file ends otherwise: a traceback,
an error that is not explained or names no file, a result of the wrong size, code that ran.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import logging
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Bytes that a worker may map, and seconds that one file may take on the busiest machine.
MEMORY, SECONDS = 6 * 2**30, 120
#: Files of each kind among every 24.
SHARES = {
    **{"npy": 3, "nifti": 4, "dicom": 4, "series": 2, "tiff": 4, "photo": 2, "zarr": 3},
    "weights": 2,
}
#: What lengths and dimensions become, as numbers of several widths and as text.
ABSURD = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**62, 2**63, 2**64 - 1]
ABSURD_TEXT = ["0", "-1", "3.5", "1e99", "99999999", "9" * 19, "null", "[]", '"x"', "NaN", "true"]
SHAPE = (3, 24, 20)


# ---------------------------------------------------------------- sound files


def samples(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def make_npy(folder: Path) -> list[Path]:
    names = {"a.npy": "uint16", "b.npy": "float32", "c.npy": ">i4", "d.npy": "bool"}
    for name, dtype in names.items():
        np.save(folder / name, samples(dtype))
    return [folder / name for name in names]


def make_nifti(folder: Path) -> list[Path]:
    import nibabel

    paths = [folder / name for name in ("a.nii", "b.nii.gz", "c.nii", "d.nii")]
    for path, dtype in zip(paths, ("int16", "uint16", "float32", "uint8"), strict=True):
        kind = nibabel.Nifti2Image if path.name == "d.nii" else nibabel.Nifti1Image
        image = kind(samples(dtype, (24, 20, 3)), np.diag([0.5, 0.5, 2, 1]))
        if dtype == "int16":
            image.header.set_slope_inter(2, -100)
        nibabel.save(image, path)
    return paths


def dicom_dataset(pixels: np.ndarray, number: int) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    ds.SOPInstanceUID = f"1.2.3.4.5.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    ds.PatientName, ds.PatientID, ds.Modality = "Nobody", "1", "CT"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.5], 2
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2.0 * number], [1, 0, 0, 0, 1, 0]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = pixels.astype("<u2").tobytes()
    return ds


def make_dicom(folder: Path) -> list[Path]:
    from pydicom.uid import RLELossless

    paths = [folder / name for name in ("a.dcm", "b.dcm", "c.dcm")]
    for number, path in enumerate(paths):
        ds = dicom_dataset(samples(shape=SHAPE if number == 1 else SHAPE[1:]), number)
        if number == 2:
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    return paths


def make_series(folder: Path) -> list[Path]:
    inner = folder / "series"
    inner.mkdir()
    for number in range(3):
        dicom_dataset(samples()[number], number).save_as(
            inner / f"{number}.dcm", enforce_file_format=True
        )
    return [inner]


def make_tiff(folder: Path) -> list[Path]:
    import tifffile

    options: dict[str, dict[str, Any]] = {
        "a.tif": {"photometric": "minisblack"},
        "b.ome.tif": {"photometric": "minisblack", "metadata": {"axes": "ZYX"}},
        "c.tif": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "d.tif": {"compression": "zlib", "tile": (16, 16), "photometric": "minisblack"},
        "e.tif": {"bigtiff": True, "photometric": "minisblack"},
        "f.tif": {"photometric": "rgb"},
    }
    for name, given in options.items():
        data = samples("uint8", (24, 20, 3)) if name == "f.tif" else samples()
        tifffile.imwrite(folder / name, data, **given)
    return [folder / name for name in options]


def make_photo(folder: Path) -> list[Path]:
    from PIL import Image

    picture = Image.fromarray(samples("uint8", (24, 20, 3)))
    picture.save(folder / "a.png", dpi=(300, 300))
    picture.save(folder / "b.jpg", exif=Image.Exif(), quality=90)
    Image.fromarray(samples()[0]).save(folder / "c.png")
    picture.convert("RGBA").save(folder / "d.png")
    return [folder / name for name in ("a.png", "b.jpg", "c.png", "d.png")]


def make_zarr(folder: Path) -> list[Path]:
    import zarr

    paths = []
    for version in (2, 3):
        path = folder / f"v{version}.ome.zarr"
        group = zarr.create_group(path, zarr_format=version)
        group.create_array("0", data=samples(), chunks=(1, 16, 16))
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        entry = {"axes": axes, "datasets": datasets, "version": f"0.{version + 2}"}
        if version == 2:
            group.attrs["multiscales"] = [entry]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
        paths.append(path)
    return paths


def make_weights(folder: Path) -> list[Path]:
    import torch

    from napari_restore.models.catalog import build_network, save_weights

    options = {"channels": 1, "width": 4, "encoder_blocks": (1,), "middle_blocks": 1}
    options |= {"decoder_blocks": (1,)}
    network = build_network("nafnet", options)
    told = {"name": "x", "task": "deblur", "architecture": "nafnet", "options": options}
    save_weights(folder / "a.safetensors", network.state_dict(), told)
    published = build_network("nafnet", options | {"unshuffle": 1})
    torch.save({"params": published.state_dict()}, folder / "b.pth")
    return [folder / "a.safetensors", folder / "b.pth"]


MAKERS: dict[str, Callable[[Path], list[Path]]] = {
    **{"npy": make_npy, "nifti": make_nifti, "dicom": make_dicom, "series": make_series},
    **{"tiff": make_tiff, "photo": make_photo, "zarr": make_zarr, "weights": make_weights},
}


# ---------------------------------------------------------------- damage


def turn_bits(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 6)):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def make_absurd(data: bytearray, rng: np.random.Generator) -> None:
    width = int(rng.choice([1, 2, 4, 8]))
    place = _place(data, rng) // width * width
    value = ABSURD[rng.integers(len(ABSURD))] % 256**width
    end = rng.choice(["little", "big"])
    data[place : place + width] = value.to_bytes(width, end)[: len(data) - place]


def change_number(data: bytearray, rng: np.random.Generator) -> None:
    """Put something else in the place of a number in text: NPY, JSON, XML, DICOM."""
    head = bytes(data[:4096])
    digits = [i for i, byte in enumerate(head) if 48 <= byte <= 57]
    if not digits:
        return make_absurd(data, rng)
    first = last = int(rng.choice(digits))
    while last < len(head) and 48 <= head[last] <= 57:
        last += 1
    data[first:last] = ABSURD_TEXT[rng.integers(len(ABSURD_TEXT))].encode()
    return None


def cut_short(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data) + 1)) :]


def wipe(data: bytearray, rng: np.random.Generator) -> None:
    place, count = _place(data, rng), int(rng.integers(1, 64))
    data[place : place + count] = bytes(min(count, len(data) - place))


def insert(data: bytearray, rng: np.random.Generator) -> None:
    place = _place(data, rng)
    data[place:place] = rng.bytes(int(rng.integers(1, 32)))


DAMAGES = (turn_bits, turn_bits, make_absurd, make_absurd, change_number, cut_short, wipe, insert)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Mostly in the first bytes, where the lengths are."""
    return int(rng.integers(min(len(data), 600 if rng.random() < 0.75 else 10**9)))


def damage(source: Path, target: Path, rng: np.random.Generator) -> str:
    """Copy a file or a folder, one file of it damaged; says how."""
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    inside = sorted(p for p in target.rglob("*") if p.is_file()) if source.is_dir() else [target]
    victim = inside[rng.integers(len(inside))]
    packed = victim.name.endswith(".gz") and rng.random() < 0.7
    data = bytearray(gzip.decompress(victim.read_bytes()) if packed else victim.read_bytes())
    how = DAMAGES[rng.integers(len(DAMAGES))]
    if data:
        how(data, rng)
    victim.write_bytes(gzip.compress(data) if packed else data)
    return f"{how.__name__} in {victim.relative_to(target.parent)}"


class Harm:
    """A pickle that makes a file if it is let."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


# ---------------------------------------------------------------- the worker


def work() -> None:
    """Run command lines, given as lines of JSON, and answer each with a line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(10)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from napari_restore.cli import main

    for line in sys.stdin:
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                status: Any = main(json.loads(line))
            except BaseException as error:
                status = f"{type(error).__name__}: {error}"
        answers.write(json.dumps({"status": status, "said": said.getvalue()}) + "\n")
        answers.flush()


class Worker:
    """The process that restores; a new one where the old one has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, command: list[str]) -> dict[str, Any]:
        """Status and what was said."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        answer = process.stdout.readline() if ready else ""
        if not answer:
            self.end()
            return {"status": "died" if ready else "took too long", "said": ""}
        return dict(json.loads(answer))

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


# ---------------------------------------------------------------- judgment


def declared_size(path: Path, kind: str) -> int | None:
    """Ask a library how many samples a file says it holds; None if that does not tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "npy":
                return int(np.load(path, mmap_mode="r").size)
            if kind == "nifti":
                import nibabel

                return int(np.prod(nibabel.load(path).shape))
            if kind == "photo":
                from PIL import Image

                with Image.open(path) as image:
                    return int(np.prod(image.size)) * len(image.getbands())
            if kind == "tiff":
                import tifffile

                return int(tifffile.imread(path).size)
            if kind == "dicom":
                import pydicom

                ds = pydicom.dcmread(path)
                return int(ds.pixel_array.size)
            if kind == "zarr":
                import zarr

                return int(zarr.open_array(path / "0", mode="r").size)
    except Exception:
        return None
    return None


def judge(answer: dict[str, Any], source: Path, out: Path, kind: str, sound: int) -> str:
    """Say what is wrong; nothing if all is well."""
    status, said = answer["status"], answer["said"]
    lines = said.splitlines()
    errors = [
        line for line in lines if not line.startswith("napari-restore: ") or ": note: " not in line
    ]
    if status == 0:
        if errors:
            return f"a result, and beside it: {errors[0]}"
        if not out.exists():
            return "no result"
        data = np.load(out, mmap_mode="r")
        if data.size not in (sound, declared_size(source, kind)):
            return f"{data.size} samples of {sound}"
        if kind == "weights" and not np.isfinite(data).all():
            return "a result that is not finite"
        return ""
    if status not in (1, 2):
        return f"ended with {status!r}"
    if out.exists():
        return "a result in spite of an error"
    if "Traceback" in said or "should not happen" in said:
        return f"not explained: {errors[-1] if errors else said}"
    if len(errors) != 1:
        return f"{len(errors)} lines: {errors}"
    if source.name not in errors[0]:
        return f"names no file: {errors[0]}"
    return ""


def hostile(folder: Path, marker: Path) -> Iterator[Path]:
    """Files that would run code."""
    import torch

    for number, ending in enumerate((".pth", ".safetensors", ".npy")):
        path = folder / f"hostile{number}{ending}"
        if ending == ".npy":
            np.save(path, np.array([Harm(marker)], object), allow_pickle=True)
        else:
            torch.save({"intro.weight": Harm(marker)}, path)
        yield path


def fuzz(count: int, kinds: list[str], keep: Path | None) -> int:
    """Try ``count`` files, and say how each kind went."""
    # Libraries that are asked for sizes say more than they are asked.
    logging.disable()
    worker, tried, failed = Worker(), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "image.npy", samples()[0])
        models: dict[str, list[Path]] = {}
        for kind in kinds:
            (folder / kind).mkdir()
            models[kind] = MAKERS[kind](folder / kind)
        turns = [kind for kind in kinds for _ in range(SHARES[kind])]
        marker = folder / "code ran"
        jobs = [(kind, path, False) for kind in kinds for path in models[kind]]
        jobs += [
            (turns[n % len(turns)], models[turns[n % len(turns)]], True)  # type: ignore[list-item]
            for n in range(count)
        ]
        jobs += [
            ("weights" if p.suffix != ".npy" else "npy", p, False) for p in hostile(folder, marker)
        ]
        for number, (kind, given, damaged) in enumerate(jobs):
            rng = np.random.default_rng([20, number])
            how, source = "as it is", given
            if damaged:
                choice: Path = given[rng.integers(len(given))]  # type: ignore[index]
                source = folder / f"{number} {choice.name}"
                how = damage(choice, source, rng)
            out = folder / "out.npy"
            out.unlink(missing_ok=True)
            image = folder / "image.npy" if kind == "weights" else source
            command = ["deblur", str(image), "-o", str(out), "--device", "cpu"]
            if kind == "weights":
                command += ["--model", str(source)]
            sound = _sound(kind, source)
            answer = worker(command)
            wrong = judge(answer, source, out, kind, sound)
            if marker.exists():
                wrong, _ = "CODE RAN", marker.unlink()
            tried[kind] += 1
            if wrong:
                failed[kind] += 1
                print(f"{kind} {number}: {how}: {wrong}", flush=True)
                if keep is not None:
                    keep.mkdir(exist_ok=True)
                    copy = shutil.copytree if source.is_dir() else shutil.copy
                    copy(source, keep / source.name)
            if damaged:
                shutil.rmtree(source) if source.is_dir() else source.unlink()
    worker.end()
    for kind in kinds:
        print(f"{kind}: {failed[kind]} of {tried[kind]} failed")
    print(f"all: {failed.total()} of {tried.total()} failed")
    return int(failed.total() > 0)


def _sound(kind: str, source: Path) -> int:
    """Count the samples of the file before it was damaged."""
    name = source.name
    if kind == "weights" or (kind == "dicom" and "b.dcm" not in name) or "c.png" in name:
        return 480
    return 1920 if "d.png" in name else 1440


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1100)
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--keep", type=Path, help="folder for the files that fail")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return 0
    return fuzz(options.count, options.only, options.keep)


if __name__ == "__main__":
    sys.exit(main())
