"""Extreme integers through the operators of an artifact: does this processor add them exactly?

x86 processors without VNNI add two products of uint8 and int8 in 16 bits and cut off what does not
fit. Which kernel an engine takes is its own affair, so nobody is asked: the products are computed,
and compared with integers. Every scale is 1 and no sum reaches 2^24, so that float32 outputs are
the sums, digit for digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.onnx_products import CONVOLUTION, FOUR_BITS, LINEAR
from edge_train.formats.onnx_writer import Attribute, GraphWriter
from edge_train.memory.shortage import is_shortage

# An engine turns signed weights into unsigned ones when it opens a graph, where its kernels would
# cut off; other processors ignore it. The engine of 1.19.2 ends the process instead.
PRECISE = "session.x64quantprecision"
_ROWS, _INPUTS, _OUTPUTS = 5, 160, 19  # no multiples of what a kernel takes at once
_CHANNELS, _FILTERS, _SIDE = 32, 16, 5
_GROUP, _FOUR_BIT_INPUTS = 32, 64
_MIDDLE = 128  # of a convolution's uint8 outputs: the bias moves every sum there
_FATAL_ONLY = 4

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """A graph, what goes in, and the integers that have to come out."""

    graph: bytes
    feeds: Mapping[str, Array]
    expected: Mapping[str, Integers]


def make_probe(operators: frozenset[str], largest: int) -> Probe:
    """Return the products of `operators` with weights of `largest` and its negative.

    Memory:
      Some ten kilobytes.
    """
    writer = GraphWriter()
    feeds: dict[str, Array] = {}
    expected: dict[str, Integers] = {}
    adders = {LINEAR: _add_linear, CONVOLUTION: _add_convolution}
    for operator in sorted(operators & adders.keys()):
        adders[operator](writer, largest, feeds, expected)
    if FOUR_BITS in operators:
        _add_four_bits(writer, feeds, expected)
    return Probe(writer.content(), feeds, expected)


@cache
def wrong_by(engine: Any, operators: frozenset[str], largest: int, *, precise: bool) -> int:
    """Return the largest error of a sum, over kernels with and without packed weights; 0 is exact.

    Args:
      engine: the module `onnxruntime`.
      largest: magnitude of a weight that meets uint8 activations.
      precise: ask the engine for unsigned weights.

    Raises:
      InputError: the engine does not know the operators.

    Memory:
      A session of some hundred kilobytes, for a few milliseconds; as the first session of a process
      also the engine's code and tables, about 15 MB, which every first session loads.
    """
    probe = make_probe(operators, largest)
    worst = 0
    for packed in (True, False):
        settings = engine.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = _FATAL_ONLY
        settings.enable_cpu_mem_arena = False
        if precise:
            settings.add_session_config_entry(PRECISE, "1")
        if not packed:
            settings.add_session_config_entry("session.disable_prepacking", "1")
        outputs = _run(engine, probe, settings)
        for output, sums in zip(outputs, probe.expected.values(), strict=True):
            # A scale of 127 / 255 is no float: what it is off by is far from half of one.
            worst = max(worst, round(float(np.abs(output - sums).max())))
    return worst


def _run(engine: Any, probe: Probe, settings: Any) -> list[NDArray[Any]]:
    try:
        session = engine.InferenceSession(probe.graph, settings, providers=["CPUExecutionProvider"])
        outputs: list[NDArray[Any]] = session.run(list(probe.expected), dict(probe.feeds))
    except Exception as error:  # the engine's errors share no base class
        if is_shortage(error):
            raise
        raise InputError(
            f"ONNX Runtime {engine.__version__} cannot multiply small integers ({error}); install "
            "another version, or export the model with --quant int8."
        ) from error
    return outputs


def _weights(largest: int, rows: int, columns: int) -> Integers:
    """Return (rows, columns) of one sign, of pairs that cancel, and of random signs."""
    weights = np.random.default_rng(columns).choice([-largest, largest], (rows, columns))
    weights[0], weights[1], weights[2:4] = largest, -largest, -largest
    weights[2, ::2] = weights[3, 2::4] = weights[3, 3::4] = largest
    return weights.astype(np.int64)


def _add_linear(
    writer: GraphWriter, largest: int, feeds: dict[str, Array], expected: dict[str, Integers]
) -> None:
    """Add a linear layer that rounds its input on the fly, as an export writes it."""
    weights = _weights(largest, _OUTPUTS, _INPUTS)
    rows = np.random.default_rng(0).choice([0, 255], (_ROWS, _INPUTS))
    rows[0], rows[1] = 255, 0
    rows[1, ::2] = 255
    rows -= _MIDDLE  # rounded with scale 1 and zero point 128
    feeds["rows"] = rows.astype(np.float32)
    expected["sums"] = rows @ weights.T
    given = writer.input("rows", rows.shape)
    stored = writer.weight("linear", weights.T.astype(np.int8))
    scale = writer.weight("linear_scale", np.ones(_OUTPUTS, np.float32))
    writer.node("DynamicQuantizeLinear", [given], ["bytes", "scale", "zero"])
    writer.node(LINEAR, ["bytes", stored, "zero"], ["integers"])
    writer.node("Cast", ["integers"], ["numbers"], {"to": 1})
    writer.node("Mul", ["scale", scale], ["both"])
    writer.node("Mul", ["numbers", "both"], [writer.output("sums", (_ROWS, _OUTPUTS))])


def _add_convolution(
    writer: GraphWriter, largest: int, feeds: dict[str, Array], expected: dict[str, Integers]
) -> None:
    """Add a convolution between roundings; its picture is of one color, so every sum is one."""
    weights = _weights(largest, _FILTERS, _CHANNELS * 9).reshape(_FILTERS, _CHANNELS, 3, 3)
    levels = np.full(_CHANNELS, 255)
    levels[_CHANNELS // 2 :: 3] = 0
    picture = np.broadcast_to(levels[None, :, None, None], (1, _CHANNELS, _SIDE, _SIDE))
    feeds["picture"] = np.ascontiguousarray(picture, np.float32)
    bias = _MIDDLE - np.einsum("oikl,i->o", weights, levels)
    shape = (1, _FILTERS, _SIDE - 2, _SIDE - 2)
    expected["colors"] = np.full(shape, _MIDDLE)
    step = writer.weight("step", np.ones((), np.float32))
    level = writer.weight("level", np.zeros((), np.uint8))
    steps = writer.weight("steps", np.ones(_FILTERS, np.float32))
    filters = writer.weight("filters", weights.astype(np.int8))
    moved = writer.weight("bias", bias.astype(np.int32))
    writer.node(
        "QuantizeLinear", [writer.input("picture", picture.shape), step, level], ["colors8"]
    )
    writer.node("DequantizeLinear", ["colors8", step, level], ["rounded"])
    writer.node("DequantizeLinear", [filters, steps], ["float_filters"], {"axis": 0})
    writer.node("DequantizeLinear", [moved, steps], ["float_bias"], {"axis": 0})
    attributes: dict[str, Attribute] = {
        "kernel_shape": (3, 3),
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "group": 1,
    }
    writer.node(CONVOLUTION, ["rounded", "float_filters", "float_bias"], ["mixed"], attributes)
    writer.node("QuantizeLinear", ["mixed", step, level], ["mixed8"])
    writer.node("DequantizeLinear", ["mixed8", step, level], [writer.output("colors", shape)])


def _add_four_bits(
    writer: GraphWriter, feeds: dict[str, Array], expected: dict[str, Integers]
) -> None:
    """Add a linear layer of 4-bit weights, whose inputs an engine rounds to 8 bits in its own way.

    Kernels of Arm round a row to 256 levels from its smallest to its largest number, others a group
    to [-127, 127]. Rows of one sign are the same in both.
    """
    weights = np.where(_weights(1, _OUTPUTS, _FOUR_BIT_INPUTS) > 0, 7, -8)
    rows = np.random.default_rng(1).choice([0, 127], (_ROWS, _FOUR_BIT_INPUTS))
    rows[0], rows[-2] = 127, -127
    rows[-1] = -rows[-1]
    feeds["few_rows"] = rows.astype(np.float32)
    expected["few_sums"] = rows @ weights.T
    levels = (weights + 8).astype(np.uint8).reshape(_OUTPUTS, -1, _GROUP)
    packed = writer.weight("packed", levels[..., 0::2] | levels[..., 1::2] << 4)
    scales = writer.weight("groups", np.ones(_OUTPUTS * levels.shape[1], np.float32))
    attributes: dict[str, Attribute] = {
        "K": _FOUR_BIT_INPUTS,
        "N": _OUTPUTS,
        "bits": 4,
        "block_size": _GROUP,
        "accuracy_level": 4,
    }
    writer.node(
        FOUR_BITS,
        [writer.input("few_rows", rows.shape), packed, scales],
        [writer.output("few_sums", (_ROWS, _OUTPUTS))],
        attributes,
        "com.microsoft",
    )
