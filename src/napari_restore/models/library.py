"""The model library: what ships, and the user's own models, to list, import and keep."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from napari_restore.errors import FileError, ModelError
from napari_restore.runtime import resolve_device, whole_file, write_text

from . import catalog
from .catalog import (
    DEFAULTS,
    OWN_SUFFIX,
    SHIPPED,
    build_network,
    check_task,
    default_for,
    is_published_nafnet,
    load_state,
    own_files,
    own_model,
    read_defaults,
    read_metadata,
    save_weights,
    sha256,
    spec_from_file,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .catalog import ModelSpec

#: Where the cards of what ships are.
CARDS = "https://napari-restore.github.io/napari-restore/models/"
#: What a name may be on every system.
_NAME = re.compile(r"[^\W_][\w .()+-]{0,78}[\w)+]|[^\W_]")
_NOT_IN_NAMES = re.compile(r"[^\w .()+-]")
_ENDINGS = (".safetensors", ".pth", ".pt", ".zip")


@dataclass(frozen=True)
class Entry:
    """A model of the library.

    Attributes
    ----------
    spec : ModelSpec
    bundled : bool
        Whether it ships with the package.
    default : bool
        Whether "auto" takes it for its kind of image.
    metadata : mapping
        What its file says of it.
    """

    spec: ModelSpec
    bundled: bool
    default: bool
    metadata: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """Name to choose it by."""
        return self.spec.name

    @property
    def origin(self) -> str:
        """Where it comes from: ``bundled``, ``trained``, ``adapted`` or ``imported``."""
        if self.bundled:
            return "bundled"
        if "adapted" in self.metadata:
            return "adapted"
        return "trained" if "steps" in self.metadata else "imported"

    @property
    def figures(self) -> dict[str, Any]:
        """Figures of its validation; empty if there are none."""
        return _object(self.metadata.get("validation"))

    @property
    def megabytes(self) -> float:
        """Size of its file."""
        return self.spec.path.stat().st_size / 1e6

    @property
    def gain(self) -> str:
        """PSNR of the input and of the result in validation; a dash if it is not known."""
        figures = self.figures
        if not {"input", "output"} <= figures.keys():
            return "–"
        return f"{figures['input']:.1f} → {figures['output']:.1f} dB"

    def card(self) -> str:
        """Say in Markdown what it is, how it was made, and how good it was."""
        spec, said = self.spec, self.metadata
        options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
        rows = {
            "task": spec.task.replace("_", "-"),
            "images": f"{spec.kind} ({spec.channels} channel{'s' if spec.channels > 1 else ''})",
            "license": spec.license,
            "origin": said.get("origin", self.origin),
            "network": f"{spec.architecture}: {options}",
            "halo": f"{spec.halo} pixels",
            "SHA-256": spec.sha256 or "",
            "size": f"{self.megabytes:.1f} MB",
        }
        lines = [f"# {spec.name}", "", *(f"- **{key}**: {value}" for key, value in rows.items())]
        figures = self.figures
        if figures:
            lines += ["", "## Validation", "", *_sentences(figures)]
        how = _object(said.get("training")) | {
            key: said[key] for key in ("steps", "minutes", "seed", "device") if key in said
        }
        how |= _adapted(_object(said.get("adapted")))
        started = _object(said.get("started_from"))
        if started:
            how["started from"] = f"{started.get('name')} ({str(started.get('sha256'))[:12]})"
        if how:
            lines += ["", "## How it was made", ""]
            lines += [f"- **{key}**: {value}" for key, value in how.items()]
        if self.bundled:
            lines += ["", f"The whole card: {CARDS}{spec.name}/"]
        if said.get("notes"):
            lines += ["", said["notes"]]
        return "\n".join(lines) + "\n"


def _adapted(to: Mapping[str, Any]) -> dict[str, str]:
    """Say what a model was adapted to; nothing if to nothing."""
    psf = to.get("psf")
    if not isinstance(psf, dict):
        return {}
    rows = {
        "adapted to": f"{to.get('image') or 'one image'}; it is for this image alone",
        "point spread function": f"{psf.get('family')}, FWHM {psf.get('fwhm_px')} px",
    }
    noise = to.get("noise")
    return rows | ({"noise": f"{noise:.2%} of the range"} if isinstance(noise, float) else {})


def _sentences(figures: Mapping[str, Any]) -> list[str]:
    if {"score", "start"} <= figures.keys():
        return [
            "How well it foretells, from one half of the noise, what the image shows in the other: "
            f"{figures['start']:.3f} dB before it was adapted, {figures['score']:.3f} dB after. "
            "Most of the rest is noise, which nothing foretells."
        ]
    said = []
    if {"input", "output"} <= figures.keys():
        said.append(
            f"On images that were held out: {figures['input']:.2f} dB → {figures['output']:.2f} dB."
        )
    if "start" in figures:
        said.append(f"The model that it began from: {figures['start']:.2f} dB.")
    if "improved" in figures:
        said.append(f"{100 * figures['improved']:.0f} % of the images became better.")
    if "identity" in figures:
        said.append(f"Sharp images come back at {figures['identity']:.1f} dB.")
    return said


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# ---------------------------------------------------------------- looking


def entries() -> tuple[list[Entry], list[str]]:
    """List all models, and say which could not be read.

    Returns
    -------
    list of Entry
        What ships first, then the user's in alphabetical order.
    list of str
        Sentences about damaged files.
    """
    found, problems = [], []
    for spec in SHIPPED:
        try:
            spec.path.stat()
            found.append(Entry(spec, True, False, read_metadata(spec.path)))
        except (ModelError, OSError) as error:
            problems.append(f"{spec.name}: {error}")
    for name in own_files():
        try:
            found.append(find_entry(name))
        except (ModelError, OSError) as error:
            problems.append(f"{name}: {error}")
    return found, problems


def find_entry(name: str) -> Entry:
    """Find a model by its name.

    Raises
    ------
    ModelError
        If there is none, or it cannot be read.
    """
    for spec in SHIPPED:
        if spec.name == name:
            return Entry(spec, True, False, read_metadata(spec.path))
    if name not in own_files():
        known = ", ".join([*(spec.name for spec in SHIPPED), *own_files()])
        raise ModelError(f"No model '{name}' in the library. There are: {known}.")
    spec = own_model(name)
    default = default_for(spec.task, spec.kind) == name
    return Entry(spec, False, default, read_metadata(spec.path))


# ---------------------------------------------------------------- changing


def check_name(name: str) -> str:
    """Return a name without spaces around it.

    Raises
    ------
    ModelError
        If no model can have it.
    """
    name = name.strip()
    ending = name.rpartition(".")[2].lower()
    if not _NAME.fullmatch(name) or ending in ("safetensors", "pth", "pt") or name == "auto":
        raise ModelError(
            f"A model cannot be called '{name}'. Use up to 80 letters, digits, spaces, hyphens and "
            "points, such as 'nuclei 40x'."
        )
    return name


def free_name(wish: str) -> str:
    """Return a name that no model has: the wish, or with a number behind it."""
    name, number = check_name(wish), 2
    while _taken(name):
        name, number = f"{wish.strip()} {number}", number + 1
    return name


def adapted_name(image: str) -> str:
    """Return a free name for a model that is adapted to an image, as like its name as can be."""
    try:
        return free_name(f"{_NOT_IN_NAMES.sub('', image)[:60].strip()} adapted")
    except ModelError:
        return free_name("adapted")


def add(
    source: Path,
    name: str | None = None,
    *,
    task: str | None = None,
    license: str | None = None,
    notes: str | None = None,
) -> Entry:
    """Import a file of weights into the library. Nothing in it is run.

    Weights of this program are copied as they are and keep their hash, also those in a package of
    bioimage.io. Other known ones are written anew as safetensors: a NAFNet's state dict, and those
    of networks that spandrel knows, if it is installed. How far those look is measured, which
    takes a minute for large ones.

    Parameters
    ----------
    source : path
        ``.safetensors``, ``.pth`` of which only tensors are read, or a package of bioimage.io
        (``.zip``) of a network that is known here.
    name : str, optional
        Without it that of the file.
    task : str, optional
        What it does, if its file does not say so.
    license, notes : str, optional
        For its card, where its file says nothing.

    Raises
    ------
    ModelError
        If it is no model that can be used, or the name is taken.
    FileError
        If it cannot be read or kept; nothing is left behind then.
    """
    source = Path(source).expanduser()
    if source.suffix.lower() not in _ENDINGS:
        raise ModelError(
            f"{source} is no file of weights. Give one that ends in {', '.join(_ENDINGS)}."
        )
    if task is not None:
        check_task(task)
    name = check_name(source.stem if name is None else name)
    if _taken(name):
        raise ModelError(f"There is a model '{name}' already. Give the new one another name.")
    if source.suffix.lower() == ".zip":
        return _add_package(source, name, task, license, notes)
    return _add_weights(source, name, task, license, notes, source)


def _add_weights(
    source: Path,
    name: str,
    task: str | None,
    license: str | None,
    notes: str | None,
    given: Path,
) -> Entry:
    """Import a file of weights; ``given`` is what the user gave, which may hold it."""
    metadata = read_metadata(source) if source.suffix == ".safetensors" else {}
    if "task" not in metadata and task is None:
        raise ModelError(
            f"{source.name} does not say what it is for. Name its task: deblur, dehaze, "
            "motion_deblur or denoise."
        )
    if not metadata.keys() & {"architecture", "options"}:
        state = load_state(source)
        if not is_published_nafnet(state):
            found = {**_published(source, state), "task": task or metadata["task"]}
            return _add_written(source, state, found, name, license, notes)
    spec = spec_from_file(source, task or "deblur")
    check_task(spec.task)
    if task is not None and spec.task != task:
        raise ModelError(f"{source.name} is for {spec.task}, not {task}. Leave the task out.")
    state = load_state(source)
    try:
        build_network(spec.architecture, spec.options).load_state_dict(state)
    except RuntimeError as error:
        brief = " ".join(str(error).split())[:200]
        raise ModelError(f"{source} does not hold the weights of its network: {brief}") from error
    target = catalog.own_folder() / f"{name}{OWN_SUFFIX}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if {"task", "architecture", "options"} <= metadata.keys() and not (license or notes):
            with whole_file(target) as temporary:
                shutil.copyfile(source, temporary)
        else:
            said: dict[str, Any] = {
                **metadata,
                "name": name,
                "task": spec.task,
                "architecture": spec.architecture,
                "options": dict(spec.options),
                "license": license or spec.license,
                "origin": f"imported from {given.name}, SHA-256 {sha256(given)}",
            }
            if notes:
                said["notes"] = notes
            save_weights(target, state, said, half=False)
    except OSError as error:
        raise FileError(f"{source.name} cannot be kept in {target.parent} ({error}).") from error
    return find_entry(name)


def _add_package(
    source: Path, name: str, task: str | None, license: str | None, notes: str | None
) -> Entry:
    from .bioimageio import weights_in

    with TemporaryDirectory() as folder:
        path, said = weights_in(source, Path(folder))
        if path.suffix == ".safetensors":
            return _add_weights(path, name, None, license, notes, source)
        if task is not None:
            said["task"] = task
        return _add_written(source, load_state(path), said, name, license, notes)


def _add_written(
    source: Path,
    state: Mapping[str, Any],
    said: Mapping[str, Any],
    name: str,
    license: str | None,
    notes: str | None,
) -> Entry:
    """Import weights that were read from a file of another kind, with what is known of them."""
    origin = f"imported from {source.name}, SHA-256 {sha256(source)}"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{OWN_SUFFIX}"
        # Tensors that share their memory in a checkpoint cannot in safetensors.
        apart = {key: value.clone() for key, value in state.items()}
        more = {"license": license, "notes": notes}
        said = {**said, "origin": origin} | {key: text for key, text in more.items() if text}
        save_weights(path, apart, said, half=False)
        return add(path, name)


def _published(source: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Find out what network weights are of, and how far it looks.

    Raises
    ------
    ModelError
        If it is not known, or tiles would not agree with the whole image.
    """
    from napari_restore.networks.spandrel_net import described

    from .reach import measure

    try:
        built = described(state)
        options = {"network": built.architecture.id, "channels": built.input_channels}
        network: Any = build_network("spandrel", options)
        network.load_state_dict(state)
        device = resolve_device("auto")
        network.to(device)
        step, halo = measure(network, built.input_channels, network.multiple_of, device)
    except ModelError as error:
        raise ModelError(f"{source.name} cannot be imported. {error}") from error
    return {"architecture": "spandrel", "options": options, "multiple_of": step, "halo": halo}


