"""Whole words of a tokenizer, and prompts of them that read back as the very same tokens.

A prompt is found as token ids and used as text: by an app, which tokenizes it again. So a prompt
counts only if its text, where it stands, becomes these ids and no others.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError
from edge_train.rng import Key

_TRIES = 8  # times as many draws as candidates are wanted; more are refused one after the other
_BEFORE = "a"  # a word that another one follows


@dataclass(frozen=True)
class Place:
    """Where a prompt stands in every text.

    Attributes:
      before, behind: the text around it in one of them.
      at: tokens before it; the same in every text.
      special: whether the tokenizer puts its own tokens around a text.
    """

    before: str
    behind: str
    at: int
    special: bool = False


@dataclass(frozen=True)
class PromptWords:
    """Tokens that a prompt may have.

    Attributes:
      first: ids of whole words that a text can begin with, ascending.
      inner: of whole words behind a space.
    """

    tokenizer: Tokenizer
    place: Place
    first: NDArray[np.int64]
    inner: NDArray[np.int64]

    def text(self, ids: Iterable[int]) -> str:
        """Return a prompt as text."""
        found: str = self.tokenizer.decode([int(one) for one in ids], skip_special_tokens=False)
        return found.strip()

    def admits(self, ids: Sequence[int]) -> bool:
        """Return whether the text of these ids, where it stands, is read as these ids again."""
        place = self.place
        return reads_as(self.tokenizer, place, self.text(ids), ids)

    def propose(self, key: Key, ids: Sequence[int], position: int, count: int) -> NDArray[np.int64]:
        """Return ids to try at a position, drawn evenly; those that do not read back are left out.

        Fewer than `count` are returned where `_TRIES` times as many draws give no more.
        """
        pool = self.first if position == 0 else self.inner
        most = min(_TRIES * count, len(pool))
        drawn = key.generator("candidates").choice(len(pool), size=most, replace=False)
        found: list[int] = []
        for one in pool[drawn].tolist():
            if len(found) == count:
                break
            if one != ids[position] and self.admits([*ids[:position], one, *ids[position + 1 :]]):
                found.append(one)
        return np.array(found, np.int64)

    def start(self, seed: int, count: int) -> list[int]:
        """Return a prompt of random words.

        Raises:
          InputError: none of those that were drawn reads back.
        """
        for turn in range(_TRIES):
            draw = Key(seed, turn).generator("prompt")
            ids = [int(draw.choice(self.first)), *draw.choice(self.inner, count - 1).tolist()]
            if self.admits(ids):
                return ids
        raise InputError(
            "no prompt of random words is read as the same tokens again by this tokenizer; write "
            "one with --prompt-start."
        )


def reads_as(tokenizer: Tokenizer, place: Place, text: str, ids: Sequence[int]) -> bool:
    """Return whether a prompt's text, where it stands, is read as these ids."""
    whole = tokenizer.encode(
        f"{place.before}{text}{place.behind}", add_special_tokens=place.special
    )
    start, end = len(place.before), len(place.before) + len(text)
    spans = whole.offsets[place.at : place.at + len(ids)]
    covered = all(end > first and start < last for first, last in spans)
    outside = whole.offsets[: place.at] + whole.offsets[place.at + len(ids) :]
    apart = all(last <= start or first >= end for first, last in outside if first < last)
    return covered and apart and list(whole.ids[place.at : place.at + len(ids)]) == list(ids)


def prompt_words(
    tokenizer: Tokenizer, place: Place, used: Collection[int] | None = None
) -> PromptWords:
    """Return the words that a prompt may have: letters only, each one token.

    Args:
      used: ids that the data have; None: all of the vocabulary may be drawn.

    Raises:
      InputError: there are none.
    """
    added = set(tokenizer.get_added_tokens_decoder())
    ids = [one for one in range(tokenizer.get_vocab_size()) if one not in added]
    texts = tokenizer.decode_batch([[one] for one in ids], skip_special_tokens=False)
    words = sorted({text.strip() for text in texts if text.strip().isalpha()})
    before = tokenizer.encode(_BEFORE, add_special_tokens=False).ids
    alone = tokenizer.encode_batch(words, add_special_tokens=False)
    after = tokenizer.encode_batch([f"{_BEFORE} {w}" for w in words], add_special_tokens=False)
    first, inner = [], []
    for one, two in zip(alone, after, strict=True):
        single = len(two.ids) == len(before) + 1 and two.ids[:-1] == before
        if single and (used is None or two.ids[-1] in used):
            inner.append(two.ids[-1])
            if len(one.ids) == 1:
                first.append(one.ids[0])
    if not first or not inner:
        where = "" if used is None else " that the data have; draw from --words vocabulary"
        raise InputError(
            f"the tokenizer has no token that is a whole word{where}; a prompt cannot be searched "
            "word by word."
        )
    return PromptWords(
        tokenizer, place, *(np.unique(np.array(p, np.int64)) for p in (first, inner))
    )


def first_prompt(
    tokenizer: Tokenizer, place: Place, start: str | None, count: int | None, usual: int, seed: int
) -> tuple[tuple[int, ...], str]:
    """Return the ids and the text that a search begins with.

    Args:
      start: words that a user wrote; None: random ones.
      count: of tokens, as asked for; None: those of `start`, else `usual`.

    Raises:
      InputError: they are not read as their own tokens at that place, or are not so many.
    """
    if start is None:
        words = prompt_words(tokenizer, place)
        found = words.start(seed, count or usual)
        return tuple(found), words.text(found)
    text = " ".join(start.split())
    ids = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    if not ids:
        raise InputError("--prompt-start is empty; write words, or leave it out.")
    if count is not None and count != len(ids):
        raise InputError(
            f"prompt_tokens is {count}, but --prompt-start {text!r} has {len(ids)}; leave one of "
            "them out."
        )
    special = {n for n, one in tokenizer.get_added_tokens_decoder().items() if one.special}
    if not special.isdisjoint(ids) or not reads_as(tokenizer, place, text, ids):
        raise InputError(
            f"--prompt-start {text!r} is not read as the same {len(ids)} tokens where it stands; "
            "write other words."
        )
    return ids, text
