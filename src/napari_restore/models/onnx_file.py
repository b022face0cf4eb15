"""Models as ONNX graphs, for programs that do not have PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

from napari_restore.errors import ModelError
from napari_restore.image.intensity import PERCENTILES
from napari_restore.runtime import installed_version, torch, whole_file

from .catalog import build_network, load_weights, refuse_unless_local

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from .catalog import ModelSpec

#: Largest sides, in steps of ``multiple_of``, and most images at once that the graph declares.
_SIDES, _BATCH = 1 << 14, 1 << 10
#: What the order of additions may change, for a range of 1.
_OFF = 1e-4


def write_onnx(spec: ModelSpec, target: Path) -> None:
    """Write the network of a model as an ONNX graph with free height and width.

    It takes ``image``, float32 (N, C, H, W) of about [0, 1], and gives ``restored``, of the same
    shape. Its metadata say what it is for, how images are scaled, and what tiles need.

    Parameters
    ----------
    spec : ModelSpec
        Of a network that restores a part of an image from that part alone.
    target : Path
        Appears whole or not at all.

    Raises
    ------
    ModelError
        If the network needs more than a part of the image, what exports it is not installed, or it
        computes what ONNX cannot.
    """
    refuse_unless_local(spec, "An ONNX graph")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"To write ONNX needs onnx and onnxscript, which cannot be imported ({error}). Install "
            'them: pip install "napari-restore[onnx]"'
        ) from error
    graph = _graph(spec)
    for key, value in _metadata(spec).items():
        graph.metadata_props.add(key=key, value=value)
    graph.producer_name, graph.producer_version = "napari-restore", installed_version()
    graph.doc_string = f"{spec.task.replace('_', ' ')} of {spec.kind} images"
    with whole_file(target) as temporary:
        temporary.write_bytes(graph.SerializeToString())


def _graph(spec: ModelSpec) -> Any:
    network = build_network(spec.architecture, spec.options)
    network.load_state_dict(load_weights(spec))
    network.eval().requires_grad_(False)
    step, dim = spec.multiple_of, torch.export.Dim
    # Height and width differ, and so are not taken for one; a batch of one is not taken for all.
    count, side = 1 if spec.as_it_is else 2, -(-64 // step) * step
    image = torch.rand(count, spec.channels, side, side + step)
    # Networks of others are given one image at a time.
    sizes = {} if spec.as_it_is else {0: dim("batch", min=1, max=_BATCH)}
    for axis, name in ((2, "rows"), (3, "columns")):
        free = dim(name, min=1, max=_SIDES)
        sizes[axis] = step * free if step > 1 else free
    log = logging.getLogger("torch.onnx")
    before, log.level = log.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            # PyTorch warns of what it is going to change in itself.
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["restored"],
                dynamic_shapes=(sizes,),
            )
            _check(program.exported_program.module(), network, image, step)
    except Exception as error:
        # The exporter's own errors are pages long, and of many classes.
        brief = " ".join(str(error.__cause__ or error).split())[:200]
        raise ModelError(
            f"'{spec.name}' cannot be written as ONNX: its network '{_network(spec)}' computes "
            f"what the exporter does not know ({brief}). Export it as .safetensors."
        ) from error
    finally:
        log.level = before
    return program.model_proto


def _check(exported: Any, network: Any, image: Tensor, step: int) -> None:
    """Raise a `ValueError` if the size of the example has become a part of the graph."""
    other = image.flip(3)[..., step:, : image.shape[2] - step].contiguous()
    with torch.no_grad():
        off = float((exported(other) - network(other)).abs().max())
    if not off < _OFF:
        raise ValueError(f"at another size the graph is off by {off:.2g}")


def _network(spec: ModelSpec) -> str:
    return str(spec.options.get("network", spec.architecture))


def _metadata(spec: ModelSpec) -> dict[str, str]:
    scaling = (
        {"8 bits": "divide by 255"}
        if spec.channels == 3
        else {"percentiles of the image that become 0 and 1": list(PERCENTILES)}
    )
    said = {
        "name": spec.name,
        "task": spec.task,
        "channels": spec.channels,
        "multiple_of": spec.multiple_of,
        "halo": spec.halo,
        "scaling": scaling,
        "license": spec.license,
        "weights_sha256": spec.sha256 or "",
        "network": _network(spec),
    }
    return {
        f"napari_restore.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in said.items()
    }
