"""A graph cannot hide the name of a file that it would read, and its versions are read right."""

import pytest
from places import GOLDEN

from edge_train.errors import ModelError
from edge_train.formats.onnx_file import ExternalData, read_graph_file


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def message(number: int, *content: bytes) -> bytes:
    """Return a field of an ONNX message that holds another message, or a string."""
    inside = b"".join(content)
    return varint(number << 3 | 2) + varint(len(inside)) + inside


def tensor(**entries: str) -> bytes:
    """Return the content of a TensorProto whose data lie elsewhere."""
    pairs = (
        message(13, message(1, k.encode()), message(2, v.encode())) for k, v in entries.items()
    )
    return message(8, b"weight") + b"".join(pairs)


def model(*fields: bytes, ir: int = 10, opset: int = 18) -> bytes:
    microsoft = message(8, message(1, b"com.microsoft"), b"\x10" + varint(1))
    standard = message(8, message(1, b""), b"\x10" + varint(opset))
    return b"\x08" + varint(ir) + microsoft + standard + b"".join(fields)


def read(tmp_path, content: bytes):
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    return read_graph_file(path)


SECRET = tensor(location="../secret", offset="64", length="8")
ATTRIBUTES = {
    "tensor": message(5, SECRET),
    "tensors": message(10, SECRET),
    "subgraph": message(6, message(5, SECRET)),
    "subgraphs": message(11, message(1, message(5, message(5, SECRET)))),
    "sparse": message(22, message(1, SECRET)),
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_an_attribute_cannot_hide_a_file(tmp_path, kind) -> None:
    node = message(1, message(5, ATTRIBUTES[kind]))
    found = read(tmp_path, model(message(7, node))).external
    assert found == (ExternalData("../secret", 64, 8),)


@pytest.mark.parametrize(
    "field",
    [
        message(7, message(5, SECRET)),
        message(7, message(15, message(2, SECRET))),
        message(20, message(1, message(5, SECRET))),
        message(25, message(7, message(5, message(5, SECRET)))),
        message(7) + message(7, message(5, SECRET)),
    ],
    ids=["initializer", "sparse initializer", "training", "function", "second half of a graph"],
)
def test_no_part_of_a_model_can_hide_a_file(tmp_path, field) -> None:
    assert read(tmp_path, model(field)).external == (ExternalData("../secret", 64, 8),)


def test_a_tensor_may_lie_in_a_whole_file(tmp_path) -> None:
    field = message(7, message(5, tensor(location="weights")))
    assert read(tmp_path, model(field)).external == (ExternalData("weights", 0, None),)


def test_versions_are_those_of_the_standard_operators(tmp_path) -> None:
    graph = read(tmp_path, model(message(7), ir=13, opset=300))
    assert (graph.ir, graph.opset, graph.external) == (13, 300, ())


def test_an_exported_graph_reads_its_own_weights_only() -> None:
    graph = read_graph_file(GOLDEN / "step.onnx")
    assert (graph.ir, graph.opset) == (10, 18)
    assert {place.location for place in graph.external} == {"step.weights"}


@pytest.mark.parametrize(
    "content",
    [
        model(message(7, message(5, SECRET)))[:-1],
        model(message(7, message(5, tensor(location="w", offset="much")))),
        model() + b"\xff" * 12,
        model() + b"\x0b",
        message(7),
    ],
    ids=["cut short", "no number", "endless number", "unknown kind", "no version"],
)
def test_a_damaged_graph_is_one_sentence(tmp_path, content) -> None:
    with pytest.raises(ModelError, match="not an ONNX graph"):
        read(tmp_path, content)


def test_endless_nesting_is_refused(tmp_path) -> None:
    graph = message(5, SECRET)
    for _ in range(100):
        graph = message(1, message(5, message(6, graph)))
    with pytest.raises(ModelError, match="nested too deeply"):
        read(tmp_path, model(message(7, graph)))
