"""What a check found, and its report: one page with its figures and pictures inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_restore.errors import RestoreError
from napari_restore.models.catalog import CATALOG, INVERTERS
from napari_restore.runtime import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_CARDS = "https://napari-restore.github.io/napari-restore/models"
#: How a report is told from other pages.
_MARK = '<meta name="generator" content="napari-restore check">'
#: Longest side of a picture in pixels.
_SIDE = 640
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.said{background:#eef3f8;border-left:4px solid #36648b;padding:.6rem 1rem;margin:1rem 0}
.said p{margin:.3rem 0}.warn{color:#8b2500;font-weight:600}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1rem}
figure{margin:0}figure img,figure svg{width:100%;height:auto;border:1px solid #ccc}
figcaption{font-size:.85rem;color:#555}
table{border-collapse:collapse;font-size:.9rem}td,th{padding:.15rem .8rem .15rem 0;
text-align:left;vertical-align:top}td+td{font-variant-numeric:tabular-nums}
details pre{white-space:pre-wrap;font-size:.8rem;background:#f6f6f6;padding:.5rem}
footer{margin:2rem 0;font-size:.85rem;color:#555}
"""
#: How groups are called, and what to keep in mind.
_GROUPS = {
    "agreement": ("Agreement of the model with itself", ""),
    "re-blur": ("Does the result explain the image?", ""),
    "likeness": (
        "Is the image like those that were learned from?",
        "Above a distance of 1 it is not.",
    ),
    "resolution": (
        "Resolution",
        "A network can raise these figures without truth: they say what an image shows, not that "
        "it is there.",
    ),
    "light": ("Light, range and ends", ""),
    "blur": ("Blur, as the model sees it", "Standard deviation of an equivalent Gaussian."),
    "no-reference figures": (
        "No-reference figures",
        "They say how an image looks, not whether it is true.",
    ),
    "against the reference": ("Against the reference", ""),
    "image": ("Of the image", "In its units."),
}


@dataclass(frozen=True)
class Check:
    """What can be said of a result.

    Attributes
    ----------
    sentences : tuple of str
        Three, in plain words: what to trust, whether the result explains the image, and whether the
        image is like those that the model learned from.
    error : ndarray
        (h, w) float32, in the units of the image: size of error that 68 % of the samples do not
        exceed. Where no model is known that is calibrated, the part of the image that the result
        does not explain; `meaning` says which.
    meaning : str
        What ``error`` is.
    index : tuple of int
        The plane that was looked at, over the axes before it.
    region : tuple of int
        Top, left, bottom, right of what ``error`` shows, in pixels of that plane.
    figures : mapping
        All figures by group and name, in plain types.
    notes : tuple of str
        What was not checked, and why; what was assumed.
    provenance : mapping
        How the result was made, as far as it is known.
    pictures : mapping
        (h, w) or (h, w, 3) arrays for the report.
    """

    sentences: tuple[str, ...]
    error: Array
    meaning: str
    index: tuple[int, ...]
    region: tuple[int, int, int, int]
    figures: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    @property
    def card(self) -> str:
        """Address of the card of the model; empty where it is not known."""
        model = str(self.provenance.get("model", ""))
        names = {spec.name: spec.name for spec in CATALOG}
        names |= {spec.name: "invert" for spec in INVERTERS.values()}
        names["invert-volume"] = "invert-volume"
        return f"{_CARDS}/{names[model]}/" if model in names else ""

    def html(self) -> str:
        """Report as one page that needs nothing else."""
        return page(self)

    def save(self, path: Any) -> None:
        """Write the report; the whole file appears, or none. An earlier file is replaced.

        Raises
        ------
        RestoreError
            If that cannot be written.
        """
        try:
            write_text(Path(path), self.html())
        except OSError as error:
            raise RestoreError(f"The report {path} cannot be written: {error}.") from error


def is_report(path: Path) -> bool:
    """Whether a file is an earlier report."""
    with path.open("rb") as file:
        return _MARK.encode() in file.read(1000)


