"""Basis vectors in 4 bits: two values a byte, every group inside one vector."""

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, State

GROUP = 128  # values that share a range: 4 + 32 / 128 = 4.25 bits a value with everything counted


def empty(count: int, width: int) -> State:
    """Return the storage of `count` vectors of `width` values, all zero."""
    groups = -(-width // GROUP)
    return {
        "codes": np.zeros((count, -(-width // 2)), np.uint8),
        "low": np.zeros((count, groups), np.float16),
        "step": np.zeros((count, groups), np.float16),
    }


def pack(rows: Array, packed: State) -> None:
    """Round vectors to 4 bits, in place of those in `packed`.

    A group of `GROUP` neighbors in a vector is stored as codes 0..15 between its own smallest value
    and its largest one: value = low + step * code. The range need not hold zero, so a group of one
    sign keeps all 16 levels and a constant one is exact (to float16's 11 bits). Each vector is then
    given back its length: rounding leaves it with an error at right angles to it, which lengthens.

    Args:
      rows: (count, width) float32, of the size of basis vectors: float16 holds 6e-8 to 65504.
      packed: what `empty` returned; codes (count, ceil(width / 2)), the even column in the low
        nibble; low, step (count, ceil(width / GROUP)).

    Memory: three float32 copies of `rows` while it runs.

    Source: Q-GaLore (arXiv:2407.08296), projectors in INT4. Its code keeps one value a byte (8.25
    bits), lets a group run over several vectors, and forces zero into the codes but not into the
    range, so that a group of one sign collapses: {1, 2} is read back as {1, 1}.
    """
    count, width = rows.shape
    groups = packed["low"].shape[1]
    padded = np.pad(rows, ((0, 0), (0, groups * GROUP - width)), mode="edge")
    grouped = padded.reshape(count, groups, GROUP)
    packed["low"][:] = grouped.min(axis=2)
    low = packed["low"].astype(np.float32)
    packed["step"][:] = (grouped.max(axis=2) - low) / 15
    step = packed["step"].astype(np.float32)
    steps = (grouped - low[..., None]) / np.where(step > 0, step, 1)[..., None]
    codes = np.clip(np.rint(steps), 0, 15).astype(np.uint8).reshape(count, -1)[:, :width]
    codes = np.pad(codes, ((0, 0), (0, width % 2)))
    packed["codes"][:] = codes[:, ::2] | codes[:, 1::2] << 4
    lengths = np.linalg.norm(unpack(packed, width), axis=1, keepdims=True)
    longer = np.linalg.norm(rows, axis=1, keepdims=True) / np.where(lengths > 0, lengths, 1)
    packed["low"][:] = low * longer
    packed["step"][:] = step * longer


def unpack(packed: State, width: int) -> Array:
    """Return the vectors, (count, width) float32."""
    codes = packed["codes"]
    values = np.empty((len(codes), 2 * codes.shape[1]), np.float32)
    values[:, ::2], values[:, 1::2] = codes & 15, codes >> 4
    values = values[:, :width]
    return values * _spread(packed["step"], width) + _spread(packed["low"], width)


def _spread(per_group: NDArray[np.float16], width: int) -> Array:
    """Return one value for every column of each group."""
    return per_group.astype(np.float32).repeat(GROUP, axis=1)[:, :width]
