"""Layers of the largest weights, as an export writes them, and the integers they have to compute.

The worst that a product of small integers can meet: pairs of largest weights of one sign, pairs
that cancel, and random signs, with inputs of 0 and 255. Every scale is 1, and no sum reaches 2^24,
so that the float outputs are the integer sums, digit for digit, whatever computed them.

`python tests/support/extreme_products.py`, in the desk environment, writes tests/golden/products
again: graphs for the engine of an environment that cannot write any. In its folder `eight-bits` is
what exports wrote before weights had 7 bits.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edge_train.formats.artifact import ArtifactTensor

PROFILES = ("int8-fast", "int4")
GOLDEN = Path(__file__).parents[1] / "golden" / "products"
OLD = GOLDEN / "eight-bits"
SEVEN_BITS, EIGHT_BITS = (
    64,
    127,
)  # the first is the largest weight that may meet uint8 inputs: 2 * 255 * 64 < 2**15
INPUTS, OUTPUTS = 80, 19  # of the linear layers: neither is a multiple of what a kernel takes
SIDE = 5  # of the pictures
# Name of a convolution -> output channels, input channels, kernel side, stride, zero point.
CONVOLUTIONS = {
    "wide": (16, 32, 3, 1, 0),
    "narrow": (7, 5, 3, 2, 0),
    "centered": (8, 16, 3, 1, 128),
}
_MIDDLE = 128  # of a convolution's uint8 outputs

Array = NDArray[np.float32]
Integers = NDArray[np.int64]


def extreme_weights(largest: int, rows: int, columns: int, smallest: int | None = None) -> Integers:
    """Return (rows, columns) of `largest` and `smallest` (by default its negative)."""
    low = -largest if smallest is None else smallest
    draw = np.random.default_rng(columns)
    weights = draw.choice([largest, low], (rows, columns))
    weights[0], weights[1], weights[2:4] = largest, low, low
    weights[2, ::2] = largest  # neighbors cancel
    weights[3, 2::4] = weights[3, 3::4] = largest  # pairs cancel
    return weights.astype(np.int64)


def linear_weights(profile: str, largest: int = SEVEN_BITS) -> Integers:
    """Return (OUTPUTS, INPUTS)."""
    if profile == "int4":
        return extreme_weights(7, OUTPUTS, INPUTS, smallest=-8)
    return extreme_weights(largest, OUTPUTS, INPUTS)


def pointwise_weights(largest: int = SEVEN_BITS) -> Integers:
    """Return those of a convolution that mixes channels only, (OUTPUTS, INPUTS)."""
    return extreme_weights(largest, OUTPUTS, INPUTS)[::-1]


def convolution_weights(name: str, largest: int = SEVEN_BITS) -> Integers:
    """Return (outputs, inputs, side, side)."""
    outputs, inputs, side, _, _ = CONVOLUTIONS[name]
    return extreme_weights(largest, outputs, inputs * side**2).reshape(-1, inputs, side, side)


def picture(name: str) -> Array:
    """Return the input of a convolution, (1, inputs, SIDE, SIDE): its uint8 numbers are extreme."""
    _, inputs, _, _, zero = CONVOLUTIONS[name]
    levels = np.full(inputs, 255)
    levels[inputs // 2 :] = np.random.default_rng(inputs).choice([0, 255], inputs - inputs // 2)
    whole = np.tile(levels[:, None, None], (1, SIDE, SIDE)) - zero
    return whole[None].astype(np.float32)


def sums(name: str, largest: int = SEVEN_BITS) -> Integers:
    """Return the integer sums of a convolution of its picture, padded by 1: (outputs, h, w)."""
    weights, stride = convolution_weights(name, largest), CONVOLUTIONS[name][3]
    padded = np.pad(picture(name)[0].astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], (1, 2))
    return np.einsum("oikl,ihwkl->ohw", weights, windows[:, ::stride, ::stride])


def bias(name: str, largest: int = SEVEN_BITS) -> Integers:
    """Return (outputs,): it moves the sum at the middle to 128, where a uint8 still shows it."""
    return _MIDDLE - sums(name, largest)[:, 1, 1]


def rows_for(profile: str) -> Iterator[Array]:
    """Yield inputs (rows, INPUTS) of a linear layer that are rounded with a scale of 1."""
    draw = np.random.default_rng(1)
    if profile == "int4":  # rounded to [-127, 127]
        yield np.full((1, INPUTS), 127, np.float32)
        yield draw.choice([-127, 127], (6, INPUTS)).astype(np.float32)
        return
    for zero in (0, 128, 255):  # rounded to [0, 255], less a zero point
        mixed = draw.integers(0, 256, (6, INPUTS))
        mixed[:3], mixed[1, ::2], mixed[2, ::4] = 255, 0, 0
        mixed[3] = draw.choice([0, 255], INPUTS)
        yield (mixed - zero).astype(np.float32)
        yield (mixed[3:4] - zero).astype(np.float32)  # one row: another kernel


def expected(
    profile: str, feeds: Mapping[str, Array], largest: int = SEVEN_BITS
) -> dict[str, Integers]:
    """Return every output of the graph of a profile, from products of 64-bit integers."""
    found = {"linear": feeds["rows"].astype(np.int64) @ linear_weights(profile, largest).T}
    pixels = feeds["pixels"].astype(np.int64)
    found["pointwise"] = np.einsum("oi,bihw->bohw", pointwise_weights(largest), pixels)
    for name in CONVOLUTIONS:
        moved = sums(name, largest) + bias(name, largest)[:, None, None]
        found[name] = np.clip(moved, 0, 255)[None]
    return found


def feeds_for(profile: str) -> Iterator[dict[str, Array]]:
    """Yield inputs of the graph of a profile."""
    pictures = {f"{name}_picture": picture(name) for name in CONVOLUTIONS}
    uint8_rows = list(rows_for("int8-fast"))
    for number, rows in enumerate(rows_for(profile)):
        pixels = uint8_rows[number][:1] if number % 2 else uint8_rows[number][:4]
        channels_first = np.ascontiguousarray(pixels.T.reshape(1, INPUTS, -1, 1))
        yield {"rows": rows, "pixels": channels_first, **pictures}


def write(folder: Path, profile: str, largest: int = SEVEN_BITS) -> list["ArtifactTensor"]:
    """Write the graph of a profile with the exporter's own writer; needs the desk environment.

    With weights of EIGHT_BITS the writer must be told that it may write them.
    """
    import onnx_ir as ir

    from edge_train.export.artifact_folder import write_graph

    float32 = ir.TensorType(ir.DataType.FLOAT)
    tensors: dict[str, Array] = {}

    def value(name: str, shape: list[int | str]) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=float32)

    def weight(name: str, numbers: Integers) -> ir.Value:
        tensors[name] = numbers.astype(np.float32)
        return value(name, list(numbers.shape))

    def node(kind: str, inputs: list[ir.Value], output: ir.Value, **attributes: object) -> ir.Node:
        return ir.node(kind, inputs, attributes, outputs=[output])

    def convolution(name: str, given: ir.Value, weights: Integers, stride: int) -> ir.Node:
        side = weights.shape[2]
        inputs = [given, weight(f"{name}.weight", weights)]
        if side > 1:
            inputs.append(weight(f"{name}.bias", bias(name, largest)))
        return node(
            "Conv",
            inputs,
            value(f"{name}_product", [1, len(weights), f"{name}_height", f"{name}_width"]),
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[side // 2] * 4,
            group=1,
        )

    rows, turned = value("rows", ["rows", INPUTS]), value("turned", [INPUTS, OUTPUTS])
    pixels = value("pixels", [1, INPUTS, "height", "width"])
    stored = weight("linear.weight", linear_weights(profile, largest))
    nodes = [
        node("Transpose", [stored], turned, perm=[1, 0]),
        node("MatMul", [rows, turned], value("linear_product", ["rows", OUTPUTS])),
        convolution("pointwise", pixels, pointwise_weights(largest)[:, :, None, None], 1),
    ]
    inputs, ranges = [rows, pixels], {}
    for name, (_, channels, _, stride, zero) in CONVOLUTIONS.items():
        given = value(f"{name}_picture", [1, channels, SIDE, SIDE])
        inputs.append(given)
        nodes.append(convolution(name, given, convolution_weights(name, largest), stride))
        ranges |= {f"{name}_picture": (0.0 - zero, 255.0 - zero), f"{name}_product": (0.0, 255.0)}
    weights = [v for n in nodes for v in n.inputs if v is not None and v.name in tensors]
    outputs = []
    for made in nodes[1:]:  # the writer replaces values that others use, not a graph's outputs
        product = made.outputs[0]
        outputs.append(value(str(product.name).removesuffix("_product"), list(product.shape or ())))
        nodes.append(node("Identity", [product], outputs[-1]))
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        initializers=weights,
        opset_imports={"": 18, "com.microsoft": 1},
    )

    class Source:
        def read(self, name: str, shape: tuple[int, ...]) -> Array:
            return tensors[name].reshape(shape)

    path = folder / f"{profile}.onnx"
    return write_graph(path, ir.Model(graph, ir_version=10), Source(), profile, ranges)


def write_old(folder: Path) -> list["ArtifactTensor"]:
    """Write the graph of `int8-fast` as exports did before weights had 7 bits."""
    from edge_train.export import quantized_graphs

    with patch.object(quantized_graphs, "LARGEST_FACTOR", EIGHT_BITS):
        return write(folder, "int8-fast", EIGHT_BITS)


if __name__ == "__main__":
    for each in PROFILES:
        write(GOLDEN, each)
    OLD.mkdir(exist_ok=True)
    write_old(OLD)
