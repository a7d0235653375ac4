"""Randomness as a value: every draw is a pure function of a key and the draw's name."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


@dataclass(frozen=True)
class Key:
    """The randomness of one step of one run.

    Two keys that are equal give equal draws in any order, in any process; draws with different
    names are independent. Nothing global is seeded.
    """

    seed: int
    step: int

    def generator(self, purpose: str, *labels: int | str) -> np.random.Generator:
        """Return a fresh counter-based generator for one named draw of this step.

        >>> a = Key(7, 3).generator("noise", 0).standard_normal(2)
        >>> b = Key(7, 3).generator("noise", 0).standard_normal(2)
        >>> bool((a == b).all())
        True
        """
        key: Any = _KeyOf(self._digest(purpose, labels))  # NumPy's stubs know one of its sequences
        return np.random.Generator(np.random.Philox(key))

    def bits(self, purpose: str, *labels: int | str) -> int:
        """Return 128 random bits of one named draw, for a tenth of what a generator costs."""
        return int.from_bytes(self._digest(purpose, labels), "little")

    def _digest(self, purpose: str, labels: tuple[int | str, ...]) -> bytes:
        name = repr((self.seed, self.step, purpose, labels)).encode()
        return hashlib.blake2b(name, digest_size=16).digest()


class _KeyOf(ISeedSequence):
    """What a Philox generator is asked for its key: 16 bytes, as they are.

    `Philox(key=...)` first asks the system for a seed that it then throws away: that takes longer
    than all the numbers of a small direction.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """Return the key, little end first: two words, whatever is asked for."""
        return np.frombuffer(self._key, "<u8").astype(np.uint64)


def sample_seeds(key: Key, purpose: str, count: int) -> NDArray[np.int64]:
    """Return a number below 2^62 for each sample of a step, for draws that belong to it alone."""
    return key.generator(purpose).integers(1 << 62, size=count, dtype=np.int64)


def direction(key: Key, query: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return direction `z` of one query for one block: independent standard normals, float32.

    Zeroth-order noise is never stored: whoever needs it again makes it again from its key.
    """
    return key.generator("direction", query, name).standard_normal(shape, dtype=np.float32)