def rename(old: str, new: str) -> Entry:
    """Give a model of the user's another name; its hash stays.

    Raises
    ------
    ModelError
        If it ships, does not exist, or the new name is taken.
    """
    path, new = _own_path(old), check_name(new)
    if new != old:
        if _taken(new) and new.casefold() != old.casefold():
            raise ModelError(f"There is a model '{new}' already. Choose another name.")
        try:
            os.rename(path, path.with_name(f"{new}{OWN_SUFFIX}"))
        except OSError as error:
            raise FileError(f"'{old}' cannot be renamed ({error}).") from error
        _rename_default(old, new)
    return find_entry(new)


def remove(name: str) -> None:
    """Delete a model of the user's.

    Raises
    ------
    ModelError
        If it ships or does not exist.
    """
    path = _own_path(name)
    try:
        path.unlink()
    except OSError as error:
        raise FileError(f"'{name}' cannot be removed ({error}).") from error
    _rename_default(name, None)


def export(name: str, target: Path, *, force: bool = False) -> Path:
    """Copy a model into a file, with its card beside it.

    Parameters
    ----------
    name : str
    target : path
        A folder, or a file that ends in ``.safetensors``; the card gets the ending ``.md``. A file
        that ends in ``.zip`` becomes a package of bioimage.io, with TorchScript; one that ends in
        ``.onnx`` the network as an ONNX graph.
    force : bool
        Replace a model that is there.

    Returns
    -------
    Path
        The file.
    """
    entry, target = find_entry(name), Path(target).expanduser()
    if target.is_dir():
        target = target / f"{name}{OWN_SUFFIX}"
    package, graph = target.suffix == ".zip", target.suffix == ".onnx"
    if target.suffix != OWN_SUFFIX and not package and not graph:
        raise FileError(
            f"{target} has to end in {OWN_SUFFIX}, in .zip for bioimage.io, or in .onnx."
        )
    card = target.with_suffix(".md")
    for path in (target,) if package else (target, card):
        if path.exists() and not force:
            raise FileError(f"{path} exists already. Choose another name, or --force.")
    if target.exists() and target.samefile(entry.spec.path):
        raise FileError(f"{target} is the model itself.")
    try:
        if package:
            from .bioimageio import write_package

            write_package(entry.spec, entry.card(), target)
            return target
        if graph:
            from .onnx_file import write_onnx

            write_onnx(entry.spec, target)
        else:
            with whole_file(target) as temporary:
                shutil.copyfile(entry.spec.path, temporary)
        write_text(card, entry.card())
    except OSError as error:
        raise FileError(f"{target} cannot be written ({error}).") from error
    return target


