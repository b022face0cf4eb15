"""NIfTI: the stored samples out and in, in a header that stays as it was."""

from __future__ import annotations

import gzip
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_restore.errors import FileError
from napari_restore.image.layout import in_memory_or_mapped

from .image_file import ImageFile, RescaleTransform, as_dtype, integer_dtype
from .libraries import listening_to, medical

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

#: Letters of the axes after those of space: time, parts of a vector, and two without a meaning.
_MORE_AXES = "TCQR"
_LABELS = 1002  # the intent code of label maps
_PIECE = 2**22
_COMMENT = 6  # the code of header extensions with plain text
_SPACE_UNITS = {"meter": "m", "mm": "mm", "micron": "µm"}
_TIME_UNITS = {"sec": "s", "msec": "ms", "usec": "µs"}


def read_nifti(path: Path) -> ImageFile:
    """Read a NIfTI-1 or NIfTI-2 file.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.

    Returns
    -------
    ImageFile
        The samples as they are stored, in the order (x, y, z, …); memory-mapped where the file is
        not compressed. Slope and intercept stay in the header (``extras["header"]``): a restoration
        commutes with them. With a negative slope the samples are turned round, so that bright is
        bright, and turned back when they are written.

    Raises
    ------
    FileError
        If it is damaged, or holds labels, complex numbers or no image.
    """
    nibabel = medical("nibabel")
    said: list[str] = []
    try:
        if path.name.lower().endswith(".gz"):
            _check_compressed(path)
        with listening_to("nibabel.global", said):
            image = nibabel.load(path)
        if type(image) not in (nibabel.Nifti1Image, nibabel.Nifti2Image):
            raise FileError(
                f"The file holds a {type(image).__name__}, which has no planes. Give a volume."
            )
        # nibabel's own header is mended and has lost the slope; this one is as in the file.
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            header = type(image.header).from_fileobj(file, check=False)
        slope, intercept = header.get_slope_inter()
        stored = in_memory_or_mapped(image.dataobj.get_unscaled())
    except FileError:
        raise
    # A damaged file can make nibabel raise any error.
    except Exception as error:
        raise FileError(f"The file cannot be read as NIfTI: {error or repr(error)}.") from error
    _refuse(header, stored)
    extras = {"header": header, "slope": slope, "intercept": intercept}
    axes, notes = _axes(header, stored.shape)
    notes += said
    data = _as_bytes(stored) if stored.dtype.fields else stored
    picture = ImageFile(path, data, axes, "nifti", extras=extras, notes=notes)
    if stored.dtype.fields:
        picture.axes, picture.color = axes + "S", True
    elif slope is not None and (slope, intercept) != (1, 0):
        picture.data = _turned(stored, slope)
        picture.plain = _plain(stored.dtype, slope, intercept)
    picture.pixel_size = _pixel_size(header, axes)
    return picture


def _check_compressed(path: Path) -> None:
    """Read a file to its end, where the sum stands that tells whether bits have changed."""
    with gzip.open(path, "rb") as file:
        while file.read(_PIECE):
            pass


def _refuse(header: Any, stored: NDArray[Any]) -> None:
    if stored.dtype.kind == "c":
        raise FileError(
            f"The samples are complex ({stored.dtype}). Save the modulus or the real part, and "
            "restore that."
        )
    if int(header["intent_code"]) == _LABELS:
        raise FileError(
            "The file holds labels (intent code 1002), which have no intensities. Give the image."
        )
    if stored.size == 0:
        raise FileError(
            f"The header counts {' × '.join(map(str, stored.shape))} voxels, which is none. Repair "
            "its dimensions (1 where there is one of a kind)."
        )
    if stored.ndim < 2:
        raise FileError(
            f"The file holds an array of shape {stored.shape}, which has no planes. Give a volume."
        )


def _axes(header: Any, shape: tuple[int, ...]) -> tuple[str, list[str]]:
    """Name the axes, the restored plane being X and Y, and say so where it is not obvious."""
    more = _MORE_AXES[: max(0, len(shape) - 3)]
    if len(shape) == 2:
        return "XY", []
    sizes = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        sizes = np.ones(3)
    along = header.get_dim_info()[2]
    first, second = _plane(sizes, shape[:3], along)
    (across,) = {0, 1, 2} - {first, second}
    letters = ["Z"] * 3
    letters[first], letters[second] = "X", "Y"
    axes = "".join(letters) + more
    cube = sizes.max() <= 1.02 * sizes.min() and along is None
    if shape[across] == 1 or (across == 2 and not cube):
        return axes, []
    other = ("XYZ" if across != 2 else "ZXY") + more
    note = (
        f"The planes along axes {first + 1} and {second + 1} are restored (voxels of "
        f"{' × '.join(f'{size:.4g}' for size in sizes)}). For others name the axes, for example "
        f"--axes {other}."
    )
    return axes, [note]


def _plane(
    sizes: NDArray[np.float64], shape: tuple[int, ...], across: int | None
) -> tuple[int, int]:
    """Find the two axes of the plane of acquisition: with voxels most alike, then finest.

    Where voxels are cubes (within 2 %), it is what the header says of the slices, else x and y.
    """
    pairs = [
        pair for pair in itertools.combinations(range(3), 2) if min(shape[i] for i in pair) > 1
    ]
    # The sort is stable: the pair that the header names is first, else the order is xy, xz, yz.
    pairs.sort(key=lambda pair: across is None or across in pair)
    if not pairs:
        return 0, 1
    ratio = {pair: sizes[list(pair)].max() / sizes[list(pair)].min() for pair in pairs}
    alike = [pair for pair in pairs if ratio[pair] <= 1.02 * min(ratio.values())]
    area = {pair: float(np.prod(sizes[list(pair)])) for pair in alike}
    return next(pair for pair in alike if area[pair] <= 1.05 * min(area.values()))


