"""A frozen backbone of pictures as an ONNX file: what it reads and gives, by its header alone."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.onnx_file import fields, read_graph_file, text

PIXELS, FEATURES = "pixels", "features"  # what our own exports call input and output
_GRAPH, _INITIALIZER, _INPUT, _OUTPUT = 7, 5, 11, 12
_TENSOR_NAME = 8
_FLOAT = 1
# outputs that exporters write beside the states of all patches
_POOLED = (FEATURES, "pooler_output", "image_embeds")


@dataclass(frozen=True)
class PictureGraph:
    """Input and output of a graph from pictures to features.

    Attributes:
      entry: name of its input.
      output: name of the output that holds features.
      channels_first: (n, 3, side, side), else (n, side, side, 3).
      side: of its pictures; None: any.
      shape: of a sample's output, whose widest side without a length is averaged over; see `width`.
      is_ours: whether `edge-train export` wrote it, with everything that pixels need inside.
      weight_bytes: of the file.
    """

    path: Path
    entry: str
    output: str
    channels_first: bool
    side: int | None
    shape: tuple[int | None, ...]
    is_ours: bool
    weight_bytes: int

    @property
    def width(self) -> int:
        """Numbers of a picture's features: its channels where it gives a map, else the last."""
        found = self.shape[0] if len(self.shape) == 3 else self.shape[-1]
        if found is None:
            raise ModelError(
                f"{self.path}: its output {self.output!r} has no fixed number of features; export "
                "it again with that length fixed."
            )
        return found


def read_picture_graph(path: Path) -> PictureGraph:
    """Return what an ONNX file reads and gives.

    Raises:
      ModelError: it is none, its weights lie in other files, or it is not from one batch of
        pictures to features.
    """
    if read_graph_file(path).external:
        raise ModelError(
            f"{path}: its weights lie in another file; save the model as one file, as `edge-train "
            "export MODEL OUT.onnx --for backbone` does."
        )
    try:
        found = _values(path.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not an ONNX graph ({error}); export it again.") from error
    inputs, outputs = found
    if len(inputs) != 1 or not outputs:
        raise ModelError(
            f"{path}: takes {', '.join(inputs) or 'nothing'}; a backbone takes pictures alone."
        )
    [(entry, (kind, shape))] = inputs.items()
    first = len(shape) == 4 and shape[1] == 3
    last = len(shape) == 4 and shape[3] == 3
    sides = shape[2:] if first else shape[1:3]
    if kind != _FLOAT or not (first or last) or sides[0] != sides[1]:
        said = " x ".join("any" if side is None else str(side) for side in shape)
        raise ModelError(
            f"{path}: its input {entry!r} is {said}; a backbone reads float32 pictures, any x 3 x "
            "side x side or any x side x side x 3."
        )
    output = next((name for name in _POOLED if name in outputs), next(iter(outputs)))
    given = outputs[output][1][1:]
    if not 1 <= len(given) <= 3:
        raise ModelError(f"{path}: its output {output!r} is no features of a picture.")
    return PictureGraph(
        path=path,
        entry=entry,
        output=output,
        channels_first=first,
        side=sides[0],
        shape=given,
        is_ours=(entry, output) == (PIXELS, FEATURES),
        weight_bytes=path.stat().st_size,
    )


_Value = tuple[int, tuple[int | None, ...]]  # type of its numbers, shape


def _values(content: bytes) -> tuple[dict[str, _Value], dict[str, _Value]]:
    """Return inputs that are no weights, and outputs, by name."""
    inputs: dict[str, _Value] = {}
    outputs: dict[str, _Value] = {}
    weights = set()
    for graph in _messages(memoryview(content), _GRAPH):
        for number, value in fields(graph):
            if not isinstance(value, memoryview):
                continue
            if number in (_INPUT, _OUTPUT):
                name, found = _value(value)
                (inputs if number == _INPUT else outputs)[name] = found
            elif number == _INITIALIZER:
                weights |= {text(n) for k, n in fields(value) if k == _TENSOR_NAME}
    return {n: v for n, v in inputs.items() if n not in weights}, outputs


def _value(content: memoryview) -> tuple[str, _Value]:
    """Return a name, the type of its numbers and its shape; None for a side that is free."""
    parts: Mapping[int, Any] = dict(fields(content))
    kind, shape = 0, list[int | None]()
    for tensor in _messages(parts[2], 1):
        for number, value in fields(tensor):
            if number == 1 and isinstance(value, int):
                kind = value
            elif number == 2 and isinstance(value, memoryview):
                shape = [_side(side) for side in _messages(value, 1)]
    return text(parts[1]), (kind, tuple(shape))


def _side(content: memoryview) -> int | None:
    length = dict(fields(content)).get(1)
    return length if isinstance(length, int) and 0 < length < math.inf else None


def _messages(content: memoryview, number: int) -> Iterator[memoryview]:
    for found, value in fields(content):
        if found == number and isinstance(value, memoryview):
            yield value
