"""One prompt in the tokens of two models: aligned by the characters that each token is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.formats.prompt_words import Place, PromptWords
from edge_train.rng import Key

_TIMES = 4  # as many candidates of the first tokenizer are drawn as are wanted of both


@dataclass(frozen=True)
class AlignedWords:
    """Words that are one token each in both tokenizers.

    Attributes:
      first, second: of the two models.
    """

    first: PromptWords
    second: PromptWords

    def propose(self, key: Key, ids: Sequence[int], position: int, count: int) -> NDArray[np.int64]:
        """Return ids of the first tokenizer to try; see `estimators.discrete.Propose`."""
        found: list[int] = []
        for one in self.first.propose(key, ids, position, _TIMES * count).tolist():
            if len(found) == count:
                break
            if self.other([*ids[:position], one, *ids[position + 1 :]]) is not None:
                found.append(one)
        return np.array(found, np.int64)

    def other(self, ids: Sequence[int]) -> tuple[int, ...] | None:
        """Return a prompt's ids in the second tokenizer; None: its tokens are not the same words.

        Both are read where they stand, and each token of one has to have the very characters of
        one token of the other, spaces around them aside.
        """
        return _aligned(self, tuple(ids))

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


@lru_cache(maxsize=4096)
def _aligned(words: AlignedWords, ids: tuple[int, ...]) -> tuple[int, ...] | None:
    text = words.first.text(ids)
    _, spans = spans_of(words.first.tokenizer, words.first.place, text)
    found, others = spans_of(words.second.tokenizer, words.second.place, text)
    if spans != others or not words.second.admits(found):
        return None
    return tuple(found)


def spans_of(
    tokenizer: Tokenizer, place: Place, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of a prompt where it stands, and which of its characters each one is.

    Characters are counted from the prompt's begin; spaces at the ends of a token do not count.
    """
    begin, end = len(place.before), len(place.before) + len(text)
    whole = f"{place.before}{text}{place.behind}"
    read = tokenizer.encode(whole, add_special_tokens=place.special)
    ids, spans = [], []
    for one, (start, stop) in zip(read.ids, read.offsets, strict=True):
        if stop <= begin or start >= end:
            continue
        part = whole[start:stop]
        start += len(part) - len(part.lstrip())
        stop -= len(part) - len(part.rstrip())
        ids.append(one)
        spans.append((start - begin, stop - begin))
    return ids, spans
