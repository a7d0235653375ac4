"""BM25 over passages: what a search by words finds, for hard negatives and to compare with."""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

_WORD = re.compile(r"\w+")
K1, B = 1.2, 0.75


def words_of(text: str) -> list[str]:
    """Return the words of a text: letters and digits, in small letters; neither stems nor stops.

    >>> words_of("Slip-flow, at Mach 5")
    ['slip', 'flow', 'at', 'mach', '5']
    """
    return _WORD.findall(text.casefold())


class BM25:
    """An inverted index.

    A text's score is the sum over the query's words of idf * f (k1 + 1) / (f + k1 (1 - b + b l /
    mean l)) with idf = log(1 + (N - n + 0.5) / (n + 0.5)), f times in this text of l words, n of N
    texts. Words that no text has count nothing.

    Memory: 8 bytes a word and text that it is in, and the vocabulary.

    Source: Robertson and Zaragoza (2009); idf as in Lucene, never below zero.
    """

    def __init__(self, texts: Iterable[str], k1: float = K1, b: float = B) -> None:
        places: dict[str, int] = {}
        words: list[NDArray[np.int32]] = []
        counts: list[NDArray[np.float32]] = []
        lengths = []
        for text in texts:
            found = Counter(words_of(text))
            numbers = [places.setdefault(word, len(places)) for word in found]
            words.append(np.array(numbers, np.int32))
            counts.append(np.array(list(found.values()), np.float32))
            lengths.append(sum(found.values()))
        self._places, self.count = places, len(lengths)
        owners = np.repeat(np.arange(self.count, dtype=np.int32), [len(one) for one in words])
        which = np.concatenate(words) if words else np.zeros(0, np.int32)
        times = np.concatenate(counts) if counts else np.zeros(0, np.float32)
        order = np.argsort(which, kind="stable")
        self._starts = np.searchsorted(which[order], np.arange(len(places) + 1))
        self._owners = owners[order]
        length = np.array(lengths, np.float32)
        mean = float(length.mean()) if self.count else 0.0
        around = k1 * (1 - b + b * length / np.float32(max(mean, 1.0)))
        times = times[order]
        times *= np.float32(k1 + 1) / (times + around[self._owners].astype(np.float32))
        known = np.diff(self._starts)
        idf = np.log1p((self.count - known + 0.5) / (known + 0.5)).astype(np.float32)
        times *= np.repeat(idf, known)
        self._weights = times

    def scores(self, query: str) -> Array:
        """Return the score of every text, (texts,) float32."""
        total = np.zeros(self.count, np.float32)
        for word, times in Counter(words_of(query)).items():
            if (place := self._places.get(word)) is not None:
                at = slice(self._starts[place], self._starts[place + 1])
                total[self._owners[at]] += times * self._weights[at]
        return total

    def best(self, query: str, count: int) -> NDArray[np.int64]:
        """Return the numbers of the best texts with any score, the best first."""
        scores = self.scores(query)
        order = np.argsort(-scores, kind="stable")[:count]
        return order[scores[order] > 0]
