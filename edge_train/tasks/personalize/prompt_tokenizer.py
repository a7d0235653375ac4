"""Prompts as token ids: CLIP's byte-level BPE without transformers, with room for new vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from edge_train.errors import InputError, ModelError
from edge_train.formats.weight_files import check_place, read_json

_Json = dict[str, Any]

_PLACE = "{}"
_LONGEST = 4096  # ids; a model_max_length above this is a "no limit" that CLIP cannot have
_CLASSES = (None, "CLIPTokenizer", "CLIPTokenizerFast", "TokenizersBackend")
_EXPECTED = "expected a CLIPTokenizer; name a Stable Diffusion 1.x, 2.x or XL model."
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_LAST = ("eos_token", "unk_token", "pad_token")
_SPECIAL = {"bos_token": "<|startoftext|>", **dict.fromkeys(_LAST, "<|endoftext|>")}  # defaults


@dataclass(frozen=True)
class PromptTokenizer:
    """Turns prompts into ids exactly as transformers' CLIPTokenizer does.

    `bos`, `eos` and `pad` are ids; `max_length` counts ids, the first and last included.

    Source:
      transformers 5.23, `CLIPTokenizer`; we differ in writing a learned token as `{}` and its
      vectors as negative ids, so that no vocabulary grows.
    """

    backend: Tokenizer
    bos: int
    eos: int
    pad: int
    max_length: int

    @classmethod
    def from_folder(cls, folder: Path) -> "PromptTokenizer":
        """Read the tokenizer folder of a Stable Diffusion model.

        It holds `tokenizer_config.json` (older ones `special_tokens_map.json` as well), and
        `tokenizer.json` or `vocab.json` with `merges.txt`.

        Raises:
          ModelError: a file is missing or damaged, or this is not a CLIP tokenizer.
        """
        try:
            return cls._read(folder)
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # tokenizers raises plain Exception, and JSON may hold anything
            raise ModelError(
                f"{folder}: the tokenizer cannot be read ({error}); download the model again."
            ) from error

    @classmethod
    def _read(cls, folder: Path) -> "PromptTokenizer":
        config = _json(folder, "tokenizer_config.json", required=True)
        if (kind := config.get("tokenizer_class")) not in _CLASSES:
            raise ModelError(f"{folder}: tokenizer_class is {kind!r}, {_EXPECTED}")
        max_length = config.get("model_max_length")
        if not isinstance(max_length, int) or not 3 <= max_length <= _LONGEST:
            raise ModelError(
                f"{folder}/tokenizer_config.json: model_max_length is {max_length}, expected 3 to "
                f"{_LONGEST}; write 77 there or download the model again."
            )
        special, added = _added_tokens(folder, config)
        backend = Tokenizer(_bpe(folder, special["unk_token"]))
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
        backend.add_tokens(added)
        id_of = backend.get_vocab()
        bos, eos, pad = (id_of[special[name]] for name in ("bos_token", "eos_token", "pad_token"))
        return cls(backend, bos, eos, pad, max_length)

    def encode(self, prompt: str, vectors: int) -> NDArray[np.int64]:
        """Return the ids of a prompt: first token, words, last token, padding.

        Args:
          prompt: any text; every `{}` in it stands for the learned token.
          vectors: how many ids the learned token takes; vector j has id -1 - j.

        Returns:
          (max_length,) int64. A longer prompt loses its last words.

        Raises:
          InputError: the prompt is so long that a learned token would be lost.
        """
        ids, room = self._ids(prompt, vectors), self.room
        if any(number < 0 for number in ids[room:]):
            raise InputError(
                f"the prompt {prompt!r} has {len(ids)} tokens and the learned one lies beyond the "
                f"limit of {room}; shorten the text in front of it, or learn fewer than {vectors} "
                "vectors."
            )
        ids = [self.bos, *ids[:room], self.eos]
        return np.array(ids + [self.pad] * (self.max_length - len(ids)), dtype=np.int64)

    @property
    def room(self) -> int:
        """How many ids a prompt may have beside its first and last one; the rest is cut off."""
        return self.max_length - 2

    def count(self, prompt: str, vectors: int) -> int:
        """Return how many ids a prompt has, also those beyond `room`."""
        return len(self._ids(prompt, vectors))

    def _ids(self, prompt: str, vectors: int) -> list[int]:
        if vectors < 1:
            raise ValueError(f"vectors is {vectors}, must be positive")
        ids, *others = (self.word_ids(piece) for piece in prompt.split(_PLACE))
        for piece in others:
            ids += [*range(-1, -1 - vectors, -1), *piece]
        return ids

    def word_ids(self, word: str) -> list[int]:
        """Return the ids of a word or text, without first and last token.

        Raises:
          InputError: the text comes from bytes that are not UTF-8.
        """
        try:
            return list(self.backend.encode(word, add_special_tokens=False).ids)
        except (TypeError, UnicodeError) as error:
            raise InputError(f"{word!r} is not valid text; type it again as UTF-8.") from error

    def contains(self, token: str) -> bool:
        """Return whether this spelling already is one entry of the vocabulary."""
        return self.backend.token_to_id(token) is not None or len(self.word_ids(token)) == 1

    def check_new_token(self, token: str) -> None:
        """Raise InputError if the spelling already is an entry of the vocabulary."""
        if self.contains(token):
            raise InputError(
                f"token {token!r} is already in the vocabulary of this model; choose another, for "
                f"example --token '<my-{token.strip('<>[]')}>'."
            )

    def token_ids(self, prompts: Iterable[str], vectors: int) -> list[int]:
        """Return the vocabulary entries that some of the prompts use, sorted."""
        used = {int(number) for prompt in prompts for number in self.encode(prompt, vectors)}
        return sorted(number for number in used if number >= 0)


def _file(folder: Path, name: str) -> Path:
    check_place(folder / name, folder.parent)
    if not (folder / name).is_file():
        raise ModelError(f"{folder}: {name} is missing; download the model again.")
    return folder / name


def _json(folder: Path, name: str, required: bool = False) -> _Json:
    if not required and not (folder / name).exists():
        return {}
    return dict(read_json(_file(folder, name), folder.parent))


def _bpe(folder: Path, unknown: str) -> BPE:
    """Return the merge rules; `tokenizer.json` goes first, as in transformers."""
    kind = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "unk_token": unknown}
    if model := _json(folder, "tokenizer.json").get("model"):
        found = model.get("type"), model.get("end_of_word_suffix")
        if found != ("BPE", "</w>"):
            raise ModelError(f"{folder}/tokenizer.json: model and suffix {found}, {_EXPECTED}")
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        return BPE(model["vocab"], merges, **kind)
    files = (str(_file(folder, name)) for name in ("vocab.json", "merges.txt"))
    return BPE.from_file(*files, **kind)


def _added_tokens(folder: Path, config: _Json) -> tuple[dict[str, str], list[AddedToken]]:
    """Return the special tokens' spellings, and all added tokens in transformers' order."""
    special: _Json = _SPECIAL | {k: config[k] for k in _SPECIAL if config.get(k)}
    known: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        known = {int(i): _token(value) for i, value in config["added_tokens_decoder"].items()}
    else:
        stored = _json(folder, "special_tokens_map.json")
        special |= {k: stored[k] for k in _SPECIAL if stored.get(k)}
        spellings = {_token(value).content for value in special.values()}
        for content, number in _json(folder, "added_tokens.json").items():
            known[number] = AddedToken(content, special=content in spellings)
        for value in _json(folder, "tokenizer.json").get("added_tokens", ()):
            known[value["id"]] = _token(value)
    named = {name: _token(value, special=True) for name, value in special.items()}
    contents = {token.content for token in known.values()}
    new = [token for token in named.values() if token.content not in contents]
    added = [known[number] for number in sorted(known)] + new
    return {name: token.content for name, token in named.items()}, added


def _token(value: str | _Json, **flags: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=True)
    return AddedToken(**{k: v for k, v in value.items() if k not in ("__type", "id")} | flags)