def _pixel_size(header: Any, axes: str) -> dict[str, tuple[float, str]]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a code that means nothing
        return {}
    units = dict.fromkeys("XYZ", _SPACE_UNITS.get(space)) | {"T": _TIME_UNITS.get(time)}
    sizes = {}
    for letter, step in zip(axes, header["pixdim"][1:], strict=False):
        unit, size = units.get(letter), abs(float(step))
        if unit and 0 < size < np.inf:
            sizes[letter] = (size, unit)
    return sizes


def _as_bytes(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB(A) records as an axis of samples."""
    samples = len(stored.dtype.fields or ())
    turned = np.ascontiguousarray(stored.T)
    return (
        turned.view(np.uint8)
        .reshape(*turned.shape, samples)
        .transpose(*range(stored.ndim - 1, -1, -1), stored.ndim)
    )


def _turned(stored: NDArray[Any], slope: float) -> NDArray[Any]:
    """Give samples the sign of what they mean; done twice, they are as they were."""
    if slope > 0:
        return stored
    return -stored if stored.dtype.kind == "f" else ~stored


def _plain(dtype: np.dtype[Any], slope: float, intercept: float) -> RescaleTransform:
    whole = dtype.kind in "iu" and slope == round(slope) and intercept == round(intercept)
    target = np.dtype(np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64)
    if dtype.kind in "iu":
        ends = [
            float(end) * slope + intercept for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)
        ]
        target = integer_dtype(min(ends), max(ends), whole) or target

    def convert(samples: NDArray[Any]) -> NDArray[Any]:
        return as_dtype(_turned(samples, slope).astype(np.float64) * slope + intercept, target)

    return RescaleTransform(target, convert)


def check_nifti(picture: ImageFile) -> None:
    """Raise a `FileError` unless the result can become NIfTI."""
    if picture.format == "nifti":
        return
    if picture.format != "dicom":
        raise FileError(
            "NIfTI states where an image lies in the body, and this file does not state it. Name "
            "the result .tif."
        )
    if picture.color or picture.extras["affine"] is None:
        why = picture.extras["uneven"] or (
            "DICOM images in color, or without a position, cannot be written as NIfTI."
        )
        raise FileError(f"The result cannot become NIfTI. {why} Name a folder, for DICOM.")


def is_our_nifti(path: Path) -> bool:
    """Whether a file was written by `write_nifti`."""
    header = medical("nibabel").load(path).header
    return any("napari-restore: " in str(e.get_content()) for e in header.extensions)


def write_nifti(
    path: Path, name: str, data: NDArray[Any], picture: ImageFile, provenance: str
) -> None:
    """Write NIfTI: with the header of the original, or made from the geometry of a DICOM series.

    Parameters
    ----------
    path : Path
        Where to write.
    name : str
        File name of the result; ``.gz`` asks for compression.
    data : ndarray
        Restored samples, like ``picture.data``.
    picture : ImageFile
        The original, as `check_nifti` allows.
    provenance : str
        JSON in ASCII, for a comment (code 6) among the header's extensions.
    """
    nifti1 = medical("nibabel.nifti1")
    if picture.format == "nifti":
        header = picture.extras["header"].copy()
        stored = _stored(data, picture)
    else:
        header, stored = _from_dicom(data, picture)
    text = f"napari-restore: {provenance}".encode()
    header.extensions.append(nifti1.Nifti1Extension(_COMMENT, text))
    header["vox_offset"] = 0  # found anew: the extensions have grown
    with _opened(path, name) as file:
        header.write_to(file)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        dtype = header.get_data_dtype()  # with the byte order of the file
        for plane in stored.T:
            file.write(np.ascontiguousarray(plane, dtype).tobytes())


def _stored(data: NDArray[Any], picture: ImageFile) -> NDArray[Any]:
    if picture.color:
        dtype = picture.extras["header"].get_data_dtype()
        turned = np.ascontiguousarray(data.transpose(*range(data.ndim - 2, -1, -1), data.ndim - 1))
        records: NDArray[Any] = turned.view(dtype)[..., 0].T
        return records
    slope = picture.extras["slope"]
    return data if slope is None else _turned(data, slope)


def _from_dicom(data: NDArray[Any], picture: ImageFile) -> tuple[Any, NDArray[Any]]:
    nifti1 = medical("nibabel.nifti1")
    plain = cast("RescaleTransform", picture.plain).convert(data)
    stored = plain.T if plain.ndim > 2 else plain.T[..., None]
    header = nifti1.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    # DICOM counts toward left and posterior, NIfTI toward right and anterior.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ picture.extras["affine"]
    header.set_sform(affine, 1)
    # A quaternion cannot say that the slices are sheared, as under a tilted gantry.
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    upright = np.allclose(columns.T @ columns, np.eye(3), atol=1e-4)
    header.set_qform(affine, 1 if upright else 0)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    return header, stored


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if not name.lower().endswith(".gz"):
            yield file
            return
        # Without name and time, equal images are equal files.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            yield cast("BinaryIO", packed)
