"""How long restorations take: learned from every run, and remembered between sessions."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import platformdirs

from napari_restore.restoration.run import LOADING
from napari_restore.runtime import relaying

from .remembered import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_restore.runtime import Progress, Watch

    from .jobs import LayerJob

#: Seconds that a processor's core needs for a megapixel that a network sees, until it is measured.
_FIRST_GUESS = {
    "deblur-mono": 4.5,
    "deblur-color": 6.0,
    "denoise-mono": 4.5,
    "denoise-color": 6.0,
    "dehaze-mono": 2.1,
    "dehaze-color": 0.3,
    "motion-mono": 5.6,
    "motion-color": 6.3,
    "motion-frames-mono": 5.1,
    "motion-frames-color": 4.0,
    "invert-volume": 8.0,
    "richardson-lucy": 4.0,
    "wiener": 0.5,
}
_OTHERS = 10.0
#: How many cores' work other devices do.
_CORES = {"cuda": 400.0, "xpu": 200.0, "mps": 60.0}
#: What an earlier run counts for beside the newest, if both had the same size.
_KEPT = 0.5


class Times(NamedTuple):
    """Seconds of one run: loading the model, its network, what was asked for beside, the rest."""

    loading: float
    network: float
    beside: float
    rest: float
    #: Megapixels that the network saw, and of the image.
    seen: float
    image: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.loading + self.network + self.beside + self.rest


class Stopwatch:
    """Measures a run by what it tells."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._loading = self._network = 0.0
        self._said = ""
        self._at_work: float | None = None

    def see(self, step: Progress) -> None:
        """Take a step."""
        now = time.monotonic()
        if self._said == LOADING:
            self._loading += now - self._last
        if step.message and not step.done:
            # The last that is said before pixels are done is that the network begins.
            self._at_work = now
        if step.done:
            self._network = now - (self._at_work or now)
        self._said, self._last = step.message, now

    def watch(self) -> Watch:
        """Make a watch that measures what runs within it."""

        def seen(step: Progress) -> Progress:
            self.see(step)
            return step

        return relaying(seen)

    def times(self, seen: float, image: float, beside: float = 0.0) -> Times:
        """Sum up to now; ``beside`` seconds of it went to what was asked for beside."""
        total = time.monotonic() - self._started
        rest = max(0.0, total - self._loading - self._network - beside)
        return Times(self._loading, self._network, beside, rest, seen, image)


@dataclass
class _Speed:
    """What is known of a model on a device; sums in which older runs count less and less."""

    seen: float = 0.0
    network: float = 0.0
    image: float = 0.0
    beside: float = 0.0
    #: Seconds of the last runs.
    loading: float = 0.0
    rest: float = 0.0


class Rates:
    """How fast each model is on each device.

    One for all docks: what was found out stands in a file that is read once and written after
    every run. A damaged file counts as none, and one that cannot be written is done without.

    Parameters
    ----------
    path : Path
    """

    #: Models and devices that were used since napari started: they are in memory.
    _loaded: ClassVar[set[str]] = set()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._speeds = _read(path)

    def learn(self, job: LayerJob, times: Times) -> None:
        """Take a measurement."""
        if job.scheduler is not None or job.lazy or not times.network:
            return
        key = _key(job)
        speed = self._speeds.setdefault(key, _Speed(loading=times.loading, rest=times.rest))
        speed.seen = _KEPT * speed.seen + times.seen
        speed.network = _KEPT * speed.network + times.network
        if times.beside:
            speed.image = _KEPT * speed.image + times.image
            speed.beside = _KEPT * speed.beside + times.beside
        speed.rest = (speed.rest + times.rest) / 2
        if key not in self._loaded:
            speed.loading = (speed.loading + times.loading) / 2
        self._loaded.add(key)
        speeds = {key: asdict(speed) for key, speed in self._speeds.items()}
        write_json(self._path, speeds)

    def seconds(self, job: LayerJob, loaded: bool | None = None) -> float:
        """Estimate for a whole layer.

        Parameters
        ----------
        job : LayerJob
        loaded : bool, optional
            Whether the model will be in memory; without it, whether it is.
        """
        key, plan = _key(job), job.plan
        speed = self._speeds.get(key)
        work = plan.work / 1e6 * job.pixels / max(1, plan.layout.pixels)
        loaded = key in self._loaded if loaded is None else loaded
        if speed is None:
            speed = _Speed(loading=1.0, rest=0.5)
        per_pixel = speed.network / speed.seen if speed.seen else self._guess(job)
        seconds = work * per_pixel + speed.rest + (0.0 if loaded else speed.loading)
        if job.show_removed or job.show_motion:
            beside = speed.beside / speed.image if speed.image else per_pixel / 4
            seconds += beside * job.pixels / 1e6
        return seconds

    def per_pixel(self, job: LayerJob) -> float:
        """Estimate for one pixel that the network sees."""
        speed = self._speeds.get(_key(job))
        known = speed is not None and speed.seen > 0 and speed.network > 0
        return (speed.network / speed.seen if known and speed else self._guess(job)) / 1e6

    def all_seconds(self, jobs: Iterable[LayerJob]) -> float:
        """Estimate for some layers: each model is loaded once."""
        total, seen = 0.0, set(self._loaded)
        for job in jobs:
            total += self.seconds(job, _key(job) in seen)
            seen.add(_key(job))
        return total

    def _guess(self, job: LayerJob) -> float:
        """Seconds for a megapixel, from what other models took on the device if that is known."""
        name, device = _name(job), job.plan.device
        cores = _CORES.get(device.partition(":")[0], float(os.cpu_count() or 1))
        guess = _FIRST_GUESS.get(name, _OTHERS) / cores
        ratios = [
            speed.network / speed.seen / (_FIRST_GUESS.get(other, _OTHERS) / cores)
            for other, _, where in (key.partition(" on ") for key in self._speeds)
            for speed in [self._speeds[f"{other} on {where}"]]
            if where == device and speed.seen
        ]
        return guess * sum(ratios) / len(ratios) if ratios else guess


def _key(job: LayerJob) -> str:
    return f"{_name(job)} on {job.plan.device}"


def _name(job: LayerJob) -> str:
    plan = job.plan
    if plan.in_space and plan.options.method != "network":
        return plan.options.method
    return plan.model.name


@cache
def known_rates() -> Rates:
    """Rates for all docks of this napari."""
    return Rates(Path(platformdirs.user_cache_dir("napari-restore")) / "speeds.json")


def _read(path: Path) -> dict[str, _Speed]:
    names = {field.name for field in fields(_Speed)}
    try:
        known = read_json(path)
        speeds = {
            key: _Speed(**{name: float(entry[name]) for name in names})
            for key, entry in known.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    sound = all(0 <= value < 1e9 for speed in speeds.values() for value in asdict(speed).values())
    return speeds if sound else {}
