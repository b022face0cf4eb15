"""Adapt a model to one image: to its own blur, noise and structures, without any sharp image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_restore.analysis.find import rich_windows
from napari_restore.errors import ImageError, RestoreError
from napari_restore.image.layout import Planes
from napari_restore.models import library
from napari_restore.physics.camera import to_linear, to_srgb
from napari_restore.physics.inverse import WienerBank
from napari_restore.physics.psf import convolve
from napari_restore.restoration.plan import Options, make_plan, scales_of, takes_options
from napari_restore.restoration.psf_search import SeenPlane, find_blurs, middle_plane, tools_of
from napari_restore.runtime import Watch, apply_threads, check, tell

from .data import SharpImage
from .degradations import Pair, Told, column, trim
from .loop import Trainer, TrainingData, TrainOptions
from .losses import log_error
from .recipes import Recipe
from .recorded_pairs import PairSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_restore.restoration.plan import Blur, Plan
    from napari_restore.runtime import Progress

    from .loop import Forward

#: Side of the windows that are learned from in pixels, most of them, and shortest side of an image.
WINDOW, _MOST, LEAST = 256, 4, 96
#: Steps, crops of so many pixels in each, and the peak of the learning rate.
_STEPS, _CROP, _BATCH, _RATE = 60, 96, 4, 2e-4
#: What a restored image is shrunk by: that makes sharp again what it has lost.
_SHRUNK = (1.5, 2.0, 2.5)
#: What learns. The rest would forget how to look at images.
_PARTS = ("network.decoders",)
#: How often the noise is split, and how much of it more the first half has.
_DRAWS, _HALF = 4, 0.5
#: Side in pixels of the blocks whose errors are compared, and of the border that does not count.
_BLOCK, _BORDER = 16, 16
#: Strength of the filter that weighs what an image shows for certain.
_STRENGTH = 30
#: By how many standard errors it has to be better.
_SURE = 2.0
#: How much a change counts against it that the image can neither confirm nor contradict.
_RISK = 0.15
#: How often half of the change is tried too.
_HALVINGS = 2
#: Steps that take as long as to judge a window.
_JUDGING = 8
_NO_HELP = "Adapting did not help this image: the model is unchanged."


@dataclass(frozen=True)
class Adaptation:
    """What came of adapting a model to an image. It counts as false where nothing was kept.

    Attributes
    ----------
    name : str
        Of the model in the library; empty where the bundled one is as good.
    statement : str
        In plain words.
    before, after : float
        Score of the model before and after in dB: how well it foretells, from one half of the
        noise, what the image shows in the other. The same where nothing was kept.
    """

    name: str
    statement: str
    before: float
    after: float

    def __bool__(self) -> bool:
        return bool(self.name)


@takes_options
def adapt(
    image: Any,
    *,
    name: str | None = None,
    task: str = "deblur",
    axes: str | None = None,
    rgb: bool | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Adaptation:
    """Adapt the network that inverts a point spread function to one image.

    Parameters
    ----------
    image : array
        As for `napari_restore.restore`, of one channel or color. Of a stack or a movie the plane
        in the middle is taken.
    name : str, optional
        Of the model; without it "adapted", or "adapted 2" and so on.
    task : {"deblur", "motion_deblur"}
    axes, rgb, progress
        As for `napari_restore.restore`.
    **options
        psf, pixel_size, device and invalid_value, as for `napari_restore.restore`. Without a psf it
        is found from the image.

    Returns
    -------
    Adaptation
        With the name of the model for `restore(image, task, model=name)`, which needs no psf: the
        model keeps the one that it was adapted to. False if it would not be better, which is no
        error; then the library is unchanged.

    Raises
    ------
    RestoreError
        If no blur is known or found, the image is too small, or options are of no use.

    Notes
    -----
    The restored image is taken for a sharp one, also made smaller, blurred again by the same point
    spread function, and gets noise as strong as the image's. The network learns to bring it back:
    the last of its blocks, in some sixty steps. Learning from an image that is blurred once more
    and from the image itself at coarser scales after Shocher, Cohen and Irani, "Zero-Shot
    Super-Resolution using Deep Internal Learning", CVPR 2018.

    It is judged on the image itself, whose noise is split into two halves that know nothing of each
    other (as by Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021). One half is restored and
    blurred again, and compared with the other, weighed by a Wiener filter. It has to be better by
    two standard errors, and by a seventh of the squared change that the image can neither confirm
    nor contradict. All of the change, half and a fourth of it are tried.
    """
    given = Options.of(task, options)
    given = replace(given, psf="auto" if given.psf is None else given.psf)
    if name is not None and library.free_name(name) != name.strip():
        raise RestoreError(f"There is a model '{name}' already. Choose another name.")
    plan = make_plan(image, given, axes=axes, rgb=rgb)
    return Watch(progress).run(adapt_to, image, plan, name or library.free_name("adapted"))


def adapt_to(image: Any, plan: Plan, name: str, about: str = "") -> Adaptation:
    """Adapt as `adapt` does, by a plan.

    Parameters
    ----------
    image : array
        What the plan was made for.
    plan : Plan
    name : str
        Of the model.
    about : str
        What the image is called, for the card.
    """
    check_plan(plan)
    total = plan.layout.pixels
    tell(0, total, "Finding the range of intensities")
    planes = Planes(image, plan.layout)
    scales = scales_of(planes, plan)
    blur = find_blurs(planes, plan, scales)[0]
    if blur.psf is None or blur.untouched:
        raise RestoreError(
            f"There is no point spread function to adapt to: {blur.statement} Give the psf if you "
            "know it."
        )
    index = middle_plane(plan.layout, 0)
    plane = SeenPlane(planes, index, scales[0])
    subject = Subject(windows_of(plane, len(blur.psf.array)), blur, plan.linear)
    where = f"plane {index} of {about}".strip() if index else about
    found = _adapted(subject, plan, name, where)
    if index and plan.layout.planes > 1:
        said = f"Adapted to plane {', '.join(map(str, index))}, the middle one. "
        found = replace(found, statement=said + found.statement)
    return found


def check_plan(plan: Plan) -> None:
    """Raise a `RestoreError` unless a plan is one that can be adapted to."""
    options = plan.options
    if options.task not in ("deblur", "motion_deblur"):
        raise RestoreError(
            f"Only models that invert a blur are adapted to an image, and {options.task} was asked "
            "for. Choose deblur or motion_deblur."
        )
    if options.model != "auto":
        raise RestoreError(
            f"It is the bundled model that is adapted to an image, and model is "
            f"'{options.model}'. Leave the model at auto."
        )
    if plan.in_space:
        raise RestoreError(
            "Planes are adapted to, with the network. Restore plane by plane (dimensions=2), and "
            "leave the method at network."
        )
    if plan.layout.groups > 1:
        raise RestoreError(
            f"The image has {plan.layout.groups} channels, each with a blur of its own. Adapt to "
            "one of them at a time."
        )
    if plan.inverter is None:
        raise RestoreError(
            "Without a point spread function there is nothing to adapt to: psf is none. Leave it "
            "at auto, or give it."
        )
    if not plan.layout.pixels or min(plan.layout.size) < LEAST:
        height, width = plan.layout.size
        raise ImageError(
            f"The image has {height} × {width} pixels, too few to learn from. Adapting needs "
            f"{LEAST} on each side."
        )


def windows_of(plane: Any, side: int) -> list[torch.Tensor]:
    """Parts of a plane with the most structure, (1, C, h, w) each.

    Parameters
    ----------
    plane : array
        (H, W, C), about [0, 1]; anything that can be sliced.
    side : int
        Of the point spread function in pixels.
    """
    found = []
    for window in rich_windows(plane, max(WINDOW, 2 * side), _MOST, check):
        height, width = (length // 16 * 16 for length in window.samples.shape[:2])
        if min(height, width) >= max(LEAST // 2, side + 2 * _BLOCK + 2 * _BORDER):
            part = np.ascontiguousarray(window.samples[:height, :width].transpose(2, 0, 1))
            found.append(torch.from_numpy(part)[None])
    if not found:
        raise ImageError(
            f"The image of {plane.shape[0]} × {plane.shape[1]} pixels is too small for a point "
            f"spread function of {side}. Crop the psf, or take a larger image."
        )
    return found


@dataclass(frozen=True, eq=False)
class Subject:
    """What a model is adapted to.

    Attributes
    ----------
    windows : sequence of Tensor
        (1, C, h, w) each, about [0, 1].
    blur : Blur
        With a point spread function.
    linear : bool
        The blur acted on light, before the sRGB tone curve of the image.
    """

    windows: Sequence[torch.Tensor]
    blur: Blur
    linear: bool

    @property
    def kernel(self) -> torch.Tensor:
        """(1, k, k)."""
        assert self.blur.psf is not None
        return torch.from_numpy(self.blur.psf.array.copy())[None]

    def told(self, count: int, device: torch.device, more: float = 1.0) -> Told:
        """Say what a network is told of a batch; with so many times the noise."""
        noise = torch.full((count, 1, 1, 1), more * self.blur.noise, device=device)
        linear = torch.full((count, 1, 1, 1), self.linear, device=device)
        return Told(self.kernel.to(device).expand(count, -1, -1), noise, linear)

    def light(self, image: torch.Tensor) -> torch.Tensor:
        """Light that makes an image."""
        return to_linear(image) if self.linear else image

    def seen(self, light: torch.Tensor) -> torch.Tensor:
        """Image that light makes."""
        return to_srgb(light) if self.linear else light


@dataclass
class BlurredAgain:
    """Blur restored images by the kernel of one image, and add noise as strong as its own.

    Parameters
    ----------
    subject : Subject
    """

    subject: Subject

    def __post_init__(self) -> None:
        self.margin = self.subject.kernel.shape[-1] // 2

    def __call__(
        self, sharp: torch.Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Pair:
        """Degrade a batch."""
        subject, linear = self.subject, self.subject.linear
        seen = trim(subject.seen(convolve(subject.light(sharp), subject.kernel)), self.margin)
        target = trim(sharp, self.margin)
        noise = torch.empty_like(seen).normal_(generator=generator)
        image = seen + noise * column([subject.blur.noise], seen)
        if linear:
            image, target = image.clamp(0, 1), target.clamp(0, 1)
        told = subject.told(len(image), image.device)
        return Pair(image, target.contiguous(), told=told)


class NoiseSplit:
    """Judge networks on the image itself: from one half of its noise they foretell the other.

    The first network that is measured is the one to surpass.

    Parameters
    ----------
    subject : Subject
    device : torch.device
    """

    def __init__(self, subject: Subject, device: torch.device) -> None:
        self._subject, self.device = subject, device
        self._before: torch.Tensor | None = None
        self._first: list[torch.Tensor] = []

    @torch.inference_mode()
    def measure(self, forward: Forward) -> dict[str, float]:
        """Measure a network.

        Returns
        -------
        dict
            In dB, the more the better: ``score``; and ``output``, which is as good as it surely is
            beside the first.
        """
        errors, unseen = self._errors(forward)
        figures = {"score": _decibels(errors.mean())}
        if self._before is None:
            self._before = errors
            return figures | {"output": figures["score"]}
        gains = self._before - errors
        sure = gains.mean() - _SURE * gains.std() / len(gains) ** 0.5
        return figures | {"output": _decibels(self._before.mean() - sure + _RISK * unseen.mean())}

    def _errors(self, forward: Forward) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared errors of all blocks, and squared changes that no error tells of.

        Means over the draws of noise; the changes are those from the first network.
        """
        errors, unseen, subject = [], [], self._subject
        restorations = iter(self._first)
        for number, window in enumerate(subject.windows):
            image, total, hidden = window.to(self.device), torch.zeros(()), torch.zeros(())
            for draw in range(_DRAWS):
                check()
                generator = torch.Generator().manual_seed(1000 * number + draw)
                noise = subject.blur.noise * torch.randn(window.shape, generator=generator)
                noise = noise.to(self.device)
                first, second = image + _HALF * noise, image - noise / _HALF
                told = subject.told(1, self.device, (1 + _HALF**2) ** 0.5)
                restored = subject.light(forward(first, None, told)[0])
                told = subject.told(1, self.device, (1 + _HALF**-2) ** 0.5)
                bank = WienerBank(subject.light(second), told.psf, told.noise)
                corrected = bank(restored, (_STRENGTH,))[0]
                total = total + _blocks(subject.seen(corrected) - subject.seen(restored))
                if self._before is None:
                    self._first.append(restored)
                    continue
                first = next(restorations)
                # What the filter takes back of the change, if the first network is right.
                bank = WienerBank(convolve(first, told.psf), told.psf, told.noise)
                left = bank(restored, (_STRENGTH,))[0]
                hidden = hidden + _blocks(subject.seen(left) - subject.seen(first))
            errors.append(total / _DRAWS)
            unseen.append(hidden / _DRAWS)
        return torch.cat(errors), torch.cat([part.reshape(-1) for part in unseen])


