"""Write DICOM: the original files with other pixels, as a new, derived series."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError
from napari_restore.io.libraries import medical

from .dataset import decoded, frame_count, is_color, open_dataset
from .reader import pydicom_speaks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_restore.io.image_file import ImageFile

    from .dataset import Storage

#: Group of the private block that holds the provenance; its creator is "napari-restore".
PRIVATE_GROUP = 0x0071
_DONE = {"deblur": "deblurred", "dehaze": "dehazed", "motion_deblur": "motion deblurred"}
#: What says something about the old pixels alone, or about how they were encoded.
_STALE = (
    *("SmallestImagePixelValue", "LargestImagePixelValue"),
    *("SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"),
    *("DigitalSignaturesSequence", "MACParametersSequence"),
)
_PALETTE = ("Red", "Green", "Blue", "Alpha")


def check_dicom(picture: ImageFile) -> None:
    """Raise a `FileError` unless the result can become DICOM."""
    if picture.format != "dicom":
        raise FileError("Only DICOM images can become DICOM. Name the result .tif.")


def is_our_dicom(path: Path) -> bool:
    """Whether a file was written by `write_dicom`."""
    dataset = medical("pydicom").dcmread(path, stop_before_pixels=True)
    dataset.private_block(PRIVATE_GROUP, "napari-restore")
    return True


def write_dicom(path: Path, data: NDArray[Any], picture: ImageFile, provenance: str) -> None:
    """Write a DICOM file, or the files of a series into a folder.

    Headers are kept, but for identity, encoding and what says how the image came about. Pixels are
    stored uncompressed.

    Parameters
    ----------
    path : Path
        File, or folder to make if ``picture.path`` is one.
    data : ndarray
        Restored samples, like ``picture.data``.
    picture : ImageFile
        The original, from `read_dicom`. Its files are read again.
    provenance : str
        JSON in ASCII.
    """
    pydicom = medical("pydicom")
    if picture.path.is_dir():
        path.mkdir()
    series = pydicom.uid.generate_uid(None)
    planes = data.reshape(-1, *picture.data.shape[-3 if picture.color else -2 :])
    start = 0
    with pydicom_speaks([]):  # what there is to say was said when it was read
        for file, storage in zip(picture.extras["files"], picture.extras["storages"], strict=True):
            dataset = open_dataset(file)
            frames = planes[start : start + frame_count(dataset)]
            start += len(frames)
            _set_pixels(dataset, frames, storage, file)
            target = path / file.name if picture.path.is_dir() else path
            try:
                _derive(dataset, series, provenance)
                pydicom.dcmwrite(target, dataset, enforce_file_format=True)
            # What pydicom raises for headers that break the rules.
            except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
                raise FileError(
                    f"{file.name} has a header that cannot be written again: {error}. Name the "
                    "result .tif."
                ) from error


def _set_pixels(dataset: Any, frames: NDArray[Any], storage: Storage, path: Path) -> None:
    uid = medical("pydicom.uid")
    if is_color(dataset):
        words = frames
        dataset.PhotometricInterpretation = "RGB"
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        bits = 8 * words.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
        for color in _PALETTE:
            for keyword in ("Descriptor", "Data"):
                _drop(dataset, f"{color}PaletteColorLookupTable{keyword}")
        _drop(dataset, "PaletteColorLookupTableUID")
    else:
        words = decoded(dataset, path)
        for frame, samples in enumerate(frames):
            before = words[frame].copy()
            stored = storage.rounded(samples, frame, storage.stored(before))
            words[frame] = storage.words(stored, before)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.file_meta.TransferSyntaxUID = syntax = uid.ExplicitVRLittleEndian
    raw = words.astype(words.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    for keyword in _STALE:
        _drop(dataset, keyword)
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    # Bytes, so that nothing swaps them where words are big-endian.
    one = words.dtype.itemsize == 1 and not syntax.is_implicit_VR
    dataset["PixelData"].VR = "OB" if one else "OW"
    dataset["PixelData"].is_undefined_length = False


def _derive(dataset: Any, series: str, provenance: str) -> None:
    """Make the header that of a derived image, with a new identity."""
    pydicom = medical("pydicom")
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID = dataset.SOPClassUID
    source.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SourceImageSequence = [source, *(dataset.get("SourceImageSequence") or [])]
    dataset.SOPInstanceUID = pydicom.uid.generate_uid(None)
    dataset.SeriesInstanceUID = series
    kinds = dataset.get("ImageType") or []
    kept = [kinds] if isinstance(kinds, str) else list(kinds)
    dataset.ImageType = ["DERIVED", "SECONDARY", *kept[2:]]
    for element in list(dataset.iterall()):
        if element.keyword == "FrameType" and element.VM > 1:
            element.value = ["DERIVED", *list(element.value)[1:]]
    record = json.loads(provenance)
    now = datetime.now()
    dataset.InstanceCreationDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = now.strftime("%H%M%S")
    done = f" [{_DONE.get(record['task'], record['task'])}]"
    name = str(dataset.get("SeriesDescription") or "")
    dataset.SeriesDescription = (name[: 64 - len(done)] + done).strip()
    version = record.get("versions", {}).get("napari-restore", "")
    model = Path(str(record.get("model"))).name.encode("ascii", "replace").decode()
    text = (
        f"napari-restore {version}: {record['task']} with model {model}, weights "
        f"{str(record.get('weights_sha256'))[:12]}, strength {record.get('strength')}"
    )
    earlier = str(dataset.get("DerivationDescription") or "")
    dataset.DerivationDescription = (f"{earlier}; " if earlier else "")[: 1024 - len(text)] + text
    block = dataset.private_block(PRIVATE_GROUP, "napari-restore", create=True)
    block.add_new(0x01, "UT", provenance)


def _drop(dataset: Any, keyword: str) -> None:
    if keyword in dataset:
        del dataset[keyword]
