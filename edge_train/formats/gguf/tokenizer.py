"""The tokenizer that a GGUF file holds, with the ids that llama.cpp gives.

Kind `gpt2` is byte-level BPE with merges, behind a splitting into words that the file names. Kind
`llama` is sentencepiece's: pieces with scores, the best pair merged first; here the same as merges
in the order of scores. llama.cpp does not normalise texts, so neither does this.
"""

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from edge_train.errors import ModelError
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.merges import Merges
from edge_train.formats.tokenizer_size import Source, TokenizerSize

_UNKNOWN, _CONTROL, _USER, _BYTE = 2, 3, 4, 6  # types of tokens that are not plain
_SPACE = "\u2581"
_FLAGS = ("add_bos_token", "add_eos_token")
_TRIES = ("a \u0378", "")
# Names that llama.cpp takes for tokens of control whatever their type says.
_ENDS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
    + ("<EOT>", "_<EOT>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<end_of_utterance>")
    + ("<|eom_id|>",)
)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_SHORT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# As llama.cpp has them; publishers count accents of their own and other scripts differently.
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_ASIDE = r"[^\r\n\p{L}\p{N}]?"
_LLAMA3 = (rf"{_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",)
_QWEN2 = (rf"{_SHORT}|{_WORDS}|\p{{N}}|{_REST}",)
_DIGITS = (r"\p{N}", _GPT2)
_TEKKEN = (
    rf"{_ASIDE}{_UPPER}*{_LOWER}+|{_ASIDE}{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
# What `tokenizer.ggml.pre` says -> the patterns that split a text into words, one after the other.
SPLITS: Mapping[str, Sequence[str]] = {
    "gpt-2": (_GPT2,),
    "gpt2": (_GPT2,),
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "tekken": _TEKKEN,
    "gpt-4o": (
        rf"{_ASIDE}{_UPPER}*{_LOWER}+{_SHORT}?|{_ASIDE}{_UPPER}+{_LOWER}*{_SHORT}?|\p{{N}}{{1,3}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
_LONGEST_TOKEN = 10_000  # letters; halves of each are looked for
# A word that is a token is not merged, and texts begin with a token unless the file says otherwise.
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "tekken")


def tokenizer_of(file: GgufFile, rows: int) -> Tokenizer:
    """Return the tokenizer of a file.

    Args:
      rows: of the model's table.

    Raises:
      ModelError: it is missing, damaged, of a kind that is not read, or has more tokens than the
        table has rows.
    """
    return with_size(file, rows)[0]


def with_size(file: GgufFile, rows: int) -> tuple[Tokenizer, TokenizerSize]:
    """Return a tokenizer, as `tokenizer_of` has it, and how much there is in it.

    Raises:
      ModelError: as `tokenizer_of`.
    """
    kind = file.word("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ModelError(
            f"{file.path}: its tokenizer is {kind[:40]!r}, and 'gpt2' (BPE) and 'llama' "
            "(sentencepiece) are read; name the folder of the model in safetensors."
        )
    tokens = _list(file, "tokens", str)
    if len(tokens) > rows:
        raise ModelError(
            f"{file.path}: the tokenizer has {len(tokens)} tokens, the model's table {rows} rows; "
            "they do not belong together."
        )
    if (longest := max(map(len, tokens), default=0)) > _LONGEST_TOKEN:
        raise ModelError(
            f"{file.path}: a token has {longest} letters, the limit is {_LONGEST_TOKEN}; download "
            "it again."
        )
    if len(set(tokens)) < len(tokens):
        raise ModelError(f"{file.path}: a token is there twice; download it again.")
    try:
        made, merges = (_of_merges if kind == "gpt2" else _of_scores)(file, tokens)
        _add(file, made, tokens)
        made.post_processor = _around(file, kind, tokens)
        for text in _TRIES:
            made.encode(text)
    except (ModelError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain Exceptions of tokenizers; panics of its Rust are none
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{file.path}: the tokenizer cannot be read ({why}); download it again."
        ) from error
    return made, TokenizerSize(len(tokens), merges, Source.GGUF)


def settings_of(file: GgufFile) -> dict[str, Any]:
    """Return what `tokenizer_config.json` says: tokens with a role, and the chat template."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    known = tokens if isinstance(tokens, list) else []
    found: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for role, key in roles.items():
        number = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(number) is int and 0 <= number < len(known):
            found[f"{role}_token"] = known[number]
    if isinstance(template := file.metadata.get("tokenizer.chat_template"), str):
        found["chat_template"] = template
        if isinstance(tools := file.metadata.get("tokenizer.chat_template.tool_use"), str):
            named = {"default": template, "tool_use": tools}  # as transformers writes several
            found["chat_template"] = [{"name": n, "template": t} for n, t in named.items()]
    return found


def _list(file: GgufFile, key: str, of: type, count: int | None = None) -> list[Any]:
    """Return an array of the tokenizer.

    Raises:
      ModelError: it is missing, of another type or of another length than the tokens.
    """
    found = file.metadata.get(f"tokenizer.ggml.{key}")
    plain = found if isinstance(found, list) else getattr(found, "tolist", list)()
    if not plain or not isinstance(plain[0], of) or count not in (None, len(plain)):
        raise ModelError(
            f"{file.path}: tokenizer.ggml.{key} is missing or does not fit its tokens; download it "
            "again."
        )
    return plain


def _of_merges(file: GgufFile, tokens: Sequence[str]) -> tuple[Tokenizer, int]:
    """Return a tokenizer, and the number of its merges."""
    name = file.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if name not in SPLITS:
        raise ModelError(
            f"{file.path}: its texts are split into words by {str(name)[:40]!r}, and "
            f"{', '.join(sorted(SPLITS))} are read; name the folder of the model in safetensors."
        )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    lines = _list(file, "merges", str)
    for line in lines:
        if "".join(_pieces(line)) not in vocabulary:  # at which the library panics, and prints it
            raise ModelError(
                f"{file.path}: merges {line[:40]!r} to what is no token; download it again."
            )
    merges = Merges(len(lines), lambda: map(_pieces, lines))
    made = Tokenizer(BPE(vocabulary, merges, ignore_merges=name in _WHOLE_WORDS))
    splits = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in SPLITS[name]]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = [*splits, letters]
    if missing := [one for one in pre_tokenizers.ByteLevel.alphabet() if one not in vocabulary]:
        # Such a byte is left out, as in llama.cpp, and what stands around it is not merged; left to
        # itself the model would merge as if it had never been there.
        absent = "|".join(map(re.escape, sorted(missing)))
        steps.append(pre_tokenizers.Split(Regex(absent), behavior="removed"))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    return made, len(merges)


def _pieces(line: str) -> tuple[str, str]:
    """Return the two pieces of a merge; the first may begin with a space."""
    at = line.find(" ", 1)
    return line[:at], line[at + 1 :]


def _of_scores(file: GgufFile, tokens: Sequence[str]) -> tuple[Tokenizer, int]:
    """Return a tokenizer, and the number of its merges."""
    scores = _list(file, "scores", float, len(tokens))
    types = _list(file, "token_type", int, len(tokens))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    ranked = _ranked(vocabulary, np.array(scores))
    del scores
    merges = Merges(len(ranked), lambda: ((tokens[left], tokens[right]) for left, right in ranked))
    number = file.metadata.get("tokenizer.ggml.unknown_token_id", 0)
    unknown = tokens[number] if type(number) is int and 0 <= number < len(tokens) else None
    bytes_too = _BYTE in types
    model = BPE(vocabulary, merges, unk_token=unknown, byte_fallback=bytes_too, fuse_unk=False)
    made = Tokenizer(model)
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    return made, len(merges)


def _ranked(vocabulary: Mapping[str, int], scores: NDArray[np.float64]) -> NDArray[np.intc]:
    """Return every pair of tokens that joins to a token, the one of the best score first.

    Returns:
      (pairs, 2) ids; pairs of one score are in the order of the joined, then of the left token.

    Memory:
      40 bytes a pair: a vocabulary of 256,000 has half a million, and as tuples they take ten
      times that.
    """
    joined, left, right = array("i"), array("i"), array("i")
    for token, place in vocabulary.items():
        for at in range(1, len(token)):
            one, two = vocabulary.get(token[:at]), vocabulary.get(token[at:])
            if one is not None and two is not None:
                joined.append(place)
                left.append(one)
                right.append(two)
    places, pairs = np.array(joined), np.array((left, right)).reshape(2, -1)
    order = np.lexsort((pairs[0], places, -scores[places]))
    found: NDArray[np.intc] = pairs[:, order].T
    return found


def _add(file: GgufFile, made: Tokenizer, tokens: Sequence[str]) -> None:
    """Have tokens of control, and those that users added, found in texts as they stand."""
    types = _list(file, "token_type", int, len(tokens))
    pairs = list(zip(tokens, types, strict=True))
    special = [t for t, kind in pairs if kind in (_UNKNOWN, _CONTROL) or t in _ENDS]
    added = [t for t, kind in pairs if kind == _USER and t not in _ENDS]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special if t])
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in added if t])


def _around(file: GgufFile, kind: str, tokens: Sequence[str]) -> TemplateProcessing:
    """Return what puts the first and last token around a text, where the file asks for them."""
    begins = kind == "llama" or file.metadata.get("tokenizer.ggml.pre") in _WHOLE_WORDS
    found: list[list[tuple[str, int]]] = []
    for flag, default in zip(_FLAGS, (begins, False), strict=True):
        role = flag.split("_")[1]
        number = file.metadata.get(f"tokenizer.ggml.{role}_token_id")
        wanted = file.metadata.get(f"tokenizer.ggml.{flag}", default) is True
        if wanted and isinstance(number, int) and 0 <= number < len(tokens):
            found.append([(tokens[number], number)])
        else:
            found.append([])
    front, back = found

    def around(text: str, at: int) -> list[str]:
        return [f"{one[0]}:{at}" for one in front] + [text] + [f"{one[0]}:{at}" for one in back]

    return TemplateProcessing(
        single=around("$A:0", 0),
        pair=around("$A:0", 0) + around("$B:1", 1),
        special_tokens=list(dict.fromkeys(front + back)),
    )
