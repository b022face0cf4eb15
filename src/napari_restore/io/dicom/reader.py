"""Read DICOM: one file, or the files of a folder that make up a series, as one image."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_restore.errors import FileError
from napari_restore.io.image_file import ImageFile, RescaleTransform, as_dtype, integer_dtype

from .dataset import decoded, frame_count, is_color, open_dataset, storage_of
from .geometry import arrange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .dataset import Storage

#: float32 tells so many steps of the stored integers apart, with bits to spare for rounding.
_STEPS = 2**20


def read_dicom(path: Path, series: str | None = None) -> ImageFile:
    """Read a DICOM file, or the files of a series from a folder.

    Parameters
    ----------
    path : Path
        A file, with one frame or several, or a folder.
    series : str, optional
        SeriesNumber or SeriesInstanceUID of the series, where the folder holds several.

    Returns
    -------
    ImageFile
        Single-channel samples are floats in the units of the image (slope and intercept, of each
        slice, applied), NaN where pixels are padding, and have the opposite sign where low values
        are shown bright. Colors are RGB. Slices are sorted along their normal. ``extras`` holds
        ``files`` and ``storages`` in the order of the slices, ``affine`` (see `Arrangement`),
        ``uneven`` and ``depth``, words for the stored integers.

    Raises
    ------
    FileError
        If it is damaged, or holds no image or several.
    """
    notes: list[str] = []
    with pydicom_speaks(notes):
        paths = dicom_files(path) if path.is_dir() else [path]
        if path.is_dir():
            look_at_others(path, paths, notes)
        headers = [open_dataset(file, pixels=False) for file in paths]
        if path.is_dir():
            look_at_imageless(paths, headers, notes)
            paths, headers = _one_series(paths, headers, series)
        storages = [
            _storage(header, file, path) for header, file in zip(headers, paths, strict=True)
        ]
        _check_alike(headers, paths)
        arrangement = arrange(headers, paths)
        order = arrangement.order
        files = [paths[i] for i in order]
        storages = [storages[i] for i in order]
        data = read_frames(files, storages, _float_dtype(storages))
    head = headers[0]
    color = is_color(head)
    notes += arrangement.notes
    if "ModalityLUTSequence" in head:
        notes.append("Its values are indices into a table (modality LUT): restored as such.")
    axes = arrangement.axes + "S" * color
    shape = (*arrangement.shape, *data.shape[1:])
    extras = {
        "files": files,
        "storages": storages,
        "affine": arrangement.affine,
        "uneven": arrangement.uneven,
        "depth": f"{storages[0].bits} bits",
    }
    picture = ImageFile(path, data.reshape(shape), axes, "dicom", color, extras=extras)
    picture.pixel_size, picture.notes = arrangement.sizes, list(dict.fromkeys(notes))
    if not color:
        _add_units(picture, head.PhotometricInterpretation == "MONOCHROME1")
    return picture


def _storage(header: Any, file: Path, given: Path) -> Storage:
    try:
        return storage_of(header)
    except FileError as error:
        if file == given:
            raise
        raise FileError(f"{file.name}: {error}") from error


def _one_series(
    paths: list[Path], headers: list[Any], wanted: str | None
) -> tuple[list[Path], list[Any]]:
    """Files of the one series in a folder that is meant; those without an image do not count."""
    groups: dict[str, list[int]] = {}
    for i, header in enumerate(headers):
        if "Rows" in header:
            groups.setdefault(str(header.get("SeriesInstanceUID")), []).append(i)
    names = {
        uid: f"number {headers[group[0]].get('SeriesNumber')} "
        f"'{headers[group[0]].get('SeriesDescription', '')}' "
        f"({headers[group[0]].get('Modality')}, {len(group)} files, such as "
        f"{paths[group[0]].name}; {uid})"
        for uid, group in groups.items()
    }
    chosen = [
        group
        for uid, group in groups.items()
        if wanted in (None, uid, str(headers[group[0]].get("SeriesNumber")))
    ]
    if not groups:
        raise FileError("None of the DICOM files in the folder holds an image.")
    if len(chosen) != 1:
        say = f"{len(chosen)} are series '{wanted}'. " if wanted is not None else ""
        raise FileError(
            f"The folder holds {len(groups)} series: {'; '.join(names.values())}. {say}Choose one "
            "with --series and its number or UID, or put each into a folder of its own."
        )
    return [paths[i] for i in chosen[0]], [headers[i] for i in chosen[0]]


def _check_alike(headers: list[Any], paths: list[Path]) -> None:
    if len(headers) == 1:
        return
    first = headers[0]
    seen: dict[str, Path] = {}
    for header, path in zip(headers, paths, strict=True):
        if frame_count(header) > 1:
            raise FileError(
                f"The series has {len(headers)} files, and {path.name} alone holds "
                f"{frame_count(header)} frames. Restore the files by themselves: name them, not "
                "the folder."
            )
        for keyword in ("Rows", "Columns", "PhotometricInterpretation", "BitsAllocated"):
            if header.get(keyword) != first.get(keyword):
                raise FileError(
                    f"The files of the series are of different kinds: {keyword} is "
                    f"{first.get(keyword)} in {paths[0].name}, {header.get(keyword)} in "
                    f"{path.name}. Restore the files by themselves: name them, not the folder."
                )
        uid = str(header.get("SOPInstanceUID"))
        if uid in seen:
            raise FileError(
                f"{seen[uid].name} and {path.name} are the same image (SOPInstanceUID {uid}). Take "
                "one of them out of the folder."
            )
        seen[uid] = path


def _float_dtype(storages: list[Storage]) -> np.dtype[Any]:
    """Floats that bring every stored integer back exactly."""
    steps = max(
        float(np.max((np.abs(s.intercept) + 2.0**s.bits * np.abs(s.slope)) / np.abs(s.slope)))
        for s in storages
    )
    return np.dtype(np.float32 if steps <= _STEPS else np.float64)


def read_frames(
    files: list[Path], storages: list[Storage], dtype: np.dtype[Any], *, gaps: bool = True
) -> NDArray[Any]:
    """Decode files of one kind one after the other.

    Parameters
    ----------
    files : list of Path
    storages : list of Storage
    dtype : dtype
        Of single-channel samples.
    gaps : bool
        Whether padding becomes NaN.

    Returns
    -------
    ndarray
        (frames, Y, X) in the units of the image, or (frames, Y, X, 3) RGB.
    """
    out, start = None, 0
    total = sum(len(storage.slope) for storage in storages)
    for file, storage in zip(files, storages, strict=True):
        dataset = open_dataset(file)
        words = decoded(dataset, file)
        color = is_color(dataset)
        if out is None:
            out = np.empty((total, *words.shape[1:]), words.dtype if color else dtype)
        for frame, plane in enumerate(words, start):
            if color:
                out[frame] = plane
                continue
            stored = storage.stored(plane)
            out[frame] = storage.samples(stored, frame - start)
            if gaps:
                out[frame][storage.gaps(stored)] = np.nan
        start += len(words)
    return cast("NDArray[Any]", out)


def _add_units(picture: ImageFile, inverse: bool) -> None:
    """Say what range the samples have, and what they are as plain numbers."""
    storages: list[Storage] = picture.extras["storages"]
    slope = np.concatenate([storage.slope for storage in storages])
    intercept = np.concatenate([storage.intercept for storage in storages])
    frames = [storage for storage in storages for _ in storage.slope]
    ends = np.array([storage.range for storage in frames]) * slope[:, None] + intercept[:, None]
    low, high, slack = ends.min(axis=1), ends.max(axis=1), np.abs(slope) / 2
    sign = -1 if inverse else 1
    whole = bool((slope == np.rint(slope)).all() and (intercept == np.rint(intercept)).all())
    dtype = integer_dtype((sign * ends).min(), (sign * ends).max(), whole) or picture.data.dtype
    files = picture.extras["files"]

    def fit(data: NDArray[Any]) -> int:
        """Clip to the stored range; half a step beyond is rounded, not clipped."""
        clipped = 0
        for number, index in enumerate(np.ndindex(data.shape[:-2])):
            plane, room = data[index], slack[number]
            clipped += int(
                np.count_nonzero((plane < low[number] - room) | (plane > high[number] + room))
            )
            np.clip(plane, low[number], high[number], out=plane)
        return clipped

    def convert(data: NDArray[Any]) -> NDArray[Any]:
        gaps = np.isnan(data)
        if gaps.any():
            before = read_frames(files, storages, data.dtype, gaps=False).reshape(data.shape)
            data = np.where(gaps, before, data)
        return as_dtype(sign * data, dtype)

    picture.fit, picture.plain = fit, RescaleTransform(np.dtype(dtype), convert)


@contextmanager
def pydicom_speaks(notes: list[str]) -> Iterator[None]:
    """Collect the warnings of pydicom, one of each kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = " ".join(str(warning.message).split())
        if text not in notes:
            notes.append(text)


