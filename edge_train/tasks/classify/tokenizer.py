"""Texts as token ids for a transformers encoder, without transformers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from edge_train.errors import ModelError

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_BATCH = 1024  # texts tokenized at once


@dataclass(frozen=True)
class TextTokenizer:
    """Turns texts into padded ids; `pad` fills what a text leaves free."""

    backend: Tokenizer
    pad: int

    @classmethod
    def from_folder(cls, folder: Path, pad: int, vocabulary: int) -> "TextTokenizer":
        """Read `tokenizer.json`, or the WordPiece `vocab.txt` of older BERT folders.

        Args:
          vocabulary: rows of the model's embedding table.

        Raises:
          ModelError: neither is there, one is damaged, or it has more tokens than the model.
        """
        try:
            if (folder / "tokenizer.json").is_file():
                backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
            elif (folder / "vocab.txt").is_file():
                backend = _word_piece(folder)
            else:
                raise ModelError(
                    f"{folder}: no tokenizer.json and no vocab.txt; copy or download the model "
                    "again with its tokenizer."
                )
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # tokenizers raises plain Exception, and JSON may hold anything
            raise ModelError(
                f"{folder}: the tokenizer cannot be read ({error}); download the model again."
            ) from error
        if (tokens := backend.get_vocab_size()) > vocabulary:
            raise ModelError(
                f"{folder}: the tokenizer has {tokens} tokens, the model's table {vocabulary} "
                "rows; they do not belong together."
            )
        backend.no_padding()
        backend.no_truncation()
        return cls(backend, pad)

    def longest(self, texts: Sequence[str]) -> int:
        """Return the number of ids of the longest text, its first and last token included."""
        parts = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return max(len(one.ids) for part in parts for one in self.backend.encode_batch(list(part)))

    def encode(
        self, texts: Sequence[str], length: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return padded ids (texts, length) and the number of ids of every text (texts,).

        Longer texts lose their end; the closing token stays.
        """
        ids = np.full((len(texts), length), self.pad, np.int32)
        counts = np.zeros(len(texts), np.int32)
        self.backend.enable_truncation(length)
        for start in range(0, len(texts), _BATCH):
            some = self.backend.encode_batch(list(texts[start : start + _BATCH]))
            for row, one in enumerate(some, start):
                counts[row] = len(one.ids)
                ids[row, : counts[row]] = one.ids
        self.backend.no_truncation()
        return ids, counts


def _word_piece(folder: Path) -> Tokenizer:
    """Return BERT's own tokenizer, as transformers builds it from a vocabulary."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    backend = Tokenizer(WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))  # noqa: S106
    backend.normalizer = normalizers.BertNormalizer(lowercase=config.get("do_lower_case", True))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    if any(number is None for _, number in ends):
        raise ModelError(f"{folder}/vocab.txt: no [CLS] or no [SEP] in it; not BERT's vocabulary.")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return backend
