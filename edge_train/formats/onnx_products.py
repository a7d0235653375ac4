"""Which integer products an ONNX graph computes, and the weights that they meet; without onnx."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.onnx_file import fields, text

_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _KIND = 1, 2, 4
LINEAR, CONVOLUTION, FOUR_BITS = "MatMulInteger", "Conv", "MatMulNBits"


@dataclass(frozen=True)
class IntegerProducts:
    """The integer products of a graph.

    Attributes:
      operators: `MatMulInteger`, `MatMulNBits`, and `Conv` where it stands between roundings, which
        engines join into one convolution of integers.
      weights: names of the tensors that meet uint8 activations in the first and the last.
    """

    operators: frozenset[str]
    weights: tuple[str, ...]


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_products(path: Path) -> IntegerProducts:
    """Return the integer products of a graph in a file.

    Raises:
      ModelError: it is not an ONNX file.
    """
    try:
        return _find(list(_nodes(memoryview(path.read_bytes()))))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not an ONNX graph ({error}); export it again.") from error


def _find(nodes: list[_Node]) -> IntegerProducts:
    maker = {name: node for node in nodes for name in node.outputs}
    operators, weights = set(), []
    for node in nodes:
        if node.kind == LINEAR:
            operators.add(node.kind)
            weights.append(node.inputs[1])
        elif node.kind == FOUR_BITS:
            operators.add(node.kind)
        elif node.kind == CONVOLUTION:
            back, weight = (maker.get(name) for name in node.inputs[:2])
            rounded = maker.get(back.inputs[0]) if back is not None else None
            if weight is not None and rounded is not None and rounded.kind == "QuantizeLinear":
                operators.add(node.kind)
                weights.append(weight.inputs[0])
    return IntegerProducts(frozenset(operators), tuple(dict.fromkeys(weights)))


def _nodes(content: memoryview) -> Iterator[_Node]:
    for number, graph in fields(content):
        if number != _GRAPH or isinstance(graph, int):
            continue
        for part, node in fields(graph):
            if part == _NODE and not isinstance(node, int):
                found = list(fields(node))
                yield _Node(
                    "".join(text(value) for field, value in found if field == _KIND),
                    tuple(text(value) for field, value in found if field == _INPUT),
                    tuple(text(value) for field, value in found if field == _OUTPUT),
                )
