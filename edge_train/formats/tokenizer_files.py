"""The tokenizer of a model folder, from whichever files it was published with.

`tokenizer.json` is read as it is. `vocab.txt` (BERT's kin) and `vocab.json` with `merges.txt`
(GPT-2's and RoBERTa's kin) give the same tokenizer as in transformers, without it. A sentencepiece
model goes through transformers, where that and `sentencepiece` are installed (the extra `desk`),
and has to give the pieces that sentencepiece itself gives.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE, Unigram, WordPiece

from edge_train.errors import ModelError
from edge_train.formats.merges import check_merges, is_in_words
from edge_train.formats.tokenizer_size import Source, TokenizerSize
from edge_train.formats.weight_files import check_place, read_json

_JSON, _WORDS, _PIECES, _MERGES = "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_ADDED = "added_tokens.json"
_UNUSUAL = "a \u0378"
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model")
_SPACE, _COMPARED = "\u2581", 50  # sentencepiece's sign for a space; words that are compared
# Tokens in the order in which transformers names them, and what they are where no file says it.
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
_END = "<|endoftext|>"
_TOKENS = {
    "Bert": _BERT,
    "MPNet": {**_ROBERTA, "unk": "[UNK]"},
    "Roberta": _ROBERTA,
    "Deberta": {**_BERT, "bos": "[CLS]", "eos": "[SEP]"},
    "GPT2": {"bos": _END, "eos": _END, "unk": _END},
    "Qwen2": {"eos": _END, "unk": _END, "pad": _END},
}
_OF_WORDS = ("Bert", "MPNet")  # the others are of pieces
# Classes and models whose tokenizer is one of these, without "Tokenizer" and "Fast", small letters.
_SAME = {
    **dict.fromkeys(("bert", "distilbert", "electra", "mobilebert", "convbert"), "Bert"),
    **dict.fromkeys(("megatron-bert", "squeezebert", "layoutlm", "retribert"), "Bert"),
    "mpnet": "MPNet",
    **dict.fromkeys(("roberta", "bart", "longformer", "led", "roberta-prelayernorm"), "Roberta"),
    **dict.fromkeys(("data2vec-text", "ibert"), "Roberta"),
    "deberta": "Deberta",
    **dict.fromkeys(("gpt2", "opt", "gpt_neo", "gptj"), "GPT2"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3"), "Qwen2"),
}
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the files that its tokenizer may be read from; not all need be there."""
    first = (_JSON, _WORDS, *_SETTINGS)
    if (folder / _JSON).is_file():
        return first
    return (*first, _PIECES, _MERGES, _ADDED, *_SENTENCEPIECE)


def open_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """Return the tokenizer of a model folder, without padding and truncation.

    Args:
      vocabulary: rows of the model's embedding table.

    Raises:
      ModelError: it is missing, damaged, of a kind that is not read here, or has more tokens than
        the model.
    """
    return open_with_size(folder, vocabulary)[0]


def open_with_size(folder: Path, vocabulary: int) -> tuple[Tokenizer, TokenizerSize]:
    """Return a tokenizer, as `open_tokenizer` has it, and how much there is in it.

    Raises:
      ModelError: as `open_tokenizer`.
    """
    for name in tokenizer_files(folder):
        check_place(folder / name, folder)
    try:
        tokenizer, merges, source = _opened(folder)
        tokenizer.encode(_UNUSUAL)  # a vocabulary without its unknown token fails only here
    except (ModelError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain Exceptions of tokenizers; panics of its Rust are none
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder}: the tokenizer cannot be read ({why}); download the model again."
        ) from error
    if (tokens := tokenizer.get_vocab_size()) > vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has {tokens} tokens, the model's table {vocabulary} rows; "
            "they do not belong together."
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, TokenizerSize(tokens, merges, source, isinstance(tokenizer.model, Unigram))


def _opened(folder: Path) -> tuple[Tokenizer, int, Source]:
    """Return a tokenizer, the number of its merges, and what it was read from."""
    if (folder / _JSON).is_file():
        return _of_json(folder / _JSON)
    words = (folder / _WORDS).is_file()
    pieces = all((folder / name).is_file() for name in (_PIECES, _MERGES))
    settings = _settings(folder)
    kind = _kind_of(folder, settings)
    if words and kind in _OF_WORDS:
        return _of_words(folder, kind, settings), 0, Source.WORDS
    if pieces and kind is not None and kind not in _OF_WORDS:
        made, merges = _of_pieces(folder, kind, settings)
        return made, merges, Source.WORDS
    for name in _SENTENCEPIECE:
        if (folder / name).is_file():
            return _of_sentencepiece(folder, name), 0, Source.WORDS  # nobody counts its merges
    if words or pieces:
        raise _unread(folder, settings, _WORDS if words else _PIECES)
    raise ModelError(
        f"{folder}: no tokenizer.json, no vocab.txt, no vocab.json with merges.txt and no "
        "tokenizer.model; copy or download the model again with its tokenizer."
    )


