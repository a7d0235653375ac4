"""GGUF files for tests, written after the format's own description and not with our reader."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

ALIGNMENT = 32
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(of: Any) -> bytes:
    """Return a value with its type: uint32 for whole numbers, float32 for others."""
    if isinstance(of, bytes):  # as it stands
        return of
    kind, raw = _typed(of)
    return struct.pack("<I", kind) + raw


def _typed(of: Any) -> tuple[int, bytes]:
    if isinstance(of, bool):
        return 7, struct.pack("<B", of)
    if isinstance(of, int):
        return (4, struct.pack("<I", of)) if of >= 0 else (5, struct.pack("<i", of))
    if isinstance(of, float):
        return 6, struct.pack("<f", of)
    if isinstance(of, str):
        return 8, string(of)
    if isinstance(of, np.ndarray):  # of int32
        return 9, struct.pack("<IQ", 5, len(of)) + of.astype("<i4").tobytes()
    kinds = [_typed(one) for one in of] or [(4, b"")]
    return 9, struct.pack("<IQ", kinds[0][0], len(of)) + b"".join(raw for _, raw in kinds)


def info(name: str, kind: int, shape: tuple[int, ...], offset: int) -> bytes:
    """Return a line of the tensor table; `shape` as NumPy has it."""
    sides = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return string(name) + sides + struct.pack("<IQ", kind, offset)


def padded(raw: bytes, to: int = ALIGNMENT) -> bytes:
    return raw + b"\0" * (-len(raw) % to)


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]],
    version: int = 3,
) -> bytes:
    """Return a file of metadata and of tensors: name -> number of its type, shape, bytes."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(key) + value(of) for key, of in metadata.items())
    offset, data = 0, b""
    for name, (kind, shape, raw) in tensors.items():
        head += info(name, kind, shape, offset)
        data += padded(raw)
        offset = len(data)
    return padded(head) + data


def stored(values: np.ndarray, kind: int) -> tuple[tuple[int, tuple[int, ...], bytes], np.ndarray]:
    """Return a tensor for `gguf_bytes`, and the numbers that a reader finds in it."""
    if kind == F32:
        return (kind, values.shape, values.astype("<f4").tobytes()), values
    if kind == F16:
        half = values.astype("<f2")
        return (kind, values.shape, half.tobytes()), half.astype(np.float32)
    blocks = values.reshape(-1, 32)
    most = {Q4_0: 7, Q8_0: 127}[kind]
    scales = (np.abs(blocks).max(1, keepdims=True) / most + 1e-6).astype("<f2")
    wide = scales.astype(np.float32)
    codes = np.clip(np.round(blocks / wide), -most, most).astype(np.int8)
    if kind == Q8_0:
        raw = np.concatenate([scales.view(np.uint8), codes.view(np.uint8)], 1)
    else:
        shifted = (codes + 8).astype(np.uint8)
        raw = np.concatenate([scales.view(np.uint8), shifted[:, :16] | shifted[:, 16:] << 4], 1)
    found = (wide * codes.astype(np.float32)).reshape(values.shape)
    return (kind, values.shape, raw.tobytes()), found