def page(check: Check) -> str:
    """One HTML page, without scripts and without anything from elsewhere."""
    record = check.provenance
    title = f"Check of {record['source']}" if "source" in record else "Check of a restoration"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'{_MARK}<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_made(record))} <span class='warn'>Not for diagnosis.</span></p>",
        "<div class='said'>",
        *(f"<p>{escape(text)}</p>" for text in check.sentences),
        "</div>",
        "<div class='row'>",
        *_pictures(check),
        "</div>",
    ]
    if check.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in check.notes)
        parts.append(f"<h2>What to know</h2><ul>{items}</ul>")
    for name, (heading, remark) in _GROUPS.items():
        if name in check.figures:
            parts.append(f"<h2>{escape(heading)}</h2>")
            if remark:
                parts.append(f"<p>{escape(remark)}</p>")
            parts.append(_table(check.figures[name]))
    if record:
        import json

        text = json.dumps(_brief(record), indent=1, default=str, ensure_ascii=False)
        parts.append(
            "<h2>How it was made</h2><details open><summary>Provenance</summary>"
            f"<pre>{escape(text)}</pre></details>"
        )
    if check.card:
        card = escape(check.card)
        parts.append(f"<p>What the model can and cannot do: <a href='{card}'>{card}</a></p>")
    parts.append(
        "<footer>Made by napari-restore on this computer; nothing was uploaded. Errors are "
        "measured on images that were degraded on purpose, and may differ in others. "
        "Not for diagnosis."
        "</footer></body></html>"
    )
    return "\n".join(parts)


def _made(record: Mapping[str, Any]) -> str:
    if "task" not in record:
        return "How the result was made is not known."
    version = record.get("versions", {}).get("napari-restore", "")
    text = f"{record['task'].replace('_', ' ').capitalize()} with {record.get('model', 'a model')}"
    return f"{text}{f', napari-restore {version}' if version else ''}."


def _brief(record: Any) -> Any:
    """Leave out the samples of kernels, which nobody reads."""
    if isinstance(record, dict):
        return {key: "…" if key == "samples" else _brief(value) for key, value in record.items()}
    return [_brief(value) for value in record] if isinstance(record, list) else record


def _pictures(check: Check) -> Iterator[str]:
    pictures = check.pictures
    before, after = pictures["before"], pictures["after"]
    low, high = np.percentile(before, (0.5, 99.8))
    top, left, bottom, right = check.region
    place = f"rows {top}–{bottom}, columns {left}–{right}"
    if check.index:
        place = f"plane {', '.join(map(str, check.index))}, {place}"
    for name, picture in (("The image", before), ("The result", after)):
        gray = ((picture - low) / max(high - low, 1e-9)).clip(0, 1)
        yield _figure(
            _png((255 * gray).astype(np.uint8)), f"{name}, {place}; one contrast for both."
        )
    change = (after - before).mean(-1)
    size = max(float(np.quantile(np.abs(change), 0.995)), 1e-9)
    yield _figure(
        _png(_diverging(change / size)),
        f"What was changed: blue is darker, red brighter, up to {_number(size * _unit(check))}.",
    )
    unit = _unit(check)
    error = pictures["error"]
    most = max(float(np.quantile(error, 0.995)), 1e-9)
    yield _figure(
        _png(_heat(error / most)),
        f"{check.meaning[0].upper() + check.meaning[1:]}, up to {_number(most * unit)} "
        "(black is none).",
    )
    if "turns" in pictures:
        turns = pictures["turns"]
        most = max(float(np.quantile(turns, 0.995)), 1e-9)
        yield _figure(
            _png(_heat(turns / most)),
            "How far the model differs from itself, turned and mirrored, up to "
            f"{_number(most * unit)}.",
        )
    rest = pictures["residual"]
    yield _figure(
        _png(_heat(rest / 5)), "What the result does not explain, up to 5 times the noise."
    )
    yield _figure(
        _histogram({"image": before, "result": after}, check),
        "Histogram of the intensities; counts on a square-root scale.",
    )
    yield _figure(
        _histogram({"±" if "±" in check.meaning else "left": error}, check),
        f"Histogram of {check.meaning}; counts on a square-root scale.",
    )


