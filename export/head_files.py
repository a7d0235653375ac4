"""A trained projection for other programs: PyLate's and sentence-transformers' layout, and ONNX.

modules.json            what follows the encoder, in order
1_Dense/, 2_Dense/      config.json and model.safetensors, as `pylate.models.Dense` reads them;
                        a purely linear stack is one of them, folded
1_GLU/                  likewise for a gated projection, which neither has: out (up x *
                        act(gate x)), our own
head.onnx               tokens (n, width) float32 -> vectors (n, outputs) of length 1
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.projections import Folded, folded
from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_bytes
from edge_train.formats.onnx_writer import GraphWriter
from edge_train.formats.tensor_store import to_safetensors

_ACTIVATIONS = {
    "silu": "torch.nn.modules.activation.SiLU",
    "relu": "torch.nn.modules.activation.ReLU",
    "identity": "torch.nn.modules.linear.Identity",
}
_DENSE, _PYLATE = "sentence_transformers.models.Dense", "pylate.models.Dense.Dense"


def write_head(folder: Path, kind: str, activation: str, values: Mapping[str, Array]) -> None:
    """Write a projection into a folder.

    Raises:
      RunFolderError: it cannot be written.
    """
    head = folded(kind, activation, values)
    modules = []
    for number, (name, config, tensors) in enumerate(_modules(kind, activation, values, head), 1):
        place = folder / f"{number}_{name}"
        place.mkdir(parents=True, exist_ok=True)
        write_bytes(place / "config.json", _json(config))
        write_bytes(place / "model.safetensors", to_safetensors(tensors, {"format": "pt"}))
        type_ = {"Dense": _PYLATE if config.get("use_residual") else _DENSE}.get(name, name)
        modules.append({"idx": number, "name": str(number), "path": place.name, "type": type_})
    write_bytes(folder / "modules.json", _json(modules))
    write_bytes(folder / "head.onnx", graph_of(head))


def _modules(
    kind: str, activation: str, values: Mapping[str, Array], head: Folded
) -> list[tuple[str, dict[str, Any], dict[str, Array]]]:
    if head.up is None:
        assert head.direct is not None
        return [_dense(head.direct, "identity")]
    if kind == "glu":
        outputs, _ = values["out"].shape
        config = {
            "in_features": values["up"].shape[1],
            "out_features": outputs,
            "activation_function": _ACTIVATIONS[activation],
            "computes": "out (up x * act(gate x))",
        }
        tensors = {f"{name}.weight": np.ascontiguousarray(v) for name, v in values.items()}
        return [("GLU", config, tensors)]
    first = _dense(values["up"], activation)
    if kind in ("residual", "upscaled"):
        first[1]["use_residual"] = True
    if kind == "upscaled":
        first[2]["residual.weight"] = np.ascontiguousarray(values["skip"])
    return [first, _dense(values["out"], "identity")]


def _dense(weight: Array, activation: str) -> tuple[str, dict[str, Any], dict[str, Array]]:
    outputs, inputs = weight.shape
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": False,
        "activation_function": _ACTIVATIONS[activation],
    }
    return "Dense", config, {"linear.weight": np.ascontiguousarray(weight)}


def graph_of(head: Folded) -> bytes:
    """Return the ONNX graph of a folded projection and the division by its length."""
    graph = GraphWriter()
    first = head.direct if head.direct is not None else head.up
    last = head.direct if head.direct is not None else head.out
    assert first is not None and last is not None
    tokens = graph.input("tokens", ("n", first.shape[1]))
    parts = []

    def times(name: str, matrix: Array, inputs: str) -> str:
        weight = graph.weight(f"{name}.weight", np.ascontiguousarray(matrix.T))
        graph.node("MatMul", [inputs, weight], [name])
        return name

    if head.direct is not None:
        parts.append(times("direct", head.direct, tokens))
    if head.up is not None and head.out is not None:
        inner = times("up", head.up, tokens)
        if head.activation == "silu":
            graph.node("Sigmoid", [inner], ["share"])
            graph.node("Mul", [inner, "share"], ["bent"])
            inner = "bent"
        elif head.activation == "relu":
            graph.node("Relu", [inner], ["bent"])
            inner = "bent"
        if head.gate is not None:
            graph.node("Mul", [inner, times("gate", head.gate, tokens)], ["gated"])
            inner = "gated"
        parts.append(times("out", head.out, inner))
    total = parts[0]
    if len(parts) > 1:
        graph.node("Add", parts, ["total"])
        total = "total"
    graph.node("LpNormalization", [total], ["vectors"], {"axis": 1, "p": 2})
    graph.output("vectors", ("n", last.shape[0]))
    return graph.content()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
