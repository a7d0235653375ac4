"""Documents in passages, and texts as the tokens that are compared."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.tasks.retrieve.documents import Document

# A sentence with what follows it, or a line.
_PIECE = re.compile(r"[^.!?\n]*(?:[.!?]+(?=\s)\s*|\n+|[.!?]+|$)")
_TEXTS = 512  # tokenized at once


@dataclass(frozen=True)
class Passage:
    """A part of a document's text."""

    document: int
    text: str


@dataclass(frozen=True)
class Tokens:
    """A text as a model reads it, and which of its tokens are compared.

    Attributes:
      ids: with those that the tokenizer puts around a text.
      kept: places among them of tokens with a letter or digit that the tokenizer knows.
      offsets: (kept, 2), where each of these lies in the text.
      unknown: tokens that it does not know.
    """

    ids: list[int]
    kept: list[int]
    offsets: list[tuple[int, int]]
    unknown: int


@dataclass(frozen=True)
class Reader:
    """A tokenizer with the most tokens of a text.

    Attributes:
      length: of a text, with those around it; a longer one loses its end.
    """

    tokenizer: Tokenizer
    length: int

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Return texts as tokens."""
        self.tokenizer.enable_truncation(self.length)
        try:
            found = self.tokenizer.encode_batch(list(texts))
        finally:
            self.tokenizer.no_truncation()
        return [self._tokens(text, one) for text, one in zip(texts, found, strict=True)]

    @property
    def _unknown(self) -> int | None:
        word = getattr(self.tokenizer.model, "unk_token", None)
        number: int | None = None if word is None else self.tokenizer.token_to_id(word)
        return number

    def _tokens(self, text: str, found: Any) -> Tokens:
        unknown, kept, offsets, left = self._unknown, [], [], 0
        plain = zip(found.ids, found.special_tokens_mask, found.offsets, strict=True)
        for place, (number, special, (start, end)) in enumerate(plain):
            if number == unknown and end > start:
                left += 1
            elif not special and any(map(str.isalnum, text[start:end])):
                kept.append(place)
                offsets.append((start, end))
        return Tokens(list(found.ids), kept, offsets, left)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens texts have, without those around them."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in found]

    @property
    def room(self) -> int:
        """The tokens of a text itself."""
        return int(self.length - self.tokenizer.num_special_tokens_to_add(False))


def passages_of(documents: Sequence[Document], reader: Reader) -> Iterator[Passage]:
    """Yield the passages of documents: as many whole sentences as fit, a longer sentence in parts.

    A title that the text repeats at its beginning is taken out of the text. A document that is
    nothing but a title is one passage, the title.
    """
    for number, document in enumerate(documents):
        text = without_title(document)
        for part in split(text or document.title, reader):
            yield Passage(number, part)


def without_title(document: Document) -> str:
    """Return the text of a document without its title, where it begins with it.

    >>> without_title(Document("1", "slip flow .", "Slip flow .  An account of it."))
    'An account of it.'
    """
    title, text = document.title, document.text
    if title and text[: len(title)].casefold() == title.casefold():
        rest = text[len(title) :]
        if not rest[:1].isalnum():
            return rest.strip()
    return text


def split(text: str, reader: Reader) -> Iterator[str]:
    """Yield a text in parts of at most `reader.room` tokens, each of whole sentences if it can."""
    pieces = [piece for piece in _PIECE.findall(text) if piece]
    some, room = "", reader.room
    for start in range(0, len(pieces), _TEXTS):
        few = pieces[start : start + _TEXTS]
        for piece, count in zip(few, reader.count(few), strict=True):
            if some.strip() and count > room:
                yield some.strip()
                some, room = "", reader.room
            if count > reader.room:
                *whole, piece = _cut(piece, reader)
                yield from (part for part in whole if part)
                count = reader.count([piece])[0]
            some += piece
            room -= count
    if some.strip():
        yield some.strip()


def _cut(piece: str, reader: Reader) -> list[str]:
    """Return a sentence that is too long in parts."""
    found = reader.tokenizer.encode(piece, add_special_tokens=False)
    ends = [found.offsets[at][0] for at in range(reader.room, len(found.ids), reader.room)]
    bounds = [0, *ends, len(piece)]
    return [piece[a:b].strip() for a, b in pairwise(bounds)]


def padded(rows: Sequence[Tokens], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask (texts, tokens of the longest)."""
    most = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), most), pad, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        mask[number, : len(row.ids)] = 1
    return ids, mask