def _unit(check: Check) -> float:
    """Units of the image for one of the network's."""
    error = check.pictures["error"]
    at = int(np.argmax(error))
    most = float(error.ravel()[at])
    return float(check.error.ravel()[at]) / most if most else 1.0


def _figure(inside: str, caption: str) -> str:
    return f"<figure>{inside}<figcaption>{escape(caption)}</figcaption></figure>"


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    made = Image.fromarray(np.ascontiguousarray(picture))
    longest = max(made.size)
    if longest > _SIDE:
        shape = [max(1, round(length * _SIDE / longest)) for length in made.size]
        made = made.resize((shape[0], shape[1]), Image.Resampling.BOX)
    elif longest < _SIDE // 2:
        # Small pictures are enlarged by whole pixels, not smoothed.
        factor = _SIDE // 2 // longest + 1
        made = made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    made.save(stream, "PNG", optimize=True)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"<img alt='' src='data:image/png;base64,{text}'>"


#: Black, violet, orange, white.
_HEAT = np.array([[0, 0, 0], [80, 18, 123], [182, 55, 84], [251, 140, 10], [255, 255, 220]], float)
#: Blue, white, red.
_DIVERGING = np.array([[33, 80, 160], [245, 245, 245], [170, 30, 40]], float)


def _heat(share: NDArray[Any]) -> NDArray[np.uint8]:
    return _colored(share.clip(0, 1), _HEAT)


def _diverging(share: NDArray[Any]) -> NDArray[np.uint8]:
    return _colored((share.clip(-1, 1) + 1) / 2, _DIVERGING)


def _colored(share: NDArray[Any], colors: NDArray[np.float64]) -> NDArray[np.uint8]:
    places = np.linspace(0, 1, len(colors))
    channels = [np.interp(np.nan_to_num(share), places, colors[:, c]) for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def _histogram(arrays: Mapping[str, NDArray[Any]], check: Check) -> str:
    """Outlines of histograms, as SVG."""
    joined = np.concatenate([array.ravel() for array in arrays.values()])
    low, high = (float(value) for value in np.percentile(joined, (0.1, 99.9)))
    high = max(high, low + 1e-9)
    unit = _unit(check)
    offset = 0.0
    if "image" in arrays:
        scales = check.provenance.get("scales")
        offset = float(scales[0][0]) if scales else 0.0
    colors = ("#777777", "#b22222")
    lines, names = [], []
    counts = [
        np.sqrt(np.histogram(array, 80, (low, high))[0]).astype(float) for array in arrays.values()
    ]
    top = max(float(count.max()) for count in counts) or 1.0
    for number, (name, count) in enumerate(zip(arrays, counts, strict=True)):
        points = " ".join(
            f"{40 + 5 * place:.0f},{150 - 130 * value / top:.1f}"
            for place, value in enumerate(count)
        )
        lines.append(
            f"<polyline points='{points}' fill='none' stroke='{colors[number]}' stroke-width='2'/>"
        )
        names.append(
            f"<text x='430' y='{24 + 18 * number}' text-anchor='end' fill='{colors[number]}'>"
            f"{escape(name)}</text>"
        )
    ends = (
        f"<text x='40' y='172'>{_number(low * unit + offset)}</text>"
        f"<text x='437' y='172' text-anchor='end'>{_number(high * unit + offset)}</text>"
    )
    axis = "<path d='M40 150H440' stroke='#444' fill='none'/>"
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 460 180' font-size='13' "
        f"font-family='sans-serif' role='img'>{axis}{''.join(lines + names)}{ends}</svg>"
    )


def _table(figures: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(_text(name, value))}</td></tr>"
        for name, value in figures.items()
    )
    return f"<table>{rows}</table>"


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not found"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text("", each) for each in value) or "—"
    if isinstance(value, float) and ("share" in name or name == "error_in_worst_tenth"):
        return f"{value:.2%}"
    return _number(value) if isinstance(value, (int, float)) else str(value)


def _number(value: float) -> str:
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.4g}"
