"""A word model of the user's own documents: how odd the order of a text's words is."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from edge_train.tasks.retrieve.bm25 import words_of

_PAIRS = 0.7  # weight of pairs of words; the rest goes to single words
_ADDED = 0.5  # to the count of every word


class WordModel:
    """Pairs of words, mixed with single words: p(w | v) = 0.7 n(v w) / n(v) + 0.3 p(w).

    Memory: a number for each pair of words that the texts have.

    Source: Jelinek and Mercer's interpolation with fixed weights; add-half single words.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._words: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()
        for text in texts:
            words = words_of(text)
            self._words.update(words)
            self._pairs.update(pairwise(words))
        self._total = sum(self._words.values())

    def oddness(self, text: str) -> float:
        """Return the mean of -log p over the words of a text but the first: log perplexity.

        >>> model = WordModel(["the flow of air", "the flow of heat"])
        >>> model.oddness("the flow of air") < model.oddness("air the of flow")
        True
        """
        words = words_of(text)
        if len(words) < 2:
            return 0.0
        room = self._total + _ADDED * (len(self._words) + 1)
        found = []
        for before, word in pairwise(words):
            single = (self._words[word] + _ADDED) / room
            pair = self._pairs[before, word] / self._words[before] if self._words[before] else 0.0
            found.append(-np.log(_PAIRS * pair + (1 - _PAIRS) * single))
        return float(np.mean(found))


def overlap(one: str, other: str) -> float:
    """Return the share of two texts' different words that both have (Jaccard).

    >>> round(overlap("slip flow", "slip flow in air"), 2)
    0.5
    """
    a, b = set(words_of(one)), set(words_of(other))
    return len(a & b) / len(a | b) if a | b else 0.0