def _unread(folder: Path, settings: Mapping[str, Any], name: str) -> ModelError:
    """Return the refusal of files that transformers can write as `tokenizer.json`."""
    kind = settings.get("tokenizer_class")
    of = f" of a {kind}" if isinstance(kind, str) else ""
    return ModelError(
        f"{folder}: {name}{of} is a tokenizer that only transformers reads, with sentencepiece; "
        "`pip install edge-train[desk]` brings both, or write its tokenizer.json once on a machine "
        'that has them: python -c "from transformers import AutoTokenizer as A; '
        f"A.from_pretrained('{folder}').save_pretrained('{folder}')\"."
    )


def _settings(folder: Path) -> dict[str, Any]:
    """Return what the small files say; those of the added tokens' time go before the older one."""
    found = _read(folder / _SETTINGS[0])
    if "added_tokens_decoder" not in found:
        found |= _read(folder / _SETTINGS[1])
    return found


def _of_json(file: Path) -> tuple[Tokenizer, int, Source]:
    """Return a tokenizer, as `_opened` does.

    Merges that are lists of two are read by the library with three times as many bytes as
    "left right", so it gets them as these wherever that says the same.
    """
    text, count, source = _in_words(file)
    made = Tokenizer.from_str(text) if text else Tokenizer.from_file(str(file))
    return made, count, source


def _in_words(file: Path) -> tuple[str, int, Source]:
    """Return a file with its merges as words, empty where it is best read as it is.

    What was read of it is gone when this returns, before the library reads all of it once more.
    """
    content = dict(read_json(file))
    model = content.get("model")
    parts = model if isinstance(model, dict) else {}  # anything else is refused by tokenizers
    known, merges = parts.get("vocab"), parts.get("merges")
    if not (isinstance(known, dict) and isinstance(merges, list)):
        return "", 0, Source.WORDS
    check_merges(file, known, merges, str(parts.get("continuing_subword_prefix") or ""))
    if not merges or not isinstance(merges[0], list):
        return "", len(merges), Source.WORDS
    if not all(map(is_in_words, merges)):
        return "", len(merges), Source.PAIRS
    for at, pair in enumerate(merges):
        merges[at] = " ".join(pair)
    return json.dumps(content, ensure_ascii=False), len(merges), Source.JOINED


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _kind_of(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return whose tokenizer it is, None for one that is not read here.

    A `vocab.txt` of which nothing is known is BERT's, as earlier versions read it.
    """
    config = _read(folder / "config.json")
    for named in (settings.get("tokenizer_class"), config.get("tokenizer_class")):
        if isinstance(named, str):
            return _SAME.get(named.removesuffix("Fast").removesuffix("Tokenizer").lower())
    model = config.get("model_type")
    if (folder / _WORDS).is_file() and not isinstance(model, str):
        return "Bert"
    return _SAME.get(model) if isinstance(model, str) else None


def _of_words(folder: Path, kind: str, settings: Mapping[str, Any]) -> Tokenizer:
    """Return BERT's own tokenizer, as transformers builds it from a vocabulary."""
    roles = _roles(kind, settings)
    model = WordPiece.from_file(str(folder / _WORDS), unk_token=str(roles["unk"]))
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _add_tokens(folder, tokenizer, roles, settings)
    start, end = _ends(folder, tokenizer, roles)
    if kind == "MPNet":
        tokenizer.post_processor = processors.RobertaProcessing(end, start, True, False)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start[0]} $A {end[0]}",
            pair=f"{start[0]} $A {end[0]} $B:1 {end[0]}:1",
            special_tokens=[start, end],
        )
    return tokenizer


def _of_pieces(folder: Path, kind: str, settings: Mapping[str, Any]) -> tuple[Tokenizer, int]:
    """Return a tokenizer of pieces of bytes, as GPT-2 has it, and the number of its merges."""
    roles = _roles(kind, settings)
    lines = (folder / _MERGES).read_text("utf-8").split("\n")  # at no other sign, as tokenizers
    merges = [line for line in lines if line and not line.startswith("#version")]
    check_merges(folder / _MERGES, read_json(folder / _PIECES), merges)
    tokenizer = Tokenizer(
        BPE.from_file(
            str(folder / _PIECES),
            str(folder / _MERGES),
            continuing_subword_prefix="",
            end_of_word_suffix="",
        )
    )
    space = bool(settings.get("add_prefix_space", False))
    if kind == "Qwen2":
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(folder, tokenizer, roles, settings)
    if kind == "Roberta":
        start, end = _ends(folder, tokenizer, roles)
        trim = bool(settings.get("trim_offsets", True))
        tokenizer.post_processor = processors.RobertaProcessing(end, start, trim, space)
    elif kind == "Deberta":
        start, end = _ends(folder, tokenizer, roles)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start[0]} $A {end[0]}",
            pair=f"{start[0]} $A {end[0]} {end[0]} $B {end[0]}",
            special_tokens=[start, end],
        )
    else:
        _surround(folder, tokenizer, roles, settings)
    return tokenizer, len(merges)


