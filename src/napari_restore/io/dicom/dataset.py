"""What one DICOM file holds: values in its header, which are often sloppy, and its pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import FileError
from napari_restore.io.libraries import medical

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def value_of(dataset: Any, keyword: str) -> Any:
    """Look a value up; None where it is missing, empty, or nothing that can be decoded."""
    try:
        value = dataset.get(keyword)
    # pydicom decodes when asked; a sloppy value can make it raise any error. Where it matters that
    # a value is there and damaged, `unreadable` tells it from one that is missing.
    except Exception:
        return None
    return None if value in ("", []) else value


def unreadable(dataset: Any, keyword: str) -> bool:
    """Whether a header says something that cannot be decoded."""
    if keyword not in dataset or value_of(dataset, keyword) is not None:
        return False
    raw = dataset.get_item(keyword).value
    return raw is not None and bool(len(raw))


def numbers(value: Any, count: int) -> list[float] | None:
    """Read finite numbers, also with a decimal comma; None unless there are ``count``."""
    if isinstance(value, str):
        value = value.split("\\")
    values = list(value) if isinstance(value, Iterable) else [value]
    try:
        found = [float(str(each).strip().replace(",", ".")) for each in values]
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def functional(dataset: Any, frame: int, sequence: str, keyword: str) -> Any:
    """Look up what holds for a frame: its own group, the group of all frames, the file itself."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = value_of(dataset, groups) or []
        number = frame if groups.startswith("Per") else 0
        inner = value_of(items[number], sequence) if number < len(items) else None
        if inner and value_of(inner[0], keyword) is not None:
            return value_of(inner[0], keyword)
    return value_of(dataset, keyword)


# ---------------------------------------------------------------- pixels

#: Kinds of images that restoration makes no sense of.
_NO_IMAGES = {"RTDOSE": "a dose distribution", "SEG": "a segmentation"}


def open_dataset(path: Path, *, pixels: bool = True) -> Any:
    """Read a DICOM file, or its header alone.

    Raises
    ------
    FileError
        If it is damaged or no DICOM.
    """
    pydicom = medical("pydicom")
    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except pydicom.errors.InvalidDicomError as error:
        raise FileError(
            f"{path.name} cannot be read as DICOM: it lacks the mark DICM after 128 bytes."
        ) from error
    # A damaged file can make pydicom raise any error.
    except Exception as error:
        raise FileError(f"{path.name} cannot be read as DICOM: {error or repr(error)}.") from error


