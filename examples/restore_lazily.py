"""Restore an image that does not fit into memory: chunk by chunk, each when it is asked for."""

from __future__ import annotations

import time

import dask.array as da

from napari_restore import dehaze
from napari_restore.samples import load_sample

# Stands for a slide of 8192 × 8192 pixels on disk, which would be da.from_zarr("slide.zarr").
field, _ = load_sample("brain_section")
slide = da.tile(da.from_array(field, chunks=256), (16, 16))
print(f"{slide.shape} {slide.dtype}, {slide.nbytes / 1e6:.0f} MB")

# Nothing is computed here: the result is a dask array of the same shape, dtype and chunks.
restored = dehaze(slide)

started = time.monotonic()
corner = restored[1024:1280, 2048:2304].compute()
print(f"computed a corner of {corner.shape} in {time.monotonic() - started:.1f} s")

# All of it goes to disk chunk by chunk, in bounded memory: restored.to_zarr("restored.zarr")
