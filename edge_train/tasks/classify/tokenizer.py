"""Texts as token ids for a transformers encoder, without transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError
from edge_train.formats.tokenizer_files import open_with_size
from edge_train.formats.tokenizer_size import NOT_COUNTED, TokenizerSize

_BATCH = 64  # texts tokenized at once: the tokenizer holds 200 bytes for each of their letters
# Of a book only its beginning is tokenized: enough characters for all ids that are kept, up to a
# space, beyond which no token reaches back.
_CHARACTERS, _SPARE = 32, 16
_MOST_TYPES = 4  # XLNet tells apart the two texts, the separators, the first token and padding


Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Encoded:
    """Texts as ids.

    Attributes:
      ids: (texts, length) int32, padded.
      counts: ids of every text (texts,) int32.
      types: of pairs, which of the two texts an id belongs to, (texts, length) int8; else None.
      cut: texts that lost their end.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]
    types: NDArray[np.int8] | None
    cut: int


@dataclass(frozen=True)
class TextTokenizer:
    """Turns texts, or pairs of them, into padded ids; `pad` fills what a text leaves free."""

    backend: Tokenizer
    pad: int
    size: TokenizerSize = NOT_COUNTED

    @classmethod
    def from_folder(cls, folder: Path, pad: int, vocabulary: int) -> "TextTokenizer":
        """Read the tokenizer of a model folder.

        Args:
          vocabulary: rows of the model's embedding table.

        Raises:
          ModelError: none is there, it is damaged, or it has more tokens than the model.
        """
        tokenizer, size = open_with_size(folder, vocabulary)
        return cls(tokenizer, pad, size)

    @property
    def parts_pairs(self) -> bool:
        """Whether something stands between the two texts of a pair."""
        pair = ("a", "b")
        bare = self.backend.encode(*pair, add_special_tokens=False)
        return len(self.backend.encode(*pair).ids) > len(bare.ids)

    def longest(self, texts: Texts, most: int) -> int:
        """Return the number of ids of the longest text, its first and last token included.

        Above `most` the number may be smaller, and still above it.
        """
        parts = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return max(len(one.ids) for part in parts for one in self._encoded(part, most))

    def encode(self, texts: Texts, length: int) -> Encoded:
        """Return texts as ids, as the tokenizer's own template for one or two texts puts them.

        Longer texts lose their end, of a pair the longer one first; the closing token stays.

        Raises:
          InputError: the template alone is as long as a text may be.
        """
        ids = np.full((len(texts), length), self.pad, np.int32)
        counts = np.zeros(len(texts), np.int32)
        in_pairs = bool(texts) and not isinstance(texts[0], str)
        around = self.backend.num_special_tokens_to_add(in_pairs)
        if around >= length:
            raise InputError(
                f"the tokenizer puts {around} tokens around a text, so none of {length} are left; "
                f"name a longer one: --length {around + 1} at least."
            )
        types = np.zeros(ids.shape, np.int8) if in_pairs else None
        cut = 0
        self.backend.enable_truncation(length)
        for start in range(0, len(texts), _BATCH):
            some = self._encoded(texts[start : start + _BATCH], length)
            for row, one in enumerate(some, start):
                counts[row] = len(one.ids)
                ids[row, : counts[row]] = one.ids
                if types is not None:
                    if max(one.type_ids) > _MOST_TYPES:
                        raise InputError(
                            f"the tokenizer calls a text of a pair number {max(one.type_ids)}, "
                            f"expected at most {_MOST_TYPES}; download the model again."
                        )
                    types[row, : counts[row]] = one.type_ids
                cut += bool(one.overflowing)
        self.backend.no_truncation()
        return Encoded(ids, counts, types, cut)

    def _encoded(self, texts: Texts, most: int) -> list[Any]:
        heads: list[Any] = [
            self._head(text, most)
            if isinstance(text, str)
            else tuple(self._head(one, most) for one in text)
            for text in texts
        ]
        return list(self.backend.encode_batch(heads))

    def _head(self, text: str, most: int) -> str:
        """Return as much of a text as tells its first `most` ids, and that there are more."""
        reach = _CHARACTERS * most
        while len(text) > reach:
            end = text.rfind(" ", 0, reach)
            if end < reach // 2:
                return text  # of a language without spaces
            found = self.backend.encode(text[:end], add_special_tokens=False)
            if len(found.ids) + sum(len(one.ids) for one in found.overflowing) > most + _SPARE:
                return text[:end]
            reach *= 4
        return text
