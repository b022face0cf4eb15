"""Image files of every format in and out, with what they say about the image."""

from .files import (
    check_target,
    losses,
    place_for,
    read_image,
    stays_as_stored,
    write_image,
    zarr_around,
)
from .formats import FORMATS, file_format, image_files, is_image_folder
from .image_file import ImageFile
from .ome_zarr import is_zarr
from .target import Inputs, Place

__all__ = [
    "FORMATS",
    "ImageFile",
    "Inputs",
    "Place",
    "check_target",
    "file_format",
    "image_files",
    "is_image_folder",
    "is_zarr",
    "losses",
    "place_for",
    "read_image",
    "stays_as_stored",
    "write_image",
    "zarr_around",
]
