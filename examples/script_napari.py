"""Restore layers from a script, with or without a window.

``ViewerModel`` is napari's viewer without its window, so this runs on a server too. With a window,
use ``napari.Viewer()`` in its place and end with ``napari.run()``.
"""

from __future__ import annotations

from napari.components import ViewerModel

from napari_restore import restore_layer
from napari_restore.samples import load_sample

viewer = ViewerModel()
array, options = load_sample("mitochondria")
# A part, to be quick.
source = viewer.add_image(array[:192, :192], colormap="magma", **options)

# The new layer has the place, the units and the looks of its source.
result = restore_layer(source, "deblur")
viewer.layers.append(result)
print([layer.name for layer in viewer.layers])
print(f"scale {result.scale}, units {result.units}, colormap {result.colormap.name}")

# How it was made goes with it, also into files that keep metadata.
for key, value in result.metadata["napari_restore"].items():
    print(f"{key:15} {value}")
