"""Write a small ONNX graph without onnx: few operators, weights inside, one type of input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IR, _OPSET = 8, 18
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_INT, _INTS = 2, 7  # kinds of attributes
Attribute = int | Sequence[int]


@dataclass
class GraphWriter:
    """Collects nodes and weights; `content` is the file.

    Field numbers are those of onnx.proto (ONNX 1.16).
    """

    _parts: list[bytes] = field(default_factory=list)

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute] | None = None,
        domain: str = "",
    ) -> None:
        """Add an operator."""
        node = b"".join(_bytes(1, name.encode()) for name in inputs)
        node += b"".join(_bytes(2, name.encode()) for name in outputs)
        node += _bytes(4, kind.encode()) + _bytes(7, domain.encode())
        for name, value in (attributes or {}).items():
            node += _bytes(5, _attribute(name, value))
        self._parts.append(_bytes(1, node))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a tensor; return its name."""
        tensor = b"".join(_number(1, length) for length in array.shape)
        tensor += _number(2, _TYPES[array.dtype.name]) + _bytes(8, name.encode())
        self._parts.append(_bytes(5, tensor + _bytes(9, np.ascontiguousarray(array).tobytes())))
        return name

    def input(self, name: str, shape: Sequence[int | str], kind: str = "float32") -> str:
        """Add an input; return its name."""
        self._parts.append(_bytes(11, _value(name, shape, kind)))
        return name

    def output(self, name: str, shape: Sequence[int | str]) -> str:
        """Add a float32 output; return its name."""
        self._parts.append(_bytes(12, _value(name, shape)))
        return name

    def content(self) -> bytes:
        """Return the file."""
        versions = (("", _OPSET), ("com.microsoft", 1))
        opsets = [_bytes(1, domain.encode()) + _number(2, number) for domain, number in versions]
        graph = b"".join(self._parts) + _bytes(2, b"graph")
        return _number(1, _IR) + b"".join(_bytes(8, o) for o in opsets) + _bytes(7, graph)


def _value(name: str, shape: Sequence[int | str], kind: str = "float32") -> bytes:
    """Return a value; a length that is a word is any."""
    lengths = b"".join(
        _bytes(1, _bytes(2, length.encode()) if isinstance(length, str) else _number(1, length))
        for length in shape
    )
    tensor = _number(1, _TYPES[kind]) + _bytes(2, lengths)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _bytes(1, name.encode()) + _number(3, value) + _number(20, _INT)
    numbers = b"".join(_number(8, item) for item in value)
    return _bytes(1, name.encode()) + numbers + _number(20, _INTS)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
