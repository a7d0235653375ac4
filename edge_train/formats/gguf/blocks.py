"""Numbers of a GGUF tensor to float32, bit for bit as the package `gguf` decodes them.

A row is blocks one behind the other, each of some weights that share scales, so any rows can be
decoded alone. Bytes of a block in their order; `half` is a float of 16 bits:

    Q8_0   half d; int8 q[32]                                      d q
    Q4_0   half d; nibbles[16]                                     d (q - 8)
    Q4_1   half d, half m; nibbles[16]                             d q + m
    Q5_0   half d; fifth bits[4]; nibbles[16]                      d (q - 16)
    Q5_1   half d, half m; fifth bits[4]; nibbles[16]              d q + m
    Q2_K   scales and minima[16]; 2 bits[64]; half d, half dmin    d s q - dmin m
    Q3_K   third bits[32]; 2 bits[64]; scales[12]; half d          d s (q - 4)
    Q4_K   half d, half dmin; scales and minima[12]; nibbles[128]  d s q - dmin m
    Q5_K   the same with fifth bits[32] before the nibbles         d s q - dmin m
    Q6_K   nibbles[128]; upper bits[64]; int8 scales[16]; half d   d s (q - 32)

Of 32 nibbles the low halves are the first 16 weights, the high ones the last 16.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_EIGHT = np.arange(8, dtype=np.uint8)
_FOUR = np.arange(0, 8, 2, dtype=np.uint8)
_TWO = np.array([0, 4], np.uint8)


@dataclass(frozen=True)
class BlockType:
    """How a type of GGUF stores weights.

    Attributes:
      name: as llama.cpp spells it.
      weights: in a block.
      nbytes: of a block.
      decode: (blocks, nbytes) bytes to (blocks, weights) float32.
    """

    name: str
    weights: int
    nbytes: int
    decode: Callable[[Bytes], Floats]


def _half(part: Bytes) -> Floats:
    return np.ascontiguousarray(part).view("<f2").astype(np.float32)


def _split(part: Bytes, shifts: Bytes, run: int) -> Bytes:
    """Return the parts of bytes, each run of `run` bytes once for every shift."""
    return (part.reshape(len(part), -1, 1, run) >> shifts[:, None]).reshape(len(part), -1)


def _nibbles(part: Bytes, run: int) -> Bytes:
    return _split(part, _TWO, run) & np.uint8(15)


def _fifth(part: Bytes) -> Bytes:
    """Return 32 bits of four bytes, each as 0 or 16."""
    return np.unpackbits(part, axis=1, bitorder="little") << np.uint8(4)


def _f32(part: Bytes) -> Floats:
    return np.ascontiguousarray(part).view("<f4").astype(np.float32, copy=False)


def _bf16(part: Bytes) -> Floats:
    upper = np.ascontiguousarray(part).view("<u2").astype(np.uint32)
    return (upper << np.uint32(16)).view(np.float32)


def _q8_0(part: Bytes) -> Floats:
    return _half(part[:, :2]) * part[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(part: Bytes) -> Floats:
    return _half(part[:, :2]) * (_nibbles(part[:, 2:], 16).astype(np.float32) - np.float32(8))


def _q4_1(part: Bytes) -> Floats:
    codes = _nibbles(part[:, 4:], 16).astype(np.float32)
    return _half(part[:, :2]) * codes + _half(part[:, 2:4])


def _q5_0(part: Bytes) -> Floats:
    codes = _nibbles(part[:, 6:], 16) | _fifth(part[:, 2:6])
    return _half(part[:, :2]) * (codes.astype(np.float32) - np.float32(16))


def _q5_1(part: Bytes) -> Floats:
    codes = _nibbles(part[:, 8:], 16) | _fifth(part[:, 4:8])
    return _half(part[:, :2]) * codes.astype(np.float32) + _half(part[:, 2:4])


def _scaled(codes: Bytes | NDArray[np.int8], scales: Floats) -> Floats:
    """Return (blocks, groups, weights of a group): a scale for every group."""
    count, groups = scales.shape
    return scales[..., None] * codes.astype(np.float32).reshape(count, groups, -1)


def _q2_k(part: Bytes) -> Floats:
    codes = _split(part[:, 16:80], _FOUR, 32) & np.uint8(3)
    scales = _half(part[:, 80:82]) * (part[:, :16] & np.uint8(15)).astype(np.float32)
    minima = _half(part[:, 82:84]) * (part[:, :16] >> np.uint8(4)).astype(np.float32)
    return (_scaled(codes, scales) - minima[..., None]).reshape(len(part), 256)


def _q3_k(part: Bytes) -> Floats:
    low = _split(part[:, 32:96], _FOUR, 32) & np.uint8(3)
    high = (_split(part[:, :32], _EIGHT, 32) & np.uint8(1)) ^ np.uint8(1)  # set where nothing goes
    codes = low.view(np.int8) - (high << np.uint8(2)).view(np.int8)
    nibbles = _split(part[:, 96:104], _TWO, 8) & np.uint8(15)
    upper = _split(part[:, 104:108], _FOUR, 4) & np.uint8(3)
    scales = (nibbles | upper << np.uint8(4)).view(np.int8) - np.int8(32)
    wide = _half(part[:, 108:110]) * scales.astype(np.float32)
    return _scaled(codes, wide).reshape(len(part), 256)


def _scales_and_minima(part: Bytes) -> tuple[Floats, Floats]:
    """Return eight of each, of six bits, from twelve bytes."""
    first, second, last = part[:, :4], part[:, 4:8], part[:, 8:]
    upper = np.uint8(0x30)
    scales = [first & np.uint8(63), (last & np.uint8(15)) | (first >> np.uint8(2) & upper)]
    minima = [second & np.uint8(63), (last >> np.uint8(4)) | (second >> np.uint8(2) & upper)]
    return (
        np.concatenate(scales, 1).astype(np.float32),
        np.concatenate(minima, 1).astype(np.float32),
    )


def _with_minima(part: Bytes, codes: Bytes) -> Floats:
    scales, minima = _scales_and_minima(part[:, 4:16])
    lower = _half(part[:, 2:4]) * minima
    found = _scaled(codes, _half(part[:, :2]) * scales) - lower[..., None]
    return found.reshape(len(part), 256)


def _q4_k(part: Bytes) -> Floats:
    return _with_minima(part, _nibbles(part[:, 16:], 32))


def _q5_k(part: Bytes) -> Floats:
    fifth = (_split(part[:, 16:48], _EIGHT, 32) & np.uint8(1)) << np.uint8(4)
    return _with_minima(part, _nibbles(part[:, 48:], 32) | fifth)


def _q6_k(part: Bytes) -> Floats:
    upper = (_split(part[:, 128:192], _FOUR, 32) & np.uint8(3)) << np.uint8(4)
    codes = (_nibbles(part[:, :128], 64) | upper).view(np.int8) - np.int8(32)
    scales = part[:, 192:208].view(np.int8).astype(np.float32)
    return _scaled(codes, _half(part[:, 208:210]) * scales).reshape(len(part), 256)


# The number of a type in the file -> how it is stored.
BLOCK_TYPES: Mapping[int, BlockType] = {
    0: BlockType("F32", 1, 4, _f32),
    1: BlockType("F16", 1, 2, _half),
    2: BlockType("Q4_0", 32, 18, _q4_0),
    3: BlockType("Q4_1", 32, 20, _q4_1),
    6: BlockType("Q5_0", 32, 22, _q5_0),
    7: BlockType("Q5_1", 32, 24, _q5_1),
    8: BlockType("Q8_0", 32, 34, _q8_0),
    10: BlockType("Q2_K", 256, 84, _q2_k),
    11: BlockType("Q3_K", 256, 110, _q3_k),
    12: BlockType("Q4_K", 256, 144, _q4_k),
    13: BlockType("Q5_K", 256, 176, _q5_k),
    14: BlockType("Q6_K", 256, 210, _q6_k),
    30: BlockType("BF16", 1, 2, _bf16),
}
# Types that exist and are not decoded here, for messages.
OTHER_TYPES: Mapping[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
