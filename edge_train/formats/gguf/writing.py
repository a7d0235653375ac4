"""A GGUF file, version 3, made a part at a time: header, values, table of tensors, tensors.

A value is bytes here, its type before it: those of another file are carried over as they stand,
whatever type of number its writer chose.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.gguf.blocks import BLOCK_TYPES
from edge_train.formats.gguf.reading import HeaderReader

ALIGNMENT = 32  # bytes, where a file says nothing of it
_NUMBERS = {kind.name: number for number, kind in BLOCK_TYPES.items()}
_U32, _F32, _STRING = 4, 6, 8


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write.

    Attributes:
      kind: its type, as llama.cpp spells it.
      shape: as NumPy has it, the contiguous side last.
      parts: makes its bytes when their turn comes; `nbytes` of them in all.
    """

    kind: str
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        """Bytes of all its blocks."""
        kind = BLOCK_TYPES[_NUMBERS[self.kind]]
        count = 1
        for side in self.shape:
            count *= side
        return count // kind.weights * kind.nbytes


def word(text: str) -> bytes:
    """Return a string with its type.

    >>> word("a")
    b'\\x08\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00a'
    """
    return struct.pack("<I", _STRING) + _string(text)


def count(number: int) -> bytes:
    """Return a whole number of 32 bits with its type."""
    return struct.pack("<II", _U32, number)


def real(number: float) -> bytes:
    """Return a number in float32 with its type."""
    return struct.pack("<If", _F32, number)


def gguf_parts(
    values: Mapping[str, bytes], tensors: Mapping[str, NewTensor], alignment: int = ALIGNMENT
) -> Iterator[bytes]:
    """Yield the bytes of a file in their order.

    Args:
      values: key -> a value with its type; `general.alignment` among them says the same as the
        argument.
      tensors: name -> what to write, in the order that the file will have.

    Raises:
      ValueError: a tensor made another number of bytes than its shape has.

    Memory: the header, and the largest part that a tensor makes.
    """
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(values))]
    head += [_string(key) + value for key, value in values.items()]
    place = 0
    for name, tensor in tensors.items():
        sides = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
        head.append(_string(name) + sides + struct.pack("<IQ", _NUMBERS[tensor.kind], place))
        place += tensor.nbytes + -tensor.nbytes % alignment
    header = b"".join(head)
    yield header
    yield bytes(-len(header) % alignment)
    for name, tensor in tensors.items():
        written = 0
        for part in tensor.parts():
            written += len(part)
            yield part
        if written != tensor.nbytes:
            raise ValueError(f"{name}: {written} bytes, expected {tensor.nbytes}")
        yield bytes(-written % alignment)


def stored_values(path: Path, names: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the values of a file that `GgufFile` accepted, as they stand in it.

    Args:
      names: of those that are wanted; none: all.

    Raises:
      ModelError: it changed meanwhile.

    Memory: the values, and one of them as Python has it.
    """
    found = {}
    try:
        with path.open("rb") as file:
            reader = HeaderReader(file, path.stat().st_size)
            for kind in ("I", "I", "Q"):  # the magic, the version, how many tensors
                reader.number(kind)
            for _ in range(reader.number("Q")):
                key = reader.name()
                start = file.tell()
                reader.value()
                end = file.tell()
                if not names or key in names:
                    file.seek(start)
                    found[key] = file.read(end - start)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ModelError(f"{path}: changed while it was read ({error}); try again.") from error
    return found


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
