"""Tokens around a document: those of the tokenizer's own template, and the model's end token."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_train.errors import ModelError
from edge_train.formats.weight_files import read_json

_BETWEEN = "\n\n"  # between documents of a model that has no end token


@dataclass(frozen=True)
class Marks:
    """Ids before the first and behind the last token of a document.

    Attributes:
      said: a line for the user where the model has no end token; else empty.
    """

    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    said: str = ""


def marks_of(tokenizer: Tokenizer, config: Mapping[str, Any], folder: Path) -> Marks:
    """Return the marks of a model.

    The template in `tokenizer.json` says what stands before a text, and may say what stands behind
    it; where it does not, that is the end token of the configuration or of `tokenizer_config.json`.
    """
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), None)
    begin, end = ((), ()) if at is None else (tuple(full[:at]), tuple(full[at + len(bare) :]))
    if not end and (token := _end_token(tokenizer, config, folder)) is not None:
        end = (token,)
    if end:
        return Marks(begin, end)
    between = tuple(tokenizer.encode(_BETWEEN, add_special_tokens=False).ids)
    said = "the model names no end token: an empty line stands between documents"
    return Marks(begin, between, said)


def _end_token(tokenizer: Tokenizer, config: Mapping[str, Any], folder: Path) -> int | None:
    found = config.get("eos_token_id")
    if isinstance(found, list):
        found = next(iter(found), None)
    if type(found) is int and tokenizer.id_to_token(found) is not None:
        return found
    try:
        word = read_json(folder / "tokenizer_config.json").get("eos_token")
    except ModelError:
        return None
    word = word.get("content") if isinstance(word, dict) else word
    return tokenizer.token_to_id(word) if isinstance(word, str) else None