# ---------------------------------------------------------------- files in a folder

#: Endings of other images, which may be part of what is meant.
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".zarr", ".nii", ".gz")
#: Files that belong to a medium or a file manager.
_NO_SLICES = ("DICOMDIR", "Thumbs.db", "desktop.ini")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by what it says after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files that lie directly in a folder, by name; hidden files are left out."""
    return sorted(_dicom_in(folder))


def holds_dicom(folder: Path) -> bool:
    """Whether `dicom_files` would find one; opens no more files than needed."""
    return next(_dicom_in(folder), None) is not None


def _dicom_in(folder: Path) -> Iterator[Path]:
    found = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    # The directory of a medium says nothing about pixels.
    return (path for path in found if path.name != "DICOMDIR" and is_dicom(path))


def look_at_others(folder: Path, paths: list[Path], notes: list[str]) -> None:
    """Refuse damaged slices and other images beside a series; note what else is there."""
    found = set(paths)
    others = sorted(
        path
        for path in folder.iterdir()
        if path not in found and path.name[0] != "." and path.name not in _NO_SLICES
    )
    for path in others:
        if path.is_file() and (path.suffix.lower() == ".dcm" or not path.stat().st_size):
            what = "no DICOM (it lacks the mark DICM)" if path.stat().st_size else "empty"
            raise FileError(
                f"{path.name} is {what}, and may be a damaged slice. Mend it, or take it out of "
                "the folder."
            )
        if path.suffix.lower() in _IMAGES:
            raise FileError(
                f"The folder holds a DICOM series and other images, such as {path.name}. Put them "
                "into folders of their own."
            )
    files = [path.name for path in others if path.is_file()]
    if files:
        notes.append(
            f"{len(files)} files of the folder are no DICOM and left out, such as {files[0]}."
        )


def look_at_imageless(paths: list[Path], headers: list[Any], notes: list[str]) -> None:
    """Note reports and the like, which hold no image; refuse slices that have lost theirs."""
    images = [header for header in headers if "Rows" in header]
    without = [(p, h) for p, h in zip(paths, headers, strict=True) if "Rows" not in h]
    for path, header in without:
        if not _says_other(header, images):
            raise FileError(
                f"{path.name} says of no image how many rows it has, and may be a damaged slice. "
                "Mend it, or take it out of the folder."
            )
    if without:
        notes.append(f"{len(without)} DICOM files without an image are left out.")


def _says_other(header: Any, images: list[Any]) -> bool:
    """Whether a file says in full that it is of another kind than all images."""
    told = ("Modality", "SOPClassUID")
    return all(keyword in header for keyword in told) and any(
        header.get(keyword) not in [image.get(keyword) for image in images] for keyword in told
    )
