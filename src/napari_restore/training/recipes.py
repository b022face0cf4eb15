"""What each bundled model is trained on and how: one frozen recipe for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from napari_restore.errors import ModelError
from napari_restore.models.catalog import (
    DEBLURRER,
    DENOISER,
    FRAME_PAIR,
    HAZE,
    INVERTER,
    MOTION_DEBLURRER,
    OUT_OF_FOCUS_LIGHT,
)

from .blurs import KernelBlur, MotionBlur, random_defocus, random_psf
from .degradations import ColorBlur, ColorNoise, Degradation, KnownBlur, MonoBlur, MonoNoise
from .frames import FramePairBlur
from .haze_degradations import Haze, OutOfFocusLight
from .losses import log_error, restoration_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """A training, reproducible from folders of images.

    Attributes
    ----------
    name : str
        Also the name of the model.
    task : str
    architecture : str
        Key of `napari_restore.models.catalog.ARCHITECTURES`.
    options : mapping
        Arguments of the network.
    degradation : Degradation
    crops : sequence of (share, size, batch)
        Crop size in pixels and batch size from this share of the time on.
    learning_rate : float
        Peak of the schedule: a short linear rise, then a cosine down to a hundredth.
    losses : sequence of (share, callable)
        Loss of result and target, (N, C, H, W), from this share of the time on.
    scenes : sequence of int
    emphasis : mapping
        See `CropSource`.
    warm_up : int
        Steps of the rise.
    estimate_share : float
        Of the time, from the start, in which networks only learn to find what degraded the image:
        those that restore along motion to find it, those that take haze away to read the scene.
    oracle_motion_until : float
        Share of the time until which such a network is told the motion in one frame about as well
        as it could find it; then it is for every other batch.
    harm : float
        Weight, beside the loss, of being worse than the image (`losses.harm`).
    start_from : str or None
        Recipe whose weights begin this one; channel counts may differ.
    minutes : float
        Default wall-clock budget.
    steps : int
        Budget in steps, in place of the time; 0 for none.
    parts : tuple of str
        How the names of the weights begin that learn; empty for all.
    """

    name: str
    task: str
    architecture: str
    degradation: Degradation
    options: Mapping[str, object] = field(default_factory=dict)
    crops: tuple[tuple[float, int, int], ...] = ((0.0, 96, 12), (0.4, 128, 8), (0.8, 192, 4))
    learning_rate: float = 1e-3
    losses: tuple[tuple[float, Callable[[Tensor, Tensor], Tensor]], ...] = (
        (0.0, restoration_loss),
    )
    scenes: tuple[int, ...] = ()
    emphasis: Mapping[str, float] = field(default_factory=dict)
    warm_up: int = 200
    estimate_share: float = 0.0
    oracle_motion_until: float = 0.0
    harm: float = 0.0
    start_from: str | None = None
    minutes: float = 28.0
    steps: int = 0
    parts: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the images it learns from."""
        return int(self.options.get("channels", 3))  # type: ignore[call-overload,no-any-return]


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "deblur-color",
        "deblur",
        "resunet",
        ColorBlur(KernelBlur(random_defocus), margin=12),
        {"channels": 3, **DEBLURRER},
        crops=((0.0, 96, 12), (0.2, 128, 8), (0.6, 192, 4)),
        # An untrained network is held at its input by the logarithm.
        losses=((0.0, restoration_loss), (0.1, log_error)),
        minutes=130,
    ),
    Recipe(
        "deblur-mono",
        "deblur",
        "resunet",
        MonoBlur(KernelBlur(random_defocus), margin=12),
        {"channels": 1, "keep_mean": True, **DEBLURRER},
        crops=((0.0, 96, 12), (0.2, 128, 8), (0.6, 192, 4)),
        losses=((0.0, log_error),),
        # Few images, and all of them texture: the hardest kind.
        emphasis={"em": 3.0},
        start_from="deblur-color",
        minutes=90,
    ),
    Recipe(
        "denoise-color",
        "denoise",
        "resunet",
        ColorNoise(),
        {"channels": 3, **DENOISER},
        # Noise is seen in small crops, and there are more of them in the same time.
        crops=((0.0, 64, 10), (0.6, 96, 6), (0.92, 160, 3)),
        # Faint noise is below the floor of the other recipes.
        losses=((0.0, partial(log_error, floor=2e-5)),),
        learning_rate=5e-4,
        start_from="deblur-color",
        minutes=90,
    ),
    Recipe(
        "denoise-mono",
        "denoise",
        "resunet",
        MonoNoise(),
        {"channels": 1, "keep_mean": True, **DENOISER},
        crops=((0.0, 64, 10), (0.6, 96, 6), (0.92, 160, 3)),
        losses=((0.0, partial(log_error, floor=2e-5)),),
        learning_rate=5e-4,
        # What is noisy itself teaches noise.
        emphasis={"em": 0.5},
        start_from="denoise-color",
        minutes=60,
    ),
    Recipe(
        "invert-mono",
        "deblur",
        "inverter",
        KnownBlur(MonoBlur(KernelBlur(random_psf), margin=32)),
        {"channels": 1, "keep_light": True, **INVERTER},
        crops=((0.0, 96, 10), (0.3, 128, 6), (0.7, 192, 3)),
        losses=((0.0, log_error),),
        # Photographs are large and in many groups; a third of the crops is enough.
        emphasis={"em": 3.0, "photo": 0.6, "tissue": 0.4},
        learning_rate=6e-4,
        start_from="deblur-mono",
        minutes=240,
    ),
    Recipe(
        "invert-color",
        "deblur",
        "inverter",
        KnownBlur(ColorBlur(KernelBlur(random_psf), margin=32)),
        {"channels": 3, **INVERTER},
        crops=((0.0, 96, 10), (0.3, 128, 6), (0.7, 192, 3)),
        losses=((0.0, log_error),),
        learning_rate=6e-4,
        start_from="deblur-color",
        minutes=240,
    ),
    Recipe(
        "motion-frames-color",
        "motion_deblur",
        "framepair",
        ColorBlur(FramePairBlur(), margin=48),
        {"channels": 3, **FRAME_PAIR},
        crops=((0.0, 160, 6), (0.7, 192, 4)),
        # Strong blur first: a low floor would begin with the images that are nearly sharp.
        losses=((0.0, partial(log_error, floor=2e-3)), (0.6, log_error)),
        learning_rate=8e-4,
        estimate_share=0.35,
        minutes=60,
    ),
    Recipe(
        "motion-color",
        "motion_deblur",
        "motion",
        ColorBlur(MotionBlur(), margin=24, photons=(250, 1e5), clean_share=0.2),
        {"channels": 3, **MOTION_DEBLURRER},
        # What finds motion learns from kernels: many small crops.
        crops=((0.0, 96, 20), (0.35, 160, 6), (0.85, 192, 4)),
        losses=((0.0, log_error),),
        estimate_share=0.35,
        oracle_motion_until=0.9,
        # That one knows the motion, and so has learned to restore along it.
        start_from="motion-frames-color",
        minutes=120,
    ),
    Recipe(
        "motion-mono",
        "motion_deblur",
        "motion",
        MonoBlur(MotionBlur(), margin=24),
        {"channels": 1, **MOTION_DEBLURRER},
        crops=((0.0, 96, 20), (0.25, 192, 6), (0.4, 160, 6), (0.8, 192, 4)),
        losses=((0.0, log_error),),
        learning_rate=8e-4,
        estimate_share=0.4,
        oracle_motion_until=0.75,
        start_from="motion-color",
        minutes=30,
    ),
    Recipe(
        "motion-frames-mono",
        "motion_deblur",
        "framepair",
        MonoBlur(FramePairBlur(), margin=48),
        {"channels": 1, **FRAME_PAIR},
        crops=((0.0, 160, 6), (0.7, 192, 4)),
        losses=((0.0, log_error),),
        learning_rate=8e-4,
        start_from="motion-frames-color",
        minutes=30,
    ),
    Recipe(
        "dehaze-mono",
        "dehaze",
        "unveil",
        OutOfFocusLight(),
        OUT_OF_FOCUS_LIGHT,
        crops=((0.0, 192, 6), (0.6, 256, 4)),
        losses=((0.0, restoration_loss), (0.15, log_error)),
        # Tissue whose own planes overlap is what is hardest to tell from haze.
        emphasis={"fluo_cellprofiler": 2.0, "fluo_bian": 1.5, "fluo_misc": 1.5, "em": 0.6},
        learning_rate=8e-4,
        minutes=75,
    ),
    Recipe(
        "dehaze-color",
        "dehaze",
        "affine",
        Haze(),
        HAZE,
        crops=((0.0, 128, 16), (0.12, 128, 10), (0.35, 192, 6), (0.65, 256, 4)),
        # Sure of nothing yet, a lower floor would settle for leaving every image alone.
        losses=((0.0, partial(log_error, floor=5e-3)), (0.8, partial(log_error, floor=2e-3))),
        scenes=(256, 320, 440, 144),
        # Few images among many groups of photographs.
        emphasis={"tissue": 1.6},
        learning_rate=6e-4,
        # What reads the scene is small, and needs many scenes.
        estimate_share=0.12,
        harm=1.0,
        minutes=100,
    ),
)


def get_recipe(name: str) -> Recipe:
    """Find a recipe.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    names = ", ".join(recipe.name for recipe in RECIPES)
    raise ModelError(f"No recipe '{name}'. Choose one of: {names}.")
