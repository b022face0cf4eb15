"""The legacy hook: napari asks it only where it does not read the manifest."""

from __future__ import annotations

from napari_plugin_engine import napari_hook_implementation


@napari_hook_implementation
def napari_experimental_provide_dock_widget():  # type: ignore[no-untyped-def]
    """Offer the docks."""
    from napari_restore.gui.models import ModelsWidget
    from napari_restore.gui.train import TrainWidget
    from napari_restore.gui.widget import (
        DeblurWidget,
        DehazeWidget,
        DenoiseWidget,
        MotionDeblurWidget,
    )

    return [
        (DeblurWidget, {"name": "Deblur"}),
        (DehazeWidget, {"name": "Dehaze"}),
        (MotionDeblurWidget, {"name": "Motion deblur"}),
        (DenoiseWidget, {"name": "Denoise"}),
        (TrainWidget, {"name": "Train a model"}),
        (ModelsWidget, {"name": "Model library"}),
    ]
