"""What an ONNX file asks for: versions, and the files its tensors lie in; read without onnx.

A graph may name any file as the place of a tensor's data, and ONNX Runtime 1.19.2 reads it wherever
it lies (1.32.0 refuses). Only the few fields that can hold such a name are followed; weights inside
the file are skipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError

# Field number -> the message inside it, of every message that can hold a tensor (onnx.proto).
_SPARSE: dict[int, Any] = {}
_TENSOR: dict[int, Any] = {}
_GRAPH: dict[int, Any] = {}
_ATTRIBUTE = {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE}
_NODE = {5: _ATTRIBUTE}
_SPARSE |= {1: _TENSOR, 2: _TENSOR}
_GRAPH |= {1: _NODE, 5: _TENSOR, 15: _SPARSE}
_MODEL = {7: _GRAPH, 20: {1: _GRAPH, 2: _GRAPH}, 25: {7: _NODE, 11: _ATTRIBUTE}}
_EXTERNAL_DATA, _OPSETS, _IR = 13, 8, 1
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_DEEPEST = 64  # nested messages; a real graph has a handful
_LARGEST_BYTES = 256_000_000  # weights lie in other files; what is left is a few megabytes

Field = tuple[int, int | memoryview]


@dataclass(frozen=True)
class ExternalData:
    """Where one tensor lies: a path as the graph spells it, and a byte range (None: to the end)."""

    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class GraphFile:
    """The versions an engine must read, and every tensor that lies in another file."""

    ir: int
    opset: int
    external: tuple[ExternalData, ...]


def read_graph_file(path: Path) -> GraphFile:
    """Return what an ONNX file asks for.

    Raises:
      ModelError: it is not an ONNX file.

    Source:
      onnx.proto of ONNX 1.16, and the wire format of protocol buffers.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_BYTES:
            raise ValueError(f"{size} bytes, at most {_LARGEST_BYTES} are expected")
        return _read_model(memoryview(path.read_bytes()))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not an ONNX graph ({error}); export it again.") from error


def _read_model(content: memoryview) -> GraphFile:
    ir, opset = 0, 0
    for number, value in fields(content):
        if number == _IR and isinstance(value, int):
            ir = value
        elif number == _OPSETS and isinstance(value, memoryview):
            entry = dict(fields(value))
            version = entry.get(2, 0)
            if isinstance(version, int) and text(entry.get(1)) in ("", "ai.onnx"):
                opset = version
    if not ir or not opset:
        raise ValueError("it states no version")
    return GraphFile(ir, opset, tuple(_external(content, _MODEL, 0)))


def _external(
    content: memoryview, message: Mapping[int, Any], depth: int
) -> Iterator[ExternalData]:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    entries: dict[str, str] = {}
    for number, value in fields(content):
        if isinstance(value, int):
            continue
        if message is _TENSOR and number == _EXTERNAL_DATA:
            pair = dict(fields(value))
            entries[text(pair.get(1))] = text(pair.get(2))
        elif number in message:
            yield from _external(value, message[number], depth + 1)
    if entries:
        length = entries.get("length")
        yield ExternalData(
            entries.get("location", ""),
            int(entries.get("offset", "0")),
            None if length is None else int(length),
        )


def fields(content: memoryview) -> Iterator[Field]:
    """Yield (number, value) of every field of a message; fixed-size numbers are left out."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield tag >> 3, value
        elif kind == _BYTES:
            size, at = _varint(content, at)
            if size > len(content) - at:
                raise ValueError("it is cut short")
            yield tag >> 3, content[at : at + size]
            at += size
        elif kind in (_FIXED_64, _FIXED_32):
            at += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"field of unknown kind {kind}")


def text(value: int | memoryview | None) -> str:
    """Return the text of a field; empty where it is missing or a number."""
    return "" if value is None or isinstance(value, int) else bytes(value).decode()


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return the number that starts at a byte, and where the next thing starts."""
    value = shift = 0
    while shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")
