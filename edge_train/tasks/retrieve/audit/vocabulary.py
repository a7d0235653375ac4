"""Words of the user's own documents, each encoded once: which of them are near a query's tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array


@dataclass(frozen=True)
class Vocabulary:
    """Words, and what the encoder makes of each of them alone.

    Attributes:
      words: that foreign texts are made of.
      tokens: (all tokens, width), unit length, as an index would keep them.
      starts: (words + 1,) of the tokens of each word.
    """

    words: Sequence[str]
    tokens: Array
    starts: NDArray[np.int64]

    @classmethod
    def encoded(
        cls, words: Sequence[str], encode: Callable[[Sequence[str]], list[Array]]
    ) -> "Vocabulary":
        """Return words with their tokens; each is one forward pass, whatever query is asked."""
        found = encode(words)
        starts = np.cumsum([0, *map(len, found)])
        return cls(words, np.concatenate(found), starts)

    def worth(self, query: Array) -> Array:
        """Return the best product of each word with each token of a query, (words, tokens)."""
        products: Array = np.maximum.reduceat(query @ self.tokens.T, self.starts[:-1], axis=1)
        return products.T


def covering(worth: Array, count: int) -> list[int]:
    """Return words that together are near all tokens of a query, the most useful one first.

    Each adds most to the sum of the best products: what a late-interaction score would be if no
    word changed what another one means.

    Args:
      worth: (words, tokens).

    >>> covering(np.array([[0.9, 0.0], [0.8, 0.1], [0.0, 0.7]]), 2)
    [0, 2]
    """
    reached = np.full(worth.shape[1], -1.0, worth.dtype)
    chosen: list[int] = []
    for _ in range(min(count, len(worth))):
        sums = np.maximum(worth, reached).sum(axis=1)
        sums[chosen] = -np.inf
        chosen.append(int(sums.argmax()))
        reached = np.maximum(reached, worth[chosen[-1]])
    return chosen
