"""Coordinate search over words: a foreign text of few words that rises for one query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

Scores = Callable[[Sequence[str]], Array]  # of texts, for one query
WORDS = 12  # of a foreign text
_TRIED = 8  # words that are tried at a place in one call


@dataclass(frozen=True)
class Risen:
    """What was found; the text stays in memory.

    Attributes:
      first: the score of random words.
      score: of the text.
      forwards: texts that were encoded.
    """

    text: str
    first: float
    score: float
    forwards: int


def risen(scores: Scores, words: Sequence[str], enough: float, forwards: int, key: Key) -> Risen:
    """Return the best text that was found: one word is changed at a time, the best of a few kept.

    Args:
      words: of the user's own documents, which a text is made of.
      enough: the score from which on the search ends.
      forwards: texts that may be encoded.
      key: what first words, places and candidates are drawn by.
    """
    draw = key.generator("words of a foreign document")
    chosen = [words[number] for number in draw.integers(len(words), size=WORDS)]
    first = best = float(scores([" ".join(chosen)])[0])
    spent = 1
    while spent < forwards and best <= enough:
        place = int(draw.integers(WORDS))
        tried = [words[n] for n in draw.integers(len(words), size=min(_TRIED, forwards - spent))]
        texts = [" ".join([*chosen[:place], word, *chosen[place + 1 :]]) for word in tried]
        found = scores(texts)
        spent += len(texts)
        if float(found.max()) > best:
            at = int(np.argmax(found))
            best, chosen[place] = float(found[at]), tried[at]
    return Risen(" ".join(chosen), first, best, spent)
