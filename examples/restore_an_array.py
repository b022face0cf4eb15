"""Restore a stack held in memory, and see what was done to it."""

from __future__ import annotations

import numpy as np

from napari_restore import deblur
from napari_restore.restoration.plan import Options, make_plan
from napari_restore.samples import load_sample

# A CT of the chest: int16, Hounsfield units, axes (Z, Y, X). Two of its planes, to be quick.
image = load_sample("chest_ct")[0][3:5]

# What will be done is decided, and can be looked at, before anything is computed.
plan = make_plan(image, Options("deblur"))
print(f"axes {plan.layout.axes}, model {plan.spec.name}, on {plan.device}")

restored = deblur(image, progress=lambda step: print(f"\r{step.done / step.total:4.0%}", end=""))
print()

# Same shape, same dtype, same units: air is still about -1000, bone still bright.
assert restored.shape == image.shape and restored.dtype == image.dtype
for name, array in (("before", image), ("after", restored)):
    low, middle, high = np.percentile(array, (1, 50, 99))
    print(f"{name:6}  1 %: {low:6.0f}   median: {middle:6.0f}   99 %: {high:6.0f} HU")

# Half the change, if the full result is too much.
gentle = deblur(image[0], strength=0.5)
print(f"largest change at half strength: {np.abs(gentle - image[0]).max()} HU")
