"""Coordinate search over words: a foreign text of few words that rises for one query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

Scores = Callable[[Sequence[str]], Array]  # of texts, for one query
WORDS = 24  # of a foreign text
_TRIED = 8  # texts that are tried in one call


@dataclass(frozen=True)
class Risen:
    """What was found; the text stays in memory.

    Attributes:
      first: the score of the text that the search began with.
      score: of the text.
      forwards: texts that were encoded.
    """

    text: str
    first: float
    score: float
    forwards: int


def risen(
    scores: Scores,
    words: Sequence[str],
    enough: float,
    forwards: int,
    key: Key,
    start: Sequence[str] = (),
    likely: Sequence[str] = (),
) -> Risen:
    """Return the best text that was found: a word at a time is put in, the best of a few kept.

    A try puts a word in the place of another one, or at the beginning, where the last word goes;
    half of the words that are tried are `likely` ones.

    Args:
      words: of the user's own documents, which a text is made of.
      enough: the score from which on the search ends.
      forwards: texts that may be encoded.
      key: what places and candidates are drawn by, and first words where there is no `start`.
      start: words that the search begins with.
      likely: words that may be worth more than others; none: all are alike.
    """
    draw = key.generator("words of a foreign document")
    chosen = list(start) or [words[number] for number in draw.integers(len(words), size=WORDS)]
    first = best = float(scores([" ".join(chosen)])[0])
    spent = 1
    while spent < forwards and best <= enough:
        place = int(draw.integers(len(chosen)))
        tried = []
        for number in range(min(_TRIED, forwards - spent)):
            pool = likely if likely and number % 2 else words
            word = pool[int(draw.integers(len(pool)))]
            if number % 4 < 2:
                tried.append([*chosen[:place], word, *chosen[place + 1 :]])
            else:
                tried.append([word, *chosen[:-1]])
        found = scores([" ".join(one) for one in tried])
        spent += len(tried)
        at = int(np.argmax(found))
        if float(found[at]) > best:
            best, chosen = float(found[at]), tried[at]
    return Risen(" ".join(chosen), first, best, spent)
