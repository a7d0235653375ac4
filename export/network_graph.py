"""A trained small network as an ONNX graph that any inference engine runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError, ModelError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.network import (
    Activation,
    Convolution,
    Dense,
    Normalization,
    Pool,
    Recurrent,
    Reshape,
    output_shape,
)
from edge_train.formats.network_file import SavedNetwork, load
from edge_train.units import format_bytes

_OPSET = 17
_VARIANCE_FLOOR = 1e-5  # as in training


def export_network(source: Path, out: Path, quant: str, blocks: int | None) -> str:
    """Write the first blocks of a saved network as one ONNX file; return a line about it.

    Args:
      source: `network.safetensors` of a run.
      quant: "none", or "int8" for weights in INT8.
      blocks: how many; None takes all but the last, which are features for an adapter.

    Raises:
      InputError: a word or number that cannot be used.
      ModelError: the package `onnx` is missing, or a layer has no counterpart here.
    """
    saved = load(source)
    if saved.mean.shape != saved.network.input_shape[-1:]:
        raise ModelError(
            f"{source}: an adapter of an earlier version, with what standardizes the samples of "
            "its backbone and not what it reads; train it again."
        )
    there = len(saved.network.blocks)
    count = there - 1 if blocks is None else blocks
    if not 1 <= count <= there:
        raise InputError(f"--blocks {count}: {source} has {there} blocks.")
    if quant not in ("none", "int8"):
        raise InputError(f"--quant {quant!r}: a small network is exported with none or int8.")
    write_graph(saved, out, int8=quant == "int8", blocks=count)
    size = format_bytes(out.stat().st_size)
    shape = " x ".join(map(str, saved.network.blocks[count - 1].output_shape))
    return f"{out}: {count} of {there} blocks, {size}; gives {shape} numbers a sample"


def write_graph(saved: SavedNetwork, path: Path, *, int8: bool, blocks: int) -> None:
    """Write the first `blocks` blocks as one ONNX file.

    The graph takes samples as they are stored (pixels from 0 to 255, channels last, float32),
    standardizes them itself and gives what the last of the blocks gives. With `int8`, weights are
    stored in INT8 with one scale per row and made float when the graph is loaded or run.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise ModelError(
            "export needs the package onnx; `pip install edge-train[desk]`."
        ) from error
    graph = _Graph(helper, numpy_helper, int8)
    network = saved.network
    shape = network.input_shape
    value = graph.add("Sub", "input", graph.constant("mean", saved.mean))
    value = graph.add("Div", value, graph.constant("deviation", saved.deviation))
    if len(shape) == 3:
        value = graph.add("Transpose", value, perm=[0, 3, 1, 2])
    for block in network.blocks[:blocks]:
        for number, layer in enumerate(block.layers):
            if isinstance(layer, Recurrent | Normalization) and len(shape) == 2:
                raise ModelError(
                    f"block {block.name} has {type(layer).__name__.lower()} over a sequence, which "
                    "is not exported; use the network file itself, which NumPy runs."
                )
            part = {
                name: saved.parameters[f"{block.name}.{name}"]
                for name in ("weight", "bias", "scale", "shift")
                if f"{block.name}.{name}" in saved.parameters
            }
            statistics = saved.statistics.get(f"{block.name}.{number}")
            value = graph.layer(f"{block.name}.{number}", layer, value, part, statistics, shape)
            shape = output_shape(network.text, layer, shape)
    if len(shape) == 3:
        value = graph.add("Transpose", value, perm=[0, 2, 3, 1])
    graph.add("Identity", value, name="output")
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *network.input_shape])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", *shape])
    made = helper.make_graph(graph.nodes, "network", [entry], [output], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    checker.check_model(model)
    write_bytes(path, model.SerializeToString())


class _Graph:
    """Nodes and constants so far; pictures run channels first inside."""

    def __init__(self, helper: Any, numpy_helper: Any, int8: bool) -> None:
        self._helper = helper
        self._numpy_helper = numpy_helper
        self._int8 = int8
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        array = np.ascontiguousarray(values)
        self.constants.append(self._numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, values: NDArray[np.float32]) -> str:
        """Return a constant with outputs first, in INT8 if so asked."""
        if not self._int8:
            return self.constant(name, values)
        largest = np.abs(values).reshape(len(values), -1).max(axis=1)
        scale = np.maximum(largest / 127, 1e-12).astype(np.float32)
        column = scale.reshape(-1, *[1] * (values.ndim - 1))
        levels = self.constant(f"{name}.levels", np.rint(values / column).astype(np.int8))
        zero = self.constant(f"{name}.zero", np.zeros(len(values), np.int8))
        steps = self.constant(f"{name}.scale", scale)
        return self.add("DequantizeLinear", levels, steps, zero, axis=0)

    def layer(
        self,
        place: str,
        layer: Any,
        value: str,
        part: Mapping[str, NDArray[np.float32]],
        statistics: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
        shape: tuple[int, ...],
    ) -> str:
        """Append one layer to `value`, whose samples are of `shape`; return what it gives."""
        match layer:
            case Dense():
                weight = self.weight(f"{place}.weight", part["weight"])
                bias = self.constant(f"{place}.bias", part["bias"])
                return self.add("Gemm", value, weight, bias, transB=1)
            case Convolution(_, kernel, padding, stride):
                matrix = part["weight"].reshape(-1, kernel, kernel, shape[2])
                weight = self.weight(f"{place}.weight", matrix.transpose(0, 3, 1, 2))
                bias = self.constant(f"{place}.bias", part["bias"])
                pads = [padding] * 4
                return self.add("Conv", value, weight, bias, pads=pads, strides=[stride, stride])
            case Activation(kind):
                return self.add({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}[kind], value)
            case Normalization("batch"):
                assert statistics is not None
                names = ("scale", "shift", "mean", "variance")
                arrays = (part["scale"], part["shift"], *statistics)
                own = [
                    self.constant(f"{place}.{name}", array)
                    for name, array in zip(names, arrays, strict=True)
                ]
                return self.add("BatchNormalization", value, *own, epsilon=_VARIANCE_FLOOR)
            case Pool(kind, size):
                word = "MaxPool" if kind == "max" else "AveragePool"
                return self.add(word, value, kernel_shape=[size, size], strides=[size, size])
            case Reshape("flat"):
                last = self.add("Transpose", value, perm=[0, 2, 3, 1])
                return self.add("Flatten", last, axis=1)
        raise ModelError(f"{place}: {layer} is not exported.")