def _surround(
    folder: Path, tokenizer: Tokenizer, roles: Mapping[str, AddedToken], settings: Mapping[str, Any]
) -> None:
    """Put the first or last token around texts where the settings ask for it, as OPT's do."""
    front = [_known(folder, tokenizer, roles, "bos")] if settings.get("add_bos_token") else []
    back = [_known(folder, tokenizer, roles, "eos")] if settings.get("add_eos_token") else []

    def around(text: str, number: int) -> str:
        return " ".join(f"{one}:{number}" for one in _names(front) + [text] + _names(back))

    tokenizer.post_processor = processors.TemplateProcessing(
        single=around("$A", 0),
        pair=f"{around('$A', 0)} {around('$B', 1)}",
        special_tokens=list(dict.fromkeys(front + back)),
    )


def _names(tokens: list[tuple[str, int]]) -> list[str]:
    return [name for name, _ in tokens]


def _roles(kind: str, settings: Mapping[str, Any]) -> dict[str, AddedToken]:
    """Return the tokens that have a role: the folder's own, else the usual ones."""
    found = {}
    for role in _ROLES:
        word = settings.get(f"{role}_token", _TOKENS[kind].get(role))
        if word is not None:
            found[role] = _token(word, True)
    return found


def _token(word: Any, special: bool) -> AddedToken:
    """Return a token that texts may hold as it stands."""
    if isinstance(word, str):
        return AddedToken(word, special=special, normalized=not special)
    sides = {name: bool(word.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
    normalized = bool(word.get("normalized", not special))
    return AddedToken(str(word["content"]), special=special, normalized=normalized, **sides)


def _add_tokens(
    folder: Path, tokenizer: Tokenizer, roles: Mapping[str, AddedToken], settings: Mapping[str, Any]
) -> None:
    """Add the tokens that are never taken apart, under the numbers that the folder gives them.

    Raises:
      ModelError: a number is not the one after all others, so it cannot be given.
    """
    if listed := settings.get("added_tokens_decoder"):
        words = {int(key): _token(word, bool(word["special"])) for key, word in listed.items()}
    else:
        names = {token.content for token in roles.values()}
        words = {
            number: _token(word, word in names) for word, number in _read(folder / _ADDED).items()
        }
    for number, token in sorted(words.items()):
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        if tokenizer.token_to_id(token.content) != number:
            raise ModelError(
                f"{folder}: the added token {token.content!r} has number {number}, which is not "
                "the next one of the vocabulary; download the model again."
            )
    names = {token.content for token in words.values()}
    # One that the vocabulary lacks would get a number that the model has no row for.
    known = [one for one in roles.values() if tokenizer.token_to_id(one.content) is not None]
    tokenizer.add_special_tokens([one for one in known if one.content not in names])


def _ends(
    folder: Path, tokenizer: Tokenizer, roles: Mapping[str, AddedToken]
) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the tokens before and behind a text, with their numbers."""
    start, end = (_known(folder, tokenizer, roles, role) for role in ("cls", "sep"))
    return start, end


def _known(
    folder: Path, tokenizer: Tokenizer, roles: Mapping[str, AddedToken], role: str
) -> tuple[str, int]:
    """Return a token by its role, with its number.

    Raises:
      ModelError: the vocabulary does not have it.
    """
    word = roles[role].content if role in roles else f"{role}_token"
    number = tokenizer.token_to_id(word)
    if number is None:
        raise ModelError(
            f"{folder}: no {word} in the vocabulary, which stands before or behind every text; "
            "download the model again with all files of its tokenizer."
        )
    return word, number


def _of_sentencepiece(folder: Path, name: str) -> Tokenizer:
    """Return what transformers makes of a sentencepiece model.

    Its choice of a class can lose the space before the first word (a Mistral without
    `tokenizer.json`), so the pieces of some words are compared with sentencepiece's own.

    Raises:
      ModelError: a package is missing, or transformers gives other pieces.
    """
    if not all(map(find_spec, ("transformers", "sentencepiece"))):
        raise _unread(folder, _read(folder / _SETTINGS[0]), name)
    from transformers import AutoTokenizer, LlamaTokenizer

    words, pieces = _own_pieces(folder / name)
    named = _read(folder / _SETTINGS[0]).get("tokenizer_class")
    llama = named in (None, "LlamaTokenizer", "LlamaTokenizerFast")
    for kind in (AutoTokenizer, LlamaTokenizer) if llama else (AutoTokenizer,):
        made = kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        tokenizer: Tokenizer = made.backend_tokenizer
        if tokenizer.encode(words, add_special_tokens=False).tokens == pieces:
            return tokenizer
    raise ModelError(
        f"{folder}: transformers takes {name} apart in another way than sentencepiece does; write "
        "its tokenizer.json with the version of transformers that the model was published for."
    )


def _own_pieces(path: Path) -> tuple[str, list[str]]:
    """Return some words of a sentencepiece model, and the pieces that it makes of them."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    words = [
        piece[1:]
        for number in range(model.get_piece_size())
        if (piece := model.id_to_piece(number)).startswith(_SPACE) and piece[1:].isalpha()
    ]
    text = " ".join(words[:_COMPARED])
    return text, [model.id_to_piece(number) for number in model.encode(text)]
