"""Give a graph its weights, and its linear and convolution layers the arithmetic of a profile.

    profile     linear layers                           convolutions
    none        float32                                 float32
    int8        int8 weights, float activations         int8 weights, float activations
    int8-fast   7-bit weights, activations uint8 on     7-bit weights, activations uint8 with
                the fly (one scale per call)            calibrated ranges
    int4        int4 weights in groups (MatMulNBits),   as int8-fast
                activations int8 in groups

A 7-bit weight is an int8 in [-64, 64]. x86 processors without VNNI add two products of uint8 and
int8 in 16 bits, and a sum that does not fit is cut off without a word: with 8-bit weights the same
graph would compute other numbers there. Two products of 7-bit weights always fit, so every
processor computes the same integers, with the same fast kernel.

Where activations are rounded, three kinds of convolution keep float activations, as in `int8`: the
first and the last of the denoiser, and the shortcuts, which read and write the residual stream with
nothing to even it out before. Other 1x1 convolutions are linear layers of `int8-fast`: a calibrated
convolution also rounds what comes out. ConvInteger is never written: engines run it slowly or not
at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_train.export.model_weights import ModelWeights
from edge_train.export.weight_file import Role, StoredWeights, WeightFile
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.registry import load

INT4_GROUP = 32  # columns that share a float32 scale: 5 bits per weight (64 would be 4.5)
# com.microsoft.MatMulNBits: 4 is int8 activations in groups. The default, 0, leaves the choice to
# the engine, and engines differ.
_INT4_ACCURACY_LEVEL = 4
# Of weights that meet uint8 activations: 2 * 255 * 64 = 32,640 fits into the 16 signed bits, up to
# 32,767, in which a processor may add two products; 2 * 255 * 65 does not.
LARGEST_FACTOR = 64
_LARGEST_INT8 = 127  # of weights that are turned back into floats first
_FLOAT_CONVOLUTIONS = ("conv_in", "conv_out", "conv_shortcut")

Range = tuple[float, float]


@dataclass(frozen=True)
class _Linear:
    """A linear layer of the graph: x @ weight.T, with its bias where the exporter joined it."""

    node: ir.Node
    weight: str
    bias: ir.Value | None


def fill(
    model: ir.Model,
    profile: str,
    source: ModelWeights,
    file: WeightFile | StoredWeights,
    ranges: Mapping[str, Range],
) -> None:
    """Rewrite `model` in place for a profile; every weight goes through `file`.

    Args:
      model: as `diffusion_graphs` returns it.
      profile: a quantisation that has a `writer`.
      ranges: for the calibrated ones, the smallest and largest number that each value of
        `calibrated_values` takes.

    Memory:
      A few copies of the largest tensor.
    """
    writer = _Writer(model.graph, source, file, ranges)
    load(required(quants.get(profile).writer))(writer, list(model.graph))
    writer.finish()
    model.graph.sort()


def write_float(writer: "_Writer", nodes: Sequence[ir.Node]) -> None:
    """Write float weights and float arithmetic."""
    for node in nodes:
        if linear := _linear(node):
            writer.weight_only_linear(linear, quantize=False)


def write_int8(writer: "_Writer", nodes: Sequence[ir.Node]) -> None:
    """Write 8-bit weights and float arithmetic."""
    for node in nodes:
        if linear := _linear(node):
            writer.weight_only_linear(linear, quantize=True)
        elif node.op_type == "Conv":
            writer.weight_only_convolution(node)


def write_int8_fast(writer: "_Writer", nodes: Sequence[ir.Node]) -> None:
    """Write linear layers that round their inputs on the fly, and calibrated convolutions."""
    for node in nodes:
        if linear := _linear(node):
            writer.dynamic_linear(linear)
        elif node.op_type == "Conv":
            _rounding_convolution(writer, node)


def write_int4(writer: "_Writer", nodes: Sequence[ir.Node]) -> None:
    """Write linear layers with 4-bit weights, and convolutions as in `int8-fast`."""
    for node in nodes:
        if linear := _linear(node):
            writer.int4_linear(linear)
        elif node.op_type == "Conv":
            _rounding_convolution(writer, node)


def _rounding_convolution(writer: "_Writer", node: ir.Node) -> None:
    if _keeps_float_activations(node):
        writer.weight_only_convolution(node)
    elif _is_pointwise(node):
        writer.pointwise_convolution(node)
    else:
        writer.calibrated_convolution(node)


def calibrated_values(model: ir.Model) -> list[str]:
    """Return the names of the values whose ranges `int8-fast` and `int4` need."""
    names: dict[str, None] = {}
    for node in model.graph:
        if node.op_type == "Conv" and not (_is_pointwise(node) or _keeps_float_activations(node)):
            names[_name(node.inputs[0])] = None
            names[_name(node.outputs[0])] = None
    return list(names)


def _name(value: ir.Value | None) -> str:
    if value is None or value.name is None:
        raise ValueError("the exporter left a value without a name")
    return value.name


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is None


def _keeps_float_activations(node: ir.Node) -> bool:
    return any(part in _FLOAT_CONVOLUTIONS for part in _name(node.inputs[1]).split("."))


def _is_pointwise(node: ir.Node) -> bool:
    """Return whether a convolution mixes channels only."""
    strides, shape = node.attributes["strides"].as_ints(), node.attributes["kernel_shape"].as_ints()
    return {*strides, *shape, node.attributes["group"].as_int()} == {1}


def _linear(node: ir.Node) -> _Linear | None:
    """Return the linear layer that a node computes, if it does."""
    second = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type == "Gemm" and _is_weight(second):
        return _Linear(node, _name(second), node.inputs[2] if len(node.inputs) > 2 else None)
    turned = second.producer() if second is not None else None
    if node.op_type != "MatMul" or turned is None or turned.op_type != "Transpose":
        return None
    return _Linear(node, _name(turned.inputs[0]), None) if _is_weight(turned.inputs[0]) else None


class _Writer:
    """Replaces layers of one graph."""

    def __init__(
        self,
        graph: ir.Graph,
        source: ModelWeights,
        file: WeightFile | StoredWeights,
        ranges: Mapping[str, Range],
    ) -> None:
        self._graph, self._source, self._file, self._ranges = graph, source, file, ranges
        self._dynamic: dict[str, tuple[ir.Value, ...]] = {}  # value -> integers, scale, zero
        self._rounded: dict[str, ir.Value] = {}  # value -> itself after a calibrated round trip
        self._steps: dict[str, float] = {}  # step of every such rounded value
        self._written: dict[str, ir.Value] = {}

    def weight_only_linear(self, layer: _Linear, *, quantize: bool) -> None:
        """Write (inputs, outputs), as the engine multiplies it."""
        weight = self._read(layer.weight).T
        if quantize:
            operand = self._dequantized(layer.node, layer.weight, weight, axis=1)
        else:
            operand = self._write(layer.weight, weight, "weight")
        self._replace(layer, self._op("MatMul", [layer.node.inputs[0], operand], layer.node))

    def dynamic_linear(self, layer: _Linear) -> None:
        """Round the input with one scale for the whole call, multiply integers, scale back."""
        weight = self._read(layer.weight).T
        self._replace(layer, self._dynamic_product(layer, layer.node.inputs[0], weight))

    def pointwise_convolution(self, node: ir.Node) -> None:
        """Compute a 1x1 convolution as a dynamic linear layer, channels last."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        layer = _Linear(node, _name(node.inputs[1]), bias)
        there, back = (0, 2, 3, 1), (0, 3, 1, 2)
        x = self._op("Transpose", [node.inputs[0]], node, [ir.AttrInt64s("perm", there)])
        weight = self._read(layer.weight)
        output = self._dynamic_product(layer, x, weight.reshape(weight.shape[:2]).T)
        if bias is not None:
            output = self._op("Add", [output, bias], node)
        turned = self._op("Transpose", [output], node, [ir.AttrInt64s("perm", back)])
        self._replace(_Linear(node, layer.weight, None), turned)

    def _dynamic_product(
        self, layer: _Linear, x: ir.Value | None, weight: NDArray[np.float32]
    ) -> ir.Value:
        """Return x @ weight, computed in integers; weight is (inputs, outputs)."""
        node = layer.node
        if _name(x) not in self._dynamic:
            made = ir.Node("", "DynamicQuantizeLinear", [x], num_outputs=3)
            for value, suffix in zip(made.outputs, ("q", "scale", "zero"), strict=True):
                value.name = f"{_name(x)}/dynamic_{suffix}"
            self._graph.insert_before(node, made)
            self._dynamic[_name(x)] = tuple(made.outputs)
        quantized, scale, zero = self._dynamic[_name(x)]
        integers, scales = quantize_int8(weight, axis=1, largest=LARGEST_FACTOR)
        operand = self._write(f"{layer.weight}/int8", integers, "quantized")
        weight_scale = self._write(f"{layer.weight}/scale", scales, "scale")
        product = self._op("MatMulInteger", [quantized, operand, zero], node)
        number = self._op("Cast", [product], node, [ir.AttrInt64("to", ir.DataType.FLOAT)])
        both = self._op("Mul", [scale, weight_scale], node)
        return self._op("Mul", [number, both], node)

    def int4_linear(self, layer: _Linear) -> None:
        """Pack the weight into groups of 4-bit integers."""
        weight = self._read(layer.weight)
        rows, columns = weight.shape
        packed, scales = pack_int4(weight, INT4_GROUP)
        inputs = [
            layer.node.inputs[0],
            self._write(f"{layer.weight}/int4", packed, "quantized"),
            self._write(f"{layer.weight}/scale", scales, "scale"),
        ]
        attributes = {
            "K": columns,
            "N": rows,
            "bits": 4,
            "block_size": INT4_GROUP,
            "accuracy_level": _INT4_ACCURACY_LEVEL,
        }
        written = [ir.AttrInt64(name, value) for name, value in attributes.items()]
        output = self._op("MatMulNBits", inputs, layer.node, written, "com.microsoft")
        self._replace(layer, output)

    def weight_only_convolution(self, node: ir.Node) -> None:
        """Keep the convolution and store its weight in int8."""
        name = _name(node.inputs[1])
        node.replace_input_with(1, self._dequantized(node, name, self._read(name), axis=0))

    def calibrated_convolution(self, node: ir.Node) -> None:
        """Put rounding around the convolution, in the form that engines turn into integers."""
        x, output = node.inputs[0], node.outputs[0]
        name = _name(node.inputs[1])
        integers, scales = quantize_int8(self._read(name), axis=0, largest=LARGEST_FACTOR)
        stored = [
            self._write(f"{name}/int8", integers, "quantized"),
            self._write(f"{name}/scale", scales, "scale"),
        ]
        axis = [ir.AttrInt64("axis", 0)]
        node.replace_input_with(1, self._op("DequantizeLinear", stored, node, axis))
        rounded = self._round_trip(node, x)
        node.replace_input_with(0, rounded)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias_name = _name(node.inputs[2])
            steps = np.float32(self._steps[_name(rounded)]) * scales
            bias = np.rint(self._read(bias_name) / steps).astype(np.int32)
            operands = [
                self._write(f"{bias_name}/int32", bias, "bias"),
                self._write(f"{bias_name}/scale", steps, "scale"),
            ]
            node.replace_input_with(2, self._op("DequantizeLinear", operands, node, axis))
        users = [(use.node, use.idx) for use in output.uses()]
        rounded = self._round_trip(node, output, after=True)
        for user, index in users:
            user.replace_input_with(index, rounded)

    def finish(self) -> None:
        """Write what no layer replaced, and drop what none uses any more."""
        for node in reversed(list(self._graph)):
            if node.op_type == "Transpose" and not node.outputs[0].uses():
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if value.const_value is not None:
                continue
            if value.uses():
                stored = self._write(name, self._read(name), "weight", registered=False)
                value.const_value = stored.const_value
            else:
                del self._graph.initializers[name]

    def _read(self, name: str) -> NDArray[np.float32]:
        shape = self._graph.initializers[name].shape
        if shape is None:
            raise ValueError(f"initializer {name} has no shape")
        return self._source.read(name, tuple(int(length) for length in shape.numpy()))

    def _write(
        self,
        name: str,
        array: NDArray[np.float32 | np.int8 | np.uint8 | np.int32],
        role: Role,
        *,
        registered: bool = True,
    ) -> ir.Value:
        """Write a tensor once; `registered` makes it an initializer of the graph."""
        key = f"{name}/transposed" if registered and name in self._graph.initializers else name
        if key not in self._written:
            self._written[key] = self._file.add(key, array, role)
            if registered:
                self._graph.register_initializer(self._written[key])
        return self._written[key]

    def _dequantized(
        self, node: ir.Node, name: str, weight: NDArray[np.float32], axis: int
    ) -> ir.Value:
        integers, scales = quantize_int8(weight, axis)
        operands = [
            self._write(f"{name}/int8", integers, "quantized"),
            self._write(f"{name}/scale", scales, "scale"),
        ]
        return self._op("DequantizeLinear", operands, node, [ir.AttrInt64("axis", axis)])

    def _round_trip(
        self, node: ir.Node, value: ir.Value | None, *, after: bool = False
    ) -> ir.Value:
        """Return `value` rounded to its calibrated range as uint8 and back."""
        name = _name(value)
        if value is not None and name in self._steps:
            return value
        if name not in self._rounded:
            step, zero = activation_step(self._ranges[name])
            operands = [
                self._write(f"{name}/step", np.array(step, np.float32), "scale"),
                self._write(f"{name}/zero", np.array(zero, np.uint8), "zero_point"),
            ]
            there = ir.Node("", "QuantizeLinear", [value, *operands])
            back = ir.Node("", "DequantizeLinear", [there.outputs[0], *operands])
            there.outputs[0].name, back.outputs[0].name = f"{name}/uint8", f"{name}/rounded"
            insert = self._graph.insert_after if after else self._graph.insert_before
            insert(node, [there, back])
            self._rounded[name] = back.outputs[0]
            self._steps[f"{name}/rounded"] = step
        return self._rounded[name]

    def _op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        attributes: list[ir.Attr] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node in front of another; return its output."""
        made = ir.Node(domain, kind, inputs, attributes or ())
        made.outputs[0].name = f"{_name(before.outputs[0])}/{kind}_{len(self._graph)}"
        self._graph.insert_before(before, made)
        return made.outputs[0]

    def _replace(self, layer: _Linear, output: ir.Value) -> None:
        """Put `output`, plus the bias that the layer had, in the place of a layer."""
        if layer.bias is not None:
            output = self._op("Add", [output, layer.bias], layer.node)
        old = layer.node.outputs[0]
        name = _name(old)
        output.shape, output.type = old.shape, old.type
        old.replace_all_uses_with(output)
        self._graph.remove(layer.node, safe=True)
        output.name = name


def quantize_int8(
    weight: NDArray[np.float32], axis: int, largest: int = _LARGEST_INT8
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize to int8 in [-largest, largest], one scale per index of `axis`; zero stays zero.

    >>> quantize_int8(np.array([[2.54, -1.27], [0.0, 0.0]], np.float32), axis=0)[0].tolist()
    [[127, -64], [0, 0]]
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    extreme = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(extreme > 0, extreme / largest, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale.ravel()


def pack_int4(
    weight: NDArray[np.float32], group: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantize rows (rows, columns) to 4 bits, one scale per group of columns.

    The layout of com.microsoft.MatMulNBits: packed (rows, groups, group / 2), the even column in
    the low nibble, 8 standing for zero; scales (rows * groups,). The scale is taken from the number
    of largest magnitude, which becomes exactly -8: one level more than a symmetric range.

    >>> packed, scale = pack_int4(np.array([[8.0, -4.0]], np.float32), group=2)
    >>> packed.tolist(), scale.tolist()
    ([[[192]]], [-1.0])
    """
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -columns % group))).reshape(rows, -1, group)
    at = np.abs(padded).argmax(axis=2, keepdims=True)
    extreme = np.take_along_axis(padded, at, axis=2)
    scale = np.where(extreme != 0, extreme / -8, 1).astype(np.float32)
    levels = np.clip(np.rint(padded / scale) + 8, 0, 15).astype(np.uint8)
    return levels[..., 0::2] | (levels[..., 1::2] << 4), scale.ravel()


def activation_step(extent: Range) -> tuple[float, int]:
    """Return step (a float32) and zero point that map a range, widened to hold 0, onto 0..255.

    >>> activation_step((-1.0, 3.0))[1]
    64
    """
    low, high = min(extent[0], 0.0), max(extent[1], 0.0)
    step = float(np.float32((high - low) / 255)) or 1.0
    return step, min(255, round(-low / step))