@dataclass(frozen=True)
class Storage:
    """How the words of one file hold samples: sample = slope · stored + intercept.

    Attributes
    ----------
    bits : int
        Bits of a stored integer, the rest of the word being something else.
    shift : int
        Bits below them.
    signed : bool
    slope, intercept : ndarray
        For each frame. Both have the opposite sign where low values are shown bright (MONOCHROME1),
        so that bright is bright.
    padding : (int, int) or None
        Stored integers that mark pixels without a value.
    """

    bits: int
    shift: int
    signed: bool
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    padding: tuple[int, int] | None

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest stored integer."""
        return (
            (-(1 << self.bits - 1), (1 << self.bits - 1) - 1)
            if self.signed
            else (
                0,
                (1 << self.bits) - 1,
            )
        )

    def stored(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Take the stored integers out of words."""
        values: NDArray[np.int64] = (words.astype(np.int64) >> self.shift) & ((1 << self.bits) - 1)
        if self.signed:
            sign = 1 << self.bits - 1
            values = (values ^ sign) - sign
        return values

    def words(self, stored: NDArray[np.int64], before: NDArray[Any]) -> NDArray[Any]:
        """Put stored integers into words; what else was in the words (overlays) stays there."""

        def extended(values: NDArray[np.int64]) -> NDArray[Any]:
            return (values << self.shift).astype(before.dtype)

        after: NDArray[Any] = extended(stored) ^ before ^ extended(self.stored(before))
        return after

    def gaps(self, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where pixels have no value."""
        if self.padding is None:
            return np.zeros(stored.shape, bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])

    def samples(self, stored: NDArray[np.int64], frame: int) -> NDArray[np.float64]:
        """Find the samples of a frame in the units of the image."""
        found: NDArray[np.float64] = stored * self.slope[frame] + self.intercept[frame]
        return found

    def rounded(
        self, samples: NDArray[Any], frame: int, before: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Find the stored integers of restored samples, NaN being what was there before."""
        low, high = self.range
        wide = samples.astype(np.float64)
        values = np.rint((wide - self.intercept[frame]) / self.slope[frame])
        gaps = np.isnan(values)
        new = np.where(gaps, before, np.clip(np.where(gaps, 0, values), low, high).astype(np.int64))
        if self.padding is not None:
            # A restored value must not turn into the mark of a pixel without one.
            free = self.padding[1] + 1 if self.padding[1] < high else self.padding[0] - 1
            new = np.where(self.gaps(new) & ~gaps, free, new)
        return new


def is_color(dataset: Any) -> bool:
    """Whether the pixels become RGB."""
    palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    return palette or int(dataset.get("SamplesPerPixel") or 1) == 3


def frame_count(dataset: Any) -> int:
    """Frames of a file; 1 where it does not say."""
    given = value_of(dataset, "NumberOfFrames")
    found = [1.0] if given is None else numbers(given, 1)
    if unreadable(dataset, "NumberOfFrames") or not found or found[0] < 1 or found[0] % 1:
        raise FileError(f"Its NumberOfFrames is '{given}', which is no count. Mend the header.")
    return int(found[0])


def storage_of(dataset: Any) -> Storage:
    """Read from a header how samples are stored.

    Raises
    ------
    FileError
        If the file holds no image, or the header contradicts itself.
    """
    _refuse(dataset)
    count = frame_count(dataset)
    group = "PixelValueTransformationSequence"
    slope, intercept = (
        np.array([_number(dataset, i, group, f"Rescale{word}", 1.0 - n) for i in range(count)])
        for n, word in enumerate(("Slope", "Intercept"))
    )
    if not (np.isfinite(slope) & (slope != 0) & np.isfinite(intercept)).all():
        raise FileError(
            f"Its RescaleSlope is {slope.min():g}, its RescaleIntercept {intercept.min():g}: the "
            "values have no meaning. Mend the header first."
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        slope, intercept = -slope, -intercept
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    shift = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    if not (0 < bits <= allocated and 0 <= shift <= allocated - bits):
        raise FileError(
            f"BitsAllocated {allocated}, BitsStored {bits} and HighBit {shift + bits - 1} "
            "contradict each other. Mend the header first."
        )
    if is_color(dataset) and bits != allocated:
        raise FileError(
            f"Its colors have {bits} bits in words of {allocated}. Convert them to 8 or 16 bits."
        )
    signed = bool(dataset.get("PixelRepresentation", 0))
    padding = None if is_color(dataset) else _padding(dataset, signed, allocated)
    return Storage(bits, shift, signed, slope, intercept, padding)


def _number(dataset: Any, frame: int, sequence: str, keyword: str, default: float) -> float:
    value = functional(dataset, frame, sequence, keyword)
    if value is None:
        if unreadable(dataset, keyword):
            raise FileError(f"Its {keyword} cannot be read. Mend the header first.")
        return default
    try:
        # No decimal comma here: who knows whether -1,024 is a thousand or one.
        return float(value)
    except (TypeError, ValueError):
        raise FileError(
            f"Its {keyword} is '{value}', which is no number. Mend the header first."
        ) from None


def _padding(dataset: Any, signed: bool, allocated: int) -> tuple[int, int] | None:
    values = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    ends = [value for value in values if isinstance(value, int)]
    # Some files write a signed value as if it were unsigned, and the other way round.
    if signed:
        ends = [end - (1 << allocated) if end >= 1 << allocated - 1 else end for end in ends]
    else:
        ends = [end + (1 << allocated) if end < 0 else end for end in ends]
    return (min(ends), max(ends)) if isinstance(values[0], int) else None


def _refuse(dataset: Any) -> None:
    if "Rows" not in dataset or "PhotometricInterpretation" not in dataset:
        uid = dataset.get("SOPClassUID")
        raise FileError(
            f"The file holds no image, but {getattr(uid, 'name', None) or 'something else'}. Give "
            "the images."
        )
    for keyword in ("Columns", "BitsAllocated", "BitsStored"):
        if not isinstance(value_of(dataset, keyword), int):
            raise FileError(
                f"Its header lacks {keyword}, or what it says there is no number. Samples that are "
                "floats (parametric maps) are not read; convert them to NIfTI or TIFF."
            )
    modality = dataset.get("Modality")
    if modality in _NO_IMAGES or dataset.get("BitsAllocated") not in (8, 16, 32):
        what = _NO_IMAGES.get(str(modality)) or f"{dataset.get('BitsAllocated')}-bit words"
        raise FileError(f"The file holds {what}, which has no intensities to restore.")
    kinds = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB")
    kind = dataset.PhotometricInterpretation
    if kind not in kinds and not kind.startswith("YBR_"):
        raise FileError(
            f"Its samples are stored as {kind}, which are no intensities. Convert it to RGB or "
            "MONOCHROME2."
        )


def decoded(dataset: Any, path: Path) -> NDArray[Any]:
    """Decode the pixels of a file.

    Parameters
    ----------
    dataset : Dataset
        With its pixels.
    path : Path
        For messages.

    Returns
    -------
    ndarray
        (frames, Y, X) unsigned words, or (frames, Y, X, 3) RGB.

    Raises
    ------
    FileError
        If the pixels are damaged, or need a decoder that is missing.
    """
    pixels, color = medical("pydicom.pixels"), is_color(dataset)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        # The unused bits of a word are needed to write it again.
        options = {} if color else {"raw": True, "correct_unused_bits": False}
        array = np.asarray(pixels.pixel_array(dataset, **options))
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = pixels.apply_color_lut(array, dataset)
    # A damaged file can make pydicom and the decoders raise any error.
    except Exception as error:
        said = " ".join(str(error).split())
        remedy = ""
        if getattr(syntax, "is_compressed", False) and syntax.is_encapsulated:
            remedy = (
                " Decoders for more kinds of JPEG come with 'pip install pylibjpeg[all]'; or "
                "decompress the files first, for example with 'gdcmconv --raw'."
            )
        raise FileError(f"The pixels of {path.name} cannot be decoded: {said}.{remedy}") from error
    if frame_count(dataset) == 1 and array.ndim == 2 + color:
        array = array[None]
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native if color else native.view(f"u{native.dtype.itemsize}")
