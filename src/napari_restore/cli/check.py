"""``napari-restore check``: how far to trust a result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.cli import complain, progress_bar, say, shown_on
from napari_restore.errors import FileError, RestoreError
from napari_restore.evaluation.check import check
from napari_restore.evaluation.check_report import Check, is_report
from napari_restore.io import ImageFile, Inputs, read_image, reading, write_image

from .restore import pixel_size_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping


def run(args: argparse.Namespace) -> int:
    """Print three sentences and the notes; write the report and the map that are asked for."""
    about: Any = args.image
    try:
        read = [Path(name) for name in (args.image, args.result, args.reference) if name]
        inputs = Inputs(read)
        if args.output is not None:
            _check_report(Path(args.output), inputs, force=args.force)
        picture = read_image(Path(args.image), args.series)
        about = args.result
        result = read_image(Path(args.result), None)
        about = args.image
        reference = None if args.reference is None else read_image(Path(args.reference), None).data
        axes, rgb = reading(picture, args.axes, args.rgb)
        record = {} if args.task else _recorded(result)
        options = {"task": args.task.replace("-", "_")} if args.task else {}
        with progress_bar(1, picture.path.name) as bar, shown_on(bar):
            found = check(
                picture.data,
                result.data,
                reference=reference,
                provenance=record or None,
                axes=axes,
                rgb=rgb,
                pixel_size=pixel_size_of(picture, args.pixel_size),
                device=args.device,
                **options,
            )
        print(found)
        for note in found.notes:
            say(f"note: {note}")
        if args.output is not None:
            found.save(args.output)
            print(f"{args.output}: the report")
        if args.map is not None:
            _write_map(Path(args.map), found, picture.path, inputs, force=args.force)
            print(f"{args.map}: {found.meaning}")
    except (RestoreError, OSError) as error:
        complain(about, error, verbose=args.verbose)
        return 1
    return 0


def _check_report(report: Path, inputs: Inputs, *, force: bool) -> None:
    """Raise a `FileError` if something stands at the place of a report that must stay."""
    if not os.path.lexists(report):
        return
    inputs.check(report)
    if not report.is_file() or (report.stat().st_size and not is_report(report)):
        raise FileError(
            f"{report} is not a report of napari-restore, so it is kept: --force replaces only "
            "earlier reports. Name another file, or remove it first."
        )
    if not force:
        raise FileError(f"{report} exists already. Use --force to replace it.")


def _write_map(target: Path, found: Check, source: Path, inputs: Inputs, *, force: bool) -> None:
    made = ImageFile(source, found.error, "YX", "npy")
    text = json.dumps({"task": "check", "shows": found.meaning, "region": list(found.region)})
    error = np.ascontiguousarray(found.error)
    write_image(target, error, made, text, force=force, inputs=inputs)


def _recorded(result: ImageFile) -> Mapping[str, Any]:
    """How a file says that it was made; nothing if it does not."""
    for text in _texts(result):
        start = text.find('{"')
        if start < 0:
            continue
        try:
            record, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            continue
        if isinstance(record, dict) and "task" in record and "model" in record:
            return record
    return {}


def _texts(result: ImageFile) -> Iterator[str]:
    """Texts of a file that may be a provenance."""
    path = result.path
    if result.format == "tiff":
        import tifffile

        with tifffile.TiffFile(path) as tif:
            software = tif.pages.first.tags.get("Software")
            yield "" if software is None else str(software.value)
    elif result.format in ("png", "jpeg"):
        from PIL import Image

        with Image.open(path) as image:
            for value in (image.info.get("napari-restore"), image.info.get("comment")):
                yield value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    elif result.format == "nifti":
        import nibabel

        header: Any = nibabel.load(path).header
        for extension in getattr(header, "extensions", ()):
            content = extension.get_content()
            yield content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    else:
        yield json.dumps(result.extras.get("ngff", {}).get("provenance", {}))
