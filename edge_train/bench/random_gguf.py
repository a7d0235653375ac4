"""GGUF files of a wanted shape: the header of a real model, random weights in its kind of blocks.

The numbers mean nothing and have the size of real ones: codes are random bytes, one block of them
repeated, scales are what gives weights a deviation of 0.02.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.atomic import write_parts
from edge_train.formats.gguf.blocks import BLOCK_TYPES
from edge_train.formats.gguf.writing import NewTensor, count, gguf_parts, real, word

_REPEATED = 1 << 22  # bytes of random codes, about
_INT32, _STRING, _ARRAY = 5, 8, 9  # types of values
_NORMAL, _CONTROL = 1, 3  # tokens
_LETTERS = "ABCDEFGHIJKLMNOPQR"  # of tokens that merges make; texts have few of them
_KINDS = {kind.name: kind for kind in BLOCK_TYPES.values()}
_TABLES = "Q6_K"  # of tokens and the output layer, as llama.cpp has them beside four bits


@dataclass(frozen=True)
class Shape:
    """How large a model of the Llama family is.

    Attributes:
      tied: it has no output layer of its own.
      merges: of its tokenizer, about two for each token in a real one.
    """

    width: int
    inner: int
    layers: int
    heads: int
    groups: int
    vocabulary: int
    tied: bool
    merges: int = 1


def write_gguf(path: Path, shape: Shape, kind: str) -> None:
    """Write a file.

    Args:
      kind: of the layers' matrices, `Q4_0` or `Q4_K`.

    Memory: some megabytes, whatever the shape.
    """
    blocks = {name: _random_blocks(name) for name in (kind, _TABLES)}

    def matrix(name: str, rows: int, columns: int) -> NewTensor:
        made = NewTensor(name, (rows, columns), lambda: ())
        return NewTensor(name, made.shape, _repeated(blocks[name], made.nbytes))

    ones = np.ones(shape.width, "<f4").tobytes()
    norm = NewTensor("F32", (shape.width,), lambda: (ones,))
    side = shape.width // shape.heads * shape.groups
    tensors = {"token_embd.weight": matrix(_TABLES, shape.vocabulary, shape.width)}
    for number in range(shape.layers):
        for part, rows, columns in (
            ("attn_q", shape.width, shape.width),
            ("attn_k", side, shape.width),
            ("attn_v", side, shape.width),
            ("attn_output", shape.width, shape.width),
            ("ffn_gate", shape.inner, shape.width),
            ("ffn_up", shape.inner, shape.width),
            ("ffn_down", shape.width, shape.inner),
        ):
            tensors[f"blk.{number}.{part}.weight"] = matrix(kind, rows, columns)
        tensors |= {f"blk.{number}.{part}_norm.weight": norm for part in ("attn", "ffn")}
    tensors["output_norm.weight"] = norm
    if not shape.tied:
        tensors["output.weight"] = matrix(_TABLES, shape.vocabulary, shape.width)
    write_parts(path, gguf_parts(_values(shape), tensors))


def _values(shape: Shape) -> Mapping[str, bytes]:
    from tokenizers.pre_tokenizers import ByteLevel

    made, merges = _merged(shape.merges - 1)
    tokens = ["<s>", "</s>", *sorted(ByteLevel.alphabet()), "he", *made]
    tokens += [f"<unused{number}>" for number in range(shape.vocabulary - len(tokens))]
    kinds = [_CONTROL, _CONTROL] + [_NORMAL] * (shape.vocabulary - 2)
    return {
        "general.architecture": word("llama"),
        "llama.embedding_length": count(shape.width),
        "llama.block_count": count(shape.layers),
        "llama.attention.head_count": count(shape.heads),
        "llama.attention.head_count_kv": count(shape.groups),
        "llama.feed_forward_length": count(shape.inner),
        "llama.context_length": count(4096),
        "llama.attention.layer_norm_rms_epsilon": real(1e-5),
        "llama.rope.freq_base": real(10_000.0),
        "tokenizer.ggml.model": word("gpt2"),
        "tokenizer.ggml.pre": word("smollm"),
        "tokenizer.ggml.tokens": _texts(tokens),
        "tokenizer.ggml.token_type": struct.pack("<IIQ", _ARRAY, _INT32, len(kinds))
        + np.array(kinds, "<i4").tobytes(),
        "tokenizer.ggml.merges": _texts(["h e", *merges]),
        "tokenizer.ggml.bos_token_id": count(0),
        "tokenizer.ggml.eos_token_id": count(1),
    }


def _merged(most: int) -> tuple[list[str], list[str]]:
    """Return words of two letters, of three and so on, and so many merges that make them.

    Every way to part a word is a merge, as nearly every one is in the vocabulary of Llama 3.
    """
    words: list[str] = []
    merges: list[str] = []
    for length in range(2, 9):
        for letters in product(_LETTERS, repeat=length):
            if len(merges) >= most:
                return words, merges[:most]
            words.append("".join(letters))
            merges += [f"{words[-1][:at]} {words[-1][at:]}" for at in range(1, length)]
    return words, merges


def _texts(texts: Sequence[str]) -> bytes:
    coded = (text.encode() for text in texts)
    strings = b"".join(struct.pack("<Q", len(text)) + text for text in coded)
    return struct.pack("<IIQ", _ARRAY, _STRING, len(texts)) + strings


def _random_blocks(name: str) -> bytes:
    kind = _KINDS[name]
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (_REPEATED // kind.nbytes, kind.nbytes), dtype=np.uint8)
    _GIVE_SCALES[name](blocks)
    return blocks.tobytes()


def _repeated(blocks: bytes, nbytes: int) -> Callable[[], Iterable[bytes]]:
    def parts() -> Iterator[bytes]:
        for start in range(0, nbytes, len(blocks)):
            yield blocks[: min(len(blocks), nbytes - start)]

    return parts


def _halves(blocks: NDArray[np.uint8], at: int, *values: float) -> None:
    halves = np.array(values, "<f2").view(np.uint8)
    blocks[:, at : at + len(halves)] = halves


# Codes less their middle deviate by 4.6 of 16, and 18 of 64. Scales within a block are random, too:
# from 0 to 63 beside minima that are as large in the mean, and from -128 to 127.
_GIVE_SCALES: Mapping[str, Callable[[NDArray[np.uint8]], None]] = {
    "Q4_0": lambda blocks: _halves(blocks, 0, 0.02 / 4.6),
    "Q4_K": lambda blocks: _halves(blocks, 0, 1.2e-4, 9e-4),
    "Q6_K": lambda blocks: _halves(blocks, 208, 1.5e-5),
}
