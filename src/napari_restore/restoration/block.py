"""One block of an image restored: all that is restored is restored here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.image.blocks import pixels_of, reading_around, reading_of, regions_of
from napari_restore.image.layout import Planes
from napari_restore.image.lazy import let_go
from napari_restore.inference.context import Contexts
from napari_restore.inference.engine import run
from napari_restore.inference.protocol import Report
from napari_restore.watch import part_of

from .facts import known

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from napari_restore.image.blocks import Block
    from napari_restore.image.tiling import Region
    from napari_restore.inference.protocol import Predictor

    from .facts import Facts, MaybeFacts
    from .plan import Plan


@dataclass(frozen=True)
class BlockTask:
    """Everything that the blocks of an image have in common, small and picklable.

    The samples of a block depend on image, task and the block's place alone, not on what was
    restored before it, nor on where.

    Attributes
    ----------
    plan : Plan
    facts : Facts, or LazyStatistic
        Or how they are found when they are first needed.
    """

    plan: Plan
    facts: MaybeFacts

    def elsewhere(self) -> BlockTask:
        """Make the task for a worker of a cluster, which has its own device."""
        return replace(self, plan=self.plan.elsewhere())

    def without(self, device: str) -> BlockTask:
        """Make the task that follows a block which ended on another device.

        Memory ran out at the smallest tile: no use to try it on every block.
        """
        return (
            self
            if device == self.plan.device
            else replace(self, plan=replace(self.plan, device=device))
        )

    def found(self) -> Facts:
        """Facts of the image, found if need be."""
        return known(self.facts)

    def predictor(self) -> Predictor:
        """Load the model; once in each process."""
        return self.plan.predictor(self.found())

    def window(self, block: Block) -> Block:
        """Find which samples a block is restored from: itself, its halo, its neighbor in time."""
        plan = self.plan
        if plan.in_space:
            return reading_around(plan.layout, block, dict(zip("ZYX", plan.margins, strict=True)))
        return reading_of(plan.layout, block, plan.spec.multiple_of, plan.halo, plan.spec.frames)

    def read(self, image: Any, block: Block) -> NDArray[Any]:
        """Read the window of a block; what is in memory is not copied."""
        part = image[self.window(block)]
        if type(part) is np.ndarray and type(image) is np.ndarray:
            return part
        samples = np.array(part)
        let_go(image)
        return samples

    def contexts(self, image: Any) -> Contexts:
        """Global contexts of the planes of a whole image, each found when it is asked for."""
        return Contexts(Planes(image, self.plan.layout), self.found().scales)

    def __call__(
        self,
        block: Block,
        window: NDArray[Any],
        contexts: Contexts | dict[tuple[int, ...], torch.Tensor] | None = None,
        *,
        origin: tuple[int, ...] | None = None,
    ) -> tuple[NDArray[Any], Report]:
        """Restore a block.

        Parameters
        ----------
        block : tuple of slice
            One for each axis of the image; all of the color axis.
        window : ndarray
            Samples around it, as `read` gives them, or more.
        contexts : Contexts or dict, optional
            Global contexts of its planes, if the model wants them.
        origin : tuple of int, optional
            Place of the window's first sample in the image; without it, that of `window`.

        Returns
        -------
        ndarray, Report
            The block's samples in the dtype and order of the image, and what happened.
        """
        plan, report, found = self.plan, Report(), self.found()
        layout, scales = plan.layout, found.scales
        if origin is None:
            origin = tuple(part.start for part in self.window(block))
        out = np.empty([part.stop - part.start for part in block], window.dtype)
        source = Planes(window, layout, origin)
        if isinstance(contexts, dict):
            contexts = Contexts(source, scales, contexts)
        target = Planes(out, layout, tuple(part.start for part in block))
        if plan.in_space:
            from .in_space import restore_in_space

            restore_in_space(source, target, plan, found, block, report)
            return out, report
        total, before = pixels_of(layout, block), 0
        for channel, regions in self._by_channel(block):
            predictor = plan.predictor(found, channel)
            if found.is_untouched(channel):
                report.device = predictor.device
                for index, region in regions:
                    target.write(index, region, source.read(index, region))
            else:
                with part_of(before, total).around():
                    run(
                        source,
                        target,
                        predictor,
                        scales,
                        tiles=plan.tiles_on(predictor.device),
                        strength=plan.options.strength,
                        regions=regions,
                        contexts=contexts,
                        report=report,
                    )
            before += sum(region.pixels for _, region in regions)
        return out, report

    def _by_channel(self, block: Block) -> Iterator[tuple[int, list[tuple[Any, Region]]]]:
        """Regions of a block: of each channel that has a blur of its own, or of all."""
        layout, regions = self.plan.layout, regions_of(self.plan.layout, block)
        if len(self.found().blurs) < 2:
            yield 0, regions
            return
        for channel in range(layout.groups):
            own = [part for part in regions if layout.group(part[0]) == channel]
            if own:
                yield channel, own