def use_by_default(name: str) -> Entry:
    """Let "auto" take a model for its task and kind of image; a bundled one ends that.

    Raises
    ------
    ModelError
        If there is none, or it looks at two frames or is told a point spread function.
    """
    entry = find_entry(name)
    spec = entry.spec
    if spec.frames != 1 or spec.psf:
        raise ModelError(f"'{name}' is chosen by other options, and cannot be a default.")
    _set_default(spec.task, spec.kind, None if entry.bundled else name)
    return find_entry(name)


def end_default(name: str) -> None:
    """Let "auto" take the bundled model again in place of one of the user's."""
    _rename_default(name, None)


def _taken(name: str) -> bool:
    taken = [*(spec.name for spec in SHIPPED), *own_files()]
    # Some systems tell no capitals.
    return name.casefold() in map(str.casefold, taken)


def _own_path(name: str) -> Path:
    if any(spec.name == name for spec in SHIPPED):
        raise ModelError(f"'{name}' ships with the package and stays as it is.")
    path = own_files().get(name)
    if path is None:
        raise ModelError(f"No model '{name}' in {catalog.own_folder()}.")
    return path


def _set_default(task: str, kind: str, name: str | None) -> None:
    """Let "auto" take a model for a kind of image; None gives it back to the bundled one."""
    kept = {key: value for key, value in read_defaults().items() if key != f"{task} {kind}"}
    _write_defaults(kept if name is None else {**kept, f"{task} {kind}": name})


def _rename_default(old: str, new: str | None) -> None:
    """Follow a model that was renamed, or removed."""
    known = read_defaults()
    changed = {key: new if value == old else value for key, value in known.items()}
    if changed != known:
        _write_defaults({key: value for key, value in changed.items() if value is not None})


def _write_defaults(known: dict[str, Any]) -> None:
    path = catalog.own_folder() / DEFAULTS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known, indent=1))
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error}). The default stays.") from error
