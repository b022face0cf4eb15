"""Image files of every format in and out, with what they say about the image."""

from .files import (
    FORMATS,
    Inputs,
    Place,
    check_target,
    clip,
    file_format,
    image_files,
    is_image_folder,
    losses,
    name_axes,
    place_for,
    read_image,
    reading,
    stays_as_stored,
    write_image,
    zarr_around,
)
from .image_file import ImageFile
from .ome_zarr import is_zarr

__all__ = [
    "FORMATS",
    "ImageFile",
    "Inputs",
    "Place",
    "check_target",
    "clip",
    "file_format",
    "image_files",
    "is_image_folder",
    "is_zarr",
    "losses",
    "name_axes",
    "place_for",
    "read_image",
    "reading",
    "stays_as_stored",
    "write_image",
    "zarr_around",
]
