"""Numbers to the types of GGUF that are written here: F32, F16, and Q8_0 as llama.cpp rounds it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WEIGHTS = 32  # of a block of Q8_0
_MOST_CODE = 127
WRITTEN = ("F32", "F16", "Q8_0")


def encode(values: Floats, kind: str) -> bytes:
    """Return rows of numbers as bytes of a type.

    Args:
      values: (rows, columns) float32, finite; for Q8_0 columns is a multiple of 32.
      kind: one of `WRITTEN`.

    Raises:
      OverflowError: a number is larger than the type can hold.
    """
    if kind == "F32":
        return np.ascontiguousarray(values, "<f4").tobytes()
    if kind == "F16":
        return _halves(values).tobytes()
    if kind == "Q8_0":
        return _q8_0(np.ascontiguousarray(values).reshape(-1, WEIGHTS)).tobytes()
    raise ValueError(f"type {kind!r} is not written")


def _q8_0(blocks: Floats) -> NDArray[np.uint8]:
    """Return blocks, (blocks, 32), as a half of their scale and codes from -127 to 127.

    The scale is the largest absolute value over 127, codes are rounded half away from zero. Bit for
    bit what the package `gguf` 0.19.0 writes, which is what llama.cpp's reference writes: codes are
    of the scale before it is rounded to 16 bits.
    """
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(_MOST_CODE)
    with np.errstate(divide="ignore", over="ignore"):  # of scales that are zero or subnormal
        inverse = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
        scaled = blocks * inverse
    sizes = np.abs(scaled)
    whole = np.floor(sizes)
    whole += np.floor(2 * (sizes - whole))
    codes = (np.sign(scaled) * whole).astype(np.int8)
    return np.concatenate([_halves(scales).view(np.uint8), codes.view(np.uint8)], axis=1)


def _halves(values: Floats) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        found = values.astype("<f2")
    if not np.isfinite(found).all():
        raise OverflowError
    return found
