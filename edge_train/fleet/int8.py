"""Weights in INT8 with a scale a row: how devices and server send changes of weights.

Blocks stand in the order of their names. Their number (u16), rows and columns of each (u32 both),
a loss (float64), then every block: a scale a row (float32) and the codes (int8). A block that is
no matrix is one of as many rows as its first axis is long; a vector is one row.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_COUNT, _SHAPE, _LOSS = struct.Struct("<H"), struct.Struct("<II"), struct.Struct("<d")
_MOST_BYTES = 1 << 26
_LEVELS = 127
Matrix = NDArray[np.float32]
Layout = tuple[tuple[int, int], ...]  # rows and columns of each block


def rows_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of a block of a shape.

    >>> rows_of((8, 3, 3)), rows_of((5,)), rows_of(())
    ((8, 9), (1, 5), (1, 1))
    """
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def message_bytes(layout: Iterable[tuple[int, int]]) -> int:
    """Return how long a message of such blocks is.

    >>> message_bytes([(30, 784), (1, 30)])
    23700
    """
    each = [_SHAPE.size + 4 * rows + rows * columns for rows, columns in layout]
    return _COUNT.size + _LOSS.size + sum(each)


def pack(blocks: Iterable[Matrix], loss: float) -> bytes:
    """Return matrices as a message.

    Raises:
      ValueError: a number is not finite.
    """
    shapes, parts = [], []
    for block in blocks:
        largest = np.abs(block).max(axis=1, initial=0.0)
        if not np.isfinite(largest).all():
            raise ValueError("a weight that is not finite")
        scales = (largest / np.float32(_LEVELS)).astype("<f4")
        safe = np.where(scales > 0, scales, np.float32(1))
        codes = np.rint(block / safe[:, None]).clip(-_LEVELS, _LEVELS).astype(np.int8)
        shapes.append(_SHAPE.pack(*block.shape))
        parts += [scales.tobytes(), codes.tobytes()]
    return b"".join([_COUNT.pack(len(shapes)), *shapes, _LOSS.pack(loss), *parts])


def layout_of(content: bytes) -> tuple[Layout, float]:
    """Return rows and columns of every block of a message, and its loss.

    Raises:
      ValueError: it is no such message, in a few words.
    """
    if not _COUNT.size <= len(content) <= _MOST_BYTES:
        raise ValueError(f"weights of {len(content)} bytes")
    (count,) = _COUNT.unpack_from(content)
    start = _COUNT.size + count * _SHAPE.size
    if len(content) < start + _LOSS.size:
        raise ValueError("weights that end early")
    layout = tuple(_SHAPE.iter_unpack(content[_COUNT.size : start]))
    (loss,) = _LOSS.unpack_from(content, start)
    if message_bytes(layout) != len(content):
        raise ValueError(f"weights of {len(content)} bytes, {message_bytes(layout)} by their shape")
    return layout, loss


def unpack(content: bytes) -> list[Matrix]:
    """Return the matrices of a message.

    Raises:
      ValueError: it is no such message, or holds what is no number.
    """
    layout, loss = layout_of(content)
    if not math.isfinite(loss):
        raise ValueError("a loss that is not finite")
    at, found = _COUNT.size + len(layout) * _SHAPE.size + _LOSS.size, []
    for rows, columns in layout:
        scales = np.frombuffer(content, "<f4", rows, at)
        codes = np.frombuffer(content, np.int8, rows * columns, at + 4 * rows)
        if not np.isfinite(scales).all() or (np.abs(scales) > np.finfo(np.float32).max / 256).any():
            raise ValueError("a scale that is not finite")
        found.append(codes.reshape(rows, columns).astype(np.float32) * scales[:, None])
        at += 4 * rows + rows * columns
    return found


def whole(blocks: Sequence[Matrix]) -> bytes:
    """Return float32 matrices as they are, one after the other."""
    return b"".join(np.ascontiguousarray(block, "<f4").tobytes() for block in blocks)


def from_whole(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Matrix]:
    """Return the blocks of `whole` by their names.

    Raises:
      ValueError: there are more or fewer of them, or one holds what is no number.
    """
    sizes = {name: math.prod(shapes[name]) for name in sorted(shapes)}
    if len(content) != 4 * sum(sizes.values()):
        raise ValueError(f"{len(content)} bytes for {sum(sizes.values())} weights")
    at, found = 0, {}
    for name, size in sizes.items():
        found[name] = np.frombuffer(content, "<f4", size, at).reshape(shapes[name])
        if not np.isfinite(found[name]).all():
            raise ValueError("weights that are not finite")
        at += 4 * size
    return found