def _blocks(difference: torch.Tensor) -> torch.Tensor:
    """Mean squares of blocks of (1, C, H, W), without a border."""
    inner = trim(difference.square().mean(1, keepdim=True), _BORDER)
    return torch.nn.functional.avg_pool2d(inner, _BLOCK).flatten().cpu()


def _decibels(error: torch.Tensor) -> float:
    return float(-10 * error.clamp(min=1e-12).log10())


def pictures_of(restored: torch.Tensor) -> list[SharpImage]:
    """Make pictures to learn from of a restored window: as it is, and shrunk."""
    scales = [restored] + [
        torch.nn.functional.interpolate(
            restored, scale_factor=1 / factor, mode="bilinear", antialias=True
        )
        for factor in _SHRUNK
    ]
    return [
        SharpImage((255 * part[0].permute(1, 2, 0)).cpu().numpy().copy(), "", "") for part in scales
    ]


def _adapted(subject: Subject, plan: Plan, name: str, where: str) -> Adaptation:
    """Learn, judge, and keep what is better."""
    spec, psf = plan.inverter, subject.blur.psf
    assert spec is not None and psf is not None
    apply_threads()
    recipe = Recipe(
        name,
        plan.options.task,
        spec.architecture,
        BlurredAgain(subject),
        spec.options,
        crops=((0.0, _CROP, _BATCH),),
        learning_rate=_RATE,
        losses=((0.0, log_error),),
        warm_up=5,
        steps=_STEPS,
        parts=_PARTS,
    )
    said = {
        "adapted": {"psf": psf.record(), "image": where, "noise": subject.blur.noise},
        "origin": f"adapted from {spec.name} to one image, for this image alone",
    }
    judging = _JUDGING * len(subject.windows)
    total = _STEPS + (2 + _HALVINGS) * judging
    tell(0, total, "Adapting: restoring the image …")
    invert = tools_of(plan).invert
    pictures = [
        picture
        for window in subject.windows
        for picture in pictures_of(
            invert(window, subject.kernel, subject.blur.noise, subject.linear)
        )
    ]
    judge = NoiseSplit(subject, torch.device(plan.device))
    data = TrainingData(PairSource(pictures), (), len(subject.windows), judge)
    graphics = [device for device in (judge.device,) if device.type == "cuda"]
    # The random numbers of whoever calls go on as if nothing had been.
    with TemporaryDirectory() as folder, torch.random.fork_rng(graphics):
        files = TrainOptions(
            (), Path(folder), device=plan.device, init=spec.path, checkpoint_seconds=math.inf
        )
        trainer = Trainer(recipe, files, data, said)
        trainer.begin()
        before = after = trainer.best
        begun = [weights.clone() for weights in trainer.average.parameters()]
        for stand in trainer.steps():
            tell(judging + stand.step, total)
            if stand.figures is not None and stand.best:
                after = stand.figures["score"]
        for number in range(_HALVINGS):
            # A smaller step the same way is surer.
            tell(_STEPS + (2 + number) * judging, total)
            with torch.no_grad():
                for weights, old in zip(trainer.average.parameters(), begun, strict=True):
                    weights.lerp_(old, 0.5)
            figures, better = trainer.judge()
            after = figures["score"] if better else after
        if not trainer.weights.is_file():
            return Adaptation("", _NO_HELP, before, before)
        entry = library.add(trainer.weights, name)
    statement = (
        f"'{entry.name}' is in your library, for this image alone: judged on the image itself, it "
        "is surely better."
    )
    return Adaptation(entry.name, statement, before, after)
