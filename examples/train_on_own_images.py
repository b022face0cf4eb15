"""Train a small model on your own sharp images and use it: here for seconds, in earnest for hours.

``napari-restore train`` does the same from a shell with the recipes of the bundled models.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from skimage import data
from skimage.io import imsave

from napari_restore import deblur
from napari_restore.runtime import resolve_device
from napari_restore.training.blurs import KernelBlur, random_defocus
from napari_restore.training.degradations import MonoBlur
from napari_restore.training.loop import Trainer, TrainOptions
from napari_restore.training.recipes import Recipe

workplace = tempfile.TemporaryDirectory()
folder = Path(workplace.name)
for name in ("brick", "camera", "coins", "grass", "gravel", "moon"):
    imsave(folder / f"{name}.png", getattr(data, name)(), check_contrast=False)

# A recipe says what a model is trained on and how. This one is far too small to be good.
recipe = Recipe(
    "my-deblur-mono",
    "deblur",
    "nafnet",
    MonoBlur(KernelBlur(random_defocus), margin=12),
    {
        "channels": 1,
        "width": 8,
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
    },
    crops=((0.0, 48, 4),),
)
options = TrainOptions(
    images=[folder], out=folder / "training", minutes=0.05, device=resolve_device()
)
weights = Trainer(recipe, options).run(progress=False)
print(f"{weights}: {weights.stat().st_size / 1e3:.0f} kB")

# Its file stands where the name of a bundled model would.
restored = deblur(data.camera(), model=str(weights))
print(f"restored {restored.shape} {restored.dtype}")
workplace.cleanup()
