"""Errors that a user can act upon. Each message says what happened, the value, and the remedy."""


class RestoreError(Exception):
    """Something about the input or the options is wrong; the message says what to change."""


class ImageError(RestoreError):
    """The image cannot be restored: its dtype, its axes or its shape."""


class PsfError(RestoreError):
    """A point spread function, or the optics it would follow from, cannot be used."""


class ModelError(RestoreError):
    """The model does not exist, does not fit the image, or its weights are damaged."""


class DeviceError(RestoreError):
    """The device does not exist or has too little memory."""


class FileError(RestoreError):
    """A file cannot be read or written."""


class ClusterError(RestoreError):
    """A dask cluster cannot be reached, or does not do its part."""
